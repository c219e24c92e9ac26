-- Who tells webhooks. A worker's lease is one row that it renews, whatever number of webhooks it holds: `webhook.owner` points at it. A webhook
-- is free while nobody owns it or its owner's lease has lapsed. Each acquisition raises `webhook.epoch`; whoever settles locks the row at its own.
create table webhook_worker (
    id uuid primary key,
    held_until timestamptz not null
);

-- Drops the index of free webhooks with it: a renewal of each row would have been no cheap update because of it.
alter table webhook drop column held_until;
-- Failed attempts since the last success: a webhook with little to tell is not paused after the first of them.
alter table webhook add column failures integer not null default 0;
create index webhook_active_idx on webhook (id) where state = 'active';
create index webhook_owner_idx on webhook (owner) where owner is not null;
