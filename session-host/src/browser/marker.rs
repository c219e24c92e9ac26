//! The marker: one word in IndexedDB and in localStorage of the site. A browser that was killed while it wrote may find either of them empty,
//! without any error; so the word is compared before the page may go on, and a page whose storage is gone never gets to ask for a new link.
use super::{
    cdp::{CdpError, CdpEvent},
    page::{Link, SHORT, SITE},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::timeout};

/// Reads both, without making a database that is not there. Runs where the page's own code never ran.
const READ: &str = r#"(async () => {
 try {
  const name = 'storage-mark';
  const settled = (request) => new Promise((done, fail) => { request.onsuccess = () => done(request.result); request.onerror = () => fail(request.error); });
  let stored = null;
  if ((await indexedDB.databases()).some((d) => d.name === name)) {
    const database = await settled(indexedDB.open(name));
    if (database.objectStoreNames.contains('mark')) stored = (await settled(database.transaction('mark').objectStore('mark').get(0))) ?? null;
    database.close();
  }
  return JSON.stringify({ origin: location.origin, local: localStorage.getItem(name), stored });
 } catch (error) {
  return JSON.stringify({ origin: location.origin, unreadable: `${error}` });
 }
})()"#;

/// Writes a word where none stands, or two that differ; answers the one that stands. It is on disk once the browser has closed.
const WRITE: &str = r#"(async (word) => {
  const name = 'storage-mark';
  const settled = (request) => new Promise((done, fail) => { request.onsuccess = () => done(request.result); request.onerror = () => fail(request.error); });
  const opening = indexedDB.open(name, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore('mark');
  const database = await settled(opening);
  const stored = await settled(database.transaction('mark').objectStore('mark').get(0));
  const local = localStorage.getItem(name);
  if (stored && stored === local) word = stored;
  else {
    const transaction = database.transaction('mark', 'readwrite', { durability: 'strict' });
    transaction.objectStore('mark').put(word, 0);
    await new Promise((done, fail) => { transaction.oncomplete = done; transaction.onabort = () => fail(transaction.error); });
    localStorage.setItem(name, word);
  }
  database.close();
  return word;
})"#;

#[derive(Deserialize)]
struct Found {
    origin: String,
    local: Option<String>,
    stored: Option<String>,
    unreadable: Option<String>,
}

/// What a storage has of the word that it should hold.
#[derive(Debug)]
pub(crate) enum Storage {
    /// It holds it in both places.
    Whole,
    /// It does not: it was erased, or is another's.
    Erased,
    /// The browser cannot open it, and says why: it may be whole, on a disk without room.
    Unreadable(String),
}

/// Opens the site as an empty document, with no network at all, and says whether its storage holds `word` in both places.
pub(crate) async fn holds(link: &Link, events: &mut mpsc::Receiver<CdpEvent>, word: &str) -> Result<Storage, CdpError> {
    let before: [(&'static str, Value); 3] = [
        ("Network.enable", json!({})),
        // It would answer in the network's place, with the page itself.
        ("Network.setBypassServiceWorker", json!({"bypass": true})),
        ("Fetch.enable", json!({"patterns": [{"urlPattern": "*"}]})),
    ];
    for (method, params) in before {
        link.command(method, params).await?;
    }
    timeout(SHORT, navigate_to_nothing(link, events)).await.map_err(|_| CdpError::Deadline("Page.navigate"))??;
    let found: Found = read(&evaluate(link, READ.to_owned()).await?)?;
    if !SITE.starts_with(&found.origin) {
        return Err(CdpError::Protocol { method: "Page.navigate", message: format!("the document is one of {}", found.origin) });
    }
    for (method, params) in
        [("Fetch.disable", json!({})), ("Network.setBypassServiceWorker", json!({"bypass": false})), ("Network.disable", json!({}))]
    {
        link.command(method, params).await?;
    }
    Ok(match found {
        Found { unreadable: Some(why), .. } => Storage::Unreadable(why),
        Found { local, stored, .. } if local.as_deref() == Some(word) && stored.as_deref() == Some(word) => Storage::Whole,
        Found { .. } => Storage::Erased,
    })
}

/// The navigation waits for its requests to be answered, and so both go on beside each other.
async fn navigate_to_nothing(link: &Link, events: &mut mpsc::Receiver<CdpEvent>) -> Result<(), CdpError> {
    let navigated = link.navigate();
    tokio::pin!(navigated);
    loop {
        tokio::select! {
            done = &mut navigated => return done,
            event = events.recv() => match event {
                Some(event) if event.method == "Fetch.requestPaused" => answer(link, &event.params).await?,
                Some(_) => {}
                None => return Err(CdpError::Closed("Page.navigate")),
            },
        }
    }
}

async fn answer(link: &Link, paused: &Value) -> Result<(), CdpError> {
    let id = &paused["requestId"];
    let (method, params) = match paused["resourceType"].as_str() {
        Some("Document") => {
            let headers =
                json!([{"name": "content-type", "value": "text/html; charset=utf-8"}, {"name": "cache-control", "value": "no-store"}]);
            ("Fetch.fulfillRequest", json!({"requestId": id, "responseCode": 200, "responseHeaders": headers, "body": ""}))
        }
        _ => ("Fetch.failRequest", json!({"requestId": id, "errorReason": "BlockedByClient"})),
    };
    link.command(method, params).await.map(drop)
}

/// Sees to it that the storage of the page's site holds a word; answers which.
pub(crate) async fn write(link: &Link, word: &str) -> Result<String, CdpError> {
    evaluate(link, format!("{WRITE}({})", json!(word))).await
}

async fn evaluate(link: &Link, expression: String) -> Result<String, CdpError> {
    let method = "Runtime.evaluate";
    let answer = link.command(method, json!({"expression": expression, "awaitPromise": true, "returnByValue": true})).await?;
    answer["result"]["value"].as_str().map(str::to_owned).ok_or_else(|| {
        let thrown = &answer["exceptionDetails"];
        let why = thrown["exception"]["description"].as_str().or(thrown["text"].as_str());
        CdpError::Protocol { method, message: why.unwrap_or("it answered no text").chars().take(300).collect() }
    })
}

fn read(text: &str) -> Result<Found, CdpError> {
    serde_json::from_str(text).map_err(|error| CdpError::Protocol { method: "Runtime.evaluate", message: error.to_string() })
}
