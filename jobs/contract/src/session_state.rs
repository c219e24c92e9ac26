//! The states of a session and the one function that changes them.

use crate::job::names;

names! {
    /// What a session is doing. Stored, and all that the API reads.
    SessionState {
        /// Nobody asked for it to run.
        Stopped = "stopped",
        /// A host is being found, or its browser is starting.
        Starting = "starting",
        /// Waits for a QR scan or a code.
        Linking = "linking",
        /// Linked; the page loads what the phone has.
        Syncing = "syncing",
        /// Sends and receives.
        Working = "working",
        /// Was working; the connection, page or host is coming back by itself.
        Reconnecting = "reconnecting",
        /// The account is open in another browser, which won.
        Conflict = "conflict",
        /// The link is gone.
        LoggedOut = "logged_out",
        /// WhatsApp restricted the account.
        Banned = "banned",
        /// Restarted as often as allowed, without success.
        Failed = "failed",
    }
}

names! {
    /// Why a session is in its state. Stable names.
    Reason {
        /// Created, and not started yet.
        NeverStarted = "never_started",
        /// A caller asked for it to stop.
        StopRequested = "stop_requested",
        /// Shows a code, and nobody has scanned it yet.
        AwaitingScan = "awaiting_scan",
        /// No host has a free slot.
        Capacity = "capacity",
        /// Five lists of codes went by unscanned.
        QrTimeout = "qr_timeout",
        /// The device was removed on the phone.
        DeviceRemoved = "device_removed",
        /// A caller logged the session out.
        LogoutRequested = "logout_requested",
        /// Another account scanned the code.
        WrongAccount = "wrong_account",
        /// Another browser took the account over.
        Replaced = "replaced",
        /// A temporary ban reported by WhatsApp.
        TemporaryBan = "temporary_ban",
        /// The page asks for a newer browser or build.
        Outdated = "outdated",
        /// The browser does not start.
        BrowserFailed = "browser_failed",
        /// The page does not become usable.
        PageFailed = "page_failed",
        /// The browser ended by itself.
        BrowserLost = "browser_lost",
        /// The page lost its connection to WhatsApp.
        ConnectionLost = "connection_lost",
        /// Another host has taken over.
        HostChanged = "host_changed",
        /// A caller asked for a new browser.
        RestartRequested = "restart_requested",
        /// A caller deleted the session.
        Deleted = "deleted",
        /// The browser is closed for a moment: its memory is given back, and its profile kept safe.
        Recycling = "recycling",
        /// Neither the profile nor a snapshot of it can be used: what was kept of the link is damaged or gone.
        ProfileLost = "profile_lost",
    }
}

names! {
    /// What a person can do about it.
    UserAction {
        /// Start the session.
        Start = "start",
        /// Scan the QR code, or enter the pairing code.
        ScanCode = "scan_code",
        /// Start the session and link the account again.
        LinkAgain = "link_again",
        /// Decide which browser keeps the account, then start.
        ResolveConflict = "resolve_conflict",
        /// Look at the phone.
        CheckPhone = "check_phone",
        /// Ask whoever runs this installation.
        AskOperator = "ask_operator",
    }
}

/// What happens to a session, as its owner or the API sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A caller asked for it to run.
    StartRequested,
    /// A caller asked for it to stop, and it has.
    Stopped,
    /// No host has a slot.
    NoCapacity,
    /// An owner starts (or restarts) the browser.
    BrowserStarting,
    /// The page asks to be linked.
    CodeShown,
    /// Linked; the page is loading.
    Syncing,
    /// Driver ready, registered, stream MAIN.
    Ready,
    /// The page lost its socket.
    ConnectionLost,
    /// The browser or page ended and will be restarted.
    BrowserLost,
    /// Nobody scanned.
    CodesExhausted,
    /// The link is gone.
    LoggedOut(Reason),
    /// Another browser took the account over; it is taken back once.
    Replaced,
    /// Another browser won.
    Conflict,
    /// A caller asked for a new browser.
    Restarting,
    /// The owner replaces the browser by a new one.
    Recycling,
    /// Restricted.
    Banned,
    /// Gave up.
    GaveUp(Reason),
}

