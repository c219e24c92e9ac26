//! What goes wrong in and around a browser, and what becomes of it.
use crate::{
    devtools::Devtools,
    kit::{LONG, ME, PEER, Rig, key, profile, world},
    stage,
};
use rustix::process::Signal;
use serde_json::json;
use session_host::browser::{
    CallError, MessagesAbove, PageEvent, ProfileDir, RowsHead, State,
    process::{ProcessId, children},
};
use std::time::Duration;

fn named(process: ProcessId, name: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/comm", process.pid)).is_ok_and(|c| c.trim() == name)
}

#[test]
fn a_crashed_renderer_is_reported_and_the_same_browser_works_again() {
    stage("faults::a_crashed_renderer_is_reported_and_the_same_browser_works_again", |dir| async move {
        let (sim, env) = world(&dir).await;
        let kept = profile(&env).await;
        let rig = Rig::start(&env, &kept).await;
        rig.link(&sim).await;
        let (pid, document, mark) = (rig.browser.pid(), rig.browser.document(), rig.mark());
        Devtools::attach(kept.path()).await.send("Page.crash", json!({})).await;
        rig.until("the crash", mark, |e| (*e == PageEvent::Crashed).then_some(())).await;
        let now = rig.working(mark).await;
        assert!(now > document && rig.browser.pid() == pid);
        rig.hears(&sim, "after the crash").await;
        let (chat, mark) = (rig.chat().await, rig.mark());
        rig.send(&chat, "after").await.unwrap();
        rig.acked(mark, &chat, "after").await;
        assert!(rig.browser.screenshot().await.unwrap().starts_with(b"\x89PNG"), "WebDriver is attached anew");
    });
}

#[test]
fn no_two_browsers_give_a_document_the_same_number() {
    stage("faults::no_two_browsers_give_a_document_the_same_number", |dir| async move {
        let (_sim, env) = world(&dir).await;
        let other = ProfileDir::open(&env.config().data_dir, "prf_other").await.unwrap();
        let (one, two) = (Rig::start(&env, &profile(&env).await).await, Rig::start(&env, &other).await);
        assert_ne!(one.ready(0).await, two.ready(0).await, "a call made in one could be made again in the other");
    });
}

#[test]
fn a_call_cut_off_by_a_lost_connection_is_joined_and_not_made_again() {
    stage("faults::a_call_cut_off_by_a_lost_connection_is_joined_and_not_made_again", |dir| async move {
        let (sim, env) = world(&dir).await;
        let rig = Rig::start(&env, &profile(&env).await).await;
        rig.link(&sim).await;
        let (chat, document) = (rig.chat().await, rig.browser.document());
        for round in 0..5 {
            let (name, mark) = (format!("cut-{round}"), rig.mark());
            let first = tokio::join!(rig.send(&chat, &name), async { rig.browser.hang_up() }).0;
            assert!(matches!(first, Ok(_) | Err(CallError::LostSocket)), "{first:?}");
            assert_eq!(rig.send(&chat, &name).await.unwrap().id, key(&chat, &name));
            rig.acked(mark, &chat, &name).await;
        }
        rig.hears(&sim, "still there").await;
        assert_eq!(rig.browser.document(), document, "the document stayed");
        let got = sim.messages(PEER, ME).await;
        assert_eq!(got.iter().filter(|m| m["body"].as_str().is_some_and(|b| b.starts_with("text of cut-"))).count(), 5);
        assert!(got.iter().all(|m| m["duplicates"] == 0), "{got:?}");
    });
}

#[test]
fn messages_that_arrive_while_nobody_is_connected_are_told_afterwards_once() {
    stage("faults::messages_that_arrive_while_nobody_is_connected_are_told_afterwards_once", |dir| async move {
        let (sim, env) = world(&dir).await;
        let rig = Rig::start(&env, &profile(&env).await).await;
        rig.link(&sim).await;
        let mark = rig.mark();
        let mut ids = Vec::new();
        for n in 0..20 {
            if n % 5 == 0 {
                rig.browser.hang_up();
            }
            ids.push(sim.send(PEER, ME, &format!("word {n}")).await);
        }
        let last = ids.last().unwrap().clone();
        rig.until("the last one", mark, |e| matches!(e, PageEvent::Message(m) if m.id_part == last).then_some(())).await;
        let heard = rig.log()[mark..]
            .iter()
            .filter_map(|e| if let PageEvent::Message(m) = e { Some(m.id_part.clone()) } else { None })
            .collect::<Vec<_>>();
        assert_eq!(heard, ids);
    });
}

