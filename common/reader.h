/*
 * Bounded reader over bytes from outside. It cannot over-read: a read past the end sets `failed`
 * and returns zero, and stays failed, so a decoder may read a whole message and check once.
 * Integers are big-endian, as in every protocol here. Pure; any thread.
 */
#pragma once

#include "common/slice.h"

struct reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
};

static inline struct reader reader_make(const void *data, size_t size) {
    const uint8_t *bytes = data;
    return (struct reader){.at = bytes, .end = bytes + size, .failed = false};
}

static inline size_t reader_left(const struct reader *r) {
    return (size_t)(r->end - r->at);
}

/* Takes size bytes in place, or NULL (and failed) when fewer are left. */
static inline const uint8_t *reader_take(struct reader *r, size_t size) {
    if (__builtin_expect(r->failed || reader_left(r) < size, 0)) {
        r->failed = true;
        r->at = r->end;
        return NULL;
    }
    const uint8_t *start = r->at;
    r->at += size;
    return start;
}

static inline struct slice reader_slice(struct reader *r, size_t size) {
    const uint8_t *start = reader_take(r, size);
    return slice_make(start, start ? size : 0);
}

static inline uint8_t reader_u8(struct reader *r) {
    const uint8_t *p = reader_take(r, 1);
    return p ? p[0] : 0;
}

static inline uint16_t reader_u16(struct reader *r) {
    const uint8_t *p = reader_take(r, 2);
    return p ? (uint16_t)(p[0] << 8 | p[1]) : 0;
}

static inline uint32_t reader_u32(struct reader *r) {
    const uint8_t *p = reader_take(r, 4);
    uint32_t value = 0;
    if (p)
        memcpy(&value, p, 4);
    return __builtin_bswap32(value);
}

static inline uint64_t reader_u64(struct reader *r) {
    const uint8_t *p = reader_take(r, 8);
    uint64_t value = 0;
    if (p)
        memcpy(&value, p, 8);
    return __builtin_bswap64(value);
}

/* LEB128, at most 5 bytes and 32 bits (Kafka unsigned varint). */
static inline uint32_t reader_uvarint(struct reader *r) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 35; shift += 7) {
        uint8_t byte = reader_u8(r);
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            if (value > UINT32_MAX)
                break;
            return (uint32_t)value;
        }
    }
    r->failed = true;
    r->at = r->end;
    return 0;
}

/* Zigzag LEB128, at most 10 bytes (Kafka varint and varlong). */
static inline int64_t reader_varlong(struct reader *r) {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        uint8_t byte = reader_u8(r);
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
    }
    r->failed = true;
    r->at = r->end;
    return 0;
}
