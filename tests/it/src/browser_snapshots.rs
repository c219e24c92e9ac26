//! A profile outlives its machine: a session moves to another disk without linking again, and what is damaged is passed over, never in silence.

use std::{
    fs,
    path::{Path, PathBuf},
};

use harness::{Settings, Stack, Tenant, faults::Word, process::send, services::Host, until_true};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{OURS, PEER, SOON, everything::objects};

/// A linked session on a host with a disk of its own.
async fn linked(timings: Value) -> (Stack, Host, Tenant) {
    let mut stack = Stack::with(Settings::timed(&timings)).await.expect("a stack starts");
    let host = stack.host_elsewhere("a").await;
    let ana = stack.tenant("ana").await;
    stack.sim.account(PEER).await;
    ana.link(&stack.sim, OURS).await;
    (stack, host, ana)
}

async fn leaves(mut host: Host) {
    let status = host.leave(SOON).await.expect("the host leaves when it is told to");
    assert!(status.success(), "{}", host.process.log());
}

/// As a machine does that burns down: host, guard and disk at once.
async fn burns_down(mut host: Host) {
    let proper = host.proper();
    host.process.signal(Signal::KILL);
    send(proper, Signal::KILL);
    host.process.wait(SOON).await.expect("it ends");
    until_true("the end of its browsers", SOON, async || host.browsers().is_empty()).await;
    fs::remove_dir_all(host.data.join("profiles")).expect("it is removed");
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a name").path())
}

fn directories(host: &Host) -> Vec<PathBuf> {
    entries(&host.data.join("profiles")).filter(|path| path.is_dir()).collect()
}

