/* Statements of commands and twins as the gateway delivers them (schemas/0006_commands.sql,
 * 0008_twins.sql), a part of statements_table.h with its shapes. */
/* clang-format off */
/* ---- gateway: commands (gateway/command/) ----
 * What comes as one parameter is a JSON array with an object for each row. Nobody holds a row whose
 * holder is null, or an instance whose lease is over. */
#define SQL_IS_FREE(row, instance) \
    "(" row ".holder is null or (" row ".holder <> " instance "::text and not exists (select from" \
    " gateway_instance g where g.instance = " row ".holder and g.lease_until > now())))"
/* A limit in the text, not as a parameter: the planner would take it for a tenth of the table, and
 * look at all of it. */
#define SQL_LIMIT(limit) SQL_LIMIT_TEXT(limit)
#define SQL_LIMIT_TEXT(limit) #limit
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
/* instance: some of what it held before it was started, and has said all about. How many. */
STATEMENT(INSTANCE_RELEASE, 1,
    "with found as (select command_key from command where holder = $1::text"
    " limit " SQL_LIMIT(LIMIT_COMMANDS_COLLECTED) "),"
    " freed as (update command c set holder = null from found f where c.command_key = f.command_key"
    " returning c.device_key)"
    " select (select count(*) from freed), " SQL_NOTIFY("freed", "$1"))
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
    " and c.expires_at > now() and c.is_announced and (w.barrier is null or c.command_key < w.barrier) and "
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
 * of a command holds. So does what is nobody's since the lease was over, unless another instance
 * has gone on with it meanwhile. A reply that was taken before the command was called expired, by a gateway
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
    " from said r where c.command_key = r.k and (c.holder = $2::text or r.f"
    " or (c.holder is null and c.state <> 'delivered' and c.delivery_count <= r.n)) and (not c.is_final"
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
/* ms that finished commands are kept: some of those whose time is over. How many. */
STATEMENT(COMMAND_COLLECT, 1,
    "with found as (select c.command_key from command c where c.is_final and c.job_key is null"
    " and c.finished_at < now() - $1::bigint * interval '1 ms' and c.command_key not in"
    " (select o.command_key from stream_outbox o where o.command_key is not null)"
    " order by c.finished_at limit " SQL_LIMIT(LIMIT_COMMANDS_COLLECTED) " for update skip locked),"
    " gone as (delete from command c using found f where c.command_key = f.command_key returning 1)"
    " select count(*) from gone")
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
    " or o.kind <> 'command.queued' or not c.is_announced"
    " or o.created_at < now() - interval '10 s')"
    " order by o.outbox_key limit $4::integer")
/* keys "{1,2,...}": those that are in no row any more */
STATEMENT(OUTBOX_GONE, 1,
    "select k from unnest($1::bigint[]) k"
    " where not exists (select from stream_outbox o where o.outbox_key = k)")
/* keys: "{1,2,...}". A job's command may be delivered from now on: also here. */
STATEMENT(OUTBOX_DELETE, 1,
    "with gone as (delete from stream_outbox where outbox_key = any ($1::bigint[])"
    " returning kind, command_key),"
    " ready as (update command c set is_announced = true from gone g where not c.is_announced"
    " and g.kind = 'command.queued' and c.command_key = g.command_key returning c.device_key)"
    " select " SQL_NOTIFY("ready", "''"))
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

/* ---- where commands and calls for a device go (registry/device.c) ---- */
/* tenant, device; where commands for it go */
STATEMENT(COMMAND_DEVICE, 3,
    "select t.tenant_key, t.stream_id, d.device_key, d.partition, t.name, d.device_id"
    " from device d join tenant t using (tenant_key)"
    " where " SQL_TENANT("t.", "$3") " and d.device_id = $2::text")

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
/* tenant, device, command, instance. Outcomes: cancelled, held (by a gateway that delivers it, or
 * the device has it), over; with the state that it has, or had. */
STATEMENT(COMMAND_CANCEL, 5,
    "with found as (select c.command_key, c.tenant_key, c.device_key, c.state, c.is_final, "
    SQL_IS_FREE("c", "$4") " and c.state <> 'delivered' as is_free from command c join device d on d.device_key = c.device_key"
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
/* clang-format on */
