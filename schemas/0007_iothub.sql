-- Devices of IoT Hub's dialect (gateway/dialect/iothub.h): their ids have a wider alphabet.
alter table device drop constraint device_device_id_check;
alter table device add constraint device_device_id_check
    check (device_id ~ '^[A-Za-z0-9.+%_#*?!(),:=@$''-]{1,128}$');

-- What clients written for Azure IoT Hub need (docs/iothub.md).

-- ---- shared access policies: whom a service is when it signs tokens with one of two keys ----
-- They share the key numbers of credentials, and changes of them are heard as those of API keys are.
create table access_policy (
    credential_key bigint primary key default nextval('credential_key_seq'),
    tenant_key     bigint not null references tenant on delete cascade,
    name           text not null check (name ~ '^[A-Za-z0-9._-]{1,64}$'),
    rights         integer not null, -- bits of enum registry_right
    secret         bytea not null,   -- primary and secondary key, sealed
    master_key_id  text not null,
    version        bigint not null default 1,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    unique (tenant_key, name)
);
create trigger access_policy_inserted after insert on access_policy referencing new table as changed
    for each statement execute function registry_changed_principal();
create trigger access_policy_updated after update on access_policy referencing old table as changed
    for each statement execute function registry_changed_principal();
create trigger access_policy_deleted after delete on access_policy referencing old table as changed
    for each statement execute function registry_changed_principal();
create trigger access_policy_version before insert or update on access_policy
    for each row execute function registry_new_version();

-- ---- what the service API says of a device ----
alter table device add column status_reason text check (length(status_reason) <= 128);
alter table device add column status_updated_at timestamptz;
-- What a back end said that the device logs in with; null: nobody said, its credentials tell.
alter table device add column authentication text
    check (authentication in ('sas', 'selfSigned', 'certificateAuthority', 'none'));
