/* Statements of jobs (schemas/0009_jobs.sql), a part of statements_table.h with its shapes. */
/* clang-format off */
/* ---- gateway: jobs (gateway/command/jobs.c) ---- */
/* When all devices had their turn it waits until each of their commands is over. */
#define SQL_JOB_IS_PENDING(j) \
    "exists (select from command c where c.job_key = " j ".job_key and c.finished_at is null)"
/* instance, most bytes of payloads of a job, most commands pending for one device: the next devices
 * of some jobs whose rate allows it. How many devices; 1 when there is more to do at once; the
 * highest rate of all that run. Twins are few at a time: a large one may take 50 ms. */
STATEMENT(JOB_STEP, 3,
    "with turn as materialized (select j.*,"
    " floor(extract(epoch from now() - j.stepped_at) * j.rate + 0.001)::bigint as due from job j"
    " where j.state = 'running' and j.stepped_at <= now() - interval '1 s' / j.rate"
    " order by j.stepped_at limit " SQL_LIMIT(LIMIT_JOB_STEP_JOBS) " for update skip locked),"
    " shared as materialized (select t.job_key, t.kind, t.reached, least(t.due, case when t.kind ="
    " 'command' then greatest(1, $2::bigint / (1 + octet_length(t.payload))) when row_number() over"
    " (partition by t.kind order by t.stepped_at, t.job_key) = 1 then "
    SQL_LIMIT(LIMIT_JOB_STEP_TWINS) " else 0 end) as most from turn t),"
    " found as (select t.job_key, t.kind, r.place, d.device_key, d.tenant_key,"
    " (select count(*) from command c where c.device_key = d.device_key and not c.is_final)"
    " + row_number() over (partition by d.device_key order by t.job_key) <= $3::bigint as has_room"
    " from shared t cross join lateral (select * from job_device r where r.job_key = t.job_key"
    " and r.place > t.reached and r.place <= t.reached + t.most order by r.place limit "
    SQL_LIMIT(LIMIT_JOB_STEP_DEVICES) ") r left join lateral (select d.device_key, d.tenant_key"
    " from device d where d.device_key = r.device_key limit 1) d on true),"
    " next as materialized (select f.*, case when f.kind = 'command' and f.device_key is not null"
    " and f.has_room then nextval(pg_get_serial_sequence('command', 'command_key')) end as command_key"
    " from found f order by f.job_key, f.place),"
    " made as (insert into command (command_key, tenant_key, device_key, name, payload,"
    " content_type, properties, wants_reply, job_key, expires_at, is_announced)"
    " overriding system value select n.command_key, n.tenant_key, n.device_key, t.what ->> 'name',"
    " t.payload, coalesce(t.what ->> 'content_type', ''), t.what -> 'properties',"
    " (t.what ->> 'wants_reply')::boolean, t.job_key,"
    " now() + (t.what ->> 'ttl_s')::bigint * interval '1 s', false from next n"
    " join turn t using (job_key) where n.command_key is not null order by n.command_key"
    " returning command_key, tenant_key, device_key),"
    " told as (insert into stream_outbox (instance, tenant_key, device_key, kind, command_key)"
    " select $1::text, tenant_key, device_key, 'command.queued', command_key from made"
    " order by command_key),"
    " written as materialized (select t.job_key, w.* from turn t cross join lateral twin_write("
    "array(select n.device_key from next n where n.job_key = t.job_key and n.device_key is not null),"
    " t.what, null::jsonb, false, null::bigint[], $1::text) w where t.kind = 'desired'),"
    " noted as (update job_device r set command_key = n.command_key,"
    " version = case when w.outcome = 'replaced' then w.desired_version end,"
    " outcome = case when n.device_key is null then 'missing'"
    " when n.kind = 'command' and n.command_key is null then 'full'"
    " when n.kind = 'desired' and w.device_key is null then 'missing'"
    " when w.outcome <> 'replaced' then 'too_large' else 'done' end"
    " from next n left join written w on w.job_key = n.job_key and w.device_key = n.device_key"
    " where r.job_key = n.job_key and r.place = n.place"
    " returning r.job_key, r.outcome),"
    " counted as (select job_key, count(*) as reached, count(*) filter (where outcome <> 'done')"
    " as refused from noted group by job_key),"
    " moved as (update job j set reached = j.reached + c.reached, refused = j.refused + c.refused,"
    " stepped_at = greatest(j.stepped_at + c.reached * interval '1 s' / j.rate,"
    " now() - interval '1 s'),"
    " state = case when j.reached + c.reached < j.total then 'running' else 'finished' end,"
    " finished_at = case when j.reached + c.reached >= j.total then now() end"
    " from counted c where j.job_key = c.job_key)"
    " select (select count(*) from noted), ((select count(*) from turn) = "
    SQL_LIMIT(LIMIT_JOB_STEP_JOBS) " or exists (select from turn t left join counted c"
    " on c.job_key = t.job_key where t.due > coalesce(c.reached, 0)"
    " and t.total > t.reached + coalesce(c.reached, 0)))::integer, max(rate) from job"
    " where state = 'running'")
