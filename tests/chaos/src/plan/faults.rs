//! What can break.

use super::Shape;
use crate::random::Random;

/// A server that others reach through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// Postgres.
    Postgres,
    /// Redis.
    Redis,
}

/// What the network does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// All connections are closed.
    Cut,
    /// Open connections never say anything again.
    Silence,
    /// Nothing moves for so many milliseconds.
    Stall(u64),
    /// Nobody gets in for so many milliseconds.
    Refuse(u64),
}

/// What a process does at a named point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It dies as by `kill -9`.
    Die,
    /// It waits for so many milliseconds.
    Delay(u64),
    /// The step fails.
    Fail,
    /// It stands still for so many milliseconds, as by SIGSTOP, past its leases: when it goes on it is no owner any more.
    Stop(u64),
    /// Its session is taken over while it waits: its own clock still says that it is the owner, and the next one has read nothing yet.
    Overtaken,
}

/// Something that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of the host proper.
    KillHost(usize),
    /// `kill -9` of guard and host proper.
    KillHostAndGuard(usize),
    /// All that runs below a host dies at once, browsers too: a machine without power.
    KillMachine(usize),
    /// The host proper stands still, past its leases.
    StopHost(usize, u64),
    /// SIGTERM.
    DrainHost(usize),
    /// `kill -9` of an HTTP service.
    KillApi(usize),
    /// `kill -9` of the worker.
    KillWorker,
    /// Webhooks' endpoints take long for so many milliseconds; then the worker is killed with what it has read and not sent.
    KillWorkerBehind(u64),
    /// `kill -9` of a host's chromedrivers.
    KillDrivers(usize),
    /// `kill -9` of an account's browser.
    KillBrowser(usize),
    /// `kill -9` of an account's renderer.
    KillRenderer(usize),
    /// Postgres goes down in order and comes back.
    RestartPostgres,
    /// `kill -9` of all of Postgres.
    CrashPostgres,
    /// `kill -9` of Redis, down for so many milliseconds.
    CrashRedis(u64),
    /// FLUSHALL.
    FlushRedis,
    /// Redis goes back to what it held so many milliseconds before: a fail-over to a replica that lags, an older dump.
    RewindRedis(u64),
    /// CLIENT PAUSE for so many milliseconds.
    PauseRedis(u64),
    /// The network before a server.
    Network(Server, Net),
    /// The simulator misbehaves towards an account: its fault's name, how often, `ms`, the frames' name.
    Page(usize, &'static str, Option<u32>, Option<u64>, Option<&'static str>),
    /// The account's owner removes the device on the phone; a person scans again.
    Unlink(usize),
    /// WhatsApp keeps the account out for so many milliseconds; a person starts it again.
    Ban(usize, u64),
    /// A customer's phone is off the net for so many milliseconds.
    PhoneOffline(usize, u64),
    /// The next process that comes to a point.
    Point(&'static str, Step),
    /// The next process that comes there for an account.
    PointOf(usize, &'static str, Step),
    /// An HTTP service stands still for so many milliseconds, and finds all streams trimmed to their last entry when it goes on.
    TrimStreams(usize, u64),
}

/// Longer than the lease of the harness, 2 s, and all that its end takes.
const PAST_THE_LEASE: u64 = 6_000;

impl Fault {
    /// What it is called: its kind, whoever it meets.
    pub fn name(&self) -> &'static str {
        match self {
            Self::KillHost(_) => "kill host",
            Self::KillHostAndGuard(_) => "kill host and guard",
            Self::KillMachine(_) => "kill machine",
            Self::StopHost(..) => "stop host past its lease",
            Self::DrainHost(_) => "drain host",
            Self::KillApi(_) => "kill api",
            Self::KillWorker => "kill worker",
            Self::KillWorkerBehind(_) => "kill worker behind",
            Self::KillDrivers(_) => "kill chromedriver",
            Self::KillBrowser(_) => "kill browser",
            Self::KillRenderer(_) => "kill renderer",
            Self::RestartPostgres => "restart postgres",
            Self::CrashPostgres => "crash postgres",
            Self::CrashRedis(_) => "crash redis",
            Self::FlushRedis => "flush redis",
            Self::RewindRedis(_) => "rewind redis",
            Self::PauseRedis(_) => "pause redis",
            Self::Network(Server::Postgres, Net::Cut) => "cut postgres",
            Self::Network(Server::Postgres, Net::Silence) => "silence postgres",
            Self::Network(Server::Postgres, Net::Stall(_)) => "stall postgres",
            Self::Network(Server::Postgres, Net::Refuse(_)) => "refuse postgres",
            Self::Network(Server::Redis, Net::Cut) => "cut redis",
            Self::Network(Server::Redis, Net::Silence) => "silence redis",
            Self::Network(Server::Redis, Net::Stall(_)) => "stall redis",
            Self::Network(Server::Redis, Net::Refuse(_)) => "refuse redis",
            Self::Page(_, kind, ..) => kind,
            Self::Unlink(_) => "unlink",
            Self::Ban(..) => "ban",
            Self::PhoneOffline(..) => "phone offline",
            Self::Point(name, _) | Self::PointOf(_, name, _) => name,
            Self::TrimStreams(..) => "trim streams",
        }
    }

    /// How many jobs it may leave `unknown`: what it cuts off in the page. A session has one write under way at most.
    pub fn may_leave_unknown(&self, shape: &Shape) -> usize {
        match self {
            // All that runs on a host, or all hosts.
            Self::KillHost(_) | Self::KillHostAndGuard(_) | Self::KillMachine(_) => shape.sessions,
            Self::StopHost(..) | Self::DrainHost(_) => shape.sessions,
            Self::Network(Server::Postgres, _) | Self::RestartPostgres | Self::CrashPostgres => shape.sessions,
            Self::Network(Server::Redis, _) | Self::CrashRedis(_) | Self::RewindRedis(_) | Self::PauseRedis(_) => shape.sessions,
            Self::Point(name, _) | Self::PointOf(_, name, _) if name.starts_with("api.") || name.starts_with("webhook.") => 0,
            Self::Point(_, Step::Die | Step::Stop(_) | Step::Overtaken) => shape.sessions,
            Self::PointOf(_, _, Step::Die | Step::Stop(_) | Step::Overtaken) => shape.sessions,
            Self::KillDrivers(_) | Self::KillBrowser(_) | Self::KillRenderer(_) | Self::Unlink(_) | Self::Ban(..) => 1,
            Self::Page(_, _, times, ..) => usize::try_from(times.unwrap_or(1)).unwrap_or(1),
            Self::KillApi(_) | Self::KillWorker | Self::FlushRedis | Self::PhoneOffline(..) | Self::TrimStreams(..) => 0,
            Self::Point(..) | Self::PointOf(..) | Self::KillWorkerBehind(_) => 0,
        }
    }
}

