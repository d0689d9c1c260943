/*
 * The commit journal: a ring of groups. Used by the committer; the checkpointer only moves the
 * tail.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "storage/local/file.h"
#include "storage/local/format.h"
#include "storage/local/unit.h"

struct journal {
    int fd;
    bool direct; /* O_DIRECT|O_DSYNC: durable when pwrite() returns; else one fdatasync() */
    char path[STORE_PATH_SIZE];
    uint64_t size_bytes;
    uint8_t secret[FORMAT_SECRET_SIZE];
    uint64_t head_lsn;         /* where the next group may begin */
    _Atomic uint64_t tail_lsn; /* of the last checkpoint; older blocks are free */
    uint32_t previous_crc;
    /* The group being built. */
    uint8_t *buffer; /* LIMIT_GROUP_BYTES, aligned */
    uint32_t filled_bytes;
    uint32_t unit_count;
    uint32_t payload_crc;
};

/* Makes a zero-filled, synced journal file; replaces an unfinished one. 0 or an errno. */
int journal_create(const char *directory, uint64_t size_bytes);

DG_NODISCARD int journal_open(struct journal *journal, const char *directory, uint64_t size_bytes,
                              const uint8_t *secret);
/* For verification: nothing is synced or written. */
DG_NODISCARD int journal_open_for_reading(struct journal *journal, const char *directory,
                                          uint64_t size_bytes, const uint8_t *secret);
void journal_close(struct journal *journal);

/* The most one group may take in this journal. */
uint32_t journal_group_max(const struct journal *journal);

/* Is there room for a group of so many bytes before a checkpoint? */
bool journal_has_room(const struct journal *journal, uint32_t bytes);

/* Building a group: begin, add what fits, write. journal_write() returns when the group is durable;
 * any failure ends the process. */
void journal_begin(struct journal *journal);
bool journal_fits(const struct journal *journal, const struct unit *unit);
void journal_add(struct journal *journal, const struct unit *unit);
uint64_t journal_write(struct journal *journal, uint64_t wall_ms);

static inline uint32_t journal_group_bytes(const struct journal *journal) {
    return (journal->filled_bytes + FORMAT_BLOCK - 1) / FORMAT_BLOCK * FORMAT_BLOCK;
}

/* Recovery. Reads and checks the group that should begin at lsn or, when it did not fit there, at
 * the ring's start. DG_ERR_NOT_FOUND: none is valid. The payload lies in the journal's buffer. */
struct journal_group {
    uint64_t lsn;
    uint64_t next_lsn;
    uint32_t crc;
    uint32_t unit_count;
    uint64_t wall_ms;
    struct slice payload;
};
DG_NODISCARD int journal_read(struct journal *journal, uint64_t lsn, uint32_t previous_crc,
                              struct journal_group *ret_group);

/* Recovery. Looks for a valid group with an LSN of lsn or greater anywhere in the ring. */
DG_NODISCARD int journal_find_later(struct journal *journal, uint64_t lsn, uint64_t *ret_lsn);

/* Recovery, the tail is set: clears what a torn last group may have left behind the journal's end
 * at lsn. 0 or an errno. */
int journal_clear_after(struct journal *journal, uint64_t lsn);
