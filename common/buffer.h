/*
 * A growable run of bytes with a limit. Owned by whoever holds the struct; one thread at a time.
 * An empty buffer owns no memory.
 */
#pragma once

#include <stdbool.h>

#include "common/err.h"
#include "common/slice.h"

struct buffer {
    uint8_t *data;
    size_t start; /* first unread byte */
    size_t end;   /* after the last byte */
    size_t capacity;
    bool is_secret; /* set by the owner: memory is wiped before it is given back */
};

static inline size_t buffer_size(const struct buffer *b) {
    return b->end - b->start;
}

static inline struct slice buffer_slice(const struct buffer *b) {
    return slice_make(b->data ? b->data + b->start : NULL, b->end - b->start);
}

/* Room for size more bytes at data + end; fails with DG_ERR_LIMIT when the unread size would pass
 * limit_bytes, DG_ERR_NO_MEMORY when memory is out. */
DG_NODISCARD int buffer_reserve(struct buffer *b, size_t size, size_t limit_bytes);
DG_NODISCARD int buffer_append(struct buffer *b, const void *data, size_t size, size_t limit_bytes);

/* Drops count bytes from the front; when none is left the memory is freed. */
void buffer_consume(struct buffer *b, size_t count);
void buffer_free(struct buffer *b);
