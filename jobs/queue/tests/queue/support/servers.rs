//! Private servers on free ports. They end with the test.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, atomic::AtomicU32},
    time::{Duration, Instant},
};

use redis::FromRedisValue;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr().expect("it has an address").port()
}

fn directory(kind: &str) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("zaguan-queue-{kind}-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&path).expect("a directory can be made");
    path
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn done(output: Output, what: &str) -> String {
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !ready() {
        assert!(Instant::now() < end, "{what} did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A Redis that can be stopped and started again on its port.
pub struct RedisServer {
    port: u16,
    directory: PathBuf,
    child: Mutex<Option<Child>>,
}

impl RedisServer {
    pub fn start() -> Self {
        let server = Self { port: free_port(), directory: directory("redis"), child: Mutex::default() };
        server.up();
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn up(&self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port", &self.port.to_string()]);
        let child = quiet(command.arg("--dir").arg(&self.directory)).spawn().expect("redis-server is installed");
        *self.child.lock().expect("not poisoned") = Some(child);
        wait_for("redis", || {
            let ping = Command::new("redis-cli").args(["-p", &self.port.to_string(), "ping"]).output();
            ping.is_ok_and(|o| o.stdout.starts_with(b"PONG"))
        });
    }

    /// Kills it: all it held is gone.
    pub fn down(&self) {
        if let Some(mut child) = self.child.lock().expect("not poisoned").take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub async fn ask<T: FromRedisValue>(&self, command: &[&str]) -> T {
        let client = redis::Client::open(self.url()).expect("the URL is good");
        let mut connection = client.get_multiplexed_async_connection().await.expect("connects");
        let mut cmd = redis::cmd(command[0]);
        cmd.arg(&command[1..]).query_async(&mut connection).await.expect("answers")
    }

    pub async fn run(&self, command: &[&str]) {
        self.ask::<redis::Value>(command).await;
    }

    /// How often each command has been called, by clients or by scripts.
    pub async fn calls(&self) -> std::collections::BTreeMap<String, u64> {
        let info: String = self.ask(&["INFO", "commandstats"]).await;
        let calls = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        info.lines().filter_map(calls).collect()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.down();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A Postgres that forgets safely: nothing of it outlives the test.
pub struct PostgresServer {
    port: u16,
    directory: PathBuf,
    bin: PathBuf,
    child: Child,
}

/// The newest installation's programs.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("postgresql is installed");
    let newest = versions.filter_map(|v| v.ok()?.file_name().to_str()?.parse::<u32>().ok()).max().expect("a version");
    Path::new("/usr/lib/postgresql").join(newest.to_string()).join("bin")
}

/// Postgres refuses to run as root.
fn unprivileged(program: &Path, root: bool) -> Command {
    if !root {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}

impl PostgresServer {
    pub fn start() -> Self {
        let (port, directory, bin) = (free_port(), directory("postgres"), programs());
        let root = done(Command::new("id").arg("-u").output().expect("id runs"), "id") == "0";
        if root {
            done(Command::new("chown").arg("postgres").arg(&directory).output().expect("chown runs"), "chown");
        }
        let mut initdb = unprivileged(&bin.join("initdb"), root);
        initdb.args(["--no-sync", "-A", "trust", "-U", "zaguan", "-E", "UTF8", "--locale=C", "-D"]).arg(directory.join("data"));
        done(initdb.current_dir(&directory).output().expect("initdb runs"), "initdb");
        let mut postgres = unprivileged(&bin.join("postgres"), root);
        postgres.arg("-D").arg(directory.join("data")).arg("-k").arg(&directory).args(["-p", &port.to_string()]);
        postgres.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "full_page_writes=off"]);
        let child = quiet(&mut postgres).current_dir(&directory).spawn().expect("postgres runs");
        let server = Self { port, directory, bin, child };
        wait_for("postgres", || {
            let mut ready = Command::new(server.bin.join("pg_isready"));
            quiet(ready.args(["-h", "127.0.0.1", "-p", &server.port.to_string()])).status().is_ok_and(|s| s.success())
        });
        server
    }

    pub fn url(&self) -> String {
        format!("postgres://zaguan@127.0.0.1:{}/postgres", self.port)
    }

    /// Runs SQL and answers what it prints.
    pub fn run(&self, sql: &str) -> String {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-v", "ON_ERROR_STOP=1", "-qtAX", "-c", sql]).arg(self.url());
        done(psql.output().expect("psql runs"), "psql")
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
