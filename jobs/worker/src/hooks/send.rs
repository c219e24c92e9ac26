//! One attempt.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::DateTime;
use contract::{EventId, WebhookId};
use http::{HeaderMap, StatusCode, header};
use queue::Logged;
use serde_json::Value;
use store::webhook_turns::{self, Kind, Turn};

use super::{
    desk::Desk,
    line::{Answer, Line, Silent},
    request::Style,
};

/// What is to be said.
#[derive(Debug, Clone)]
pub enum Content {
    /// An event that was just read; one that has waited since is read again.
    Event(Arc<Logged>),
    /// The event of this `seq`, as the log has it now: it may have been erased since.
    Log(i64),
    /// What is in no log.
    Body(Value),
}

/// What came of an attempt.
#[derive(Debug, Clone)]
pub struct Report {
    /// HTTP's status.
    pub status: Option<i16>,
    /// Why there was none, or why the body was not read.
    pub error: Option<&'static str>,
    /// How long it took.
    pub took: Duration,
    /// How the answer began.
    pub answer: Option<String>,
    /// What it means.
    pub verdict: Verdict,
}

/// What an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver took it.
    Delivered,
    /// It did not.
    Failed {
        /// And asked for so long a pause.
        retry_after: Option<Duration>,
    },
    /// It did not, and will not.
    Gone,
    /// The event is in the log no longer.
    Expired,
    /// The log could not be read, or is to be read again: nothing was attempted.
    Unread,
}

/// Makes an attempt over a line that is there, or a new one. The line comes back where it can be used again.
pub async fn attempt(
    desk: &Desk,
    turn: &Turn,
    style: &Style,
    (event, content, kind): (EventId, Content, Kind),
    line: Option<Line>,
) -> (Report, Option<Line>) {
    let content = match content {
        Content::Event(event) if !event.is_fresh() => Content::Log(event.seq),
        content => content,
    };
    let content = match content {
        Content::Event(event) => Some(event),
        Content::Body(body) => return say(desk, turn.webhook(), style, (event, body.to_string().into(), kind), line, || true).await,
        Content::Log(seq) => match store::within(webhook_turns::event(&desk.pool, turn.tenant(), seq)).await {
            // Another one stands there where the log went back: that is told in its turn.
            Ok(found) => found.filter(|found| found.id == event).map(|found| Arc::new(found.into())),
            Err(error) => {
                tracing::warn!(%error, webhook = %turn.webhook(), "an event is not read");
                return (Report::nothing(Verdict::Unread), line);
            }
        },
    };
    let Some(content) = content else { return (Report::nothing(Verdict::Expired), line) };
    let body = Bytes::copy_from_slice(content.json().as_bytes());
    let (report, line) = say(desk, turn.webhook(), style, (event, body, kind), line, || content.is_fresh()).await;
    if report.verdict == Verdict::Delivered && kind == Kind::Live {
        let lag = (desk.now() - content.timestamp).to_std().unwrap_or_default();
        metrics::histogram!("zaguan_webhook_lag_seconds").record(lag.as_secs_f64());
    }
    (report, line)
}

async fn say(
    desk: &Desk,
    webhook: WebhookId,
    style: &Style,
    (event, body, kind): (EventId, Bytes, Kind),
    mut line: Option<Line>,
    fresh: impl Fn() -> bool,
) -> (Report, Option<Line>) {
    let _ = contract::fault_point!("webhook.before_send", "webhook" => webhook, "event" => event);
    let began = Instant::now();
    let end = began + desk.settings.answer_within();
    let mut again = true;
    let outcome = loop {
        let (mut open, used) = match live(line.take()) {
            Some(line) => (line, true),
            None => match desk.connector.connect(&style.target).await {
                Ok(line) => (line, false),
                Err(why) => break Err(why.name()),
            },
        };
        // Connecting takes a while: what may have been erased meanwhile is read again.
        if !fresh() {
            return (Report::nothing(Verdict::Unread), Some(open));
        }
        let request = style.request(event, body.clone(), kind == Kind::Replay, desk.now());
        match open.ask(request, end.saturating_duration_since(Instant::now())).await {
            Ok(answer) => {
                line = open.lives().then_some(open);
                break Ok(answer);
            }
            // The receiver may have closed a kept connection while this was under way: that is no failure of it.
            Err(Silent::Broken) if used && again => again = false,
            Err(Silent::Broken) => break Err("connection_broken"),
            Err(Silent::TimedOut) => break Err("timeout"),
        }
    };
    let _ = contract::fault_point!("webhook.after_response", "webhook" => webhook, "event" => event);
    let took = began.elapsed();
    let report = Report::of(outcome, took);
    let how = if report.verdict == Verdict::Delivered { "delivered" } else { "failed" };
    metrics::counter!("zaguan_webhook_attempts_total", "outcome" => how).increment(1);
    metrics::histogram!("zaguan_webhook_seconds").record(took.as_secs_f64());
    (report, line)
}