/// A fault of the simulator's: kind, times, ms, frame.
type PageFault = (&'static str, Option<u32>, Option<u64>, Option<&'static str>);

/// What the simulator does to an account.
const PAGE: [PageFault; 18] = [
    ("wipe", None, None, None),
    ("kill_socket", None, None, None),
    ("hang", None, Some(8_000), None),
    ("blank_page", Some(1), None, None),
    ("page_error", Some(1), None, None),
    ("slow_start", Some(1), Some(3_000), None),
    ("unavailable", None, None, None),
    ("refuse_connect", Some(2), None, None),
    ("ack_drop", Some(1), None, None),
    ("ack_delay", Some(3), Some(1_500), None),
    ("ack_duplicate", Some(4), None, None),
    ("send_error", Some(1), None, None),
    ("lose_frame_before", Some(1), None, None),
    ("lose_frame_after", Some(1), None, None),
    ("redeliver", Some(4), None, None),
    ("frame_delay", Some(4), Some(700), Some("msg")),
    ("frame_duplicate", Some(4), None, Some("msg")),
    ("frame_reorder", Some(1), None, Some("ack")),
];

/// Places at which a process dies, waits, fails or stands still.
const POINTS: [(&str, Step); 22] = [
    ("host.before_resolve", Step::Delay(1_000)),
    ("host.before_start", Step::Die),
    ("host.before_start", Step::Stop(PAST_THE_LEASE)),
    ("host.after_start", Step::Die),
    ("host.after_start", Step::Stop(PAST_THE_LEASE)),
    ("job.started", Step::Die),
    ("outcome.before_publish", Step::Die),
    ("outcome.before_publish", Step::Delay(1_500)),
    ("outcome.before_publish", Step::Stop(PAST_THE_LEASE)),
    ("outcome.before_ack", Step::Die),
    ("record.before_commit", Step::Die),
    ("record.before_commit", Step::Stop(PAST_THE_LEASE)),
    ("api.accept.committed", Step::Die),
    ("api.accept.committed", Step::Delay(3_000)),
    ("api.push.redis_down", Step::Fail),
    ("lane.rebuild_vs_push", Step::Delay(800)),
    ("lease.after_claim", Step::Delay(4_000)),
    ("lease.before_bump", Step::Delay(4_000)),
    ("lease.before_cas", Step::Die),
    ("webhook.before_send", Step::Die),
    ("webhook.after_response", Step::Die),
    ("webhook.before_settle", Step::Die),
];

