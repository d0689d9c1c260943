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

/* ---- gateway: commands (gateway/command/) ----
 * What comes as one parameter is a JSON array with an object for each row. Nobody holds a row whose
 * holder is null, or an instance whose lease is over. */
#define SQL_IS_FREE(row, instance) \
    "(" row ".holder is null or (" row ".holder <> " instance "::text and not exists (select from" \
    " gateway_instance g where g.instance = " row ".holder and g.lease_until > now())))"
/* The device keys of rows (an aliased table), told as "<instance>:<key>,...", many at a time. */
#define SQL_NOTIFY(rows, instance) \
    "(select count(pg_notify('duragate_command', " instance "::text || ':' || keys)) from (select" \
    " string_agg(device_key::text, ',') as keys from (select device_key, row_number() over () / 400" \
    " as part from (select distinct device_key from " rows ") each_once) numbered" \
    " group by part) told)"
/* Columns of enum command_column (gateway/command/command_store.c). */
#define SQL_COMMAND_ROW(c) \
    c ".command_key, " c ".device_key, " c ".name, encode(" c ".payload, 'base64'), " \
    c ".content_type, " c ".properties::text, " c ".dialect, " c ".wants_reply, " c ".state, " \
    c ".delivery_count, " SQL_MS(c ".created_at") ", " SQL_MS(c ".expires_at") ", " \
    SQL_MS(c ".sent_at") ", " SQL_MS(c ".delivered_at") ", " c ".is_final, t.tenant_key," \
    " t.stream_id, d.partition, t.name, d.device_id"
#define SQL_COMMAND_FROM(c) \
    " from " c " c join device d on d.device_key = c.device_key" \
    " join tenant t on t.tenant_key = c.tenant_key"
/* instance, ms */
STATEMENT(INSTANCE_RENEW, 2,
    "insert into gateway_instance (instance, lease_until)"
    " values ($1::text, now() + $2::integer * interval '1 ms')"
    " on conflict (instance) do update set lease_until = excluded.lease_until")
/* instance: what it held before it was started, and has said all about */
STATEMENT(INSTANCE_RELEASE, 1,
    "with freed as (update command set holder = null where holder = $1::text returning device_key)"
    " select " SQL_NOTIFY("freed", "$1"))
/* commands, instance, most pending of one device. Outcomes: created, exists, limit, gone (the
 * device), again (one with the same idempotency key is being created). Not held: for others to
 * deliver as well. */
STATEMENT(COMMAND_CREATE, 3,
    "with wanted as materialized (select w.*, nextval(pg_get_serial_sequence('command',"
    " 'command_key')) as command_key, row_number() over (partition by w.device_key order by w.n) +"
    " (select count(*) from command c where c.device_key = w.device_key and not c.is_final) as place,"
    " d.tenant_key, e.command_key as known_key, e.created_at as known_at, e.expires_at as known_until"
    " from json_to_recordset($1::json) as w (n integer, device_key bigint, name text, payload text,"
    " content_type text, properties jsonb, dialect text, wants_reply boolean, ttl_ms bigint,"
    " idempotency_key text, held boolean, most bigint)"
    " left join lateral (select tenant_key from device where device_key = w.device_key limit 1) d on true"
    " left join lateral (select command_key, created_at, expires_at from command"
    " where device_key = w.device_key and idempotency_key = w.idempotency_key limit 1) e on true"
    " order by w.n),"
    " made as (insert into command (command_key, tenant_key, device_key, name, payload,"
    " content_type, properties, dialect, wants_reply, idempotency_key, holder, expires_at)"
    " overriding system value select command_key, tenant_key, device_key, name,"
    " decode(payload, 'base64'), content_type, properties, dialect, wants_reply, idempotency_key,"
    " case when held then $2::text end, now() + ttl_ms * interval '1 ms' from wanted"
    " where tenant_key is not null and place <= least(most, $3::bigint) and known_key is null"
    " order by n"
    " on conflict (device_key, idempotency_key) do nothing"
    " returning command_key, tenant_key, device_key, holder, created_at, expires_at),"
    " told as (insert into stream_outbox (instance, tenant_key, device_key, kind, command_key)"
    " select $2::text, tenant_key, device_key, 'command.queued', command_key from made"
    " returning outbox_key, command_key),"
    " free as (select device_key from made where holder is null)"
    " select w.n, coalesce(m.command_key, w.known_key), case when m.command_key is not null then"
    " 'created' when w.known_key is not null then 'exists' when w.tenant_key is null then 'gone'"
    " when w.place > least(w.most, $3::bigint) then 'limit' else 'again' end, told.outbox_key, "
    SQL_MS("coalesce(m.created_at, w.known_at)") ", "
    SQL_MS("coalesce(m.expires_at, w.known_until)") ", " SQL_NOTIFY("free", "$2")
    " from wanted w left join made m using (command_key) left join told using (command_key)")
