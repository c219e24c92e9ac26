//! Readers of a tenant's log, as they are out there: they come again with their cursor when they are cut off.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use harness::{ApiClient, sse::EventStream};
use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::history::Reader;

/// A stream that says nothing for so long is given up: it says something each second.
const SILENT: Duration = Duration::from_secs(10);
/// For the stream's own clock, which is not the one that counts here.
const EVER: Duration = Duration::from_secs(86_400);
/// Before a reader comes again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A reader at work. It ends when dropped.
pub struct Follower {
    name: String,
    heard: Arc<Mutex<Vec<Value>>>,
    task: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Reads by server-sent events.
    pub fn by_stream(client: ApiClient, name: String) -> Self {
        Self::start(name, |heard| async move {
            let mut cursor = "0".to_owned();
            loop {
                if let Some(Ok(mut stream)) = client.try_stream("/api/events/stream", &[("last-event-id", cursor.as_str())]).await {
                    listen(&mut stream, &heard, &mut cursor).await;
                }
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        })
    }

    /// Reads by long poll.
    pub fn by_poll(client: ApiClient, name: String) -> Self {
        Self::start(name, |heard| async move {
            let mut after = 0;
            loop {
                let page = client.try_ask(Method::GET, &format!("/api/events?after={after}&wait=5"), &[], None).await;
                match page.filter(|page| page.status.is_success()) {
                    Some(page) => {
                        after = page.body["next"].as_i64().unwrap_or(after);
                        put(&heard, page.body["items"].as_array().cloned().unwrap_or_default());
                    }
                    None => tokio::time::sleep(AGAIN_AFTER).await,
                }
            }
        })
    }

    fn start<F: Future<Output = ()> + Send + 'static>(name: String, read: impl FnOnce(Arc<Mutex<Vec<Value>>>) -> F) -> Self {
        let heard = Arc::default();
        let task = tokio::spawn(read(Arc::clone(&heard)));
        Self { name, heard, task }
    }

    /// What it has been told so far.
    pub fn reader(&self) -> Reader {
        let events = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Reader { name: self.name.clone(), events, at_least_once: false }
    }

    /// The last `seq` it was told.
    pub fn at(&self) -> i64 {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).last().and_then(|event| event["seq"].as_i64()).unwrap_or_default()
    }
}

async fn listen(stream: &mut EventStream, heard: &Mutex<Vec<Value>>, cursor: &mut String) {
    while let Ok(Some(said)) = tokio::time::timeout(SILENT, stream.next(EVER)).await {
        if !said.id.is_empty() {
            cursor.clone_from(&said.id);
        }
        put(heard, said.data.into_iter().collect());
    }
}

/// What is in no log cannot be compared with it.
fn put(heard: &Mutex<Vec<Value>>, mut events: Vec<Value>) {
    events.retain(|event| event["seq"].is_i64());
    heard.lock().unwrap_or_else(PoisonError::into_inner).extend(events);
}
