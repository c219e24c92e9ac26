//! Chats by their WhatsApp names. Whoever meets a name first inserts it, in a statement of its own: no lock is held across it.

use contract::{ChatId, Jid, SessionId, TenantId};
use sqlx::PgPool;

use crate::Result;

/// Finds the chat that any of `names` is known to name, or makes it, and adds the names that were not known. `names` starts with the one the
/// page or caller used. They belong to the account that the session has when the statement runs: what a request read before may be old.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn resolve(pool: &PgPool, tenant: TenantId, session: SessionId, names: &[Jid], title: Option<&str>) -> Result<ChatId> {
    let Some(first) = names.first() else { return Err(sqlx::Error::RowNotFound.into()) };
    let aliases: Vec<String> = names.iter().map(ToString::to_string).collect();
    // Two rounds: a name that another process inserted at the same moment makes ours insert nothing, and is found in the second.
    for _ in 0..2 {
        if let Some(chat) = known(pool, tenant, session, &aliases).await? {
            return Ok(chat);
        }
        let lid = names.iter().find(|j| j.server() == contract::Server::Lid).map(ToString::to_string);
        let phone = names.iter().find_map(|j| j.phone());
        sqlx::query!(
            r#"with a as (
                   insert into chat_alias (session, account, alias, chat)
                   select s.id, coalesce(s.account, ''), x.alias, $3 from session s, unnest($4::text[]) as x (alias) where s.id = $2 and s.tenant = $1
                   on conflict do nothing returning account)
               insert into chat (id, tenant, session, account, kind, wa_id, lid, phone, name)
               select $3, $1, $2, a.account, $5, $6, $7, $8, $9 from a limit 1"#,
            tenant.uuid(),
            session.uuid(),
            ChatId::new().uuid(),
            &aliases,
            first.kind().as_str(),
            first.to_string(),
            lid,
            phone,
            title
        )
        .execute(pool)
        .await?;
    }
    known(pool, tenant, session, &aliases).await?.ok_or_else(|| sqlx::Error::RowNotFound.into())
}

/// The oldest chat among those the names are known for (older id survives); names not known yet are added to it.
async fn known(pool: &PgPool, tenant: TenantId, session: SessionId, aliases: &[String]) -> Result<Option<ChatId>> {
    let rows = sqlx::query!(
        "select a.alias, a.chat from chat_alias a
           join session s on s.id = a.session and s.tenant = $1 and a.account = coalesce(s.account, '')
          where a.session = $2 and a.alias = any($3) order by a.chat",
        tenant.uuid(),
        session.uuid(),
        aliases
    )
    .fetch_all(pool)
    .await?;
    let Some(chat) = rows.first().map(|r| r.chat) else { return Ok(None) };
    let missing: Vec<String> = aliases.iter().filter(|a| rows.iter().all(|r| r.alias != **a)).cloned().collect();
    if !missing.is_empty() {
        sqlx::query!(
            "insert into chat_alias (session, account, alias, chat)
             select s.id, coalesce(s.account, ''), x, $3 from session s, unnest($4::text[]) as x where s.id = $2 and s.tenant = $1 on conflict do nothing",
            tenant.uuid(),
            session.uuid(),
            chat,
            &missing
        )
        .execute(pool)
        .await?;
    }
    Ok(Some(ChatId::from_uuid(chat)))
}
