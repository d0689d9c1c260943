/* A borrowed run of bytes: never owned, never NUL-terminated unless said so. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct slice {
    const uint8_t *data;
    size_t size;
};

static inline struct slice slice_make(const void *data, size_t size) {
    return (struct slice){.data = data, .size = size};
}

static inline struct slice slice_from_string(const char *text) {
    return slice_make(text, strlen(text));
}

static inline bool slice_equals(struct slice a, struct slice b) {
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline bool slice_equals_string(struct slice a, const char *text) {
    return slice_equals(a, slice_from_string(text));
}

static inline bool slice_starts_with(struct slice a, const char *prefix) {
    size_t size = strlen(prefix);
    return a.size >= size && memcmp(a.data, prefix, size) == 0;
}

static inline struct slice slice_skip(struct slice a, size_t count) {
    return slice_make(a.data + count, a.size - count);
}
