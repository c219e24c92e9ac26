//! The harness's servers, asked in the ways that these tests ask.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::Duration,
};

use harness::{
    Folder, User,
    postgres::{self, Postgres},
    redis::Kept,
    until_true,
};
use redis::FromRedisValue;
use tokio::sync::Mutex;

/// A Redis that can be stopped and started again on its port.
pub struct RedisServer {
    server: Mutex<harness::redis::Redis>,
    url: String,
    /// Where its files are, if they are not with the others'.
    _folder: Option<Folder>,
}

impl RedisServer {
    pub async fn start(user: User, folder: &Folder) -> Self {
        let server = harness::redis::Redis::start(user, folder, folder.path()).await.expect("redis starts");
        Self { url: server.url(), server: Mutex::new(server), _folder: None }
    }

    /// Another one, with a folder of its own.
    pub async fn another(user: User) -> Self {
        let folder = Folder::new(user).expect("a folder can be made");
        let server = Self::start(user, &folder).await;
        Self { _folder: Some(folder), ..server }
    }

    /// Becomes a replica of another, and has all that it has.
    pub async fn follow(&self, primary: &Self) {
        primary.run(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).await;
        self.run(&["REPLICAOF", "127.0.0.1", primary.url.rsplit(':').next().expect("a port")]).await;
        until_true("the replica to follow", Duration::from_secs(10), || async {
            let said: String = self.ask(&["INFO", "replication"]).await;
            said.contains("master_link_status:up")
        })
        .await;
    }

    /// Takes the place of the one that it followed.
    pub async fn lead(&self) {
        self.run(&["REPLICAOF", "NO", "ONE"]).await;
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub async fn up(&self) {
        self.server.lock().await.up().await.expect("redis starts");
    }

    /// Kills it: all it held is gone.
    pub async fn down(&self) {
        self.server.lock().await.kill().await;
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

    /// What it holds now.
    pub async fn keep(&self) -> Kept {
        self.server.lock().await.keep().await.expect("answers")
    }

    /// Back to what it held, over a restart.
    pub async fn go_back(&self, kept: &Kept) {
        self.server.lock().await.go_back(kept).await.expect("redis starts");
    }

    /// How often each command has been called, by clients or by scripts.
    pub async fn calls(&self) -> BTreeMap<String, u64> {
        let info: String = self.ask(&["INFO", "commandstats"]).await;
        let calls = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        info.lines().filter_map(calls).collect()
    }
}

/// A Postgres that is asked in plain SQL.
pub struct PostgresServer {
    server: Mutex<Postgres>,
    url: String,
}

impl PostgresServer {
    pub async fn start(user: User, folder: &Folder) -> Self {
        let server = Postgres::start(user, folder, folder.path()).await.expect("postgres starts");
        Self { url: server.url(), server: Mutex::new(server) }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// What it holds now, over a restart.
    pub async fn keep(&self) -> postgres::Kept {
        self.server.lock().await.keep().await.expect("postgres starts")
    }

    /// Back to what it held, over a restart.
    pub async fn go_back(&self, kept: &postgres::Kept) {
        self.server.lock().await.go_back(kept).await.expect("postgres starts");
    }

    /// Runs SQL and answers what it prints.
    pub fn run(&self, sql: &str) -> String {
        let mut psql = Command::new("psql");
        let output = psql.args(["-v", "ON_ERROR_STOP=1", "-qtAX", "-c", sql]).arg(self.url()).output().expect("psql runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
    /// Holds what `sql` locks until it is dropped.
    pub fn lock(&self, sql: &str) -> Lock {
        let mut psql = Command::new("psql");
        psql.args(["-v", "ON_ERROR_STOP=1", "-qtAX"]).arg(self.url()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut psql = psql.spawn().expect("psql runs");
        let mut input = psql.stdin.take().expect("it is piped");
        writeln!(input, "begin; {sql}; select 'locked';").expect("psql reads");
        let output = BufReader::new(psql.stdout.take().expect("it is piped"));
        assert!(output.lines().map_while(Result::ok).any(|line| line == "locked"), "{sql}");
        Lock { _input: input, psql }
    }

    /// How many statements wait for a lock.
    pub fn waiting(&self) -> usize {
        let waiting = self.run("select count(*) from pg_stat_activity where wait_event_type = 'Lock'");
        waiting.parse().expect("a count is a number")
    }
}

/// Rows that somebody else has locked.
pub struct Lock {
    _input: std::process::ChildStdin,
    psql: Child,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The transaction ends with its connection.
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}

/// A transaction that somebody has opened and not ended.
pub struct Held(Child);

impl PostgresServer {
    /// Runs SQL in a transaction that stays open.
    pub fn hold(&self, sql: &str) -> Held {
        let mut psql = Command::new("psql");
        psql.args(["-v", "ON_ERROR_STOP=1", "-qtAX"]).arg(self.url()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut held = Held(psql.spawn().expect("psql runs"));
        held.say(&format!("begin; {sql};\n\\echo held"));
        let said = BufReader::new(held.0.stdout.take().expect("piped"));
        assert!(said.lines().map_while(Result::ok).any(|line| line == "held"), "{sql} was refused");
        held
    }
}

impl Held {
    fn say(&mut self, text: &str) {
        let stdin = self.0.stdin.as_mut().expect("piped");
        writeln!(stdin, "{text}").expect("psql reads");
    }

    /// Commits it.
    pub fn commit(mut self) {
        self.say("commit;\n\\q");
        assert!(self.0.wait().expect("psql ends").success());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
