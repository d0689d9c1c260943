/*
 * All SQL of the product that runs on the registry thread: STATEMENT(id, parameter count, SQL).
 * Prepared once per connection. Values come and go in text format.
 */
/* clang-format off */
/* ---- login (registry/login.c) ---- */
/* Columns of cache.c's enum device_column: one row per credential, one with nulls without any; the
 * policy in the first row only. */
#define SQL_MS(column) "(extract(epoch from " column ") * 1000)::bigint"
#define SQL_LOGIN_DEVICE \
    "select t.tenant_key, t.name, t.stream_id, t.partition_count, t.enabled, d.device_key," \
    " d.device_id, d.partition, d.enabled, c.credential_key, c.kind, encode(c.secret, 'hex')," \
    " c.thumbprint, c.master_key_id, " SQL_MS("c.not_before") ", " SQL_MS("c.not_after") "," \
    " d.group_name, array_to_string(d.via, ' '), t.version, case when row_number() over (order by" \
    " c.credential_key) = 1 then t.quota end, case when row_number() over (order by" \
    " c.credential_key) = 1 then t.policy end, coalesce(d.authentication <> 'certificateAuthority'," \
    " false) from device d join tenant t using (tenant_key) left join credential c using (device_key)"
STATEMENT(LOGIN_DEVICE, 2,
    SQL_LOGIN_DEVICE " where t.name = $1::text and d.device_id = $2::text order by c.credential_key")
STATEMENT(LOGIN_DEVICE_BY_KEY, 1,
    SQL_LOGIN_DEVICE " where d.device_key = $1::bigint order by c.credential_key")
STATEMENT(LOGIN_PRINCIPAL, 1,
    "select k.credential_key, k.roles, encode(k.secret, 'hex'), k.master_key_id, "
    SQL_MS("k.not_after") ", t.tenant_key, t.name, t.stream_id, t.partition_count, t.enabled,"
    " encode(k.scram, 'hex') from api_key k left join tenant t using (tenant_key) where k.key_id = $1::text")
/* "tenant/name" of an access policy; the columns of LOGIN_PRINCIPAL, the sealed keys as the last. */
STATEMENT(LOGIN_ACCESS_POLICY, 1,
    "select p.credential_key, p.rights, null, p.master_key_id, 0, t.tenant_key, t.name,"
    " t.stream_id, t.partition_count, t.enabled, encode(p.secret, 'hex') from access_policy p"
    " join tenant t using (tenant_key) where t.name = split_part($1::text, '/', 1)"
    " and p.name = split_part($1::text, '/', 2)")
/* tenant or null, subject hashes, most. Each tenant's first ones come first, so that no tenant can
 * crowd out another. */
STATEMENT(LOGIN_AUTHORITIES, 3,
    "select credential_key, name, certificate, subject_hash from (select a.credential_key, t.name,"
    " a.certificate, a.subject_hash, row_number() over (partition by a.tenant_key, a.subject_hash"
    " order by a.credential_key desc) as place from certificate_authority a"
    " join tenant t using (tenant_key) where a.subject_hash = any ($2::text[])"
    " and ($1::text is null or t.name = $1::text)) candidate"
    " order by place, credential_key limit $3::integer")
/* name or null, key or null; with neither, all. A policy only with a key: it may be long. */
STATEMENT(LOGIN_TENANTS, 2,
    "select tenant_key, name, stream_id, partition_count, enabled, version,"
    " case when $2::bigint is not null then quota end,"
    " case when $2::bigint is not null then policy end from tenant"
    " where ($1::text is null or name = $1::text) and ($2::bigint is null or tenant_key = $2::bigint)"
    " order by name limit 10000")
/* Columns of changes.c's enum change_column; the last four say what is there now. */
STATEMENT(CHANGES, 1,
    "select c.revision, coalesce(c.tenant_key, 0), coalesce(c.device_key, 0),"
    " coalesce(c.credential_key, 0), c.narrows, a.credential_key is not null, k.roles, "
    SQL_MS("k.not_after") " from registry_change c"
    " left join certificate_authority a on a.credential_key = c.credential_key"
    " left join api_key k on k.credential_key = c.credential_key"
    " where c.revision > $1::bigint order by c.revision limit 1000")
