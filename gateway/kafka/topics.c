/*
 * Topic names: <tenant>.events, .commands, .audit, .quarantine. A topic's id is derived from its
 * stream id, which is never used twice: "duragate" and the stream id, big-endian.
 */
#include <stdio.h>

#include "common/assert.h"
#include "gateway/kafka/session.h"

const enum stream_kind kafka_topic_kinds[] = {STREAM_EVENTS, STREAM_COMMANDS, STREAM_AUDIT,
                                              STREAM_QUARANTINE, STREAM_KINDS};

static const char *const kind_names[] = {
    [STREAM_EVENTS] = "events",
    [STREAM_COMMANDS] = "commands",
    [STREAM_AUDIT] = "audit",
    [STREAM_QUARANTINE] = "quarantine",
};
static const char id_prefix[8] = {'d', 'u', 'r', 'a', 'g', 'a', 't', 'e'};

const char *kafka_topic_kind_name(enum stream_kind kind) {
    return kind_names[kind];
}

bool kafka_may_read(const struct kafka_session *session, enum stream_kind kind) {
    return kafka_roles_may_read(session->identity.roles, kind);
}

bool kafka_may_use_group(const struct kafka_session *session, struct slice name) {
    return kafka_roles_may_use_group(session->identity.roles, name);
}

size_t kafka_topic_name(const struct registry_tenant *tenant, enum stream_kind kind,
                        char *ret_name) {
    int size = snprintf(ret_name, KAFKA_TOPIC_NAME_SIZE, "%s.%s", tenant->name, kind_names[kind]);
    dg_assert(size > 0 && size < KAFKA_TOPIC_NAME_SIZE);
    return (size_t)size;
}

struct kafka_topic_totals kafka_topic_sum_up(struct stream *stream,
                                             const struct registry_tenant *tenant,
                                             enum stream_kind kind) {
    struct kafka_topic_totals sum = {0};
    for (uint32_t i = 0; i < tenant->partition_count; i++) {
        struct stream_offsets offsets;
        stream_offsets(stream, registry_stream(tenant->stream_id, kind), i, &offsets);
        sum.size_bytes += offsets.size_bytes;
        sum.log_start += offsets.log_start;
        sum.end += offsets.durable_end;
    }
    return sum;
}

void kafka_topic_id(uint64_t stream_id, uint8_t *ret_id) {
    uint64_t big_endian = __builtin_bswap64(stream_id);
    memcpy(ret_id, id_prefix, sizeof(id_prefix));
    memcpy(ret_id + sizeof(id_prefix), &big_endian, sizeof(big_endian));
}

static int16_t allow(const struct kafka_session *session, const struct registry_tenant *tenant,
                     enum stream_kind kind, struct kafka_topic_ref *ret_topic) {
    if (!kafka_may_read(session, kind))
        return KAFKA_ERROR_NOT_AUTHORIZED;
    ret_topic->tenant = tenant;
    ret_topic->stream_id = registry_stream(tenant->stream_id, kind);
    return 0;
}

/* A tenant's principal gets one answer for another tenant's topic and one that does not exist; a
 * platform principal may know. */
static int16_t not_found(const struct kafka_session *session) {
    if (!session->tenants_known)
        return KAFKA_ERROR_LEADER_NOT_AVAILABLE;
    return session->identity.tenant[0] ? KAFKA_ERROR_NOT_AUTHORIZED : KAFKA_ERROR_UNKNOWN_TOPIC;
}

int16_t kafka_topic_by_name(const struct kafka_session *session, struct slice name,
                            struct kafka_topic_ref *ret_topic) {
    const uint8_t *dot = name.size ? memrchr(name.data, '.', name.size) : NULL;
    if (!dot)
        return KAFKA_ERROR_UNKNOWN_TOPIC;
    struct slice tenant = slice_make(name.data, (size_t)(dot - name.data));
    struct slice kind = slice_make(dot + 1, name.size - tenant.size - 1);
    for (const enum stream_kind *k = kafka_topic_kinds; *k != STREAM_KINDS; k++) {
        if (!slice_equals_string(kind, kind_names[*k]))
            continue;
        for (unsigned i = 0; i < session->tenant_count; i++)
            if (slice_equals_string(tenant, session->tenants[i].name))
                return allow(session, &session->tenants[i], *k, ret_topic);
        return not_found(session);
    }
    return KAFKA_ERROR_UNKNOWN_TOPIC;
}

int16_t kafka_topic_by_id(const struct kafka_session *session, const uint8_t *id,
                          struct kafka_topic_ref *ret_topic) {
    uint64_t big_endian;
    memcpy(&big_endian, id + sizeof(id_prefix), sizeof(big_endian));
    uint64_t stream_id = __builtin_bswap64(big_endian);
    if (memcmp(id, id_prefix, sizeof(id_prefix)) != 0 ||
        stream_id % STREAM_KINDS > STREAM_QUARANTINE)
        return KAFKA_ERROR_UNKNOWN_TOPIC_ID;
    for (unsigned i = 0; i < session->tenant_count; i++)
        if ((uint64_t)session->tenants[i].stream_id == stream_id / STREAM_KINDS)
            return allow(session, &session->tenants[i], stream_id % STREAM_KINDS, ret_topic);
    return KAFKA_ERROR_UNKNOWN_TOPIC_ID;
}

int16_t kafka_topic_find(const struct kafka_session *session, const struct kafka_topic *topic,
                         bool by_id, struct kafka_topic_ref *ret_topic) {
    return by_id ? kafka_topic_by_id(session, topic->id, ret_topic)
                 : kafka_topic_by_name(session, topic->name, ret_topic);
}

int16_t kafka_topic_check_partition(const struct kafka_session *session,
                                    const struct kafka_topic_ref *topic, int32_t index,
                                    int32_t leader_epoch) {
    int32_t current = stream_epoch(session->worker->stream);
    if (index < 0 || (uint32_t)index >= topic->tenant->partition_count)
        return KAFKA_ERROR_UNKNOWN_TOPIC;
    if (leader_epoch > current)
        return KAFKA_ERROR_UNKNOWN_LEADER_EPOCH;
    return leader_epoch != KAFKA_NO_EPOCH && leader_epoch < current
               ? KAFKA_ERROR_FENCED_LEADER_EPOCH
               : 0;
}
