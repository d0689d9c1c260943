/*
 * Looking into a store that no gateway has open, or into a copy of one: what it holds and whether
 * it is whole. Read-only: nothing is opened for writing, nothing is repaired. The store's lock is
 * shared by those who look, so a gateway that has it open is told apart (DG_ERR_BUSY), and none
 * begins meanwhile. One thread.
 */
#pragma once

#include <stdint.h>

#include "common/err.h"
#include "storage/record.h"

struct storage_partition_report {
    uint64_t stream_id;
    uint32_t partition;
    int64_t log_start;
    int64_t end; /* one past the last record, the journal's included */
    uint64_t segment_count;
    uint64_t batch_count;  /* in segments, up to the checkpoint */
    uint64_t record_count; /* in segments, up to the checkpoint */
    uint64_t size_bytes;
    uint64_t journal_record_count; /* after the checkpoint: recovery will place them */
};

struct storage_journal_report {
    uint64_t size_bytes;
    uint64_t checkpoint_lsn;
    uint64_t end_lsn;
    uint64_t group_count; /* after the checkpoint */
};

struct storage_report {
    void (*journal)(void *context, const struct storage_journal_report *journal);
    void (*partition)(void *context, const struct storage_partition_report *partition);
    void (*damage)(void *context, const char *path, uint64_t position, const char *what);
    void (*progress)(void *context, uint64_t read_bytes); /* more of it; NULL: nobody */
    void *context;
};

enum { STORAGE_ERROR_SIZE = 512 };

/*
 * Checks everything: format, checkpoint, every group of the journal after it, every batch of every
 * segment (CRC, counts, offsets without gaps). 0: whole; DG_ERR_CORRUPT: damage was reported; other
 * errors (DG_ERR_BUSY: in use) with a message for people: it could not be checked.
 */
DG_NODISCARD int storage_verify(const char *directory, const struct storage_report *report,
                                char *ret_error);

struct storage_dump_filter {
    bool has_stream;
    uint64_t stream_id;
    bool has_partition;
    uint32_t partition;
    uint64_t limit; /* records; 0: all */
};

typedef void storage_record_fn(void *context, uint64_t stream_id, uint32_t partition,
                               const struct record *record);

/*
 * Calls visit for each record that the filter lets through: partition by partition from the
 * segments, then those that only the journal has, in journal order. Damage is passed over, to the
 * next good batch; the result is then DG_ERR_CORRUPT.
 */
DG_NODISCARD int storage_dump(const char *directory, const struct storage_dump_filter *filter,
                              storage_record_fn *visit, void *context, char *ret_error);
