/*
 * Committed offsets as state of the stream. One entry per group and partition; integers are
 * little-endian:
 *
 *     key:   tenant key i64, stream id u64, partition u32, group's name
 *     value: offset i64, leader epoch i32, metadata
 *
 * Stream 0 is no stream: its "offset" is when the group was last in use (group_retention.c), in
 * milliseconds of the wall clock. A release that does not know of it takes it for an offset that
 * nobody asks for. Pure. Groups of platform principals have tenant key 0.
 */
#pragma once

#include "common/limits.h"
#include "gateway/kafka/group.h"
#include "storage/stream.h"

enum {
    GROUP_STORE_KEY_MAX = 20 + LIMIT_KAFKA_GROUP_NAME_BYTES,
    GROUP_STORE_VALUE_MAX = 12 + LIMIT_KAFKA_OFFSET_METADATA_BYTES,
};

/* The mutation for one offset of the request; key and value are the caller's memory. */
struct stream_mutation group_store_encode(const struct group_request *request,
                                          const struct group_offset *offset,
                                          uint8_t key[GROUP_STORE_KEY_MAX],
                                          uint8_t value[GROUP_STORE_VALUE_MAX]);

/* Slices of *ret_ point into key and value. DG_ERR_MALFORMED. */
DG_NODISCARD int group_store_decode(struct slice key, struct slice value, int64_t *ret_tenant_key,
                                    struct slice *ret_group, struct group_offset *ret_offset);
