/* The Kafka codec: its tables against the layouts, both directions in every version, requests of
 * real clients byte by byte, hostile input, and the arithmetic of a Fetch. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/kafka/fetch_size.h"
#include "gateway/kafka/messages.h"
#include "tests/unit/gateway/kafka_layouts.h"
#include "tests/unit/gateway/leaks.h"

TestSuite(kafka_codec, .fini = check_leaks);

enum { ARENA_SIZE = 1 << 20, WIRE_SIZE = 1 << 16 };
static uint8_t arena_bytes[ARENA_SIZE], wire[WIRE_SIZE], again[WIRE_SIZE];

static struct kafka_arena fresh_arena(void) {
    return (struct kafka_arena){.at = arena_bytes, .end = arena_bytes + ARENA_SIZE};
}

/* ---- the rows say what the layouts say ---- */

static const struct {
    const char *name;
    enum kafka_type type;
} type_names[] = {
    {"i8", KAFKA_I8},      {"i16", KAFKA_I16},         {"i32", KAFKA_I32},
    {"i64", KAFKA_I64},    {"bool", KAFKA_BOOL},       {"uuid", KAFKA_UUID},
    {"str", KAFKA_STRING}, {"bytes", KAFKA_BYTES},     {"recs", KAFKA_RECORDS},
    {"[]", KAFKA_ARRAY},   {"i32[]", KAFKA_I32_ARRAY}, {"str[]", KAFKA_STRING_ARRAY},
};

static enum kafka_type type_of(const char *name) {
    for (size_t i = 0; i < sizeof(type_names) / sizeof(type_names[0]); i++)
        if (strcmp(type_names[i].name, name) == 0)
            return type_names[i].type;
    cr_assert_fail("no type %s", name);
    return KAFKA_I8;
}

struct layout_line {
    int depth, first, last, null_from;
    char name[32], type[8];
};

static const char *read_line(const char *text, struct layout_line *line) {
    *line = (struct layout_line){.last = KAFKA_EVER, .null_from = KAFKA_NEVER};
    char versions[16], nullable[16] = "";
    while (text[line->depth] == ' ')
        line->depth++;
    const char *end = strchr(text, '\n');
    char copy[96];
    snprintf(copy, sizeof(copy), "%.*s", (int)(end - text), text);
    cr_assert_geq(sscanf(copy, " %31s %7s %15s %15s", line->name, line->type, versions, nullable),
                  3);
    sscanf(versions, "%d-%d", &line->first, &line->last);
    sscanf(nullable, "null%d", &line->null_from);
    return end + 1;
}

/* Walks rows and lines side by side; returns where the lines of this depth end. */
static const char *compare_rows(const struct kafka_field *row, const char *text, int depth,
                                const struct kafka_api *api) {
    for (; row->name; row++) {
        struct layout_line line;
        cr_assert(*text, "%s: row %s is not in the layout", api->name, row->name);
        text = read_line(text, &line);
        cr_assert_eq(line.depth, depth, "%s: %s against %s", api->name, row->name, line.name);
        cr_assert_eq((int)row->type, (int)type_of(line.type), "%s: type of %s", api->name,
                     line.name);
        for (int version = api->first; version <= api->last; version++) {
            bool here = version >= row->first && version <= row->last;
            cr_assert_eq(here, version >= line.first && version <= line.last, "%s v%d: %s",
                         api->name, version, line.name);
            cr_assert(!here || (version >= row->null_from) == (version >= line.null_from),
                      "%s v%d: null of %s", api->name, version, line.name);
        }
        if (row->type == KAFKA_ARRAY)
            text = compare_rows(row->element, text, depth + 1, api);
    }
    return text;
}

Test(kafka_codec, rows_are_the_layouts) {
    size_t count = 0;
    for (const struct kafka_api *api = kafka_apis; api->name; api++, count++) {
        const struct kafka_layout *layout = kafka_layouts;
        while (layout->api != api->key)
            cr_assert(++layout < kafka_layouts + sizeof(kafka_layouts) / sizeof(kafka_layouts[0]));
        cr_assert_str_empty(compare_rows(api->request, layout->request, 1, api));
        cr_assert_str_empty(compare_rows(api->response, layout->response, 1, api));
        cr_assert_eq(kafka_api_find(api->key), api);
    }
    cr_assert_eq(count, sizeof(kafka_layouts) / sizeof(kafka_layouts[0]));
    cr_assert_null(kafka_api_find(999));
}