/* instance: commands of aborted jobs that nobody is delivering. How many. */
STATEMENT(JOB_CANCEL, 1,
    "with found as (select c.command_key from job j join command c on c.job_key = j.job_key"
    " where j.state = 'aborted' and c.finished_at is null and not c.is_final"
    " and c.state <> 'delivered' and " SQL_IS_FREE("c", "$1")
    " limit " SQL_LIMIT(LIMIT_COMMANDS_OF_STATEMENT) " for update of c skip locked),"
    " changed as (update command c set state = 'cancelled', is_final = true, finished_at = now(),"
    " holder = null, reason = 'its job was aborted' from found f"
    " where c.command_key = f.command_key returning c.command_key, c.tenant_key, c.device_key),"
    " told as (insert into stream_outbox (instance, tenant_key, device_key, kind, command_key)"
    " select $1::text, tenant_key, device_key, 'command.cancelled', command_key from changed"
    " returning 1) select count(*) from told")
/* ms that jobs are kept when all that came of them is over, some of their devices at a time. Those of
 * tenants that have gone end at once. How many jobs there is more to do for. */
STATEMENT(JOB_COLLECT, 1,
    "with over as (update job j set name = null, state = 'finished', finished_at = now()"
    " where j.name is not null and (not exists (select from tenant t"
    " where t.tenant_key = j.tenant_key) or (j.finished_at < now() - $1::bigint * interval '1 ms'"
    " and not " SQL_JOB_IS_PENDING("j") " and not exists (select from command c"
    " where c.job_key = j.job_key and c.finished_at >= now() - $1::bigint * interval '1 ms')))"
    " returning 1),"
    " hidden as (select job_key from job where name is null order by job_key limit 1"
    " for update skip locked),"
    " freed as (update command set job_key = null where command_key in (select c.command_key"
    " from command c join hidden using (job_key) limit " SQL_LIMIT(LIMIT_COMMANDS_COLLECTED) ")),"
    " gone as (delete from job_device where (job_key, place) in (select r.job_key, r.place"
    " from job_device r join hidden using (job_key) limit " SQL_LIMIT(LIMIT_COMMANDS_COLLECTED) ")),"
    " removed as (delete from job j using hidden h where j.job_key = h.job_key"
    " and not exists (select from command c where c.job_key = h.job_key)"
    " and not exists (select from job_device r where r.job_key = h.job_key))"
    " select (select count(*) from over) + (select count(*) from hidden)")

/* ---- provisioning: jobs ---- */
#define SQL_JOB_BODY(j, more) \
    "json_build_object('name', " j ".name, 'state', case when " j ".state <> 'finished' then " j \
    ".state when " SQL_JOB_IS_PENDING(j) " then 'waiting' else 'completed' end, " j ".kind, " j \
    ".what, 'query', " j ".query, 'rate', " j ".rate, 'total', " j ".total, 'reached', " j \
    ".reached, 'refused', " j ".refused" more ", 'created_at', " SQL_TIME(j ".created_at") \
    ", 'finished_at', " SQL_TIME(j ".finished_at") ")::text as body"
/* How many commands of it are in which state. */
#define SQL_JOB_COUNTS(j) \
    ", 'commands', (select coalesce(json_object_agg(state, number), '{}') from (select c.state," \
    " count(*) as number from command c where c.job_key = " j ".job_key group by c.state" \
    " order by c.state) counted)"
/* tenant, cursor, limit, bytes */
STATEMENT(JOB_LIST, 5,
    "select page.* from tenant t left join lateral ("
    SQL_PAGE("select j.name as key, " SQL_JOB_BODY("j", "") " from job j"
             " where j.tenant_key = t.tenant_key and j.name is not null"
             " and ($2::text is null or j.name > $2::text)", "$3", "$4")
    ") page on true where " SQL_TENANT("t.", "$5") " order by key")
STATEMENT(JOB_GET, 3,
    "select 'found', null, " SQL_JOB_BODY("j", SQL_JOB_COUNTS("j"))
    " from job j join tenant t using (tenant_key)"
    " where " SQL_TENANT("t.", "$3") " and j.name = $2::text")
/* tenant, job, what is asked for (provisioning/job_body.h), most jobs of a tenant that run, that are
 * kept, most devices of a job, of a tenant's jobs. Two gateways may count at the same time: the
 * bounds are off by the number of gateways at most. */
