//! Witnesses in the database: what is written in an owner's name by somebody who is not the owner (any more).
//!
//! Hosts connect under a name each (`application_name`). A takeover notes which name the new owner goes by; from then on whatever only an owner
//! may write is compared with it, when the writing commits. A host that is started anew has a new name.

use harness::Stack;

/// A statement of an owner: it starts or ends a started job, records a message, or announces what only an owner knows. Expiry and withdrawal of
/// what waits are everybody's. Where the witness is asked, the session's row is locked by its writer or the write is stale.
const WITNESSES: &str = "
create schema chaos;
create table chaos.owner (session uuid, epoch bigint, host text, at timestamptz default clock_timestamp(), primary key (session, epoch));
create table chaos.stale (what text, host text, owner text, at timestamptz default clock_timestamp());

create function chaos.takeover() returns trigger language plpgsql as $$
begin
    if new.epoch < old.epoch or new.epoch = old.epoch and new.owner is not null and new.owner is distinct from old.owner then
        insert into chaos.stale (what, host) values (format('epoch of %s from %s to %s', new.id, old.epoch, new.epoch), current_setting('application_name'));
    elsif new.epoch > old.epoch then
        insert into chaos.owner (session, epoch, host) values (new.id, new.epoch, current_setting('application_name'));
    end if;
    return null;
end $$;

create function chaos.written(what text, of uuid) returns void language plpgsql as $$
declare
    writer text := current_setting('application_name');
    known text;
begin
    if writer not like 'host-%' then return; end if;
    select host into known from chaos.owner where session = of order by epoch desc limit 1;
    if known is distinct from writer then
        insert into chaos.stale (what, host, owner) values (what || ' of ' || of, writer, known);
    end if;
end $$;

create function chaos.job_written() returns trigger language plpgsql as $$
begin
    -- What a session that nobody owns has left is tidied up by anybody.
    if old.state = 'running' and exists (select 1 from public.session s where s.id = new.session and s.owner is null) then
        return null;
    end if;
    if new.state = 'running' or old.state = 'running' then
        perform chaos.written(format('job %s from %s to %s', new.id, old.state, new.state), new.session);
    end if;
    if old.state = 'running' and new.state <> 'running' and new.epoch is distinct from (select epoch from public.session where id = new.session) then
        insert into chaos.stale (what, host) values (format('end of job %s started under epoch %s', new.id, new.epoch), current_setting('application_name'));
    end if;
    return null;
end $$;
create function chaos.message_written() returns trigger language plpgsql as $$
begin
    perform chaos.written('message ' || new.id, new.session);
    return null;
end $$;
create function chaos.event_written() returns trigger language plpgsql as $$
begin
    if new.type in ('message', 'message.ack', 'session.gap', 'history.synced') then
        perform chaos.written(new.type || ' event ' || new.seq, new.session);
    end if;
    return null;
end $$;

create trigger chaos_takeover after update on session for each row execute function chaos.takeover();
create constraint trigger chaos_job after update on job deferrable initially deferred for each row execute function chaos.job_written();
create constraint trigger chaos_message after insert on message deferrable initially deferred for each row execute function chaos.message_written();
create trigger chaos_event after insert on event for each row execute function chaos.event_written();
";

/// Puts them into the stack's own database. Before any host starts.
pub fn install(stack: &Stack) {
    stack.postgres.sql(WITNESSES);
}

/// What they have seen.
pub fn heard(stack: &Stack) -> Vec<String> {
    let seen = stack.postgres.sql("select format('%s by %s, owner %s, at %s', what, host, owner, at) from chaos.stale order by at");
    seen.lines().map(str::to_owned).collect()
}

/// How often sessions changed hands.
pub fn takeovers(stack: &Stack) -> usize {
    stack.postgres.sql("select count(*) from chaos.owner").parse().unwrap_or_default()
}
