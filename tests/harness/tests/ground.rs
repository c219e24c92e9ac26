//! What tests stand on leaves nothing behind, however it ends.

use std::{
    io::BufRead,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use harness::{
    Folder, User,
    postgres::Postgres,
    process::{alive, kill_tree, with_argument},
    redis::Redis,
    services::built_programs,
    until_true,
};

fn on(folder: &std::path::Path) -> Vec<u32> {
    with_argument(&format!("{}/", folder.display()))
}

#[tokio::test]
async fn stores_take_a_restart_and_leave_no_process_and_no_file() {
    let user = User::find().unwrap();
    let folder = Folder::new(user).unwrap();
    let path = folder.path().to_owned();
    let logs = folder.sub("logs").unwrap();
    let (postgres, redis) = tokio::join!(Postgres::start(user, &folder, &logs), Redis::start(user, &folder, &logs));
    let (mut postgres, mut redis) = (postgres.unwrap(), redis.unwrap());
    postgres.migrate().await.unwrap();
    let count = "SELECT count(*) FROM information_schema.tables WHERE table_name IN ('session', 'job', 'tenant_counter')";
    postgres.restart().await.unwrap();
    let pool = sqlx::PgPool::connect(&postgres.url()).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&pool).await.unwrap(), 3, "what was committed is still there");
    redis.command(&["SET", "a", "b"]).await;
    redis.kill().await;
    redis.up().await.unwrap();
    assert_eq!(redis.command(&["DBSIZE"]).await, redis::Value::Int(0), "Redis forgets");

    assert!(!on(&path).is_empty());
    drop((postgres, redis, folder));
    assert_eq!(on(&path), [0; 0]);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stack_that_is_killed_without_a_word_leaves_no_process_and_the_next_one_removes_its_folder() {
    let mut stack = Command::new(built_programs().unwrap().join("zaguan-stack"))
        .args(["postgres", "--", "sh", "-c", "echo $DATABASE_URL; exec sleep 1000"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    std::io::BufReader::new(stack.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.starts_with("postgres://"), "{said}");
    let pid = stack.id();
    let folder = folder_of(pid).unwrap();
    let servers = on(&folder);
    assert!(!servers.is_empty());
    // The command itself is ours to end; the servers are not.
    let command = harness::process::children(pid).into_iter().find(|child| !servers.contains(child)).unwrap();

    stack.kill().unwrap();
    stack.wait().unwrap();
    until_true("its servers to be gone", Duration::from_secs(10), || async { !servers.iter().any(|pid| alive(*pid)) }).await;
    drop(Folder::new(User::find().unwrap()).unwrap());
    assert!(!folder.exists());
    kill_tree(command);
}

fn folder_of(pid: u32) -> Option<PathBuf> {
    let prefix = format!("zaguan-{pid}-");
    let mut all = std::fs::read_dir(std::env::temp_dir()).ok()?.flatten();
    all.find(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).map(|entry| entry.path())
}
