//! Every setting of the host, read once.

use std::{ffi::OsString, path::PathBuf};

use clap::{CommandFactory, Parser};
use contract::Timings;
use secrecy::SecretString;
use service::{
    Environment,
    objects::{Objects, ObjectsAt},
    seal::{MasterKeys, Sealer},
};

/// `zaguan-host`: owns sessions and drives their browsers.
#[derive(Debug, Parser)]
#[command(
    version,
    about = "Owns WhatsApp sessions and drives their browsers",
    after_help = "Each variable may also be given as NAME_FILE."
)]
pub struct Config {
    /// Postgres, as the services' role.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: SecretString,
    /// Redis.
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: SecretString,
    #[expect(missing_docs, reason = "a comment here would be taken for the program's description")]
    #[command(flatten)]
    pub master: MasterKeys,
    #[expect(missing_docs, reason = "a comment here would be taken for the program's description")]
    #[command(flatten)]
    pub objects: ObjectsAt,
    /// How many sessions this host runs at most.
    #[arg(long, env = "HOST_SLOTS", default_value_t = 20)]
    pub host_slots: usize,
    /// A browser that costs more memory than this, in MiB (its share of what is shared counted by part), is replaced by a new one once nothing
    /// is under way; where the next ones cost too much at once, less and less often. 0: never.
    #[arg(long, env = "RECYCLE_ABOVE_MB", default_value_t = 1024)]
    pub recycle_above_mb: u64,
    /// Where profiles live while their sessions run here. Hosts of one machine may share it.
    #[arg(long, env = "HOST_DATA_DIR", default_value = "/var/lib/zaguan")]
    pub host_data_dir: PathBuf,
    /// The browser's own binary (Debian's `/usr/bin/chromium-headless-shell` is a shell script, whose death leaves the browser alive).
    #[arg(long, env = "CHROMIUM_BIN", default_value = "/usr/lib/chromium/chromium-headless-shell")]
    pub chromium_bin: PathBuf,
    /// chromedriver of the same version.
    #[arg(long, env = "CHROMEDRIVER_BIN", default_value = "/usr/bin/chromedriver")]
    pub chromedriver_bin: PathBuf,
    /// More switches for the browser, a JSON array of strings. In production, switches that weaken it are refused.
    #[arg(long, env = "CHROMIUM_ARGS", default_value = "[]")]
    pub chromium_args: String,
    /// Where `/metrics` is served.
    #[arg(long, env = "METRICS_ADDR", default_value = "127.0.0.1:9091")]
    pub metrics_addr: std::net::SocketAddr,
    /// `production` or `development`.
    #[arg(long, env = "ZAGUAN_ENV", default_value = "production")]
    pub zaguan_env: Environment,
    /// Whether the operator's firehose in Redis carries the bodies of events: what people wrote.
    #[arg(long, env = "FIREHOSE_BODIES", default_value_t = false, action = clap::ArgAction::Set)]
    pub firehose_bodies: bool,
    /// What is logged: a level, or target=level, comma-separated.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub rust_log: String,
    /// Durations that differ from the protocol's, a JSON object; the same for every service of an installation.
    #[arg(long, env = "TIMINGS", default_value = "{}")]
    pub timings: String,
}

