/* struct stream: the parts of the embedded engine and how they find each other. */
#pragma once

#include "storage/compression.h"
#include "storage/local/checkpointer.h"
#include "storage/local/chunk.h"
#include "storage/local/committer.h"
#include "storage/local/epoch.h"
#include "storage/local/journal.h"
#include "storage/local/partition.h"
#include "storage/local/placer.h"
#include "storage/local/segment.h"
#include "storage/local/state.h"
#include "storage/local/warm.h"
#include "storage/stream.h"

struct stream {
    char directory[STORE_PATH_SIZE - 256];
    int lock_fd;
    uint8_t secret[FORMAT_SECRET_SIZE];
    /* What stream_reconfigure() may change; relaxed. */
    _Atomic uint64_t segment_size_bytes;
    _Atomic uint64_t segment_age_ms;
    _Atomic uint64_t retention_bytes;
    _Atomic uint64_t retention_ms;
    _Atomic enum compression codec; /* of batches to come */
    atomic_bool is_full;            /* units are being refused */
    struct chunk_pool chunks;
    struct segment_files files;
    struct partition_map partitions;
    struct state_map state;
    struct epoch_table epochs; /* does not change after recovery */
    struct journal journal;
    struct committer committer;
    struct placer placer;
    struct checkpointer checkpointer;
    struct warm_pool warm;
};

void stream_set_full(struct stream *stream, bool is_full);