STATEMENT(CHANGES_RANGE, 0,
    "select coalesce(min(revision), 0), coalesce(max(revision), 0) from registry_change")
STATEMENT(CHANGES_TRIM, 0,
    "delete from registry_change where revision in (select revision from (select revision,"
    " changed_at from registry_change order by revision limit 10000) oldest"
    " where changed_at < now() - interval '7 days')"
    " and revision < (select max(revision) from registry_change)")
/* most */
STATEMENT(COLLECT, 1, "select registry_collect($1::integer)")
/* tenant key, most */
STATEMENT(AUTHORITY_KEYS, 2,
    "select credential_key from certificate_authority where tenant_key = $1::bigint"
    " order by credential_key limit $2::integer")

/* ---- gateway: a will that is stored when there is no session (gateway/mqtt/endpoint_wills.c) ---- */
/* device key, credential key, tenant key. A row: the device may still leave it; the tenant's policy. */
STATEMENT(WILL_IS_ALLOWED, 3,
    "select t.policy::text from device d join tenant t using (tenant_key)"
    " where d.device_key = $1::bigint and d.tenant_key = $3::bigint and d.enabled and t.enabled"
    " and (exists (select from credential c where c.credential_key = $2::bigint"
    " and c.device_key = d.device_key) or exists (select from certificate_authority a"
    " where a.credential_key = $2::bigint and a.tenant_key = d.tenant_key))")

/* ---- provisioning: tenants ---- */
/* Shapes that the rows below share. A body is JSON as clients see it; times are UTC with ms. */
#define SQL_TIME(column) \
    "to_char(" column " at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
#define SQL_COMMON(t) \
    "'version', " t ".version, 'created_at', " SQL_TIME(t ".created_at") ", 'updated_at', " \
    SQL_TIME(t ".updated_at")
#define SQL_TENANT_BODY \
    "json_build_object('name', t.name, 'enabled', t.enabled, 'partition_count', t.partition_count," \
    " 'registration_code', t.registration_code, 'quota', t.quota," \
    " 'metadata', t.metadata, 'tags', t.tags, " SQL_COMMON("t") ")::text as body"
#define SQL_DEVICE_BODY \
    "json_build_object('device_id', d.device_id, 'enabled', d.enabled, 'partition', d.partition," \
    " 'group', d.group_name, 'via', d.via," \
    " 'metadata', d.metadata, 'tags', d.tags, " SQL_COMMON("d") ")::text as body"
#define SQL_CREDENTIAL_BODY \
    "json_build_object('name', c.name, 'kind', c.kind, 'thumbprint', c.thumbprint," \
    " 'not_before', " SQL_TIME("c.not_before") ", 'not_after', " SQL_TIME("c.not_after") ", " \
    SQL_COMMON("c") ")::text as body"
#define SQL_AUTHORITY_BODY \
    "json_build_object('name', a.name, 'certificate', a.certificate," \
    " 'fingerprint', a.fingerprint, " SQL_COMMON("a") ")::text as body"
#define SQL_API_KEY_BODY \
    "json_build_object('key_id', k.key_id, 'roles', (select coalesce(json_agg(role.name order by" \
    " role.bit), '[]') from (values (1, 'admin'), (2, 'operator'), (4, 'reader'), (8, 'consumer')," \
    " (16, 'auditor'), (32, 'commander')) role (bit, name) where k.roles & role.bit <> 0)," \
    " 'description', k.description, 'not_after', " SQL_TIME("k.not_after") ", " \
    SQL_COMMON("k") ")::text as body"
#define SQL_ACCESS_POLICY_BODY \
    "json_build_object('name', p.name, 'rights', (select coalesce(json_agg(granted.name order by" \
    " granted.bit), '[]') from (values (1 << 16, 'registry_read'), (1 << 17, 'registry_write')," \
    " (1 << 18, 'service_connect'), (1 << 19, 'device_connect')) granted (bit, name)" \
    " where p.rights & granted.bit <> 0), " SQL_COMMON("p") ")::text as body"