/* What clients were tested with; ranges are load-bearing. InitProducerId (22) must not be there:
 * with it producers would believe that they may write. */
Test(kafka_codec, what_is_advertised) {
    static const struct {
        int key, first, last;
    } offered[] = {
        {0, 0, 9},  {1, 4, 13}, {2, 1, 7},  {3, 0, 12}, {8, 2, 8},  {9, 1, 8},  {10, 0, 4},
        {11, 0, 9}, {12, 0, 4}, {13, 0, 5}, {14, 0, 5}, {15, 0, 5}, {16, 0, 4}, {17, 0, 1},
        {18, 0, 4}, {23, 2, 4}, {32, 1, 4}, {36, 0, 2}, {42, 0, 2}, {47, 0, 0}, {60, 0, 1},
    };
    size_t count = 0;
    while (kafka_apis[count].name)
        count++;
    cr_expect_eq(count, sizeof(offered) / sizeof(offered[0]));
    for (size_t i = 0; i < sizeof(offered) / sizeof(offered[0]); i++) {
        const struct kafka_api *api = kafka_api_find(offered[i].key);
        cr_assert(api, "%d", offered[i].key);
        cr_expect(api->first == offered[i].first && api->last == offered[i].last, "%s", api->name);
    }
    cr_expect_null(kafka_api_find(22));
}

/* ---- what is written is what is read ---- */

static int next_value;

static void make_struct(const struct kafka_field *rows, int version, struct kafka_arena *arena,
                        uint8_t *to, bool nulls);

static struct slice make_text(struct kafka_arena *arena) {
    char *text = kafka_arena_take(arena, 16);
    cr_assert(text);
    return slice_make(text, (size_t)snprintf(text, 16, "text-%d", next_value++));
}

static void make_array(const struct kafka_field *row, int version, struct kafka_arena *arena,
                       struct kafka_array *array, bool nulls) {
    if (row->element && !row->element->name) /* no rows: always empty, or null where it may be */
        return;
    array->count = 2;
    if (row->type == KAFKA_I32_ARRAY) {
        int32_t *items = array->items = kafka_arena_take(arena, 2 * sizeof(*items));
        items[0] = next_value++;
        items[1] = -next_value++;
    } else if (row->type == KAFKA_STRING_ARRAY) {
        struct slice *items = array->items = kafka_arena_take(arena, 2 * sizeof(*items));
        items[0] = make_text(arena);
        items[1] = slice_make("", 0);
    } else {
        uint8_t *items = array->items = kafka_arena_take(arena, 2u * row->element_size);
        make_struct(row->element, version, arena, items, nulls);
        make_struct(row->element, version, arena, items + row->element_size, !nulls);
    }
}

static void make_number(const struct kafka_field *row, uint8_t *to) {
    int64_t value = (int64_t)next_value++ * (row->type == KAFKA_I64 ? -0x100000001 : 1);
    static const uint8_t widths[] = {
        [KAFKA_I8] = 1, [KAFKA_I16] = 2, [KAFKA_I32] = 4, [KAFKA_I64] = 8};
    if (row->type == KAFKA_BOOL)
        *(bool *)to = true;
    else
        memcpy(to, &value, widths[row->type]); /* little-endian machines, as everywhere here */
}

