//! Chats by their WhatsApp names. Whoever meets a name first inserts it, in a statement of its own: no lock is held across it.

use contract::{ChatId, Jid, SessionId, TenantId};
use sqlx::PgPool;

use crate::Result;

/// Finds the chat that any of `names` is known to name, or makes it, and adds the names that were not known. `names` starts with the one the
/// page or caller used; `account` is the session's linked account, empty before the first link.
///
/// # Errors
/// [`crate::StoreError`].
pub async fn resolve(
    pool: &PgPool,
    tenant: TenantId,
    session: SessionId,
    account: &str,
    names: &[Jid],
    title: Option<&str>,
) -> Result<ChatId> {
    let Some(first) = names.first() else { return Err(sqlx::Error::RowNotFound.into()) };
    let aliases: Vec<String> = names.iter().map(ToString::to_string).collect();
    // Two rounds: a name that another process inserted at the same moment makes ours insert nothing, and is found in the second.
    for _ in 0..2 {
        if let Some(chat) = known(pool, tenant, session, account, &aliases).await? {
            return Ok(chat);
        }
        let lid = names.iter().find(|j| j.server() == contract::Server::Lid).map(ToString::to_string);
        let phone = names.iter().find_map(|j| j.phone());
        sqlx::query!(
            r#"with a as (
                   insert into chat_alias (session, account, alias, chat)
                   select s.id, $3, x.alias, $4 from session s, unnest($5::text[]) as x (alias) where s.id = $2 and s.tenant = $1
                   on conflict do nothing returning chat)
               insert into chat (id, tenant, session, account, kind, wa_id, lid, phone, name)
               select $4, $1, $2, $3, $6, $7, $8, $9, $10 where exists (select 1 from a)"#,
            tenant.uuid(),
            session.uuid(),
            account,
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
    known(pool, tenant, session, account, &aliases).await?.ok_or_else(|| sqlx::Error::RowNotFound.into())
}

/// The oldest chat among those the names are known for (older id survives); names not known yet are added to it.
async fn known(pool: &PgPool, tenant: TenantId, session: SessionId, account: &str, aliases: &[String]) -> Result<Option<ChatId>> {
    let rows = sqlx::query!(
        "select a.alias, a.chat from chat_alias a join chat c on c.id = a.chat and c.tenant = $1
          where a.session = $2 and a.account = $3 and a.alias = any($4) order by a.chat",
        tenant.uuid(),
        session.uuid(),
        account,
        aliases
    )
    .fetch_all(pool)
    .await?;
    let Some(chat) = rows.first().map(|r| r.chat) else { return Ok(None) };
    let missing: Vec<String> = aliases.iter().filter(|a| rows.iter().all(|r| r.alias != **a)).cloned().collect();
    if !missing.is_empty() {
        sqlx::query!(
            "insert into chat_alias (session, account, alias, chat) select $1, $2, x, $3 from unnest($4::text[]) as x on conflict do nothing",
            session.uuid(),
            account,
            chat,
            &missing
        )
        .execute(pool)
        .await?;
    }
    Ok(Some(ChatId::from_uuid(chat)))
}