/* A precondition is null for none, or a list: 0 must not exist, -1 must exist, else these versions. */
#define SQL_MATCHES(p, version) \
    "(" p "::bigint[] is null or -1 = any (" p "::bigint[]) or " version " = any (" p "::bigint[]))"
#define SQL_MAY_CREATE(p) "(" p "::bigint[] is null or 0 = any (" p "::bigint[]))"
/* The tenant of this name, $1. The last parameter of each row below is the number of the one tenant
 * that the caller may see, null for the platform (requests.c adds it): a name may have been given to
 * another tenant since the caller's key was made. */
#define SQL_TENANT(t, scope) \
    t "name = $1::text and (" scope "::bigint is null or " t "tenant_key = " scope "::bigint)"
/* One page of rows (key, body), ordered by key: at most limit rows and not much more than bytes;
 * candidates is how many there would be without the size limit, and one more than limit at most. */
#define SQL_PAGE(rows, limit, bytes) \
    "select key, body, candidates from (select key, body, count(*) over () as candidates," \
    " row_number() over (order by key) as number, coalesce(sum(octet_length(body)) over (order by" \
    " key rows between unbounded preceding and 1 preceding), 0) as bytes_before from (" rows \
    " order by key limit " limit "::bigint + 1) candidate) sized where number <= " limit \
    "::bigint and bytes_before < " bytes "::bigint"

/* own tenant or null, cursor, limit, bytes, enabled, tags */
STATEMENT(TENANT_LIST, 7,
    "select page.* from (select 1) one left join lateral ("
    SQL_PAGE("select t.name as key, " SQL_TENANT_BODY " from tenant t"
             " where ($1::text is null or t.name = $1::text)"
             " and ($7::bigint is null or t.tenant_key = $7::bigint)"
             " and ($2::text is null or t.name > $2::text)"
             " and ($5::boolean is null or t.enabled = $5::boolean)"
             " and ($6::jsonb is null or t.tags @> $6::jsonb)", "$3", "$4")
    ") page on true order by key")
STATEMENT(TENANT_GET, 2,
    "select 'found', t.version, " SQL_TENANT_BODY " from tenant t where " SQL_TENANT("t.", "$2"))
/* name, partition count, enabled, metadata, tags, quota, precondition. Without a count: 16 for a new
 * tenant (as the column's default), unchanged for an old one. */
#define SQL_TENANT_DIFFERS \
    "row(coalesce($2::integer, t.partition_count), excluded.enabled, excluded.metadata," \
    " excluded.tags, excluded.quota) is distinct from" \
    " row(t.partition_count, t.enabled, t.metadata, t.tags, t.quota)"
STATEMENT(TENANT_PUT, 8,
    "with old as (select version, partition_count from tenant where " SQL_TENANT("", "$8") "),"
    " changed as (insert into tenant as t (name, partition_count, enabled, metadata, tags, quota)"
    " select $1::text, coalesce($2::integer, 16), $3::boolean, $4::jsonb, $5::jsonb, $6::jsonb"
    " where " SQL_MAY_CREATE("$7") " or exists (select from old)"
    " on conflict (name) do update set"
    " partition_count = coalesce($2::integer, t.partition_count), enabled = excluded.enabled,"
    " metadata = excluded.metadata, tags = excluded.tags, quota = excluded.quota,"
    " version = t.version + (" SQL_TENANT_DIFFERS ")::integer,"
    " updated_at = case when " SQL_TENANT_DIFFERS " then now() else t.updated_at end"
    " where " SQL_MATCHES("$7", "t.version")
    " and coalesce($2::integer, t.partition_count) >= t.partition_count"
    " returning t.xmax = 0 as created, t.version, " SQL_TENANT_BODY ")"
    " select case when changed.created then 'created' when not changed.created then 'replaced'"
    " when " SQL_MATCHES("$7", "old.version") " and $2::integer < old.partition_count then 'shrink'"
    " else 'precondition' end, changed.version, changed.body"
    " from (select 1) one left join changed on true left join old on true")