static void make_struct(const struct kafka_field *rows, int version, struct kafka_arena *arena,
                        uint8_t *to, bool nulls) {
    for (const struct kafka_field *row = rows; row->name; row++) {
        uint8_t *field = to + row->offset;
        bool is_null = nulls && version >= row->null_from;
        if (version < row->first || version > row->last || row->type == KAFKA_RECORDS)
            continue;
        if (row->type == KAFKA_STRING || row->type == KAFKA_BYTES)
            *(struct slice *)(void *)field = is_null ? slice_make(NULL, 0) : make_text(arena);
        else if (row->type == KAFKA_UUID)
            memset(field, next_value++, KAFKA_UUID_SIZE);
        else if (row->type >= KAFKA_ARRAY && is_null)
            ((struct kafka_array *)(void *)field)->is_null = true;
        else if (row->type >= KAFKA_ARRAY)
            make_array(row, version, arena, (struct kafka_array *)(void *)field, nulls);
        else
            make_number(row, field);
    }
}

static size_t encode(const struct kafka_field *rows, int version, bool flexible, const void *from,
                     uint8_t *to) {
    struct kafka_gap gaps[4];
    struct kafka_output output = {.w = writer_make(to, WIRE_SIZE), .gaps = gaps, .gap_limit = 4};
    kafka_encode(rows, version, flexible, &output, from);
    cr_assert(!output.w.failed && output.gap_count == 0);
    return writer_size(&output.w);
}

static bool has_records(const struct kafka_field *rows) {
    for (const struct kafka_field *row = rows; row->name; row++)
        if (row->type == KAFKA_RECORDS || (row->type == KAFKA_ARRAY && has_records(row->element)))
            return true;
    return false;
}

/* Any cut of the bytes is malformed: no field is read from behind the end. */
static void check_cuts(const struct kafka_field *rows, int version, bool flexible, size_t size,
                       const char *name) {
    static uint8_t message[512];
    for (size_t cut = 0; cut < size; cut++) {
        uint8_t *exact = malloc(cut ? cut : 1);
        memcpy(exact, wire, cut);
        struct reader r = reader_make(exact, cut);
        struct kafka_arena arena = fresh_arena();
        memset(message, 0, sizeof(message));
        int err = kafka_decode(rows, version, flexible, &r, &arena, message);
        cr_assert_eq(err, DG_ERR_MALFORMED, "%s v%d cut at %zu", name, version, cut);
        free(exact);
    }
}

static void check_round_trip(const struct kafka_field *rows, int version, bool flexible, bool nulls,
                             const char *name) {
    static uint8_t message[512], decoded[512];
    static uint8_t source[1 << 16];
    struct kafka_arena made = {.at = source, .end = source + sizeof(source)};
    memset(message, 0, sizeof(message));
    memset(decoded, 0, sizeof(decoded));
    next_value = 1;
    make_struct(rows, version, &made, message, nulls);
    size_t size = encode(rows, version, flexible, message, wire);
    if (has_records(rows)) /* never decoded; the endpoint's tests read them */
        return;
    struct reader r = reader_make(wire, size);
    struct kafka_arena arena = fresh_arena();
    cr_assert_eq(kafka_decode(rows, version, flexible, &r, &arena, decoded), 0, "%s v%d", name,
                 version);
    cr_assert_eq(reader_left(&r), 0, "%s v%d", name, version);
    cr_assert_eq(encode(rows, version, flexible, decoded, again), size, "%s v%d", name, version);
    cr_assert_arr_eq(again, wire, size, "%s v%d", name, version);
    if (size > 0)
        check_cuts(rows, version, flexible, size, name);
}

Test(kafka_codec, every_api_in_every_version) {
    for (const struct kafka_api *api = kafka_apis; api->name; api++) {
        cr_assert_leq(api->request_size, 512);
        for (int version = api->first; version <= api->last; version++) {
            for (int nulls = 0; nulls < 2; nulls++) {
                bool flexible = kafka_api_is_flexible(api, version);
                check_round_trip(api->request, version, flexible, nulls, api->name);
                check_round_trip(api->response, version, flexible, nulls, api->name);
            }
        }
    }
}

/* ---- requests of real clients ---- */

#define BYTES(text) ((const uint8_t *)("" text)), sizeof("" text) - 1