/// A setting that does not fit.
#[derive(Debug, thiserror::Error)]
pub enum BadConfig {
    /// Not a JSON array of strings.
    #[error("CHROMIUM_ARGS: expected a JSON array of strings")]
    ChromiumArgs(#[source] serde_json::Error),
    /// A switch that production does not allow.
    #[error("CHROMIUM_ARGS: {0} weakens the browser and is refused with ZAGUAN_ENV=production")]
    Weakens(String),
    /// Durations under which the protocol does not hold.
    #[error("TIMINGS")]
    Timings(#[from] contract::BadTimings),
    /// A secret that anybody knows.
    #[error("{0}, refused with ZAGUAN_ENV=production")]
    Printed(#[from] service::secrets::PrintedSecret),
    /// A key that does not do.
    #[error(transparent)]
    MasterKey(#[from] service::seal::BadMasterKey),
    /// Nowhere to put snapshots.
    #[error(transparent)]
    Objects(#[from] service::objects::BadObjectsUrl),
    /// No slots.
    #[error("HOST_SLOTS: expected at least 1")]
    NoSlots,
}

/// What the names of switches begin with that open the browser to others, turn its protections off, or run something else in its place.
const WEAKENING: [&str; 22] = [
    "host-resolver-rules",
    "host-rules",
    "ignore-certificate-errors",
    "ignore-urlfetcher-cert-requests",
    "allow-insecure-localhost",
    "allow-running-insecure-content",
    "unsafely-treat-insecure-origin-as-secure",
    "no-sandbox",
    "disable-setuid-sandbox",
    "disable-namespace-sandbox",
    "disable-seccomp-filter-sandbox",
    "disable-gpu-sandbox",
    "single-process",
    "disable-web-security",
    "disable-site-isolation-trials",
    "allow-file-access-from-files",
    "remote-debugging-",
    "remote-allow-origins",
    "user-data-dir",
    "renderer-cmd-prefix",
    "utility-cmd-prefix",
    "load-extension",
];

/// A switch's name as Chromium reads it: one dash or two, up to `=`.
fn switch_name(arg: &str) -> &str {
    let name = arg.trim().trim_start_matches('-');
    name.split('=').next().unwrap_or(name)
}

impl Config {
    /// Reads arguments and environment. A bad start names the variable.
    ///
    /// # Errors
    /// What clap says, and a `NAME_FILE` that cannot be read.
    pub fn read(args: Vec<OsString>, env: impl Fn(&str) -> Option<OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(service::with_files(&Self::command(), args, env)?)
    }

    /// The switches for the browser.
    ///
    /// # Errors
    /// [`BadConfig`] names the variable.
    pub fn chromium_args(&self) -> Result<Vec<String>, BadConfig> {
        let args: Vec<String> = serde_json::from_str(&self.chromium_args).map_err(BadConfig::ChromiumArgs)?;
        if self.zaguan_env.is_production() {
            let weakens = |arg: &&String| WEAKENING.iter().any(|w| switch_name(arg).starts_with(w));
            if let Some(arg) = args.iter().find(weakens) {
                return Err(BadConfig::Weakens(format!("--{}", switch_name(arg))));
            }
        }
        Ok(args)
    }

    /// Refuses, in production, secrets that our examples print.
    ///
    /// # Errors
    /// [`BadConfig`] names the variable.
    pub fn check_secrets(&self) -> Result<(), BadConfig> {
        use secrecy::ExposeSecret;
        let urls = [("DATABASE_URL", self.database_url.expose_secret()), ("REDIS_URL", self.redis_url.expose_secret())];
        Ok(self.zaguan_env.refuse_printed(&urls)?)
    }

    /// What seals snapshots, and where they lie.
    ///
    /// # Errors
    /// [`BadConfig`] names the variable.
    pub fn safe(&self) -> Result<(Sealer, Objects), BadConfig> {
        Ok((self.master.sealer(self.zaguan_env)?, self.objects.open()?))
    }

    /// The durations.
    ///
    /// # Errors
    /// [`BadConfig`] names the variable.
    pub fn timings(&self) -> Result<Timings, BadConfig> {
        if self.host_slots == 0 {
            return Err(BadConfig::NoSlots);
        }
        Ok(Timings::read(&self.timings)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "8zy1V2vgv+ALPlLdaZYHMwoFAIeZq3pT6FWhx1CcPfI=";

    fn config(env: &str, args: &str) -> Config {
        Config::parse_from([
            "zaguan-host",
            "--database-url",
            "x",
            "--redis-url",
            "x",
            "--master-key",
            KEY,
            "--zaguan-env",
            env,
            &format!("--chromium-args={args}"),
        ])
    }

    #[test]
    fn production_refuses_switches_that_weaken_the_browser() {
        let args = r#"["--lang=pt", "--no-sandbox"]"#;
        assert!(config("production", args).chromium_args().unwrap_err().to_string().contains("--no-sandbox"));
        assert_eq!(config("development", args).chromium_args().unwrap().len(), 2);
        assert!(config("development", "--lang=pt").chromium_args().is_err());
    }

    #[test]
    fn no_spelling_of_a_weakening_switch_gets_through_and_harmless_ones_do() {
        for bad in [
            "-no-sandbox",
            " --no-sandbox",
            "--ignore-certificate-errors-spki-list=x",
            "--host-resolver-rules=MAP * 127.0.0.1",
            "--remote-debugging-address=0.0.0.0",
            "--remote-debugging-port=9222",
            "--disable-web-security=",
        ] {
            let args = serde_json::to_string(&[bad]).unwrap();
            let why = config("production", &args).chromium_args().unwrap_err().to_string();
            assert!(why.contains(switch_name(bad)), "{bad}: {why}");
        }
        assert_eq!(
            config("production", r#"["--lang=pt-BR", "--disable-gpu", "--proxy-server=http://p:3128"]"#).chromium_args().unwrap().len(),
            3
        );
    }

    #[test]
    fn production_refuses_secrets_that_our_examples_print() {
        let with = |env: &str, url: &str| {
            let args = ["zaguan-host", "--database-url", url, "--redis-url", "redis://r", "--master-key", KEY, "--zaguan-env", env];
            Config::parse_from(args).check_secrets()
        };
        assert!(with("production", "postgres://u:change-me@db").unwrap_err().to_string().contains("DATABASE_URL"));
        assert!(with("development", "postgres://u:change-me@db").is_ok() && with("production", "postgres://u:83hf72hd@db").is_ok());
    }
}
