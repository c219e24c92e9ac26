-- Snapshots of profiles in the object store, and the keys that seal them.

-- One a tenant, sealed under the master key. It seals the key of each snapshot of the tenant, so a new master key costs one row a tenant.
create table data_key (
    id uuid primary key,
    tenant uuid not null constraint data_key_tenant_key unique references tenant,
    sealed bytea not null,
    created_at timestamptz not null default clock_timestamp()
);

-- Objects that may lie in the store although no row names them: written before an upload begins, taken away by the row that names the object,
-- written again when that row goes. Without a foreign key: it outlives what it belonged to.
create table object_leftover (
    object text primary key,
    tenant uuid not null,
    made_at timestamptz not null default clock_timestamp(),
    due_at timestamptz not null,
    -- What session.profile_starts was when the upload began; null where a row named the object.
    starts bigint
);
create index object_leftover_due_idx on object_leftover (due_at);

-- Nothing has written to it yet.
alter table profile_snapshot
    drop column key_id,
    -- The key of this object, sealed under the tenant's data key.
    add column data_key uuid not null references data_key,
    add column object_key bytea not null,
    add column size bigint not null,
    -- Whose link it is, and the marker that its storage holds.
    add column account text not null,
    add column marker text not null,
    -- When a browser first worked in what it holds. Older ones go only after that.
    add column opened_at timestamptz,
    -- Why it is not used (any more).
    add column refused text check (refused in ('missing', 'corrupt', 'sealed', 'erased'));
create index profile_snapshot_data_key_idx on profile_snapshot (data_key);

alter table session
    -- The marker in the storage of the directory that may be used; null while it was never closed cleanly in our sight.
    add column profile_marker text,
    -- The newest browser that was started in it: an older one does not open it.
    add column profile_major integer not null default 0,
    -- Whether a browser was started in it since its newest snapshot.
    add column profile_changed boolean not null default true,
    -- How many browsers were started in its directories: a snapshot of what was before the newest one comes too late to count.
    add column profile_starts bigint not null default 0,
    -- Where a gap that is owed begins, if it is known better than by the session's states.
    add column gap_from timestamptz;
