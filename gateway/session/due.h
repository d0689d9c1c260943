/*
 * What is due first: a pairing heap whose links are in its entries, so that waiting costs no memory
 * of its own and nothing can fail. Pure; one thread.
 */
#pragma once

#include <stdint.h>

struct due {
    int64_t at_ms;
    struct due *first;  /* of those below it */
    struct due *next;   /* beside it */
    struct due *before; /* beside it, or above the first */
};

/* *first is the entry that is due first, NULL: none. entry is in no heap; at_ms stays as it is
 * until it is removed. */
void due_add(struct due **first, struct due *entry);
/* Harmless for an entry that is in no heap. */
void due_remove(struct due **first, struct due *entry);