/* devices and how many of each, instance, bytes of all payloads (but one in any case): those that
 * wait, in order, now held here (a row of nulls when there are none), and how many there would be
 * without the last. What another instance holds must not be overtaken: it hears that the device is
 * here, and so does who asks. */
STATEMENT(COMMAND_TAKE, 3,
    "with wanted as (select w.*, (select min(o.command_key) from command o where o.device_key ="
    " w.device_key and not o.is_final and o.state <> 'delivered' and o.holder <> $2::text and not "
    SQL_IS_FREE("o", "$2") ") as barrier from json_to_recordset($1::json) as w (device_key bigint,"
    " most integer)),"
    " found as (select c.* from wanted w, lateral (select c.command_key, c.device_key,"
    " octet_length(c.payload) as bytes from command c where c.device_key = w.device_key and not c.is_final and c.state <> 'delivered'"
    " and c.expires_at > now() and (w.barrier is null or c.command_key < w.barrier) and "
    SQL_IS_FREE("c", "$2") " order by c.command_key limit w.most for update skip locked) c),"
    " fits as (select command_key from (select command_key, sum(bytes) over place as total,"
    " row_number() over place as number from found window place as (order by device_key,"
    " command_key)) sized where total <= $3::bigint or number = 1),"
    " taken as (update command c set holder = $2::text from fits f"
    " where c.command_key = f.command_key returning c.*),"
    " barred as (select device_key from wanted where barrier is not null),"
    " told as (select " SQL_NOTIFY("barred", "'?' || $2") " as count)"
    " select " SQL_COMMAND_ROW("c") ", (select count(*) from found), told.count from told left join (taken c"
    " join lateral (select partition, device_id from device where device_key = c.device_key limit 1)"
    " d on true join lateral (select tenant_key, stream_id, name from tenant"
    " where tenant_key = c.tenant_key limit 1) t on true) on true order by c.command_key")
/* instance, after this key, most: what it holds, and has for a while */
STATEMENT(COMMAND_HELD, 3,
    "select c.command_key, c.device_key from command c where c.holder = $1::text"
    " and not c.is_final and c.command_key > $2::bigint"
    " and c.created_at < now() - interval '10 s' order by c.command_key limit $3::integer")
/* instance, after this device, most: devices that something waits for, here or elsewhere */
STATEMENT(COMMAND_WAITING, 3,
    "select distinct c.device_key from command c where not c.is_final and c.state <> 'delivered'"
    " and c.device_key > $2::bigint and c.holder is distinct from $1::text"
    " order by c.device_key limit $3::integer")
/* device, command, instance: the one that a device replies to; held here unless it is over. Another
 * instance that holds it hears that the device is here. */
STATEMENT(COMMAND_FIND, 3,
    "with found as (select command_key from command c where c.device_key = $1::bigint"
    " and c.command_key = $2::bigint and not c.is_final and (c.holder = $3::text or "
    SQL_IS_FREE("c", "$3") ") for update),"
    " taken as (update command c set holder = $3::text from found f"
    " where c.command_key = f.command_key returning c.*),"
    " barred as (select c.device_key from command c where c.device_key = $1::bigint"
    " and c.command_key = $2::bigint and not c.is_final and c.holder <> $3::text and not "
    SQL_IS_FREE("c", "$3") "),"
    " told as (select " SQL_NOTIFY("barred", "'?' || $3") " as count)"
    " select " SQL_COMMAND_ROW("c") ", k.command_key is not null, told.count"
    SQL_COMMAND_FROM("command") " left join taken k on k.command_key = c.command_key, told"
    " where c.device_key = $1::bigint and c.command_key = $2::bigint")
/* commands (keys only), instance: not held any more, and others may deliver them */
STATEMENT(COMMAND_RELEASE, 2,
    "with freed as (update command c set holder = null from json_to_recordset($1::json) as r"
    " (k bigint) where c.command_key = r.k and c.holder = $2::text and not c.is_final"
    " returning c.device_key) select " SQL_NOTIFY("freed", "$2"))
