/*
 * Building one open record batch in a chunk, and what the committer changes in a finished one.
 * Pure but for the pool; one thread at a time (layout: storage/record.c).
 */
#pragma once

#include "storage/compression.h"
#include "storage/local/chunk.h"
#include "storage/stream.h"

struct batch {
    struct chunk *chunk; /* owned; NULL while empty */
    uint32_t size_bytes;
    uint32_t record_count;
    uint32_t body_crc; /* of everything after the header; set by batch_seal() */
    int64_t base_ms;
    int64_t max_ms;
    bool has_one_time;      /* placed as LogAppendTime: all records have max_ms */
    enum compression codec; /* of the records; set by batch_compress() */
};

/* Time of the first record, once placed. */
static inline int64_t batch_first_ms(const struct batch *batch) {
    return batch->has_one_time ? batch->max_ms : batch->base_ms;
}

/* Bytes the record takes at most. */
uint64_t batch_record_bound(const struct stream_record *record);

/*
 * Appends a record; its time is raised to that of the record before. The batch must stay within
 * size_max: the caller has compared batch_record_bound(). size_hint is the size a new batch will
 * probably reach. DG_ERR_NO_MEMORY.
 */
DG_NODISCARD int batch_append(struct batch *batch, struct chunk_pool *pool, uint32_t size_hint,
                              const struct stream_record *record);

/*
 * Compresses the records, into a chunk that fits them. The batch stays as it is when they would not
 * get smaller or memory is short: both are no reason to lose it. After this nothing is appended.
 */
void batch_compress(struct batch *batch, struct chunk_pool *pool, struct compressor *compressor,
                    enum compression codec);

/* Writes the header (base offset 0) and the body's CRC. After this nothing is appended. */
void batch_seal(struct batch *batch);

/*
 * Gives a sealed batch its place: base offset, leader epoch, and times not before last_ms. When
 * they were, the batch is marked as LogAppendTime at max(last_ms, its own max): one time for all
 * its records. (Shifting every record by the difference instead would let the partition's time run
 * away from the clock as soon as two workers write to it: each batch would be moved behind the
 * whole span of the other's.) Only the header changes, and its CRC is combined anew with the
 * body's.
 */
void batch_place(struct batch *batch, int64_t base_offset, int64_t last_ms, int32_t epoch);
