//! How an account comes and how it goes.
use crate::{
    kit::{ME, Rig, profile, world},
    stage,
};
use harness::simulator::Simulator;
use reqwest::Method;
use serde_json::json;
use session_host::browser::{Logout, PageEvent, PairingCode, State};

fn code(event: &PageEvent) -> Option<String> {
    if let PageEvent::Qr { code: Some(code), .. } = event { Some(code.clone()) } else { None }
}

fn logged_out(event: &PageEvent) -> Option<()> {
    matches!(event, PageEvent::LoggedOut { .. }).then_some(())
}

/// After the account has gone: said so, then a document that is not linked and shows a code.
async fn begins_again(rig: &Rig, mark: usize, document: u64) {
    rig.until("that it was logged out", mark, logged_out).await;
    assert!(rig.ready(mark).await > document);
    rig.until("a new code", mark, code).await;
    assert!(!rig.ask(&State {}).await.registered);
}

#[test]
fn an_account_links_by_a_code_typed_on_the_phone() {
    stage("linking::an_account_links_by_a_code_typed_on_the_phone", |dir| async move {
        let (sim, env) = world(&dir).await;
        let rig = Rig::start(&env, &profile(&env).await).await;
        rig.ready(0).await;
        let mark = rig.mark();
        let code = rig.ask(&PairingCode { phone: ME.into() }).await;
        assert_eq!(code.len(), 8, "{code}");
        let entered = sim.ask(Method::POST, &format!("/accounts/{ME}/enter-code"), Some(json!({"code": code}))).await;
        assert!(entered.0.is_success(), "{entered:?}");
        rig.until("stream MAIN", mark, |e| matches!(e, PageEvent::Stream(s) if s.registered && s.mode == "MAIN").then_some(())).await;
        rig.hears(&sim, "welcome").await;
    });
}

#[test]
fn a_logout_of_ours_unlinks_the_device_and_shows_a_new_code() {
    stage("linking::a_logout_of_ours_unlinks_the_device_and_shows_a_new_code", |dir| async move {
        let (sim, env) = world(&dir).await;
        let rig = Rig::start(&env, &profile(&env).await).await;
        rig.link(&sim).await;
        let (document, mark) = (rig.browser.document(), rig.mark());
        rig.ask(&Logout {}).await;
        begins_again(&rig, mark, document).await;
        assert!(sim.devices(ME).await.is_empty());
    });
}

#[test]
fn a_device_removed_on_the_phone_is_told_as_a_logout() {
    stage("linking::a_device_removed_on_the_phone_is_told_as_a_logout", |dir| async move {
        let (sim, env) = world(&dir).await;
        let rig = Rig::start(&env, &profile(&env).await).await;
        rig.link(&sim).await;
        let (document, mark) = (rig.browser.document(), rig.mark());
        let device = sim.devices(ME).await.remove(0);
        let removed = sim.ask(Method::DELETE, &format!("/accounts/{ME}/devices/{device}"), None).await;
        assert!(removed.0.is_success(), "{removed:?}");
        begins_again(&rig, mark, document).await;
    });
}

async fn meets(kind: &str, dir: std::path::PathBuf, told: impl Fn(&PageEvent) -> bool) {
    let (sim, env): (Simulator, _) = world(&dir).await;
    let rig = Rig::start(&env, &profile(&env).await).await;
    rig.link(&sim).await;
    let mark = rig.mark();
    sim.fault(json!({"kind": kind, "account": ME})).await;
    rig.until(kind, mark, |e| told(e).then_some(())).await;
}

#[test]
fn a_restricted_account_is_told_by_the_pages_own_word() {
    stage("linking::a_restricted_account_is_told_by_the_pages_own_word", |dir| async move {
        meets("ban", dir, |e| matches!(e, PageEvent::Cmd(name) if name == "account_temporarily_banned_from_bridge")).await;
    });
}

#[test]
fn an_account_opened_in_another_browser_is_told_as_a_conflict() {
    stage("linking::an_account_opened_in_another_browser_is_told_as_a_conflict", |dir| async move {
        meets("conflict", dir, |e| matches!(e, PageEvent::Socket(state) if state == "CONFLICT")).await;
    });
}
