//! The short share of the fault laboratory that runs with the tests: two accounts, and faults that are always the same.

use chaos::{
    plan::{Fault, Net, Server, Shape, Step, Timed, plan},
    run::run,
};

#[tokio::test(flavor = "multi_thread")]
async fn with_a_browser_killed_a_host_stopped_and_stores_lost_nothing_is_lost_doubled_or_out_of_order() {
    let shape = Shape { tenants: 2, sessions: 2, peers: 2, hosts: 2, apis: 2, seconds: 14, faults: 0 };
    let mut plan = plan(1, &shape);
    plan.faults = [
        (1_000, Fault::Point("outcome.before_publish", Step::Stop(4_000))),
        (2_500, Fault::KillApi(1)),
        (4_000, Fault::Network(Server::Postgres, Net::Cut)),
        (5_500, Fault::FlushRedis),
        (7_000, Fault::KillBrowser(0)),
        (9_500, Fault::KillWorker),
        (11_000, Fault::KillHost(0)),
    ]
    .map(|(at, what)| Timed { at, what })
    .into();
    let report = run(&plan, &shape).await.expect("the stack starts");
    assert!(report.violations.is_empty(), "{}{:#?}", report.text, report.violations);
}
