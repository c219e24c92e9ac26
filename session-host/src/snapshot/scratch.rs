//! Files of our own on the profiles' disk, as private as they are: what is on its way to the object store or from it.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// A place for a file, which goes with this.
#[derive(Debug)]
pub struct Scratch(PathBuf);

fn folder(data: &Path) -> PathBuf {
    data.join("snapshots")
}

impl Scratch {
    /// A place that was never used.
    ///
    /// # Errors
    /// The file system's.
    pub fn new(data: &Path) -> io::Result<Self> {
        let folder = folder(data);
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self(folder.join(contract::EventId::new().to_string())))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Removes what a host that was killed has left there, by its age: other hosts of the machine may be at work in the same folder. Answers how
/// many.
///
/// # Errors
/// The file system's.
pub fn sweep(data: &Path, age: Duration) -> io::Result<usize> {
    let entries = match fs::read_dir(folder(data)) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut gone = 0;
    for entry in entries {
        let entry = entry?;
        let old = entry.metadata().and_then(|about| about.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|is| is >= age));
        if old && fs::remove_file(entry.path()).is_ok() {
            gone += 1;
        }
    }
    Ok(gone)
}
