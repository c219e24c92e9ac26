-- How far a session's next position is ahead of its first unfinished job, and how far it may be. As with new chats: the row lock that orders
-- positions makes the count exact, and the constraint refuses a statement as a whole.
alter table lane_position
    add column depth bigint not null default 0,
    add column depth_cap bigint,
    add constraint lane_position_lane_full check (depth <= depth_cap);

-- The key that opened a link page: the page ends with it. Null: a person did, who is in `created_by` either way.
alter table link_page add column api_key uuid references api_key;

-- A request that makes no job is remembered by what it made instead.
alter table idempotency
    alter column job drop not null,
    add column target text,
    add constraint idempotency_one_thing check ((job is null) <> (target is null));

-- Remembers a request in the statement that serves it. False: it has been served, and nothing is to be done. `asked` null: it came without a
-- key. To be called last, in a `case` behind all other conditions: what is refused is not remembered.
create function remember(of_tenant uuid, asked jsonb, of_target text) returns boolean language plpgsql volatile as $$
begin
    if asked is null then
        return true;
    end if;
    insert into idempotency (tenant, principal, method, path, key, body_hash, target)
    values (of_tenant, (asked ->> 'principal')::uuid, asked ->> 'method', asked ->> 'path', asked ->> 'key', decode(asked ->> 'body', 'hex'), of_target)
    on conflict do nothing;
    return found;
end
$$;

-- What has run out is swept by its age.
create index user_link_expiry_idx on user_link (expires_at);
