//! Every setting of the worker, read once.

use std::{error::Error, ffi::OsString, net::SocketAddr, time::Duration};

use clap::{CommandFactory, Parser};
use secrecy::{ExposeSecret, SecretString};
use service::{
    Environment,
    addresses::Allowed,
    objects::ObjectsAt,
    seal::{MasterKeys, Sealer},
};
use store::retention::Days;

use crate::{hooks::settings::Settings, schedule::Schedule};

/// `zaguan-worker`: webhooks, and retention, expiry and other housekeeping.
#[derive(Debug, Parser)]
#[command(
    name = "zaguan-worker",
    version,
    about = "Tells webhooks, and does the housekeeping of an installation: partitions, retention, expiry",
    after_help = "Each variable may also be given as NAME_FILE."
)]
pub struct Config {
    /// Postgres, as the owner of the schema (partitions are made and dropped).
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: SecretString,
    /// How many connections to Postgres this process may open.
    #[arg(long, env = "DATABASE_POOL", default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_pool: u32,
    /// Redis, as redis://host:port.
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: SecretString,
    #[expect(missing_docs, reason = "a comment here would be taken for the program's description")]
    #[command(flatten)]
    pub master: MasterKeys,
    #[expect(missing_docs, reason = "a comment here would be taken for the program's description")]
    #[command(flatten)]
    pub objects: ObjectsAt,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "METRICS_ADDR", default_value = "127.0.0.1:9092")]
    pub metrics_addr: SocketAddr,
    /// For how many days events are kept. Tenants may keep theirs for fewer.
    #[arg(long, env = "EVENT_DAYS", default_value_t = 30, value_parser = clap::value_parser!(i32).range(1..=3650))]
    pub event_days: i32,
    /// For how many days messages are kept.
    #[arg(long, env = "MESSAGE_DAYS", default_value_t = 180, value_parser = clap::value_parser!(i32).range(1..=36500))]
    pub message_days: i32,
    /// For how many days it is kept what became of deliveries to webhooks.
    #[arg(long, env = "DELIVERY_DAYS", default_value_t = 7, value_parser = clap::value_parser!(i32).range(1..=36500))]
    pub delivery_days: i32,
    /// For how many days the audit log is kept.
    #[arg(long, env = "AUDIT_DAYS", default_value_t = 400, value_parser = clap::value_parser!(i32).range(1..=36500))]
    pub audit_days: i32,
    /// For how many hours the streams in Redis keep events; older ones are read from Postgres.
    #[arg(long, env = "STREAM_HOURS", default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=8760))]
    pub stream_hours: u64,
    /// For how many hours an exported chat can be downloaded.
    #[arg(long, env = "EXPORT_HOURS", default_value_t = 72, value_parser = clap::value_parser!(u64).range(1..=8760))]
    pub export_hours: u64,
    /// Production refuses to start with secrets that anybody knows.
    #[arg(long, env = "ZAGUAN_ENV", value_enum, default_value = "production")]
    pub zaguan_env: Environment,
    /// Intervals that differ from their defaults, as JSON: {"everyMs": {"jobs.expired": 5000}}.
    #[arg(long, env = "SCHEDULE", default_value = "{}", value_parser = Schedule::read)]
    pub schedule: Schedule,
    /// Networks that webhooks may reach though they are not public, as 127.0.0.0/8, comma-separated. In development only.
    #[arg(long, env = "WEBHOOK_ALLOW", default_value = "")]
    pub webhook_allow: Allowed,
    /// Of telling webhooks, what differs from the defaults, as JSON: {"leaseMs", "lookEveryMs", "connectWithinMs", "answerWithinMs",
    /// "keepConnectionMs", "retryAfterMs": [5000, ...], "retryAfterCapMs", "pauseAfterMs", "pauseFailures", "attemptsAtOnce",
    /// "attemptsAtOncePerTenant"}.
    #[arg(long, env = "WEBHOOK_TIMINGS", default_value = "{}", value_parser = Settings::read)]
    pub webhook_timings: Settings,
    /// Whether the operator's firehose in Redis carries the bodies of events: what people wrote.
    #[arg(long, env = "FIREHOSE_BODIES", default_value_t = false, action = clap::ArgAction::Set)]
    pub firehose_bodies: bool,
    /// What is logged: a level, or target=level, comma-separated.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub rust_log: String,
}

impl Config {
    /// Reads arguments and environment. A bad start names the variable.
    ///
    /// # Errors
    /// What clap says, and a `NAME_FILE` that cannot be read.
    pub fn read(args: Vec<OsString>, env: impl Fn(&str) -> Option<OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(service::with_files(&Self::command(), args, env)?)
    }

    /// What production does not forgive.
    ///
    /// # Errors
    /// The variable that holds a secret of our examples, or a key that is none.
    pub fn check(&self) -> Result<Sealer, Box<dyn Error + Send + Sync>> {
        self.zaguan_env
            .refuse_printed(&[("DATABASE_URL", self.database_url.expose_secret()), ("REDIS_URL", self.redis_url.expose_secret())])?;
        if self.zaguan_env.is_production() && !self.webhook_allow.is_empty() {
            return Err("WEBHOOK_ALLOW is for development: in production webhooks reach the public internet only".into());
        }
        Ok(self.master.sealer(self.zaguan_env)?)
    }

    /// For how long things are kept.
    pub const fn days(&self) -> Days {
        Days { events: self.event_days, messages: self.message_days, deliveries: self.delivery_days, audit: self.audit_days }
    }

    /// For how long an exported chat can be downloaded.
    pub const fn exports_kept(&self) -> Duration {
        Duration::from_secs(self.export_hours * 3600)
    }

    /// For how long the streams in Redis keep events.
    pub const fn streams_kept(&self) -> Duration {
        Duration::from_secs(self.stream_hours * 3600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Config, clap::Error> {
        Config::try_parse_from(
            [&["zaguan-worker", "--redis-url=redis://r", "--master-key=8zy1V2vgv+ALPlLdaZYHMwoFAIeZq3pT6FWhx1CcPfI="], args].concat(),
        )
    }

    #[test]
    fn a_missing_or_bad_variable_is_named() {
        for (args, name) in [
            (&[][..], "DATABASE_URL"),
            (&["--database-url=x", "--event-days=0"], "EVENT_DAYS"),
            (&["--database-url=x", r#"--schedule={"everyMs": {"nope": 1}}"#], "SCHEDULE"),
            (&["--database-url=x", r#"--webhook-timings={"leaseMs": 1}"#], "WEBHOOK_TIMINGS"),
            (&["--database-url=x", "--webhook-allow=here"], "WEBHOOK_ALLOW"),
            (&["--database-url=x", "--export-hours=0"], "EXPORT_HOURS"),
            (&["--database-url=x", "--objects-url=here"], "OBJECTS_URL"),
        ] {
            let why = read(args).map(|_| ()).unwrap_err().to_string();
            assert!(why.contains(name), "{why}");
        }
    }

    #[test]
    fn production_is_the_default_and_refuses_the_secrets_of_our_examples() {
        let example = "--database-url=postgres://zaguan:change-me@db/zaguan";
        assert!(read(&[example]).unwrap().check().unwrap_err().to_string().contains("DATABASE_URL"));
        assert!(read(&[example, "--zaguan-env=development"]).unwrap().check().is_ok());
        let good = "--database-url=postgres://zaguan:s3cret@db/zaguan";
        assert!(read(&[good]).unwrap().check().is_ok());
        assert!(read(&[good, "--webhook-allow=127.0.0.1"]).unwrap().check().unwrap_err().to_string().contains("WEBHOOK_ALLOW"));
    }
}
