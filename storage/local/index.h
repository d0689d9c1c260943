/*
 * The sparse index of one segment: the first batch of about every INDEX_STEP_BYTES. Derived: kept
 * in memory, rebuilt from the segment when needed. Guarded by the partition's mutex.
 *
 * It covers two stretches: [0, covered) grows as readers need it (walk.c), [from, end) with every
 * batch that is appended. A segment that was there at the start begins with from at its end; when
 * the first stretch has met the second, from is 0: all is covered. If they touch and do not fit
 * together records are missing there, and from stays.
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
    uint32_t from;
    int64_t from_offset; /* of the batch at from, when there is one */
    uint32_t covered;
    int64_t covered_offset; /* of the first batch behind, when covered > 0 */
    bool is_used;           /* since walk_forget_indexes() looked last */
};

/* Adds a batch if the last entry is far enough behind it; ascending positions. Leaves it out when
 * memory is out: an index may be coarser than planned. */
void index_add(struct index *index, int64_t offset, int64_t first_ms, uint32_t position);

/* First offset behind the first stretch. */
static inline int64_t index_covered_offset(const struct index *index, int64_t base_offset) {
    return index->covered > 0 ? index->covered_offset : base_offset;
}

/* Makes the first stretch longer, to [0, covered), by the entries of found; it meets the second one
 * if that begins there with the same offset. False: out of memory, nothing has changed. */
bool index_cover(struct index *index, const struct index *found, uint32_t covered,
                 int64_t covered_offset, int64_t from_offset);

/* Last entry with offset <= offset, or with first_ms < time_ms; NULL: none. */
const struct index_entry *index_find_offset(const struct index *index, int64_t offset);
const struct index_entry *index_find_time(const struct index *index, int64_t time_ms);

/* Last entry with position <= position; NULL: none. */
const struct index_entry *index_find_position(const struct index *index, uint32_t position);

void index_free(struct index *index);
