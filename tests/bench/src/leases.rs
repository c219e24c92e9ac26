//! What leases cost that nothing happens to: a host without browsers as a process of its own, with heartbeats and reconciliation.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, TryStreamExt, stream};
use harness::{Error, process, until};

use crate::{
    fanout::resident,
    member,
    report::Report,
    stores::{Stores, grown},
};

/// Long enough for eighteen renewals and two rounds of reconciliation.
const FOR: Duration = Duration::from_secs(60);
const WITHIN: Duration = Duration::from_secs(120);
const RENEWAL: [&str; 3] = ["eval", "get", "pexpire"];
/// Only looks into a lane and pushes do these.
const LANE: [&str; 3] = ["zrange", "zrem", "publish"];

/// Measures.
///
/// # Errors
/// What kept it from measuring.
pub async fn measure(report: &mut Report) -> Result<(), Error> {
    for count in [1000, 5000] {
        idle(report, count).await?;
    }
    Ok(())
}

async fn idle(report: &mut Report, count: usize) -> Result<(), Error> {
    let stores = Stores::start().await?;
    let host = stores.again("host", &member::arguments(&stores.postgres.url(), &stores.server.url()))?;
    until("a heartbeat", WITHIN, || async { (!stores.server.keys("zg:hosts").await.is_empty()).then_some(()) }).await;
    let memory = resident(host.pid())?;
    let redis_memory = stores.redis_number("memory", "used_memory").await?;
    quiet(&stores, count).await?;

    let used = async || {
        let redis = stores.redis_number("cpu", "used_cpu_user").await? + stores.redis_number("cpu", "used_cpu_sys").await?;
        let ours = process::cpu_time(host.pid()).ok_or("the host is there")?.as_secs_f64();
        Ok::<_, Error>((stores.calls().await?, ours, redis))
    };
    let (calls, ours, redis) = used().await?;
    tokio::time::sleep(FOR).await;
    let (calls_then, ours_then, redis_then) = used().await?;
    let each_second = |of: &dyn Fn(&str) -> bool| grown(&calls, &calls_then, of) as f64 / FOR.as_secs_f64();

    let mut note = |what: &str, unit, value| report.note(&format!("{count} idle sessions: {what}"), unit, value);
    note("EVAL of their renewals", "commands/s", each_second(&|name| name == "eval"));
    note("GET and PEXPIRE inside them", "commands/s", each_second(&|name| RENEWAL[1..].contains(&name)));
    note("commands on their lanes (ZRANGE, ZREM, PUBLISH)", "commands/s", each_second(&|name| LANE.contains(&name)));
    let rest = |name: &str| !RENEWAL.contains(&name) && !LANE.contains(&name);
    note("all others (heartbeats, reconciliation), scripts' own calls included", "commands/s", each_second(&rest));
    for name in calls_then.keys().filter(|name| rest(name) && each_second(&|other| other == *name) >= 1.0) {
        note(&format!("of these {}", name.to_uppercase()), "commands/s", each_second(&|other| other == name));
    }
    let minutes = FOR.as_secs_f64() / 60.0;
    note("the host's processor time", "s/min", (ours_then - ours) / minutes);
    note("Redis' processor time", "s/min", (redis_then - redis) / minutes);
    note("the host's memory a session", "KiB", (resident(host.pid())? - memory) / count as f64);
    let grew = stores.redis_number("memory", "used_memory").await? - redis_memory;
    note("Redis' memory a session", "B", grew / count as f64);
    Ok(())
}

/// Sessions that are owned and have done all there was to do: a job each.
async fn quiet(stores: &Arc<Stores>, count: usize) -> Result<(), Error> {
    let sessions = stores.sessions(count).await?;
    until("an owner for each session", WITHIN, || async { (stores.owned().await.ok()? == count).then_some(()) }).await;
    let accept = |session| async move { queue::accept_and_push(&stores.pool, &stores.redis, &stores.job(session), None).await.map(drop) };
    stream::iter(sessions).map(accept).buffer_unordered(8).try_collect::<Vec<_>>().await?;
    until("empty lanes", WITHIN, || async {
        let left = "select count(*) from job where state in ('queued', 'running')";
        let left = sqlx::query_scalar::<_, i64>(left).fetch_one(&stores.pool).await.ok()?;
        (left == 0 && stores.server.keys("zg:*:lane:*").await.is_empty()).then_some(())
    })
    .await;
    Ok(())
}
