//! Every setting of the host, read once.

use std::{ffi::OsString, path::PathBuf};

use clap::{CommandFactory, Parser};
use contract::Timings;
use secrecy::SecretString;
use service::Environment;

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
    /// How many sessions this host runs at most.
    #[arg(long, env = "HOST_SLOTS", default_value_t = 20)]
    pub host_slots: usize,
    /// Where profiles live. Hosts of one machine may share it.
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
    /// No slots.
    #[error("HOST_SLOTS: expected at least 1")]
    NoSlots,
}

/// Switches (up to `=`) that open the browser to others or turn its protections off.
const WEAKENING: [&str; 9] = [
    "--host-resolver-rules",
    "--ignore-certificate-errors",
    "--ignore-certificate-errors-spki-list",
    "--no-sandbox",
    "--disable-web-security",
    "--allow-running-insecure-content",
    "--remote-debugging-address",
    "--remote-allow-origins",
    "--disable-site-isolation-trials",
];

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
            let weakens = |arg: &&String| WEAKENING.contains(&arg.split('=').next().unwrap_or(arg));
            if let Some(arg) = args.iter().find(weakens) {
                return Err(BadConfig::Weakens(arg.split('=').next().unwrap_or(arg).to_owned()));
            }
        }
        Ok(args)
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

    fn config(env: &str, args: &str) -> Config {
        Config::parse_from([
            "zaguan-host",
            "--database-url",
            "x",
            "--redis-url",
            "x",
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
}
