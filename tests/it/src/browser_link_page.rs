//! A customer without an account opens a link in a browser of their own and links a phone.

use std::path::PathBuf;

use harness::{Stack, until, visitor::Visitor};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{OURS, PEER, SOON};

const OTHER: &str = "5511777770000";

/// What a phone's camera would read in the window; `None` where there is no code in it.
async fn camera(visitor: &Visitor) -> Option<String> {
    let png = visitor.screenshot().await;
    let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info().ok()?;
    let mut pixels = vec![0; reader.output_buffer_size()?];
    let info = reader.next_frame(&mut pixels).ok()?;
    let (width, channels) = (info.width as usize, info.color_type.samples());
    let grey = |x: usize, y: usize| pixels[(y * width + x) * channels];
    let mut picture = rqrr::PreparedImage::prepare_from_greyscale(width, info.height as usize, grey);
    picture.detect_grids().first()?.decode().ok().map(|(_, text)| text)
}

/// Where pictures for people go: set `ZAGUAN_PICTURES` to look at them.
async fn picture(visitor: &Visitor, name: &str) {
    if let Ok(folder) = std::env::var("ZAGUAN_PICTURES") {
        std::fs::write(PathBuf::from(folder).join(format!("{name}.png")), visitor.screenshot().await)
            .expect("the folder can be written to");
    }
}

#[tokio::test]
async fn a_customer_scans_the_code_of_the_page_and_sees_it_work() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(OURS).await;
    stack.sim.fault(json!({"kind": "sync_delay", "ms": 3000, "times": 1})).await;
    let link = ana.client.post("/api/whatsapp/link-page", json!({"withCode": true})).await;
    assert_eq!(link.status, StatusCode::CREATED);
    let visitor = stack.visitor("es").await;
    visitor.visit(link.body["url"].as_str().unwrap()).await;
    assert_eq!(visitor.until_shown("h1", SOON).await, "Vincula tu WhatsApp");
    assert_eq!(visitor.until_shown("#company", SOON).await, "ana");
    picture(&visitor, "1-starting").await;
    let code = until("a code that a camera can read", SOON, || camera(&visitor)).await;
    picture(&visitor, "2-scan").await;
    let wide = visitor.script("return document.documentElement.scrollWidth > innerWidth").await;
    assert_eq!(wide, false, "it fits a phone");

    assert!(stack.sim.scan(OURS, &code).await);
    visitor.until_shown("[data-step=syncing]", SOON).await;
    picture(&visitor, "3-syncing").await;
    visitor.until_shown("[data-step=working]", SOON).await;
    picture(&visitor, "4-working").await;
    assert_eq!(ana.client.get("/api/whatsapp/status").await.ok()["me"]["phone"], OURS);
    // Nothing but our own origin was asked for anything, and the token was in no address.
    let asked = visitor.script("return performance.getEntriesByType('resource').map((e) => e.name)").await;
    let asked: Vec<&str> = asked.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(!asked.is_empty() && asked.iter().all(|url| url.starts_with(&stack.api.url()) && !url.contains("zgl_")), "{asked:?}");
    visitor.close().await;
}

#[tokio::test]
async fn a_customer_on_the_phone_itself_links_by_a_pairing_code() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(OURS).await;
    let link = ana.client.post("/api/whatsapp/link-page", json!({"withCode": true})).await.ok();
    let visitor = stack.visitor("en-US").await;
    visitor.visit(link["url"].as_str().unwrap()).await;
    visitor.until_shown("#code", SOON).await;
    visitor.click("#by-code summary").await.unwrap();
    visitor.write("#phone", "12").await.unwrap();
    visitor.click("#ask button").await.unwrap();
    visitor.until_shown("[data-problem=phone]", SOON).await;
    visitor.script("document.querySelector('#phone').value = ''").await;
    visitor.write("#phone", "+55 11 99999-0000").await.unwrap();
    visitor.click("#ask button").await.unwrap();
    let code = visitor.until_shown("#pairing-code", SOON).await;
    picture(&visitor, "5-code").await;
    assert!(stack.sim.enter_code(OURS, &code).await, "{code}");
    visitor.until_shown("[data-step=working]", SOON).await;
    visitor.close().await;
}

#[tokio::test]
async fn a_customer_with_the_wrong_phone_is_told_and_may_try_again() {
    let mut stack = Stack::start().await;
    let _host = stack.host().await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    stack.sim.account(OURS).await;
    stack.sim.account(OTHER).await;
    ana.client.ask(reqwest::Method::PATCH, "/api/sessions/default", &[], Some(json!({"expectedPhone": OURS}))).await.ok();
    let link = ana.client.post("/api/whatsapp/link-page", json!({})).await.ok();
    let visitor = stack.visitor("en-US").await;
    visitor.visit(link["url"].as_str().unwrap()).await;
    let code = until("a code", SOON, || camera(&visitor)).await;
    assert!(stack.sim.scan(OTHER, &code).await);
    visitor.until_shown("[data-step=wrongPhone]", SOON).await;
    picture(&visitor, "6-wrong-phone").await;
    visitor.click("#again").await.unwrap();
    let code = until("another code", SOON, || camera(&visitor)).await;
    assert!(stack.sim.scan(OURS, &code).await);
    visitor.until_shown("[data-step=working]", SOON).await;

    // The link has done its work: nobody else links by it.
    visitor.visit("about:blank").await;
    sqlx::query("update link_page set expires_at = clock_timestamp()").execute(&stack.db().await).await.unwrap();
    visitor.visit(link["url"].as_str().unwrap()).await;
    visitor.until_shown("[data-step=expired]", SOON).await;
    picture(&visitor, "7-expired").await;
    visitor.close().await;
}
