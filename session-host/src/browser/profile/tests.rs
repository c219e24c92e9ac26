//! One holder a directory, what goes and what stays.

use super::*;
use std::process::{Child, Command};

fn data(name: &str) -> PathBuf {
    let data = std::env::temp_dir().join(format!("zaguan-profile-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&data);
    fs::create_dir_all(&data).unwrap();
    data
}

/// Something whose command line names the directory, as a browser's does.
fn stand_in(profile: &Path, script: &str) -> (Child, ProcessId) {
    let child = Command::new("/bin/sh").args(["-c", script, "sh"]).arg(format!("--user-data-dir={}", profile.display())).spawn().unwrap();
    let id = ProcessId::of(child.id()).unwrap();
    // A parent goes on before the child's `exec` has closed what it inherited, our locks among it, and has its command line.
    let line = format!("/proc/{}/cmdline", child.id());
    while !fs::read(&line).unwrap().windows(16).any(|part| part == b"--user-data-dir=") {
        std::thread::yield_now();
    }
    (child, id)
}

#[tokio::test]
async fn a_directory_belongs_to_one_holder_until_it_is_dropped() {
    let data = data("one");
    let first = ProfileDir::open(&data, "prf_a").await.unwrap();
    assert!(first.is_new() && !first.closed_cleanly());
    let second = ProfileDir::open(&data, "prf_a").await;
    assert!(matches!(second, Err(ProfileError::InUse { pid, .. }) if pid == std::process::id()));
    assert!(matches!(remove_profile(&data, "prf_a"), Err(ProfileError::InUse { .. })));
    first.mark_closed().unwrap();
    drop(first);
    let third = ProfileDir::open(&data, "prf_a").await.unwrap();
    assert!(!third.is_new() && third.closed_cleanly());
    third.prepare().unwrap();
    drop(third);
    assert!(!ProfileDir::open(&data, "prf_a").await.unwrap().closed_cleanly(), "a start that did not end cleanly leaves no mark");
    remove_profile(&data, "prf_a").unwrap();
    assert_eq!(fs::read_dir(directory(&data)).unwrap().count(), 0, "nor its lock");
    assert!(ProfileDir::open(&data, "prf_a").await.unwrap().is_new());
    fs::remove_dir_all(&data).unwrap();
}

#[tokio::test]
async fn whoever_waited_at_a_lock_that_was_deleted_meanwhile_holds_nothing_by_it() {
    let data = data("race");
    drop(ProfileDir::open(&data, "prf_a").await.unwrap());
    // Between its opening and its locking of the file the directory goes, and comes again in other hands.
    let late = open_lock(&data, "prf_a").unwrap();
    remove_profile(&data, "prf_a").unwrap();
    let _held = ProfileDir::open(&data, "prf_a").await.unwrap();
    late.try_lock().expect("nobody holds what was deleted");
    assert!(!is_lock_of(&late, &data, "prf_a").unwrap());
    assert!(is_lock_of(&open_lock(&data, "prf_a").unwrap(), &data, "prf_a").unwrap());
    assert!(matches!(lock(&data, "prf_a"), Err(ProfileError::InUse { .. })));
    fs::remove_dir_all(&data).unwrap();
}

#[tokio::test]
async fn a_directory_goes_only_when_no_session_has_named_it_for_a_day() {
    let data = data("stray");
    for id in ["prf_stray", "prf_held", "prf_named"] {
        drop(ProfileDir::open(&data, id).await.unwrap());
    }
    let held = ProfileDir::open(&data, "prf_held").await.unwrap();
    let look = |named: &str| {
        let mut ids = profiles(&data).unwrap();
        ids.sort();
        ids.into_iter().filter(|id| sweep_profile(&data, id, id == named)).collect::<Vec<_>>()
    };
    assert!(look("none").is_empty() && look("none").is_empty(), "seen for the first time, and a moment later");
    for id in ["prf_stray", "prf_held", "prf_named"] {
        let note = File::options().write(true).open(directory(&data).join(format!("{id}.stray"))).unwrap();
        note.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    }
    assert_eq!(look("prf_named"), ["prf_stray"], "neither the one that is named nor the one that is held");
    assert!(look("none").is_empty(), "one that was named in between starts anew");
    drop(held);
    assert_eq!(look("none"), ["prf_held"]);
    assert_eq!(profiles(&data).unwrap(), ["prf_named"]);
    fs::remove_dir_all(&data).unwrap();
}

#[tokio::test]
async fn a_session_that_goes_on_elsewhere_leaves_no_directory_behind_and_others_keep_theirs() {
    let data = data("stale");
    for (id, session) in [("prf_now", "ses_a"), ("prf_old", "ses_a"), ("prf_older", "ses_a"), ("prf_other", "ses_b")] {
        let dir = ProfileDir::open(&data, id).await.unwrap();
        dir.belongs_to(session);
        dir.name_browser(ProcessId { pid: 1, start: 1 }).unwrap();
    }
    let held = ProfileDir::open(&data, "prf_older").await.unwrap();
    assert_eq!(remove_stale(&data, "ses_a", "prf_now").unwrap(), 1, "the one that nobody holds");
    drop(held);
    assert_eq!(remove_stale(&data, "ses_a", "prf_now").unwrap(), 1, "whose it is outlives an opening");
    let mut left = profiles(&data).unwrap();
    left.sort();
    assert_eq!(left, ["prf_now", "prf_other"]);
    fs::remove_dir_all(&data).unwrap();
}

#[tokio::test]
async fn an_id_cannot_name_a_place_outside() {
    for id in ["", "..", "a/b", "../x", "a\0b", "ñ"] {
        assert!(matches!(ProfileDir::open(Path::new("/nowhere"), id).await, Err(ProfileError::BadId(_))), "{id:?}");
    }
}

#[tokio::test]
async fn a_starting_host_ends_what_a_dead_one_left_and_nothing_else() {
    let data = data("left");
    let held = ProfileDir::open(&data, "prf_held").await.unwrap();
    let dead = ProfileDir::open(&data, "prf_dead").await.unwrap();
    let reused = ProfileDir::open(&data, "prf_reused").await.unwrap();
    let deaf = "trap '' TERM; while :; do sleep 0.01; done";
    let (mut a, of_held) = stand_in(held.path(), deaf);
    let (mut b, of_dead) = stand_in(dead.path(), deaf);
    let (mut c, stranger) = stand_in(Path::new("/elsewhere"), deaf);
    for (dir, process) in [(&held, of_held), (&dead, of_dead), (&reused, stranger)] {
        dir.name_browser(process).unwrap();
    }
    drop((dead, reused));
    assert_eq!(end_leftovers(&data).await.unwrap(), [of_dead.pid]);
    assert!(of_held.alive() && stranger.alive() && !of_dead.alive());
    for child in [&mut a, &mut b, &mut c] {
        let _ = child.kill();
        child.wait().unwrap();
    }
    fs::remove_dir_all(&data).unwrap();
}
