//! The host proper's end: reports down its standard output, and learns from its standard input that the guard is gone.
use super::Held;
use rustix::process::{Signal, getpid, kill_process, set_parent_process_death_signal};
use std::{
    io::{self, Read, Write},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};
use tokio::sync::watch;

/// A host that has not ended this long after its guard is killed: nobody watches over its browsers any more.
const WITHOUT_GUARD: Duration = Duration::from_secs(3);

/// The latest list not yet written. A reader that is slow gets the newest one, not all of them.
struct Slot {
    next: Mutex<(u64, Option<String>)>,
    filled: Condvar,
    /// The number of the last report that is in the pipe.
    written: watch::Sender<u64>,
}

/// The host proper's connection to its guard.
pub struct GuardPipe {
    slot: Arc<Slot>,
    gone: watch::Receiver<bool>,
}

impl GuardPipe {
    /// Takes over standard input and output: nothing else may use them. Call it once, before any browser is started.
    pub fn open() -> io::Result<Self> {
        // Our pipes tell a running host of the guard's end. A stopped one must run to be told.
        set_parent_process_death_signal(Some(Signal::CONT))?;
        let slot = Arc::new(Slot { next: Mutex::default(), filled: Condvar::new(), written: watch::Sender::new(0) });
        let (tx, gone) = watch::channel(false);
        let writes = slot.clone();
        thread::Builder::new().name("guard-reports".into()).spawn(move || write_reports(&writes))?;
        thread::Builder::new().name("guard-watch".into()).spawn(move || outlive(&tx))?;
        Ok(Self { slot, gone })
    }

    /// Tells the guard which browsers we hold until when. Each report replaces the former. Never blocks: threads of their own do.
    pub fn report(&self, held: &[Held]) {
        match serde_json::to_string(held) {
            Ok(line) => {
                let mut next = self.slot.next.lock().unwrap_or_else(PoisonError::into_inner);
                *next = (next.0 + 1, Some(line));
                self.slot.filled.notify_one();
            }
            Err(error) => tracing::error!(%error, "a report to the guard cannot be written; the deadlines stand as they are"),
        }
    }

    /// Resolves when the last report is in the pipe, or the guard gone. Await it before the process ends: a browser that was released
    /// but is still on the guard's list would be released again.
    pub async fn flushed(&self) {
        let number = self.slot.next.lock().unwrap_or_else(PoisonError::into_inner).0;
        let mut written = self.slot.written.subscribe();
        tokio::select! {
            _ = written.wait_for(|w| *w >= number) => {}
            () = self.guard_gone() => {}
        }
    }

    /// Resolves when the guard is gone: close the browsers at once and end. After 3 s this process is killed.
    pub async fn guard_gone(&self) {
        let mut gone = self.gone.clone();
        let _ = gone.wait_for(|gone| *gone).await; // a closed channel says the same
    }
}

fn write_reports(slot: &Slot) {
    let mut out = io::stdout();
    loop {
        let mut next = slot.next.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, line) = loop {
            match next.1.take() {
                Some(line) => break (next.0, line),
                None => next = slot.filled.wait(next).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(next);
        if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
            return; // no guard; the other thread knows
        }
        slot.written.send_replace(number);
    }
}

/// Waits for the guard's end. Not a task: it must work when the runtime does not.
fn outlive(gone: &watch::Sender<bool>) {
    let mut nothing = [0_u8; 64];
    let mut input = io::stdin();
    loop {
        match input.read(&mut nothing) {
            Ok(0) => break,
            Err(e) if e.kind() != io::ErrorKind::Interrupted => break,
            _ => {}
        }
    }
    gone.send_replace(true);
    thread::sleep(WITHOUT_GUARD);
    let _ = kill_process(getpid(), Signal::KILL);
}