#[test]
fn a_killed_chromedriver_is_replaced_and_the_page_does_not_notice() {
    stage("faults::a_killed_chromedriver_is_replaced_and_the_page_does_not_notice", |dir| async move {
        let (sim, env) = world(&dir).await;
        let rig = Rig::start(&env, &profile(&env).await).await;
        rig.link(&sim).await;
        rig.browser.screenshot().await.unwrap();
        let driver = children(std::process::id()).into_iter().find(|c| named(*c, "chromedriver")).unwrap();
        let document = rig.browser.document();
        driver.signal(Signal::KILL);
        rig.hears(&sim, "no driver needed").await;
        assert!(rig.browser.screenshot().await.unwrap().starts_with(b"\x89PNG"));
        assert_eq!(rig.browser.document(), document);
        assert!(!driver.alive() && children(std::process::id()).into_iter().any(|c| named(c, "chromedriver")));
    });
}

/// wa-js hands its events on through `queueMicrotask`: without it, it sends and never hears.
#[test]
fn a_driver_that_sends_but_does_not_hear_is_found_out_and_loaded_anew() {
    stage("faults::a_driver_that_sends_but_does_not_hear_is_found_out_and_loaded_anew", |dir| async move {
        let (sim, env) = world(&dir).await;
        let kept = profile(&env).await;
        let rig = Rig::start(&env, &kept).await;
        rig.link(&sim).await;
        let mut devtools = Devtools::attach(kept.path()).await;
        let deaf = "if (!sessionStorage.deaf) { sessionStorage.deaf = 1; window.queueMicrotask = () => {}; }";
        devtools.command("Page.addScriptToEvaluateOnNewDocument", json!({"source": deaf})).await;
        let (document, mark) = (rig.browser.document(), rig.mark());
        rig.browser.reload().await.unwrap();
        assert_eq!(rig.working(mark).await, document + 2, "the deaf document never became ready");
        rig.hears(&sim, "now you do").await;
    });
}

/// The page erases its databases at a logout, and takes what it finds next for its own: an empty one leaves it without its stores for ever.
#[test]
fn a_database_that_the_page_erased_is_not_made_anew_by_our_reading() {
    stage("faults::a_database_that_the_page_erased_is_not_made_anew_by_our_reading", |dir| async move {
        let (sim, env) = world(&dir).await;
        let kept = profile(&env).await;
        let rig = Rig::start(&env, &kept).await;
        rig.link(&sim).await;
        let mut devtools = Devtools::attach(kept.path()).await;
        // As seen by whoever looked just before.
        let erase = "window.listed = indexedDB.databases.bind(indexedDB); indexedDB.databases = async () => [{ name: 'model-storage', version: 1 }];
            new Promise((done, fail) => Object.assign(indexedDB.deleteDatabase('model-storage'), { onsuccess: () => done(1), onerror: fail }))";
        let run = |expression: &str| json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        assert_eq!(devtools.command("Runtime.evaluate", run(erase)).await["result"]["value"], 1);
        assert_eq!(rig.ask(&RowsHead {}).await, 0);
        assert!(rig.ask(&MessagesAbove { row_id: 0, limit: 10 }).await.rows.is_empty());
        let names = devtools.command("Runtime.evaluate", run("listed().then((found) => found.map((d) => d.name))")).await;
        assert_eq!(names["result"]["value"], json!(["signal-storage"]));
    });
}

#[test]
fn a_hung_page_is_reported_and_loaded_anew() {
    stage("faults::a_hung_page_is_reported_and_loaded_anew", |dir| async move {
        let (sim, env) = world(&dir).await;
        let kept = profile(&env).await;
        let rig = Rig::start(&env, &kept).await;
        rig.link(&sim).await;
        let mark = rig.mark();
        Devtools::attach(kept.path()).await.send("Runtime.evaluate", json!({"expression": "for (;;) {}"})).await;
        let pending = rig.browser.call(&State {}, "asked in vain", Duration::from_millis(300)).await;
        assert_eq!(pending, Err(CallError::Deadline));
        rig.until("that it hangs", mark, |e| (*e == PageEvent::Silent).then_some(())).await;
        rig.working(mark).await;
        rig.hears(&sim, "awake").await;
    });
}