STATEMENT(TENANT_DELETE, 3,
    "with found as (select tenant_key from tenant where " SQL_TENANT("", "$3") "),"
    " gone as (delete from tenant t using found f where t.tenant_key = f.tenant_key and "
    SQL_MATCHES("$2", "t.version") " returning t.tenant_key)"
    " select case when gone.tenant_key is null then 'precondition' else 'deleted' end, null, null"
    " from found left join gone on true")

/* ---- provisioning: what a tenant asks of its devices' traffic ---- */
#define SQL_POLICY_BODY "(t.policy || jsonb_build_object('version', t.version))::text as body"
STATEMENT(POLICY_GET, 2,
    "select 'found', t.version, " SQL_POLICY_BODY " from tenant t where " SQL_TENANT("t.", "$2"))
/* tenant, device quota, groups, quarantine, topic map, precondition. It shares the tenant's
 * version. */
STATEMENT(POLICY_PUT, 7,
    "with found as (select t.tenant_key, t.policy as old, jsonb_strip_nulls(jsonb_build_object("
    "'device_quota', $2::jsonb, 'groups', $3::jsonb,"
    " 'quarantine', $4::jsonb, 'topic_map', $5::jsonb)) as new"
    " from tenant t where " SQL_TENANT("t.", "$7") "),"
    " changed as (update tenant t set policy = f.new,"
    " version = t.version + (f.new <> f.old)::integer,"
    " updated_at = case when f.new <> f.old then now() else t.updated_at end"
    " from found f where t.tenant_key = f.tenant_key and " SQL_MATCHES("$6", "t.version")
    " returning t.version, " SQL_POLICY_BODY ")"
    " select case when changed.version is null then 'precondition' else 'replaced' end,"
    " changed.version, changed.body from found left join changed on true")

/* ---- provisioning: devices ---- */
/* tenant, cursor, limit, bytes, enabled, tags */
STATEMENT(DEVICE_LIST, 7,
    "select page.* from tenant t left join lateral ("
    SQL_PAGE("select d.device_id as key, " SQL_DEVICE_BODY " from device d"
             " where d.tenant_key = t.tenant_key and ($2::text is null or d.device_id > $2::text)"
             " and ($5::boolean is null or d.enabled = $5::boolean)"
             " and ($6::jsonb is null or d.tags @> $6::jsonb)", "$3", "$4")
    ") page on true where " SQL_TENANT("t.", "$7") " order by key")
/* and by which key, since when (ms), other parts of the gateway know it */
STATEMENT(DEVICE_GET, 3,
    "select 'found', d.version, " SQL_DEVICE_BODY ", d.device_key, " SQL_MS("d.created_at")
    " from device d join tenant t using (tenant_key)"
    " where " SQL_TENANT("t.", "$3") " and d.device_id = $2::text")
/* tenant, device, enabled, group, via, metadata, tags, precondition, murmur2 of the device id */
#define SQL_DEVICE_DIFFERS \
    "row(excluded.enabled, excluded.group_name, excluded.via, excluded.metadata, excluded.tags)" \
    " is distinct from row(d.enabled, d.group_name, d.via, d.metadata, d.tags)"
STATEMENT(DEVICE_PUT, 10,
    "with t as (select tenant_key, partition_count from tenant where " SQL_TENANT("", "$10") "),"
    " changed as (insert into device as d"
    " (tenant_key, device_id, partition, enabled, group_name, via, metadata, tags)"
    " select t.tenant_key, $2::text, $9::bigint % t.partition_count, $3::boolean, $4::text,"
    " $5::text[], $6::jsonb, $7::jsonb"
    " from t where " SQL_MAY_CREATE("$8") " or exists (select from device e"
    " where e.tenant_key = t.tenant_key and e.device_id = $2::text)"
    " on conflict (tenant_key, device_id) do update set enabled = excluded.enabled,"
    " group_name = excluded.group_name, via = excluded.via,"
    " metadata = excluded.metadata, tags = excluded.tags,"
    " version = d.version + (" SQL_DEVICE_DIFFERS ")::integer,"
    " updated_at = case when " SQL_DEVICE_DIFFERS " then now() else d.updated_at end"
    " where " SQL_MATCHES("$8", "d.version")
    " returning d.xmax = 0 as created, d.version, " SQL_DEVICE_BODY ")"
    " select case when changed.created then 'created' when not changed.created then 'replaced'"
    " else 'precondition' end, changed.version, changed.body from t left join changed on true")
