-- Webhooks: who is told, how far each has come, and what became of each delivery.

create table webhook (
    id uuid primary key,
    tenant uuid not null references tenant,
    -- The user or key that made it. It belongs to the tenant and outlives them.
    created_by uuid not null,
    name text not null,
    url text not null,
    state text not null default 'active' check (state in ('active', 'paused', 'disabled')),
    -- Why it is not active: asked for, failing for too long, or the receiver said that it is gone.
    reason text check (reason in ('requested', 'failing', 'gone')),
    state_at timestamptz not null default clock_timestamp(),
    -- What it is told. No types: all that are in the log.
    types text[] not null default '{}',
    sessions uuid[],
    chats uuid[],
    ignore_groups boolean not null default false,
    ignore_status boolean not null default false,
    ignore_own boolean not null default false,
    -- One at a time, or one at a time in each chat and `concurrency` chats at once.
    ordered_by text not null default 'endpoint' check (ordered_by in ('endpoint', 'chat')),
    concurrency smallint not null default 1 check (concurrency between 1 and 32),
    -- Sealed with the installation's key. While the previous one lives, both sign.
    secret bytea not null,
    previous_secret bytea,
    previous_until timestamptz,
    -- Sealed: a JSON object of headers of the tenant's own. Their names are no secret.
    headers bytea,
    header_names text[] not null default '{}',
    -- Everything up to here is settled or waits in `webhook_delivery`.
    cursor_seq bigint not null,
    -- Up to here it has been sent before: a replay turns the cursor back and remembers where it stood.
    replay_until bigint not null default 0,
    failing_since timestamptz,
    last_success_at timestamptz,
    last_failure_at timestamptz,
    last_failure text,
    -- The worker that tells it, by lease. The epoch grows with each acquisition; a stale owner settles nothing.
    epoch bigint not null default 0,
    owner uuid,
    held_until timestamptz,
    created_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);
create index webhook_tenant_idx on webhook (tenant, id);
create index webhook_free_idx on webhook (held_until nulls first) where state = 'active';

create trigger webhook_quota before insert on webhook for each row execute function keep_quota('webhooks', 'true');

create table webhook_delivery (
    id uuid primary key,
    tenant uuid not null references tenant,
    webhook uuid not null references webhook on delete cascade,
    -- `webhook-id`: the same for every attempt, replay and redelivery of an event.
    event uuid not null,
    -- Null: a test call, which is in no log and brings its own body.
    seq bigint,
    type text not null,
    chat uuid,
    kind text not null check (kind in ('live', 'replay', 'redelivery', 'test')),
    state text not null check (state in ('waiting', 'delivered', 'dead')),
    attempt integer not null default 0,
    next_at timestamptz,
    -- Of the last attempt: HTTP's status, or none and why; how long it took; the first 256 bytes of the answer.
    status smallint,
    error text,
    duration_ms integer,
    answer text,
    body jsonb,
    created_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz
);
create index webhook_delivery_list_idx on webhook_delivery (webhook, id desc);
create index webhook_delivery_waiting_idx on webhook_delivery (webhook, next_at) where state = 'waiting';
create index webhook_delivery_age_idx on webhook_delivery (finished_at) where finished_at is not null;