/* rows of gateway/command/command_event.h, instance. What is said twice is said once; the last row
 * of a command holds. A reply that was taken before the command was called expired, by a gateway
 * that could not know, is what holds. */
STATEMENT(COMMAND_PROJECT, 2,
    "with said as (select distinct on (r.k) r.* from rows from (json_to_recordset($1::json) as"
    " (k bigint, s text, f boolean, n integer, st bigint, dt bigint, ft bigint, rs integer, rt text,"
    " rp text, why text)) with ordinality as r (k, s, f, n, st, dt, ft, rs, rt, rp, why, place)"
    " order by r.k, r.place desc)"
    " update command c set state = r.s, is_final = r.f, delivery_count = r.n,"
    " sent_at = to_timestamp(r.st / 1000.0), delivered_at = to_timestamp(r.dt / 1000.0),"
    " finished_at = to_timestamp(r.ft / 1000.0), reply_status = r.rs, reply_content_type = r.rt,"
    " reply = decode(r.rp, 'base64'), reason = r.why,"
    " holder = case when r.f then null else c.holder end"
    " from said r where c.command_key = r.k and (c.holder = $2::text or r.f) and (not c.is_final"
    " or (c.state = 'expired' and r.s in ('completed', 'rejected')))")
/* instance, at most so many: whose time is over */
STATEMENT(COMMAND_EXPIRE, 2,
    "with found as (select command_key from command c where not c.is_final and c.expires_at <= now()"
    " and " SQL_IS_FREE("c", "$1")
    " order by c.expires_at limit $2::integer for update skip locked),"
    " changed as (update command c set is_final = true, finished_at = now(), holder = null,"
    " state = 'expired', reason = 'its time to live was over'"
    " from found f where c.command_key = f.command_key"
    " returning c.command_key, c.tenant_key, c.device_key, c.state),"
    " told as (insert into stream_outbox (instance, tenant_key, device_key, kind, command_key)"
    " select $1::text, tenant_key, device_key, 'command.' || state, command_key from changed"
    " returning 1) select count(*) from told")
/* instance, at most so many: what instances whose lease is over hold is nobody's, and all hear it */
STATEMENT(COMMAND_FREE, 2,
    "with found as (select c.command_key from gateway_instance g join command c"
    " on c.holder = g.instance where g.lease_until < now() and g.instance <> $1::text"
    " and not c.is_final limit $2::integer for update of c skip locked),"
    " freed as (update command c set holder = null from found f"
    " where c.command_key = f.command_key returning c.device_key)"
    " select " SQL_NOTIFY("freed", "''"))
/* ms that finished commands are kept, at most so many */
STATEMENT(COMMAND_COLLECT, 2,
    "delete from command where command_key in (select c.command_key from command c"
    " where c.is_final and c.finished_at < now() - $1::bigint * interval '1 ms'"
    " and not exists (select from stream_outbox o where o.command_key = c.command_key)"
    " order by c.finished_at limit $2::integer)")
/* instance, after this key, everything or only what no answer is awaited of, most: columns of enum
 * outbox_column (gateway/command/relay.c) */
STATEMENT(OUTBOX_READ, 4,
    "select o.outbox_key, o.kind, o.device_key, t.tenant_key, t.stream_id, d.partition, t.name,"
    " d.device_id, o.detail::text, o.command_key, c.name, c.delivery_count, "
    SQL_MS("c.created_at") ", " SQL_MS("c.expires_at") ", c.reason"
    " from stream_outbox o left join device d on d.device_key = o.device_key"
    " left join tenant t on t.tenant_key = o.tenant_key"
    " left join command c on c.command_key = o.command_key"
    " where o.instance = $1::text and o.outbox_key > $2::bigint and ($3::boolean"
    " or o.kind <> 'command.queued' or o.created_at < now() - interval '10 s')"
    " order by o.outbox_key limit $4::integer")
/* keys "{1,2,...}": those that are in no row any more */
STATEMENT(OUTBOX_GONE, 1,
    "select k from unnest($1::bigint[]) k"
    " where not exists (select from stream_outbox o where o.outbox_key = k)")
