-- What a review of the first schema found missing.

-- Messages accepted before the session's account was known: each link looks for them.
create index message_unlinked_idx on message (session) where account = '';