/// A line only if it lives.
fn live(line: Option<Line>) -> Option<Line> {
    line.and_then(|mut line| line.lives().then_some(line))
}

impl Report {
    /// Nothing was attempted.
    const fn nothing(verdict: Verdict) -> Self {
        Self { status: None, error: None, took: Duration::ZERO, answer: None, verdict }
    }

    /// Nothing could be attempted, and that counts as a failure.
    pub fn failed(why: &'static str) -> Self {
        Self { error: Some(why), ..Self::nothing(Verdict::Failed { retry_after: None }) }
    }

    fn of(outcome: Result<Answer, &'static str>, took: Duration) -> Self {
        let answer = match outcome {
            Ok(answer) => answer,
            Err(why) => return Self { took, ..Self::failed(why) },
        };
        let verdict = match answer.status {
            status if status.is_success() => Verdict::Delivered,
            StatusCode::GONE => Verdict::Gone,
            // Redirects too: nothing is followed to where no tenant said it wants to be told.
            _ => Verdict::Failed { retry_after: retry_after(&answer.headers) },
        };
        let error = if answer.status.is_redirection() { Some("redirected") } else { answer.cut };
        let status = i16::try_from(answer.status.as_u16()).ok();
        Self { status, error, took, answer: readable(&answer.start), verdict }
    }
}

/// Seconds, or a date beside the answer's own.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text: &str| DateTime::parse_from_rfc2822(text).ok();
    let said = date(headers.get(header::DATE)?.to_str().ok()?)?;
    (date(text)? - said).to_std().ok()
}

/// As text that harms nobody who reads it.
fn readable(start: &[u8]) -> Option<String> {
    let plain = |c: char| {
        if c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            '\u{fffd}'
        } else {
            c
        }
    };
    (!start.is_empty()).then(|| String::from_utf8_lossy(start).chars().map(plain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)]) -> Report {
        let headers = headers.iter().map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap())).collect();
        let answer = Answer { status: StatusCode::from_u16(status).unwrap(), headers, start: b"a\nb\x1b[0m\xff".to_vec(), cut: None };
        Report::of(Ok(answer), Duration::ZERO)
    }

    #[test]
    fn only_a_2xx_is_a_delivery_and_a_410_ends_it() {
        for (status, verdict) in [(200, Verdict::Delivered), (204, Verdict::Delivered), (410, Verdict::Gone)] {
            assert_eq!(answer(status, &[]).verdict, verdict);
        }
        for status in [301, 302, 307, 400, 401, 404, 429, 500, 503] {
            assert_eq!(answer(status, &[("location", "http://127.0.0.1/")]).verdict, Verdict::Failed { retry_after: None }, "{status}");
        }
        assert_eq!(answer(302, &[]).error, Some("redirected"));
    }

    #[test]
    fn what_the_receiver_asks_for_is_read_in_both_forms() {
        let after = |headers: &[(&'static str, &str)]| match answer(503, headers).verdict {
            Verdict::Failed { retry_after } => retry_after.map(|d| d.as_secs()),
            other => panic!("{other:?}"),
        };
        assert_eq!(after(&[("retry-after", "120")]), Some(120));
        assert_eq!(after(&[("retry-after", "Wed, 21 Oct 2026 07:30:00 GMT"), ("date", "Wed, 21 Oct 2026 07:28:00 GMT")]), Some(120));
        for odd in ["", "-1", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(after(&[("retry-after", odd)]), None, "{odd}");
        }
        assert_eq!(after(&[]), None);
    }

    #[test]
    fn the_answer_is_kept_as_text_without_anything_that_moves_a_terminal() {
        assert_eq!(answer(200, &[]).answer.as_deref(), Some("a\u{fffd}b\u{fffd}[0m\u{fffd}"));
    }
}
