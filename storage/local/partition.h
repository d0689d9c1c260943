/*
 * One partition: what the committer assigns, what is durable and published, its segments and its
 * tail of batches that are durable but not yet in a segment file.
 *
 * Locks, in this order: committer.apply_mutex, partition_map.lock, partition.mutex,
 * segment_files.mutex.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "common/hash.h"

#include <uthash.h>

#include "storage/local/chunk.h"
#include "storage/local/segment.h"
#include "storage/local/tail.h"
#include "storage/local/unit.h"

struct stream;
struct watch;

struct partition_key {
    uint64_t stream_id;
    uint32_t number;
    uint32_t zero;
};

/* Where a sequential reader's last extent ended, so that its next read needs no search. */
struct read_hint {
    int64_t segment_base;
    int64_t offset;
    uint32_t position;
};
enum { READ_HINT_COUNT = 8 };

/* As of the last applied group; what a checkpoint stores. */
struct partition_applied {
    int64_t next_offset;
    int64_t last_ms;
    int64_t segment_base; /* -1: no segment */
    uint32_t segment_bytes;
    uint64_t segment_created_ms;
};

struct partition {
    UT_hash_handle hh;
    struct partition_key key;
    /* Committer only (recovery before it starts). */
    int64_t next_offset;
    int64_t last_ms;
    uint64_t discard_lsn; /* recovery: format_partition's */
    struct segment *write_segment;
    uint32_t write_position;
    struct partition_applied applied; /* apply_mutex */
    _Atomic int64_t durable_end;
    _Atomic int64_t log_start;
    _Atomic int64_t size_bytes;
    _Atomic uint64_t appended_bytes;
    atomic_bool exists;        /* has or had a record */
    pthread_mutex_t mutex;     /* of all below, and of its segments' members */
    struct segment **segments; /* by base offset; the last one is the newest */
    uint32_t segment_count;
    uint32_t segment_capacity;
    struct tail tail;
    struct watch *watches; /* armed */
    int64_t last_durable_ms;
    struct read_hint hints[READ_HINT_COUNT];
    unsigned next_hint;
    /* What is in the last, partly filled block of the newest segment that has been placed: the
     * block is written again when it grows, and each checkpoint has what it holds. */
    uint8_t *last_block;
    int64_t last_block_base;             /* the segment's; -1: not kept */
    uint32_t last_block_end;             /* position in the segment */
    _Atomic int64_t log_start_requested; /* a mutation is on its way or applied */
    int64_t log_start_checkpointed;      /* segments below may be removed; checkpointer only */
    /* Placer's mutex. */
    struct partition *place_next;
    bool place_queued;
};

struct partition_map {
    pthread_rwlock_t lock;
    struct partition *partitions; /* never removed before the stream is closed */
    uint32_t used_count;          /* with a segment: recovery, then the committer */
    uint32_t used_max;
};

void partition_map_init(struct partition_map *map);
void partition_map_free(struct partition_map *map);

/* NULL: there is none. Any thread. */
struct partition *partition_find(struct partition_map *map, uint64_t stream_id, uint32_t number);
/* All, in no order; the caller frees the list, not what it holds. NULL: out of memory. */
struct partition **partition_map_list(struct partition_map *map, unsigned *ret_count);
/* Creates it when needed (it still does not exist for readers). NULL: out of memory. */
struct partition *partition_obtain(struct partition_map *map, uint64_t stream_id, uint32_t number);

/*
 * Gives the unit's batch offset, times and place in a segment, with room reserved there (protocol
 * clauses 5 and 6). Committer. DG_ERR_STORAGE_FULL (also for a partition more than there may be),
 * DG_ERR_NO_MEMORY: nothing has changed.
 */
DG_NODISCARD int partition_assign(struct partition *partition, struct stream *stream,
                                  struct unit *unit, uint64_t now_ms);

/* After the sync: the batch joins the tail and becomes visible, and whoever watches is told.
 * Committer, apply_mutex held. Returns how much of the tail is not in the file. */
uint64_t partition_apply(struct partition *partition, struct unit *unit, uint64_t now_ms);

/*
 * Keeps the last, partly filled block of the segment that begins at base and ends at end; takes any
 * older one's place. block holds end % FORMAT_BLOCK bytes. False: out of memory, nothing is kept
 * and the file has to be read. Placer; at opening recovery, then the checkpointer.
 */
bool partition_keep_last_block(struct partition *partition, int64_t base, uint32_t end,
                               const uint8_t *block);

/* Copies the end % FORMAT_BLOCK bytes before end, which may lie before the segment's present end.
 * False: they are not kept. Any thread. */
bool partition_copy_last_block(struct partition *partition, int64_t base, uint32_t end,
                               uint8_t *ret_block);

/* Retention's unit: a log start at the partition's end completes its segment, so that it can be
 * removed; the next one is empty. Committer. Errors as above. */
DG_NODISCARD int partition_assign_log_start(struct partition *partition, struct stream *stream,
                                            struct unit *unit, uint64_t now_ms);
/* After the sync; apply_mutex held. */
void partition_apply_roll(struct partition *partition, struct segment *segment, uint64_t now_ms);

/* Adds a segment at the end of the table; mutex held. False: out of memory. */
bool partition_list_segment(struct partition *partition, struct segment *segment);

/* The segment that holds offset; mutex held. NULL: below the first or none at all. */
struct segment *partition_segment_at(const struct partition *partition, int64_t offset);
