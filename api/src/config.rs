//! The command line and the environment, read once. Each variable may also be given as `NAME_FILE`, the path of a file that holds it.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use contract::{TenantId, Timings};
use secrecy::SecretString;
use service::{Environment, addresses::Allowed, objects::ObjectsAt, seal::MasterKeys};

use crate::webhook_rules::UrlRules;

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
    /// People.
    #[command(subcommand)]
    User(User),
    /// Print the OpenAPI document.
    Openapi,
    /// Print the page of problem codes.
    Problems,
    /// Print who may do what, as the OpenAPI document declares it.
    Authorization,
    /// Print the page of event types.
    Events,
    /// Print the AsyncAPI document: the same events on every transport.
    Asyncapi,
}

/// How a Lambda function answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LambdaResponse {
    /// Whole: API Gateway, load balancers, function URLs.
    Buffered,
    /// As it comes: function URLs that stream.
    Streaming,
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
    #[expect(missing_docs, reason = "a comment here would be taken for the program's description")]
    #[command(flatten)]
    pub master: MasterKeys,
    #[expect(missing_docs, reason = "a comment here would be taken for the program's description")]
    #[command(flatten)]
    pub objects: ObjectsAt,
    /// How callers reach this installation, as https://api.example.com. Tokens name it as their issuer.
    #[arg(long, env = "PUBLIC_URL")]
    pub public_url: Option<String>,
    /// Addresses and networks of our own proxies, comma-separated: only what they say in X-Forwarded-For is believed.
    #[arg(long, env = "TRUSTED_PROXIES", default_value = "")]
    pub trusted_proxies: String,
    /// Origins whose pages may call this API from a browser, comma-separated, each exactly as browsers write it: https://app.example.com.
    #[arg(long, env = "CORS_ORIGINS", default_value = "")]
    pub cors_origins: String,
    /// Networks that webhooks may reach though they are not public, as 127.0.0.0/8, comma-separated. In development only.
    #[arg(long, env = "WEBHOOK_ALLOW", default_value = "")]
    pub webhook_allow: Allowed,
    /// Durations of the protocol that differ from their defaults, as JSON: {"leaseTtlMs": 2000}.
    #[arg(long, env = "TIMINGS", default_value = "{}", value_parser = Timings::read)]
    pub timings: Timings,
    /// Whether the operator's firehose in Redis carries the bodies of events: what people wrote.
    #[arg(long, env = "FIREHOSE_BODIES", default_value_t = false, action = clap::ArgAction::Set)]
    pub firehose_bodies: bool,
    /// What is logged: a level, or target=level, comma-separated.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub rust_log: String,
    /// Set by AWS Lambda.
    #[arg(long, env = "AWS_LAMBDA_RUNTIME_API", hide = true)]
    pub lambda: Option<String>,
    /// How a Lambda function answers: whole, or as a stream, which only a function URL with InvokeMode RESPONSE_STREAM understands.
    #[arg(long, env = "LAMBDA_RESPONSE", value_enum, default_value = "buffered")]
    pub lambda_response: LambdaResponse,
}

/// Configuration of `migrate`.
#[derive(Args)]
pub struct Migrate {
    /// Postgres, as the owner of the schema.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: SecretString,
    /// The role that the API and the hosts use: it gets their timeouts, and the right to all rows. Where nothing is said, the current one's timeouts
    /// are set.
    #[arg(long, env = "APP_ROLE")]
    pub app_role: Option<String>,
}

