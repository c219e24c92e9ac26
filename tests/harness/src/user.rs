//! Who the servers and browsers run as. Chromium's sandbox and Postgres both refuse root, so root hands them to a user of their own; an
//! ordinary user runs them as himself.

use std::{
    fs, io,
    path::Path,
    process::{Command, Output, Stdio},
};

use rustix::process::geteuid;

/// The system user that root creates for what must not run as root.
const NAME: &str = "zaguan";

/// Whom to start programs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// The caller, who is not root.
    Myself,
    /// The user [`NAME`], started by root.
    Other {
        /// Its user id.
        uid: u32,
        /// Its group id.
        gid: u32,
    },
}

/// Why no program can be started.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Root could not make the user.
    #[error("the user {NAME} is missing and could not be created: {0}")]
    Create(String),
    /// A tool of the base system is missing.
    #[error("{0} could not be run; it is part of Debian's util-linux and passwd")]
    Tool(&'static str, #[source] io::Error),
    /// The kernel refuses what Chromium's sandbox stands on.
    #[error(
        "user namespaces are refused to ordinary users here, and Chromium's sandbox needs them: {0}\n\
         allow them (sysctl kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, \
         user.max_user_namespaces>0; in a container a seccomp profile that permits unshare). There is no way around the sandbox."
    )]
    Namespaces(String),
    /// The folder for data cannot be reached by the user.
    #[error("{0} cannot be written by the user {NAME}: {1}")]
    Folder(String, String),
}

impl User {
    /// The user for this machine; makes it first when root finds none.
    ///
    /// # Errors
    /// [`UserError::Create`], [`UserError::Tool`].
    pub fn here() -> Result<Self, UserError> {
        if !geteuid().is_root() {
            return Ok(Self::Myself);
        }
        if let Some(user) = Self::existing() {
            return Ok(user);
        }
        let made = Command::new("useradd")
            .args(["--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", NAME])
            .output()
            .map_err(|e| UserError::Tool("useradd", e))?;
        // Several tests may have tried at once: what counts is that the user is there now.
        Self::existing().ok_or_else(|| UserError::Create(last_line(&made)))
    }

    /// The user [`NAME`], if it is there.
    pub(crate) fn existing() -> Option<Self> {
        let passwd = fs::read_to_string("/etc/passwd").ok()?;
        let fields: Vec<&str> = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == NAME)?;
        Some(Self::Other { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
    }

    /// The words to put in front of a program: it runs as this user, and gets `signal` when the thread that started it ends.
    pub(crate) fn prefix(self, signal: &str) -> Vec<String> {
        let mut words = vec!["setpriv".to_owned(), "--pdeathsig".to_owned(), signal.to_owned()];
        if let Self::Other { uid, gid } = self {
            words.extend([format!("--reuid={uid}"), format!("--regid={gid}"), "--clear-groups".to_owned()]);
        }
        words.push("--".to_owned());
        words
    }

    /// Gives `path` to this user.
    pub(crate) fn own(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Myself => Ok(()),
            Self::Other { uid, gid } => std::os::unix::fs::chown(path, Some(uid), Some(gid)),
        }
    }

    /// Runs a short program to its end as this user.
    pub(crate) fn output(self, program: &str, args: &[&str], home: &Path) -> io::Result<Output> {
        let mut words = self.prefix("KILL");
        words.push(program.to_owned());
        Command::new(&words[0])
            .args(&words[1..])
            .args(args)
            .current_dir(home)
            .env_clear()
            .envs(base_env(home))
            .stdin(Stdio::null())
            .output()
    }

    /// Whether this user may do what Chromium and the servers need in `folder`.
    ///
    /// # Errors
    /// [`UserError::Folder`], [`UserError::Namespaces`], [`UserError::Tool`].
    pub(crate) fn check(self, folder: &Path) -> Result<(), UserError> {
        let probe = |program, args: &[&str]| self.output(program, args, folder).map_err(|e| UserError::Tool("setpriv", e));
        let write = probe("test", &["-w", "."])?;
        if !write.status.success() {
            return Err(UserError::Folder(folder.display().to_string(), last_line(&write)));
        }
        let namespace = probe("unshare", &["--user", "--map-root-user", "true"])?;
        if !namespace.status.success() {
            return Err(UserError::Namespaces(last_line(&namespace)));
        }
        Ok(())
    }
}

/// The environment that every program gets; nothing of the caller's reaches it, so that his settings change no test.
pub(crate) fn base_env(home: &Path) -> Vec<(String, String)> {
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8"), ("TZ", "UTC"), ("RUST_BACKTRACE", "1")]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .chain([("HOME".to_owned(), home.display().to_string())])
        .collect()
}

/// What a program said last, for a message.
fn last_line(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    said.lines().rfind(|line| !line.trim().is_empty()).map_or_else(|| output.status.to_string(), str::to_owned)
}
