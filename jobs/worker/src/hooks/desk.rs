//! Which webhooks this worker tells: its lease, its fair share of them, and a courier for each.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use contract::{TenantId, WebhookId};
use queue::{Redis, events::Readers, hooks::News};
use service::seal::Sealer;
use store::{
    PgPool, StoreError,
    webhook_turns::{self, Health, Seen, Settled, Settlement, Turn},
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{connect::Connector, courier, settings::Settings};

/// Webhooks that one statement takes.
const CLAIM: i64 = 64;

/// What all couriers of a process share.
pub struct Desk {
    /// The truth.
    pub pool: PgPool,
    /// Where events are published.
    pub redis: Redis,
    /// Who reads logs.
    pub readers: Readers,
    /// The way out.
    pub connector: Connector,
    /// What opens secrets.
    pub sealer: Arc<Sealer>,
    /// Durations and bounds.
    pub settings: Settings,
    /// What runs couriers.
    pub tasks: TaskTracker,
    worker: Uuid,
    lease: RwLock<Lease>,
    everybody: Arc<Semaphore>,
    tenants: Mutex<HashMap<TenantId, Weak<Semaphore>>>,
}

/// As the last renewal left it.
struct Lease {
    /// From then on another worker may hold what is ours.
    until: Instant,
    /// The database's clock, and when it was read.
    now: (DateTime<Utc>, Instant),
}

/// A courier as the desk knows it.
struct Courier {
    turn: Turn,
    news: Arc<Notify>,
    /// Finish what is under way, settle, give the webhook back.
    leave: CancellationToken,
    /// The turn is over: stop at once.
    cut: CancellationToken,
    /// Cancelled when it has ended.
    ended: CancellationToken,
    mark: Option<i64>,
}

impl Desk {
    /// A desk without webhooks.
    pub fn new(
        (pool, redis): (PgPool, Redis),
        (connector, sealer): (Connector, Arc<Sealer>),
        settings: Settings,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let (now, everybody) = (Instant::now(), Arc::new(Semaphore::new(settings.attempts_at_once)));
        let readers = Readers::new(redis.clone(), pool.clone(), tasks.clone());
        let lease = RwLock::new(Lease { until: now, now: (DateTime::UNIX_EPOCH, now) });
        let tenants = Mutex::default();
        Arc::new(Self { pool, redis, readers, connector, sealer, settings, tasks, worker: Uuid::now_v7(), lease, everybody, tenants })
    }

    /// Whether what is ours is certainly not another's.
    pub fn holds(&self) -> bool {
        Instant::now() < self.lease.read().unwrap_or_else(PoisonError::into_inner).until
    }

    /// The time by the database's clock.
    pub fn now(&self) -> DateTime<Utc> {
        let (now, at) = self.lease.read().unwrap_or_else(PoisonError::into_inner).now;
        now + at.elapsed()
    }

    /// Room for an attempt: this tenant's, and everybody's. A receiver that keeps its callers waiting fills its own tenant's room only.
    pub async fn permits(&self, tenant: TenantId) -> (Option<OwnedSemaphorePermit>, Option<OwnedSemaphorePermit>) {
        let own = {
            let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
            let known = tenants.get(&tenant).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                tenants.retain(|_, room| room.strong_count() > 0);
                let room = Arc::new(Semaphore::new(self.settings.attempts_at_once_per_tenant));
                tenants.insert(tenant, Arc::downgrade(&room));
                room
            })
        };
        // Neither is ever closed.
        (own.acquire_owned().await.ok(), self.everybody.clone().acquire_owned().await.ok())
    }

    /// Settles, and publishes what that has to tell. `None`: the turn is over.
    ///
    /// # Errors
    /// [`StoreError`]: it may be repeated.
    pub async fn settle(
        &self,
        turn: &Turn,
        cursor: (i64, i64),
        rows: &[Settlement],
        health: &Health,
    ) -> Result<Option<Settled>, StoreError> {
        let _ = contract::fault_point!("webhook.before_settle", "webhook" => turn.webhook(), "rows" => rows.len(), "cursor" => cursor.1);
        let statement = webhook_turns::settle(&self.pool, turn, cursor, rows, health, self.settings.patience());
        let settled = store::within(statement).await?;
        if let Some(settled) = &settled
            && !settled.events.is_empty()
        {
            let (pool, redis, tenant, events) = (self.pool.clone(), self.redis.clone(), turn.tenant(), settled.events.clone());
            tracing::warn!(webhook = %turn.webhook(), said = %settled.events[0].data["reason"], "told no more");
            self.tasks.spawn(async move {
                if let Err(error) = queue::events::publish(&pool, &redis, tenant, &events).await {
                    tracing::debug!(%error, "an event is published by the reconciler");
                }
            });
        }
        Ok(settled)
    }
}

