//! What a session needs from its browser when nothing goes wrong.
use crate::{
    kit::{FULL_CHROMIUM, LONG, ME, PEER, Rig, env, env_of, id_part, key, profile, simulator, timings, world},
    stage,
};
use harness::simulator::Simulator;
use serde_json::{Value, json};
use session_host::browser::{
    BrowserEnv, CallError, ContactExists, FindMessage, ListChats, MarkRead, MessagesAbove, PageEvent, ProfileError, RowsHead, SendText,
    State,
};
use std::sync::Arc;

/// What the peer's phone shows of our chat: id, text, how often it came again.
async fn shown(sim: &Simulator) -> Vec<(String, String, u64)> {
    let text = |m: &Value, key: &str| m[key].as_str().unwrap().to_owned();
    sim.messages(PEER, ME).await.iter().map(|m| (text(m, "id"), text(m, "body"), m["duplicates"].as_u64().unwrap())).collect()
}

#[test]
fn a_linked_account_sends_fifty_texts_once_in_order_and_hears_the_answer() {
    stage("messages::a_linked_account_sends_fifty_texts_once_in_order_and_hears_the_answer", |dir| async move {
        let (sim, env) = world(&dir).await;
        let rig = Rig::start(&env, &profile(&env).await).await;
        rig.link(&sim).await;
        let chat = rig.chat().await;
        let mut sent = Vec::new();
        for n in 0..50 {
            let (mark, name) = (rig.mark(), format!("job-{n}"));
            let answer = rig.send(&chat, &name).await.unwrap();
            assert_eq!(answer.id, key(&chat, &name));
            rig.acked(mark, &chat, &name).await;
            sent.push((id_part(&answer.id).to_owned(), format!("text of {name}"), 0));
        }
        assert_eq!(shown(&sim).await, sent);
        rig.hears(&sim, "and yours?").await;
        let state = rig.ask(&State {}).await;
        assert_eq!(state.me.as_deref(), Some(&*format!("{ME}@c.us")));
        assert!(rig.browser.screenshot().await.unwrap().starts_with(b"\x89PNG"));
        assert!(rig.browser.pss_bytes().await > 50 << 20);
        assert!(rig.browser.close().await.clean);
    });
}

#[test]
fn a_repeated_call_joins_the_first_and_a_known_id_is_refused() {
    stage("messages::a_repeated_call_joins_the_first_and_a_known_id_is_refused", |dir| async move {
        let (sim, env) = world(&dir).await;
        let rig = Rig::start(&env, &profile(&env).await).await;
        rig.link(&sim).await;
        let chat = rig.chat().await;
        let mark = rig.mark();
        let (one, two) = tokio::join!(rig.send(&chat, "twin"), rig.send(&chat, "twin"));
        assert_eq!(one.unwrap(), two.unwrap());
        rig.acked(mark, &chat, "twin").await;
        assert_eq!(rig.send(&chat, "twin").await.unwrap().id, key(&chat, "twin"));
        assert_eq!(shown(&sim).await.len(), 1);

        let again = SendText { chat: chat.clone(), text: "once more".into(), key: key(&chat, "twin"), quoted: None, mark_read: false };
        let refused = rig.browser.call(&again, "another call id", LONG).await;
        assert!(matches!(&refused, Err(CallError::Page { code, .. }) if code == "duplicate_id"), "{refused:?}");
        let foreign = SendText { key: key("5511000000000@c.us", "stray"), ..again };
        assert!(matches!(rig.browser.call(&foreign, "a key of another chat", LONG).await, Err(CallError::Page { .. })));
        assert_eq!(shown(&sim).await.len(), 1);
    });
}

#[test]
fn a_message_is_found_under_every_form_of_its_key_in_this_document_and_the_next() {
    stage("messages::a_message_is_found_under_every_form_of_its_key_in_this_document_and_the_next", |dir| async move {
        let (sim, env) = world(&dir).await;
        let rig = Rig::start(&env, &profile(&env).await).await;
        rig.link(&sim).await;
        let chat = rig.chat().await;
        let mark = rig.mark();
        rig.send(&chat, "sought").await.unwrap();
        rig.acked(mark, &chat, "sought").await;
        let head = rig.ask(&RowsHead {}).await;
        assert!(head > 0);
        let whole = key(&chat, "sought");
        for _ in 0..2 {
            let other_form = format!("true_1@lid_{}", id_part(&whole));
            for keys in [vec![whole.clone()], vec![other_form.clone(), whole.clone()], vec![other_form], vec![]] {
                let found = rig
                    .ask(&FindMessage { keys: keys.clone(), id: id_part(&whole).into() })
                    .await
                    .unwrap_or_else(|| panic!("not by {keys:?}"));
                assert_eq!((found.id.as_str(), found.kind.as_str()), (whole.as_str(), "chat"));
                assert!(found.ack >= 1);
            }
            let never = key(&chat, "never sent");
            assert_eq!(rig.ask(&FindMessage { keys: vec![never.clone()], id: id_part(&never).into() }).await, None);
            let mark = rig.mark();
            rig.browser.reload().await.unwrap();
            rig.working(mark).await;
        }
        assert_eq!(rig.browser.document(), 3);
    });
}

