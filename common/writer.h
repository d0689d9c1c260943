/*
 * Bounded writer into a fixed run of bytes: a write past the end sets `failed` and writes nothing.
 * Integers are big-endian unless named otherwise. Pure; any thread.
 */
#pragma once

#include "common/slice.h"

struct writer {
    uint8_t *start;
    uint8_t *at;
    uint8_t *end;
    bool failed;
};

static inline struct writer writer_make(void *data, size_t size) {
    uint8_t *bytes = data;
    return (struct writer){.start = bytes, .at = bytes, .end = bytes + size, .failed = false};
}

static inline size_t writer_size(const struct writer *w) {
    return (size_t)(w->at - w->start);
}

/* Reserves size bytes to be filled in by the caller, or NULL (and failed). */
static inline uint8_t *writer_reserve(struct writer *w, size_t size) {
    if (__builtin_expect(w->failed || (size_t)(w->end - w->at) < size, 0)) {
        w->failed = true;
        return NULL;
    }
    uint8_t *start = w->at;
    w->at += size;
    return start;
}

static inline void writer_bytes(struct writer *w, const void *data, size_t size) {
    uint8_t *p = writer_reserve(w, size);
    if (p && size > 0)
        memcpy(p, data, size);
}

static inline void writer_slice(struct writer *w, struct slice s) {
    writer_bytes(w, s.data, s.size);
}

static inline void writer_string(struct writer *w, const char *text) {
    writer_bytes(w, text, strlen(text));
}

static inline void writer_u8(struct writer *w, uint8_t value) {
    writer_bytes(w, &value, 1);
}

static inline void writer_u16(struct writer *w, uint16_t value) {
    uint16_t be = __builtin_bswap16(value);
    writer_bytes(w, &be, 2);
}

static inline void writer_u32(struct writer *w, uint32_t value) {
    uint32_t be = __builtin_bswap32(value);
    writer_bytes(w, &be, 4);
}

static inline void writer_u64(struct writer *w, uint64_t value) {
    uint64_t be = __builtin_bswap64(value);
    writer_bytes(w, &be, 8);
}

/* LEB128 (Kafka unsigned varint). */
static inline void writer_uvarint(struct writer *w, uint64_t value) {
    while (value >= 0x80) {
        writer_u8(w, (uint8_t)(value | 0x80));
        value >>= 7;
    }
    writer_u8(w, (uint8_t)value);
}

/* Zigzag LEB128 (Kafka varint and varlong). */
static inline void writer_varlong(struct writer *w, int64_t value) {
    writer_uvarint(w, ((uint64_t)value << 1) ^ (uint64_t)(value >> 63));
}
