//! What the server promises pages and phones, asked of it without a network.

use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Out, Refusal, SocketId, State};

const ANA: &str = "5511999990000";
const BRUNO: &str = "5511888880000";

/// A page's end of a socket.
struct Page {
    id: SocketId,
    device: String,
    told: UnboundedReceiver<Out>,
}

impl Page {
    /// Events of one name that came since the last look; what came beside them is forgotten.
    fn heard(&mut self, name: &str) -> Vec<Value> {
        let mut heard = Vec::new();
        while let Ok(out) = self.told.try_recv() {
            match out {
                Out::Frame(frame) if frame["ev"] == name => heard.push(frame),
                _ => {}
            }
        }
        heard
    }
}

fn world() -> State {
    let mut state = State::default();
    for phone in [ANA, BRUNO] {
        state.make_account(&format!("+{phone}"), None, None);
    }
    state
}

/// A page that shows a code, and the code.
fn unlinked(state: &mut State) -> (Page, String) {
    let (out, told) = unbounded_channel();
    let id = state.connect(out);
    assert!(state.issue_code(id, 60_000));
    let mut page = Page { id, device: String::new(), told };
    let code = page.heard("ref")[0]["ref"].as_str().unwrap().to_owned();
    (page, code)
}

fn linked(state: &mut State, phone: &str) -> Page {
    let (mut page, code) = unlinked(state);
    let (_, creds) = state.scan(phone, &format!("{code},noise,identity,adv,1")).unwrap();
    page.device = creds["device"].as_str().unwrap().to_owned();
    state.sync(page.id);
    page
}

/// The page comes back with the credentials it kept.
fn returned(state: &mut State, page: &Page) -> Page {
    state.disconnect(page.id);
    let (out, told) = unbounded_channel();
    let id = state.connect(out);
    assert!(state.resume(id, &page.device));
    state.sync(id);
    Page { id, device: page.device.clone(), told }
}

fn text(state: &mut State, from: &Page, phone: &str, to: &str, id: &str) {
    let sent = state.send(phone, Some(&from.device), &json!({"id": id, "chat": to, "type": "chat", "body": "text"})).unwrap();
    state.confirm(&sent);
}

fn arm(state: &mut State, fault: Value) {
    state.fault(serde_json::from_value(fault).unwrap());
}

#[test]
fn a_message_reaches_the_other_phone_and_its_pages_and_the_receipts_come_back() {
    let mut state = world();
    let (mut ana, mut bruno) = (linked(&mut state, ANA), linked(&mut state, BRUNO));
    text(&mut state, &ana, ANA, &format!("{BRUNO}@c.us"), "3EB01");
    let got = bruno.heard("msg");
    assert_eq!((got.len(), &got[0]["m"]["chat"], &got[0]["m"]["fromMe"]), (1, &json!(format!("{ANA}@c.us")), &json!(false)));
    assert_eq!(ana.heard("ack")[0]["ack"], 2);
    assert_eq!(state.read(BRUNO, &format!("{ANA}@c.us")).unwrap(), 1);
    assert_eq!(ana.heard("ack")[0]["ack"], 3);
    assert_eq!(state.account(ANA).unwrap().chats[&format!("{BRUNO}@c.us")][0].ack, 3);
}

#[test]
fn an_id_that_the_recipient_has_is_shown_once_and_counted() {
    let mut state = world();
    let ana = linked(&mut state, ANA);
    for _ in 0..3 {
        text(&mut state, &ana, ANA, &format!("{BRUNO}@c.us"), "3EB01");
    }
    let shown = &state.account(BRUNO).unwrap().chats[&format!("{ANA}@c.us")];
    assert_eq!((shown.len(), shown[0].duplicates), (1, 2));
    assert_eq!((state.stats.duplicates, state.stats.sends), (2, 3));
}

#[test]
fn the_same_id_under_phone_number_and_hidden_id_is_the_same_message() {
    let mut state = world();
    let ana = linked(&mut state, ANA);
    let hidden = state.account(BRUNO).unwrap().lid_wid();
    text(&mut state, &ana, ANA, &hidden, "3EB01");
    text(&mut state, &ana, ANA, &format!("{BRUNO}@c.us"), "3EB01");
    assert_eq!(state.stats.duplicates, 1);
}

#[test]
fn only_the_code_that_a_page_shows_now_links_it() {
    let mut state = world();
    let (page, stale) = unlinked(&mut state);
    assert!(state.issue_code(page.id, 20_000));
    let shows_none = Refusal::Conflict("the code is not shown (any more)");
    assert_eq!(state.scan(ANA, &stale).unwrap_err(), shows_none);
    assert_eq!(state.scan(ANA, "2@foreign,a,b,c,1").unwrap_err(), shows_none);
    let (gone, code) = unlinked(&mut state);
    state.disconnect(gone.id);
    assert_eq!(state.scan(ANA, &code).unwrap_err(), shows_none);
    let (_page, code) = unlinked(&mut state);
    assert_eq!(state.scan("551100", &code).unwrap_err(), Refusal::NotFound("account"));
    assert!(state.scan(ANA, &code).is_ok());
    assert_eq!(state.scan(BRUNO, &code).unwrap_err(), shows_none, "a code links once");
}

