//! What every plan has, whatever it is dealt: faults that break nothing unless the right traffic meets them. Some show nothing while their account
//! has no owner, or take long: those come in the calm at the start, when nothing else breaks. All of them, those too, come one in each equal part
//! of the time behind it, in an order and for accounts that follow from the seed.

use super::{Act, CALM_MS, Fault, How, QUIET_MS, Shape, Step, Timed, number};
use crate::random::Random;

/// Before those in the calm.
const FIRST_MS: u64 = 300;
/// From a fault's arming to the act that it is for.
const ARMED_MS: u64 = 100;
/// How long a push is held back: later texts are done meanwhile, if they may be.
const HELD_BACK_MS: u64 = 2_500;
/// Between texts to one phone.
const NEXT_TEXT_MS: u64 = 250;
/// How long the log goes on without a service or an endpoint.
const BEHIND_MS: u64 = 2_000;

/// Faults and the traffic for them.
pub(super) struct Sequence {
    pub acts: Vec<Timed<Act>>,
    pub faults: Vec<Timed<Fault>>,
}

/// Whom a sequence meets.
#[derive(Clone, Copy)]
struct Whom {
    session: usize,
    peer: usize,
    api: usize,
}

/// Makes the sequence that begins at a time, with texts numbered from `n` on.
type Make = fn(Whom, at: u64, n: usize) -> Sequence;

/// All of a plan. Numbers of texts go on behind those of `traffic`.
pub(super) fn all(seed: u64, shape: &Shape, traffic: &[Timed<Act>]) -> Vec<Sequence> {
    // A source of its own: what else is in the plan of a seed stays as it is.
    let mut random = Random::new(!seed);
    let mut makes: [Make; 8] = [pushed_late, never_handed_over, unconfirmed, never_confirmed, never_taken, written_late, trimmed, untold];
    random.shuffle(&mut makes);
    // An account each, as far as there are some.
    let calm: [Make; 3] = [pushed_late, written_late, never_confirmed];
    let first = random.below(shape.sessions);
    let part = (shape.seconds * 1_000).saturating_sub(CALM_MS + 2 * QUIET_MS) / makes.len() as u64;
    let mut n = traffic.iter().filter_map(|act| number(&act.what)).max().unwrap_or_default() + 1;
    let mut all = Vec::new();
    let mut add = |make: Make, whom: Whom, at: u64| {
        let sequence = make(whom, at, n);
        n += sequence.acts.len();
        all.push(sequence);
    };
    for (place, make) in calm.into_iter().enumerate() {
        let (session, peer, api) = ((first + place) % shape.sessions, random.below(shape.peers), random.below(shape.apis));
        add(make, Whom { session, peer, api }, FIRST_MS);
    }
    for (place, make) in (0..).zip(makes) {
        let (session, peer, api) = (random.below(shape.sessions), random.below(shape.peers), random.below(shape.apis));
        add(make, Whom { session, peer, api }, CALM_MS + place * part + random.within(0, part));
    }
    all
}

fn text(at: u64, session: usize, peer: usize, n: usize, api: usize) -> Timed<Act> {
    Timed { at, what: Act::Send { session, peer, n, how: How::Keyed, api } }
}

/// A text is accepted and its push held back; those accepted behind it are pushed at once, and must wait for it.
fn pushed_late(whom: Whom, at: u64, n: usize) -> Sequence {
    let Whom { session, peer, .. } = whom;
    let held = Fault::PointOf(session, "api.accept.committed", Step::Delay(HELD_BACK_MS));
    let acts = (0..4).map(|k| text(at + ARMED_MS + k as u64 * NEXT_TEXT_MS, session, peer, n + k, k));
    Sequence { acts: acts.collect(), faults: vec![Timed { at, what: held }] }
}

/// The host dies between the start of a text and the page: it is on no phone, and nobody may say that it is.
fn never_handed_over(whom: Whom, at: u64, n: usize) -> Sequence {
    let Whom { session, peer, .. } = whom;
    let dies = Fault::PointOf(session, "host.after_start", Step::Die);
    Sequence { acts: vec![text(at + ARMED_MS, session, peer, n, 0)], faults: vec![Timed { at, what: dies }] }
}

