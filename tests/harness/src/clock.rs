//! A process with another clock: Debian's libfaketime, loaded before its own library. What counts durations is not touched, as on a machine
//! whose clock is wrong; a host's browsers get none of it.

use std::{fs, io, path::PathBuf};

/// The variables that a service is started with whose clock is off by so much: `+1h`, `-1h`.
///
/// # Errors
/// Where the library is not installed.
pub fn off_by(offset: &str) -> io::Result<Vec<(&'static str, String)>> {
    let library = library().ok_or_else(|| io::Error::other("libfaketime is not installed: run `make setup`"))?;
    Ok(vec![
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME", offset.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ])
}

/// Below the folder of this machine's architecture.
fn library() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}