STATEMENT(DEVICE_DELETE, 4,
    "with found as (select d.device_key from device d join tenant t using (tenant_key)"
    " where " SQL_TENANT("t.", "$4") " and d.device_id = $2::text),"
    " gone as (delete from device d using found f where d.device_key = f.device_key and "
    SQL_MATCHES("$3", "d.version") " returning d.device_key)"
    " select case when gone.device_key is null then 'precondition' else 'deleted' end, null, null"
    " from found left join gone on true")

/* ---- provisioning: device twins ---- */
#define SQL_TWIN_BODY(v, etag, desired_at) \
    "json_build_object('device_id', r.device_id, 'tags', " v ".tags, 'desired', " v ".desired," \
    " 'version', " etag ", 'desired_version', " v ".desired_version, 'desired_at', twin_time(" desired_at ")," \
    " 'reported', r.reported, 'reported_version', r.reported_version," \
    " 'reported_at', twin_time(r.reported_at))::text as body"
STATEMENT(TWIN_GET, 3,
    "select 'found', r.etag, " SQL_TWIN_BODY("r", "r.etag", "r.desired_at")
    " from twin r join tenant t using (tenant_key)"
    " where " SQL_TENANT("t.", "$3") " and r.device_id = $2::text")
/* tenant, device, desired or null, tags or null, whether they replace what there is (else they are
 * merge patches), precondition, instance */
STATEMENT(TWIN_WRITE, 8,
    "select w.outcome, w.etag, "
    SQL_TWIN_BODY("w", "w.etag", "case when $3::jsonb is null then r.desired_at else now() end")
    " from twin r join tenant t using (tenant_key) cross join lateral"
    " twin_write(array[r.device_key], $3::jsonb, $4::jsonb, $5::boolean, $6::bigint[], $7::text) w"
    " where " SQL_TENANT("t.", "$8") " and r.device_id = $2::text")

/* ---- provisioning: credentials, CAs, API keys ---- */
/* tenant, device, cursor, limit, bytes */
STATEMENT(CREDENTIAL_LIST, 6,
    "select page.* from device d join tenant t using (tenant_key) left join lateral ("
    SQL_PAGE("select c.name as key, " SQL_CREDENTIAL_BODY " from credential c"
             " where c.device_key = d.device_key and ($3::text is null or c.name > $3::text)",
             "$4", "$5")
    ") page on true where " SQL_TENANT("t.", "$6") " and d.device_id = $2::text order by key")
STATEMENT(CREDENTIAL_GET, 4,
    "select 'found', c.version, " SQL_CREDENTIAL_BODY " from credential c"
    " join device d using (device_key) join tenant t using (tenant_key)"
    " where " SQL_TENANT("t.", "$4") " and d.device_id = $2::text and c.name = $3::text")
/* tenant, device, name, not before, not after, precondition, kind, secret, thumbprint, master key
 * id, most credentials of a device. A new key number ends the connections made with what is replaced.
 * Two gateways may count at the same time: the bound is off by the number of gateways at most. */
STATEMENT(CREDENTIAL_PUT, 12,
    "with d as (select d.device_key, c.version, (select count(*) from credential n"
    " where n.device_key = d.device_key) as total from device d join tenant t using (tenant_key)"
    " left join credential c on c.device_key = d.device_key and c.name = $3::text"
    " where " SQL_TENANT("t.", "$12") " and d.device_id = $2::text),"
    " changed as (insert into credential as c (device_key, name, kind, secret, thumbprint,"
    " master_key_id, not_before, not_after) select d.device_key, $3::text, $7::text, $8::bytea,"
    " $9::text, $10::text, $4::timestamptz, $5::timestamptz from d"
    " where d.version is not null or (" SQL_MAY_CREATE("$6") " and d.total < $11::bigint)"
    " on conflict (device_key, name) do update set"
    " credential_key = nextval('credential_key_seq'), kind = excluded.kind,"
    " secret = excluded.secret, thumbprint = excluded.thumbprint,"
    " master_key_id = excluded.master_key_id, not_before = excluded.not_before,"
    " not_after = excluded.not_after, version = c.version + 1, updated_at = now()"
    " where " SQL_MATCHES("$6", "c.version")
    " returning c.xmax = 0 as created, c.version, " SQL_CREDENTIAL_BODY ")"
    " select case when changed.created then 'created' when not changed.created then 'replaced'"
    " when d.version is null and " SQL_MAY_CREATE("$6") " then 'limit' else 'precondition' end,"
    " changed.version, changed.body from d left join changed on true")