/* Decodes a frame without its length. */
static void *decode(const uint8_t *bytes, size_t size, struct kafka_request_header *ret_header,
                    int *ret_err) {
    struct reader r = reader_make(bytes, size);
    struct kafka_arena arena = fresh_arena();
    void *request = NULL;
    *ret_err = kafka_decode_header(&r, ret_header);
    const struct kafka_api *api = *ret_err == 0 ? kafka_api_find(ret_header->api) : NULL;
    if (api)
        *ret_err = kafka_decode_request(api, ret_header, &r, &arena, &request);
    return request;
}

static void *decode_well(const uint8_t *bytes, size_t size, int api, int version) {
    struct kafka_request_header header;
    int err;
    void *request = decode(bytes, size, &header, &err);
    cr_assert_eq(err, 0);
    cr_assert_eq(header.api, api);
    cr_assert_eq(header.version, version);
    return request;
}

static void check_text(struct slice text, const char *expected) {
    cr_assert(slice_equals_string(text, expected), "%.*s", (int)text.size, (const char *)text.data);
}

Test(kafka_codec, api_versions_of_librdkafka) {
    struct kafka_api_versions_request *r = decode_well(BYTES("\0\x12\0\x03\0\0\0\x01\0\x07rdkafka\0"
                                                             "\x0blibrdkafka\x06"
                                                             "2.0.2\0"),
                                                       KAFKA_API_VERSIONS, 3);
    check_text(r->software_name, "librdkafka");
    check_text(r->software_version, "2.0.2");
}

Test(kafka_codec, metadata_of_three_clients) {
    struct kafka_metadata_request *r = /* librdkafka 2.0.2: one topic, no creation */
        decode_well(BYTES("\0\x03\0\x04\0\0\0\x02\0\x07rdkafka"
                          "\0\0\0\x01\0\x0b"
                          "acme.events\0"),
                    KAFKA_METADATA, 4);
    cr_assert_eq(r->topics.count, 1);
    check_text(((struct kafka_metadata_request_topic *)r->topics.items)->name, "acme.events");
    cr_assert(!r->allow_auto_create);

    r = decode_well(BYTES("\0\x03\0\0\0\0\0\x01\0\x13kafka-python-2.0.2-\0\0\0\0"), /* all topics */
                    KAFKA_METADATA, 0);
    cr_assert(r->topics.count == 0 && !r->topics.is_null);

    /* librdkafka 2.x writes a null array of a flexible version as four bytes: three are left over.
     */
    r = decode_well(BYTES("\0\x03\0\x0c\0\0\0\x03\0\x07rdkafka\0\0\0\0\0\0\0\0"), KAFKA_METADATA,
                    12);
    cr_assert(r->topics.is_null);
}

Test(kafka_codec, fetch_of_librdkafka_and_newer) {
    struct kafka_fetch_request *r =
        decode_well(BYTES("\0\x01\0\x0b\0\0\0\x05\0\x07rdkafka"
                          "\xff\xff\xff\xff\0\0\x01\xf4\0\0\0\x01\x03\x20\0\0\x01"
                          "\0\0\0\0\xff\xff\xff\xff\0\0\0\x01\0\x0b"
                          "acme.events\0\0\0\x01"
                          "\0\0\0\x03\xff\xff\xff\xff\0\0\0\0\0\0\0\x2a"
                          "\xff\xff\xff\xff\xff\xff\xff\xff\0\x10\0\0"
                          "\0\0\0\0\0\0"),
                    KAFKA_FETCH, 11);
    cr_assert(r->max_wait_ms == 500 && r->min_bytes == 1 && r->max_bytes == 52428800);
    cr_assert(r->isolation == 1 && r->session_id == 0 && r->session_epoch == -1);
    struct kafka_topic *topic = r->topics.items;
    check_text(topic->name, "acme.events");
    struct kafka_fetch_partition *p = topic->partitions.items;
    cr_assert(p->index == 3 && p->current_epoch == -1 && p->offset == 42 && p->log_start == -1);
    cr_assert_eq(p->max_bytes, 1 << 20);
    cr_assert(r->forgotten.count == 0 && r->rack.data && r->rack.size == 0);

    r = decode_well(BYTES("\0\x01\0\x0d\0\0\0\x06\0\x01j\0" /* version 13: ids, tag 0 cluster id */
                          "\xff\xff\xff\xff\0\0\x01\xf4\0\0\0\x01\x03\x20\0\0\0"
                          "\0\0\0\0\0\0\0\0\x02"
                          "0123456789abcdef\x02\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x07\xff\xff\xff\xff"
                          "\xff\xff\xff\xff\xff\xff\xff\xff\0\x10\0\0\0\0\x01\x01"
                          "\x01\0\x03\x02zz"),
                    KAFKA_FETCH, 13);
    topic = r->topics.items;
    cr_assert_arr_eq(topic->id, "0123456789abcdef", 16);
    p = topic->partitions.items;
    cr_assert(p->index == 1 && p->offset == 7 && p->last_fetched_epoch == -1);
}

