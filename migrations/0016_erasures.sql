-- A LID is a person, a number is lent. When the number of a person who was erased comes with another LID it has gone to somebody else, who
-- must not find the person's chat and its grants: so the chat keeps its LID as `erased_name` makes it, to be compared and no more.
alter table chat add column erased_lid text;
alter table erasure add column lid boolean not null default false;

-- The erasures that these names of one person fall under. A number that comes with a LID is that LID's: it is not the person whose LIDs are
-- known to be others.
create function erased_as(of_tenant uuid, of_session uuid, names text[]) returns setof erasure language sql volatile as $$
    select e.* from erasure e
     where e.tenant = $1 and (e.session is null or e.session = $2)
       and e.name in (select erased_name($1, n.name) from unnest($3) n (name) where n.name is not null)
       and (e.lid or not exists (select 1 from unnest($3) n (name) where n.name like '%@lid')
            or not exists (select 1 from erasure o where o.job = e.job and o.tenant = $1 and o.lid))
$$;

create or replace function veiled(of_tenant uuid, of_session uuid, names text[]) returns text[] language sql volatile as $$
    select array(select erased_name($1, n.name) from unnest($3) with ordinality n (name, o) where n.name is not null order by n.o)
     where exists (select 1 from erasure where tenant = $1 and hides)
       and exists (select 1 from erased_as($1, $2, $3) e where e.hides)
$$;

create or replace function erased_until(of_tenant uuid, of_session uuid, names text[]) returns timestamptz language sql volatile as $$
    select max(e.until) from erased_as($1, $2, $3) e where exists (select 1 from erasure where tenant = $1)
$$;

-- Of these numbers of the log the ones whose events have been erased, where an erasure goes on or was lately: what a receiver answered to them
-- is not kept. Volatile, as `veiled` is: the caller has locked the webhook first, and an erasure waits for that lock between emptying events
-- and answers. Not SQL, because the query over all days is not to be planned where nobody was erased.
create function erased_among(of_tenant uuid, seqs bigint[]) returns bigint[] language plpgsql volatile as $$
begin
    if not exists (select 1 from erasure x where x.tenant = of_tenant and x.until > now() - interval '2 days')
       and not exists (select 1 from job j where j.tenant = of_tenant and j.lane = 'background' and j.state in ('queued', 'running')
                          and j.kind = 'eraseContact') then
        return '{}';
    end if;
    return array(select e.seq from event e where e.tenant = of_tenant and e.seq = any(seqs) and e.data = '{"erased": true}');
end
$$;
create index erasure_until_idx on erasure (tenant, until);
