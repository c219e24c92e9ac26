//! A real browser under a real guard: this test starts itself again as guard and as host.
use crate::{
    kit::{Rig, profile, world},
    stage,
};
use rustix::process::Signal;
use session_host::{
    browser::process::{ProcessId, descendants},
    guard::{self, GuardPipe, Held, boottime_ms},
};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

#[test]
#[ignore = "a role: started by the test below"]
fn acts_as_guard() {
    let mut host = tokio::process::Command::new(std::env::current_exe().unwrap());
    host.args(["--exact", "guarded::acts_as_host", "--ignored", "--nocapture"]);
    let _ = guard::run_with(host, |ended| {
        let text = ended.iter().map(|e| format!("{} {}", e.held.session, e.clean)).collect::<Vec<_>>().join("\n");
        fs::write("released", text).unwrap();
    });
}

#[test]
#[ignore = "a role: started by the guard"]
fn acts_as_host() {
    stage("guarded::acts_as_host", |dir| async move {
        let pipe = GuardPipe::open().unwrap();
        let (_sim, env) = world(&dir).await;
        let kept = profile(&env).await;
        let rig = Rig::start(&env, &kept).await;
        rig.ready(0).await;
        let far = boottime_ms() + 60_000;
        let (pid, start) = (rig.browser.pid(), rig.browser.started_ticks());
        let held = Held {
            session: "ses_1".into(),
            pid,
            start,
            deadline_ms: far,
            kill_ms: far,
            lease: None,
            profile: Some(kept.path().to_owned()),
        };
        pipe.report(&[held]);
        pipe.flushed().await;
        fs::write("started.part", format!("{} {pid} {start}", std::process::id())).unwrap();
        fs::rename("started.part", "started").unwrap();
        pipe.guard_gone().await;
    });
}

fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "not in time: {what}");
        std::thread::yield_now();
    }
}

fn start_guard(dir: &Path) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "guarded::acts_as_guard", "--ignored", "--nocapture"]).env("ZAGUAN_TEST_DIR", dir);
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_browser_closes_cleanly_within_two_seconds_of_its_hosts_violent_death() {
    stage("guarded::a_browser_closes_cleanly_within_two_seconds_of_its_hosts_violent_death", |dir| async move {
        let mut guard = start_guard(&dir);
        let started = until("the browser", || fs::read_to_string(dir.join("started")).ok());
        let numbers: Vec<u64> = started.split(' ').map(|n| n.parse().unwrap()).collect();
        let (host, browser) = (u32::try_from(numbers[0]).unwrap(), u32::try_from(numbers[1]).unwrap());
        let below = descendants(guard.id());
        assert!(below.len() > 5 && below.contains(&ProcessId { pid: browser, start: numbers[2] }));
        let browsers: Vec<ProcessId> = below.into_iter().filter(|p| p.pid != host).collect();
        ProcessId::of(host).unwrap().signal(Signal::KILL);
        let began = Instant::now();
        until("the end of the browser, its children and chromedriver", || browsers.iter().all(|p| !p.alive()).then_some(()));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        guard.wait().unwrap();
        assert_eq!(fs::read_to_string(dir.join("released")).unwrap(), "ses_1 true");
        let data = dir.join("data");
        assert!(session_host::browser::ProfileDir::open(&data, "prf_test").await.unwrap().closed_cleanly());
    });
}
