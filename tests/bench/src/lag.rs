//! What one tenant's webhook notices of another's that is down, hangs, or catches up.

use std::time::Duration;

use contract::TenantId;
use harness::{
    Error, Settings, Stack,
    receiver::{Receiver, Reply},
    until,
};

use crate::{
    hooks::Bench,
    report::{Latencies, Report},
};

/// Events of the other tenant, and one every so often.
const EVENTS: usize = 500;
const EVERY: Duration = Duration::from_millis(20);
/// What the neighbour is to be told.
const BACKLOG: i64 = 60_000;

/// Measures: from an event's row to that of its delivery, by the database's clock, while the neighbour does well, refuses, hangs, catches up.
///
/// # Errors
/// What the servers said.
pub async fn measure(report: &mut Report) -> Result<(), Error> {
    let mut stack = Stack::with(Settings { timings: "{}".into(), faults: false, ..Settings::default() }).await?;
    let bench = Bench::start(&mut stack).await?;
    let [measured, neighbour]: [TenantId; 2] = [stack.tenant("measured").await.id.parse()?, stack.tenant("neighbour").await.id.parse()?];
    let other = Receiver::start().await;
    bench.endpoint(measured, &bench.receiver()).await?;
    bench.endpoint(neighbour, &other.url("/")).await?;
    bench.held().await;
    // The first warms.
    lags(&bench, measured).await?;
    let alone = lags(&bench, measured).await?;
    other.answers(|_| Reply::Status(503));
    bench.emit(neighbour, BACKLOG).await?;
    let refusing = lags(&bench, measured).await?;
    other.answers(|_| Reply::Never);
    let hanging = lags(&bench, measured).await?;
    other.answers(|_| Reply::Status(200));
    until("the neighbour to be told", Duration::from_secs(120), || async { (other.got().len() > 100).then_some(()) }).await;
    let catching_up = lags(&bench, measured).await?;
    for (how, lags) in [("refuses, 60,000 events behind", refusing), ("hangs", hanging), ("catches up", catching_up)] {
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let what = format!("webhook of one tenant while another's {how}: event to settled delivery, {name}");
            report.beside(&what, "ms", lags.ms(share), "while the other's does well", alone.ms(share));
        }
    }
    Ok(())
}

async fn lags(bench: &Bench, tenant: TenantId) -> Result<Latencies, Error> {
    let before = bench.emit(tenant, 1).await?;
    let (mut tick, mut last) = (tokio::time::interval(EVERY), before);
    for _ in 0..EVENTS {
        tick.tick().await;
        last = bench.emit(tenant, 1).await?;
    }
    let sql = "select cursor_seq >= $2 from webhook where tenant = $1";
    until("all to be told", Duration::from_secs(60), || async {
        let told = sqlx::query_scalar::<_, bool>(sql).bind(tenant.uuid()).bind(last).fetch_one(&bench.db).await;
        told.is_ok_and(|told| told).then_some(())
    })
    .await;
    let seconds: Vec<f64> = sqlx::query_scalar(
        "select extract(epoch from d.finished_at - e.at)::float8 from webhook_delivery d join event e on e.tenant = d.tenant and e.seq = d.seq
          where d.tenant = $1 and d.seq > $2 and d.state = 'delivered'",
    )
    .bind(tenant.uuid())
    .bind(before)
    .fetch_all(&bench.db)
    .await?;
    if seconds.len() != EVENTS {
        return Err(format!("{} of {EVENTS} are in the log", seconds.len()).into());
    }
    Ok(seconds.into_iter().map(|s| Duration::from_secs_f64(s.max(0.0))).collect::<Vec<_>>().into())
}