#[test]
fn what_arrived_is_read_again_from_the_stored_rows_in_order() {
    stage("messages::what_arrived_is_read_again_from_the_stored_rows_in_order", |dir| async move {
        let (sim, env) = world(&dir).await;
        let rig = Rig::start(&env, &profile(&env).await).await;
        rig.link(&sim).await;
        let before = rig.ask(&RowsHead {}).await;
        for n in 0..5 {
            rig.hears(&sim, &format!("word {n}")).await;
        }
        let mark = rig.mark();
        rig.browser.reload().await.unwrap();
        rig.working(mark).await;
        let (mut from, mut bodies) = (before, Vec::new());
        loop {
            let rows = rig.ask(&MessagesAbove { row_id: from, limit: 2 }).await;
            assert!(rows.rows.len() <= 2 && rows.rows.iter().all(|r| r.row_id > from && r.row_id <= rows.up_to));
            bodies.extend(rows.rows.into_iter().map(|r| r.message.unwrap().body.unwrap()));
            from = rows.up_to;
            if !rows.more {
                break;
            }
        }
        assert_eq!(bodies, ["word 0", "word 1", "word 2", "word 3", "word 4"]);
        assert_eq!(from, rig.ask(&RowsHead {}).await);
        let chat = rig.ask(&ListChats { offset: 0, limit: 10 }).await.into_iter().find(|c| c.unread > 0).unwrap();
        rig.ask(&MarkRead { chat: chat.id }).await;
        assert!(rig.ask(&ContactExists { phone: PEER.into() }).await.is_some());
    });
}

#[test]
fn a_kept_directory_needs_no_second_scan_and_has_one_holder() {
    stage("messages::a_kept_directory_needs_no_second_scan_and_has_one_holder", |dir| async move {
        let (sim, env) = world(&dir).await;
        let kept = profile(&env).await;
        let rig = Rig::start(&env, &kept).await;
        rig.link(&sim).await;
        let second = session_host::browser::ProfileDir::open(&env.config().data_dir, "prf_test").await;
        assert!(matches!(second, Err(ProfileError::InUse { .. })));
        assert!(rig.browser.close().await.clean);
        rig.until("the browser's end", 0, |e| matches!(e, PageEvent::Closed { clean: true, status: Some(0) }).then_some(())).await;
        drop((rig, kept));

        let kept = profile(&env).await;
        assert!(kept.closed_cleanly() && !kept.is_new());
        let rig = Rig::start(&env, &kept).await;
        rig.working(0).await;
        assert!(!rig.log().iter().any(|e| matches!(e, PageEvent::Qr { code: Some(_), .. })), "no code was shown");
        rig.hears(&sim, "back again").await;
        assert_eq!(sim.devices(ME).await.len(), 1);
    });
}

#[test]
fn module_bundles_that_arrive_late_end_in_a_session_that_hears() {
    stage("messages::module_bundles_that_arrive_late_end_in_a_session_that_hears", |dir| async move {
        for gap in [200, 750, 1500, 5000] {
            let sim = simulator(&dir).await;
            late(&sim, &env(&dir, &sim.page, &sim.spki, timings()).await, gap).await;
        }
    });
}

async fn late(sim: &Simulator, env: &Arc<BrowserEnv>, gap_ms: u64) {
    sim.fault(json!({"kind": "slow_modules", "ms": gap_ms})).await;
    let name = format!("prf_late_{gap_ms}");
    let rig = Rig::start(env, &session_host::browser::ProfileDir::open(&env.config().data_dir, &name).await.unwrap()).await;
    rig.link(sim).await;
    rig.hears(sim, "late, but heard").await;
    let (chat, mark) = (rig.chat().await, rig.mark());
    rig.send(&chat, "late").await.unwrap();
    rig.acked(mark, &chat, "late").await;
    assert!(rig.browser.close().await.clean);
}

#[test]
fn a_full_chromium_does_as_well_and_closes_as_cleanly() {
    stage("messages::a_full_chromium_does_as_well_and_closes_as_cleanly", |dir| async move {
        let sim = simulator(&dir).await;
        let env = env_of(FULL_CHROMIUM, &dir, &sim.page, &sim.spki, timings()).await;
        let kept = profile(&env).await;
        for round in 0..2 {
            let rig = Rig::start(&env, &kept).await;
            if round == 0 {
                rig.link(&sim).await;
            } else {
                rig.working(0).await;
            }
            rig.hears(&sim, "from the other browser").await;
            if round == 0 {
                assert!(rig.browser.close().await.clean);
            } else {
                assert!(rig.browser.terminate());
                rig.until("the end", 0, |e| matches!(e, PageEvent::Closed { clean: true, .. }).then_some(())).await;
            }
        }
    });
}
