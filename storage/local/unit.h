/*
 * A unit: what a worker hands to the committer, committed as a whole or not at all. Built by its
 * appender, owned by the committer from submission to completion, then by the appender again. The
 * batch's chunk passes to the partition's tail when the unit is applied.
 */
#pragma once

#include "storage/local/batch.h"
#include "storage/local/format.h"

struct partition;
struct segment;
struct stream_appender;

/* A value of the mutations that begins with the offset of a record of the batch. */
struct unit_offset {
    uint32_t value_at; /* in the mutations */
    uint32_t record;
};

struct unit {
    struct unit *next;
    struct mail mail;
    struct stream_appender *appender;
    void *context; /* of complete */
    void (*complete)(
        struct unit *unit); /* committer's thread, when err and base_offset are final */
    uint64_t stream_id;
    uint32_t partition_number;
    struct partition *partition; /* NULL: mutations only */
    struct batch batch;
    struct stream_ticket *tickets; /* one per record */
    uint32_t ticket_count;
    uint32_t ticket_capacity;
    uint8_t *mutations; /* struct format_mutation + key + value, each */
    uint32_t mutation_count;
    uint32_t mutation_bytes;
    uint32_t mutation_capacity;
    struct unit_offset *offsets; /* filled in when base_offset is known */
    uint32_t offset_count;
    uint32_t offset_capacity;
    uint32_t charged_bytes; /* to the appender's budget */
    int64_t log_start;      /* retention's unit: the new one, also a mutation; else 0 */
    /* The committer's decision. */
    int err;
    int64_t base_offset;
    struct segment *segment;
    uint32_t position;
};

/* Where the unit's batch goes, or the empty segment with which a log start at the partition's end
 * begins; NULL: neither. */
static inline struct segment *unit_segment(const struct unit *unit) {
    return unit->batch.record_count > 0 || unit->log_start > 0 ? unit->segment : NULL;
}

/* base_offset is known: the mutations that wait for it get theirs. */
static inline void unit_fill_offsets(struct unit *unit) {
    for (uint32_t i = 0; i < unit->offset_count; i++) {
        int64_t offset = unit->base_offset + unit->offsets[i].record;
        memcpy(unit->mutations + unit->offsets[i].value_at, &offset, sizeof(offset));
    }
}

/* Bytes in a group. */
static inline uint32_t unit_bytes(const struct unit *unit) {
    uint32_t batch_bytes = unit->batch.record_count > 0 ? unit->batch.size_bytes : 0;
    return (uint32_t)sizeof(struct format_unit) + batch_bytes + unit->mutation_bytes;
}

/* A unit of mutations alone stays so small that it always fits a group. */
enum {
    UNIT_BATCH_MAX = LIMIT_UNIT_BYTES - (int)sizeof(struct format_unit),
    UNIT_STATE_MAX = 256 * 1024,
};