/// What can be done with tenants.
#[derive(Subcommand)]
pub enum Tenant {
    /// Create a tenant with its founding ADMIN and its session `default`; prints their ids as JSON.
    Create(TenantCreate),
    /// Delete a tenant: from here on nobody gets in; hosts unlink its devices and a worker removes all that is kept of it. Prints how many sessions are
    /// left; said again, how many still are. Cannot be undone.
    Delete(TenantDelete),
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

/// Configuration of `tenant delete`.
#[derive(Args)]
pub struct TenantDelete {
    /// Postgres.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: SecretString,
    /// Its id, `ten_…`.
    #[arg(long)]
    pub tenant: TenantId,
    /// Its name, exactly: so that no slip of an id deletes another.
    #[arg(long)]
    pub name: String,
}

/// What can be done with people. Whoever can log in does all else over HTTP.
#[derive(Subcommand)]
pub enum User {
    /// Make a link with which somebody sets a new password: for a tenant whose only ADMIN has forgotten its own.
    PasswordReset(PasswordReset),
}

/// Configuration of `user password-reset`.
#[derive(Args)]
pub struct PasswordReset {
    /// Postgres.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: SecretString,
    /// How callers reach this installation, as https://api.example.com.
    #[arg(long, env = "PUBLIC_URL")]
    pub public_url: String,
    /// The person's e-mail address.
    #[arg(long)]
    pub email: String,
}

impl Cli {
    /// Reads arguments and environment. A bad start names the variable.
    ///
    /// # Errors
    /// What clap says, and a `NAME_FILE` that cannot be read.
    pub fn read(args: impl IntoIterator<Item = OsString>, env: impl Fn(&str) -> Option<OsString>) -> Result<Self, clap::Error> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        let command = Self::command();
        let named = |arg: &OsString| command.get_subcommands().any(|known| arg == known.get_name());
        let other = ["--help", "-h", "--version", "-V", "help"];
        if args.get(1).is_none_or(|arg| !named(arg) && !other.iter().any(|known| arg == known)) {
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
    /// A secret that anybody knows.
    #[error("{0}, refused where ZAGUAN_ENV is production")]
    Printed(#[from] service::secrets::PrintedSecret),
    /// A master key that does not do.
    #[error("{0}")]
    MasterKey(#[from] service::seal::BadMasterKey),
    /// A value that no default replaces.
    #[error("{0}")]
    Keys(#[from] crate::auth::BadKeys),
    /// Production that would let webhooks in.
    #[error("WEBHOOK_ALLOW is for development: in production webhooks reach the public internet only")]
    WebhookAllow,
    /// Not an address that callers could use.
    #[error("PUBLIC_URL must be an absolute http(s) URL without a trailing slash")]
    PublicUrl,
}

impl Serve {
    fn is_production(&self) -> bool {
        self.zaguan_env.is_production()
    }

    /// Refuses, in production, secrets that our examples print.
    ///
    /// # Errors
    /// [`BadStart`].
    pub fn check_secrets(&self) -> Result<(), BadStart> {
        use secrecy::ExposeSecret;
        let urls = [("DATABASE_URL", self.database_url.expose_secret()), ("REDIS_URL", self.redis_url.expose_secret())];
        Ok(self.zaguan_env.refuse_printed(&urls)?)
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

    /// Where webhooks may lead.
    ///
    /// # Errors
    /// [`BadStart`].
    pub fn webhook_urls(&self) -> Result<UrlRules, BadStart> {
        if self.is_production() && !self.webhook_allow.is_empty() {
            return Err(BadStart::WebhookAllow);
        }
        Ok(UrlRules { https_only: self.is_production(), allowed: self.webhook_allow.clone() })
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
            Command::Migrate(_)
            | Command::Tenant(_)
            | Command::User(_)
            | Command::Openapi
            | Command::Authorization
            | Command::Problems
            | Command::Events
            | Command::Asyncapi => panic!("not serve"),
        }
    }
    const KEY: &str = "--master-key=x";
    const STORES: [&str; 3] = ["--database-url=postgres://x", "--redis-url=redis://x", KEY];

    #[test]
    fn production_is_the_default_and_names_the_secret_that_is_missing() {
        let config = serve(&STORES, &[]);
        assert!(config.issuer().unwrap_err().to_string().contains("PUBLIC_URL"));
        let config = serve(&[STORES[0], STORES[1], KEY, "--public-url=https://z.test"], &[]);
        assert!(config.tokens().map(|_| ()).unwrap_err().to_string().contains("JWT_KEYS"));
    }

    #[test]
    fn production_refuses_secrets_that_our_examples_print_and_development_does_not() {
        let printed = ["--database-url=postgres://zaguan:change-me@db/zaguan", "--redis-url=redis://r", KEY];
        assert!(serve(&printed, &[]).check_secrets().unwrap_err().to_string().contains("DATABASE_URL"));
        let redis = ["--database-url=postgres://db", "--redis-url=redis://:changeme@r", KEY];
        assert!(serve(&redis, &[]).check_secrets().unwrap_err().to_string().contains("REDIS_URL"));
        assert!(serve(&[printed[0], printed[1], KEY, "--zaguan-env=development"], &[]).check_secrets().is_ok());
        let allow = serve(&[STORES[0], STORES[1], KEY, "--webhook-allow=127.0.0.1"], &[]);
        assert!(allow.webhook_urls().unwrap_err().to_string().contains("WEBHOOK_ALLOW"));
        let text = "--jwt-keys=Y2hhbmdlLW1lLWNoYW5nZS1tZS1jaGFuZ2UtbWUtMTI=";
        let config = serve(&[STORES[0], STORES[1], KEY, "--public-url=https://z.test", text], &[]);
        assert!(config.tokens().map(|_| ()).unwrap_err().to_string().contains("JWT_KEYS"));
    }

    #[test]
    fn a_missing_or_bad_variable_is_named() {
        let named = |args: &[&str], name: &str| {
            let why = read(args, &[]).map(|_| ()).unwrap_err().to_string();
            assert!(why.contains(name), "{why}");
        };
        named(&["serve", STORES[0]], "<REDIS_URL>");
        named(&["serve", STORES[0], STORES[1]], "<MASTER_KEY>");
        named(&[STORES[0], STORES[1], "--api-addr=nowhere"], "<API_ADDR>");
        named(&[STORES[0], STORES[1], r#"--timings={"leaseTtlMs": 1}"#], "<TIMINGS>");
        named(&[STORES[0], STORES[1], "--objects-url=here"], "<OBJECTS_URL>");
        named(&["tenant", "create", STORES[0]], "<PASSWORD_FILE>");
        named(&["tenant", "delete", STORES[0], "--tenant=ana", "--name=Ana"], "<TENANT>");
    }

    #[test]
    fn a_variable_may_lie_in_a_file() {
        let why = read(&[STORES[0]], &[("REDIS_URL_FILE", "/nowhere/at/all")]).map(|_| ()).unwrap_err().to_string();
        assert!(why.contains("REDIS_URL_FILE"), "{why}");
    }
}
