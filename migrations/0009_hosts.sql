-- Gaps: when the session last worked, and whether its directory began empty although an account had been linked before, so that the link of
-- that account tells of what was missed. Written by the owner.
alter table session
    add column worked_until timestamptz,
    add column gap_owed boolean not null default false;
