/*
 * Segment files and their descriptors. A segment belongs to its partition; its descriptor to the
 * table of open files, which closes the least recently used one that nobody has pinned.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "storage/local/chunk.h"
#include "storage/local/file.h"
#include "storage/local/index.h"

struct segment_files;

struct segment {
    struct hold hold; /* of an extent in the file: a pin */
    struct segment_files *files;
    uint64_t stream_id;
    uint32_t partition;
    int64_t base_offset;
    uint64_t created_ms; /* wall clock */
    /* Committer only (recovery before it starts). */
    uint64_t allocated_bytes;
    /* Partition's mutex. */
    bool listed; /* in the partition's table: has a durable batch */
    bool sealed;
    uint32_t end_bytes;    /* durable */
    uint32_t placed_bytes; /* in the file */
    uint64_t sealed_ms;    /* age counts from here; of the newest segment: its last batch */
    struct index index;
    /* Recovery only, of the newest segment. */
    uint64_t file_bytes; /* may be more than end_bytes */
    bool is_torn;        /* its last block is not what the checkpoint says */
    /* Mutex of the files. */
    int fd;        /* -1: closed */
    int direct_fd; /* of the placer: O_DIRECT; -1: not open; -2: not supported here */
    unsigned pins;
    bool dirty;  /* written since the last sync; counts as a pin */
    bool is_new; /* its directory entry is not synced */
    bool removed;
    struct segment *newer, *older; /* open files by use */
    struct segment *dirty_next;
};

struct segment_files {
    pthread_mutex_t mutex;
    const char *directory;
    struct segment *newest, *oldest;
    struct segment *dirty, *dirty_last; /* in the order in which they became dirty */
    unsigned dirty_count;
    uint64_t syncs_begun, syncs_done;
    pthread_cond_t synced;
    unsigned open_count; /* descriptors */
    unsigned open_max;
    atomic_bool lacks_descriptors; /* one was missing; a checkpoint lets go of some */
    atomic_ullong reserve_bytes;   /* free space of the file system that is not touched */
};

void segment_files_init(struct segment_files *files, const char *directory);
void segment_files_free(struct segment_files *files);

/* A segment object, not yet a file. NULL: out of memory. */
struct segment *segment_create(struct segment_files *files, uint64_t stream_id, uint32_t partition,
                               int64_t base_offset, uint64_t created_ms);
/* At the end of the process' use of the store: closes and frees, pinned or not. */
void segment_free(struct segment *segment);

void segment_path(const struct segment *segment, char *ret_path, size_t size);

/* Creates file and directories. 0, DG_ERR_STORAGE_FULL; other failures end the process. */
DG_NODISCARD int segment_create_file(struct segment *segment);

/* Makes sure that the file can be written up to end without asking for space. Committer.
 * DG_ERR_STORAGE_FULL when the file system has no room above the reserve. */
DG_NODISCARD int segment_reserve(struct segment *segment, uint64_t end_bytes, uint64_t size_max);

/* A descriptor that stays open until segment_unpin(); -1 and errno. What ends the process on an
 * error waits instead when there is no descriptor. */
int segment_pin(struct segment *segment);
/* Keeps the object as a pin does, but opens nothing: for whoever found it under the partition's
 * mutex. Then segment_pin_held() turns that into a pin (on failure it ends), or segment_unpin(). */
void segment_hold(struct segment *segment);
int segment_pin_held(struct segment *segment);
void segment_unpin(struct segment *segment);

/* Reads bytes that have been placed; waits for the disk. Ends the process on an error. */
void segment_read(struct segment *segment, void *ret_data, uint32_t size, uint32_t position);

/* Writes whole blocks past the page cache where the file system can; position and size are
 * multiples of FORMAT_BLOCK, data is aligned to it. Marks the segment dirty. Ends the process on an
 * error. */
void segment_write_blocks(struct segment *segment, const void *data, uint32_t size,
                          uint32_t position);

/* If its directory entry is not durable yet: makes it dirty, though nothing has been written. */
void segment_mark_new(struct segment *segment);

/* After any other write. */
void segment_mark_dirty(struct segment *segment);

/* Syncs one, or all that were dirty at the call, new directories included; ends the process on an
 * error. At most two threads at a time: the placer and the checkpointer. segment_files_sync() waits
 * for a segment_sync() under way: what it took is not on disk before it is done. */
void segment_sync(struct segment *segment);
void segment_files_sync(struct segment_files *files);
bool segment_files_crowded(struct segment_files *files);

/* Placer, after the last batch: gives back what was reserved and not used. */
void segment_trim(struct segment *segment, uint32_t size);

/* Unlinks the file; the object is freed with its last pin. Already out of the partition. */
void segment_remove(struct segment *segment);