#[test]
fn a_pairing_code_is_for_the_number_that_it_was_asked_for() {
    let mut state = world();
    let (page, _) = unlinked(&mut state);
    let code = state.pairing_code(page.id, ANA);
    assert_eq!(code.len(), 8);
    assert!(state.enter_code(BRUNO, &code).is_err());
    assert!(state.enter_code(ANA, &format!("{}-{}", &code[..4], &code[4..])).is_ok());
}

#[test]
fn what_a_page_missed_comes_again_in_order_until_it_says_that_it_has_it() {
    let mut state = world();
    let (mut ana, bruno) = (linked(&mut state, ANA), linked(&mut state, BRUNO));
    ana.heard("msg");
    state.disconnect(ana.id);
    for id in ["3A1", "3A2", "3A3"] {
        text(&mut state, &bruno, BRUNO, &format!("{ANA}@c.us"), id);
    }
    let ids = |frames: Vec<Value>| frames.iter().map(|f| f["m"]["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let mut ana = returned(&mut state, &ana);
    assert_eq!(ids(ana.heard("msg")), ["3A1", "3A2", "3A3"]);
    state.got(ana.id, &[json!("3A1")]);
    let mut ana = returned(&mut state, &ana);
    assert_eq!(ids(ana.heard("msg")), ["3A2", "3A3"], "the page died before it stored these");
}

#[test]
fn a_phone_that_is_off_gives_its_tick_when_it_is_back() {
    let mut state = world();
    let mut ana = linked(&mut state, ANA);
    state.set_online(BRUNO, false).unwrap();
    text(&mut state, &ana, ANA, &format!("{BRUNO}@c.us"), "3EB01");
    assert!(ana.heard("ack").is_empty());
    state.set_online(BRUNO, true).unwrap();
    assert_eq!(ana.heard("ack").len(), 1);
    state.set_online(BRUNO, true).unwrap();
    assert!(ana.heard("ack").is_empty());
}

#[test]
fn a_second_browser_with_the_same_profile_puts_the_first_in_conflict() {
    let mut state = world();
    let mut first = linked(&mut state, ANA);
    let (out, _told) = unbounded_channel();
    let second = state.connect(out);
    assert!(state.resume(second, &first.device));
    assert_eq!(first.heard("conflict").len(), 1);
    assert_eq!(state.owner(first.id), None);
}

#[test]
fn a_removed_device_is_told_and_not_taken_in_again() {
    let mut state = world();
    let mut ana = linked(&mut state, ANA);
    let device = ana.device.clone();
    state.remove_device(ANA, &device, "device_removed").unwrap();
    assert_eq!(ana.heard("loggedout")[0]["reason"], "device_removed");
    assert!(!state.resume(ana.id, &device));
    assert_eq!(state.remove_device(ANA, &device, "device_removed"), Err(Refusal::NotFound("device")));
}

#[test]
fn a_group_message_reaches_every_member_but_its_sender() {
    let mut state = world();
    let (ana, mut bruno) = (linked(&mut state, ANA), linked(&mut state, BRUNO));
    let group = state.make_group(ANA, "Equipe", &[json!(format!("{BRUNO}@c.us"))]);
    let id = group["id"].as_str().unwrap().to_owned();
    text(&mut state, &ana, ANA, &id, "3EB01");
    assert_eq!(bruno.heard("msg")[0]["m"]["chat"], json!(id));
    assert_eq!(state.account(BRUNO).unwrap().chats[&id].len(), 1);
    assert!(!state.account(BRUNO).unwrap().chats.contains_key(&format!("{ANA}@c.us")));
}

#[test]
fn faults_befall_only_the_account_they_name() {
    let mut state = world();
    let (ana, mut bruno) = (linked(&mut state, ANA), linked(&mut state, BRUNO));
    arm(&mut state, json!({"kind": "redeliver", "account": BRUNO, "times": 1}));
    for id in ["3EB01", "3EB02"] {
        text(&mut state, &ana, ANA, &format!("{BRUNO}@c.us"), id);
    }
    assert_eq!(bruno.heard("msg").len(), 3, "the first came twice");
    arm(&mut state, json!({"kind": "refuse_connect", "account": ANA, "times": 1}));
    assert!(!state.refuses(&bruno.device) && state.refuses(&ana.device) && !state.refuses(&ana.device));
    arm(&mut state, json!({"kind": "conflict", "account": ANA}));
    assert!(bruno.heard("conflict").is_empty());
}

fn past(chats: u32, messages: u32, chunk: usize) -> super::Past {
    serde_json::from_value(json!({"chats": chats, "messages": messages, "chunk": chunk, "unread": 1})).unwrap()
}

/// Chunks as the page is sent them.
fn chunks(state: &mut State, page: &mut Page) -> Vec<Value> {
    let mut last = None;
    while let Some(chunk) = state.send_history(page.id, last) {
        last = Some(chunk);
    }
    page.heard("history")
}

#[test]
fn the_past_comes_in_chunks_that_end_at_100_percent_and_each_chat_comes_with_its_first_message() {
    let mut state = world();
    state.make_history(ANA, past(3, 10, 7)).unwrap();
    let mut ana = linked(&mut state, ANA);
    let told = chunks(&mut state, &mut ana);
    assert_eq!(told.len(), 5);
    assert_eq!(told.iter().map(|c| c["progress"].as_u64().unwrap()).collect::<Vec<_>>(), [20, 40, 60, 80, 100]);
    assert_eq!(told.iter().map(|c| c["msgs"].as_array().unwrap().len()).sum::<usize>(), 30);
    for chunk in &told {
        for chat in chunk["chats"].as_array().unwrap() {
            assert_eq!(chat["unread"], 1);
            assert!(chunk["msgs"].as_array().unwrap().iter().any(|m| m["chat"] == chat["id"]));
        }
    }
}

#[test]
fn a_chunk_comes_again_until_the_page_has_stored_it() {
    let mut state = world();
    state.make_history(ANA, past(1, 4, 2)).unwrap();
    let mut ana = linked(&mut state, ANA);
    assert_eq!(chunks(&mut state, &mut ana).len(), 2);
    state.got_history(ana.id, 1);
    let mut ana = returned(&mut state, &ana);
    let again = chunks(&mut state, &mut ana);
    assert_eq!((again.len(), &again[0]["chunk"]), (1, &json!(2)));
    state.got_history(ana.id, 2);
    let mut ana = returned(&mut state, &ana);
    assert!(chunks(&mut state, &mut ana).is_empty());
}

#[test]
fn a_phone_without_a_past_says_that_it_is_done() {
    let mut state = world();
    let mut ana = linked(&mut state, ANA);
    assert_eq!(chunks(&mut state, &mut ana), [json!({"ev": "history", "chunk": 1, "progress": 100, "chats": [], "msgs": []})]);
}

#[test]
fn history_shows_what_became_of_a_message_and_not_the_changes() {
    let mut state = world();
    let bruno = linked(&mut state, BRUNO);
    let to_ana = |id: &str, more: Value| {
        let mut m = json!({"id": id, "chat": format!("{ANA}@c.us"), "type": "chat", "body": id});
        m.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        m
    };
    for m in [
        to_ana("3A1", json!({})),
        to_ana("3A2", json!({})),
        to_ana("3A3", json!({"type": "edit", "target": "3A1", "body": "edited"})),
        to_ana("3A4", json!({"type": "revoke", "target": "3A2"})),
    ] {
        state.send(BRUNO, Some(&bruno.device), &m).unwrap();
    }
    let mut ana = linked(&mut state, ANA);
    let told = chunks(&mut state, &mut ana);
    let shown: Vec<_> =
        told[0]["msgs"].as_array().unwrap().iter().map(|m| (m["id"].clone(), m["type"].clone(), m["body"].clone())).collect();
    assert_eq!(shown, [(json!("3A1"), json!("chat"), json!("edited")), (json!("3A2"), json!("revoked"), Value::Null)]);
}

#[test]
fn a_chat_that_moved_is_named_by_its_hidden_id_to_its_own_pages_alone() {
    let mut state = world();
    let (mut ana, mut bruno) = (linked(&mut state, ANA), linked(&mut state, BRUNO));
    let hidden = state.account(BRUNO).unwrap().lid_wid();
    assert_eq!(state.flip(ANA, BRUNO, true, false).unwrap(), hidden);
    text(&mut state, &bruno, BRUNO, &format!("{ANA}@c.us"), "3EB01");
    assert_eq!(ana.heard("msg")[0]["m"]["chat"], json!(hidden));
    text(&mut state, &ana, ANA, &hidden, "3EB02");
    assert_eq!(bruno.heard("msg")[0]["m"]["chat"], json!(format!("{ANA}@c.us")));
    assert_eq!(ana.heard("ack")[0]["chat"], json!(hidden));
    let chat = &state.account(ANA).unwrap().chats[&format!("{BRUNO}@c.us")];
    assert_eq!(chat.len(), 2, "the phone shows one chat");
}

#[test]
fn a_number_that_moves_to_another_hidden_id_is_announced_and_the_old_id_reaches_nobody() {
    let mut state = world();
    let mut ana = linked(&mut state, ANA);
    let (old, new) = state.move_lid(BRUNO, None).unwrap();
    assert_ne!(old, new);
    assert_eq!(ana.heard("contact")[0]["contact"]["lid"], json!(new));
    text(&mut state, &ana, ANA, &old, "3EB01");
    assert!(ana.heard("ack").is_empty());
    assert!(state.account(BRUNO).unwrap().chats.is_empty());
}
