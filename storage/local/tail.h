/*
 * A partition's tail: its newest batches, oldest first, in a ring of pointers that is searched by
 * offset. First those that are in their segment file and kept for readers that are close behind,
 * then, from place on, those that are durable only in the journal. The chunks' references are the
 * tail's.
 *
 * All of it under the partition's mutex: the committer promises room and adds, the placer moves
 * place and takes the first ones out, readers search. The ring holds at most what the placer lets
 * wait and keeps (LIMIT_PLACER_*_BYTES, in chunks of 4 KiB at least: some 200 KiB of pointers), and
 * goes when it is empty.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct chunk;

struct tail {
    struct chunk **ring;
    uint32_t capacity; /* a power of two, or 0 */
    uint32_t promised; /* batches that will be added */
    /* Batches are numbered for ever; number n is in slot n % capacity. */
    uint64_t first, place, end;
    uint64_t unplaced_bytes;
};

/* Makes room for one more batch, before it is durable: adding it must not fail. False: out of
 * memory. */
bool tail_promise(struct tail *tail);
void tail_add(struct tail *tail, struct chunk *chunk);

static inline struct chunk *tail_at(const struct tail *tail, uint64_t number) {
    return tail->ring[number & (tail->capacity - 1)];
}

/* The batch with this offset; NULL: it is older than the tail, or not there yet. */
struct chunk *tail_find(const struct tail *tail, int64_t offset);

/* The oldest unplaced batch; NULL: none. */
struct chunk *tail_unplaced(const struct tail *tail);
/* The oldest unplaced ones are in the file now. */
void tail_place(struct tail *tail, uint32_t count, uint64_t bytes);
/* Takes out the oldest one, which is placed; its reference is the caller's. */
struct chunk *tail_take_first(struct tail *tail);

void tail_free(struct tail *tail);
