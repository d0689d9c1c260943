-- Jobs: one command, or one change of desired state, for many devices (gateway/command/jobs.h).
-- Nobody owns a job. Its next step is made by whichever gateway comes first, in one statement that
-- locks the row: so it goes on when a gateway has gone, and no device is left out or comes twice.

create table job (
    job_key     bigint generated always as identity primary key,
    tenant_key  bigint not null,
    name        text, -- null: nobody sees it any more, and it is removed a batch at a time
    digest      bytea not null, -- of what was asked for: asked for again, it is the same job
    kind        text not null check (kind in ('command', 'desired')),
    what        jsonb not null check (jsonb_typeof(what) = 'object'), -- the command, or the patch
    payload     bytea, -- of the command, as devices get it
    query       jsonb, -- null: devices were listed
    rate        integer not null check (rate > 0), -- devices in a second
    total       integer not null,
    reached     integer not null default 0, -- the first so many devices have got it, or were refused
    refused     integer not null default 0, -- ... of them
    state       text not null default 'running'
                check (state in ('running', 'finished', 'aborted')),
    stepped_at  timestamptz not null, -- until when the rate is used up
    created_at  timestamptz not null default now(),
    finished_at timestamptz,
    unique (tenant_key, name)
);
create index job_running on job (stepped_at) where state = 'running';
create index job_aborted on job (job_key) where state = 'aborted';

-- The devices, in the order in which they have their turn (places without a gap, from 1), as they
-- were when the job was made. Without a foreign key, whose check of each row would take as long as
-- all the rest; what makes and removes jobs knows of them.
create table job_device (
    job_key     bigint not null,
    place       integer not null,
    device_id   text not null,
    device_key  bigint, -- null: there was none of this name
    outcome     text check (outcome in ('done', 'missing', 'full', 'too_large')), -- null: not yet
    command_key bigint,
    version     bigint, -- of the desired state
    primary key (job_key, place)
);

-- A job's command waits until the stream says that it is queued: nobody else is there to say so
-- before it is delivered.
alter table command add column is_announced boolean not null default true;

-- Commands stay as long as the job that they belong to.
drop index command_of_job;
create index command_of_job on command (job_key, finished_at) where job_key is not null;
drop index command_finished;
create index command_finished on command (finished_at) where is_final and job_key is null;

-- What an instance holds is looked at a page at a time.
drop index command_held;
create index command_held on command (holder, command_key) where holder is not null;