#[test]
fn a_killed_browser_ends_its_calls_and_its_events_and_leaves_no_clean_mark() {
    stage("faults::a_killed_browser_ends_its_calls_and_its_events_and_leaves_no_clean_mark", |dir| async move {
        let (sim, env) = world(&dir).await;
        let kept = profile(&env).await;
        let rig = Rig::start(&env, &kept).await;
        rig.link(&sim).await;
        rig.browser.kill_now();
        let answer = rig.browser.call(&State {}, "too late", LONG).await;
        assert_eq!(answer, Err(CallError::BrowserGone));
        rig.until("the end", 0, |e| matches!(e, PageEvent::Closed { clean: false, status: None }).then_some(())).await;
        assert!(!rig.browser.close().await.clean);
        drop((rig, kept));
        assert!(!profile(&env).await.closed_cleanly());
    });
}

#[test]
fn a_browser_that_is_told_to_end_by_signal_closes_cleanly_and_a_dropped_one_is_gone() {
    stage("faults::a_browser_that_is_told_to_end_by_signal_closes_cleanly_and_a_dropped_one_is_gone", |dir| async move {
        let (sim, env) = world(&dir).await;
        let kept = profile(&env).await;
        let rig = Rig::start(&env, &kept).await;
        rig.link(&sim).await;
        assert!(rig.browser.terminate());
        rig.until("the end", 0, |e| matches!(e, PageEvent::Closed { clean: true, .. }).then_some(())).await;
        assert!(rig.browser.close().await.clean);
        drop(rig);
        let rig = Rig::start(&env, &kept).await;
        rig.working(0).await;
        let process = ProcessId { pid: rig.browser.pid(), start: rig.browser.started_ticks() };
        drop(rig);
        while process.alive() {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_page_without_network_is_cut_off_and_comes_back() {
    stage("faults::a_page_without_network_is_cut_off_and_comes_back", |dir| async move {
        let (sim, env) = world(&dir).await;
        let rig = Rig::start(&env, &profile(&env).await).await;
        rig.link(&sim).await;
        let mark = rig.mark();
        rig.browser.offline(true).await.unwrap();
        let unheard = sim.send(PEER, ME, "into the void").await;
        assert_eq!(rig.browser.call(&State {}, "nobody there", Duration::from_secs(1)).await, Err(CallError::NotReady));
        let heard = |e: &PageEvent| matches!(e, PageEvent::Message(m) if m.id_part == unheard);
        assert!(!rig.log()[mark..].iter().any(heard));
        rig.browser.offline(false).await.unwrap();
        rig.working(mark).await;
        rig.hears(&sim, "back").await;
    });
}

#[test]
fn a_page_that_does_not_heal_is_given_up_and_said_so() {
    stage("faults::a_page_that_does_not_heal_is_given_up_and_said_so", |dir| async move {
        let (sim, env) = world(&dir).await;
        let kept = profile(&env).await;
        let rig = Rig::start(&env, &kept).await;
        rig.link(&sim).await;
        let mut devtools = Devtools::attach(kept.path()).await;
        devtools.command("Page.addScriptToEvaluateOnNewDocument", json!({"source": "window.queueMicrotask = () => {};"})).await;
        let mark = rig.mark();
        rig.browser.reload().await.unwrap();
        let reason = rig
            .until("that it is given up", mark, |e| if let PageEvent::Unwell { reason } = e { Some(reason.clone()) } else { None })
            .await;
        assert!(reason.contains("does not hear"), "{reason}");
        assert_eq!(rig.browser.call(&State {}, "to whom", LONG).await, Err(CallError::NotReady));
        assert!(rig.browser.close().await.clean);
    });
}

#[test]
fn a_site_that_cannot_be_reached_is_said_so_and_tried_again() {
    stage("faults::a_site_that_cannot_be_reached_is_said_so_and_tried_again", |dir| async move {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(); // closed again at once
        let env = crate::kit::env(&dir, &free.to_string(), "none", crate::kit::timings()).await;
        let rig = Rig::start(&env, &profile(&env).await).await;
        rig.until("that it is not reached", 0, |e| matches!(e, PageEvent::Unreachable { .. }).then_some(())).await;
        rig.browser.reload().await.unwrap();
        assert_eq!(rig.browser.document(), 0);
        assert!(rig.browser.close().await.clean);
    });
}
