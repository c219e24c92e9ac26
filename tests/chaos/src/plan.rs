//! What will be done, and when: all of it follows from the seed.

mod faults;
mod sequences;

pub use faults::{Fault, Net, Server, Step};

use crate::random::Random;

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Companies.
    pub tenants: usize,
    /// Linked accounts, dealt out to the companies by turns.
    pub sessions: usize,
    /// Phones of customers; each of them writes with every account.
    pub peers: usize,
    /// Session hosts.
    pub hosts: usize,
    /// HTTP services.
    pub apis: usize,
    /// How long traffic goes on.
    pub seconds: u64,
    /// How many faults fall into that time.
    pub faults: usize,
}

impl Default for Shape {
    /// `make chaos`.
    fn default() -> Self {
        Self { tenants: 2, sessions: 3, peers: 3, hosts: 2, apis: 2, seconds: 60, faults: 12 }
    }
}

impl Shape {
    /// Whose a session is.
    pub fn tenant_of(&self, session: usize) -> usize {
        session % self.tenants
    }
}

/// Something at its time, in milliseconds from the start of the traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed<T> {
    /// When.
    pub at: u64,
    /// What.
    pub what: T,
}

/// How a caller sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Once, without a key: where no answer comes, it does not know.
    Plain,
    /// With a key, again until it is answered.
    Keyed,
    /// With a key, to two services at the same moment.
    Twice,
    /// With a key; it hangs up after so many milliseconds and asks again.
    Cut(u64),
}

/// What callers and phones do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// A caller sends a text; `n` names it.
    Send {
        /// From which account.
        session: usize,
        /// To which phone.
        peer: usize,
        /// Its number among all texts.
        n: usize,
        /// How.
        how: How,
        /// By which service first.
        api: usize,
    },
    /// A phone writes to an account.
    Incoming {
        /// To which account.
        session: usize,
        /// From which phone.
        peer: usize,
        /// Its number among all texts.
        n: usize,
    },
    /// A caller marks a chat read.
    MarkRead {
        /// Of which account.
        session: usize,
        /// With which phone.
        peer: usize,
        /// By which service.
        api: usize,
    },
    /// A caller withdraws a text: while it waits, or too late.
    Cancel {
        /// The text's number.
        n: usize,
        /// By which service.
        api: usize,
    },
    /// A phone reads its chat with an account.
    PhoneReads {
        /// Which account.
        session: usize,
        /// Which phone.
        peer: usize,
    },
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where it comes from.
    pub seed: u64,
    /// Whether Redis writes what it holds to disk, and has it again after a crash.
    pub durable_redis: bool,
    /// What callers and phones do, by time.
    pub traffic: Vec<Timed<Act>>,
    /// What breaks, by time.
    pub faults: Vec<Timed<Fault>>,
}

/// Of a hundred acts.
const SENDS: u64 = 52;
const INCOMING: u64 = 30;
const READS: u64 = 6;
const CANCELS: u64 = 6;
/// An account's acts come this far apart, in milliseconds.
const APART: (u64, u64) = (200, 900);
/// Before anything breaks but what every plan has.
const CALM_MS: u64 = 7_500;
/// Behind the last fault.
const QUIET_MS: u64 = 2_000;

/// The plan of a seed.
pub fn plan(seed: u64, shape: &Shape) -> Plan {
    let mut random = Random::new(seed);
    let durable_redis = random.percent(50);
    let mut traffic = traffic(&mut random, shape);
    let mut faults: Vec<Timed<Fault>> =
        times(&mut random, shape).into_iter().zip(faults::draw(&mut random, seed, shape)).map(|(at, what)| Timed { at, what }).collect();
    for sequence in sequences::all(seed, shape, &traffic) {
        traffic.extend(sequence.acts);
        faults.extend(sequence.faults);
    }
    traffic.sort_by_key(|act| act.at);
    faults.sort_by_key(|fault| fault.at);
    Plan { seed, durable_redis, traffic, faults }
}

fn traffic(random: &mut Random, shape: &Shape) -> Vec<Timed<Act>> {
    let mut acts: Vec<Timed<Act>> = Vec::new();
    let mut n = 0;
    for session in 0..shape.sessions {
        let mut at = random.within(0, APART.1);
        let mut last_sent = None;
        while at < shape.seconds * 1_000 {
            let what = act(random, shape, session, &mut n, &mut last_sent);
            acts.push(Timed { at, what });
            at += random.within(APART.0, APART.1);
        }
    }
    acts.sort_by_key(|act| act.at);
    acts
}

