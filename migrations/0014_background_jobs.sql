-- Jobs that a worker does, and what they need: erasures of a person, exports.

-- `background`: no position in the session's order and no entry in Redis.
alter table job drop constraint job_lane_check;
alter table job add constraint job_lane_check check (lane in ('write', 'query', 'control', 'background'));
alter table job
    -- {done, total}, as callers see it.
    add column progress jsonb,
    -- What the worker that goes on with it has to know: where the one before stood.
    add column memory jsonb,
    -- Who does it, or to whom it was handed out: a fresh id each time, so that one whose claim lapsed writes nothing any more.
    add column claim uuid,
    add column claimed_until timestamptz;
create index job_background_idx on job (tenant, id) where lane = 'background' and state in ('queued', 'running');

-- Erasure. A person who was erased is known by hashes of its names only: what the phone still tells of the time before is told from what is
-- new by them. Salted, so that one installation's hashes say nothing in another; who reads this database can still try all numbers.
alter table tenant add column erasure_salt bytea not null default uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid());

create table erasure (
    tenant uuid not null references tenant,
    -- Null: in all sessions, those to come included.
    session uuid references session on delete cascade,
    name text not null,
    -- The names of one person share it.
    job uuid not null,
    -- What was sent up to here is not written down again.
    until timestamptz not null,
    -- Nothing newer has come: the person's names are not written down either.
    hides boolean not null default true,
    constraint erasure_key unique nulls not distinct (tenant, session, name)
);
create index erasure_job_idx on erasure (job);
create index erasure_session_idx on erasure (session) where session is not null;

-- A name as it is kept of a person who was erased; one that is that already stays as it is.
create function erased_name(of_tenant uuid, name text) returns text language sql stable as $$
    select case when $2 like 'erased:%' then $2 else 'erased:' || encode(sha256(erasure_salt || convert_to($2, 'UTF8')), 'hex') end
      from tenant where id = $1
$$;

-- One person's names as they may be written down: null, as they are; else because the person was erased and has not been heard of since, as
-- hashes. Volatile, as `messages_of` is: the caller's statement may have waited for the erasure.
create function veiled(of_tenant uuid, of_session uuid, names text[]) returns text[] language sql volatile as $$
    select array(select erased_name($1, n.name) from unnest($3) with ordinality n (name, o) where n.name is not null order by n.o)
     where exists (select 1 from erasure where tenant = $1 and hides)
       and exists (
           select 1 from erasure e join unnest($3) n (name) on e.name = erased_name($1, n.name)
            where e.tenant = $1 and e.hides and (e.session is null or e.session = $2))
$$;

-- Up to when what this person sent has been erased; null: nothing has.
create function erased_until(of_tenant uuid, of_session uuid, names text[]) returns timestamptz language sql volatile as $$
    select max(e.until) from erasure e
     where e.tenant = $1 and (e.session is null or e.session = $2) and exists (select 1 from erasure where tenant = $1)
       and e.name in (select erased_name($1, n.name) from unnest($3) n (name) where n.name is not null)
$$;

-- What an installation keeps at most, for those who ask; its worker writes down what it was told. And how long a tenant keeps deliveries.
create table retention_limit (
    only_one boolean primary key default true check (only_one),
    event_days integer not null default 30,
    message_days integer not null default 180,
    delivery_days integer not null default 7,
    audit_days integer not null default 400
);
insert into retention_limit default values;
alter table retention add column delivery_days integer check (delivery_days between 1 and 36500);