fn damage(object: &Path) {
    let mut bytes = fs::read(object).expect("it is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(object, bytes).expect("it is written");
}

async fn gaps(ana: &Tenant) -> Vec<Value> {
    let mut events = ana.client.events(0).await;
    events.retain(|event| event["type"] == "session.gap");
    events
}

/// What the database says, one line.
fn row(stack: &Stack, query: &str) -> String {
    stack.postgres.sql(query).trim().to_owned()
}

/// Works, and what is sent arrives.
async fn works(stack: &Stack, ana: &Tenant, text: &str) {
    ana.client.until_state("working", SOON).await;
    let job = ana.client.accepted(PEER, text).await;
    assert_eq!(ana.client.ended(&job, SOON).await["state"], "succeeded");
    assert_eq!(stack.sim.texts(PEER, OURS).await.iter().filter(|t| *t == text).count(), 1);
}

#[tokio::test]
async fn a_session_moves_between_hosts_with_disks_of_their_own_without_linking_again() {
    let (mut stack, a, ana) = linked(json!({})).await;
    let refs = stack.sim.stats().await["refs"].clone();
    works(&stack, &ana, "from a").await;
    let first = directories(&a);
    leaves(a).await;
    assert_eq!(objects(&stack).len(), 1);
    let bytes = fs::read(&objects(&stack)[0]).unwrap();
    assert!(!bytes.windows(9).any(|w| w == b"IndexedDB" || w == &OURS.as_bytes()[..9]), "what leaves the machine is sealed");

    let missed = stack.sim.send(PEER, OURS, "while nobody was there").await;
    let b = stack.host_elsewhere("b").await;
    works(&stack, &ana, "from b").await;
    ana.client.event("what came meanwhile", SOON, |e| e["data"]["message"]["waId"] == missed.as_str()).await;
    assert_eq!(gaps(&ana).await, Vec::<Value>::new(), "the last owner had closed it cleanly");
    leaves(b).await;

    // The first host comes back, with a directory that is older by now.
    let a = stack.host_elsewhere("a").await;
    works(&stack, &ana, "from a again").await;
    until_true("the stale directory to go", SOON, async || !first[0].exists() && directories(&a).len() == 1).await;
    assert_eq!(gaps(&ana).await, Vec::<Value>::new());

    // It is lost with its disk: what is left is older than the session, and that is said, once.
    let taken = row(&stack, "select to_char(max(taken_at) at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') from profile_snapshot");
    burns_down(a).await;
    let c = stack.host_elsewhere("c").await;
    works(&stack, &ana, "from c").await;
    let later = stack.sim.send(PEER, OURS, "after the fire").await;
    ana.client.event("a new message", SOON, |e| e["data"]["message"]["waId"] == later.as_str()).await;
    let told = gaps(&ana).await;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["data"]["gap"]["from"], taken.as_str(), "from the snapshot");
    let stats = stack.sim.stats().await;
    assert_eq!((&stats["refs"], stats["duplicates"].as_u64()), (&refs, Some(0)), "no code was asked for, and nothing came twice");
    leaves(c).await;
    assert_eq!(
        row(&stack, "select string_agg((opened_at is not null)::text, ' ' order by epoch, n) from profile_snapshot"),
        "true true false",
        "the newest was not opened yet, and the two before it stay"
    );
    // The oldest is not wanted any more.
    stack.postgres.sql(
        "with gone as (delete from profile_snapshot where (epoch, n) = (select epoch, n from profile_snapshot order by 1, 2 limit 1) returning *)
         insert into object_leftover (object, tenant, due_at) select object, tenant, now() from gone",
    );
    let _worker = stack.try_worker(r#"{"lookEveryMs": 100, "everyMs": {"snapshots.sweep": 200}}"#).await.unwrap();
    until_true("its object to go", SOON, async || row(&stack, "select count(*) from object_leftover") == "0").await;
    let left = objects(&stack).into_iter().map(|path| path.strip_prefix(stack.objects()).unwrap().display().to_string());
    let named = row(&stack, "select string_agg(object, ' ' order by object collate \"C\") from profile_snapshot");
    assert_eq!(left.collect::<Vec<_>>().join(" "), named, "the others stay");
    for line in ["snapshot taken", "profile restored"] {
        eprintln!("{}", lines(&stack, line));
    }
}

/// What the hosts' logs say of it, for the numbers in docs/reliability.md.
fn lines(stack: &Stack, about: &str) -> String {
    let logs = entries(&stack.folder().join("logs")).map(|log| fs::read(log).unwrap_or_default());
    let text: String = logs.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect();
    text.lines().filter(|line| line.contains(about)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn a_storage_that_was_erased_is_passed_over_for_an_older_generation_and_never_asks_for_a_code() {
    let (mut stack, a, ana) = linked(json!({})).await;
    let refs = stack.sim.stats().await["refs"].clone();
    works(&stack, &ana, "one").await;
    let data = a.data.join("profiles");
    leaves(a).await;
    let erase = |names: &[&str]| {
        for profile in fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
            names.iter().for_each(|name| fs::remove_dir_all(profile.join("Default").join(name)).unwrap());
        }
    };
    // IndexedDB is gone and localStorage is not, as after a kill at the wrong moment.
    erase(&["IndexedDB"]);
    let a = stack.host_elsewhere("a").await;
    works(&stack, &ana, "two").await;
    assert_eq!(gaps(&ana).await, Vec::<Value>::new(), "what was restored is what was closed");
    leaves(a).await;

    // Both are gone, and the newest snapshot is damaged.
    erase(&["IndexedDB", "Local Storage"]);
    let newest = row(&stack, "select object from profile_snapshot order by epoch desc, n desc limit 1");
    damage(&stack.objects().join(&newest));
    let a = stack.host_elsewhere("a").await;
    works(&stack, &ana, "three").await;
    assert_eq!(gaps(&ana).await.len(), 1, "an older generation misses something");
    assert_eq!(row(&stack, &format!("select refused from profile_snapshot where object = '{newest}'")), "corrupt");
    assert_eq!(stack.sim.stats().await["refs"], refs, "no code was asked for");
    leaves(a).await;

    // Nothing is left: it is said, with a reason, before anybody is shown a code.
    erase(&["IndexedDB", "Local Storage"]);
    objects(&stack).iter().for_each(|object| damage(object));
    let _a = stack.host_elsewhere("a").await;
    ana.client.until_state("logged_out", SOON).await;
    let status = ana.client.get("/api/whatsapp/status").await.ok();
    assert_eq!((&status["reason"], &status["userAction"]), (&json!("profile_lost"), &json!("link_again")));
    assert_eq!(stack.sim.stats().await["refs"], refs);
    assert_eq!(gaps(&ana).await.len(), 2);
    ana.link(&stack.sim, OURS).await;
    works(&stack, &ana, "four").await;
}

#[tokio::test]
async fn a_first_snapshot_is_taken_once_a_link_has_settled_and_costs_no_job() {
    let (mut stack, a, ana) = linked(json!({"snapshotAfterLinkMs": 1500})).await;
    let refs = stack.sim.stats().await["refs"].clone();
    let mut jobs = Vec::new();
    let recycled = |e: &Value| e["type"] == "session.status" && e["data"]["session"]["reason"] == "recycling";
    let end = tokio::time::Instant::now() + SOON;
    while !ana.client.events(0).await.iter().any(recycled) {
        assert!(tokio::time::Instant::now() < end, "the browser is not replaced");
        jobs.push(ana.client.accepted(PEER, &format!("n{}", jobs.len())).await);
        ana.client.ended(&jobs[jobs.len() - 1], SOON).await;
    }
    jobs.push(ana.client.accepted(PEER, &format!("n{}", jobs.len())).await);
    ana.client.until_state("working", SOON).await;
    for job in &jobs {
        assert_eq!(ana.client.ended(job, SOON).await["state"], "succeeded");
    }
    let sent: Vec<String> = (0..jobs.len()).map(|n| format!("n{n}")).collect();
    assert_eq!(stack.sim.texts(PEER, OURS).await, sent, "in order, each once");
    until_true("the snapshot to be worked in", SOON, async || {
        row(&stack, "select count(*) from profile_snapshot where opened_at is not null") == "1"
    })
    .await;
    burns_down(a).await;
    let _b = stack.host_elsewhere("b").await;
    works(&stack, &ana, "from b").await;
    assert_eq!(gaps(&ana).await.len(), 1, "its machine died in the middle of work");
    assert_eq!(stack.sim.stats().await["refs"], refs);
}

#[tokio::test]
async fn an_upload_that_stalls_or_dies_leaves_the_older_generation_and_says_what_is_missing() {
    let (mut stack, a, ana) = linked(json!({"snapshotWithinMs": 3000})).await;
    let refs = stack.sim.stats().await["refs"].clone();
    works(&stack, &ana, "one").await;
    leaves(a).await;
    assert_eq!(row(&stack, "select count(*) from profile_snapshot"), "1");

    // The store takes the bytes and says nothing more: the session is handed over without.
    let b = stack.host_elsewhere("b").await;
    works(&stack, &ana, "two").await;
    let mut uploading = stack.points().arm("snapshot.uploading");
    let (left, held) = tokio::join!(leaves(b), uploading.arrived());
    let () = left;
    drop(held);
    assert_eq!(row(&stack, "select owner is null from session where account is not null"), "t", "released");
    let c = stack.host_elsewhere("c").await;
    works(&stack, &ana, "three").await;
    assert_eq!(gaps(&ana).await.len(), 1);

    // Killed in the middle of its upload.
    let mut c = c;
    c.process.signal(Signal::TERM);
    uploading.arrived().await.reply(Word::Die).await;
    c.process.wait(SOON).await.expect("the guard ends with its host");
    assert_eq!(row(&stack, "select count(*) from profile_snapshot"), "1");
    assert_eq!(row(&stack, "select count(*) from object_leftover"), "2", "what is to be swept is written down");
    let _d = stack.host_elsewhere("d").await;
    drop(uploading);
    works(&stack, &ana, "four").await;
    assert_eq!(gaps(&ana).await.len(), 2);
    assert_eq!(stack.sim.stats().await["refs"], refs);
}

/// An operator is asked, and nothing is given up.
async fn cannot_read(stack: &Stack, ana: &Tenant) {
    ana.client.until_state("failed", SOON).await;
    let status = ana.client.get("/api/whatsapp/status").await.ok();
    assert_eq!((&status["reason"], &status["userAction"]), (&json!("profile_lost"), &json!("ask_operator")));
    assert_eq!(row(stack, "select count(*) from profile_snapshot where refused is null"), "1", "it may be good");
}

#[tokio::test]
async fn objects_that_are_not_there_cost_no_link_until_it_is_let_go_of_and_a_browser_that_never_worked_is_not_kept() {
    let (mut stack, a, ana) = linked(json!({"restoreWithinMs": 5000})).await;
    let refs = stack.sim.stats().await["refs"].clone();
    works(&stack, &ana, "one").await;
    leaves(a).await;
    let deaf = stack.sim.fault(json!({"kind": "refuse_connect", "account": OURS})).await;
    let b = stack.host_elsewhere("b").await;
    until_true("a browser", SOON, async || !b.browsers().is_empty()).await;
    leaves(b).await;
    assert_eq!(row(&stack, "select count(*) from profile_snapshot"), "1");
    stack.sim.clear_fault(deaf).await;

    // As where a host looks into another directory than the others.
    let (there, aside) = (stack.objects().join("snapshots"), stack.objects().join("aside"));
    fs::rename(&there, &aside).unwrap();
    let c = stack.host_elsewhere("c").await;
    cannot_read(&stack, &ana).await;
    fs::rename(&aside, &there).unwrap();
    ana.client.post("/api/whatsapp/start", json!({})).await.ok();
    works(&stack, &ana, "two").await;
    assert_eq!(stack.sim.stats().await["refs"], refs, "no code was asked for");

    // They are gone for good.
    burns_down(c).await;
    fs::remove_dir_all(&there).unwrap();
    let _d = stack.host_elsewhere("d").await;
    cannot_read(&stack, &ana).await;
    let mut told = ana.client.events(0).await;
    told.retain(|event| event["type"] == "session.status");
    assert_eq!(told[told.len() - 2]["data"]["session"]["state"], "reconnecting", "it did not seem to work until then");
    ana.client.post("/api/whatsapp/logout", json!({})).await.ok();
    ana.client.until_state("logged_out", SOON).await;
    assert_eq!(row(&stack, "select count(*) from profile_snapshot"), "0");
    ana.link(&stack.sim, OURS).await;
    works(&stack, &ana, "three").await;
}

#[tokio::test]
async fn a_host_that_cannot_bring_a_profile_back_leaves_the_session_to_one_that_can_and_tries_again_where_there_is_none() {
    let (mut stack, a, ana) = linked(json!({})).await;
    let refs = stack.sim.stats().await["refs"].clone();
    works(&stack, &ana, "one").await;
    leaves(a).await;
    // A disk on which nothing can be put: a file lies where the host unpacks.
    let broken = stack.folder().join("b");
    fs::create_dir_all(&broken).unwrap();
    fs::write(broken.join("snapshots"), "").unwrap();
    let b = stack.host_elsewhere("b").await;
    let tries = || {
        let log = b.process.log();
        let lines = log.lines().filter(|line| line.contains("a snapshot cannot be restored here"));
        let at =
            |line: &str| serde_json::from_str::<Value>(line).ok()?["timestamp"].as_str()?.parse::<chrono::DateTime<chrono::Utc>>().ok();
        lines.filter_map(at).collect::<Vec<_>>()
    };
    until_true("a second try", SOON, async || tries().len() >= 2).await;
    let apart = tries()[1] - tries()[0];
    assert!(apart.num_milliseconds() >= 1_500, "a lease lasts 2 s: the others have that long, {apart}");
    assert_eq!(ana.client.state().await, "reconnecting", "its tenant need do nothing");

    let c = stack.host_elsewhere("c").await;
    works(&stack, &ana, "two").await;
    assert!(b.browsers().is_empty() && !c.browsers().is_empty());
    leaves(c).await;

    // The trouble is over: nobody has to start the session.
    fs::remove_file(broken.join("snapshots")).unwrap();
    works(&stack, &ana, "three").await;
    assert_eq!(gaps(&ana).await, Vec::<Value>::new());
    assert_eq!(stack.sim.stats().await["refs"], refs, "no code was asked for");
}

#[tokio::test]
async fn a_storage_that_cannot_be_opened_is_given_up_by_nobody_and_a_snapshot_that_can_be_goes_on() {
    let (mut stack, a, ana) = linked(json!({"restoreWithinMs": 6000})).await;
    let refs = stack.sim.stats().await["refs"].clone();
    works(&stack, &ana, "one").await;
    let databases = directories(&a)[0].join("Default/IndexedDB");
    leaves(a).await;
    // What Chromium says of its databases on a disk without room it says here, too.
    let files = || entries(&databases).map(|database| (database.join("CURRENT"), database.join("aside"))).filter(|(now, _)| now.exists());
    let broken = || {
        for (current, aside) in files() {
            fs::rename(&current, aside).unwrap();
            fs::create_dir(current).unwrap();
        }
    };
    let mended = || {
        for (current, aside) in files() {
            fs::remove_dir(&current).unwrap();
            fs::rename(aside, current).unwrap();
        }
    };
    broken();
    let (there, aside) = (stack.objects().join("snapshots"), stack.objects().join("aside"));
    fs::rename(&there, &aside).unwrap();
    let a = stack.host_elsewhere("a").await;
    until_true("a second try", SOON, async || a.process.log().matches("a profile's storage cannot be opened here").count() >= 2).await;
    assert_eq!(ana.client.state().await, "reconnecting", "nothing is given up");
    // Not for ever without a word.
    ana.client.until_state("failed", SOON).await;
    mended();
    ana.client.post("/api/whatsapp/start", json!({})).await.ok();
    works(&stack, &ana, "two").await;
    fs::rename(&aside, &there).unwrap();
    leaves(a).await;

    // With a snapshot nobody waits for that.
    broken();
    let _a = stack.host_elsewhere("a").await;
    works(&stack, &ana, "three").await;
    assert_eq!(gaps(&ana).await, Vec::<Value>::new(), "it is what was closed");
    assert_eq!(stack.sim.stats().await["refs"], refs, "no code was asked for");
}
