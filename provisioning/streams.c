/* A tenant's streams, as they stand: topics, partitions, offsets. Nothing here asks PostgreSQL for
 * more than the tenant, which the registry has in its cache. */
#include <inttypes.h>
#include <stdio.h>

#include "common/clock.h"
#include "common/limits.h"
#include "provisioning/json.h"
#include "provisioning/stream_call.h"

/* ---- all streams ---- */

static json_t *describe_stream(struct stream *stream, const struct registry_tenant *tenant,
                               enum stream_kind kind) {
    char name[KAFKA_TOPIC_NAME_SIZE];
    struct kafka_topic_totals sum = kafka_topic_sum_up(stream, tenant, kind);
    kafka_topic_name(tenant, kind, name);
    char id[24];
    snprintf(id, sizeof(id), "%" PRIu64, (uint64_t)registry_stream(tenant->stream_id, kind));
    return json_pack("{s:s, s:s, s:s, s:i, s:I, s:o, s:o, s:o}", "name", name, "stream_id", id,
                     "kind", kafka_topic_kind_name(kind), "partition_count",
                     (int)tenant->partition_count, "size_bytes", (json_int_t)sum.size_bytes,
                     "records", json_from_offset(sum.end - sum.log_start), "log_start_offset_sum",
                     json_from_offset(sum.log_start), "end_offset_sum", json_from_offset(sum.end));
}

static void list_streams(struct provisioning_call *call, struct stream_call *s) {
    uint32_t first, end;
    if (!stream_call_page(call, STREAM_QUARANTINE + 1, &first, &end))
        return;
    json_t *items = json_array();
    for (uint32_t i = first; i < end; i++)
        items =
            json_append(items, describe_stream(stream_of(call), &s->tenant, kafka_topic_kinds[i]));
    stream_call_answer_page(call, items, stream_call_cursor(end, STREAM_QUARANTINE + 1));
}

void stream_list(struct provisioning_call *call) {
    stream_call_begin(call, list_streams);
}

/* ---- the partitions of one ---- */

/* When the newest record was received; null when there is none. */
static json_t *last_record_at(struct stream *stream, uint64_t stream_id, uint32_t partition) {
    char text[CLOCK_RFC3339_SIZE];
    int64_t offset, wall_ms;
    if (stream_find_last(stream, stream_id, partition, &offset, &wall_ms) < 0)
        return json_null();
    clock_format_rfc3339(wall_ms, text);
    return json_stringn(text, sizeof(text));
}

static json_t *describe_partition(struct stream *stream, uint64_t stream_id, uint32_t partition) {
    struct stream_offsets offsets;
    stream_offsets(stream, stream_id, partition, &offsets);
    return json_pack("{s:i, s:o, s:o, s:I, s:o}", "partition", (int)partition, "log_start_offset",
                     json_from_offset(offsets.log_start), "end_offset",
                     json_from_offset(offsets.durable_end), "size_bytes",
                     (json_int_t)offsets.size_bytes, "last_record_at",
                     last_record_at(stream, stream_id, partition));
}

static void list_partitions(struct provisioning_call *call, struct stream_call *s) {
    struct slice name = http_path_parameter(call->exchange, "stream");
    enum stream_kind kind = stream_kind_find(&s->tenant, name);
    uint32_t first, end, count = s->tenant.partition_count;
    if (kind == STREAM_KINDS) {
        call_problem(call, DG_ERR_NOT_FOUND, "no stream '%.*s'", (int)name.size,
                     (const char *)name.data);
        return;
    }
    if (!stream_call_page(call, count, &first, &end))
        return;
    json_t *items = json_array();
    uint64_t stream_id = registry_stream(s->tenant.stream_id, kind);
    for (uint32_t i = first; i < end; i++)
        items = json_append(items, describe_partition(stream_of(call), stream_id, i));
    stream_call_answer_page(call, items, stream_call_cursor(end, count));
}

void stream_list_partitions(struct provisioning_call *call) {
    stream_call_begin(call, list_partitions);
}
