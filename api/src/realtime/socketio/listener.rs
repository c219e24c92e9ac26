//! Who listens on a connection: let in once, told what its feed shows, and heard in three things.

use std::{collections::VecDeque, net::IpAddr, time::Duration};

use contract::EventType;
use hyper::upgrade::Upgraded;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::{
    line::{Broken, Heard, Line},
    packet::{Packet, Writer, connect_error},
    wwebjs::{self, Facts},
};
use crate::{
    auth::{Caller, Rule, Shown},
    limits::{self, Place},
    middleware,
    problem::{Code, Problem},
    realtime::{Ending, Feed, Next, cursor, filter},
    state::AppState,
};

/// How long a client may take to say who it is.
const LET_IN_WITHIN: Duration = Duration::from_secs(10);
/// How often it may try.
const TRIES: usize = 5;
/// How long before its credential's end a client is told of it.
const EXPIRING: Duration = Duration::from_secs(60);
/// Messages that a client may send in [`WHILE`].
const MESSAGES: usize = 20;
const WHILE: Duration = Duration::from_secs(10);
/// Messages that make no sense, until the connection ends.
const NONSENSE: usize = 10;

/// The `auth` object.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Auth {
    token: Option<String>,
    api_key: Option<String>,
    ticket: Option<String>,
    after: Option<i64>,
    types: Option<Types>,
    session: Option<String>,
    chat: Option<String>,
}

/// `subscribe`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Subscribe {
    types: Option<Types>,
    session: Option<String>,
    chat: Option<String>,
}

/// `resume`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resume {
    after: i64,
}

/// `auth`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Renew {
    token: Option<String>,
    api_key: Option<String>,
}

/// Names of types, in a list or comma-separated.
#[derive(Deserialize)]
#[serde(untagged)]
enum Types {
    List(Vec<String>),
    Text(String),
}

impl Types {
    fn text(self) -> String {
        match self {
            Self::List(names) => names.join(","),
            Self::Text(names) => names,
        }
    }
}

/// What things are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// As in the log.
    Ours,
    /// As whatsapp-web.js calls them.
    Wwebjs,
}

impl Names {
    const ALL: [Self; 2] = [Self::Ours, Self::Wwebjs];

    const fn namespace(self) -> &'static str {
        match self {
            Self::Ours => "/",
            Self::Wwebjs => wwebjs::NAMESPACE,
        }
    }
}

/// Serves a connection to its end.
pub async fn serve(app: AppState, rule: Rule, from: Option<IpAddr>, io: Upgraded) {
    let Ok(mut line) = Line::open(io, app.timings.stream_keep_alive()).await else { return };
    let let_in = tokio::select! {
        let_in = timeout(LET_IN_WITHIN, let_in(&app, rule, from, &mut line)) => let_in,
        () = app.stopping.cancelled() => return line.close(Vec::new(), CloseCode::Away, "stopping").await,
    };
    match let_in {
        Ok(Some(listener)) => listener.listen(line).await,
        Ok(None) | Err(_) => line.close(Vec::new(), CloseCode::Policy, "not let in").await,
    }
}

/// Waits for who it is. `None`: nobody.
async fn let_in(app: &AppState, rule: Rule, from: Option<IpAddr>, line: &mut Line) -> Option<Listener> {
    for _ in 0..TRIES {
        let Heard::Packet(Packet::Connect { namespace, auth }) = line.hear().await else { return None };
        match Listener::new(app, rule, from, &namespace, auth).await {
            Ok(mut listener) => {
                let sid = uuid::Uuid::new_v4().simple().to_string();
                line.say(listener.writer.connected(&sid)).await.ok()?;
                let judged = listener.feed.judged();
                line.say(listener.cursor(judged)).await.ok()?;
                listener.place.keep().await;
                return Some(listener);
            }
            Err(refused) => line.say(connect_error(&namespace, refused.code.as_str(), &body(&refused))).await.ok()?,
        }
    }
    None
}

