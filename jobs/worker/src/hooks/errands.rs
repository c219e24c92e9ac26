//! What is sent beside the order: test calls, and single events that were asked for again.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use store::webhook_turns::{Ending, Health, Kind, Turn, Waiting};

use super::{
    courier::{content, settlement},
    desk::Desk,
    plan,
    request::{Style, Unready},
    send::{self, Report, Verdict},
};

/// How many at once.
const AT_ONCE: usize = 4;
/// No cursor: these do not move it.
const NOWHERE: (i64, i64) = (-1, -1);

/// Whether it is one of these.
pub const fn is_one(row: &Waiting) -> bool {
    matches!(row.kind, Kind::Redelivery | Kind::Test)
}

/// Makes an attempt at each of `rows`.
pub async fn run(desk: Arc<Desk>, turn: Turn, style: Result<Arc<Style>, Unready>, rows: Vec<Waiting>) {
    futures::stream::iter(rows).for_each_concurrent(AT_ONCE, |row| one(&desk, turn, &style, row)).await;
}

async fn one(desk: &Desk, turn: Turn, style: &Result<Arc<Style>, Unready>, mut row: Waiting) {
    let report = match style {
        Ok(style) => {
            let _permits = desk.permits(turn.tenant()).await;
            send::attempt(desk, &turn, style, (row.event, content(&row), row.kind), None).await.0
        }
        Err(why) => Report::failed(why.name()),
    };
    let mut health = Health::default();
    let ending = match report.verdict {
        Verdict::Unread => return,
        Verdict::Delivered => Ending::Delivered,
        Verdict::Failed { retry_after } if row.kind == Kind::Redelivery => {
            plan::pause(&desk.settings, row.id, row.attempt + 1, retry_after).map_or(Ending::Dead, Ending::Waiting)
        }
        Verdict::Gone => {
            health.gone = row.kind == Kind::Redelivery;
            Ending::Dead
        }
        Verdict::Failed { .. } | Verdict::Expired => Ending::Dead,
    };
    row.attempt += i32::from(report.verdict != Verdict::Expired);
    let rows = [settlement(&row, Some(&report), ending)];
    // A few times; what cannot be written now is sent again once the database is there.
    for _ in 0..3 {
        match desk.settle(&turn, NOWHERE, &rows, &health).await {
            Ok(_) => return,
            Err(error) => tracing::warn!(%error, webhook = %turn.webhook(), "an errand is not settled yet"),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
