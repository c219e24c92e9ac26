//! Which browser we start, with which switches, and how we learn its debugging port.
use super::{BrowserEnv, process::ProcessId, profile::ProfileDir, spawn::confined};
use std::{fs, io, io::Read, path::Path, process::Stdio, time::Duration};
use tokio::process::{Child, ChildStdin};

/// How long a browser may take to open its debugging port. Measured: 0.3 s, 1.1 s on a loaded machine.
const PORT_WITHIN: Duration = Duration::from_secs(20);
/// The file in which Chromium names that port.
pub(crate) const PORT_FILE: &str = "DevToolsActivePort";

/// Measured on eight sessions side by side: half the memory of a plain headless Chromium, sandbox kept.
const FLAGS: &[&str] = &[
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-software-rasterizer",
    "--in-process-gpu",
    "--enable-features=NetworkServiceInProcess2",
    "--js-flags=--optimize-for-size --max-semi-space-size=1",
    "--renderer-process-limit=1",
    "--window-size=400,300",
    "--disk-cache-size=33554432",
    // what chromedriver adds to a browser that it starts itself
    "--password-store=basic",
    "--use-mock-keychain",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-hang-monitor",
    "--remote-debugging-port=0",
    "--remote-debugging-pipe", // beside the port, for `PIPED`
];

/// Starts its arguments with our end of a pipe as the DevTools pipe's input (descriptor 3; what Chromium answers there is of no interest).
/// Chromium closes in order, once, when that pipe ends: by our death, however it comes (run; status 0, in 0.1 s).
const PIPED: &str = r#"exec "$@" 3<&0 4>/dev/null 0</dev/null"#;

/// Why the configured programs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EnvError {
    /// Chromium's sandbox needs an ordinary user, and we never switch it off.
    #[error("zaguan-host must not run as root: Chromium's sandbox needs an ordinary user")]
    Root,
    /// Built without Node, and so without the scripts for the page.
    #[error("this build has no page bundle: run `make page`, then build again")]
    NoBundle,
    /// Ending a wrapper script leaves the browser behind it alive.
    #[error(
        "{0} is a script; its death would leave the browser alive. Name the program itself, such as /usr/lib/chromium/chromium-headless-shell"
    )]
    Script(String),
    /// The file cannot be read, started or written.
    #[error("{what} {path}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It ran, but did not say a version.
    #[error("{path} --version answered {answer:?}: no version in it")]
    NoVersion {
        /// The program.
        path: String,
        /// What it printed.
        answer: String,
    },
}

/// Refuses what is not a program of this machine's format (a script begins with `#!`).
pub(crate) fn refuse_script(path: &Path) -> Result<(), EnvError> {
    let mut magic = [0_u8; 4];
    let read = fs::File::open(path).and_then(|mut f| f.read_exact(&mut magic));
    read.map_err(|source| EnvError::Io { what: "cannot read", path: path.display().to_string(), source })?;
    if magic == *b"\x7fELF" { Ok(()) } else { Err(EnvError::Script(path.display().to_string())) }
}

/// `Chromium 156.0.8078.79` → the version.
pub(crate) async fn version(program: &Path, home: &Path) -> Result<String, EnvError> {
    let path = program.display().to_string();
    let output = confined(program, home).arg("--version").stdout(Stdio::piped()).output().await;
    let output = output.map_err(|source| EnvError::Io { what: "cannot start", path: path.clone(), source })?;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    parse_version(&answer).ok_or(EnvError::NoVersion { path, answer })
}

fn parse_version(answer: &str) -> Option<String> {
    let word = answer.split_whitespace().find(|w| w.starts_with(|c: char| c.is_ascii_digit()) && w.contains('.'))?;
    Some(word.to_owned())
}

/// The user agent of the ordinary Chrome of this version: the site refuses browsers that it does not know.
pub(crate) fn user_agent(major: u32) -> String {
    format!("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{major}.0.0.0 Safari/537.36")
}

/// The same, structured, as `navigator.userAgentData` shows it (`Emulation.setUserAgentOverride`).
pub(crate) fn user_agent_override(version: &str, major: u32) -> serde_json::Value {
    let brands = |v: &str| serde_json::json!([{"brand": "Chromium", "version": v}, {"brand": "Google Chrome", "version": v}, {"brand": "Not_A Brand", "version": "24"}]);
    let metadata = serde_json::json!({
        "brands": brands(&major.to_string()), "fullVersionList": brands(version), "platform": "Linux", "platformVersion": "6.1.0",
        "architecture": "x86", "bitness": "64", "model": "", "mobile": false, "wow64": false,
    });
    serde_json::json!({"userAgent": user_agent(major), "acceptLanguage": "en-US,en", "platform": "Linux x86_64", "userAgentMetadata": metadata})
}

