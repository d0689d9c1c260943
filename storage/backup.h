/*
 * Backup of a store, also while a gateway has it open, and restore from one.
 *
 * A backup is the state of one checkpoint: segments of which nothing changes any more are linked
 * (from the backup before, or on one file system from the store) or copied, the newest segment of
 * each partition is copied as far as the checkpoint says, and the checkpoint beside them. The
 * journal is not part of it: a restored store begins an empty one. The gateway takes no part but
 * for one checkpoint that it is asked for by a file; so nothing of a backup is on the way of an
 * acknowledgement.
 *
 * A restored store is another one: it has a new secret, and a new epoch, by which consumers learn
 * that they may have read what is not there any more.
 *
 * What lies in a backup's directory: format and checkpoint as in a store, and the segments; each
 * file's size and CRC-32C is with the caller (its manifest). One thread; blocking.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum { STORAGE_BACKUP_ERROR_SIZE = 512, STORAGE_FILE_NAME_SIZE = 64 };

enum storage_backup_way {
    STORAGE_BACKUP_COPIED,
    STORAGE_BACKUP_LINKED, /* to the store's own file */
    STORAGE_BACKUP_KEPT,   /* linked to the file of the backup before */
};

struct storage_backup_file {
    char name[STORAGE_FILE_NAME_SIZE]; /* from the directory on: "8/0/00000000000000000000.log" */
    uint64_t size_bytes;
    uint32_t crc;
    enum storage_backup_way way;
};

struct storage_backup_partition {
    uint64_t stream_id;
    uint32_t partition;
    int64_t log_start, end;
};

struct storage_backup_summary {
    uint64_t lsn;           /* everything before it is in the backup */
    uint64_t checkpoint_ms; /* wall clock: when that was */
    uint32_t version;       /* of the format */
    uint32_t fingerprint;   /* of the store's secret */
    int32_t epoch;
    bool is_running; /* a gateway has the store open */
    bool is_late;    /* ... and did not make the checkpoint that it was asked for in time */
};

struct storage_backup_options {
    const char *store;
    const char *target;     /* is made */
    const char *before;     /* a backup of before, or NULL */
    bool before_is_damaged; /* damage was told of then: what is kept of it is looked at again */
    uint64_t rate_bytes;    /* read in a second at most; 0: no limit */
    uint64_t reserve_bytes; /* left free on the target's file system */
    uint64_t wait_ms;       /* for the gateway's checkpoint */
    void *context;          /* of what follows */
    /* Was this file in the backup before, whole? Then its CRC. */
    bool (*was_there)(void *context, const char *name, uint64_t size_bytes, uint32_t *ret_crc);
    void (*file)(void *context, const struct storage_backup_file *file);
    void (*partition)(void *context, const struct storage_backup_partition *partition);
    void (*damage)(void *context, const char *path, const char *what);
    void (*progress)(void *context, uint64_t read_bytes); /* NULL: nobody */
};

/* 0, though damage may have been told: the rest is there. DG_ERR_STORAGE_FULL, DG_ERR_IO,
 * DG_ERR_CORRUPT (format or checkpoint) ..., with a message for people; what is in the target then
 * is the caller's to remove. */
DG_NODISCARD int storage_backup(const struct storage_backup_options *options,
                                struct storage_backup_summary *ret_summary, char *ret_error);

struct storage_restore_options {
    const char *backup; /* the directory that was target */
    const char *store;  /* made, or empty */
    const struct storage_backup_file *files;
    unsigned file_count;
    int32_t epoch_min; /* the new epoch is at least this, and later than the backup's */
    void (*progress)(void *context, uint64_t read_bytes); /* NULL: nobody */
    void *context;
};

/* Until it is done the directory is no store, and no gateway opens it. DG_ERR_EXISTS: not empty;
 * DG_ERR_BUSY: in use; DG_ERR_CORRUPT: a file is not what was backed up; other errors as above. */
DG_NODISCARD int storage_restore(const struct storage_restore_options *options, int32_t *ret_epoch,
                                 char *ret_error);

/* The largest stream id that has a record; 0: none. Of a store or a backup; the journal is not
 * looked at. DG_ERR_NOT_FOUND, DG_ERR_CORRUPT ... */
DG_NODISCARD int storage_last_stream(const char *directory, uint64_t *ret_stream_id);
