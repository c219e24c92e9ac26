-- Sessions: deletion, one takeover at a time, and the page on which a customer links a phone without an account.

-- Set: deleted for its tenant (404 everywhere); what is left of it is being removed. Its name is free at once.
alter table session add column deleting_at timestamptz;
alter table session drop constraint session_tenant_name_key;
create unique index session_tenant_name_key on session (tenant, name) where deleting_at is null;
create index session_deleting_idx on session (deleting_at) where deleting_at is not null;

-- When the account was last taken back from another browser: never twice within ten minutes by itself.
alter table session add column takeover_at timestamptz;

-- Every state but those that are as they should be says why.
alter table session alter column reason set default 'never_started';
update session set reason = 'never_started' where state = 'stopped' and reason is null;

-- One URL, one session, ten minutes. The token is in nobody's hands but the URL's: only its hash is kept.
create table link_page (
    token_hash bytea primary key,
    tenant uuid not null references tenant,
    session uuid not null references session,
    created_by uuid not null,
    -- Whether the customer may ask for a pairing code, and how many were asked for.
    with_code boolean not null,
    -- Whether another account than the known one may be linked: said again when the customer tries again.
    allow_new_account boolean not null,
    codes smallint not null default 0,
    expires_at timestamptz not null,
    -- The account was linked: from here on the page shows progress and no code.
    used_at timestamptz,
    created_at timestamptz not null default clock_timestamp()
);
create index link_page_session_idx on link_page (session);
create index link_page_expiry_idx on link_page (expires_at);