Test(kafka_codec, sasl_and_a_null_client_id) {
    struct kafka_sasl_handshake_request *h =
        decode_well(BYTES("\0\x11\0\x01\0\0\0\x02\xff\xff\0\x05PLAIN"), KAFKA_SASL_HANDSHAKE, 1);
    check_text(h->mechanism, "PLAIN");
    struct kafka_sasl_authenticate_request *a = decode_well(
        BYTES("\0\x24\0\x02\0\0\0\x03\xff\xff\0\x09\0user\0pw\0"), KAFKA_SASL_AUTHENTICATE, 2);
    cr_assert_eq(a->bytes.size, 8);
    cr_assert_arr_eq(a->bytes.data, "\0user\0pw", 8);
}

/* ---- answers ---- */

static void check_answer(int key, int version, const void *response, const uint8_t *expected,
                         size_t size) {
    struct kafka_request_header header = {.version = (int16_t)version, .correlation_id = 7};
    struct kafka_output output = {.w = writer_make(wire, WIRE_SIZE)};
    kafka_encode_answer(kafka_api_find(key), &header, &output, response);
    cr_assert(!output.w.failed);
    cr_assert_eq(writer_size(&output.w), size, "%zu", writer_size(&output.w));
    cr_assert_arr_eq(wire, expected, size);
}

Test(kafka_codec, answers_byte_by_byte) {
    struct kafka_api_version key = {.key = 18, .first = 0, .last = 4};
    struct kafka_api_versions_response versions = {.keys = {.items = &key, .count = 1}};
    check_answer(KAFKA_API_VERSIONS, 3, &versions, /* flexible, yet no tags in the header */
                 BYTES("\0\0\0\x13\0\0\0\x07\0\0\x02\0\x12\0\0\0\x04\0\0\0\0\0\0"));
    versions.error = KAFKA_ERROR_UNSUPPORTED_VERSION;
    check_answer(KAFKA_API_VERSIONS, 0, &versions,
                 BYTES("\0\0\0\x10\0\0\0\x07\0\x23\0\0\0\x01\0\x12\0\0\0\x04"));
    struct slice plain = slice_from_string("PLAIN");
    struct kafka_sasl_handshake_response handshake = {.mechanisms = {.items = &plain, .count = 1}};
    check_answer(KAFKA_SASL_HANDSHAKE, 1, &handshake,
                 BYTES("\0\0\0\x11\0\0\0\x07\0\0\0\0\0\x01\0\x05PLAIN"));
    struct kafka_sasl_authenticate_response refused = {
        .error = KAFKA_ERROR_SASL_FAILED, .message = slice_from_string("no"), .bytes = {0}};
    check_answer(KAFKA_SASL_AUTHENTICATE, 2, &refused,
                 BYTES("\0\0\0\x14\0\0\0\x07\0\0\x3a\x03no\x01\0\0\0\0\0\0\0\0\0"));
}