/// Tells webhooks until the process is to end.
pub async fn run(desk: Arc<Desk>, mut news: News, stopping: CancellationToken) {
    let mut couriers: HashMap<WebhookId, Courier> = HashMap::new();
    while !stopping.is_cancelled() {
        round(&desk, &mut couriers).await;
        metrics::gauge!("zaguan_webhooks_held").set(couriers.len() as f64);
        let next = tokio::time::Instant::now() + desk.settings.look_every();
        let until = tokio::time::Instant::from_std(desk.lease.read().unwrap_or_else(PoisonError::into_inner).until);
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => break,
                () = tokio::time::sleep_until(until), if until < next && !couriers.is_empty() => couriers.drain().for_each(|(_, c)| c.cut.cancel()),
                () = stopping.cancelled() => break,
                Some(webhook) = news.next() => match couriers.get(&webhook) {
                    Some(courier) => Courier::look(courier),
                    // Perhaps one that nobody holds.
                    None => take(&desk, &mut couriers, 1).await,
                },
            }
        }
    }
    couriers.values().for_each(|c| c.leave.cancel());
    for courier in couriers.values() {
        courier.ended.cancelled().await;
    }
    if let Err(error) = webhook_turns::leave(&desk.pool, desk.worker).await {
        tracing::warn!(%error, "webhooks are not given back: others take them when the lease lapses");
    }
}

impl Courier {
    fn look(&self) {
        self.news.notify_one();
    }
}

/// Renews, notices what was lost or has news, and takes or gives up what a fair share asks for.
async fn round(desk: &Arc<Desk>, couriers: &mut HashMap<WebhookId, Courier>) {
    couriers.retain(|_, c| !c.ended.is_cancelled());
    let asked = Instant::now();
    let renewed = match store::within(webhook_turns::renew(&desk.pool, desk.worker, desk.settings.lease())).await {
        Ok(renewed) => renewed,
        Err(error) => {
            tracing::warn!(%error, "the lease on webhooks is not renewed");
            if !desk.holds() {
                couriers.drain().for_each(|(_, c)| c.cut.cancel());
            }
            return;
        }
    };
    {
        // From when it was asked: the database counts from later. A margin for what is under way at the end.
        let mut lease = desk.lease.write().unwrap_or_else(PoisonError::into_inner);
        lease.until = asked + desk.settings.lease().mul_f64(0.9);
        lease.now = (renewed.now, asked + asked.elapsed() / 2);
    }
    let seen = match store::within(webhook_turns::look(&desk.pool, desk.worker)).await {
        Ok(seen) => seen,
        Err(error) => return tracing::warn!(%error, "not known which webhooks are ours"),
    };
    notice(desk, couriers, &seen);
    let (held, share) = (couriers.len(), usize::try_from(renewed.share).unwrap_or(usize::MAX));
    if held < share {
        take(desk, couriers, i64::try_from(share - held).unwrap_or(CLAIM)).await;
    }
    // Another worker came, which takes them in its next round.
    couriers.values().skip(share).for_each(|c| c.leave.cancel());
}

fn notice(desk: &Arc<Desk>, couriers: &mut HashMap<WebhookId, Courier>, seen: &[Seen]) {
    let ours: HashMap<WebhookId, &Seen> = seen.iter().map(|s| (s.turn.webhook(), s)).collect();
    couriers.retain(|webhook, courier| {
        let kept = ours.get(webhook).is_some_and(|s| s.turn == courier.turn);
        if !kept {
            courier.cut.cancel();
        }
        kept
    });
    for seen in seen {
        // One that is ours and has no courier: it was taken in a statement whose answer was lost, or ended without giving it back.
        let courier = couriers.entry(seen.turn.webhook()).or_insert_with(|| start(desk, seen.turn));
        if courier.mark.replace(seen.mark) != Some(seen.mark) {
            courier.look();
        }
    }
}

async fn take(desk: &Arc<Desk>, couriers: &mut HashMap<WebhookId, Courier>, mut most: i64) {
    while most > 0 {
        match store::within(webhook_turns::claim(&desk.pool, desk.worker, most.min(CLAIM))).await {
            Ok(turns) if turns.is_empty() => return,
            Ok(turns) => {
                most -= i64::try_from(turns.len()).unwrap_or(most);
                for turn in turns {
                    couriers.insert(turn.webhook(), start(desk, turn));
                }
            }
            Err(error) => return tracing::warn!(%error, "no webhooks taken"),
        }
    }
}

fn start(desk: &Arc<Desk>, turn: Turn) -> Courier {
    let news = Arc::new(Notify::new());
    let [leave, cut, ended] = [(); 3].map(|()| CancellationToken::new());
    let courier = Courier { turn, news: news.clone(), leave: leave.clone(), cut: cut.clone(), ended: ended.clone(), mark: None };
    let desk_of_it = desk.clone();
    desk.tasks.spawn(async move {
        // Also where it panics.
        let _ended = ended.drop_guard();
        tokio::select! {
            () = courier::run(desk_of_it, turn, news, leave) => {}
            () = cut.cancelled() => {}
        }
    });
    courier
}

/// How long an ending courier waits for what is under way.
pub const LEAVE_WITHIN: Duration = Duration::from_secs(5);
