/*
 * The durable, partitioned, replayable stream. One interface; storage/local is the embedded engine
 * (specification: the storage protocol, summarised at the top of each file there).
 *
 * Storage knows numbers, not names: a stream is a 64-bit id, a partition a number below
 * LIMIT_PARTITIONS_PER_STREAM that the caller chooses. A partition begins to exist with its first
 * record; before that it reads as empty (log start 0, end 0).
 *
 * Threads: stream_open/close on one thread; one appender and one watcher per worker, used by that
 * worker only; reads and offset look-ups from any worker.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/err.h"
#include "common/mailbox.h"
#include "common/slice.h"
#include "storage/compression.h"

struct stream;

struct stream_options {
    const char *directory;
    uint64_t journal_size_bytes;
    uint64_t segment_size_bytes;
    uint64_t segment_age_ms;
    uint64_t retention_bytes;     /* per partition; 0: no limit */
    uint64_t retention_ms;        /* 0: no limit */
    uint64_t reserve_bytes;       /* of free disk space */
    enum compression compression; /* of batches to come; what is stored stays as it is */
};

enum { STREAM_ERROR_SIZE = 512 };

/* Opens or creates the store, recovers it, starts its threads. 0, or an error and a message for
 * people. A damaged store is refused and left as it is (DG_ERR_CORRUPT). */
DG_NODISCARD int stream_open(const struct stream_options *options, struct stream **ret_stream,
                             char *ret_error);

/* Changes what a reload may change (segment and retention settings, reserve, compression). */
void stream_reconfigure(struct stream *stream, const struct stream_options *options);

/* Writes a last checkpoint and stops the threads. Appenders and watchers are freed before. */
void stream_close(struct stream *stream);

/* ---- appending: one appender per worker -------------------------------------------------------
 */

/* Who wants to know that a record is durable. Opaque to storage; 0,0 = nobody. */
struct stream_ticket {
    uint64_t owner;
    uint64_t tag;
};

/* Receives each ticket on the appender's thread, in append order within a partition. err is 0 and
 * offset the record's, or the reason why nothing was written (DG_ERR_STORAGE_FULL). */
typedef void stream_done_fn(void *context, const struct stream_ticket *ticket, int err,
                            int64_t offset);
/* Called once after stream_append() answered DG_ERR_PRESSURE, when appending makes sense again. */
typedef void stream_ready_fn(void *context);

struct stream_record {
    int64_t timestamp_ms; /* receive time; stored non-decreasing per partition */
    struct slice key;
    struct slice value;
    /* Record headers already in Kafka's encoding (storage/record.h), in any number of pieces. */
    const struct iovec *headers;
    unsigned header_parts;
    unsigned header_count;
};

struct stream_appender;

DG_NODISCARD int stream_appender_create(struct stream *stream, struct mailbox *mailbox,
                                        stream_done_fn *done, stream_ready_fn *ready, void *context,
                                        struct stream_appender **ret_appender);

/* After its last ticket came back. */
void stream_appender_free(struct stream_appender *appender);

/*
 * Copies the record into the open batch of (stream, partition). 0: the ticket will come back.
 * DG_ERR_PRESSURE: too much is in flight, nothing taken, stream_ready_fn follows. DG_ERR_TOO_LARGE.
 */
DG_NODISCARD int stream_append(struct stream_appender *appender, uint64_t stream_id,
                               uint32_t partition, const struct stream_record *record,
                               struct stream_ticket ticket);

/*
 * State beside the records: absolute values under keys, durable like them. Both sizes have a limit
 * (LIMIT_MUTATION_KEY_BYTES, LIMIT_MUTATION_VALUE_BYTES); namespaces are numbers on disk, 1 and 5
 * are the engine's own.
 */
enum stream_namespace {
    STREAM_STATE_QOS2 = 2,
    STREAM_STATE_CONSUMER = 3, /* committed offsets: gateway/kafka/group_store.c */
    STREAM_STATE_SESSION = 4,
    STREAM_STATE_PRODUCER = 6,   /* gateway/session/producers.h */
    STREAM_STATE_PROJECTION = 7, /* gateway/command/transitions.h */
    STREAM_STATE_OUTBOX = 8,     /* gateway/command/relay.h */
};

struct stream_mutation {
    uint8_t name_space; /* enum stream_namespace */
    bool is_delete;
    bool takes_offset; /* the first 8 bytes of value become the offset, little-endian, of the record
                          that it is appended with */
    struct slice key;
    struct slice value;
};

/*
 * Changes state, all of the mutations or none; the ticket comes back with offset -1 when they are
 * durable and stream_visit_state() shows them. DG_ERR_PRESSURE as for records; DG_ERR_TOO_LARGE: a
 * key or value over its limit, or more than STREAM_MUTATIONS_BYTES in all, 8 per mutation included.
 */
enum { STREAM_MUTATIONS_BYTES = 64 * 1024 };
DG_NODISCARD int stream_mutate(struct stream_appender *appender,
                               const struct stream_mutation *mutations, unsigned count,
                               struct stream_ticket ticket);

/*
 * stream_append() and stream_mutate() as one: the record and the changes are durable together, or
 * neither is; one ticket. What both may answer; DG_ERR_TOO_LARGE also when they are too large for
 * one unit (LIMIT_UNIT_BYTES) together.
 */
DG_NODISCARD int stream_append_with(struct stream_appender *appender, uint64_t stream_id,
                                    uint32_t partition, const struct stream_record *record,
                                    const struct stream_mutation *mutations, unsigned count,
                                    struct stream_ticket ticket);