STATEMENT(JOB_PUT, 8,
    "with t as (select tenant_key from tenant where " SQL_TENANT("", "$8") "),"
    " asked as (select $3::jsonb as a, sha256(convert_to($3::jsonb::text, 'UTF8')) as digest),"
    " old as (select j.* from job j join t using (tenant_key) where j.name = $2::text),"
    " kept as (select count(*) as jobs, count(*) filter (where j.state = 'running') as running,"
    " coalesce(sum(j.total), 0) as devices from job j join t using (tenant_key)),"
    " who as materialized (select w.device_id, d.device_key, w.place from t cross join asked"
    " cross join jsonb_array_elements_text(a -> 'devices') with ordinality w (device_id, place)"
    " left join device d on d.tenant_key = t.tenant_key and d.device_id = w.device_id"
    " union all select device_id, device_key, row_number() over (order by device_id) from"
    " (select d.device_id, d.device_key from t join device d using (tenant_key) cross join asked"
    " where a ? 'query' and d.tags @> coalesce(a -> 'query' -> 'tags', '{}') and"
    " d.enabled = coalesce((a -> 'query' ->> 'enabled')::boolean, d.enabled)"
    " order by d.device_id limit $6::bigint + 1) found),"
    " sized as (select count(*) as wanted from who),"
    " made as (insert into job (tenant_key, name, digest, kind, what, payload, query, rate, total,"
    " state, stepped_at, finished_at) select t.tenant_key, $2::text, digest, a ->> 'kind',"
    " a -> 'what', decode(a ->> 'payload', 'base64'), a -> 'query', (a ->> 'rate')::integer, wanted,"
    " case when wanted > 0 then 'running' else 'finished' end,"
    " now() - interval '1 s' / (a ->> 'rate')::integer, case when wanted = 0 then now() end"
    " from t cross join asked cross join kept cross join sized where not exists (select from old)"
    " and running < $4::bigint and jobs < $5::bigint and wanted <= $6::bigint"
    " and devices + wanted <= $7::bigint on conflict (tenant_key, name) do nothing returning *),"
    " listed as (insert into job_device (job_key, place, device_id, device_key)"
    " select m.job_key, w.place, w.device_id, w.device_key from made m cross join who w)"
    " select case when m.job_key is not null then 'created' when o.digest = a.digest then 'found'"
    " when o.job_key is not null then 'another' when wanted > $6::bigint then 'many'"
    " when running >= $4::bigint or jobs >= $5::bigint or devices + wanted > $7::bigint then 'jobs'"
    " else 'again' end, null, " SQL_JOB_BODY("j", SQL_JOB_COUNTS("j"))
    " from t cross join asked a cross join kept cross join sized left join made m on true"
    " left join old o on true left join lateral (select * from made union all select * from old) j"
    " on true")
/* tenant, job: no further devices, and JOB_CANCEL finds its commands */
STATEMENT(JOB_ABORT, 3,
    "with found as (select j.* from job j join tenant t using (tenant_key)"
    " where " SQL_TENANT("t.", "$3") " and j.name = $2::text for update of j),"
    " changed as (update job j set state = 'aborted', finished_at = coalesce(j.finished_at, now())"
    " from found f where j.job_key = f.job_key and j.state <> 'aborted'"
    " and (j.state = 'running' or " SQL_JOB_IS_PENDING("j") ") returning j.*)"
    " select case when c.job_key is null and j.state <> 'aborted' then 'over' else 'replaced' end,"
    " null, " SQL_JOB_BODY("j", SQL_JOB_COUNTS("j")) " from found f left join changed c on true"
    " cross join lateral (select c.* where c.job_key is not null union all"
    " select f.* where c.job_key is null) j")
STATEMENT(JOB_DELETE, 3,
    "with found as (select j.* from job j join tenant t using (tenant_key)"
    " where " SQL_TENANT("t.", "$3") " and j.name = $2::text),"
    " gone as (update job j set name = null from found f where j.job_key = f.job_key"
    " and j.state <> 'running' and not " SQL_JOB_IS_PENDING("j") " returning j.job_key)"
    " select case when g.job_key is null then 'unfinished' else 'deleted' end, null, null"
    " from found f left join gone g on true")
/* tenant, job, cursor (a place), limit, bytes: what came of each device */
STATEMENT(JOB_RESULTS, 6,
    "select page.* from tenant t join job j using (tenant_key) left join lateral ("
    SQL_PAGE("select lpad(r.place::text, 7, '0') as key, json_strip_nulls(json_build_object("
             "'device_id', r.device_id, 'state', case when r.outcome is null then case j.state"
             " when 'running' then 'pending' else 'skipped' end when r.outcome <> 'done'"
             " then 'refused' when j.kind = 'desired' then 'changed'"
             " else coalesce(c.state, 'gone') end, 'command_id', 'c' || r.command_key,"
             " 'reply_status', c.reply_status, 'desired_version', r.version, 'reason', case"
             " when r.outcome = 'missing' then 'there was no such device'"
             " when r.outcome = 'full' then 'as many commands as may be were pending for it'"
             " when r.outcome = 'too_large' then 'its desired state would have become too large'"
             " when r.outcome is null and j.state <> 'running' then 'the job was aborted before'"
             " when r.command_key is not null and c.state is null then 'the device was deleted'"
             " else c.reason end))::text as body from (select * from job_device r"
             " where r.job_key = j.job_key and r.place > case when $3::text ~ '^[0-9]{1,9}$'"
             " then $3::integer else 0 end order by r.place limit $4::bigint + 1) r"
             " left join command c on c.command_key = r.command_key", "$4", "$5")
    ") page on true where " SQL_TENANT("t.", "$6") " and j.name = $2::text order by key")

/* clang-format on */
