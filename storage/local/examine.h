/*
 * What a repair would have to do to one partition, or to the journal: found by reading alone.
 * Formats: segment.c, journal.c. One thread.
 */
#pragma once

#include "storage/local/draft.h"
#include "storage/local/journal.h"

struct examination {
    const char *directory;
    void (*progress)(void *context, uint64_t read_bytes); /* NULL: nobody */
    void *context;
};

/* One partition's segments against its row of the checkpoint. */
struct partition_finding {
    int64_t *bases; /* of the files that the row speaks of; owned */
    uint32_t count;
    int64_t log_start;    /* a new one, behind a damaged segment or a gap; else the row's */
    bool is_torn;         /* the last block in the file is not the checkpoint's */
    bool is_cut;          /* the newest segment is damaged: the partition ends here ... */
    struct draft_end end; /* ... */
    bool newest_is_missing;
    uint8_t block[FORMAT_BLOCK]; /* the last one up to the end */
};

/* DG_ERR_IO (the directory cannot be read), DG_ERR_NO_MEMORY. */
DG_NODISCARD int examine_partition(const struct examination *examination,
                                   const struct draft_partition *partition,
                                   struct partition_finding *ret_finding);
void partition_finding_free(struct partition_finding *finding);

/* The end of each partition after the journal's valid groups; those of the checkpoint first. */
struct partition_end {
    UT_hash_handle hh;
    struct partition_key key;
    int64_t next_offset;
    uint64_t discard_lsn;
};

struct journal_finding {
    uint64_t end_lsn;   /* behind the last valid group */
    uint64_t later_lsn; /* != 0: a valid group that follows the damage */
    struct partition_end *ends;
};

/* rows give the ends before. DG_ERR_IO, DG_ERR_NO_MEMORY; DG_ERR_CORRUPT: a valid group is not what
 * the committer writes. */
DG_NODISCARD int examine_journal(struct journal *journal, const struct draft *draft,
                                 struct journal_finding *ret_finding);
void journal_finding_free(struct journal_finding *finding);
