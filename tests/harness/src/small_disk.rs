//! A host whose data lies on a disk of its own that can be filled: memory as a file system of limited size, mounted where only this host sees
//! it. It takes what Chromium's sandbox takes, user namespaces, and no other right.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::{
    Error, User,
    services::{Host, Shared},
};

/// The disk of one host.
pub struct SmallDisk {
    /// As others see it, by way of the host's process.
    seen: PathBuf,
    /// Whose it is: nobody else is known there.
    user: User,
}

impl SmallDisk {
    /// Starts a host with one of so many MiB as its data directory.
    ///
    /// # Errors
    /// What kept it from starting: without the right to mount in a namespace of its own, what `mount` said.
    pub async fn host(shared: &Shared, name: &str, data: &Path, browser_args: &str, mib: usize) -> Result<(Host, Self), Error> {
        let bin = data.with_extension("bin");
        fs::create_dir(&bin)?;
        shared.user.own(&bin)?;
        let program = bin.join("zaguan-host");
        // The first namespace may mount; in the second the host is an ordinary user again: Chromium wants that, and takes a third for itself.
        let script = format!(
            "#!/bin/sh\nexec unshare --user --map-root-user --mount -- sh -c 'mount -t tmpfs -o size={mib}m none \"$HOST_DATA_DIR\" && \
             exec unshare --user --map-user=1000 --map-group=1000 -- \"$0\" \"$@\"' {} \"$@\"\n",
            shared.bin.join("zaguan-host").display()
        );
        fs::write(&program, script)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let host = Host::start(&Shared { bin, ..shared.clone() }, name, data, browser_args, 4).await?;
        let root = PathBuf::from(format!("/proc/{}/root", host.process.pid()));
        Ok((host, Self { seen: root.join(data.strip_prefix("/")?), user: shared.user }))
    }

    fn ballast(&self) -> PathBuf {
        self.seen.join("ballast")
    }

    /// Fills it to the last byte.
    ///
    /// # Errors
    /// Anything but that it is full.
    pub fn fill(&self) -> Result<(), Error> {
        let to = format!("of={}", self.ballast().display());
        let said = self.user.command("dd").env("LC_ALL", "C").args(["if=/dev/zero", "bs=64K", &to]).output()?.stderr;
        let said = String::from_utf8_lossy(&said).into_owned();
        if said.contains("No space left on device") { Ok(()) } else { Err(said.into()) }
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// What kept it from that.
    pub fn clear(&self) -> io::Result<()> {
        let removed = self.user.command("rm").arg(self.ballast()).status()?;
        if removed.success() { Ok(()) } else { Err(io::Error::other("the disk cannot be cleared")) }
    }
}
