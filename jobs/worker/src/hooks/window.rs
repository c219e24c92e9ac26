//! What has been read behind the cursor and is not settled: in the log's order, so that the cursor never passes an event that is under way.

use std::collections::VecDeque;

use contract::{ChatId, DeliveryId};
use store::webhook_turns::{Settlement, Waiting};

use super::send::Content;

/// What must stay in order: everything, or what happens in one chat, or outside of all.
pub type Lane = Option<ChatId>;

/// Something to send.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its row, there or to be.
    pub row: Waiting,
    /// What to say.
    pub content: Content,
}

enum State {
    Pending(Box<Item>),
    Flying,
    Done(Box<Settlement>),
}

struct Entry {
    seq: i64,
    lane: Lane,
    state: State,
}

/// The part of the log between the cursor and what has been judged.
pub struct Window {
    entries: VecDeque<Entry>,
    read_to: i64,
    pending: usize,
    /// Done, from the front on.
    ready: usize,
}

/// What to do with what is next in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Send it.
    Free,
    /// Something of its lane is under way.
    Busy,
    /// Something of its lane waits: so must it.
    Held,
    /// It must wait, and there is no room to.
    Full,
}

impl Window {
    /// Nothing behind this cursor yet.
    pub const fn behind(cursor: i64) -> Self {
        Self { entries: VecDeque::new(), read_to: cursor, pending: 0, ready: 0 }
    }

    /// Puts an event at the end.
    pub fn push(&mut self, seq: i64, lane: Lane, item: Item) {
        self.entries.push_back(Entry { seq, lane, state: State::Pending(Box::new(item)) });
        self.pending += 1;
    }

    /// All up to here has been judged.
    pub fn read(&mut self, to: i64) {
        self.read_to = self.read_to.max(to);
    }

    /// Up to where the log has been judged.
    pub const fn read_to(&self) -> i64 {
        self.read_to
    }

