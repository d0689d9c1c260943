/*
 * What the embedded engine writes besides the record batches themselves. All integers are
 * little-endian (record batches are Kafka's, big-endian). Read and written through memcpy only.
 *
 *     <directory>/lock                 flock, empty
 *     <directory>/format               struct format_store: version, store secret, journal size
 *     <directory>/journal              a ring of commit groups (journal.c)
 *     <directory>/checkpoint           struct format_checkpoint ... (checkpoint.c)
 *     <directory>/<stream>/<partition>/<20-digit base offset>.log    record batches (segment.c)
 *     <directory>/checkpoint.wanted    made by a backup that asks for a checkpoint; renamed to
 *                                      checkpoint.taking, and removed when it is there
 *
 * Versions, and going from one to another. A store is made in version 2. The first restore or
 * repair that raises its epoch (epoch.h) makes it version 3, in the format file only: the
 * checkpoint then has entries of STATE_EPOCH and may have a discard_lsn; all else is as before.
 * Up: this release reads both and changes nothing by itself. Down: a release that knows version 2
 * alone opens a store of version 2, and refuses one of version 3, since it would serve epoch 0 to
 * consumers that have seen a later one; there is no way back from 3 but a backup from before.
 */
#pragma once

#include <stdint.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the journal is written as it lies");

enum {
    FORMAT_VERSION = 2,        /* 2: checkpoints hold the segments' last blocks */
    FORMAT_VERSION_EPOCHS = 3, /* of the format file only: the store's epoch has been raised */
    FORMAT_BLOCK = 4096,       /* a group begins and ends on this */
    FORMAT_SECRET_SIZE = 16,
};

struct format_store {
    char magic[8]; /* "DGSTORE1" */
    uint32_t version;
    uint32_t crc; /* of the whole with this field 0 */
    uint8_t secret[FORMAT_SECRET_SIZE];
    uint64_t journal_size_bytes;
    uint64_t created_ms;
    uint64_t reserved[2];
};
_Static_assert(sizeof(struct format_store) == 64, "on disk");

struct format_group {
    char magic[8]; /* "DGGROUP1" */
    uint32_t version;
    uint32_t crc; /* of this header with this field 0, and the payload */
    uint8_t secret[FORMAT_SECRET_SIZE];
    uint64_t lsn;
    uint32_t payload_bytes;
    uint32_t unit_count;
    uint32_t previous_crc; /* of the group before */
    uint32_t reserved;
    uint64_t wall_ms;
};
_Static_assert(sizeof(struct format_group) == 64, "on disk");

/* A unit: this, the batch, the mutations. */
struct format_unit {
    uint64_t stream_id;
    uint32_t partition;
    uint32_t batch_bytes; /* 0: mutations only */
    int64_t segment_base; /* where the batch is to be placed; without one -1, or the base of an
                             empty segment that begins (retention.c) */
    uint32_t segment_position;
    uint32_t record_count;
    uint32_t mutation_count;
    uint32_t mutation_bytes;
    uint64_t segment_created_ms;
};
_Static_assert(sizeof(struct format_unit) == 48, "on disk");

/* A mutation: this, the key, the value. */
struct format_mutation {
    uint8_t name_space;
    uint8_t is_delete;
    uint16_t key_bytes;
    uint32_t value_bytes;
};
_Static_assert(sizeof(struct format_mutation) == 8, "on disk");

struct format_checkpoint {
    char magic[8]; /* "DGCHECK1" */
    uint32_t version;
    uint32_t previous_crc; /* of the group before lsn */
    uint8_t secret[FORMAT_SECRET_SIZE];
    uint64_t lsn; /* replay begins here */
    uint64_t total_bytes;
    uint32_t partition_count;
    uint32_t state_count;
    uint64_t wall_ms;
};
_Static_assert(sizeof(struct format_checkpoint) == 64, "on disk");

struct format_partition {
    uint64_t stream_id;
    uint32_t partition;
    uint32_t segment_position; /* the newest segment is this long */
    int64_t log_start;
    int64_t next_offset;
    int64_t last_ms;
    int64_t segment_base; /* of the newest segment; -1: none */
    uint64_t segment_created_ms;
    uint64_t discard_lsn; /* a repair cut the partition off: what the journal has for it below this
                             LSN is not placed any more; else 0 */
};
_Static_assert(sizeof(struct format_partition) == 64, "on disk");

/* What is in the newest segment's last, partly filled block. */
static inline uint32_t format_last_block_bytes(const struct format_partition *row) {
    return row->segment_position % FORMAT_BLOCK;
}

/* A state entry: this, the key, the value. */
struct format_state {
    uint64_t lsn;
    struct format_mutation mutation;
};
_Static_assert(sizeof(struct format_state) == 16, "on disk");
