/*
 * Which sessions wait for which partition: long polls, and reads of cold ranges. A session waits
 * for several partitions; when one of them moves all its waits end.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct kafka_session;
struct kafka_wait_list;

struct kafka_wait {
    struct kafka_session *session;
    struct kafka_wait *next_of_session;
    struct kafka_wait *next, **link; /* of the partition's list */
    struct kafka_wait_list *list;
};

struct kafka_wait_table {
    struct kafka_wait_list *lists; /* hash by stream and partition */
};

/* Adds one wait. DG_ERR_NO_MEMORY. */
DG_NODISCARD int kafka_wait_add(struct kafka_wait_table *table, struct kafka_session *session,
                                uint64_t stream_id, uint32_t partition);
/* Ends all waits of a session. */
void kafka_wait_clear(struct kafka_wait_table *table, struct kafka_session *session);
/* The first session that waits for the partition, or NULL. */
struct kafka_session *kafka_wait_first(const struct kafka_wait_table *table, uint64_t stream_id,
                                       uint32_t partition);
