/* What a tenant's streams are called as topics: <tenant>.events, .commands, .audit, .quarantine;
 * and which roles may read them, and use which consumer groups. */
#pragma once

#include "common/slice.h"
#include "registry/registry.h"
#include "storage/stream.h"

enum { KAFKA_TOPIC_NAME_SIZE = LIMIT_TENANT_BYTES + 16 };

/* The kinds that are topics, in order; ended by STREAM_KINDS. */
extern const enum stream_kind kafka_topic_kinds[];

/* "events" */
const char *kafka_topic_kind_name(enum stream_kind kind);
/* "acme.events"; returns its length. */
size_t kafka_topic_name(const struct registry_tenant *tenant, enum stream_kind kind,
                        char *ret_name);

/* Sums over the partitions of a topic. */
struct kafka_topic_totals {
    uint64_t size_bytes;
    int64_t log_start, end;
};
struct kafka_topic_totals kafka_topic_sum_up(struct stream *stream,
                                             const struct registry_tenant *tenant,
                                             enum stream_kind kind);

static inline bool kafka_roles_may_read(uint32_t roles, enum stream_kind kind) {
    uint32_t role = kind == STREAM_AUDIT ? REGISTRY_ROLE_AUDITOR : REGISTRY_ROLE_CONSUMER;
    return roles & (REGISTRY_ROLE_ADMIN | role);
}

/* Groups that begin with "audit." are the auditors', all others the consumers'. Otherwise a key
 * that only reads the audit stream could delete the consumers' offsets. */
static inline bool kafka_roles_may_use_group(uint32_t roles, struct slice name) {
    return kafka_roles_may_read(roles,
                                slice_starts_with(name, "audit.") ? STREAM_AUDIT : STREAM_EVENTS);
}
