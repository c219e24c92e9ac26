//! The command line and the environment, read once. Each variable may also be given as `NAME_FILE`, the path of a file that holds it.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand};
use contract::Timings;
use secrecy::SecretString;
use service::Environment;

/// The HTTP service of Zaguan.
#[derive(Parser)]
#[command(name = "zaguan-api", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Subcommand)]
pub enum Command {
    /// Serve HTTP, or Lambda events where AWS_LAMBDA_RUNTIME_API is set (the default).
    Serve(Box<Serve>),
    /// Bring the schema up to date. Run it as the owner of the schema.
    Migrate(Migrate),
    /// Tenants.
    #[command(subcommand)]
    Tenant(Tenant),
    /// Print the OpenAPI document.
    Openapi,
}

/// Configuration of `serve`.
#[derive(Args)]
pub struct Serve {
    /// Postgres, as postgres://user:password@host/database.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: SecretString,
    /// How many connections to Postgres this process may open.
    #[arg(long, env = "DATABASE_POOL", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub database_pool: u32,
    /// Redis, as redis://host:port.
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    pub redis_url: SecretString,
    /// Where HTTP is served.
    #[arg(long, env = "API_ADDR", default_value = "127.0.0.1:8080")]
    pub api_addr: SocketAddr,
    /// Where /metrics is served.
    #[arg(long, env = "METRICS_ADDR", default_value = "127.0.0.1:9090")]
    pub metrics_addr: SocketAddr,
    /// Production refuses to start without secrets.
    #[arg(long, env = "ZAGUAN_ENV", value_enum, default_value = "production")]
    pub zaguan_env: Environment,
    /// Comma-separated base64 of 32 random bytes each: the first signs tokens, all check them.
    #[arg(long, env = "JWT_KEYS", hide_env_values = true)]
    pub jwt_keys: Option<SecretString>,
    /// How callers reach this installation, as https://api.example.com. Tokens name it as their issuer.
    #[arg(long, env = "PUBLIC_URL")]
    pub public_url: Option<String>,
    /// Durations of the protocol that differ from their defaults, as JSON: {"leaseTtlMs": 2000}.
    #[arg(long, env = "TIMINGS", default_value = "{}", value_parser = Timings::read)]
    pub timings: Timings,
    /// What is logged: a level, or target=level, comma-separated.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub rust_log: String,
    /// Set by AWS Lambda.
    #[arg(long, env = "AWS_LAMBDA_RUNTIME_API", hide = true)]
    pub lambda: Option<String>,
}

/// Configuration of `migrate`.
#[derive(Args)]
pub struct Migrate {
    /// Postgres, as the owner of the schema.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: SecretString,
    /// The role that the services use: it gets their timeouts. The current one where nothing is said.
    #[arg(long, env = "APP_ROLE")]
    pub app_role: Option<String>,
}

/// What can be done with tenants.
#[derive(Subcommand)]
pub enum Tenant {
    /// Create a tenant with its founding ADMIN and its session `default`; prints their ids as JSON.
    Create(TenantCreate),
}

/// Configuration of `tenant create`.
#[derive(Args)]
pub struct TenantCreate {
    /// Postgres.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: SecretString,
    /// The company's name.
    #[arg(long)]
    pub name: String,
    /// The ADMIN's e-mail address.
    #[arg(long)]
    pub email: String,
    /// A file that holds the ADMIN's password, or - for standard input.
    #[arg(long)]
    pub password_file: PathBuf,
}

impl Cli {
    /// Reads arguments and environment. A bad start names the variable.
    ///
    /// # Errors
    /// What clap says, and a `NAME_FILE` that cannot be read.
    pub fn read(args: impl IntoIterator<Item = OsString>, env: impl Fn(&str) -> Option<OsString>) -> Result<Self, clap::Error> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        let other = ["--help", "-h", "--version", "-V", "help", "migrate", "tenant", "openapi", "serve"];
        if args.get(1).is_none_or(|a| !other.iter().any(|o| a == o)) {
            args.insert(1.min(args.len()), "serve".into());
        }
        Self::try_parse_from(service::with_files(&Self::command(), args, env)?)
    }
}