impl SessionState {
    /// The state after `signal`, with its reason; `None` where the signal changes nothing. Pure: writing it down is the owner's job.
    pub const fn next(self, signal: Signal) -> Option<(Self, Option<Reason>)> {
        use SessionState::{Banned, Conflict, Failed, Linking, LoggedOut, Reconnecting, Starting, Stopped, Syncing, Working};
        match (signal, self) {
            (Signal::StartRequested, Stopped | LoggedOut | Banned | Failed | Conflict) => Some((Starting, None)),
            (Signal::StartRequested, _) => None,

            (Signal::Stopped, Stopped) => None,
            (Signal::Stopped, _) => Some((Stopped, Some(Reason::StopRequested))),

            // A browser that was started only to log the account out.
            (Signal::LoggedOut(why), Stopped | Banned | Failed | Conflict) => Some((LoggedOut, Some(why))),
            // Whatever ended needs a person first; nothing else leaves it.
            (_, Stopped | LoggedOut | Banned | Failed | Conflict) => None,

            (Signal::NoCapacity, Starting | Linking) => Some((Starting, Some(Reason::Capacity))),
            // Its host died and no other has room. Not a start: a page that then asks to be linked has lost its link.
            (Signal::NoCapacity, Syncing | Working | Reconnecting) => Some((Reconnecting, Some(Reason::Capacity))),

            (Signal::BrowserStarting, Starting | Linking) => Some((Starting, None)),
            (Signal::BrowserStarting, Reconnecting) => None,
            (Signal::BrowserStarting, Syncing | Working) => Some((Reconnecting, Some(Reason::HostChanged))),

            (Signal::CodeShown, Linking) => None,
            (Signal::CodeShown, Starting) => Some((Linking, Some(Reason::AwaitingScan))),
            // A linked page that asks to be linked has lost its link.
            (Signal::CodeShown, Syncing | Working | Reconnecting) => Some((LoggedOut, Some(Reason::DeviceRemoved))),

            (Signal::Syncing, Starting | Linking | Reconnecting) => Some((Syncing, None)),
            (Signal::Syncing, Syncing | Working) => None,

            (Signal::Ready, Working) => None,
            (Signal::Ready, Starting | Linking | Syncing | Reconnecting) => Some((Working, None)),

            (Signal::ConnectionLost, Working | Syncing) => Some((Reconnecting, Some(Reason::ConnectionLost))),
            (Signal::ConnectionLost, Starting | Linking | Reconnecting) => None,

            (Signal::BrowserLost, Working | Syncing) => Some((Reconnecting, Some(Reason::BrowserLost))),
            (Signal::BrowserLost, Linking) => Some((Starting, Some(Reason::BrowserLost))),
            (Signal::BrowserLost, Starting | Reconnecting) => None,

            (Signal::CodesExhausted, Linking) => Some((Stopped, Some(Reason::QrTimeout))),
            (Signal::CodesExhausted, _) => None,

            (Signal::Restarting, Starting | Linking) => Some((Starting, Some(Reason::RestartRequested))),
            (Signal::Restarting, Syncing | Working | Reconnecting) => Some((Reconnecting, Some(Reason::RestartRequested))),

            (Signal::Recycling, Syncing | Working | Reconnecting) => Some((Reconnecting, Some(Reason::Recycling))),
            (Signal::Recycling, Starting | Linking) => None,

            (Signal::LoggedOut(why), _) => Some((LoggedOut, Some(why))),
            (Signal::Replaced, Starting | Linking | Syncing | Working | Reconnecting) => Some((Reconnecting, Some(Reason::Replaced))),
            (Signal::Conflict, _) => Some((Conflict, Some(Reason::Replaced))),
            (Signal::Banned, _) => Some((Banned, Some(Reason::TemporaryBan))),
            (Signal::GaveUp(why), _) => Some((Failed, Some(why))),
        }
    }

    /// Whether a host should hold the session in this state when a caller wants it running.
    pub const fn is_alive(self) -> bool {
        !matches!(self, Self::Stopped | Self::LoggedOut | Self::Banned | Self::Failed | Self::Conflict)
    }

