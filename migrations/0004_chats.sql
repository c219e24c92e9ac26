-- One person's chats under several names, what was there before the link, people and members.

-- How far the read model is: `reconciled_at`, when the page's rows were last compared to the end; `history_at`, when what WhatsApp had from
-- before the link was in; `gap_at`, when messages were last known to be missing.
alter table session
    add column reconciled_at timestamptz,
    add column history_at timestamptz,
    add column gap_at timestamptz;

-- Old ids of merged chats lead to the chat that goes on.
create index chat_merged_idx on chat (merged_into) where merged_into is not null;
create index job_chat_idx on job (chat, id desc) where chat is not null;
create index job_reference_idx on job (tenant, reference, id desc) where reference is not null;
create index job_message_idx on job (message) where message is not null;

-- A contact's `wa_id` is its LID where one is known. Its number may move to another contact.
create index contact_phone_idx on contact (session, account, phone) where phone is not null;

-- Who belongs to a group: contacts of members are shown to whoever may see the group. `wa_id` as in `contact`.
create table chat_member (
    chat uuid not null references chat,
    wa_id text not null,
    tenant uuid not null references tenant,
    is_admin boolean not null default false,
    primary key (chat, wa_id)
);