/// What a refusal says; what was our fault is logged under the id that it names.
fn body(problem: &Problem) -> Value {
    let id = middleware::new_id();
    if problem.code.status().is_server_error() {
        tracing::error!(requestId = id, code = problem.code.as_str(), cause = problem.chain(), "socket not served");
    }
    problem.body(&id)
}

/// How a connection ends.
enum End {
    /// The client is gone.
    Gone,
    /// It is let go, and told why.
    LetGo(Ending),
    /// It is thrown out for what it sends.
    Abuse(Code),
}

impl From<Broken> for End {
    fn from(Broken: Broken) -> Self {
        Self::Gone
    }
}

/// A client that was let in.
struct Listener {
    app: AppState,
    rule: Rule,
    from: Option<IpAddr>,
    names: Names,
    writer: Writer,
    feed: Feed,
    place: Place,
    /// When to say that the credential ends; none: it does not, or it has been said.
    warn_at: Option<Instant>,
    /// When it sent its latest messages.
    messages: VecDeque<Instant>,
    nonsense: usize,
    /// Packets of the event that was being told at the end.
    unsaid: Vec<String>,
}

impl Listener {
    async fn new(app: &AppState, rule: Rule, from: Option<IpAddr>, namespace: &str, auth: Value) -> Result<Self, Problem> {
        let names = Names::ALL.into_iter().find(|names| names.namespace() == namespace).ok_or_else(Problem::not_found)?;
        let Auth { token, api_key, ticket, after, types, session, chat } = read(auth)?;
        let caller = match &ticket {
            Some(ticket) if token.is_none() && api_key.is_none() => Caller::who_shows(app, Shown::Ticket(ticket), from, rule).await?,
            Some(_) => return Err(who_are_you()),
            None => Caller::who_shows(app, shown(&token, &api_key)?, from, rule).await?,
        };
        let types = types.map(Types::text);
        let filter = filter(app, &caller, types.as_deref(), session.as_deref(), chat.as_deref()).await?;
        let after = cursor(after)?;
        let place = limits::stream(app, &caller).await?;
        let feed = Feed::open(app, caller, filter, after).await?;
        Ok(Self {
            app: app.clone(),
            rule,
            from,
            names,
            writer: Writer(names.namespace()),
            feed,
            place,
            warn_at: warn_at(&caller),
            messages: VecDeque::with_capacity(MESSAGES),
            nonsense: 0,
            unsaid: Vec::new(),
        })
    }

    async fn listen(mut self, mut line: Line) {
        let end = loop {
            if let Err(end) = self.step(&mut line).await {
                break end;
            }
        };
        let (reason, detail, code) = match &end {
            End::Gone => return,
            End::LetGo(ending) => {
                ending.count("socketio");
                let refused = if let Ending::Refused(problem) = ending { Some(body(problem)) } else { None };
                (ending.as_str(), refused, if matches!(ending, Ending::Stopping) { CloseCode::Away } else { CloseCode::Policy })
            }
            End::Abuse(code) => (code.as_str(), None, CloseCode::Policy),
        };
        tracing::debug!(why = reason, "socket ends");
        let comes_again = matches!(end, End::LetGo(Ending::TooSlow | Ending::Stopping));
        let mut last = json!({"reason": reason, "cursor": self.feed.judged()});
        if let Some(problem) = detail {
            last["problem"] = problem;
        }
        let mut last: Vec<String> = self.unsaid.drain(..).chain([self.writer.event("stream.end", &[&last.to_string()])]).collect();
        // A client that is disconnected by its server does not come again by itself; one whose connection ends does.
        if !comes_again {
            last.push(self.writer.disconnected());
        }
        drop(self);
        line.close(last, code, reason).await;
    }

