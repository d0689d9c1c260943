-- Whoever registers a certificate authority for a tenant shows that it holds the authority's key: it
-- signs a certificate whose common name is the tenant's registration code. So two tenants may
-- register the same authority, and neither can lock the other out.

alter table tenant add column registration_code text not null
    default replace(gen_random_uuid()::text, '-', '');
-- "unique" made an index that would refuse the second tenant.
alter table certificate_authority drop constraint certificate_authority_fingerprint_key;
alter table certificate_authority add unique (tenant_key, fingerprint);
