-- A tenant can be deleted. Whose a row is that belongs to a session, a chat, a webhook or a user is said by that too, and it goes before it: a
-- check of its own would read these tables whole, because they are looked for by what they belong to.
alter table lane_position drop constraint lane_position_tenant_fkey;
alter table profile_snapshot drop constraint profile_snapshot_tenant_fkey;
alter table chat drop constraint chat_tenant_fkey;
alter table chat_member drop constraint chat_member_tenant_fkey;
alter table contact drop constraint contact_tenant_fkey;
alter table link_page drop constraint link_page_tenant_fkey;
alter table refresh_token drop constraint refresh_token_tenant_fkey;
alter table user_link drop constraint user_link_tenant_fkey;
alter table webhook_delivery drop constraint webhook_delivery_tenant_fkey;

-- What goes is looked for by what it belongs to, in the order of an index: no statement reads a table whole because few of its rows are ours.
create index chat_session_idx on chat (session, id);
create index access_grant_chat_idx on access_grant (chat) where chat is not null;
create index access_grant_of_session_idx on access_grant (session);
create index access_grant_user_idx on access_grant (app_user) where app_user is not null;
create index access_grant_key_idx on access_grant (api_key) where api_key is not null;
create index access_grant_maker_idx on access_grant (created_by);
create index refresh_token_owner_idx on refresh_token (app_user, expires_at);
drop index refresh_token_user_idx;
