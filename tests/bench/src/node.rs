//! Node programs that ours is measured beside: projects of their own below this crate, installed by their lock files.

use std::path::{Path, PathBuf};

use harness::Error;

/// Installs what a project's lock file names; answers where the project is.
///
/// # Errors
/// What npm said.
pub fn installed(project: &str) -> Result<PathBuf, Error> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(project);
    let installed =
        std::process::Command::new("npm").args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&folder).output()?;
    if installed.status.success() { Ok(folder) } else { Err(String::from_utf8_lossy(&installed.stderr).into_owned().into()) }
}
