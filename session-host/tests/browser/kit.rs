//! A browser under test, and the events it reported.
use crate::SIMULATOR;
use harness::{User, simulator::Simulator};
use ring::digest::{SHA256, digest};
use session_host::browser::{
    self, Browser, BrowserConfig, BrowserEnv, BrowserTimings, CallError, PageCall, PageEvent, ProfileDir, QrCode, ResolveChat, SendText,
    SentMessage, StreamState,
};
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::sync::{mpsc, watch};

pub const LONG: Duration = Duration::from_secs(30);

/// Shorter than in production where a test would wait for them.
pub fn timings() -> BrowserTimings {
    BrowserTimings { beat: Duration::from_secs(2), gate_within: Duration::from_secs(20), ..BrowserTimings::default() }
}

/// The programs of this machine, pointed at a simulator and at nothing else.
pub async fn env(dir: &Path, page: &str, spki: &str, timings: BrowserTimings) -> Arc<BrowserEnv> {
    env_of(HEADLESS_SHELL, dir, page, spki, timings).await
}

const HEADLESS_SHELL: &str = "/usr/lib/chromium/chromium-headless-shell";
pub const FULL_CHROMIUM: &str = "/usr/lib/chromium/chromium";

pub async fn env_of(chromium: &str, dir: &Path, page: &str, spki: &str, timings: BrowserTimings) -> Arc<BrowserEnv> {
    let config = BrowserConfig {
        chromium: chromium.into(),
        chromedriver: "/usr/bin/chromedriver".into(),
        extra_args: vec![
            format!("--host-resolver-rules=MAP web.whatsapp.com {page},MAP * ~NOTFOUND"),
            format!("--ignore-certificate-errors-spki-list={spki}"),
        ],
        data_dir: dir.join("data"),
        timings,
    };
    BrowserEnv::check(config).await.unwrap()
}

/// Our account and somebody else's.
pub const ME: &str = "5511999990001";
pub const PEER: &str = "5511888880002";

/// A simulator that knows the two accounts.
pub async fn simulator(dir: &Path) -> Simulator {
    let logs = dir.join(harness::random_word(4));
    std::fs::create_dir(&logs).unwrap();
    let sim = Simulator::start(User::find().unwrap(), &dir.join(SIMULATOR), &logs).await.unwrap();
    for phone in [ME, PEER] {
        sim.account(phone).await;
    }
    sim
}

/// A simulator, two accounts, and an environment whose browsers see nothing else.
pub async fn world(dir: &Path) -> (Simulator, Arc<BrowserEnv>) {
    let sim = simulator(dir).await;
    let env = env(dir, &sim.page, &sim.spki, timings()).await;
    (sim, env)
}

/// Opens the directory `prf_test` of this environment.
pub async fn profile(env: &BrowserEnv) -> Arc<ProfileDir> {
    ProfileDir::open(&env.config().data_dir, "prf_test").await.unwrap()
}

/// The key under which message `name` of ours goes to `chat`.
pub fn key(chat: &str, name: &str) -> String {
    let hash = digest(&SHA256, name.as_bytes());
    format!("true_{chat}_3EB0{}", hash.as_ref()[..9].iter().map(|b| format!("{b:02X}")).collect::<String>())
}

pub fn id_part(key: &str) -> &str {
    key.split('_').nth(2).unwrap()
}

/// A browser and all it has said so far.
pub struct Rig {
    pub browser: Browser,
    log: Arc<Mutex<Vec<PageEvent>>>,
    grown: watch::Receiver<usize>,
    calls: Mutex<u64>,
}

impl Rig {
    pub async fn start(env: &Arc<BrowserEnv>, profile: &Arc<ProfileDir>) -> Self {
        let (tx, mut rx) = mpsc::channel(64);
        let browser = browser::start(env, profile, None, tx).await.unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (grow, grown) = watch::channel(0);
        let written = log.clone();
        tokio_util::task::TaskTracker::new().spawn(async move {
            while let Some(event) = rx.recv().await {
                let mut log = written.lock().unwrap();
                log.push(event);
                grow.send_replace(log.len());
            }
        });
        Self { browser, log, grown, calls: Mutex::new(0) }
    }