/// One of each kind, of whatever size, for whomever.
#[cfg(test)]
pub(super) fn kinds(shape: &Shape) -> Vec<Fault> {
    every(&mut Random::new(0), shape)
}

fn every(random: &mut Random, shape: &Shape) -> Vec<Fault> {
    let mut all = vec![
        Fault::KillHost(random.below(shape.hosts)),
        Fault::KillHostAndGuard(random.below(shape.hosts)),
        Fault::KillMachine(random.below(shape.hosts)),
        Fault::StopHost(random.below(shape.hosts), PAST_THE_LEASE),
        Fault::DrainHost(random.below(shape.hosts)),
        Fault::KillApi(random.below(shape.apis)),
        Fault::KillWorker,
        Fault::KillDrivers(random.below(shape.hosts)),
        Fault::KillBrowser(random.below(shape.sessions)),
        Fault::KillRenderer(random.below(shape.sessions)),
        Fault::RestartPostgres,
        Fault::CrashPostgres,
        Fault::CrashRedis(random.within(0, 5_000)),
        Fault::FlushRedis,
        Fault::PauseRedis(random.within(1_000, 6_000)),
        Fault::RewindRedis(random.within(500, 4_000)),
        Fault::Unlink(random.below(shape.sessions)),
        Fault::Ban(random.below(shape.sessions), random.within(1_000, 5_000)),
        Fault::PhoneOffline(random.below(shape.peers), random.within(2_000, 9_000)),
        // Once an account: a second one within ten minutes is for a person to decide.
        Fault::Page(random.below(shape.sessions), "conflict", None, None, None),
    ];
    for server in [Server::Postgres, Server::Redis] {
        all.push(Fault::Network(server, Net::Cut));
        all.push(Fault::Network(server, Net::Silence));
        all.push(Fault::Network(server, Net::Stall(random.within(1_000, 10_000))));
        all.push(Fault::Network(server, Net::Refuse(random.within(1_000, 8_000))));
    }
    all.extend(PAGE.map(|(kind, times, ms, frame)| Fault::Page(random.below(shape.sessions), kind, times, ms, frame)));
    all.extend(POINTS.map(|(name, step)| Fault::Point(name, step)));
    all
}

/// As many as the shape asks for. Seeds that follow one another deal from one shuffled deck, so that a few of them break everything there is.
pub(super) fn draw(random: &mut Random, seed: u64, shape: &Shape) -> Vec<Fault> {
    let all = every(random, shape);
    let (cards, hand) = (all.len() as u64, shape.faults as u64);
    let first = seed.wrapping_mul(hand);
    let dealt =
        (first..first.saturating_add(hand)).map(|place| deck(place / cards, all.len())[usize::try_from(place % cards).unwrap_or_default()]);
    let mut faults: Vec<Fault> = dealt.map(|card| all[card].clone()).collect();
    random.shuffle(&mut faults);
    faults
}

fn deck(round: u64, cards: usize) -> Vec<usize> {
    let mut deck: Vec<usize> = (0..cards).collect();
    Random::new(round).shuffle(&mut deck);
    deck
}
