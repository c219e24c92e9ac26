//! Named places where a test may make a process fail. Without the feature `fault-points` a point is nothing at all.

/// What a test wants to happen at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Go,
    /// The step at the point is to fail as it would if its peer were gone.
    Fail,
}

/// Announces that the process is at a named place, and waits for the test's word where there is one: `fault_point!("host.after_start", "job"
/// => job.id)`. The pairs are what a test matches on. Without the feature nothing of it is compiled, not even the name.
#[cfg(not(feature = "fault-points"))]
#[macro_export]
macro_rules! fault_point {
    ($name:literal $(, $key:literal => $value:expr)* $(,)?) => {{
        $(let _ = &$value;)*
        $crate::fault::Verdict::Go
    }};
}

/// See the other build's docstring.
#[cfg(feature = "fault-points")]
#[macro_export]
macro_rules! fault_point {
    ($name:literal $(, $key:literal => $value:expr)* $(,)?) => {
        $crate::fault::point($name, &[$(($key, &$value as &(dyn ::std::fmt::Display + Sync))),*]).await
    };
}

#[cfg(feature = "fault-points")]
pub use real::{ask_at, point};

#[cfg(feature = "fault-points")]
mod real {
    use std::{collections::BTreeMap, fmt::Display, sync::OnceLock, time::Duration};

    use tokio::{
        io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
        net::UnixStream,
    };

    use super::Verdict;

    static SOCKET: OnceLock<Option<String>> = OnceLock::new();

    fn socket() -> Option<&'static str> {
        #[expect(clippy::disallowed_methods, reason = "not configuration: exists only in test builds")]
        SOCKET.get_or_init(|| std::env::var("ZAGUAN_FAULTS").ok()).as_deref()
    }

    /// Where the points of this process ask, whatever its environment says: for tests that call the code instead of starting it. `false`: one
    /// has asked already.
    pub fn ask_at(path: &std::path::Path) -> bool {
        SOCKET.set(path.to_str().map(str::to_owned)).is_ok()
    }

    /// What `fault_point!` calls.
    pub async fn point(name: &'static str, ids: &[(&'static str, &(dyn Display + Sync))]) -> Verdict {
        let Some(path) = socket() else { return Verdict::Go };
        let Some(word) = ask(path, name, ids).await else { return Verdict::Go };
        match word.split_once(' ').unwrap_or((&word, "")) {
            ("delay", ms) => {
                tokio::time::sleep(Duration::from_millis(ms.parse().unwrap_or(0))).await;
                Verdict::Go
            }
            ("fail", _) => Verdict::Fail,
            ("die", _) => {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                std::future::pending().await
            }
            _ => Verdict::Go,
        }
    }

    async fn ask(path: &str, name: &str, ids: &[(&'static str, &(dyn Display + Sync))]) -> Option<String> {
        let ids: BTreeMap<_, _> = ids.iter().map(|(k, v)| (*k, v.to_string())).collect();
        let mut stream = UnixStream::connect(path).await.ok()?;
        let line = serde_json::json!({"name": name, "ids": ids, "pid": std::process::id()});
        stream.write_all(format!("{line}\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.ok()?;
        Some(answer.trim().to_owned())
    }
}