/* keys: "{1,2,...}" */
STATEMENT(OUTBOX_DELETE, 1,
    "delete from stream_outbox where outbox_key = any ($1::bigint[])")
/* instance: rows of those that have gone for good are its own from now on */
STATEMENT(OUTBOX_ADOPT, 1,
    "update stream_outbox o set instance = $1::text where o.instance <> $1::text and exists (select"
    " from gateway_instance g where g.instance = o.instance"
    " and g.lease_until < now() - interval '5 minutes')")

/* ---- gateway: device twins (gateway/command/twins.h) ---- */
/* devices, those of them whose last changes are asked for: columns of enum twin_column */
STATEMENT(TWIN_LOAD, 2,
    "select device_key, desired_version, desired::text, case when device_key = any ($2::bigint[])"
    " then desired_recent::text end, reported_version, reported::text from twin"
    " where device_key = any ($1::bigint[])")
/* rows (schemas/0008_twins.sql), instance */
STATEMENT(TWIN_PROJECT, 2, "select twin_project($1::jsonb, $2::text)")

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

/* ---- provisioning: commands ---- */
/* The key in "c12", null for what is none. */
#define SQL_COMMAND_KEY(p) \
    "(case when " p "::text ~ '^c[1-9][0-9]{0,14}$' then substr(" p "::text, 2)::bigint end)"
/* Rounded as SQL_MS rounds: the answer to POST is made of that. */
#define SQL_COMMAND_TIME(column) SQL_TIME("(" column " + interval '0.5 ms')")
/* Without payloads, which GET of one adds. */
#define SQL_COMMAND_MEMBERS \
    "'command_id', 'c' || c.command_key, 'name', c.name, 'state', c.state, 'delivery_count'," \
    " c.delivery_count, 'wants_reply', c.wants_reply, 'content_type', nullif(c.content_type, '')," \
    " 'created_at', " SQL_COMMAND_TIME("c.created_at") ", 'expires_at', " \
    SQL_COMMAND_TIME("c.expires_at") ", 'sent_at', " SQL_COMMAND_TIME("c.sent_at") \
    ", 'delivered_at', " SQL_COMMAND_TIME("c.delivered_at") ", 'finished_at', " \
    SQL_COMMAND_TIME("c.finished_at") ", 'reason', c.reason, 'idempotency_key', c.idempotency_key"
#define SQL_COMMAND_REPLY \
    "case when c.reply_status is not null then json_build_object('status', c.reply_status," \
    " 'content_type', nullif(c.reply_content_type, '')) end"
#define SQL_BASE64(column) "translate(encode(" column ", 'base64'), E'\\n', '')"
/* tenant, device, cursor, limit, bytes, state */
STATEMENT(COMMAND_LIST, 7,
    "select page.* from device d join tenant t using (tenant_key) left join lateral ("
    SQL_PAGE("select c.command_key as key, json_build_object(" SQL_COMMAND_MEMBERS
             ", 'reply', " SQL_COMMAND_REPLY ")::text as body from command c"
             " where c.device_key = d.device_key and ($6::text is null or c.state = $6::text)"
             " and ($3::text is null or c.command_key > (case when $3::text ~ '^[0-9]{1,18}$'"
             " then $3::bigint end))", "$4", "$5")
    ") page on true where " SQL_TENANT("t.", "$7") " and d.device_id = $2::text order by key")
/* tenant, device, command: columns of enum command_column (provisioning/command_view.h) */
STATEMENT(COMMAND_GET, 4,
    "select json_build_object(" SQL_COMMAND_MEMBERS ", 'properties', c.properties)::text, c.state,"
    " c.is_final, " SQL_BASE64("c.payload") ", (" SQL_COMMAND_REPLY ")::text, "
    SQL_BASE64("c.reply") " from command c join device d on d.device_key = c.device_key"
    " join tenant t on t.tenant_key = d.tenant_key where " SQL_TENANT("t.", "$4")
    " and d.device_id = $2::text and c.command_key = " SQL_COMMAND_KEY("$3"))
/* tenant, device, command, instance. Outcomes: cancelled, held (by a gateway that delivers it),
 * over; with the state that it has, or had. */
