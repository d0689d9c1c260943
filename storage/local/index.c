/* The sparse index. Nothing on disk: a segment walked once gives it back. */
#include "storage/local/index.h"

#include <stdlib.h>
#include <string.h>

#include "common/assert.h"

static bool reserve(struct index *index, uint32_t capacity) {
    if (capacity <= index->capacity)
        return true;
    uint32_t wanted = index->capacity ? index->capacity * 2 : 16;
    if (wanted < capacity)
        wanted = capacity;
    struct index_entry *entries = realloc(index->entries, wanted * sizeof(*entries));
    if (!entries)
        return false;
    index->entries = entries;
    index->capacity = wanted;
    return true;
}

void index_add(struct index *index, int64_t offset, int64_t first_ms, uint32_t position) {
    if (position == index->from)
        index->from_offset = offset;
    if (index->count > 0) {
        const struct index_entry *last = &index->entries[index->count - 1];
        dg_assert(last->offset < offset && last->position < position);
        if (position - last->position < INDEX_STEP_BYTES)
            return;
    }
    if (!reserve(index, index->count + 1))
        return;
    index->entries[index->count++] = (struct index_entry){offset, first_ms, position};
}

bool index_cover(struct index *index, const struct index *found, uint32_t covered,
                 int64_t covered_offset, int64_t from_offset) {
    if (!reserve(index, index->count + found->count))
        return false;
    uint32_t at = 0; /* of the first entry of the second stretch */
    while (at < index->count && index->entries[at].position < index->from)
        at++;
    if (found->count > 0) {
        memmove(index->entries + at + found->count, index->entries + at,
                (index->count - at) * sizeof(*index->entries));
        memcpy(index->entries + at, found->entries, found->count * sizeof(*index->entries));
        index->count += found->count;
    }
    index->covered = covered;
    index->covered_offset = covered_offset;
    if (covered == index->from && covered_offset == from_offset)
        index->from = 0;
    return true;
}

const struct index_entry *index_find_offset(const struct index *index, int64_t offset) {
    uint32_t low = 0, high = index->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (index->entries[middle].offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &index->entries[low - 1] : NULL;
}

const struct index_entry *index_find_time(const struct index *index, int64_t time_ms) {
    uint32_t low = 0, high = index->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (index->entries[middle].first_ms < time_ms)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &index->entries[low - 1] : NULL;
}

const struct index_entry *index_find_position(const struct index *index, uint32_t position) {
    uint32_t low = 0, high = index->count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (index->entries[middle].position <= position)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? &index->entries[low - 1] : NULL;
}

void index_free(struct index *index) {
    free(index->entries);
    *index = (struct index){0};
}