/* tenant, device, name, not before, not after, precondition. A narrower validity gets a new key
 * number, which ends connections that rely on the wider one. */
STATEMENT(CREDENTIAL_UPDATE, 7,
    "with found as (select c.credential_key from credential c join device d using (device_key)"
    " join tenant t using (tenant_key)"
    " where " SQL_TENANT("t.", "$7") " and d.device_id = $2::text and c.name = $3::text),"
    " changed as (update credential c set not_before = $4::timestamptz,"
    " not_after = $5::timestamptz, credential_key = case when"
    " coalesce($5::timestamptz, 'infinity') < coalesce(c.not_after, 'infinity') or"
    " coalesce($4::timestamptz, '-infinity') > coalesce(c.not_before, '-infinity')"
    " then nextval('credential_key_seq') else c.credential_key end,"
    " version = c.version + 1, updated_at = now() from found f"
    " where c.credential_key = f.credential_key and " SQL_MATCHES("$6", "c.version")
    " returning c.version, " SQL_CREDENTIAL_BODY ")"
    " select case when changed.version is null then 'precondition' else 'replaced' end,"
    " changed.version, changed.body from found left join changed on true")
STATEMENT(CREDENTIAL_DELETE, 5,
    "with found as (select c.credential_key from credential c join device d using (device_key)"
    " join tenant t using (tenant_key)"
    " where " SQL_TENANT("t.", "$5") " and d.device_id = $2::text and c.name = $3::text),"
    " gone as (delete from credential c using found f where c.credential_key = f.credential_key"
    " and " SQL_MATCHES("$4", "c.version") " returning c.credential_key)"
    " select case when gone.credential_key is null then 'precondition' else 'deleted' end, null,"
    " null from found left join gone on true")

/* tenant, cursor, limit, bytes */
STATEMENT(AUTHORITY_LIST, 5,
    "select page.* from tenant t left join lateral ("
    SQL_PAGE("select a.name as key, " SQL_AUTHORITY_BODY " from certificate_authority a"
             " where a.tenant_key = t.tenant_key and ($2::text is null or a.name > $2::text)",
             "$3", "$4")
    ") page on true where " SQL_TENANT("t.", "$5") " order by key")
STATEMENT(AUTHORITY_GET, 3,
    "select 'found', a.version, " SQL_AUTHORITY_BODY " from certificate_authority a"
    " join tenant t using (tenant_key) where " SQL_TENANT("t.", "$3") " and a.name = $2::text")
/* tenant, name, certificate, proof, precondition, fingerprint, subject hash, whom the proof names,
 * whether a proof is needed, most authorities of a tenant. Another certificate gets a new key number,
 * which ends the connections that the old one vouched for. Two gateways may count at the same time:
 * the bound is off by the number of gateways at most. */
