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

void index_prepend(struct index *index, struct index *before) {
    if (reserve(index, index->count + before->count)) {
        memmove(index->entries + before->count, index->entries,
                index->count * sizeof(*index->entries));
        if (before->count > 0)
            memcpy(index->entries, before->entries, before->count * sizeof(*index->entries));
        index->count += before->count;
        index->from = 0;
    }
    index_free(before);
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
