//! Receipts count whenever they come, also while nobody listens.

use harness::Stack;
use serde_json::Value;

use crate::{OURS, PEER, SOON};

#[tokio::test]
async fn a_message_read_while_we_were_away_is_known_as_read_after_the_second_restart_too() {
    let mut stack = Stack::start().await;
    let mut host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    stack.sim.fault(serde_json::json!({"kind": "ack_drop", "account": OURS, "times": 1})).await;
    let unheard = ana.client.accepted(PEER, "unheard of").await;
    assert_eq!(ana.client.ended(&unheard, SOON).await["state"], "unknown");
    let job = ana.client.accepted(PEER, "read me later").await;
    assert_eq!(ana.client.ended(&job, SOON).await["state"], "succeeded");
    // The first restart reads the page's rows: from here on they are below the mark.
    host.leave(SOON).await.expect("the host leaves when it is told to");
    let mut host = stack.host().await;
    ana.client.until_state("working", SOON).await;
    let marked = || async { stack.postgres.sql("select profile_row_id > 0 from session where state = 'working'") == "t" };
    harness::until_true("the rows are read", SOON, marked).await;
    host.leave(SOON).await.expect("the host leaves when it is told to");
    stack.sim.read(PEER, OURS).await;
    let _host = stack.host().await;
    for job in [&job, &unheard] {
        // With the message, where nobody had been told of it before.
        let of_it = |e: &Value| e["data"]["message"]["job"] == job.as_str();
        ana.client.event("the receipt in the log", SOON, |e| of_it(e) && e["data"]["message"]["ack"] == 3).await;
        let told: Vec<_> = ana.client.events(0).await.into_iter().filter(|e| of_it(e)).map(|e| e["type"].clone()).collect();
        assert_eq!(told.first(), Some(&"message".into()), "{told:?}");
        assert_eq!(told.iter().filter(|t| *t == "message").count(), 1, "{told:?}");
        let job = ana.client.job(job).await;
        assert_eq!((&job["state"], &job["evidence"]["ack"]), (&Value::from("succeeded"), &Value::from(3)), "{job}");
    }
}
