//! All that the stores hold, to be searched for what must be nowhere.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::path::PathBuf;

use harness::Stack;
use sqlx::{AssertSqlSafe, PgPool};

/// Everything in every table.
pub async fn tables(db: &PgPool) -> Vec<String> {
    let sql = "select quote_ident(relname) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace";
    let tables: Vec<String> = sqlx::query_scalar(sql).fetch_all(db).await.unwrap();
    let mut all = Vec::new();
    for table in tables {
        let sql = AssertSqlSafe(format!("select t::text from only {table} t"));
        let rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(db).await.unwrap();
        all.extend(rows.into_iter().map(|row| format!("{table}: {row}")));
    }
    all
}

/// Everything in Redis.
pub async fn keys(stack: &Stack) -> Vec<String> {
    let names: Vec<String> = redis::from_redis_value(stack.redis.command(&["KEYS", "*"]).await).unwrap();
    let mut all = Vec::new();
    for name in names {
        let kind: String = redis::from_redis_value(stack.redis.command(&["TYPE", &name]).await).unwrap();
        let value = match kind.as_str() {
            "string" => stack.redis.command(&["GET", &name]).await,
            "stream" => stack.redis.command(&["XRANGE", &name, "-", "+"]).await,
            "hash" => stack.redis.command(&["HGETALL", &name]).await,
            "zset" => stack.redis.command(&["ZRANGE", &name, "0", "-1"]).await,
            "set" => stack.redis.command(&["SMEMBERS", &name]).await,
            _ => stack.redis.command(&["LRANGE", &name, "0", "-1"]).await,
        };
        all.push(format!("{name}: {}", shown(&value)));
    }
    all
}

fn shown(value: &redis::Value) -> String {
    match value {
        redis::Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        redis::Value::Array(all) | redis::Value::Set(all) => all.iter().map(shown).collect::<Vec<_>>().join(" "),
        redis::Value::Map(all) => all.iter().map(|(k, v)| format!("{} {}", shown(k), shown(v))).collect::<Vec<_>>().join(" "),
        other => format!("{other:?}"),
    }
}

/// What of it says this: the beginnings.
pub fn told(all: &[String], secret: &str) -> Vec<String> {
    all.iter().filter(|text| text.contains(secret)).map(|text| text.chars().take(300).collect()).collect()
}

/// Every file of the object store.
pub fn objects(stack: &Stack) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![stack.objects().to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}
