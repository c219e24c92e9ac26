//! The binary: a container or a Lambda function, and the commands of an operator.

use std::{env, error::Error, io::Write, process::ExitCode};

use api::{
    commands,
    config::{Cli, Command, Serve, Tenant, User},
    lambda, serve as server,
};

fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "the one place where the environment is read beside clap: NAME_FILE")]
    let cli = Cli::read(env::args_os(), |name| env::var_os(name)).unwrap_or_else(|why| why.exit());
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // The log may not have been started, and an operator of a command reads this line.
            let _ = writeln!(std::io::stderr(), "zaguan-api: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn Error + Send + Sync>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match command {
        Command::Serve(config) => runtime.block_on(serve(*config)),
        Command::Migrate(config) => runtime.block_on(commands::migrate(config)),
        Command::Tenant(Tenant::Create(config)) => runtime.block_on(commands::create_tenant(config)),
        Command::Tenant(Tenant::Delete(config)) => runtime.block_on(commands::delete_tenant(config)),
        Command::User(User::PasswordReset(config)) => runtime.block_on(commands::reset_password(config)),
        Command::Openapi => commands::openapi(),
        Command::Problems => commands::problems(),
        Command::Authorization => commands::authorization(),
        Command::Events => commands::events(),
        Command::Asyncapi => commands::asyncapi(),
    }
}

async fn serve(config: Serve) -> Result<(), Box<dyn Error + Send + Sync>> {
    service::telemetry::log(&config.rust_log).map_err(|why| format!("RUST_LOG: {why}"))?;
    let state = server::state(&config).await?;
    let app = api::router(state.clone());
    match config.lambda {
        Some(_) => lambda::run(app, state, config.lambda_response).await,
        None => server::container(&config, app, state).await,
    }
}
