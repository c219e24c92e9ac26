//! The pages for people, in a real browser.

use harness::{Stack, User};

/// Loads a page that may load nothing but from its own origin; answers what it shows, and what the browser complained of.
fn page(stack: &Stack, path: &str) -> (String, String) {
    let user = User::find().expect("there is one");
    let mut browser = user.command("/usr/lib/chromium/chromium-headless-shell");
    browser.current_dir(stack.folder()).env("HOME", stack.folder());
    browser.arg(format!("--user-data-dir={}", stack.folder().join("docs-browser").display()));
    browser.args([
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--virtual-time-budget=15000",
    ]);
    browser.args(["--dump-dom", &format!("{}{path}", stack.api.url())]);
    let output = browser.output().expect("the browser runs");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn the_documents_page_shows_the_operations_and_loads_nothing_from_elsewhere() {
    let stack = Stack::start().await;
    let (shown, complaints) = page(&stack, "/api-docs");
    for operation in ["/api/chats/{chat}/messages", "/api/events/stream", "Sends a message to a chat."] {
        assert!(shown.contains(operation), "{operation} is not shown: {complaints}\n{}", shown.chars().take(2000).collect::<String>());
    }
    assert!(!complaints.contains("Content Security Policy") && !complaints.contains("ERR_"), "{complaints}");
    let (shown, complaints) = page(&stack, "/problems/new_chat_cap");
    assert!(shown.contains("rising to 200 over 14 days") && !complaints.contains("Content Security Policy"), "{shown} {complaints}");
}