    /// How many are to be sent.
    pub const fn pending(&self) -> usize {
        self.pending
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many are under way or done, and not taken.
    pub fn unsettled(&self) -> usize {
        self.entries.len() - self.pending
    }

    /// How many could be settled now.
    pub const fn ready(&self) -> usize {
        self.ready
    }

    /// The first that may be sent now. Those that must wait are handed to `hold`, which says how their rows begin.
    pub fn next(&mut self, way: impl Fn(Lane) -> Way, mut hold: impl FnMut(Lane, Item) -> Settlement) -> Option<(Lane, Item)> {
        if self.pending == 0 {
            return None;
        }
        let mut found = None;
        for entry in self.entries.iter_mut().skip(self.ready) {
            if !matches!(entry.state, State::Pending(_)) {
                continue;
            }
            match way(entry.lane) {
                Way::Busy => continue,
                Way::Full => break,
                way => {
                    let State::Pending(item) = std::mem::replace(&mut entry.state, State::Flying) else { continue };
                    self.pending -= 1;
                    if way == Way::Free {
                        found = Some((entry.lane, *item));
                        break;
                    }
                    entry.state = State::Done(Box::new(hold(entry.lane, *item)));
                }
            }
        }
        self.count_ready();
        found
    }

    /// Says how an event stands that is in here. `false`: it is not, or not any more.
    pub fn land(&mut self, seq: i64, id: DeliveryId, how: Settlement) -> bool {
        let Ok(at) = self.entries.binary_search_by_key(&seq, |e| e.seq) else { return false };
        let entry = &mut self.entries[at];
        let ours = match &entry.state {
            State::Pending(_) => false,
            State::Flying => true,
            State::Done(done) => done.id == id,
        };
        if ours {
            entry.state = State::Done(Box::new(how));
            self.count_ready();
        }
        ours
    }

    /// Forgets everything above `seq`: it will be read again.
    pub fn cut_behind(&mut self, seq: i64) {
        let keep = self.entries.partition_point(|e| e.seq <= seq);
        self.entries.truncate(keep);
        self.pending = self.entries.iter().filter(|e| matches!(e.state, State::Pending(_))).count();
        self.read_to = seq;
    }

    /// Takes what is settled with the cursor, and where the cursor goes.
    pub fn take(&mut self) -> (i64, Vec<Settlement>) {
        let done = self.entries.drain(..self.ready).filter_map(|e| if let State::Done(done) = e.state { Some(*done) } else { None });
        let rows = done.collect();
        self.ready = 0;
        (self.entries.front().map_or(self.read_to, |first| first.seq - 1), rows)
    }

    fn count_ready(&mut self) {
        self.ready += self.entries.iter().skip(self.ready).take_while(|e| matches!(e.state, State::Done(_))).count();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use contract::EventId;
    use store::webhook_turns::{Ending, Kind};

    use super::*;
    use crate::hooks::courier::settlement;

    fn item(seq: i64) -> Item {
        let row = Waiting {
            id: DeliveryId::new(),
            event: EventId::new(),
            seq: Some(seq),
            event_type: "message".to_owned(),
            chat: None,
            whole_chat: None,
            kind: Kind::Live,
            attempt: 0,
            due_in: Duration::ZERO,
            body: None,
        };
        Item { row, content: Content::Log(seq) }
    }
    fn land(window: &mut Window, item: &Item) {
        let said = settlement(&item.row, None, Ending::Delivered);
        assert!(window.land(item.row.seq.unwrap(), item.row.id, said));
    }
    fn taken(window: &mut Window) -> (i64, usize) {
        let (cursor, rows) = window.take();
        (cursor, rows.len())
    }
    fn free(window: &mut Window) -> Item {
        window.next(|_| Way::Free, |_, _| unreachable!()).unwrap().1
    }

    #[test]
    fn the_cursor_stops_before_what_is_under_way_whatever_ended_behind_it() {
        let mut window = Window::behind(10);
        for seq in [11, 13, 14] {
            window.push(seq, None, item(seq));
        }
        window.read(20);
        let [first, second, third] = [(); 3].map(|()| free(&mut window));
        assert_eq!(taken(&mut window), (10, 0));
        land(&mut window, &second);
        assert_eq!(taken(&mut window), (10, 0));
        land(&mut window, &first);
        assert_eq!(taken(&mut window), (13, 2), "what nobody wanted to be told lies between");
        assert_eq!(window.unsettled(), 1);
        land(&mut window, &third);
        assert_eq!(taken(&mut window), (20, 1));
        assert!(window.is_empty());
    }

    #[test]
    fn what_must_wait_is_handed_over_in_order_until_there_is_no_room_and_the_rest_stays() {
        let chats = [ChatId::new(), ChatId::new()];
        let mut window = Window::behind(0);
        for seq in 1..=6 {
            window.push(seq, Some(chats[usize::from(seq % 2 == 0)]), item(seq));
        }
        window.read(6);
        let held = std::cell::RefCell::new(Vec::new());
        let way = |lane| match (lane == Some(chats[0]), held.borrow().len()) {
            (false, _) => Way::Busy,
            (true, 2) => Way::Full,
            (true, _) => Way::Held,
        };
        let none = window.next(way, |_, item| {
            held.borrow_mut().push(item.row.seq.unwrap());
            settlement(&item.row, None, Ending::Waiting(Duration::ZERO))
        });
        assert!(none.is_none());
        assert_eq!((held.into_inner(), window.pending()), (vec![1, 3], 4));
        assert_eq!(taken(&mut window), (1, 1), "the second lies behind one that is not sent");
    }

    #[test]
    fn what_is_cut_off_is_read_again_and_its_end_comes_to_nothing() {
        let mut window = Window::behind(0);
        for seq in 1..=3 {
            window.push(seq, None, item(seq));
        }
        window.read(9);
        let [first, second] = [(); 2].map(|()| free(&mut window));
        land(&mut window, &first);
        window.cut_behind(1);
        assert_eq!((window.pending(), window.read_to(), window.len()), (0, 1, 1));
        assert!(!window.land(2, second.row.id, settlement(&second.row, None, Ending::Delivered)));
        assert_eq!(taken(&mut window), (1, 1));
    }
}
