//! A session's user-data directory: one host at a time, and whether the last browser in it closed cleanly.
use super::{chromium::PORT_FILE, process::ProcessId};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

/// Present in a directory from a clean close to the next start.
const CLOSED: &str = "zaguan-closed";
/// A leftover browser is told to close, and killed after this.
const LEFTOVER_GRACE: Duration = Duration::from_millis(1500);

/// How long no session must have named a directory before it goes.
const STRAY_FOR: Duration = Duration::from_secs(23 * 3600);

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// Another living host holds it.
    #[error("profile {id} is in use by process {pid}")]
    InUse {
        /// The profile.
        id: String,
        /// The host's process.
        pid: u32,
    },
    /// The id is not one of ours: it names a directory, so its grammar is strict.
    #[error("{0:?} is not a profile id")]
    BadId(String),
    /// The file system refused.
    #[error("profile directory")]
    Io(#[from] io::Error),
}

/// What the lock file says. The lock itself is the kernel's and goes with the process; the text is for whoever comes after it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    host: u32,
    browser: Option<(u32, u64)>,
    /// Whose directory it is.
    #[serde(default)]
    session: Option<String>,
}

/// A directory that this process holds until the last clone of the `Arc` is dropped. Headless-shell writes no lock of its own, and a
/// second one on the same directory starts and then hangs (measured), so this lock decides.
#[derive(Debug)]
pub struct ProfileDir {
    id: String,
    path: PathBuf,
    lock: Mutex<File>,
    session: OnceLock<String>,
    closed_cleanly: bool,
    is_new: bool,
}

fn directory(data: &Path) -> PathBuf {
    data.join("profiles")
}

fn check_id(id: &str) -> Result<(), ProfileError> {
    let good = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if good { Ok(()) } else { Err(ProfileError::BadId(id.to_owned())) }
}

fn open_lock(data: &Path, id: &str) -> io::Result<File> {
    let path = directory(data).join(format!("{id}.lock"));
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn read_note(mut file: &File) -> Note {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    read.ok().and_then(|_| serde_json::from_str(&text).ok()).unwrap_or_default()
}

fn write_note(mut file: &File, note: &Note) -> io::Result<()> {
    let text = serde_json::to_vec(note)?;
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&text)
}

/// The browser that the note names, if it still runs on that directory.
fn leftover(note: &Note, path: &Path) -> Option<ProcessId> {
    let (pid, start) = note.browser?;
    let process = ProcessId { pid, start };
    // Start times repeat after a reboot; the command line does not lie about the directory.
    let ours = fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| {
        let wanted = format!("--user-data-dir={}\0", path.display());
        c.windows(wanted.len()).any(|w| w == wanted.as_bytes())
    });
    (process.alive() && ours).then_some(process)
}

/// `SIGTERM` to all, `SIGKILL` to what is left after the grace.
async fn end(processes: &[ProcessId]) {
    for process in processes.iter().filter(|p| p.catches_term()) {
        process.signal(Signal::TERM);
    }
    let began = Instant::now();
    while processes.iter().any(|p| p.alive()) {
        if began.elapsed() > LEFTOVER_GRACE {
            processes.iter().for_each(|p| p.kill_tree());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl ProfileDir {
    /// Whether the directory is on this machine; it is not made by asking.
    pub fn exists(data: &Path, id: &str) -> Result<bool, ProfileError> {
        check_id(id)?;
        Ok(directory(data).join(id).try_exists()?)
    }

    /// Locks the directory `<data>/profiles/<id>`, making it if it is not there, and ends a browser that a dead host left in it.
    pub async fn open(data: &Path, id: &str) -> Result<Arc<Self>, ProfileError> {
        check_id(id)?;
        let path = directory(data).join(id);
        DirBuilder::new().recursive(true).mode(0o700).create(directory(data))?;
        let lock = open_lock(data, id)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ProfileError::InUse { id: id.to_owned(), pid: read_note(&lock).host }),
            Err(TryLockError::Error(e)) => return Err(e.into()),
        }
        let note = read_note(&lock);
        if let Some(process) = leftover(&note, &path) {
            end(&[process]).await;
        }
        let session = note.session.map(OnceLock::from).unwrap_or_default();
        write_note(&lock, &Note { host: std::process::id(), browser: None, session: session.get().cloned() })?;
        let is_new = !path.exists();
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let closed_cleanly = path.join(CLOSED).exists();
        Ok(Arc::new(Self { id: id.to_owned(), path, lock: Mutex::new(lock), session, closed_cleanly, is_new }))
    }

    /// The profile's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The user-data directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the browser before this opening closed cleanly. A directory that did not may have lost its IndexedDB without any error.
    pub fn closed_cleanly(&self) -> bool {
        self.closed_cleanly
    }

    /// Whether this opening made the directory.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Before each start: the last run's port would be believed, and Chromium's own locks may name another machine.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        for name in [PORT_FILE, CLOSED, "SingletonLock", "SingletonCookie", "SingletonSocket"] {
            match fs::remove_file(self.path.join(name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes into the lock file which browser works here.
    pub(crate) fn name_browser(&self, browser: ProcessId) -> io::Result<()> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        write_note(
            &lock,
            &Note { host: std::process::id(), browser: Some((browser.pid, browser.start)), session: self.session.get().cloned() },
        )
    }

    /// Says whose directory it is: once its session goes on in another one, [`remove_stale`] finds it. Written with the next browser's name.
    pub fn belongs_to(&self, session: &str) {
        let _ = self.session.set(session.to_owned());
    }

    /// Marks a clean close.
    pub(crate) fn mark_closed(&self) -> io::Result<()> {
        mark_closed(&self.path)
    }
}

/// Marks that the browser of this directory closed cleanly. The guard does it for a host that died.
pub(crate) fn mark_closed(path: &Path) -> io::Result<()> {
    fs::write(path.join(CLOSED), b"")
}

/// Deletes a directory that nobody holds. Deleting one that is not there is no error.
pub fn remove_profile(data: &Path, id: &str) -> Result<(), ProfileError> {
    check_id(id)?;
    if !directory(data).exists() {
        return Ok(());
    }
    let lock = open_lock(data, id)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ProfileError::InUse { id: id.to_owned(), pid: read_note(&lock).host }),
        Err(TryLockError::Error(e)) => return Err(e.into()),
    }
    match fs::remove_dir_all(directory(data).join(id)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()), // the lock file stays: deleting it would let two hosts lock two files of one name
    }
}

