/*
 * The sparse index of one segment: the first batch of about every INDEX_STEP_BYTES. Derived: kept
 * in memory, rebuilt from the segment when needed. Guarded by the partition's mutex.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum { INDEX_STEP_BYTES = 32 * 1024 };

struct index_entry {
    int64_t offset;   /* of the batch's first record */
    int64_t first_ms; /* of that record */
    uint32_t position;
};

struct index {
    struct index_entry *entries;
    uint32_t count;
    uint32_t capacity;
    uint32_t from; /* covers the segment from this position on */
};

/* Adds a batch if the last entry is far enough behind it; ascending positions. Leaves it out when
 * memory is out: an index may be coarser than planned. */
void index_add(struct index *index, int64_t offset, int64_t first_ms, uint32_t position);

/* Puts the entries of before, which covers [0, index->from), in front. Takes them over. */
void index_prepend(struct index *index, struct index *before);

/* Last entry with offset <= offset, or with first_ms < time_ms; NULL: none. */
const struct index_entry *index_find_offset(const struct index *index, int64_t offset);
const struct index_entry *index_find_time(const struct index *index, int64_t time_ms);

/* Last entry with position <= position; NULL: none. */
const struct index_entry *index_find_position(const struct index *index, uint32_t position);

void index_free(struct index *index);