    /// One thing that happens.
    async fn step(&mut self, line: &mut Line) -> Result<(), End> {
        let next = tokio::select! {
            heard = line.hear() => return self.answer(heard, line).await,
            next = self.feed.next() => next,
            () = reached(self.warn_at) => {
                self.warn_at = None;
                let expires_at = self.feed.caller().expires_at();
                return self.say(line, self.writer.event("auth.expiring", &[&json!({"expiresAt": expires_at}).to_string()])).await;
            }
        };
        self.place.keep().await;
        let mut packets = self.written(next)?.into_iter();
        while let Some(text) = packets.next() {
            if let Err(end) = self.say(line, text).await {
                // What belongs to the same event leaves with the last words: its number has been told.
                self.unsaid.extend(packets);
                return Err(end);
            }
        }
        Ok(())
    }

    /// What comes next, as packets.
    fn written(&self, next: Next) -> Result<Vec<String>, End> {
        let ours = |kind: &EventType, json: &str| vec![self.writer.event(kind.as_str(), &[json])];
        Ok(match (next, self.names) {
            (Next::Event(event), Names::Ours) => ours(&event.kind, event.json()),
            (Next::Event(event), Names::Wwebjs) => {
                let facts = Facts { kind: &event.kind, timestamp: event.timestamp, chat: event.chat, data: &event.data };
                let packets = wwebjs::packets(self.writer, facts, event.json());
                // One that has no name there moves the cursor all the same.
                if packets.is_empty() { vec![self.cursor(event.seq)] } else { packets }
            }
            (Next::Told(told), names) => {
                // An envelope is always JSON.
                let json = serde_json::to_string(&*told).unwrap_or_default();
                match names {
                    Names::Ours => ours(&told.kind, &json),
                    Names::Wwebjs => {
                        let facts = Facts { kind: &told.kind, timestamp: told.timestamp, chat: told.chat, data: &told.data };
                        wwebjs::packets(self.writer, facts, &json)
                    }
                }
            }
            (Next::Gap(gap), _) => ours(&gap.kind, &serde_json::to_string(&gap).unwrap_or_default()),
            (Next::Judged(seq), _) => vec![self.cursor(seq)],
            (Next::End(ending), _) => return Err(End::LetGo(ending)),
        })
    }

    /// Everything up to here has been judged.
    fn cursor(&self, seq: i64) -> String {
        self.writer.event("cursor", &[&json!({"seq": seq}).to_string()])
    }

    /// Says something, as long as the client may hear and keeps up.
    async fn say(&mut self, line: &mut Line, text: String) -> Result<(), End> {
        tokio::select! {
            // First: what has been begun leaves whole, also where the feed ends at this moment.
            biased;
            said = line.say(text) => Ok(said?),
            ending = self.feed.ended() => Err(End::LetGo(ending)),
        }
    }

    async fn answer(&mut self, heard: Heard, line: &mut Line) -> Result<(), End> {
        let (number, answer) = match heard {
            Heard::Gone | Heard::Packet(Packet::Close | Packet::Disconnect) => return Err(End::Gone),
            Heard::TooLarge => return Err(End::Abuse(Code::BodyTooLarge)),
            Heard::Packet(Packet::Pong) => return Ok(()),
            Heard::Packet(Packet::Connect { namespace, .. }) => {
                self.makes_no_sense(Code::MalformedRequest)?;
                let one =
                    Problem::new(Code::InvalidParameter, "one namespace a connection: open another one (forceNew)").field("namespace");
                return self.say(line, connect_error(&namespace, one.code.as_str(), &body(&one))).await;
            }
            Heard::Packet(Packet::Ack) | Heard::Nonsense => {
                self.makes_no_sense(Code::MalformedRequest)?;
                (None, Err(Problem::new(Code::MalformedRequest, "expected events: auth, subscribe, resume")))
            }
            Heard::Packet(Packet::Event { namespace, ack, name, data }) => {
                let fits = namespace == self.writer.0;
                let done = if fits { self.obey(&name, data).await } else { Err(unknown("namespace")) };
                if done.as_ref().is_err_and(|why| matches!(why.code, Code::InvalidParameter | Code::InvalidBody | Code::RateLimited)) {
                    self.makes_no_sense(Code::RateLimited)?;
                }
                (ack, done)
            }
        };
        let answer = answer.unwrap_or_else(|why| json!({"problem": body(&why)}));
        let text = match number {
            Some(number) => self.writer.ack(number, &answer),
            None if answer.get("problem").is_some() => self.writer.event("problem", &[&answer["problem"].to_string()]),
            None => return Ok(()),
        };
        self.say(line, text).await
    }

