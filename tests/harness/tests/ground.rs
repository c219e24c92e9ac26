//! What tests stand on: private servers that come up, take a blow, and leave nothing behind.

use std::{io::BufRead, path::Path, process::Stdio, time::Duration};

use harness::{Signal, Stores, binary, procs, until, until_true};

#[tokio::test]
async fn the_stores_come_up_migrated_take_a_restart_and_leave_nothing_behind() {
    let mut stores = Stores::start().await;
    let folder = stores.folder().to_owned();
    let count = "SELECT count(*) FROM information_schema.tables WHERE table_name IN ('session', 'job', 'tenant_counter')";
    let tables: i64 = sqlx::query_scalar(count).fetch_one(&stores.postgres.pool().await).await.unwrap();
    assert_eq!(tables, 3);

    stores.postgres.restart().await;
    let again: i64 = sqlx::query_scalar(count).fetch_one(&stores.postgres.pool().await).await.unwrap();
    assert_eq!(again, 3, "what was committed outlives a crash of Postgres");

    let mut redis = stores.redis.connection().await;
    redis::cmd("SET").arg("a").arg("b").query_async::<()>(&mut redis).await.unwrap();
    stores.redis.restart().await;
    let mut redis = stores.redis.connection().await;
    assert_eq!(redis::cmd("GET").arg("a").query_async::<Option<String>>(&mut redis).await.unwrap(), None, "Redis forgets");

    assert!(procs::that_name(&folder).len() > 2);
    drop(stores);
    assert_eq!(procs::that_name(&folder), []);
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_stack_that_is_killed_without_a_word_leaves_no_process_and_the_next_one_removes_its_folder() {
    let script = "echo $DATABASE_URL; exec sleep 1000";
    let mut stack = std::process::Command::new(binary("zaguan-stack"))
        .args(["postgres", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    std::io::BufReader::new(stack.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert!(said.starts_with("postgres://"), "{said}");
    let pid = stack.id().cast_signed();
    let prefix = format!("zaguan-{pid}-");
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    let folder = entries.map(|entry| entry.path()).find(|path| named(path, &prefix)).unwrap();
    let servers = procs::that_name(&folder);
    assert!(servers.len() > 2);

    let own = procs::descendants(&[pid]);
    stack.kill().unwrap();
    stack.wait().unwrap();
    until_true("its servers to be gone", Duration::from_secs(10), || async { servers.iter().all(|id| !id.lives()) }).await;
    assert_eq!(procs::that_name(&folder), []);
    drop(Stores::start().await);
    assert!(!folder.exists());
    // The command itself was ours to start, and ours to end.
    procs::kill(&own, Duration::from_secs(5));
}

#[tokio::test]
async fn two_sets_of_stores_side_by_side_do_not_meet() {
    let (one, two) = tokio::join!(Stores::start(), Stores::start());
    assert_ne!(one.postgres.url(), two.postgres.url());
    let mut redis = one.redis.connection().await;
    redis::cmd("SET").arg("a").arg("b").query_async::<()>(&mut redis).await.unwrap();
    drop(one);
    let mut redis = two.redis.connection().await;
    let keys: u64 = redis::cmd("DBSIZE").query_async(&mut redis).await.unwrap();
    assert_eq!(keys, 0);
}

#[tokio::test]
async fn a_paused_redis_keeps_its_connections_and_answers_later() {
    let stores = Stores::start().await;
    let mut redis = stores.redis.connection().await;
    stores.redis.pause();
    let ping = tokio::time::timeout(Duration::from_millis(300), redis::cmd("PING").query_async::<String>(&mut redis)).await;
    assert!(ping.is_err(), "it does not answer");
    stores.redis.resume();
    let answer = until("Redis to answer again", Duration::from_secs(5), || {
        let mut redis = redis.clone();
        async move { redis::cmd("PING").query_async::<String>(&mut redis).await.ok() }
    })
    .await;
    assert_eq!(answer, "PONG");
    stores.redis.process().unwrap().signal(Signal::TERM);
}

fn named(path: &Path, prefix: &str) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
}
