-- Stream tickets that have been used. A row goes once its ticket's time is over.
create table spent_ticket (
    id uuid primary key,
    tenant uuid not null references tenant,
    expires_at timestamptz not null
);
create index spent_ticket_expiry_idx on spent_ticket (expires_at);

-- What a tenant may use. A row without a tenant is the installation's default, which its operator may change; one with a tenant overrides it.
create table usage_limit (
    tenant uuid references tenant,
    name text not null,
    value bigint not null check (value >= 0),
    constraint usage_limit_key unique nulls not distinct (tenant, name)
);
insert into usage_limit (name, value) values
    ('sessions', 20),
    ('users', 100),
    ('apiKeys', 50),
    ('webhooks', 10),
    ('queuedJobsPerSession', 10000),
    ('sendsPerMinute', 1200),
    ('sendsPerDay', 50000),
    ('streamsPerPrincipal', 20),
    ('streams', 200),
    ('waitingRequests', 50),
    ('mediaBytes', 10737418240),
    ('checksPerDay', 1000),
    ('pairingCodesPerHour', 3),
    ('newChatsPerDayAtFirst', 20),
    ('newChatsPerDay', 200);

create function limit_of(of_tenant uuid, of_name text) returns bigint language sql stable as $$
    select value from usage_limit where name = of_name and (tenant = of_tenant or tenant is null) order by tenant nulls last limit 1
$$;

-- New chats that the session has written to on a day (UTC). The row lock that orders positions makes the count exact, and the constraint
-- refuses a statement as a whole: neither job nor idempotency key stays behind.
alter table lane_position
    add column new_chats integer not null default 0,
    add column new_chats_on date,
    add column new_chats_cap integer,
    add constraint lane_position_new_chat_cap check (new_chats <= new_chats_cap);

-- As many rows as the tenant may have. Whoever inserts waits for the one before, so that two at once do not both take the last place.
create function keep_quota() returns trigger language plpgsql as $$
declare
    have bigint;
begin
    perform pg_advisory_xact_lock(hashtext('zaguan.quota.' || tg_argv[0]), hashtext(new.tenant::text));
    execute format('select count(*) from %I where tenant = $1 and (%s)', tg_table_name, tg_argv[1]) into have using new.tenant;
    if have >= limit_of(new.tenant, tg_argv[0]) then
        raise exception 'the tenant has as many % as it may have', tg_argv[0] using errcode = 'check_violation', constraint = tg_argv[0] || '_quota';
    end if;
    return new;
end
$$;
create trigger session_quota before insert on session for each row execute function keep_quota('sessions', 'true');
create trigger app_user_quota before insert on app_user for each row execute function keep_quota('users', 'state <> ''disabled''');
create trigger api_key_quota before insert on api_key for each row execute function keep_quota('apiKeys', 'revoked_at is null');
