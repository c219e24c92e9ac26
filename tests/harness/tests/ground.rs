//! What tests stand on: private servers that come up, take a blow, and leave nothing behind.

use std::{
    io::BufRead,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use harness::{
    Folder, User,
    postgres::Postgres,
    process::{alive, with_argument},
    redis::Redis,
    services::built_programs,
    until, until_true,
};
use rustix::process::Signal;

const TABLES: &str = "SELECT count(*) FROM information_schema.tables WHERE table_name IN ('session', 'job', 'tenant_counter')";

async fn tables(postgres: &Postgres) -> i64 {
    let pool = sqlx::PgPool::connect(&postgres.url()).await.expect("Postgres answers");
    sqlx::query_scalar(TABLES).fetch_one(&pool).await.expect("a count")
}

fn on(folder: &Path) -> Vec<u32> {
    with_argument(&format!("{}/", folder.display()))
}

#[tokio::test]
async fn a_private_postgres_is_migrated_takes_a_restart_and_leaves_nothing_behind() {
    let user = User::find().unwrap();
    let folder = Folder::new(user).unwrap();
    let path = folder.path().to_owned();
    let mut postgres = Postgres::start(user, &folder, folder.path()).await.unwrap();
    assert_eq!(tables(&postgres).await, 3);
    postgres.restart().await.unwrap();
    assert_eq!(tables(&postgres).await, 3, "what was committed is there after a restart");
    assert!(!on(&path).is_empty());
    drop(postgres);
    assert_eq!(on(&path), Vec::<u32>::new());
    drop(folder);
    assert!(!path.exists());
}

#[tokio::test]
async fn two_private_redis_do_not_meet_and_a_killed_one_comes_back_empty_on_its_port() {
    let user = User::find().unwrap();
    let folders = [Folder::new(user).unwrap(), Folder::new(user).unwrap()];
    let mut one = Redis::start(user, &folders[0], folders[0].path()).await.unwrap();
    let two = Redis::start(user, &folders[1], folders[1].path()).await.unwrap();
    assert_ne!(one.url(), two.url());
    one.command(&["SET", "a", "b"]).await;
    assert_eq!(format!("{:?}", two.command(&["DBSIZE"]).await), "int(0)");
    let url = one.url();
    one.kill().await;
    assert!(one.try_command(&["PING"]).await.is_err());
    one.up().await.unwrap();
    assert_eq!((one.url(), format!("{:?}", one.command(&["DBSIZE"]).await)), (url, "int(0)".to_owned()));
}

#[tokio::test]
async fn a_stack_killed_without_a_word_leaves_no_server_and_the_next_one_removes_its_folder() {
    let mut stack = std::process::Command::new(built_programs().unwrap().join("zaguan-stack"))
        .args(["postgres", "--", "sh", "-c", "echo $DATABASE_URL $$; exec sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    std::io::BufReader::new(stack.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.starts_with("postgres://"), "{said}");
    let command: u32 = said.trim().rsplit_once(' ').unwrap().1.parse().unwrap();
    let folder = folder_of(stack.id());
    let servers = on(&folder);
    assert!(!servers.is_empty());

    stack.kill().unwrap();
    stack.wait().unwrap();
    // The command was started for this test and outlives its stack.
    harness::process::kill_tree(command);
    until_true("its servers to be gone", Duration::from_secs(10), || async { !servers.iter().any(|pid| alive(*pid)) }).await;
    drop(Folder::new(User::find().unwrap()).unwrap());
    assert!(!folder.exists());
}

fn folder_of(stack: u32) -> PathBuf {
    let prefix = format!("zaguan-{stack}-");
    let entries = std::fs::read_dir(std::env::temp_dir()).expect("there is a place for temporary files").flatten();
    let found = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).map(|entry| entry.path()).next();
    found.expect("the stack has a folder")
}

#[tokio::test]
async fn a_paused_redis_keeps_its_connections_and_answers_later() {
    let user = User::find().unwrap();
    let folder = Folder::new(user).unwrap();
    let mut redis = Redis::start(user, &folder, folder.path()).await.unwrap();
    redis.process().signal(Signal::STOP);
    let ping = tokio::time::timeout(Duration::from_millis(300), redis.try_command(&["PING"])).await;
    assert!(ping.is_err(), "it does not answer");
    redis.process().signal(Signal::CONT);
    until("Redis to answer again", Duration::from_secs(5), || async { redis.try_command(&["PING"]).await.ok() }).await;
}
