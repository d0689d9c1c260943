-- Commands: what back ends ask of devices, and how far each one is (gateway/command/commands.h).
-- A row is decided by one gateway at a time: the `holder`, as long as its lease runs. Nobody's rows
-- (null, or the lease is over) may be taken by any.

create table gateway_instance (
    instance    text primary key, -- of a store, whatever machine it is on
    lease_until timestamptz not null
);

create table command (
    command_key        bigint generated always as identity primary key,
    tenant_key         bigint not null,
    device_key         bigint not null references device on delete cascade,
    name               text not null,
    payload            bytea not null,
    content_type       text not null default '',
    properties         jsonb not null default '{}' check (jsonb_typeof(properties) = 'object'),
    dialect            text not null default 'native' check (dialect in ('native', 'iothub')),
    wants_reply        boolean not null,
    idempotency_key    text,
    job_key            bigint,
    state              text not null default 'queued'
                       check (state in ('queued', 'sent', 'delivered', 'completed', 'rejected',
                                        'abandoned', 'expired', 'dead_lettered', 'cancelled')),
    is_final           boolean not null default false,
    holder             text,
    delivery_count     integer not null default 0,
    created_at         timestamptz not null default now(),
    expires_at         timestamptz not null,
    sent_at            timestamptz,
    delivered_at       timestamptz,
    finished_at        timestamptz,
    reply_status       integer,
    reply_content_type text,
    reply              bytea,
    reason             text, -- why it was rejected, expired, dead-lettered
    unique (device_key, idempotency_key)
);
create index command_pending on command (device_key, command_key) where not is_final;
create index command_expiry on command (expires_at) where not is_final;
create index command_finished on command (finished_at) where is_final;
create index command_held on command (holder) where holder is not null;
create index command_of_device on command (device_key, command_key);
create index command_of_job on command (job_key, command_key) where job_key is not null;

-- What a back end, or time, has caused and the stream is to say: written with the change itself,
-- appended by the instance named, then deleted (gateway/command/relay.h).
create table stream_outbox (
    outbox_key  bigint generated always as identity primary key,
    instance    text not null,
    tenant_key  bigint not null,
    device_key  bigint not null,
    kind        text not null,  -- 'command.queued', 'state.desired' ...
    command_key bigint,
    detail      jsonb,
    created_at  timestamptz not null default now()
);
create index stream_outbox_instance on stream_outbox (instance, outbox_key);
