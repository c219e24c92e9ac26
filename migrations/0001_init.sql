-- The tables of the whole plan: later features fill them, none has to rebuild them.
-- Lock order of every statement that touches them: session, lane_position, tenant_counter (always last, held until commit).

create table tenant (
    id uuid primary key,
    name text not null,
    state text not null default 'active' check (state in ('active', 'suspended', 'deleting')),
    created_at timestamptz not null default clock_timestamp()
);

-- One row a tenant: the last `seq` it issued. Whoever has committed n can read everything below n, because this row is
-- locked last and until commit. `floor_seq`: the smallest seq still kept.
create table tenant_counter (
    tenant uuid primary key references tenant,
    seq bigint not null default 0,
    floor_seq bigint not null default 1
) with (fillfactor = 50);

create table app_user (
    id uuid primary key,
    tenant uuid not null references tenant,
    email text not null,
    name text not null,
    rol text not null check (rol in ('ADMIN', 'EMPLEADO')),
    state text not null default 'active' check (state in ('invited', 'active', 'disabled')),
    password_hash text,
    can_start_chats boolean not null default false,
    -- Tokens issued before this moment are void (password or role change, disabling).
    tokens_valid_from timestamptz not null default clock_timestamp(),
    created_at timestamptz not null default clock_timestamp()
);
create unique index app_user_email_key on app_user (lower(email));
create index app_user_tenant_idx on app_user (tenant);

-- Rotating refresh tokens. Only hashes are stored. A family is one login; replaying an old member ends the family.
create table refresh_token (
    hash bytea primary key,
    family uuid not null,
    tenant uuid not null references tenant,
    app_user uuid not null references app_user,
    successor bytea,
    issued_at timestamptz not null default clock_timestamp(),
    rotated_at timestamptz,
    expires_at timestamptz not null,
    revoked_at timestamptz
);
create index refresh_token_family_idx on refresh_token (family);

create table api_key (
    id uuid primary key,
    tenant uuid not null references tenant,
    created_by uuid not null references app_user,
    name text not null,
    secret_hash bytea not null,
    scopes text[] not null,
    sessions uuid[],
    cidrs cidr[],
    expires_at timestamptz,
    revoked_at timestamptz,
    last_used_at timestamptz,
    created_at timestamptz not null default clock_timestamp()
);
create index api_key_tenant_idx on api_key (tenant);

create table session (
    id uuid primary key,
    tenant uuid not null references tenant,
    name text not null check (name ~ '^[a-z0-9-]{1,40}$'),
    is_default boolean not null default false,
    -- What the tenant asked for; what is, and why. Written by the api (wanted) and, under `held`, by the owner (the rest).
    wanted text not null default 'stopped' check (wanted in ('stopped', 'running')),
    state text not null default 'stopped' check (state in ('stopped', 'starting', 'linking', 'syncing', 'working', 'reconnecting', 'conflict', 'logged_out', 'banned', 'failed')),
    reason text,
    state_at timestamptz not null default clock_timestamp(),
    allow_new_account boolean not null default false,
    -- Ownership: the epoch only grows; `owner` is a fresh id of each acquisition; `held_until` extends a lease while Redis is away.
    epoch bigint not null default 0,
    owner uuid,
    host uuid,
    held_until timestamptz,
    -- The linked account: phone digits, and the account expected before the first link.
    account text,
    account_lid text,
    account_name text,
    expected_account text,
    linked_at timestamptz,
    -- The profile directory that may be used, and the highest page row below which everything is recorded.
    profile uuid,
    profile_row_id bigint not null default 0,
    settings jsonb not null default '{}',
    created_at timestamptz not null default clock_timestamp(),
    constraint session_tenant_name_key unique (tenant, name)
) with (fillfactor = 50);
create unique index session_default_key on session (tenant) where is_default;
create index session_wanted_idx on session (wanted) where wanted = 'running';

create table profile_snapshot (
    session uuid not null references session,
    epoch bigint not null,
    n integer not null,
    tenant uuid not null references tenant,
    profile uuid not null,
    object text not null,
    digest bytea not null,
    key_id text not null,
    browser_major integer not null,
    max_row_id bigint not null,
    taken_at timestamptz not null default clock_timestamp(),
    primary key (session, epoch, n)
);

-- The position counter of a session. Its row lock makes position order commit order; a sequence would not.
create table lane_position (
    session uuid primary key references session,
    tenant uuid not null references tenant,
    n bigint not null default 0
) with (fillfactor = 50);

-- `account`: the linked account the chat belongs to; '' before the first link.
create table chat (
    id uuid primary key,
    tenant uuid not null references tenant,
    session uuid not null references session,
    account text not null,
    kind text not null check (kind in ('private', 'group', 'channel', 'broadcast')),
    wa_id text not null,
    lid text,
    phone text,
    name text,
    unread integer not null default 0,
    archived boolean not null default false,
    -- A chat without a message is not listed.
    last_message_at timestamptz,
    merged_into uuid references chat,
    created_at timestamptz not null default clock_timestamp()
);
create index chat_list_idx on chat (session, last_message_at desc nulls last, id) where last_message_at is not null;

-- Whoever meets a name of a chat first inserts it, in a statement of its own; later ones find it.
create table chat_alias (
    session uuid not null references session,
    account text not null,
    alias text not null,
    chat uuid not null references chat,
    primary key (session, account, alias)
);
create index chat_alias_chat_idx on chat_alias (chat);