    /// Whether nothing will happen until a person acts: a send is refused unless the caller asked to queue it.
    pub const fn needs_person(self, account_known: bool) -> bool {
        !self.is_alive() || (matches!(self, Self::Linking) && !account_known)
    }

    /// What a person can do.
    pub const fn user_action(self, reason: Option<Reason>) -> Option<UserAction> {
        match self {
            Self::Stopped => Some(UserAction::Start),
            Self::Linking => Some(UserAction::ScanCode),
            Self::LoggedOut => Some(UserAction::LinkAgain),
            Self::Conflict => Some(UserAction::ResolveConflict),
            Self::Banned => Some(UserAction::CheckPhone),
            Self::Failed => Some(UserAction::AskOperator),
            Self::Starting | Self::Reconnecting => match reason {
                Some(Reason::Capacity) => Some(UserAction::AskOperator),
                _ => None,
            },
            Self::Syncing | Self::Working => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SessionState as S, *};

    const SIGNALS: [Signal; 17] = [
        Signal::StartRequested,
        Signal::Stopped,
        Signal::NoCapacity,
        Signal::BrowserStarting,
        Signal::CodeShown,
        Signal::Syncing,
        Signal::Ready,
        Signal::ConnectionLost,
        Signal::BrowserLost,
        Signal::CodesExhausted,
        Signal::LoggedOut(Reason::DeviceRemoved),
        Signal::Conflict,
        Signal::Banned,
        Signal::GaveUp(Reason::BrowserFailed),
        Signal::Replaced,
        Signal::Restarting,
        Signal::Recycling,
    ];

    /// A row a state, a column a signal of `SIGNALS`: the state that follows, or `.` for no change.
    const TABLE: &str = "
        state        start    stop    nocap    browser      code       sync    ready   connlost     browserlost  codes   out        conflict banned failed replaced     restart          recycle
        stopped      starting .       .        .            .          .       .       .            .            .       logged_out .        .      .      .            .                .
        starting     .        stopped starting starting     linking    syncing working .            .            .       logged_out conflict banned failed reconnecting starting         .
        linking      .        stopped starting starting     .          syncing working .            starting     stopped logged_out conflict banned failed reconnecting starting         .
        syncing      .        stopped reconnecting reconnecting logged_out .       working reconnecting reconnecting .       logged_out conflict banned failed reconnecting reconnecting reconnecting
        working      .        stopped reconnecting reconnecting logged_out .       .       reconnecting reconnecting .       logged_out conflict banned failed reconnecting reconnecting reconnecting
        reconnecting .        stopped reconnecting .            logged_out syncing working .            .            .       logged_out conflict banned failed reconnecting reconnecting reconnecting
        conflict     starting stopped .        .            .          .       .       .            .            .       logged_out .        .      .      .            .                .
        logged_out   starting stopped .        .            .          .       .       .            .            .       .          .        .      .      .            .                .
        banned       starting stopped .        .            .          .       .       .            .            .       logged_out .        .      .      .            .                .
        failed       starting stopped .        .            .          .       .       .            .            .       logged_out .        .      .      .            .                .
    ";

    #[test]
    fn every_signal_in_every_state_leads_where_the_table_says() {
        let mut rows = 0;
        for line in TABLE.trim().lines().skip(1) {
            let cells: Vec<_> = line.split_whitespace().collect();
            let state = S::from_name(cells[0]).unwrap();
            assert_eq!(cells.len(), 1 + SIGNALS.len());
            for (cell, signal) in cells[1..].iter().zip(SIGNALS) {
                let to = state.next(signal).map_or(".", |(to, _)| to.as_str());
                assert_eq!(to, *cell, "{state:?} after {signal:?}");
            }
            rows += 1;
        }
        assert_eq!(rows, S::ALL.len());
    }

    #[test]
    fn a_state_that_needs_a_person_says_what_the_person_can_do() {
        for state in S::ALL {
            if state.needs_person(false) {
                assert!(state.user_action(None).is_some(), "{state:?}");
            }
        }
    }

    #[test]
    fn a_known_account_waiting_for_its_scan_still_accepts_messages() {
        assert!(S::Linking.needs_person(false) && !S::Linking.needs_person(true));
    }
}
