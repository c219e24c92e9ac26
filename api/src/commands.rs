//! What the binary does besides serving.

use std::{
    error::Error,
    io::{Read, Write},
    path::Path,
};

use contract::{AuditAction, TenantId, UserId};
use secrecy::ExposeSecret;
use serde_json::json;
use store::{
    audit::Act,
    links::{self, NewLink, Purpose},
    tenants::NewTenant,
    users,
};

use crate::{
    auth,
    config::{Migrate, PasswordReset, TenantCreate, TenantDelete},
    timestamp::Timestamp,
};

type Done = Result<(), Box<dyn Error + Send + Sync>>;

/// Applies the migrations, gives the services' role its rights and timeouts, and makes the event log's partitions.
///
/// # Errors
/// What Postgres says.
pub async fn migrate(config: Migrate) -> Done {
    let pool = store::connect_owner(config.database_url.expose_secret()).await.map_err(|why| format!("DATABASE_URL: {why}"))?;
    store::MIGRATIONS.run(&pool).await?;
    store::schema::limit_role(&pool, config.app_role.as_deref()).await?;
    if let Some(role) = &config.app_role {
        store::schema::let_work(&pool, role).await?;
    }
    store::schema::ensure_event_partitions(&pool).await?;
    Ok(())
}

/// Creates a tenant, its founding ADMIN (same UUID) and its session `default`; prints their ids.
///
/// # Errors
/// What is wrong with the password, the e-mail address or the database.
pub async fn create_tenant(config: TenantCreate) -> Done {
    let password = read_password(&config.password_file)?;
    auth::acceptable_password(&password)?;
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

/// Marks a tenant as being deleted; prints what is left of it. A worker does the rest.
///
/// # Errors
/// What the database says; that there is no such tenant, or none (any more) of that name.
pub async fn delete_tenant(config: TenantDelete) -> Done {
    let pool = store::connect(config.database_url.expose_secret(), 1).await.map_err(|why| format!("DATABASE_URL: {why}"))?;
    let left = store::tenants::deletion::mark(&pool, config.tenant, &config.name).await?;
    let sessions = left.ok_or("--tenant, --name: there is no tenant with this id and name; one that was being deleted is gone by now")?;
    print(&json!({"tenant": config.tenant, "state": "deleting", "sessionsLeft": sessions}).to_string())
}

/// Makes a link to a new password; prints it. Nobody's password is changed until it is used.
///
/// # Errors
/// What the database says; that nobody logs in with the address.
pub async fn reset_password(config: PasswordReset) -> Done {
    let pool = store::connect(config.database_url.expose_secret(), 1).await.map_err(|why| format!("DATABASE_URL: {why}"))?;
    let nobody = "--email: no active user logs in with this address";
    let user = users::credentials(&pool, &config.email).await?.ok_or(nobody)?;
    let secret = auth::Secret::random(auth::Kind::PasswordReset).ok_or("the system has no randomness")?;
    let link = NewLink { hash: secret.hash(), lifetime: Purpose::PasswordReset.lifetime() };
    let act = Act::new(None, AuditAction::PasswordLinkMade, user.user, json!({"operator": true}));
    let expires_at = links::make(&pool, user.tenant, user.user, Purpose::PasswordReset, &link, &act, None).await?.ok_or(nobody)?;
    let url = auth::link_url(&config.public_url, Purpose::PasswordReset, secret);
    print(&json!({"url": url, "expiresAt": Timestamp(expires_at)}).to_string())
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

/// Prints `docs/authorization.md`.
///
/// # Errors
/// Where standard output is closed.
pub fn authorization() -> Done {
    print(auth::table(&crate::document()).trim_end())
}

/// Prints `docs/event-types.md`.
///
/// # Errors
/// Where standard output is closed.
pub fn events() -> Done {
    print(crate::catalogue::page::event_types_md().trim_end())
}

/// Prints the AsyncAPI document.
///
/// # Errors
/// Where standard output is closed.
pub fn asyncapi() -> Done {
    print(&serde_json::to_string_pretty(&crate::catalogue::asyncapi::document())?)
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
