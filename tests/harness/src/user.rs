//! Who the servers, services and browsers run as. Chromium's sandbox needs an ordinary user, so under root that is the system user `zaguan`.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
};

use crate::process;

const NAME: &str = "zaguan";
/// Of the folders: `zaguan-<pid>-<start time>-<word>`, so that a later run knows whose maker is gone.
const PREFIX: &str = "zaguan-";

/// The user that everything below a stack runs as.
#[derive(Debug, Clone, Copy, Hash)]
pub struct User(Option<(u32, u32)>);

impl User {
    /// The caller, or `zaguan` (made if missing) where the caller is root.
    ///
    /// # Errors
    /// Where the user cannot be made, or the kernel refuses user namespaces, without which the sandbox does not work.
    pub fn find() -> io::Result<Self> {
        let user = if rustix::process::getuid().is_root() { Self(Some(Self::ids()?)) } else { Self(None) };
        let allowed = user.command("/usr/bin/unshare").args(["--user", "--map-root-user", "true"]).output()?;
        if !allowed.status.success() {
            return Err(io::Error::other(
                "unprivileged user namespaces are refused here, and Chromium's sandbox needs them: sysctl kernel.unprivileged_userns_clone=1 \
                 (or kernel.apparmor_restrict_unprivileged_userns=0)",
            ));
        }
        Ok(user)
    }

    fn ids() -> io::Result<(u32, u32)> {
        let find = || -> io::Result<Option<(u32, u32)>> {
            let passwd = fs::read_to_string("/etc/passwd")?;
            let mut users = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
            Ok(users.find(|f| f.len() > 3 && f[0] == NAME).and_then(|f| Some((f[2].parse().ok()?, f[3].parse().ok()?))))
        };
        if find()?.is_none() {
            // Tests start at the same time: whoever comes second finds the user there.
            Command::new("/usr/sbin/useradd")
                .args(["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", NAME])
                .output()?;
        }
        find()?.ok_or_else(|| io::Error::other("the system user zaguan cannot be made"))
    }

    /// A command as this user.
    pub fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        self.confined(program, &[])
    }

    /// A command as this user that gets `signal` when whoever started it dies.
    pub fn tied(self, program: impl AsRef<std::ffi::OsStr>, signal: &str) -> Command {
        self.confined(program, &["--pdeathsig", signal])
    }

    fn confined(self, program: impl AsRef<std::ffi::OsStr>, more: &[&str]) -> Command {
        let mut command = Command::new("/usr/bin/setpriv");
        if let Some((uid, gid)) = self.0 {
            command.args([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".into()]);
        }
        command.args(more).arg("--").arg(program);
        command
    }

    /// Gives a path to this user.
    ///
    /// # Errors
    /// The file system's.
    pub fn own(self, path: &Path) -> io::Result<()> {
        self.0.map_or(Ok(()), |(uid, gid)| chown(path, Some(uid), Some(gid)))
    }
}

/// A folder of the stack's own, gone with it.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    user: User,
}

impl Folder {
    /// A new one below the system's folder for such, open to the user whatever the caller's own folders are.
    ///
    /// # Errors
    /// The file system's.
    pub fn new(user: User) -> io::Result<Self> {
        Self::sweep();
        let me = std::process::id();
        let started = process::started(me).unwrap_or_default();
        let path = std::env::temp_dir().join(format!("{PREFIX}{me}-{started}-{}", crate::random_word(4)));
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        user.own(&path)?;
        Ok(Self { path, user })
    }

    /// Removes folders whose makers were killed without a chance to do so, and ends what still runs on them.
    fn sweep() {
        for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).and_then(|(pid, rest)| {
                let (started, _) = rest.split_once('-')?;
                Some((pid.parse::<u32>().ok()?, started.to_owned()))
            });
            let dead = maker.is_some_and(|(pid, started)| process::started(pid).is_none_or(|now| now != started));
            // Another user's folder can be neither emptied nor trusted.
            if dead && fs::symlink_metadata(entry.path()).is_ok_and(|meta| meta.is_dir() && is_ours(meta.uid())) {
                end_all_on(&entry.path());
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder in it, the user's.
    ///
    /// # Errors
    /// The file system's.
    pub fn sub(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path)?;
        self.user.own(&path)?;
        Ok(path)
    }

    /// A copy of a program in it: the caller's own folders may be closed to the user.
    ///
    /// # Errors
    /// The file system's, naming the program.
    pub fn copy(&self, program: &Path) -> io::Result<PathBuf> {
        let to = self.path.join(program.file_name().unwrap_or_default());
        if !to.exists() {
            // A hard link keeps the caller's owner and mode, which the user may not be able to use; and it needs one file system.
            let open = fs::metadata(program).is_ok_and(|meta| meta.permissions().mode() & 0o005 == 0o005);
            if !(open && fs::hard_link(program, &to).is_ok()) {
                fs::copy(program, &to).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", program.display())))?;
                fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
            }
        }
        Ok(to)
    }
}

/// Kills whatever names the folder in its command line, and what descends from it: by now only what got away.
fn end_all_on(folder: &Path) {
    let me = std::process::id();
    // With the slash, so that no folder answers for another whose name it begins.
    let left = process::with_argument(&format!("{}/", folder.display()));
    left.into_iter().filter(|pid| *pid != me).for_each(process::kill_tree);
}

fn is_ours(uid: u32) -> bool {
    let me = rustix::process::getuid();
    uid == me.as_raw() || (me.is_root() && User::ids().is_ok_and(|(zaguan, _)| uid == zaguan))
}

impl Drop for Folder {
    fn drop(&mut self) {
        end_all_on(&self.path);
        let _ = fs::remove_dir_all(&self.path);
    }
}
