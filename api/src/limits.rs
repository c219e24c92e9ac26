//! What a tenant may use, kept at the door. What is counted in Redis fails open: where it does not answer, nobody is refused.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::response::Response;
use contract::TenantId;
use http::{HeaderMap, HeaderName, HeaderValue};
use queue::limits::{self, Held, Left, Most, Window};
use store::limits::Limits;
use uuid::Uuid;

use crate::{
    auth::{Caller, LinkCaller},
    problem::{Code, Problem},
    state::AppState,
};

/// How old a tenant's limits may be.
const FRESH: Duration = Duration::from_secs(5);
/// Above this many tenants the stale ones are dropped.
const MANY: usize = 4096;
const WAITING: &str = "waiting requests";
/// Requests that one link page may have waiting: its page in a few windows.
const WAITING_BY_LINK: i64 = 5;
/// What an answer may take beyond its wait.
const SLACK: Duration = Duration::from_secs(5);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Tenants' limits as they were read last.
#[derive(Default)]
pub struct Cache(Mutex<HashMap<TenantId, (Instant, Arc<Limits>)>>);

/// The limits of a tenant.
///
/// # Errors
/// `unavailable`.
pub async fn of(app: &AppState, tenant: TenantId) -> Result<Arc<Limits>, Problem> {
    let cached = |at: &Instant| at.elapsed() < FRESH;
    {
        let known = app.limits.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, limits)) = known.get(&tenant).filter(|(at, _)| cached(at)) {
            return Ok(limits.clone());
        }
    }
    let asked = Instant::now();
    let limits = Arc::new(store::limits::fetch(&app.pool, tenant).await?);
    let mut known = app.limits.0.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= MANY {
        known.retain(|_, (at, _)| cached(at));
    }
    known.insert(tenant, (asked, limits.clone()));
    Ok(limits)
}

/// What is left of windows, for the headers of an answer (`RateLimit`, `RateLimit-Policy`).
#[derive(Debug, Clone, Default)]
pub struct Quota(Vec<(Window, Left)>);

impl Quota {
    /// Writes the headers.
    pub fn write(&self, headers: &mut HeaderMap) {
        for (name, value) in self.headers() {
            headers.insert(name, value);
        }
    }

    /// The same on an answer.
    #[must_use]
    pub fn on(&self, mut response: Response) -> Response {
        self.write(response.headers_mut());
        response
    }

    fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let list = |item: &dyn Fn(&(Window, Left)) -> String| self.0.iter().map(item).collect::<Vec<_>>().join(", ");
        let policy = list(&|(w, _)| format!("\"{}\";q={};w={}", w.name, w.quota, w.every.as_secs()));
        let left = list(&|(w, l)| format!("\"{}\";r={};t={}", w.name, l.left.max(0), seconds(l.next)));
        let both = [("ratelimit-policy", policy), ("ratelimit", left)].into_iter().filter(|(_, value)| !value.is_empty());
        both.filter_map(|(name, value)| Some((HeaderName::from_static(name), HeaderValue::try_from(value).ok()?)))
    }
}