Test(kafka_codec, records_leave_gaps) {
    struct kafka_fetch_answer answers[2] = {
        {.index = 1, .high_watermark = 9, .aborted.is_null = true, .records.size_bytes = 300},
        {.index = 2, .aborted.is_null = true}};
    struct kafka_topic topic = {.name = slice_from_string("t"),
                                .partitions = {.items = answers, .count = 2}};
    struct kafka_fetch_response response = {.topics = {.items = &topic, .count = 1}};
    struct kafka_request_header header = {.version = 12, .correlation_id = 7};
    struct kafka_gap gap;
    struct kafka_output output = {.w = writer_make(wire, WIRE_SIZE), .gaps = &gap, .gap_limit = 1};
    kafka_encode_answer(kafka_api_find(KAFKA_FETCH), &header, &output, &response);
    cr_assert(!output.w.failed && output.gap_count == 1 && output.gap_bytes == 300);
    cr_assert_eq(gap.records, &answers[0].records);
    cr_assert_arr_eq(wire + gap.position - 2, "\xad\x02", 2); /* 301 as unsigned varint */
    struct reader r = reader_make(wire, 4);
    cr_assert_eq(reader_u32(&r), writer_size(&output.w) - 4 + 300);

    answers[1].records.size_bytes = 1; /* more gaps than there is room for */
    output = (struct kafka_output){.w = writer_make(wire, WIRE_SIZE), .gaps = &gap, .gap_limit = 1};
    kafka_encode_answer(kafka_api_find(KAFKA_FETCH), &header, &output, &response);
    cr_assert(output.w.failed);
    output = (struct kafka_output){.w = writer_make(wire, 10), .gaps = &gap, .gap_limit = 1};
    kafka_encode_answer(kafka_api_find(KAFKA_FETCH), &header, &output, &response);
    cr_assert(output.w.failed);
}

/* ---- hostile ---- */

