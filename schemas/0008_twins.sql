-- What back ends want of a device (desired) and what it says of itself (reported):
-- gateway/command/twins.h. A device without a row has an empty document of version 1. Metadata has
-- the shape of its document: of each object and each value when it was last written and, of desired
-- state, in which version, under names with a '$', which no key of a document has.

create table desired_state (
    device_key bigint primary key references device on delete cascade,
    version    bigint not null,
    document   jsonb not null check (jsonb_typeof(document) = 'object'),
    metadata   jsonb not null,
    recent     jsonb not null, -- the last changes: [{"version": n, "change": {...}}], oldest first
    updated_at timestamptz not null default now()
);

-- Written by the gateways that have the device, after the stream (twin_project).
create table reported_state (
    device_key bigint primary key references device on delete cascade,
    version    bigint not null,
    document   jsonb not null check (jsonb_typeof(document) = 'object'),
    metadata   jsonb not null,
    said       jsonb not null, -- {"instance": the last version that it has said}
    updated_at timestamptz not null
);

-- What follows is plpgsql, since plans of SQL functions are made anew with each statement.

-- RFC 7396. Names whose value is null go; so merged into an empty object a patch is a document. A
-- patch of null changes nothing.
create function twin_merge(target jsonb, patch jsonb) returns jsonb language plpgsql immutable as $$
begin
    if patch is null then
        return target;
    elsif jsonb_typeof(patch) <> 'object' then
        return patch;
    end if;
    return (
        select coalesce(jsonb_object_agg(key, value), '{}') from (
            select key, value
            from jsonb_each(case when jsonb_typeof(target) = 'object' then target else '{}' end)
            where not patch ? key
            union all
            select key, case when jsonb_typeof(value) = 'object'
                             then twin_merge(target -> key, value) else value end
            from jsonb_each(patch) where jsonb_typeof(value) <> 'null') merged);
end $$;

-- Whether a document has so many bytes as compact JSON: as text it has a space after each colon and
-- comma.
create function twin_fits(document jsonb, most integer) returns boolean language plpgsql immutable
    as $$
declare
    bare text;
begin
    if octet_length(document::text) <= most then
        return true;
    end if;
    bare := regexp_replace(document::text, '"(\\.|[^"\\])*"', '', 'g');
    return octet_length(document::text) - (length(bare) - length(replace(bare, ' ', ''))) <= most;
end $$;

