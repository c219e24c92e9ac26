-- One link page a session: two that are opened at the same moment do not both stay. Of those that did, the newest stays.
delete from link_page old using link_page new
 where old.session = new.session and (old.created_at, old.token_hash) < (new.created_at, new.token_hash);
create unique index link_page_session_key on link_page (session);
drop index link_page_session_idx;