    /// Everything said so far.
    pub fn log(&self) -> Vec<PageEvent> {
        self.log.lock().unwrap().clone()
    }

    /// How much was said so far: what comes later is looked for from here.
    pub fn mark(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// The first event from `mark` on for which `pick` answers something.
    pub async fn until<T>(&self, what: &str, mark: usize, pick: impl Fn(&PageEvent) -> Option<T>) -> T {
        let mut grown = self.grown.clone();
        let search = async {
            let mut at = mark;
            loop {
                grown.borrow_and_update();
                let log = self.log();
                if let Some(found) = log[at..].iter().find_map(&pick) {
                    return found;
                }
                at = log.len();
                assert!(grown.changed().await.is_ok(), "the browser's events ended before: {what}; {:#?}", &log[mark..]);
            }
        };
        let found = tokio::time::timeout(LONG, search).await;
        found.unwrap_or_else(|_| panic!("not in time: {what}; since then {:#?}", &self.log()[mark..]))
    }

    pub async fn ready(&self, mark: usize) -> u64 {
        self.until("ready", mark, |e| if let PageEvent::Ready { document } = e { Some(*document) } else { None }).await
    }

    /// Ready and linked: the state that messages are sent in.
    pub async fn working(&self, mark: usize) -> u64 {
        self.until("stream MAIN", mark, main_stream).await;
        self.ready(mark).await
    }

    /// Links our account by the code that the page shows, and answers when messages can be sent.
    pub async fn link(&self, sim: &Simulator) {
        let code = self.until("a code", 0, |e| if let PageEvent::Qr { code: Some(c), .. } = e { Some(c.clone()) } else { None }).await;
        self.ready(0).await;
        assert_eq!(self.ask(&QrCode {}).await.as_deref(), Some(&*code));
        assert_eq!(code.split(',').count(), 5, "as many parts as the page draws");
        let mark = self.mark();
        assert!(sim.scan(ME, &code).await);
        self.until("stream MAIN", mark, main_stream).await;
        self.until("no code any more", mark, |e| matches!(e, PageEvent::Qr { code: None, .. }).then_some(())).await;
    }

    /// The chat with the other account.
    pub async fn chat(&self) -> String {
        self.ask(&ResolveChat { chat: format!("{PEER}@c.us") }).await.chat
    }

    /// Hands over a text under the id that `name` gives, as the job of that name.
    pub async fn send(&self, chat: &str, name: &str) -> Result<SentMessage, CallError> {
        let call = SendText { chat: chat.into(), text: format!("text of {name}"), key: key(chat, name), quoted: None, mark_read: false };
        self.browser.call(&call, name, LONG).await
    }

    /// Until the server has acknowledged that text.
    pub async fn acked(&self, mark: usize, chat: &str, name: &str) {
        let id = key(chat, name);
        let acked =
            |e: &PageEvent| matches!(e, PageEvent::Ack(a) if a.ack >= 1 && a.id_parts.iter().any(|p| p == id_part(&id))).then_some(());
        self.until(&format!("the ack of {name}"), mark, acked).await;
    }

    /// The peer writes, and we hear it.
    pub async fn hears(&self, sim: &Simulator, text: &str) {
        let mark = self.mark();
        let id = sim.send(PEER, ME, text).await;
        let heard = |e: &PageEvent| if let PageEvent::Message(m) = e { (m.id_part == id).then(|| m.clone()) } else { None };
        let message = self.until(&format!("the text {text:?}"), mark, heard).await;
        assert_eq!((message.body.as_deref(), message.kind.as_str(), message.from_me), (Some(text), "chat", false));
    }

    /// A call with an id of its own.
    pub async fn ask<C: PageCall>(&self, call: &C) -> C::Answer {
        let id = {
            let mut n = self.calls.lock().unwrap();
            *n += 1;
            format!("ask-{n}")
        };
        self.browser.call(call, &id, LONG).await.unwrap_or_else(|e| panic!("{}: {e:?}", C::NAME))
    }
}

fn main_stream(event: &PageEvent) -> Option<StreamState> {
    match event {
        PageEvent::Stream(s) if s.registered && s.mode == "MAIN" => Some(s.clone()),
        _ => None,
    }
}