create function twin_time(at timestamptz) returns text language sql immutable as $$
    select to_char(at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') $$;

create function twin_stamp(at timestamptz, version bigint) returns jsonb language sql immutable
    as $$
    select jsonb_strip_nulls(jsonb_build_object('$lastUpdated', twin_time(at),
                                                '$lastUpdatedVersion', version)) $$;

-- The metadata of a document after a patch: what the patch names is stamped anew. A patch of null
-- names everything.
create function twin_stamped(metadata jsonb, document jsonb, patch jsonb, stamp jsonb)
    returns jsonb language plpgsql immutable as $$
begin
    metadata := metadata || '{}'; -- read from the table once, not for each name
    return stamp || (
        select coalesce(jsonb_object_agg(key, case
            when patch is not null and not patch ? key and metadata ? key then metadata -> key
            when jsonb_typeof(value) <> 'object' then stamp
            else twin_stamped(metadata -> key, value, case
                when jsonb_typeof(metadata -> key) = 'object' then patch -> key end, stamp) end),
            '{}')
        from jsonb_each(document));
end $$;

-- The last eight changes, as long as they are not large.
create function twin_recent(recent jsonb, change jsonb) returns jsonb language plpgsql immutable
    as $$
declare
    kept jsonb := recent;
begin
    while jsonb_array_length(kept) > 7 loop
        kept := kept - 0;
    end loop;
    if octet_length(kept::text) > 65536 then
        kept := '[]';
    end if;
    return kept || change;
end $$;

-- As everybody reads it. The etag covers what back ends write: desired state, tags and the device.
create view twin as
    select d.tenant_key, d.device_key, d.device_id, d.tags,
           d.version + coalesce(w.version, 1) as etag,
           coalesce(w.version, 1) as desired_version, coalesce(w.document, '{}') as desired,
           coalesce(w.metadata, twin_stamp(d.created_at, 1)) as desired_metadata,
           coalesce(w.recent, '[]') as desired_recent, w.updated_at as desired_at,
           coalesce(r.version, 1) as reported_version, coalesce(r.document, '{}') as reported,
           coalesce(r.metadata, twin_stamp(d.created_at, null)) as reported_metadata,
           r.updated_at as reported_at
    from device d left join desired_state w using (device_key)
    left join reported_state r using (device_key);

-- Gateways that have a device tell it: device keys, many to a NOTIFY, never one for each.
create function twin_announce(devices bigint[]) returns void language plpgsql as $$
begin
    for place in 1 .. cardinality(devices) by 400 loop
        perform pg_notify('duragate_twin', array_to_string(devices[place:place + 399], ','));
    end loop;
end $$;

-- Changes desired state, tags or both of some devices (null: left alone): merge patches, or the
-- whole of it. expected: etags as SQL_MATCHES takes them. A row for each device there is: what it
-- has now, and why nothing was changed. A change of desired state, also to what it was, is one
-- version and one event (stream_outbox: detail is the event's payload) of the instance. Whoever
-- writes locks the row of the device first, so that between a condition and a change nothing comes.
create function twin_write(devices bigint[], new_desired jsonb, new_tags jsonb, replaces boolean,
                           expected bigint[], by_instance text)
    returns table (device_key bigint, outcome text, etag bigint, desired_version bigint,
                   desired jsonb, tags jsonb)
    language plpgsql as $$
#variable_conflict use_column
declare
    d record;
    s desired_state;
    empty constant jsonb := '{}';
    next_desired jsonb;
    next_tags jsonb;
    told bigint[] := '{}';
begin
    for d in
        select v.device_key, v.tenant_key, v.version, v.tags from device v
        where v.device_key = any (devices) order by v.device_key for no key update
    loop
        select * into s from desired_state w where w.device_key = d.device_key;
        if not found then
            s := row(d.device_key, 1, empty, empty, '[]'::jsonb, now());
        end if;
        next_desired := twin_merge(case when replaces then empty else s.document end, new_desired);
        next_tags := twin_merge(case when replaces then empty else d.tags end, new_tags);
        device_key := d.device_key;
        if not (expected is null or -1 = any (expected)
                or d.version + s.version = any (expected)) then
            outcome := 'precondition';
        elsif new_tags is not null and not twin_fits(next_tags, 8192) then
            outcome := 'large_tags';
        elsif new_desired is not null and not twin_fits(next_desired, 32768) then
            outcome := 'large_desired';
        else
            outcome := 'replaced';
            if new_desired is not null then
                s.version := s.version + 1;
                s.metadata := twin_stamped(s.metadata, next_desired,
                    case when not replaces then new_desired end, twin_stamp(now(), s.version));
                s.recent := twin_recent(s.recent, jsonb_build_object('version', s.version, 'change',
                    case when replaces then next_desired else new_desired end));
                s.document := next_desired;
                insert into desired_state
                values (d.device_key, s.version, s.document, s.metadata, s.recent, now())
                on conflict (device_key) do update set version = excluded.version,
                    document = excluded.document, metadata = excluded.metadata,
                    recent = excluded.recent, updated_at = excluded.updated_at;
                insert into stream_outbox (instance, tenant_key, device_key, kind, detail)
                values (by_instance, d.tenant_key, d.device_key, 'state.desired',
                        jsonb_build_object('version', s.version, case when replaces then 'state'
                                           else 'patch' end, new_desired));
                told := told || d.device_key;
            end if;
            if new_tags is not null and next_tags <> d.tags then
                update device v set tags = next_tags, version = v.version + 1, updated_at = now()
                where v.device_key = d.device_key returning v.version, v.tags
                into d.version, d.tags;
            end if;
        end if;
        etag := d.version + s.version;
        desired_version := s.version;
        desired := s.document;
        tags := d.tags;
        return next;
    end loop;
    perform twin_announce(told);
end $$;

-- Says what devices have reported, and the stream has: [{"k": device key, "v": version, "at": ms,
-- "p": merge patch}], those of one device in their order. An instance is taken at its word once for
-- each version, so it may say it again. Where another one has reported for the device meanwhile,
-- the patch comes on top, under the next version, and those who remember the document are told.
create function twin_project(changes jsonb, by_instance text) returns void language plpgsql as $$
declare
    c record;
    now_version bigint;
    told bigint[] := '{}';
begin
    for c in
        select s.k, s.v, s.p, to_timestamp(s.at / 1000.0) as at,
               twin_stamp(to_timestamp(s.at / 1000.0), null) as stamp
        from rows from (jsonb_to_recordset(changes) as (k bigint, v bigint, at bigint, p jsonb))
             with ordinality as s (k, v, at, p, place)
        order by s.k, s.place
    loop
        perform from device d where d.device_key = c.k for key share;
        continue when not found; -- it has gone
        insert into reported_state as r (device_key, version, document, metadata, said, updated_at)
        values (c.k, c.v, twin_merge('{}', c.p),
                twin_stamped('{}', twin_merge('{}', c.p), null, c.stamp),
                jsonb_build_object(by_instance, c.v), c.at)
        on conflict (device_key) do update set version = greatest(r.version + 1, c.v),
            document = twin_merge(r.document, c.p), updated_at = c.at,
            said = r.said || excluded.said,
            metadata = twin_stamped(r.metadata, twin_merge(r.document, c.p), c.p, c.stamp)
        where coalesce((r.said ->> by_instance)::bigint, 0) < c.v
        returning version into now_version;
        if now_version <> c.v then
            told := told || c.k;
        end if;
    end loop;
    perform twin_announce(told);
end $$;
