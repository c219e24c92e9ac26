//! A session's user-data directory: one host at a time, and whether the last browser in it closed cleanly.
use super::{chromium::PORT_FILE, process::ProcessId};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
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

fn lock_path(data: &Path, id: &str) -> PathBuf {
    directory(data).join(format!("{id}.lock"))
}

fn open_lock(data: &Path, id: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(lock_path(data, id))
}

/// The lock of a directory. A file that its holder has deleted meanwhile is none: its name leads to another one, or to none.
fn lock(data: &Path, id: &str) -> Result<File, ProfileError> {
    loop {
        let file = open_lock(data, id)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ProfileError::InUse { id: id.to_owned(), pid: read_note(&file).host }),
            Err(TryLockError::Error(e)) => return Err(e.into()),
        }
        if is_lock_of(&file, data, id)? {
            return Ok(file);
        }
    }
}

/// Whether the directory's name leads to this file.
fn is_lock_of(file: &File, data: &Path, id: &str) -> io::Result<bool> {
    let named = fs::metadata(lock_path(data, id)).map(|named| (named.dev(), named.ino())).ok();
    let ours = file.metadata()?;
    Ok(named == Some((ours.dev(), ours.ino())))
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
        let lock = lock(data, id)?;
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
    let _lock = lock(data, id)?;
    match fs::remove_dir_all(directory(data).join(id)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    // While it is locked: whoever waits for this file sees that it is not the one of that name any more.
    Ok(fs::remove_file(lock_path(data, id))?)
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
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue, // its directory went meanwhile
            other => other?,
        };
        if file.try_lock().is_ok() {
            found.extend(leftover(&read_note(&file), &path.with_extension("")));
            held.push(file);
        }
    }
    end(&found).await;
    Ok(found.into_iter().map(|p| p.pid).collect())
}

#[cfg(test)]
mod tests;
