//! A process whose calendar is wrong, as on a machine whose clock was set wrongly: a library of a page, loaded before its own. What counts
//! durations is not touched, and a host's browsers get none of it.

use std::{fs, path::Path, process::Command};

use crate::Error;

/// The variables that a service is started with whose calendar is off by so many hours. The library is put into `folder`, which it must be able
/// to read.
///
/// # Errors
/// What the C compiler said, with which our programs are linked.
pub fn off_by(hours: i32, folder: &Path) -> Result<[(&'static str, String); 2], Error> {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&source, include_str!("clock.c"))?;
    let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]).output()?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned().into());
    }
    Ok([("LD_PRELOAD", library.display().to_string()), ("CLOCK_OFF_BY", (hours * 3600).to_string())])
}