/* Calls visit for each entry of a namespace, in no order. Any thread; state does not change
 * meanwhile. */
typedef void stream_state_fn(void *context, struct slice key, struct slice value);
void stream_visit_state(struct stream *stream, enum stream_namespace name_space,
                        stream_state_fn *visit, void *context);

/* Copies the value of one entry, at most room bytes of it. Its size, or DG_ERR_NOT_FOUND. Any
 * thread.
 */
DG_NODISCARD int stream_find_state(struct stream *stream, enum stream_namespace name_space,
                                   struct slice key, void *ret_value, size_t room);

/* End of the worker's turn: hands the open batches to the committer if it is free. */
void stream_appender_turn(struct stream_appender *appender);

/* Records appended whose tickets have not come back (tickets of nobody included). */
uint64_t stream_appender_pending(const struct stream_appender *appender);

/* ---- reading ----------------------------------------------------------------------------------
 */

struct stream_offsets {
    int64_t log_start;
    int64_t durable_end; /* one past the last durable record; the Kafka high watermark */
    uint64_t size_bytes;
    uint64_t appended_bytes; /* since the store was opened; never decreases */
};

void stream_offsets(struct stream *stream, uint64_t stream_id, uint32_t partition,
                    struct stream_offsets *ret_offsets);

/* The leader epoch of all partitions: rises when the end of the stream was taken back (restored
 * from a backup, cut by a repair) and offsets are given a second time; never while it is open. */
int32_t stream_epoch(const struct stream *stream);

/* 16 bytes that no other store has, a copy or a backup of this one excepted. Not to be told: they
 * keep payloads from being taken for parts of the journal. */
struct slice stream_secret(const struct stream *stream);

/* One past the last record of an epoch, and the epoch that this was in fact, when the partition has
 * none of the one asked for: an earlier one. DG_ERR_NOT_FOUND: no such epoch yet. */
DG_NODISCARD int stream_epoch_end(struct stream *stream, uint64_t stream_id, uint32_t partition,
                                  int32_t epoch, int32_t *ret_epoch, int64_t *ret_end);

struct stream_watcher;

/* First record whose timestamp is >= timestamp_ms (exact record). DG_ERR_NOT_FOUND when none.
 * DG_ERR_COLD when it would have to wait for the disk and watcher is not NULL: as with
 * stream_read(), the watcher is told when to ask again. DG_ERR_BUSY: too many wait already. */
DG_NODISCARD int stream_find_time(struct stream *stream, uint64_t stream_id, uint32_t partition,
                                  int64_t timestamp_ms, struct stream_watcher *watcher,
                                  int64_t *ret_offset, int64_t *ret_timestamp_ms);

/* The record with the largest timestamp; known without reading. DG_ERR_NOT_FOUND when the partition
 * is empty. */
DG_NODISCARD int stream_find_last(struct stream *stream, uint64_t stream_id, uint32_t partition,
                                  int64_t *ret_offset, int64_t *ret_timestamp_ms);

/* A run of whole record batches: either memory != NULL, or fd >= 0 with a position in the file. */
struct stream_extent {
    const uint8_t *memory;
    int fd;
    int64_t position;
    uint32_t size_bytes;
    int64_t next_offset; /* where the following read begins */
    void *hold;          /* keeps memory or fd valid until stream_extent_release() */
};

/*
 * Whole batches from the one that contains offset, at most max_bytes but always at least one batch.
 * 0 with size_bytes 0 when offset is the durable end. DG_ERR_OFFSET_OUT_OF_RANGE outside
 * [log start, durable end]. DG_ERR_COLD when the range is not in memory and watcher is not NULL: it
 * is being warmed, and the watcher is told when to try again; with watcher NULL the caller accepts
 * to wait for the disk. DG_ERR_CORRUPT, DG_ERR_IO: damaged or not readable from this offset on, up
 * to the next segment at most; what lies before it was given.
 */
DG_NODISCARD int stream_read(struct stream *stream, uint64_t stream_id, uint32_t partition,
                             int64_t offset, uint32_t max_bytes, struct stream_watcher *watcher,
                             struct stream_extent *ret_extent);
void stream_extent_release(struct stream_extent *extent);

/* Told on the watcher's thread: the durable end (or log start) of this partition moved, or a cold
 * range is warm. */
typedef void stream_advanced_fn(void *context, uint64_t stream_id, uint32_t partition);

DG_NODISCARD int stream_watcher_create(struct stream *stream, struct mailbox *mailbox,
                                       stream_advanced_fn *advanced, void *context,
                                       struct stream_watcher **ret_watcher);
void stream_watcher_free(struct stream_watcher *watcher);

/* Arms one notification for the partition (harmless when armed). Read stream_offsets() again after
 * arming: what became durable before is not reported. */
void stream_watch(struct stream_watcher *watcher, uint64_t stream_id, uint32_t partition);

/* ---- condition --------------------------------------------------------------------------------
 */

struct stream_health {
    bool storage_full;             /* events are being refused */
    uint64_t checkpoint_lag_bytes; /* journal written since the last checkpoint */
    uint64_t journal_size_bytes;
};

void stream_health(struct stream *stream, struct stream_health *ret_health);

/* Calls visit for each existing partition, in order. Any thread. */
typedef void stream_visit_fn(void *context, uint64_t stream_id, uint32_t partition,
                             const struct stream_offsets *offsets);
void stream_visit_partitions(struct stream *stream, stream_visit_fn *visit, void *context);