STATEMENT(COMMAND_CANCEL, 5,
    "with found as (select c.command_key, c.tenant_key, c.device_key, c.state, c.is_final, "
    SQL_IS_FREE("c", "$4") " as is_free from command c join device d on d.device_key = c.device_key"
    " join tenant t on t.tenant_key = d.tenant_key where " SQL_TENANT("t.", "$5")
    " and d.device_id = $2::text and c.command_key = " SQL_COMMAND_KEY("$3") " for update of c),"
    " changed as (update command c set state = 'cancelled', is_final = true, finished_at = now(),"
    " holder = null from found f where c.command_key = f.command_key and f.is_free"
    " and not f.is_final returning c.command_key),"
    " told as (insert into stream_outbox (instance, tenant_key, device_key, kind, command_key)"
    " select $4::text, f.tenant_key, f.device_key, 'command.cancelled', f.command_key from found f"
    " join changed using (command_key) returning 1)"
    " select case when g.command_key is not null then 'cancelled' when f.is_final then 'over'"
    " else 'held' end, f.state from found f left join changed g using (command_key)")

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

/* ---- where commands and calls for a device go (registry/device.c) ---- */
/* tenant, device; where commands for it go */
STATEMENT(COMMAND_DEVICE, 3,
    "select t.tenant_key, t.stream_id, d.device_key, d.partition, t.name, d.device_id"
    " from device d join tenant t using (tenant_key)"
    " where " SQL_TENANT("t.", "$3") " and d.device_id = $2::text")
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

/* ---- the service API of Azure IoT Hub (provisioning/iothub_devices.c) ---- */
/* Columns of enum device_column there. What back ends did not say of a device its credentials tell. */
#define SQL_IOTHUB_DEVICE \
    "d.device_id as key, d.version, d.device_key, d.enabled, d.status_reason, " \
    SQL_MS("d.status_updated_at") ", (select count(*) from command c where" \
    " c.device_key = d.device_key and c.dialect = 'iothub' and not c.is_final)," \
    " coalesce(d.authentication, case when s.name is not null then 'sas'" \
    " when p.name is not null or q.name is not null then 'selfSigned'" \
    " else 'certificateAuthority' end), encode(s.secret, 'hex'), s.master_key_id, s.name," \
    " p.thumbprint, q.thumbprint, (select count(*) from credential o" \
    " where o.device_key = d.device_key and o.name not in ('iothub-primary', 'iothub-secondary')" \
    " and o.name is distinct from s.name)"
#define SQL_IOTHUB_CREDENTIALS \
    " left join lateral (select c.name, c.secret, c.master_key_id from credential c" \
    " where c.device_key = d.device_key and c.kind = 'sas'" \
    " order by c.name <> 'iothub', c.credential_key limit 1) s on true" \
    " left join credential p on p.device_key = d.device_key and p.kind = 'x509'" \
    " and p.name = 'iothub-primary'" \
    " left join credential q on q.device_key = d.device_key and q.kind = 'x509'" \
    " and q.name = 'iothub-secondary'"
/* tenant, ids as an array of JSON. Of those that are there. */
STATEMENT(IOTHUB_DEVICES_GET, 3,
    "select " SQL_IOTHUB_DEVICE " from tenant t join device d using (tenant_key)"
    SQL_IOTHUB_CREDENTIALS " where " SQL_TENANT("t.", "$3")
    " and d.device_id in (select jsonb_array_elements_text($2::jsonb))")
/* tenant, limit */
STATEMENT(IOTHUB_DEVICES_LIST, 3,
    "select " SQL_IOTHUB_DEVICE " from tenant t join device d using (tenant_key)"
    SQL_IOTHUB_CREDENTIALS " where " SQL_TENANT("t.", "$3") " order by d.device_id limit $2::bigint")
/* tenant, changes as an array of JSON: the version that is expected (0: none), and what is to be;
 * master key id. A row for each: its id and what was done. Keys and thumbprints that replace others
 * get a new key number, which ends connections made with the old ones. */
