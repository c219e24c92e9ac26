//! Callers and phones.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use harness::{ApiClient, client::Answer, simulator::Control};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use crate::{
    history::{Incoming, Send},
    plan::{Act, How, Timed},
};

/// Before a caller asks again.
const AGAIN_AFTER: Duration = Duration::from_millis(300);
/// How long a caller waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// A linked account.
#[derive(Debug, Clone)]
pub struct Account {
    /// Whose.
    pub tenant: usize,
    /// Its session's public id.
    pub session: String,
    /// Its number.
    pub phone: String,
}

/// Who does what the plan says, and notes what came of it.
pub struct Traffic {
    /// A tenant's caller at each service.
    pub callers: Vec<Vec<ApiClient>>,
    /// The phones.
    pub phones: Control,
    /// The accounts.
    pub accounts: Vec<Account>,
    /// The numbers of customers.
    pub peers: Vec<String>,
    /// When it began.
    pub start: Instant,
    /// Until when callers ask again.
    pub patience: Instant,
    seen: Mutex<Seen>,
}

/// What they noted.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// By the text's number.
    pub sends: HashMap<usize, Send>,
    /// What phones wrote.
    pub incoming: Vec<Incoming>,
    /// How often a caller asked.
    pub asked: usize,
}

impl Traffic {
    /// Who will do it.
    pub fn new(callers: Vec<Vec<ApiClient>>, phones: Control, accounts: Vec<Account>, peers: Vec<String>, patience: Duration) -> Self {
        let start = Instant::now();
        Self { callers, phones, accounts, peers, start, patience: start + patience, seen: Mutex::default() }
    }

    /// What they have noted so far.
    pub fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Does all of it, each at its time, and waits for its end.
    pub async fn play(self: &Arc<Self>, acts: &[Timed<Act>]) {
        let mut all = JoinSet::new();
        for act in acts {
            tokio::time::sleep_until(self.start + Duration::from_millis(act.at)).await;
            let (me, what) = (self.clone(), act.what.clone());
            all.spawn(async move { me.act(what).await });
        }
        while let Some(done) = all.join_next().await {
            done.expect("an act does not panic");
        }
    }

    /// Does one thing.
    pub async fn act(&self, act: Act) {
        match act {
            Act::Send { session, peer, n, how, api } => self.send(session, peer, n, how, api).await,
            Act::Incoming { session, peer, n } => self.incoming(session, peer, n).await,
            Act::MarkRead { session, peer, api } => {
                let path = self.path(session, &format!("/chats/{}/read", self.peers[peer]));
                self.ask(session, api, &path, &[], json!({})).await;
            }
            Act::Cancel { n, api } => self.cancel(n, api).await,
            Act::PhoneReads { session, peer } => {
                let read = format!("/accounts/{}/read", self.peers[peer]);
                // Where they have not written to each other yet there is nothing to read.
                self.phones.ask(Method::POST, &read, Some(json!({"chat": self.accounts[session].phone}))).await;
            }
        }
    }

    fn path(&self, session: usize, rest: &str) -> String {
        format!("/api/sessions/{}{rest}", self.accounts[session].session)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn ask(&self, session: usize, api: usize, path: &str, headers: &[(&str, &str)], body: Value) -> Option<Answer> {
        let callers = &self.callers[self.accounts[session].tenant];
        self.note(|seen| seen.asked += 1);
        let asked = callers[api % callers.len()].try_ask(Method::POST, path, headers, Some(body));
        tokio::time::timeout(ANSWER_WITHIN, asked).await.ok()?
    }

    async fn send(&self, session: usize, peer: usize, n: usize, how: How, api: usize) {
        let text = format!("out {n} of account {session} to {peer}");
        let (path, body) = (self.path(session, &format!("/chats/{}/messages", self.peers[peer])), json!({"type": "text", "text": text}));
        let asked = self.now();
        self.note(|seen| drop(seen.sends.insert(n, Send { session, peer, text, asked, ..Send::default() })));
        let key = format!("key-{n}");
        let keyed = [("idempotency-key", key.as_str())];
        match how {
            How::Plain => {
                let answer = self.ask(session, api, &path, &[], body).await;
                return self.answered(n, answer.as_ref());
            }
            How::Keyed => {}
            How::Twice => {
                let both = [0, 1].map(|other| self.ask(session, api + other, &path, &keyed, body.clone()));
                for answer in futures::future::join_all(both).await {
                    self.answered(n, answer.as_ref());
                }
            }
            How::Cut(ms) => {
                let hung_up = self.ask(session, api, &path, &keyed, body.clone());
                if let Ok(answer) = tokio::time::timeout(Duration::from_millis(ms), hung_up).await {
                    self.answered(n, answer.as_ref());
                }
            }
        }
        let mut turn = api;
        while Instant::now() < self.patience {
            let answer = self.ask(session, turn, &path, &keyed, body.clone()).await;
            self.answered(n, answer.as_ref());
            if answer.is_some_and(|answer| answer.status.is_success()) {
                return;
            }
            turn += 1;
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// What a caller makes of an answer. None, and 503 `acceptance_unknown`, leave it where it was.
    fn answered(&self, n: usize, answer: Option<&Answer>) {
        let Some(answer) = answer else { return };
        let (now, code) = (self.now(), answer.body["code"].as_str().unwrap_or_default());
        self.note(|seen| {
            let Some(send) = seen.sends.get_mut(&n) else { return };
            if answer.status.is_success() {
                send.accepted.get_or_insert(now);
                send.jobs.extend(answer.body["id"].as_str().map(str::to_owned));
            } else if code != "acceptance_unknown" && answer.status != StatusCode::INTERNAL_SERVER_ERROR {
                send.refused = Some(format!("{} {code}", answer.status.as_u16()));
            }
        });
    }

    async fn incoming(&self, session: usize, peer: usize, n: usize) {
        let text = format!("in {n} of {peer} to account {session}");
        let body = json!({"to": self.accounts[session].phone, "type": "text", "text": text});
        let (status, sent) = self.phones.ask(Method::POST, &format!("/accounts/{}/send", self.peers[peer]), Some(body)).await;
        if let (true, Some(id)) = (status.is_success(), sent["id"].as_str()) {
            let at = chrono::Utc::now().timestamp();
            self.note(|seen| seen.incoming.push(Incoming { session, peer, text, wa_id: id.to_owned(), at }));
        }
    }

    async fn cancel(&self, n: usize, api: usize) {
        let of = self.seen().sends.get(&n).map(|send| (send.session, send.jobs.first().cloned()));
        let Some((session, Some(job))) = of else { return };
        self.ask(session, api, &format!("/api/jobs/{job}/cancel"), &[], json!({})).await;
    }
}
