-- What a tenant's devices may do and what becomes of what they send: `quota` is set by the platform,
-- `policy` by the tenant (registry/policy.h describes both). A device may belong to a group, whose
-- quotas are in the policy, and may be reached through gateway devices of its tenant, by their names.
alter table tenant add column quota jsonb not null default '{}' check (jsonb_typeof(quota) = 'object');
alter table tenant add column policy jsonb not null default '{}' check (jsonb_typeof(policy) = 'object');
alter table device add column group_name text check (group_name ~ '^[A-Za-z0-9._-]{1,64}$');
alter table device add column via text[] not null default '{}' check (cardinality(via) <= 8);