/// Deletes the session's other directories, those that nobody holds: it goes on in `but`. Answers how many.
pub fn remove_stale(data: &Path, session: &str, but: &str) -> io::Result<usize> {
    let mut gone = 0;
    for id in profiles(data)?.into_iter().filter(|id| id != but && check_id(id).is_ok()) {
        let theirs = read_note(&open_lock(data, &id)?).session.is_some_and(|owner| owner == session);
        if theirs && remove_profile(data, &id).is_ok() {
            gone += 1;
        }
    }
    Ok(gone)
}

/// The ids of all directories, held or not.
pub fn profiles(data: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory(data)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    Ok(entries.flatten().filter(|e| e.path().is_dir()).filter_map(|e| e.file_name().into_string().ok()).collect())
}

/// Deletes a directory that no session has named for a day; says whether. The first look that finds it so leaves a note beside it, a look
/// that finds it named takes the note away: a host that was pointed at the wrong database for an hour costs nobody's link.
pub fn sweep_profile(data: &Path, id: &str, named: bool) -> bool {
    if check_id(id).is_err() {
        return false;
    }
    let note = directory(data).join(format!("{id}.stray"));
    if named {
        let _ = fs::remove_file(&note);
        return false;
    }
    let since = fs::metadata(&note).and_then(|m| m.modified()).ok();
    let Some(since) = since else {
        if let Err(error) = fs::write(&note, b"") {
            tracing::warn!(profile = id, %error, "a directory that no session names is not noted");
        }
        return false;
    };
    if since.elapsed().is_ok_and(|age| age < STRAY_FOR) {
        return false;
    }
    match remove_profile(data, id) {
        Ok(()) => {
            let _ = fs::remove_file(&note);
            true
        }
        // Its session is about to name it, or was deleted a moment ago.
        Err(ProfileError::InUse { .. }) => false,
        Err(error) => {
            tracing::warn!(profile = id, %error, "a directory that no session names stays for now");
            false
        }
    }
}

/// At a host's start: ends the browsers that lock files of dead hosts name, and says which. Directories of living hosts are left alone.
pub async fn end_leftovers(data: &Path) -> io::Result<Vec<u32>> {
    let entries = match fs::read_dir(directory(data)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut held = Vec::new(); // keeps the locks while we work
    let mut found = Vec::new();
    for path in entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|x| x == "lock")) {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        if file.try_lock().is_ok() {
            found.extend(leftover(&read_note(&file), &path.with_extension("")));
            held.push(file);
        }
    }
    end(&found).await;
    Ok(found.into_iter().map(|p| p.pid).collect())
}

#[cfg(test)]
mod tests {
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
        let child =
            Command::new("/bin/sh").args(["-c", script, "sh"]).arg(format!("--user-data-dir={}", profile.display())).spawn().unwrap();
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
        assert!(ProfileDir::open(&data, "prf_a").await.unwrap().is_new());
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
}
