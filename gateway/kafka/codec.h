/*
 * The Kafka wire format, driven by tables: a message is an array of field rows (messages.c), and
 * the same rows decode requests and encode responses in every version, flexible or not. Pure.
 *
 * Decoded strings and bytes point into the request; arrays are allocated from an arena whose size
 * bounds what one request can cause, after their count was compared with the bytes that are left.
 * Bytes behind a well-formed body are ignored, since librdkafka sends some (kafka read protocol,
 * framing rule 2).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/reader.h"
#include "common/slice.h"
#include "common/writer.h"

enum kafka_type {
    KAFKA_I8,
    KAFKA_I16,
    KAFKA_I32,
    KAFKA_I64,
    KAFKA_BOOL,
    KAFKA_UUID,    /* uint8_t[16] */
    KAFKA_STRING,  /* struct slice; data NULL: null */
    KAFKA_BYTES,   /* struct slice */
    KAFKA_RECORDS, /* struct kafka_records, of answers: only the size is written */
    KAFKA_ARRAY,   /* struct kafka_array of structs (element rows) */
    KAFKA_I32_ARRAY,
    KAFKA_STRING_ARRAY,
};

enum { KAFKA_NEVER = 127, KAFKA_EVER = 126, KAFKA_UUID_SIZE = 16 };
enum { KAFKA_FRAME_HEADER_SIZE = 4 }; /* the length of what follows */

struct kafka_array {
    void *items;
    uint32_t count;
    bool is_null;
};

struct kafka_extent;

struct kafka_records {
    uint32_t size_bytes;
    struct kafka_extent *source; /* where they are; the codec does not look */
};

/* One field of a message. Rows of a struct end with a row without a name. */
struct kafka_field {
    const char *name;
    enum kafka_type type;
    int8_t first, last; /* versions that carry it */
    int8_t null_from;   /* may be null from this version; KAFKA_NEVER */
    uint16_t offset;    /* in the C struct */
    uint16_t element_size;
    const struct kafka_field *element;
};

struct kafka_arena {
    uint8_t *at, *end;
};

/* size zeroed bytes, or NULL when the arena is used up. */
void *kafka_arena_take(struct kafka_arena *arena, size_t size);

/* Decodes one struct into `ret`, which the caller has zeroed. DG_ERR_MALFORMED, or DG_ERR_LIMIT
 * when the arena is too small. */
DG_NODISCARD int kafka_decode(const struct kafka_field *fields, int version, bool flexible,
                              struct reader *r, struct kafka_arena *arena, void *ret);

/* Where bytes that are not in the writer belong: before `position` comes records. */
struct kafka_gap {
    size_t position;
    const struct kafka_records *records;
};

struct kafka_output {
    struct writer w;
    struct kafka_gap *gaps; /* room for gap_limit; NULL when the message has no records */
    unsigned gap_count, gap_limit;
    uint64_t gap_bytes;
};

/* Encodes one struct. Too little room shows in output->w.failed. */
void kafka_encode(const struct kafka_field *fields, int version, bool flexible,
                  struct kafka_output *output, const void *message);

struct kafka_request_header {
    int16_t api, version;
    int32_t correlation_id;
    struct slice client_id; /* data NULL: null */
};

/* The header but for the tagged fields of header v2, which only the API's row can tell. */
DG_NODISCARD int kafka_decode_header(struct reader *r, struct kafka_request_header *ret_header);
/* Skips the tagged fields of a flexible struct; DG_ERR_MALFORMED. */
DG_NODISCARD int kafka_skip_tags(struct reader *r);
