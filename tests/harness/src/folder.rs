//! The folder that one stack lives in, removed with it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use crate::{
    procs::{self, ProcessId},
    user::User,
};

const PREFIX: &str = "zaguan-";

/// A folder under the system's place for temporary files, owned by the user of the programs and open to all to pass through.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    user: User,
}

impl Folder {
    /// Makes one. Its name tells who made it, so that [`Folder::sweep`] knows when it is nobody's.
    ///
    /// # Errors
    /// The folder cannot be made or given away.
    pub fn create(user: User) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let own = ProcessId::of(std::process::id().cast_signed()).ok_or_else(|| io::Error::other("/proc is not mounted"))?;
        let name = format!("{PREFIX}{}-{}-{}", own.pid, own.start, COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        let folder = Self { path, user };
        fs::set_permissions(&folder.path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        user.own(&folder.path)?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder in it that only the user can look into.
    ///
    /// # Errors
    /// It cannot be made or given away.
    pub fn private(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        self.user.own(&path)?;
        Ok(path)
    }

    /// Copies a program into it, so that the user can reach it wherever the sources lie, and a build meanwhile changes nothing under us.
    ///
    /// # Errors
    /// It cannot be copied.
    pub fn adopt(&self, program: &Path) -> io::Result<PathBuf> {
        let folder = self.path.join("bin");
        fs::create_dir_all(&folder)?;
        let copy = folder.join(program.file_name().ok_or_else(|| io::Error::other("a program has a name"))?);
        if !copy.exists() {
            fs::copy(program, &copy)?;
        }
        Ok(copy)
    }

    /// Removes folders whose makers are gone (killed without a chance to clean up), and ends what still runs on them.
    pub fn sweep() {
        let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(maker) = name.to_str().and_then(maker) else { continue };
            // Another user's folder can be neither emptied nor trusted.
            let ours = fs::symlink_metadata(entry.path()).is_ok_and(|meta| meta.is_dir() && owned_by_us(&meta));
            if ours && !maker.lives() {
                procs::kill(&procs::that_name(&entry.path()), Duration::from_secs(5));
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        procs::kill(&procs::that_name(&self.path), Duration::from_secs(5));
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn maker(name: &str) -> Option<ProcessId> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    Some(ProcessId { pid: parts.next()?.parse().ok()?, start: parts.next()?.parse().ok()? })
}

fn owned_by_us(meta: &fs::Metadata) -> bool {
    let uid = std::os::unix::fs::MetadataExt::uid(meta);
    uid == rustix::process::geteuid().as_raw() || matches!(User::existing(), Some(User::Other { uid: other, .. }) if uid == other)
}
