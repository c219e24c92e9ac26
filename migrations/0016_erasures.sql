-- A LID is a person, a number is lent. When the number of a person who was erased comes with another LID it has gone to somebody else, who
-- must not find the person's chat and its grants: so the chat keeps its LID as `erased_name` makes it, to be compared and no more.
alter table chat add column erased_lid text;

-- Of these numbers of the log the ones whose events have been erased, where anything was lately: what a receiver answered to them is not kept.
-- Volatile, as `veiled` is: the caller has locked the webhook first, and an erasure waits for that lock between emptying events and answers.
create function erased_among(of_tenant uuid, seqs bigint[]) returns bigint[] language sql volatile as $$
    select array(select e.seq from event e
                  where e.tenant = $1 and e.seq = any($2) and e.data = '{"erased": true}'
                    and exists (select 1 from erasure x where x.tenant = $1 and x.until > now() - interval '2 days'))
$$;
create index erasure_until_idx on erasure (tenant, until);
