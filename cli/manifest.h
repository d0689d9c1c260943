/*
 * The manifest of a backup: what is in it, and what its two halves are. The last thing a backup
 * writes: a directory without one is no backup.
 *
 *     <backup>/manifest.json
 *     <backup>/stream/...        storage/backup.h
 *     <backup>/registry.dump     pg_dump's custom format; not with --no-registry
 *     <backup>/last_epoch        the epoch that the last restore of this backup began; written then
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "registry/half.h"
#include "storage/backup.h"

enum { MANIFEST_PATH_SIZE = 4352, MANIFEST_ERROR_SIZE = 512, MANIFEST_VERSION = 1 };

struct manifest {
    int64_t made_ms; /* wall clock */
    struct storage_backup_summary stream;
    uint64_t last_stream;                        /* highest that has a partition; 0: none */
    struct storage_backup_partition *partitions; /* owned */
    unsigned partition_count;
    struct storage_backup_file *files; /* owned */
    unsigned file_count;
    unsigned damage_count; /* of the store that was backed up */
    bool has_registry;
    struct registry_half registry; /* read before the dump: it has all of this, or more */
    uint64_t dump_size_bytes;
    uint32_t dump_crc;
};

/* Appends; false when memory is out. */
bool manifest_add_file(struct manifest *manifest, const struct storage_backup_file *file);
bool manifest_add_partition(struct manifest *manifest,
                            const struct storage_backup_partition *partition);

/* Synced. 0 or an errno. */
DG_NODISCARD int manifest_write(const struct manifest *manifest, const char *backup);
/* DG_ERR_NOT_FOUND: no backup, or one that was never finished; DG_ERR_CORRUPT,
 * DG_ERR_UNSUPPORTED_VERSION, DG_ERR_NO_MEMORY; with a message. */
DG_NODISCARD int manifest_read(const char *backup, struct manifest *ret_manifest, char *ret_error);
void manifest_free(struct manifest *manifest);
