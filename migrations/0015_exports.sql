-- Exported chats. The object is written first, then its row: what has no row is not there, and is swept.

create table export (
    id uuid primary key,
    tenant uuid not null references tenant,
    session uuid not null references session,
    -- As it was asked for; merges are followed when it is read.
    chat uuid not null references chat,
    -- Messages from before are not in it; null: all are. Who may not see so far back does not see the export.
    since timestamptz,
    -- One export a job, however often that is begun. No reference: jobs are forgotten before long.
    job uuid not null,
    created_by uuid not null,
    object text not null,
    -- The object's own key, sealed by the master key: once the row is gone nobody can read the object, wherever copies of it are.
    key bytea not null,
    -- Of the file as it is downloaded.
    size bigint not null,
    sha256 bytea not null,
    messages bigint not null,
    -- What was recorded later is not in it.
    snapshot_at timestamptz not null,
    created_at timestamptz not null default clock_timestamp(),
    expires_at timestamptz not null,
    constraint export_job_key unique (job),
    constraint export_object_key unique (object)
);
create index export_list_idx on export (tenant, id desc);
create index export_chat_idx on export (chat);
create index export_session_idx on export (session);
create index export_expiry_idx on export (expires_at);

insert into usage_limit (name, value) values ('exports', 50);
