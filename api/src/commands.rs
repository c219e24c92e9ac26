//! What the binary does besides serving.

use std::{
    error::Error,
    io::{Read, Write},
    path::Path,
};

use contract::{TenantId, UserId};
use secrecy::ExposeSecret;
use serde_json::json;
use store::tenants::NewTenant;

use crate::{
    auth,
    config::{Migrate, TenantCreate},
};

type Done = Result<(), Box<dyn Error + Send + Sync>>;

/// Shorter passwords are guessed.
const SHORTEST_PASSWORD: usize = 8;

/// Applies the migrations, gives the services' role its timeouts, and makes the event log's partitions.
///
/// # Errors
/// What Postgres says.
pub async fn migrate(config: Migrate) -> Done {
    let pool = store::connect_owner(config.database_url.expose_secret()).await.map_err(|why| format!("DATABASE_URL: {why}"))?;
    store::MIGRATIONS.run(&pool).await?;
    store::schema::limit_role(&pool, config.app_role.as_deref()).await?;
    store::schema::ensure_event_partitions(&pool).await?;
    Ok(())
}

/// Creates a tenant, its founding ADMIN (same UUID) and its session `default`; prints their ids.
///
/// # Errors
/// What is wrong with the password, the e-mail address or the database.
pub async fn create_tenant(config: TenantCreate) -> Done {
    let password = read_password(&config.password_file)?;
    if password.chars().count() < SHORTEST_PASSWORD {
        return Err(format!("the password needs at least {SHORTEST_PASSWORD} characters").into());
    }
    if !config.email.contains('@') || config.email.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("--email: expected an e-mail address".into());
    }
    let hash = auth::hash_password(&password).ok_or("the password could not be hashed")?;
    let pool = store::connect(config.database_url.expose_secret(), 1).await.map_err(|why| format!("DATABASE_URL: {why}"))?;
    let id = TenantId::new();
    let new = NewTenant { id, name: &config.name, email: &config.email, password_hash: &hash };
    let session = store::tenants::create(&pool, &new).await?;
    print(&json!({"tenant": id, "user": UserId::from_uuid(id.uuid()), "session": session}).to_string())
}

/// Prints the OpenAPI document.
///
/// # Errors
/// Where standard output is closed.
pub fn openapi() -> Done {
    // Through a value, whose keys are sorted: the extensions have no order of their own.
    print(&serde_json::to_string_pretty(&serde_json::to_value(crate::document())?)?)
}

/// Prints `docs/problems.md`.
///
/// # Errors
/// Where standard output is closed.
pub fn problems() -> Done {
    Ok(write!(std::io::stdout(), "{}", crate::routes::docs::problems_md())?)
}

fn read_password(path: &Path) -> Result<String, Box<dyn Error + Send + Sync>> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(path).map_err(|why| format!("--password-file: {why}"))?;
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn print(text: &str) -> Done {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}