/// A browser that runs and listens.
pub(crate) struct Running {
    pub(crate) child: Child,
    /// The browser lives as long as this is open.
    pub(crate) pipe: ChildStdin,
    pub(crate) id: ProcessId,
    /// Its debugging port, on loopback.
    pub(crate) port: u16,
    /// Address of its DevTools socket.
    pub(crate) socket: String,
}

/// Why no browser runs.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It could not be started, or its directory not be prepared.
    #[error("the browser cannot be started")]
    Io(#[from] io::Error),
    /// It ended before it listened.
    #[error("the browser ended at once ({0})")]
    Ended(String),
    /// It runs, but names no port.
    #[error("the browser opened no debugging port in {} s", PORT_WITHIN.as_secs())]
    NoPort,
}

/// Kills a browser whose setting up fails or is cancelled.
pub(crate) struct Fuse(pub(crate) Option<ProcessId>);

impl Drop for Fuse {
    fn drop(&mut self) {
        if let Some(process) = self.0 {
            process.kill_tree();
        }
    }
}

/// Starts the browser on this directory and waits until it listens. On an error nothing is left running.
pub(crate) async fn launch(env: &BrowserEnv, profile: &ProfileDir) -> Result<Running, LaunchError> {
    profile.prepare()?;
    let mut command = confined(Path::new("/bin/sh"), profile.path());
    command.env("TMPDIR", env.temp()).stdin(Stdio::piped()).args(["-c", PIPED, "sh"]).arg(&env.config().chromium);
    command.arg(format!("--user-data-dir={}", profile.path().display())).args(FLAGS);
    command
        .arg("--headless=new")
        .arg(format!("--user-agent={}", user_agent(env.major())))
        .args(&env.config().extra_args)
        .arg("about:blank");
    let mut child = env.spawner().spawn(command).await?;
    let id = child.id().and_then(ProcessId::of).ok_or_else(|| LaunchError::Ended("before it was seen".into()))?;
    let mut fuse = Fuse(Some(id));
    profile.name_browser(id)?;
    let pipe = child.stdin.take().ok_or_else(|| LaunchError::Ended("without a pipe".into()))?;
    match tokio::time::timeout(PORT_WITHIN, wait_for_port(&mut child, &profile.path().join(PORT_FILE))).await {
        Ok(Ok((port, path))) => {
            fuse.0 = None;
            Ok(Running { child, pipe, id, port, socket: format!("ws://127.0.0.1:{port}{path}") })
        }
        Ok(Err(e)) => Err(e),
        Err(_) => Err(LaunchError::NoPort),
    }
}

async fn wait_for_port(child: &mut Child, file: &Path) -> Result<(u16, String), LaunchError> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Err(LaunchError::Ended(status.to_string()));
        }
        if let Some(found) = fs::read_to_string(file).ok().as_deref().and_then(parse_port_file) {
            return Ok(found);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Two lines, the port and the path of the browser's socket. The file is written in place: until both are whole it says nothing.
fn parse_port_file(text: &str) -> Option<(u16, String)> {
    let (port, path) = text.split_once('\n')?;
    let path = path.trim();
    let id = path.strip_prefix("/devtools/browser/")?;
    (id.len() == 36).then_some((port.trim().parse().ok()?, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_whatever_the_browser_calls_itself() {
        assert_eq!(parse_version("Chromium 156.0.8078.79 built on Debian\n").as_deref(), Some("156.0.8078.79"));
        assert_eq!(parse_version("HeadlessChrome 156.0.1.2").as_deref(), Some("156.0.1.2"));
        assert_eq!(parse_version("cannot open display"), None);
    }

    #[test]
    fn a_half_written_port_file_is_not_believed() {
        let whole = "41234\n/devtools/browser/0f4b2f0a-9d0e-4f0e-8a51-b1c2d3e4f506";
        assert_eq!(parse_port_file(whole).unwrap().0, 41234);
        for end in 0..whole.len() {
            assert_eq!(parse_port_file(&whole[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn a_wrapper_script_is_refused_with_the_reason_and_a_program_is_not() {
        let script = std::env::temp_dir().join(format!("zaguan-script-{}", std::process::id()));
        fs::write(&script, "#!/bin/sh\n/usr/lib/chromium/chromium \"$@\"\n").unwrap();
        let error = refuse_script(&script).unwrap_err();
        fs::remove_file(&script).unwrap();
        assert!(matches!(error, EnvError::Script(_)) && error.to_string().contains("would leave the browser alive"));
        refuse_script(&std::env::current_exe().unwrap()).unwrap();
    }
}
