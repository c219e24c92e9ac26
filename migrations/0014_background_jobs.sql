-- Jobs that a worker does, and what they need: erasures of a person, exports.

-- `background`: no position in the session's order and no entry in Redis.
alter table job drop constraint job_lane_check;
alter table job add constraint job_lane_check check (lane in ('write', 'query', 'control', 'background'));
alter table job
    -- {done, total}, as callers see it.
    add column progress jsonb,
    -- What the worker that goes on with it has to know: where the one before stood.
    add column memory jsonb,
    -- Who does it, or to whom it was handed out: a fresh id each time, so that one whose claim lapsed writes nothing any more.
    add column claim uuid,
    add column claimed_until timestamptz;
create index job_background_idx on job (tenant, id) where lane = 'background' and state in ('queued', 'running');
