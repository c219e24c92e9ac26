-- A session that its tenant has deleted does not count any more, though its rows may still be there.
drop trigger session_quota on session;
create trigger session_quota before insert on session for each row execute function keep_quota('sessions', 'deleting_at is null');
