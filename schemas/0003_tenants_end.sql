-- A tenant is deleted as one row, whatever is in it: every statement reaches a device through its
-- tenant, so with the row the devices are out of reach, and the name is free. What is left of them
-- is removed later, a batch at a time (registry_collect). API keys and certificate authorities are
-- few and still go with the tenant: a key without its tenant must not exist for a moment.
-- Versions never repeat, so an entity tag of something deleted does not fit what was made again
-- under its name.

create table tenant_gone (
    tenant_key bigint primary key,
    gone_at    timestamptz not null default now()
);

create function registry_tenant_gone() returns trigger language plpgsql as $$
begin
    insert into tenant_gone (tenant_key) select tenant_key from changed on conflict do nothing;
    return null;
end $$;
create trigger tenant_gone after delete on tenant referencing old table as changed
    for each statement execute function registry_tenant_gone();

create index api_key_tenant on api_key (tenant_key); -- they go with their tenant

-- A device that is being made while its tenant goes is found by its key like the others.
alter table device drop constraint device_tenant_key_fkey;

-- What is collected was announced when its tenant went: no row and no NOTIFY for it.
create or replace function registry_changed_device() returns trigger language plpgsql as $$
begin
    if current_setting('duragate.collecting', true) = 'on' or not exists (select from changed) then
        return null;
    end if;
    perform registry_announce();
    if tg_table_name = 'device' then
        insert into registry_change (tenant_key, device_key, narrows)
            select tenant_key, device_key, tg_op <> 'INSERT' from changed;
    else
        insert into registry_change (tenant_key, device_key, narrows)
            select distinct d.tenant_key, c.device_key, tg_op <> 'INSERT'
            from changed c left join device d using (device_key);
    end if;
    return null;
end $$;

-- Removes at most so many devices of tenants that are gone; how many it were. The mark stays for a
-- while behind the last device, since a statement that began before the deletion may still add one.
-- Several gateways do not wait for each other.
create function registry_collect(most integer) returns bigint language plpgsql as $$
declare
    gone    bigint;
    keys    bigint[];
begin
    select g.tenant_key into gone from tenant_gone g
        where exists (select from device d where d.tenant_key = g.tenant_key)
        order by g.gone_at limit 1 for update skip locked;
    if not found then
        delete from tenant_gone g where g.gone_at < now() - interval '5 minutes'
            and not exists (select from device d where d.tenant_key = g.tenant_key);
        return 0;
    end if;
    select array_agg(device_key) into keys
        from (select device_key from device where tenant_key = gone limit most) batch;
    perform set_config('duragate.collecting', 'on', true);
    delete from credential where device_key = any (keys);
    delete from device where device_key = any (keys);
    perform set_config('duragate.collecting', '', true);
    return coalesce(array_length(keys, 1), 0);
end $$;

create sequence version_seq;
select setval('version_seq', 1 + greatest(
    (select coalesce(max(version), 0) from tenant), (select coalesce(max(version), 0) from device),
    (select coalesce(max(version), 0) from credential),
    (select coalesce(max(version), 0) from certificate_authority),
    (select coalesce(max(version), 0) from api_key)));

create function registry_new_version() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' or new.version <> old.version then
        new.version := nextval('version_seq');
    end if;
    return new;
end $$;

do $$
declare
    t text;
begin
    foreach t in array array['tenant', 'device', 'credential', 'certificate_authority', 'api_key'] loop
        execute format('create trigger %1$s_version before insert or update on %1$s for each row execute function registry_new_version()', t);
    end loop;
end $$;
