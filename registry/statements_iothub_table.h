/* Statements of the service API of Azure IoT Hub, a part of statements_table.h with its shapes. */
/* clang-format off */
/* ---- the service API of Azure IoT Hub (provisioning/iothub_devices.c) ---- */
/* Columns of enum device_column there. What back ends did not say of a device its credentials tell. */
#define SQL_IOTHUB_DEVICE \
    "d.device_id as key, d.version, d.device_key, d.enabled, d.status_reason, " \
    SQL_MS("d.status_updated_at") ", (select count(*) from command c where" \
    " c.device_key = d.device_key and not c.wants_reply and not c.is_final)," \
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
    " and (c.kind = 'x509' and (c.name = 'iothub-primary' and w.first is null or"
    " c.name = 'iothub-secondary' and w.second is null) or"
    " c.kind = 'sas' and w.authentication <> 'sas'))"
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
    " where c.device_key = f.device_key and not c.wants_reply and not c.is_final"
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
    " where c.device_key = " device_key " and not c.wants_reply and not c.is_final)," \
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