/// The page has taken a text, WhatsApp never confirms it, and the host dies: it is on the phone, and nobody may say that it is not.
fn unconfirmed(whom: Whom, at: u64, n: usize) -> Sequence {
    let Whom { session, peer, .. } = whom;
    let silent = Fault::Page(session, "ack_drop", Some(1), None, None);
    // Where nothing else is asked of the host: it has the page's answer, and waits for WhatsApp's.
    let dies = Fault::PointOf(session, "page.lid_flip", Step::Die);
    let faults = [silent, dies].map(|what| Timed { at, what }).into();
    Sequence { acts: vec![text(at + ARMED_MS, session, peer, n, 0)], faults }
}

/// WhatsApp never confirms a text that it has taken, and nothing else breaks: nobody may say that it was not sent.
fn never_confirmed(whom: Whom, at: u64, n: usize) -> Sequence {
    let Whom { session, peer, .. } = whom;
    let silent = Fault::Page(session, "ack_drop", Some(1), None, None);
    Sequence { acts: vec![text(at + ARMED_MS, session, peer, n, 0)], faults: vec![Timed { at, what: silent }] }
}

/// The page has taken a text and WhatsApp never gets it: nobody may say that it was sent.
fn never_taken(whom: Whom, at: u64, n: usize) -> Sequence {
    let Whom { session, peer, .. } = whom;
    let lost = Fault::Page(session, "lose_frame_before", Some(1), None, None);
    Sequence { acts: vec![text(at + ARMED_MS, session, peer, n, 0)], faults: vec![Timed { at, what: lost }] }
}

/// Endpoints take long, so that a worker reads more than it can send, and then it dies.
fn untold(_: Whom, at: u64, _: usize) -> Sequence {
    Sequence { acts: Vec::new(), faults: vec![Timed { at, what: Fault::KillWorkerBehind(BEHIND_MS) }] }
}

/// An owner with a message in its hands goes on in the moment in which another host has taken the account over, and knows nothing of it.
fn written_late(whom: Whom, at: u64, n: usize) -> Sequence {
    let Whom { session, peer, .. } = whom;
    let late = Fault::PointOf(session, "record.before_commit", Step::Overtaken);
    let comes = Act::Incoming { session, peer, n };
    Sequence { acts: vec![Timed { at: at + ARMED_MS, what: comes }], faults: vec![Timed { at, what: late }] }
}

/// A service that stood still comes back to a stream that has lost what it has not read.
fn trimmed(whom: Whom, at: u64, _: usize) -> Sequence {
    Sequence { acts: Vec::new(), faults: vec![Timed { at, what: Fault::TrimStreams(whom.api, BEHIND_MS) }] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;

    #[test]
    fn every_plan_has_every_sequence_and_the_traffic_of_each_comes_behind_its_fault() {
        let shape = Shape::default();
        for seed in 0..50 {
            let plan = plan(seed, &shape);
            let at = |is: fn(&Fault) -> bool| plan.faults.iter().find(|fault| is(&fault.what)).map(|fault| fault.at);
            let held = |what: &Fault| matches!(what, Fault::PointOf(_, "api.accept.committed", Step::Delay(_)));
            let (from, to) = (at(held).unwrap(), at(held).unwrap() + HELD_BACK_MS);
            let mut behind: Vec<(usize, usize)> = Vec::new();
            for act in plan.traffic.iter().filter(|act| act.at > from && act.at < to) {
                if let Act::Send { session, peer, .. } = act.what {
                    behind.push((session, peer));
                }
            }
            assert!(behind.iter().any(|chat| behind.iter().filter(|other| *other == chat).count() >= 4), "seed {seed}");
            let others: [fn(&Fault) -> bool; 7] = [
                |what| matches!(what, Fault::Page(_, "lose_frame_before", ..)),
                |what| matches!(what, Fault::KillWorkerBehind(_)),
                |what| matches!(what, Fault::PointOf(_, "host.after_start", Step::Die)),
                |what| matches!(what, Fault::PointOf(_, "page.lid_flip", Step::Die)),
                |what| matches!(what, Fault::Page(_, "ack_drop", ..)),
                |what| matches!(what, Fault::PointOf(_, "record.before_commit", Step::Overtaken)),
                |what| matches!(what, Fault::TrimStreams(..)),
            ];
            assert!(others.into_iter().all(|is| at(is).is_some()), "seed {seed}");
        }
    }
}