Test(kafka_codec, hostile_counts_and_lengths) {
    static const struct {
        const char *what;
        const uint8_t *bytes;
        size_t size;
        int err;
    } cases[] = {
        {"nothing", BYTES(""), DG_ERR_MALFORMED},
        {"a header cut short", BYTES("\0\x03\0\0\0\0\0"), DG_ERR_MALFORMED},
        {"a client id past the end", BYTES("\0\x03\0\0\0\0\0\x01\x7f\xff"), DG_ERR_MALFORMED},
        {"a client id of length -2", BYTES("\0\x03\0\0\0\0\0\x01\xff\xfe"), DG_ERR_MALFORMED},
        {"two thousand million topics", BYTES("\0\x03\0\x01\0\0\0\x01\xff\xff\x7f\xff\xff\xff"),
         DG_ERR_MALFORMED},
        {"-2 topics", BYTES("\0\x03\0\x01\0\0\0\x01\xff\xff\xff\xff\xff\xfe"), DG_ERR_MALFORMED},
        {"null topics where they may not be", BYTES("\0\x03\0\0\0\0\0\x01\xff\xff\xff\xff\xff\xff"),
         DG_ERR_MALFORMED},
        {"one topic more than there are bytes",
         BYTES("\0\x03\0\x01\0\0\0\x01\xff\xff\0\0\0\x03\0\0"), DG_ERR_MALFORMED},
        {"a null topic name", BYTES("\0\x03\0\x01\0\0\0\x01\xff\xff\0\0\0\x01\xff\xff"),
         DG_ERR_MALFORMED},
        {"a compact count of 2^32-1", BYTES("\0\x03\0\x0c\0\0\0\x01\xff\xff\0\xff\xff\xff\xff\x0f"),
         DG_ERR_MALFORMED},
        {"a varint of six bytes", BYTES("\0\x03\0\x0c\0\0\0\x01\xff\xff\0\xff\xff\xff\xff\xff\x0f"),
         DG_ERR_MALFORMED},
        {"more tags than any client sends", BYTES("\0\x12\0\x03\0\0\0\x01\xff\xff\x7f"),
         DG_ERR_MALFORMED},
        {"a tag past the end", BYTES("\0\x12\0\x03\0\0\0\x01\xff\xff\x01\x00\xff\xff\x03"),
         DG_ERR_MALFORMED},
        {"null SASL bytes", BYTES("\0\x24\0\x01\0\0\0\x03\xff\xff\xff\xff\xff\xff"),
         DG_ERR_MALFORMED},
        {"bytes behind a whole body", BYTES("\0\x03\0\0\0\0\0\x01\xff\xff\0\0\0\0trailing"), 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct kafka_request_header header;
        int err;
        uint8_t *exact = malloc(cases[i].size + 1);
        memcpy(exact, cases[i].bytes, cases[i].size);
        decode(exact, cases[i].size, &header, &err);
        cr_assert_eq(err, cases[i].err, "%s: %d", cases[i].what, err);
        free(exact);
    }
}

/* As many empty names as fit in a request: the arena ends it, not the machine. */
Test(kafka_codec, more_items_than_memory) {
    static uint8_t frame[200000];
    struct writer w = writer_make(frame, sizeof(frame));
    writer_u16(&w, KAFKA_METADATA);
    writer_u16(&w, 1);
    writer_u32(&w, 1);
    writer_u16(&w, 0xffff);
    writer_u32(&w, (uint32_t)(sizeof(frame) - 14) / 2);
    struct kafka_request_header header;
    int err;
    decode(frame, sizeof(frame), &header, &err);
    cr_assert_eq(err, DG_ERR_LIMIT);
}

/* ---- how much a Fetch answers ---- */

Test(kafka_codec, fetch_budget) {
    enum { MIB = 1 << 20 };
    static const struct {
        int32_t min, max;      /* of the request */
        int32_t partition_max; /* of each partition */
        uint32_t found[3];     /* what each has; whole batches, the first as it comes */
        uint32_t rooms[3];     /* expected: how much to read */
        bool taken[3];
        bool met;
    } cases[] = {
        /* plenty of room */
        {1, 50 * MIB, MIB, {100, 0, 200}, {MIB, MIB, MIB}, {true, true, true}, true},
        /* nothing there: wait, unless nothing was asked for */
        {1, 50 * MIB, MIB, {0, 0, 0}, {MIB, MIB, MIB}, {true, true, true}, false},
        {0, 50 * MIB, MIB, {0, 0, 0}, {MIB, MIB, MIB}, {true, true, true}, true},
        {-5, 50 * MIB, MIB, {0, 0, 0}, {MIB, MIB, MIB}, {true, true, true}, true},
        /* less than the minimum: wait */
        {1000, 50 * MIB, MIB, {300, 300, 300}, {MIB, MIB, MIB}, {true, true, true}, false},
        /* a first batch over every limit is given; nothing after it */
        {1, 10, 10, {5000, 0, 0}, {10, 0, 0}, {true, true, true}, true},
        {1, 0, 0, {5000, 0, 0}, {1, 0, 0}, {true, true, true}, true},
        {1, -1, -1, {0, 5000, 0}, {1, 1, 0}, {true, true, true}, true},
        /* ... also when only its partition's limit is small */
        {1, MIB, 10, {5000, 10, 20}, {10, 10, 10}, {true, true, false}, true},
        /* the whole answer's limit shrinks the later ones */
        {1, 1000, 600, {600, 400, 1}, {600, 400, 0}, {true, true, true}, true},
        {1, 1000, 600, {600, 500, 100}, {600, 400, 400}, {true, false, true}, true},
        /* a minimum above the maximum could never be met */
        {MIB, 1000, MIB, {1000, 0, 0}, {1000, 0, 0}, {true, true, true}, true},
        /* our own ceiling */
        {INT32_MAX,
         INT32_MAX,
         INT32_MAX,
         {16 * MIB, 0, 0},
         {16 * MIB, 0, 0},
         {true, true, true},
         true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct kafka_budget budget = kafka_budget_make(cases[i].min, cases[i].max);
        for (int p = 0; p < 3; p++) {
            uint32_t room = kafka_budget_room(&budget, cases[i].partition_max);
            cr_assert_eq(room, cases[i].rooms[p], "case %zu.%d: room %u", i, p, room);
            if (room > 0 && cases[i].found[p] > 0)
                cr_assert_eq(kafka_budget_take(&budget, room, cases[i].found[p]), cases[i].taken[p],
                             "case %zu.%d", i, p);
        }
        cr_assert_eq(kafka_budget_is_met(&budget), cases[i].met, "case %zu", i);
    }
}
