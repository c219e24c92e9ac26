-- The worker: its tasks, and what they remove.

-- One row a background task. Redis hands tasks out; this row decides whether one runs.
create table background_task (
    name text primary key,
    -- When it may be released (again): the next interval, or, while it waits or runs, the end of the claim on it.
    due_at timestamptz not null default clock_timestamp(),
    -- The last release, and the last release that somebody began to run. Numbers are never reused.
    released bigint not null default 0,
    begun bigint not null default 0,
    began_at timestamptz,
    finished_at timestamptz,
    -- Why the last run did not finish; null where it did.
    error text
);

-- What a tenant keeps for a shorter time than the installation. Days; null: as the installation.
create table retention (
    tenant uuid primary key references tenant,
    event_days integer check (event_days between 1 and 36500),
    message_days integer check (message_days between 1 and 36500),
    audit_days integer check (audit_days between 1 and 36500)
);

create index message_age_idx on message (tenant, sent_at);
create index message_job_idx on message (job) where job is not null;
create index job_finished_idx on job (finished_at) where finished_at is not null;
create index job_resend_idx on job (resend_of) where resend_of is not null;
create index audit_age_idx on audit (tenant, at);
create index refresh_token_expiry_idx on refresh_token (expires_at);
create index idempotency_age_idx on idempotency (created_at);

-- Creates the partitions from today to `ahead` days on, and those of days that the default partition had to take. Days are those of UTC, as in
-- `event.day`. Safe to call by several at once. Attached rather than created as partitions: a plain table can be filled first.
create or replace function ensure_event_partitions(ahead integer) returns void language plpgsql set lock_timeout = '1s' as $$
declare
    today date := (clock_timestamp() at time zone 'UTC')::date;
    d date;
    part text;
begin
    perform pg_advisory_xact_lock(hashtext('zaguan.event_partitions'));
    for d in select day from event_default union select today + n from generate_series(0, ahead) n order by 1 loop
        part := 'event_' || to_char(d, 'YYYYMMDD');
        if to_regclass(part) is null then
            execute format('create table %I (like event including defaults including constraints including indexes)', part);
            if exists (select 1 from event_default where day = d) then
                -- Readers of the log wait for this transaction: they see a row in the one or in the other.
                lock table event in access exclusive mode;
                execute format('with moved as (delete from event_default where day = %L returning *) insert into %I select * from moved', d, part);
            end if;
            execute format('alter table event attach partition %I for values from (%L) to (%L)', part, d, d + 1);
        end if;
    end loop;
end
$$;

-- Drops the oldest partition whose events are all older than `keep` days, and moves the tenants' floors above it in the same transaction.
-- Answers the day; null: there is none. The floors are read before the lock: nothing is written into a day that is long over.
create function drop_event_partition(keep integer) returns date language plpgsql set lock_timeout = '1s' as $$
declare
    oldest date;
    part text;
    tenants uuid[];
    floors bigint[];
begin
    select min(to_date(substr(c.relname, 7), 'YYYYMMDD')) into oldest
      from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'event'::regclass and c.relname ~ '^event_[0-9]{8}$';
    if oldest is null or oldest >= (clock_timestamp() at time zone 'UTC')::date - keep then
        return null;
    end if;
    part := 'event_' || to_char(oldest, 'YYYYMMDD');
    execute format('select array_agg(tenant), array_agg(top) from (select tenant, max(seq) + 1 as top from %I group by tenant) t', part)
       into tenants, floors;
    -- Before the counters: statements that write events lock the table first and their counter last.
    lock table event in access exclusive mode;
    update tenant_counter c set floor_seq = greatest(c.floor_seq, n.floor) from unnest(tenants, floors) as n (tenant, floor) where c.tenant = n.tenant;
    execute format('drop table %I', part);
    return oldest;
end
$$;