STATEMENT(IOTHUB_DEVICES_WRITE, 4,
    "with t as (select tenant_key, partition_count from tenant where " SQL_TENANT("", "$4") "),"
    " w as materialized (select * from jsonb_to_recordset($2::jsonb) w (id text, expected bigint,"
    " removes boolean, hash bigint, enabled boolean, reason text, authentication text, sas text,"
    " secret text, first text, second text)),"
    " created as (insert into device as d (tenant_key, device_id, partition, enabled,"
    " status_reason, status_updated_at, authentication) select t.tenant_key, w.id,"
    " w.hash % t.partition_count, w.enabled, w.reason, now(), w.authentication from w, t"
    " where w.expected = 0 and not w.removes on conflict (tenant_key, device_id) do nothing"
    " returning d.device_id, d.device_key),"
    " changed as (update device d set enabled = w.enabled, status_reason = w.reason,"
    " status_updated_at = case when d.enabled <> w.enabled then now() else d.status_updated_at end,"
    " authentication = coalesce(w.authentication, d.authentication), version = d.version + 1,"
    " updated_at = now() from w, t where d.tenant_key = t.tenant_key and d.device_id = w.id"
    " and d.version = w.expected and not w.removes returning d.device_id, d.device_key),"
    " removed as (delete from device d using w, t where d.tenant_key = t.tenant_key"
    " and d.device_id = w.id and d.version = w.expected and w.removes returning d.device_id),"
    " written as (select c.device_key, w.* from (select * from created union all"
    " select * from changed) c join w on w.id = c.device_id where w.authentication is not null),"
    " keyed as (insert into credential as c (device_key, name, kind, secret, master_key_id)"
    " select w.device_key, w.sas, 'sas', decode(w.secret, 'hex'), $3::text from written w"
    " where w.secret is not null on conflict (device_key, name) do update set kind = 'sas',"
    " secret = excluded.secret, thumbprint = null, master_key_id = excluded.master_key_id,"
    " not_before = null, not_after = null, credential_key = nextval('credential_key_seq'),"
    " version = c.version + 1, updated_at = now()),"
    " pinned as (insert into credential as c (device_key, name, kind, thumbprint)"
    " select w.device_key, x.name, 'x509', x.thumbprint from written w cross join lateral (values"
    " ('iothub-primary', w.first), ('iothub-secondary', w.second)) x (name, thumbprint)"
    " where x.thumbprint is not null on conflict (device_key, name) do update set kind = 'x509',"
    " secret = null, thumbprint = excluded.thumbprint, master_key_id = null, not_before = null,"
    " not_after = null, credential_key = nextval('credential_key_seq'), version = c.version + 1,"
    " updated_at = now() where c.thumbprint is distinct from excluded.thumbprint),"
    " dropped as (delete from credential c using written w where c.device_key = w.device_key"
    " and (c.name = 'iothub-primary' and w.first is null or"
    " c.name = 'iothub-secondary' and w.second is null or"
    " c.name = w.sas and c.kind = 'sas' and w.authentication <> 'sas'))"
    " select w.id, case when w.id in (select device_id from created) then 'created'"
    " when w.id in (select device_id from changed) then 'replaced'"
    " when w.id in (select device_id from removed) then 'deleted' else 'precondition' end"
    " from w, t")
/* tenant, device, instance: what no gateway is delivering is cancelled; how many it were. */
STATEMENT(IOTHUB_COMMANDS_PURGE, 4,
    "with found as (select d.device_key from tenant t join device d using (tenant_key)"
    " where " SQL_TENANT("t.", "$4") " and d.device_id = $2::text),"
    " changed as (update command c set is_final = true, finished_at = now(), holder = null,"
    " state = 'cancelled', reason = 'the queue was purged' from found f"
    " where c.device_key = f.device_key and c.dialect = 'iothub' and not c.is_final"
    " and c.state <> 'delivered' and " SQL_IS_FREE("c", "$3")
    " returning c.command_key, c.tenant_key, c.device_key),"
    " told as (insert into stream_outbox (instance, tenant_key, device_key, kind, command_key)"
    " select $3::text, tenant_key, device_key, 'command.cancelled', command_key from changed)"
    " select (select count(*) from changed) from found")
/* tenant */
STATEMENT(IOTHUB_DEVICES_COUNT, 2,
    "select count(d.device_key), count(d.device_key) filter (where d.enabled)"
    " from tenant t left join device d using (tenant_key) where " SQL_TENANT("t.", "$2"))

/* A twin as JSON, of device d and twin w; what only an answer has comes with the second. */
#define SQL_IOTHUB_PROPERTIES(state) \
    "w." state " || jsonb_build_object('$metadata', w." state "_metadata, '$version', w." state \
    "_version)"
