/* The tail's ring. Nothing on disk. */
#include "storage/local/tail.h"

#include <stdlib.h>

#include "common/assert.h"
#include "storage/local/chunk.h"

enum { CAPACITY_MIN = 16 };

bool tail_promise(struct tail *tail) {
    uint64_t count = tail->end - tail->first + tail->promised + 1;
    if (count > tail->capacity) {
        uint32_t capacity = tail->capacity ? tail->capacity * 2 : CAPACITY_MIN;
        struct chunk **ring = malloc(capacity * sizeof(struct chunk *));
        if (!ring)
            return false;
        for (uint64_t n = tail->first; n < tail->end; n++)
            ring[n & (capacity - 1)] = tail_at(tail, n);
        free(tail->ring);
        tail->ring = ring;
        tail->capacity = capacity;
    }
    tail->promised++;
    return true;
}

void tail_add(struct tail *tail, struct chunk *chunk) {
    dg_assert(tail->promised > 0);
    tail->promised--;
    tail->ring[tail->end++ & (tail->capacity - 1)] = chunk;
    tail->unplaced_bytes += chunk->size_bytes;
}

struct chunk *tail_find(const struct tail *tail, int64_t offset) {
    uint64_t low = tail->first, high = tail->end;
    if (low < high && offset >= tail_at(tail, high - 1)->base_offset)
        low = high; /* a reader that keeps up */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (tail_at(tail, middle)->base_offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == tail->first)
        return NULL;
    struct chunk *chunk = tail_at(tail, low - 1);
    return offset < chunk->next_offset ? chunk : NULL;
}

struct chunk *tail_unplaced(const struct tail *tail) {
    return tail->place < tail->end ? tail_at(tail, tail->place) : NULL;
}

void tail_place(struct tail *tail, uint32_t count, uint64_t bytes) {
    tail->place += count;
    tail->unplaced_bytes -= bytes;
    dg_assert(tail->place <= tail->end);
}

struct chunk *tail_take_first(struct tail *tail) {
    dg_assert(tail->first < tail->place);
    struct chunk *chunk = tail_at(tail, tail->first++);
    if (tail->first == tail->end && tail->promised == 0)
        tail_free(tail);
    return chunk;
}

void tail_free(struct tail *tail) {
    for (uint64_t n = tail->first; n < tail->end; n++)
        chunk_release(tail_at(tail, n));
    free(tail->ring);
    *tail = (struct tail){0};
}