STATEMENT(AUTHORITY_PUT, 11,
    "with t as (select tenant_key, registration_code, (select count(*) from certificate_authority n"
    " where n.tenant_key = tenant.tenant_key) as total from tenant"
    " where " SQL_TENANT("", "$11") "),"
    " judged as (select t.tenant_key, case"
    " when o.version is null and not " SQL_MAY_CREATE("$5") " then 'precondition'"
    " when o.version is not null and not " SQL_MATCHES("$5", "o.version") " then 'precondition'"
    " when ($9::boolean or $4::text is not null) and o.fingerprint is distinct from $6::text"
    " and $8::text is distinct from t.registration_code then 'proof'"
    " when o.version is null and t.total >= $10::bigint then 'full' end as refusal"
    " from t left join certificate_authority o on o.tenant_key = t.tenant_key"
    " and o.name = $2::text),"
    " changed as (insert into certificate_authority as a"
    " (tenant_key, name, certificate, fingerprint, subject_hash)"
    " select judged.tenant_key, $2::text, $3::text, $6::text, $7::text from judged"
    " where judged.refusal is null"
    " on conflict (tenant_key, name) do update set"
    " credential_key = case when a.fingerprint = excluded.fingerprint then a.credential_key"
    " else nextval('credential_key_seq') end, certificate = excluded.certificate,"
    " fingerprint = excluded.fingerprint, subject_hash = excluded.subject_hash,"
    " version = a.version + (a.certificate <> excluded.certificate)::integer,"
    " updated_at = case when a.certificate <> excluded.certificate then now()"
    " else a.updated_at end"
    " where " SQL_MATCHES("$5", "a.version")
    " returning a.xmax = 0 as created, a.version, " SQL_AUTHORITY_BODY ")"
    " select case when changed.created then 'created' when not changed.created then 'replaced'"
    " else coalesce(judged.refusal, 'precondition') end, changed.version, changed.body"
    " from judged left join changed on true")
STATEMENT(AUTHORITY_DELETE, 4,
    "with found as (select a.credential_key from certificate_authority a"
    " join tenant t using (tenant_key) where " SQL_TENANT("t.", "$4") " and a.name = $2::text),"
    " gone as (delete from certificate_authority a using found f"
    " where a.credential_key = f.credential_key and " SQL_MATCHES("$3", "a.version")
    " returning a.credential_key)"
    " select case when gone.credential_key is null then 'precondition' else 'deleted' end, null,"
    " null from found left join gone on true")

/* The owner of API keys: a tenant by name, or the platform when the name is null. An unknown tenant
 * is no row, never the platform. */
#define SQL_OWNER(scope) \
    "owner as (select tenant_key from tenant where " SQL_TENANT("", scope) \
    " union all select null::bigint where $1::text is null and " scope "::bigint is null)"
#define SQL_OWNED_KEY \
    "found as (select k.credential_key from api_key k" \
    " join owner on k.tenant_key is not distinct from owner.tenant_key where k.key_id = $2::text)"
/* tenant or null, cursor, limit, bytes */
STATEMENT(API_KEY_LIST, 5,
    "with " SQL_OWNER("$5") " select page.* from owner left join lateral ("
    SQL_PAGE("select k.key_id as key, " SQL_API_KEY_BODY " from api_key k"
             " where k.tenant_key is not distinct from owner.tenant_key"
             " and ($2::text is null or k.key_id > $2::text)", "$3", "$4")
    ") page on true order by key")
STATEMENT(API_KEY_GET, 3,
    "with " SQL_OWNER("$3") ", " SQL_OWNED_KEY " select 'found', k.version, " SQL_API_KEY_BODY
    " from api_key k join found using (credential_key)")
/* tenant or null, key id, roles, description, not after, secret, keys for SCRAM, master key id, most
 * of a tenant. Two gateways may count at the same time: the bound is off by the number of gateways
 * at most. */
STATEMENT(API_KEY_CREATE, 10,
    "with " SQL_OWNER("$10") ", room as (select owner.tenant_key, (select count(*) from api_key n"
    " where n.tenant_key = owner.tenant_key) < $9::bigint as is_left from owner),"
    " made as (insert into api_key as k"
    " (key_id, tenant_key, roles, description, not_after, secret, scram, master_key_id)"
    " select $2::text, room.tenant_key, $3::integer, $4::text, $5::timestamptz, $6::bytea,"
    " $7::bytea, $8::text from room where room.is_left on conflict (key_id) do nothing"
    " returning k.version, " SQL_API_KEY_BODY ")"
    " select case when made.version is not null then 'created' when room.is_left then 'exists'"
    " else 'crowded' end, made.version, made.body from room left join made on true")
