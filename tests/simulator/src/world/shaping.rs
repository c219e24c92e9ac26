//! The one door through which pages are told something, and what may befall a frame there: lost, late, doubled, out of order.

use serde_json::Value;

use super::{Out, SocketId, State};
use crate::faults::Kind;

/// How long a delayed frame waits where nobody says.
const DELAY_MS: u64 = 500;

impl State {
    /// Tells one socket.
    pub fn tell(&mut self, id: SocketId, frame: Value) {
        let owner = self.sockets.get(&id).and_then(|s| s.owner.as_ref()).map(|(phone, _)| phone.clone()).unwrap_or_default();
        let name = frame["ev"].as_str().unwrap_or_default().to_owned();
        let mut take = |kind| self.faults.take_frame(kind, &owner, &name);
        if take(Kind::FrameDrop).is_some() {
            return;
        }
        let (delay, twice, behind) = (take(Kind::FrameDelay), take(Kind::FrameDuplicate).is_some(), take(Kind::FrameReorder).is_some());
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        if behind {
            return socket.held.push(frame);
        }
        for _ in 0..=usize::from(twice) {
            let out = match &delay {
                Some(fault) => Out::Later(fault.ms.unwrap_or(DELAY_MS), frame.clone()),
                None => Out::Frame(frame.clone()),
            };
            let _ = socket.out.send(out);
        }
        let (freed, held): (Vec<Value>, _) = std::mem::take(&mut socket.held).into_iter().partition(|f| f["ev"] == name.as_str());
        socket.held = held;
        for frame in freed {
            let _ = socket.out.send(Out::Frame(frame));
        }
    }
}
