-- The registry. Applied by `duragate migrate` under an advisory lock, in one transaction.
-- Every change of what a login depends on writes a row of registry_change and one NOTIFY per
-- statement (never one per row); a gateway reads the rows after the last revision it knows.

create sequence stream_id_seq;      -- never used twice, so a tenant name used again is a new stream
create sequence credential_key_seq; -- one name space for credentials, CAs and API keys

create table tenant (
    tenant_key      bigint generated always as identity primary key,
    name            text not null unique
                    check (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    stream_id       bigint not null unique default nextval('stream_id_seq'),
    partition_count integer not null default 16 check (partition_count between 1 and 1024),
    enabled         boolean not null default true,
    metadata        jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    tags            jsonb not null default '{}' check (jsonb_typeof(tags) = 'object'),
    version         bigint not null default 1,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now()
);

create table device (
    device_key   bigint generated always as identity primary key,
    tenant_key   bigint not null references tenant on delete cascade,
    device_id    text not null check (device_id ~ '^[A-Za-z0-9._:-]{1,128}$'),
    -- murmur2(device_id) mod partition_count when created; never changes
    partition    integer not null check (partition between 0 and 1023),
    enabled      boolean not null default true,
    metadata     jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    tags         jsonb not null default '{}' check (jsonb_typeof(tags) = 'object'),
    version      bigint not null default 1,
    created_at   timestamptz not null default now(),
    updated_at   timestamptz not null default now(),
    unique (tenant_key, device_id)
);
create index device_tags on device using gin (tags jsonb_path_ops);

create table credential (
    credential_key bigint primary key default nextval('credential_key_seq'),
    device_key     bigint not null references device on delete cascade,
    name           text not null check (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    kind           text not null check (kind in ('key', 'password', 'sas', 'x509')),
    -- key: keyed hash; password: encoded KDF string; sas: sealed key pair; x509: null
    secret         bytea check ((secret is null) = (kind = 'x509')),
    -- x509: SHA-256 or SHA-1 of the leaf, lower-case hex
    thumbprint     text check ((thumbprint is null) = (kind <> 'x509')),
    master_key_id  text, -- the master key that hashed or sealed the secret
    not_before     timestamptz,
    not_after      timestamptz,
    version        bigint not null default 1,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    unique (device_key, name)
);

create table certificate_authority (
    credential_key bigint primary key default nextval('credential_key_seq'),
    tenant_key     bigint not null references tenant on delete cascade,
    name           text not null check (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    certificate    text not null,          -- PEM
    fingerprint    text not null unique,   -- SHA-256, lower-case hex: a CA belongs to one tenant
    subject_hash   text not null,          -- SHA-256 of the DER subject, to find it by issuer
    version        bigint not null default 1,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    unique (tenant_key, name)
);
create index certificate_authority_subject on certificate_authority (subject_hash);

create table api_key (
    credential_key bigint primary key default nextval('credential_key_seq'),
    key_id         text not null unique check (key_id ~ '^[A-Za-z0-9._-]{1,64}$'),
    tenant_key     bigint references tenant on delete cascade, -- null: platform
    roles          integer not null,       -- bits of enum registry_role
    secret         bytea not null,         -- keyed hash
    master_key_id  text not null,
    description    text not null default '',
    not_after      timestamptz,
    version        bigint not null default 1,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now()
);

create table registry_change (
    revision       bigint generated always as identity primary key,
    tenant_key     bigint,
    device_key     bigint,          -- null: the whole tenant, or a principal or CA
    credential_key bigint,          -- an API key or CA
    narrows        boolean not null, -- false: something was added, which ends no connection
    changed_at     timestamptz not null default now()
);

-- Writers take the lock so that revisions become visible in their order: a gateway that has read
-- revision n has read everything below it. A statement that changed no row leaves no trace.
create function registry_announce() returns void language plpgsql as $$
begin
    perform pg_advisory_xact_lock(4445474154);
    perform pg_notify('duragate_registry', '');
end $$;

create function registry_changed_device() returns trigger language plpgsql as $$
begin
    if not exists (select from changed) then
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

create function registry_changed_tenant() returns trigger language plpgsql as $$
begin
    if not exists (select from changed) then
        return null;
    end if;
    perform registry_announce();
    insert into registry_change (tenant_key, narrows)
        select tenant_key, tg_op <> 'INSERT' from changed;
    return null;
end $$;

create function registry_changed_principal() returns trigger language plpgsql as $$
begin
    if not exists (select from changed) then
        return null;
    end if;
    perform registry_announce();
    insert into registry_change (tenant_key, credential_key, narrows)
        select tenant_key, credential_key, tg_op <> 'INSERT' from changed;
    return null;
end $$;

-- An update is announced by its old rows: a CA or an API key that is replaced gets a new key number,
-- and connections that rely on the old number are what must hear of it.
do $$
declare
    t text;
    f text;
begin
    foreach t in array array['tenant', 'device', 'credential', 'certificate_authority', 'api_key'] loop
        f := case t when 'tenant' then 'registry_changed_tenant'
                    when 'device' then 'registry_changed_device'
                    when 'credential' then 'registry_changed_device'
                    else 'registry_changed_principal' end;
        execute format('create trigger %1$s_inserted after insert on %1$s referencing new table as changed for each statement execute function %2$s()', t, f);
        execute format('create trigger %1$s_updated after update on %1$s referencing old table as changed for each statement execute function %2$s()', t, f);
        execute format('create trigger %1$s_deleted after delete on %1$s referencing old table as changed for each statement execute function %2$s()', t, f);
    end loop;
end $$;
