#include "common/buffer.h"

#include <stdlib.h>
#include <string.h>

#include "common/assert.h"

enum { SMALLEST_BYTES = 256 };

static void give_back(struct buffer *b) {
    if (b->is_secret && b->data)
        explicit_bzero(b->data, b->capacity);
    free(b->data);
}

static void move_to_front(struct buffer *b) {
    size_t size = buffer_size(b);
    if (b->start > 0 && size > 0)
        memmove(b->data, b->data + b->start, size);
    b->start = 0;
    b->end = size;
}

/* Doubles, so that appending is linear over all, but never past what the limit can need. */
static size_t next_capacity(size_t capacity, size_t needed, size_t limit_bytes) {
    size_t next = capacity > SIZE_MAX / 2 ? needed : capacity * 2;
    next = next < SMALLEST_BYTES ? SMALLEST_BYTES : next;
    next = next > limit_bytes ? limit_bytes : next;
    return next < needed ? needed : next;
}

int buffer_reserve(struct buffer *b, size_t size, size_t limit_bytes) {
    size_t unread = buffer_size(b);
    if (size > limit_bytes || unread > limit_bytes - size)
        return DG_ERR_LIMIT;
    if (size <= b->capacity - b->end)
        return 0;
    if (unread + size > b->capacity) {
        size_t capacity = next_capacity(b->capacity, unread + size, limit_bytes);
        uint8_t *data = malloc(capacity);
        if (data == NULL)
            return DG_ERR_NO_MEMORY;
        if (unread > 0)
            memcpy(data, b->data + b->start, unread);
        give_back(b);
        *b = (struct buffer){
            .data = data, .end = unread, .capacity = capacity, .is_secret = b->is_secret};
        return 0;
    }
    move_to_front(b);
    return 0;
}

int buffer_append(struct buffer *b, const void *data, size_t size, size_t limit_bytes) {
    int err = buffer_reserve(b, size, limit_bytes);
    if (err)
        return err;
    if (size > 0)
        memcpy(b->data + b->end, data, size);
    b->end += size;
    return 0;
}

void buffer_consume(struct buffer *b, size_t count) {
    dg_assert(count <= buffer_size(b));
    b->start += count;
    if (b->start == b->end)
        buffer_free(b);
}

void buffer_free(struct buffer *b) {
    give_back(b);
    *b = (struct buffer){.is_secret = b->is_secret};
}
