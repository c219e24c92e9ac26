//! The end of a tenant: its devices are unlinked first, and nobody else's rows are read for it.

use std::time::Duration;

use contract::{Command, JobId, TenantId};
use store::{
    accept::NewJob,
    deletion::{self, Deleted},
    leases,
    tenants::deletion as end,
};
use uuid::Uuid;

use crate::support::Store;

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_waits_while_its_tenant_is_suspended_and_is_done_while_it_is_being_deleted() {
    let store = Store::start().await;
    let logout = NewJob {
        id: JobId::new(),
        tenant: store.tenant,
        session: store.session,
        command: Command::Logout,
        chat: None,
        message: None,
        resend_of: None,
        reference: None,
        created_by: store.tenant.uuid(),
        expires_in: Duration::from_secs(60),
        queue_when_down: false,
    };
    store::accept::accept(&store.pool, &logout, None).await.unwrap();
    store.sql("update session set wanted = 'stopped'").await;
    for (state, wanted) in [("active", true), ("suspended", false), ("deleting", true)] {
        store.sql(&format!("update tenant set state = '{state}'")).await;
        assert_eq!(leases::still_held(&store.pool, &[store.held]).await.unwrap()[0].wanted, wanted, "running, {state}");
        assert_eq!(store::owned::load(&store.pool, &store.held).await.unwrap().unwrap().logout, wanted, "{state}");
    }
    store.sql("update session set state = 'stopped', owner = null, host = null").await;
    for (state, claimed) in [("active", 1), ("suspended", 0), ("deleting", 1)] {
        store.sql(&format!("update tenant set state = '{state}'")).await;
        assert_eq!(leases::claimable(&store.pool, &[], &[], i32::MAX).await.unwrap().len(), claimed, "stopped, {state}");
    }
    store.sql("update tenant set state = 'active'").await;
    assert!(matches!(deletion::mark(&store.pool, store.tenant, store.session).await.unwrap(), Deleted::IsDefault));
    store.sql("update tenant set state = 'deleting'").await;
    assert!(matches!(deletion::mark(&store.pool, store.tenant, store.session).await.unwrap(), Deleted::Done(_)));
}

/// What a tenant has that there may be much of.
async fn much_of(store: &Store, tenant: Uuid, session: Uuid, n: u32) {
    let hook = Uuid::now_v7();
    for statement in [
        format!("insert into webhook (id, tenant, created_by, name, url, secret, cursor_seq) values ('{hook}', '{tenant}', '{tenant}', 'x', 'https://x.example', '', 0)"),
        format!("insert into webhook_delivery (id, tenant, webhook, event, seq, type, kind, state) select gen_random_uuid(), '{tenant}', '{hook}', gen_random_uuid(), n, 'message', 'live', 'waiting' from generate_series(1, {n}) n"),
        format!("insert into refresh_token (hash, family, tenant, app_user, expires_at) select decode(md5('{tenant}' || n), 'hex'), gen_random_uuid(), '{tenant}', '{tenant}', now() from generate_series(1, {n}) n"),
        format!("with c as (insert into chat (id, tenant, session, account, kind, wa_id) select gen_random_uuid(), '{tenant}', '{session}', 'x', 'private', n::text from generate_series(1, {n}) n returning id),
                      m as (insert into chat_member (chat, wa_id, tenant) select id, '1@lid', '{tenant}' from c)
                 insert into access_grant (id, tenant, app_user, session, chat, access, created_by) select gen_random_uuid(), '{tenant}', '{tenant}', '{session}', id, 'read', '{tenant}' from c"),
        format!("insert into contact (session, account, wa_id, tenant) select '{session}', 'x', n::text, '{tenant}' from generate_series(1, {n}) n"),
        format!("insert into message (id, tenant, session, account, chat, from_me, sender, wa_id, kind, status, source, sent_at)
                 select gen_random_uuid(), '{tenant}', '{session}', 'x', id, false, 'x', '3A', 'text', 'received', 'phone', now() from chat where session = '{session}'"),
        format!("insert into event (tenant, seq, day, id, type, at, data) select '{tenant}', n, current_date, gen_random_uuid(), 'message', now(), '{{}}' from generate_series(1, {n}) n"),
    ] {
        store.sql(&statement).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_tenant_reads_no_large_table_of_others_whole() {
    const OTHERS: u32 = 20_000;
    let store = Store::start().await;
    let (other, theirs) = (TenantId::new().uuid(), Uuid::now_v7());
    for statement in [
        format!("insert into tenant (id, name) values ('{other}', 'b')"),
        format!("insert into app_user (id, tenant, email, name, rol) values ('{other}', '{other}', 'b@b.example', 'b', 'ADMIN')"),
        format!("insert into session (id, tenant, name, is_default) values ('{theirs}', '{other}', 'default', true)"),
    ] {
        store.sql(&statement).await;
    }
    much_of(&store, store.tenant.uuid(), store.session.uuid(), 50).await;
    much_of(&store, other, theirs, OTHERS).await;
    store.sql("analyze").await;
    store.sql(&format!("update tenant set state = 'deleting' where id = '{}'", store.tenant.uuid())).await;
    store
        .sql("update session set deleting_at = now(), state = 'stopped', owner = null where name = 'default' and account is not null")
        .await;

    // One connection, because each keeps its own count until it is told to say it.
    let alone = store.alone().await;
    let read = async || {
        sqlx::query("select pg_stat_force_next_flush()").execute(&alone).await.unwrap();
        let sql = "select relname::text, seq_tup_read from pg_stat_user_tables where relname <> all('{spent_ticket,session}') order by 1";
        sqlx::query_as::<_, (String, i64)>(sql).fetch_all(&alone).await.unwrap()
    };
    let before = read().await;
    while !deletion::remove(&alone, store.tenant, store.session).await.unwrap() {}
    while !end::rows(&alone, store.tenant, 1000).await.unwrap() {}
    assert!(end::end(&alone, store.tenant).await.unwrap());
    let after = read().await;
    let whole: Vec<_> = before.iter().zip(&after).filter(|(b, a)| a.1 - b.1 >= i64::from(OTHERS)).map(|(b, a)| (&a.0, a.1 - b.1)).collect();
    assert_eq!(whole, [], "tables that were read whole");
    assert_eq!(store.count("select count(*) from chat_member").await, i64::from(OTHERS));
}