/// Why the service does not start.
#[derive(Debug, thiserror::Error)]
pub enum BadStart {
    /// Production without something it needs.
    #[error("{0} must be set where ZAGUAN_ENV is production: {1}")]
    Missing(&'static str, &'static str),
    /// A value that no default replaces.
    #[error("{0}")]
    Keys(#[from] crate::auth::BadKeys),
    /// Not an address that callers could use.
    #[error("PUBLIC_URL must be an absolute http(s) URL without a trailing slash")]
    PublicUrl,
}

impl Serve {
    fn is_production(&self) -> bool {
        self.zaguan_env.is_production()
    }

    /// The address callers know.
    ///
    /// # Errors
    /// [`BadStart`].
    pub fn issuer(&self) -> Result<String, BadStart> {
        match &self.public_url {
            Some(url) if (url.starts_with("https://") || url.starts_with("http://")) && !url.ends_with('/') => Ok(url.clone()),
            Some(_) => Err(BadStart::PublicUrl),
            None if self.is_production() => Err(BadStart::Missing("PUBLIC_URL", "how callers reach this installation")),
            None => Ok(format!("http://{}", self.api_addr)),
        }
    }

    /// The token keys. Development makes one where none is given: every restart then logs everybody out.
    ///
    /// # Errors
    /// [`BadStart`].
    pub fn tokens(&self) -> Result<crate::auth::Tokens, BadStart> {
        use secrecy::ExposeSecret;
        let made = match &self.jwt_keys {
            Some(_) => None,
            None if self.is_production() => {
                return Err(BadStart::Missing("JWT_KEYS", "comma-separated base64 of 32 random bytes each (openssl rand -base64 32)"));
            }
            None => {
                tracing::warn!("JWT_KEYS is not set: tokens are void after a restart");
                crate::auth::random_key()
            }
        };
        let keys = self.jwt_keys.as_ref().map(ExposeSecret::expose_secret).or(made.as_deref()).unwrap_or_default();
        Ok(crate::auth::Tokens::read(keys, self.issuer()?, self.is_production())?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn read(args: &[&str], env: &[(&str, &str)]) -> Result<Cli, clap::Error> {
        let env: HashMap<_, _> = env.iter().copied().collect();
        Cli::read(std::iter::once("zaguan-api").chain(args.iter().copied()).map(OsString::from), |n| env.get(n).map(OsString::from))
    }
    fn serve(args: &[&str], env: &[(&str, &str)]) -> Serve {
        match read(args, env).unwrap().command {
            Command::Serve(serve) => *serve,
            Command::Migrate(_) | Command::Tenant(_) | Command::Openapi => panic!("not serve"),
        }
    }
    const STORES: [&str; 2] = ["--database-url=postgres://x", "--redis-url=redis://x"];

    #[test]
    fn production_is_the_default_and_names_the_secret_that_is_missing() {
        let config = serve(&STORES, &[]);
        assert!(config.issuer().unwrap_err().to_string().contains("PUBLIC_URL"));
        let config = serve(&[STORES[0], STORES[1], "--public-url=https://z.test"], &[]);
        assert!(config.tokens().map(|_| ()).unwrap_err().to_string().contains("JWT_KEYS"));
    }

    #[test]
    fn a_missing_or_bad_variable_is_named() {
        let named = |args: &[&str], name: &str| {
            let why = read(args, &[]).map(|_| ()).unwrap_err().to_string();
            assert!(why.contains(name), "{why}");
        };
        named(&["serve", STORES[0]], "<REDIS_URL>");
        named(&[STORES[0], STORES[1], "--api-addr=nowhere"], "<API_ADDR>");
        named(&[STORES[0], STORES[1], r#"--timings={"leaseTtlMs": 1}"#], "<TIMINGS>");
        named(&["tenant", "create", STORES[0]], "<PASSWORD_FILE>");
    }

    #[test]
    fn a_variable_may_lie_in_a_file() {
        let why = read(&[STORES[0]], &[("REDIS_URL_FILE", "/nowhere/at/all")]).map(|_| ()).unwrap_err().to_string();
        assert!(why.contains("REDIS_URL_FILE"), "{why}");
    }
}