fn act(random: &mut Random, shape: &Shape, session: usize, n: &mut usize, last_sent: &mut Option<usize>) -> Act {
    let (peer, api, dice) = (random.below(shape.peers), random.below(shape.apis), random.within(0, 100));
    let mut next = || {
        *n += 1;
        *n
    };
    if dice < SENDS {
        let n = next();
        *last_sent = Some(n);
        let how = match random.within(0, 10) {
            0..3 => How::Plain,
            3..7 => How::Keyed,
            7 => How::Twice,
            _ => How::Cut(random.within(1, 40)),
        };
        return Act::Send { session, peer, n, how, api };
    }
    if dice < SENDS + INCOMING {
        return Act::Incoming { session, peer, n: next() };
    }
    if dice < SENDS + INCOMING + READS {
        return Act::MarkRead { session, peer, api };
    }
    match last_sent.take() {
        Some(n) if dice < SENDS + INCOMING + READS + CANCELS => Act::Cancel { n, api },
        _ => Act::PhoneReads { session, peer },
    }
}

/// A text's number, where an act has one of its own.
fn number(act: &Act) -> Option<usize> {
    match act {
        Act::Send { n, .. } | Act::Incoming { n, .. } => Some(*n),
        Act::MarkRead { .. } | Act::Cancel { .. } | Act::PhoneReads { .. } => None,
    }
}

/// When faults come: one in each equal part of the time, anywhere in it.
fn times(random: &mut Random, shape: &Shape) -> Vec<u64> {
    let span = (shape.seconds * 1_000).saturating_sub(CALM_MS + QUIET_MS);
    let part = span / (shape.faults.max(1) as u64);
    (0..shape.faults as u64).map(|k| CALM_MS + k * part + random.within(0, part)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_seed_is_always_the_same_plan_and_another_seed_another() {
        let shape = Shape::default();
        assert_eq!(plan(7, &shape), plan(7, &shape));
        assert_ne!(plan(7, &shape).traffic, plan(8, &shape).traffic);
        assert_ne!(plan(7, &shape).faults, plan(8, &shape).faults);
    }

    #[test]
    fn a_plan_has_a_minute_of_traffic_for_every_account_and_at_least_ten_faults_inside_it() {
        let shape = Shape::default();
        for seed in 0..50 {
            let plan = plan(seed, &shape);
            assert!(plan.faults.len() >= 10);
            assert!(plan.faults.iter().all(|f| f.at < shape.seconds * 1_000));
            assert!(plan.faults.iter().filter(|f| f.at >= CALM_MS).count() >= shape.faults);
            assert!(plan.faults.is_sorted_by_key(|f| f.at) && plan.traffic.is_sorted_by_key(|act| act.at));
            for session in 0..shape.sessions {
                let sends = plan.traffic.iter().filter(|a| matches!(a.what, Act::Send { session: s, .. } if s == session));
                assert!(sends.count() > 30, "seed {seed} sends little for account {session}");
            }
            assert!(plan.traffic.last().is_some_and(|act| act.at > shape.seconds * 1_000 - 2 * APART.1));
        }
    }

    #[test]
    fn no_two_texts_of_a_plan_have_one_number_and_none_comes_after_its_time() {
        let shape = Shape::default();
        for seed in 0..50 {
            let plan = plan(seed, &shape);
            let numbers: Vec<usize> = plan.traffic.iter().filter_map(|act| number(&act.what)).collect();
            assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len());
            assert!(plan.traffic.iter().all(|act| act.at < shape.seconds * 1_000));
        }
    }

    #[test]
    fn twenty_seeds_break_everything_that_can_be_broken() {
        let shape = Shape::default();
        let all: BTreeSet<&str> = faults::kinds(&shape).iter().map(Fault::name).collect();
        let drawn: BTreeSet<&str> = (1..=20).flat_map(|seed| plan(seed, &shape).faults).map(|f| f.what.name()).collect();
        assert_eq!(all.difference(&drawn).collect::<Vec<_>>(), Vec::<&&str>::new());
        assert!(all.len() > 40, "{} kinds", all.len());
    }
}