/* tenant or null, key id, roles, description, not after, precondition */
STATEMENT(API_KEY_UPDATE, 7,
    "with " SQL_OWNER("$7") ", " SQL_OWNED_KEY ", changed as (update api_key k set"
    " roles = $3::integer, description = $4::text, not_after = $5::timestamptz,"
    " version = k.version + 1, updated_at = now() from found f"
    " where k.credential_key = f.credential_key and " SQL_MATCHES("$6", "k.version")
    " returning k.version, " SQL_API_KEY_BODY ")"
    " select case when changed.version is null then 'precondition' else 'replaced' end,"
    " changed.version, changed.body from found left join changed on true")
STATEMENT(API_KEY_DELETE, 4,
    "with " SQL_OWNER("$4") ", " SQL_OWNED_KEY ", gone as (delete from api_key k using found f"
    " where k.credential_key = f.credential_key and " SQL_MATCHES("$3", "k.version")
    " returning k.credential_key)"
    " select case when gone.credential_key is null then 'precondition' else 'deleted' end, null,"
    " null from found left join gone on true")

/* ---- provisioning: access policies ---- */
/* tenant, cursor, limit, bytes */
STATEMENT(ACCESS_POLICY_LIST, 5,
    "select page.* from tenant t left join lateral ("
    SQL_PAGE("select p.name as key, " SQL_ACCESS_POLICY_BODY " from access_policy p"
             " where p.tenant_key = t.tenant_key and ($2::text is null or p.name > $2::text)",
             "$3", "$4")
    ") page on true where " SQL_TENANT("t.", "$5") " order by key")
STATEMENT(ACCESS_POLICY_GET, 3,
    "select 'found', p.version, " SQL_ACCESS_POLICY_BODY " from access_policy p"
    " join tenant t using (tenant_key) where " SQL_TENANT("t.", "$3") " and p.name = $2::text")
/* tenant, name, rights, precondition, sealed keys, master key id, whether they replace those that
 * are there, most of a tenant. Other keys get a new key number, which ends connections made with the
 * old ones. Two gateways may count at the same time: the bound is off by the number of gateways at
 * most. */
STATEMENT(ACCESS_POLICY_PUT, 9,
    "with t as (select tenant_key, (select count(*) from access_policy n"
    " where n.tenant_key = tenant.tenant_key) as total, exists (select from access_policy n"
    " where n.tenant_key = tenant.tenant_key and n.name = $2::text) as is_there"
    " from tenant where " SQL_TENANT("", "$9") "),"
    " changed as (insert into access_policy as p (tenant_key, name, rights, secret, master_key_id)"
    " select t.tenant_key, $2::text, $3::integer, $5::bytea, $6::text from t"
    " where t.is_there or (" SQL_MAY_CREATE("$4") " and t.total < $8::bigint)"
    " on conflict (tenant_key, name) do update set rights = excluded.rights,"
    " credential_key = case when $7::boolean then nextval('credential_key_seq')"
    " else p.credential_key end,"
    " secret = case when $7::boolean then excluded.secret else p.secret end,"
    " master_key_id = case when $7::boolean then excluded.master_key_id else p.master_key_id end,"
    " version = p.version + ($7::boolean or p.rights <> excluded.rights)::integer,"
    " updated_at = now() where " SQL_MATCHES("$4", "p.version")
    " returning p.xmax = 0 as created, p.version, " SQL_ACCESS_POLICY_BODY ")"
    " select case when changed.created then 'created' when not changed.created then 'replaced'"
    " when not t.is_there and " SQL_MAY_CREATE("$4") " then 'policies' else 'precondition' end,"
    " changed.version, changed.body from t left join changed on true")
STATEMENT(ACCESS_POLICY_DELETE, 4,
    "with found as (select p.credential_key from access_policy p join tenant t using (tenant_key)"
    " where " SQL_TENANT("t.", "$4") " and p.name = $2::text),"
    " gone as (delete from access_policy p using found f"
    " where p.credential_key = f.credential_key and " SQL_MATCHES("$3", "p.version")
    " returning p.credential_key)"
    " select case when gone.credential_key is null then 'precondition' else 'deleted' end, null,"
    " null from found left join gone on true")
/* ---- the rest, in files of its own ---- */
#include "registry/statements_commands_table.h"
#include "registry/statements_iothub_table.h"
#include "registry/statements_jobs_table.h"

/* clang-format on */
