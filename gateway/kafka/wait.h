/*
 * Which sessions wait for which partition: long polls, and reads of cold ranges. A session waits
 * for several partitions until together they brought the bytes it misses; counting them is all
 * that a commit costs, whatever the session asked for. Then all its waits end.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "storage/stream.h"

struct kafka_session;
struct kafka_wait_list;

struct kafka_wait {
    struct kafka_session *session;
    uint64_t seen_bytes; /* appended to the partition, and taken off what the session misses */
    struct kafka_wait *next_of_session;
    struct kafka_wait *next, **link; /* of the partition's list */
    struct kafka_wait_list *list;
};

struct kafka_wait_table {
    struct kafka_wait_list *lists; /* hash by stream and partition */
};

/* Adds one wait; seen_bytes as of when the session last looked. DG_ERR_NO_MEMORY. */
DG_NODISCARD int kafka_wait_add(struct kafka_wait_table *table, struct kafka_session *session,
                                uint64_t stream_id, uint32_t partition, uint64_t seen_bytes);
/* Ends all waits of a session. */
void kafka_wait_clear(struct kafka_wait_table *table, struct kafka_session *session);
/* So many bytes were appended to the partition by now. Calls enough for each session that misses
 * nothing any more; it may clear that session's waits. */
void kafka_wait_count(struct kafka_wait_table *table, uint64_t stream_id, uint32_t partition,
                      uint64_t appended_bytes, void (*enough)(struct kafka_session *session));
/* The same for the waits of one session alone; true when it misses nothing any more. */
bool kafka_wait_count_one(struct kafka_wait *wait, uint64_t appended_bytes);
/* Where the partition that is waited for stands. */
void kafka_wait_offsets(const struct kafka_wait *wait, struct stream *stream,
                        struct stream_offsets *ret_offsets);
/* Whether anybody waits for the partition. */
bool kafka_wait_exists(const struct kafka_wait_table *table, uint64_t stream_id,
                       uint32_t partition);
