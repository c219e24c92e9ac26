-- People, grants, keys and the audit log.

-- An e-mail address is unique over the installation from the moment its owner sets a password: an invitation tells nothing of other tenants.
drop index app_user_email_key;
create unique index app_user_email_key on app_user (lower(email)) where password_hash is not null;
create unique index app_user_tenant_email_key on app_user (tenant, lower(email));

-- A login counts while it is of its user's generation; a change of password or role and disabling begin the next one. A number and not a
-- time: a statement that voids and one that renews at the same moment cannot be read in the wrong order.
alter table app_user add column generation integer not null default 0;
alter table app_user drop column tokens_valid_from;
alter table app_user add column reset_requested_at timestamptz;
alter table refresh_token add column generation integer not null default 0;
create index refresh_token_user_idx on refresh_token (app_user) where revoked_at is null;

-- One-time links: an invitation, or a new password. A new one replaces the old; using it deletes it. Only hashes are stored.
create table user_link (
    app_user uuid not null references app_user,
    purpose text not null check (purpose in ('invitation', 'password_reset')),
    tenant uuid not null references tenant,
    hash bytea not null,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    primary key (app_user, purpose),
    constraint user_link_hash_key unique (hash)
);

-- Users and keys never share an id, so one column names whose grant it is.
drop index access_grant_user_idx;
drop index access_grant_key_idx;
alter table access_grant add column holder uuid generated always as (coalesce(app_user, api_key)) stored;
create index access_grant_holder_idx on access_grant (tenant, holder, session, chat);
create index access_grant_session_idx on access_grant (tenant, session, chat);

-- A limited key reaches only what is granted to it; its session list is `sessions`, its chats are rows of access_grant.
alter table api_key add column limited boolean not null default false;

-- The grants that count now: all that decides who sees what reads this. A key's counts as far as its maker's own rights go.
create view live_grant as
    select g.id, g.tenant, g.holder, g.session, g.chat, g.all_chats, g.access = 'write' as writes, g.from_at
      from access_grant g
     where (g.expires_at is null or g.expires_at > clock_timestamp())
       and (g.api_key is null or exists (
            select 1 from api_key k join app_user u on u.id = k.created_by
             where k.id = g.api_key and (u.rol = 'ADMIN' or exists (
                   select 1 from access_grant m
                    where m.tenant = g.tenant and m.app_user = u.id and m.session = g.session and (m.all_chats or m.chat = g.chat)
                      and (m.access = 'write' or g.access = 'read') and (m.from_at is null or m.from_at <= g.from_at)
                      and (m.expires_at is null or m.expires_at > clock_timestamp())))));

-- Append-only: rows are inserted, and removed when their retention is over. The actor is written as callers know it (`usr_…`, `zgk_…`).
alter table audit alter column actor type text;
create index audit_target_idx on audit (tenant, target, id desc);
create function audit_is_append_only() returns trigger language plpgsql as $$
begin
    raise exception 'audit rows are never changed';
end
$$;
create trigger audit_append_only before update on audit for each row execute function audit_is_append_only();