create table contact (
    session uuid not null references session,
    account text not null,
    wa_id text not null,
    tenant uuid not null references tenant,
    lid text,
    phone text,
    name text,
    push_name text,
    updated_at timestamptz not null default clock_timestamp(),
    primary key (session, account, wa_id)
);

-- What a user or a key may touch besides its role. Exactly one of chat, label, all_chats.
create table access_grant (
    id uuid primary key,
    tenant uuid not null references tenant,
    app_user uuid references app_user,
    api_key uuid references api_key,
    session uuid not null references session,
    chat uuid references chat,
    label text,
    all_chats boolean not null default false,
    access text not null check (access in ('read', 'write')),
    from_at timestamptz,
    expires_at timestamptz,
    created_by uuid not null references app_user,
    created_at timestamptz not null default clock_timestamp(),
    constraint access_grant_one_holder check ((app_user is null) <> (api_key is null)),
    constraint access_grant_one_target check ((chat is not null)::int + (label is not null)::int + all_chats::int = 1)
);
create index access_grant_user_idx on access_grant (tenant, app_user, session, chat);
create index access_grant_key_idx on access_grant (tenant, api_key, session, chat);

create table job (
    id uuid primary key,
    tenant uuid not null references tenant,
    session uuid not null references session,
    lane text not null check (lane in ('write', 'query', 'control')),
    -- Null until a scheduled job or batch item enters its lane.
    position bigint,
    kind text not null,
    command_version smallint not null,
    command jsonb not null,
    state text not null default 'queued' check (state in ('queued', 'running', 'succeeded', 'failed', 'cancelled', 'expired', 'unknown')),
    chat uuid references chat,
    message uuid,
    reference text,
    created_by uuid not null,
    resend_of uuid references job,
    send_at timestamptz,
    queue_when_down boolean not null default false,
    attempt integer not null default 0,
    -- The ownership under which it was last started, and the full WhatsApp key it was given then.
    epoch bigint,
    wa_key text,
    result jsonb,
    evidence jsonb,
    error jsonb,
    created_at timestamptz not null default clock_timestamp(),
    started_at timestamptz,
    finished_at timestamptz,
    expires_at timestamptz not null,
    constraint job_position_key unique (session, position)
);
create index job_unfinished_idx on job (session, lane, position) where state in ('queued', 'running');
create index job_expiry_idx on job (expires_at) where state = 'queued';
create index job_list_idx on job (tenant, id desc);
create index job_wa_key_idx on job (session, message) where message is not null;

-- First answer wins: the row is inserted before the job, in the same statement.
create table idempotency (
    tenant uuid not null references tenant,
    principal uuid not null,
    method text not null,
    path text not null,
    key text not null,
    body_hash bytea not null,
    job uuid not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (tenant, principal, method, path, key)
);
create index idempotency_job_idx on idempotency (job);

-- `wa_id` is the id part of WhatsApp's key (`3EB0…`); with direction, canonical chat and canonical sender it names a message.
create table message (
    id uuid primary key,
    tenant uuid not null references tenant,
    session uuid not null references session,
    account text not null,
    chat uuid not null references chat,
    from_me boolean not null,
    sender text not null,
    wa_id text not null,
    kind text not null,
    body text,
    status text not null check (status in ('queued', 'sending', 'sent', 'delivered', 'read', 'played', 'failed', 'unknown', 'received', 'revoked')),
    ack smallint,
    source text not null check (source in ('api', 'phone', 'device')),
    sent_by uuid,
    reference text,
    reply_to text,
    job uuid references job,
    -- WhatsApp's time, whole seconds; our own until it was sent, cut to seconds too, so that the ids order what a second holds.
    sent_at timestamptz not null,
    row_id bigint,
    -- The event that announced it; null = not announced (yet).
    announced_seq bigint,
    recovered boolean not null default false,
    created_at timestamptz not null default clock_timestamp(),
    constraint message_wa_key unique (session, from_me, chat, sender, wa_id)
);
create index message_list_idx on message (chat, sent_at desc, id desc);
create index message_wa_id_idx on message (session, wa_id);

-- The log: what every transport serves. `data` is the body; the envelope is built from the columns, so it is the same everywhere.
create table event (
    tenant uuid not null,
    seq bigint not null,
    day date not null,
    id uuid not null,
    type text not null,
    at timestamptz not null,
    session uuid,
    chat uuid,
    data jsonb not null,
    primary key (tenant, seq, day)
) partition by range (day);
create table event_default partition of event default;

-- Creates the partitions from today to `ahead` days on; safe to call by several at once.
create function ensure_event_partitions(ahead integer) returns void language plpgsql as $$
declare
    d date;
begin
    perform pg_advisory_xact_lock(hashtext('zaguan.event_partitions'));
    for d in select generate_series(current_date, current_date + ahead, interval '1 day')::date loop
        execute format('create table if not exists %I partition of event for values from (%L) to (%L)', 'event_' || to_char(d, 'YYYYMMDD'), d, d + 1);
    end loop;
end
$$;
select ensure_event_partitions(7);

create table audit (
    tenant uuid not null references tenant,
    id uuid primary key,
    at timestamptz not null default clock_timestamp(),
    actor uuid,
    action text not null,
    target text,
    detail jsonb not null default '{}'
);
create index audit_tenant_idx on audit (tenant, id desc);
