-- What a review of the first schema found missing.

-- Messages accepted before the session's account was known: each link looks for them.
create index message_unlinked_idx on message (session) where account = '';

-- A message by the id part of WhatsApp's key. Volatile, so that it reads with a snapshot of its own: the caller's statement may have waited for
-- a lock, and what the holder of that lock wrote is not in the statement's.
create function messages_of(tenant uuid, session uuid, wa_id text) returns setof message language sql volatile rows 1 as $$
    select * from message m where m.tenant = $1 and m.session = $2 and m.wa_id = $3
$$;