fn seconds(time: Duration) -> u64 {
    time.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

/// Counts a message to be sent.
///
/// # Errors
/// `rate_limited` in the minute, `quota_exceeded` in the day.
pub async fn send(app: &AppState, caller: &Caller) -> Result<Quota, Problem> {
    let limits = of(app, caller.tenant).await?;
    let windows = [
        Window { name: "sendsPerMinute", quota: limits.sends_per_minute, every: MINUTE },
        Window { name: "sendsPerDay", quota: limits.sends_per_day, every: DAY },
    ];
    take(app, caller, &windows).await
}

/// Takes one of each window. What is longer than an hour is a quota.
///
/// # Errors
/// `rate_limited`, `quota_exceeded`.
pub async fn take(app: &AppState, caller: &Caller, windows: &[Window]) -> Result<Quota, Problem> {
    let (taken, lefts) = match limits::take(&app.redis, caller.tenant, windows).await {
        Ok(answer) => answer,
        Err(why) => {
            fails_open(&why);
            return Ok(Quota::default());
        }
    };
    let quota = Quota(windows.iter().copied().zip(lefts).collect());
    if taken {
        return Ok(quota);
    }
    // The one that opens last says when to come again.
    let empty = quota.0.iter().filter(|(_, left)| left.left < 1).max_by_key(|(_, left)| left.next);
    let (code, retry) = empty.map_or((Code::RateLimited, MINUTE), |(window, left)| {
        (if window.every > Duration::from_secs(3600) { Code::QuotaExceeded } else { Code::RateLimited }, left.next)
    });
    let problem = Problem::new(code, "see GET /api/limits").retry_after(seconds(retry).max(1));
    Err(quota.headers().fold(problem, |problem, (name, value)| problem.header(name, value)))
}

fn fails_open(why: &queue::QueueError) {
    metrics::counter!("zaguan_limits_not_kept_total").increment(1);
    tracing::debug!(cause = %why, "limits are not kept while Redis does not answer");
}

/// A place among those that may be held open: a stream's, a waiting request's. Given back when it is dropped, at the latest when it runs out.
pub struct Place {
    app: AppState,
    held: Held,
    most: Most,
    lasts: Duration,
    kept: Instant,
}

impl Place {
    async fn take(app: &AppState, held: Held, most: Most, lasts: Duration) -> Result<Self, Problem> {
        let what = held.what();
        let place = Self { app: app.clone(), held, most, lasts, kept: Instant::now() };
        match place.held.count(&app.redis, most, lasts).await {
            Ok(true) => {}
            Ok(false) => {
                return Err(Problem::new(Code::RateLimited, format!("too many {what} are open; see GET /api/limits")).retry_after(5));
            }
            Err(why) => fails_open(&why),
        }
        Ok(place)
    }

    /// Keeps it: what is held for long has to be counted on. To be called often; most calls do nothing.
    pub async fn keep(&mut self) {
        if self.kept.elapsed() < self.lasts / 3 {
            return;
        }
        self.kept = Instant::now();
        if let Err(why) = self.held.count(&self.app.redis, self.most, self.lasts).await {
            fails_open(&why);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (app, held) = (self.app.clone(), self.held.clone());
        // A request that was waited out has been answered by now, and its caller may be gone.
        self.app.tasks.spawn(async move {
            let _ = held.release(&app.redis).await;
        });
    }
}

/// A place for a stream: so many a principal and a tenant.
///
/// # Errors
/// `rate_limited`.
pub async fn stream(app: &AppState, caller: &Caller) -> Result<Place, Problem> {
    let limits = of(app, caller.tenant).await?;
    let most = Most { tenant: limits.streams, principal: limits.streams_per_principal };
    let held = Held::new(caller.tenant, "streams", caller.principal.uuid());
    Place::take(app, held, most, app.timings.stream_keep_alive() * 3).await
}

/// A place for a request that waits for something; none for one that does not.
///
/// # Errors
/// `rate_limited`.
pub async fn wait(app: &AppState, caller: &Caller, wait: Option<Duration>) -> Result<Option<Place>, Problem> {
    let Some(wait) = wait else { return Ok(None) };
    let limits = of(app, caller.tenant).await?;
    let most = Most { tenant: limits.waiting_requests, principal: limits.waiting_requests };
    Place::take(app, Held::new(caller.tenant, WAITING, caller.principal.uuid()), most, wait + SLACK).await.map(Some)
}

/// The same for who holds a link page, by what is stored of its token: a few for each, and those of all count among the tenant's.
///
/// # Errors
/// `rate_limited`.
pub async fn wait_by_link(app: &AppState, link: &LinkCaller, wait: Option<Duration>) -> Result<Option<Place>, Problem> {
    let Some(wait) = wait else { return Ok(None) };
    let most = Most { tenant: of(app, link.page.tenant).await?.waiting_requests, principal: WAITING_BY_LINK };
    let mut principal = [0; 16];
    principal.copy_from_slice(&link.hash[..16]);
    Place::take(app, Held::new(link.page.tenant, WAITING, Uuid::from_bytes(principal)), most, wait + SLACK).await.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_name_each_window_with_what_is_left_of_it() {
        let window = |name, quota, every| Window { name, quota, every };
        let left = |left, ms| Left { left, next: Duration::from_millis(ms) };
        let quota = Quota(vec![(window("sendsPerMinute", 60, MINUTE), left(59, 1)), (window("sendsPerDay", 500, DAY), left(0, 1001))]);
        let mut headers = HeaderMap::new();
        quota.write(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"sendsPerMinute\";q=60;w=60, \"sendsPerDay\";q=500;w=86400");
        assert_eq!(headers["ratelimit"], "\"sendsPerMinute\";r=59;t=1, \"sendsPerDay\";r=0;t=2");
    }
}