    /// A client that goes on with it is thrown out.
    fn makes_no_sense(&mut self, code: Code) -> Result<(), End> {
        self.nonsense += 1;
        if self.nonsense > NONSENSE { Err(End::Abuse(code)) } else { Ok(()) }
    }

    /// Does what a message asks for; answers what the client waits for.
    async fn obey(&mut self, name: &str, data: Value) -> Result<Value, Problem> {
        self.count()?;
        match name {
            "auth" => {
                let Renew { token, api_key } = read(data)?;
                let caller = Caller::who_shows(&self.app, shown(&token, &api_key)?, self.from, self.rule).await?;
                let now = self.feed.caller();
                if (caller.tenant, caller.principal) != (now.tenant, now.principal) {
                    return Err(Problem::new(Code::RoleForbidden, "a stream stays its caller's: open another one"));
                }
                self.feed.renew(caller);
                self.warn_at = warn_at(&caller);
                Ok(json!({"expiresAt": caller.expires_at()}))
            }
            "subscribe" => {
                let Subscribe { types, session, chat } = read(data)?;
                let types = types.map(Types::text);
                let caller = *self.feed.caller();
                let filter = filter(&self.app, &caller, types.as_deref(), session.as_deref(), chat.as_deref()).await?;
                self.feed.reopen(Some(filter), None).await?;
                Ok(json!({"cursor": self.feed.judged()}))
            }
            "resume" => {
                let Resume { after } = read(data)?;
                self.feed.reopen(None, cursor(Some(after))?).await?;
                Ok(json!({"cursor": self.feed.judged()}))
            }
            _ => Err(unknown("event")),
        }
    }

    fn count(&mut self) -> Result<(), Problem> {
        let now = Instant::now();
        while self.messages.front().is_some_and(|sent| now.duration_since(*sent) > WHILE) {
            self.messages.pop_front();
        }
        if self.messages.len() >= MESSAGES {
            return Err(Problem::new(Code::RateLimited, "20 messages in 10 seconds are enough"));
        }
        self.messages.push_back(now);
        Ok(())
    }
}

fn read<T: DeserializeOwned>(data: Value) -> Result<T, Problem> {
    let data = if data.is_null() { json!({}) } else { data };
    serde_path_to_error::deserialize(data).map_err(|why| {
        let field = why.path().to_string();
        Problem::new(Code::InvalidBody, why.into_inner().to_string()).field(field)
    })
}

/// Two credentials at once are none: which of them was meant?
fn shown<'a>(token: &'a Option<String>, api_key: &'a Option<String>) -> Result<Shown<'a>, Problem> {
    match (token, api_key) {
        (Some(secret), None) | (None, Some(secret)) => Ok(Shown::Secret(secret)),
        (Some(_), Some(_)) | (None, None) => Err(who_are_you()),
    }
}

fn who_are_you() -> Problem {
    Problem::new(Code::Unauthenticated, "say who you are in `auth`: one of token, apiKey and ticket")
}

fn unknown(what: &str) -> Problem {
    Problem::new(Code::InvalidParameter, "what is heard: auth, subscribe and resume, in the namespace that was entered").field(what)
}

fn warn_at(caller: &Caller) -> Option<Instant> {
    caller.ends_in().map(|left| Instant::now() + left.saturating_sub(EXPIRING))
}

async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