#define SQL_IOTHUB_TWIN \
    "jsonb_build_object('deviceId', d.device_id, 'etag', encode(int8send(w.etag), 'base64')," \
    " 'deviceEtag', encode(int8send(d.version), 'base64'), 'status', case when d.enabled" \
    " then 'enabled' else 'disabled' end, 'statusReason', d.status_reason, 'statusUpdateTime'," \
    " coalesce(" SQL_TIME("d.status_updated_at") ", '0001-01-01T00:00:00'), 'connectionState'," \
    " 'Disconnected', 'lastActivityTime', '0001-01-01T00:00:00', 'authenticationType'," \
    " coalesce(d.authentication, case when exists (select from credential c" \
    " where c.device_key = d.device_key and c.kind = 'sas') then 'sas' when exists (select" \
    " from credential c where c.device_key = d.device_key and c.kind = 'x509'" \
    " and c.name in ('iothub-primary', 'iothub-secondary')) then 'selfSigned'" \
    " else 'certificateAuthority' end), 'modelId', '', 'version', w.etag + w.reported_version - 1," \
    " 'tags', w.tags, 'properties', jsonb_build_object('desired', " \
    SQL_IOTHUB_PROPERTIES("desired") ", 'reported', " SQL_IOTHUB_PROPERTIES("reported") \
    "), 'capabilities', jsonb_build_object('iotEdge', false))"
#define SQL_IOTHUB_THUMBPRINT(device_key, name) \
    "(select c.thumbprint from credential c where c.device_key = " device_key " and c.name = '" \
    name "' and c.kind = 'x509')"
#define SQL_IOTHUB_TWIN_MORE(device_key) \
    "jsonb_build_object('cloudToDeviceMessageCount', (select count(*) from command c" \
    " where c.device_key = " device_key " and c.dialect = 'iothub' and not c.is_final)," \
    " 'x509Thumbprint', jsonb_build_object('primaryThumbprint', " \
    SQL_IOTHUB_THUMBPRINT(device_key, "iothub-primary") ", 'secondaryThumbprint', " \
    SQL_IOTHUB_THUMBPRINT(device_key, "iothub-secondary") "))"
/* tenant, device */
STATEMENT(IOTHUB_TWIN_GET, 3,
    "select d.device_key, w.etag, (" SQL_IOTHUB_TWIN " || " SQL_IOTHUB_TWIN_MORE("d.device_key")
    ")::text from tenant t join device d using (tenant_key) join twin w on w.device_key ="
    " d.device_key where " SQL_TENANT("t.", "$3") " and d.device_id = $2::text")
/* tenant, device, desired state and tags (null: left alone), whether they replace what is there,
 * precondition, instance */
STATEMENT(IOTHUB_TWIN_WRITE, 8,
    "select x.outcome from tenant t join device d using (tenant_key), lateral twin_write("
    "array[d.device_key], $3::jsonb, $4::jsonb, $5::boolean, $6::bigint[], $7::text) x"
    " where " SQL_TENANT("t.", "$8") " and d.device_id = $2::text")
/* tenant, SQL/JSON path or null, cursor, limit, bytes, how many are looked at. Whether a device is
 * connected only the gateway knows: a row says what holds in either case. */
#define SQL_IOTHUB_HOLDS(state) \
    "($2::text is null or coalesce(jsonb_path_match(s.doc || '{\"connectionState\": \"" state \
    "\"}', $2::text::jsonpath, '{}', true), false))"
STATEMENT(IOTHUB_QUERY, 7,
    "with scanned as materialized (select d.device_id as key, d.device_key, " SQL_IOTHUB_TWIN
    " as doc from tenant t join device d using (tenant_key) join twin w on w.device_key ="
    " d.device_key where " SQL_TENANT("t.", "$7") " and ($3::text is null or d.device_id >"
    " $3::text) order by d.device_id limit $6::bigint),"
    " judged as materialized (select s.*, " SQL_IOTHUB_HOLDS("Connected") " as if_connected, "
    SQL_IOTHUB_HOLDS("Disconnected") " as if_disconnected from scanned s)"
    " select looked.total, looked.last, page.* from (select count(*) as total, max(key) as last"
    " from scanned) looked left join lateral ("
    SQL_PAGE("select j.key, json_build_object('device_key', j.device_key, 'if_connected',"
             " j.if_connected, 'if_disconnected', j.if_disconnected, 'twin', j.doc || "
             SQL_IOTHUB_TWIN_MORE("j.device_key") ")::text as body from judged j"
             " where j.if_connected or j.if_disconnected", "$4", "$5")
    ") page on true order by page.key")

/* clang-format on */
