/* Record batches as they are stored: what is read, and that nothing broken is. */
#include <criterion/criterion.h>

#include "common/crc32c.h"
#include "storage/record.h"
#include "support.h"

TestSuite(record, .fini = check_leaks);

static const int64_t TIME_MS = 1700000000000;

struct row {
    int64_t time_delta_ms;
    const char *key; /* NULL: null */
    const char *value;
    unsigned header_count;
};

static const struct row rows[] = {{0, "k", "value", 1}, {5, NULL, NULL, 0}, {300, "", "", 2}};

static void put_string(struct writer *w, const char *text) {
    writer_varlong(w, text ? (int64_t)strlen(text) : -1);
    writer_string(w, text ? text : "");
}

static void put_record(struct writer *w, const struct row *row, int64_t offset_delta) {
    uint8_t body[128];
    struct writer b = writer_make(body, sizeof(body));
    writer_u8(&b, 0);
    writer_varlong(&b, row->time_delta_ms);
    writer_varlong(&b, offset_delta);
    put_string(&b, row->key);
    put_string(&b, row->value);
    writer_varlong(&b, row->header_count);
    for (unsigned i = 0; i < row->header_count; i++)
        record_write_header(&b, slice_from_string("name"), slice_from_string("x"));
    writer_varlong(w, (int64_t)writer_size(&b));
    writer_slice(w, slice_make(body, writer_size(&b)));
}

static void put_crc(uint8_t *bytes, size_t size) {
    struct writer w = writer_make(bytes + RECORD_CRC_AT, 4);
    writer_u32(&w, crc32c_update(0, bytes + RECORD_ATTRIBUTES_AT, size - RECORD_ATTRIBUTES_AT));
}

/* By the table in record.c; returns the size. */
static size_t make_batch(uint8_t *bytes, size_t room, uint16_t attributes) {
    struct writer w = writer_make(bytes, room);
    writer_u64(&w, 42);
    uint8_t *length_at = writer_reserve(&w, 4);
    writer_u32(&w, 0);
    writer_u8(&w, 2);
    writer_reserve(&w, 4); /* CRC */
    writer_u16(&w, attributes);
    writer_u32(&w, COUNT_OF(rows) - 1);
    writer_u64(&w, (uint64_t)TIME_MS);
    writer_u64(&w, (uint64_t)TIME_MS + 300);
    writer_u64(&w, UINT64_MAX);
    writer_u16(&w, UINT16_MAX);
    writer_u32(&w, UINT32_MAX);
    writer_u32(&w, COUNT_OF(rows));
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        put_record(&w, &rows[i], (int64_t)i);
    cr_assert_not(w.failed);
    struct writer length = writer_make(length_at, 4);
    writer_u32(&length, (uint32_t)writer_size(&w) - 12);
    put_crc(bytes, writer_size(&w));
    return writer_size(&w);
}

static int read_batch(const uint8_t *bytes, size_t size, bool check_crc,
                      struct record_batch *ret_batch) {
    struct reader r = reader_make(bytes, size);
    int err = record_batch_read(&r, check_crc, ret_batch);
    if (err < 0)
        cr_assert(r.failed && reader_left(&r) == 0);
    return err;
}

static void expect_nullable(struct slice s, const char *text, size_t row) {
    cr_expect_eq(s.data == NULL, text == NULL, "row %zu", row);
    if (text)
        cr_expect(slice_equals_string(s, text), "row %zu", row);
}

Test(record, reads_what_the_layout_says) {
    uint8_t bytes[512];
    struct record_batch batch;
    size_t size = make_batch(bytes, sizeof(bytes), 0);
    struct reader r = reader_make(bytes, sizeof(bytes));
    cr_assert_eq(record_batch_read(&r, true, &batch), 0);
    cr_expect_eq(reader_left(&r), sizeof(bytes) - size, "steps over the batch");
    cr_expect_eq(batch.base_offset, 42);
    cr_expect_eq(batch.base_timestamp_ms, TIME_MS);
    cr_expect_eq(batch.max_timestamp_ms, TIME_MS + 300);
    cr_expect_eq(batch.size_bytes, size);
    struct reader records = reader_make(batch.records.data, batch.records.size);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct record record;
        cr_assert_eq(record_read(&batch, &records, &record), 0);
        cr_expect_eq(record.offset, 42 + (int64_t)i);
        cr_expect_eq(record.timestamp_ms, TIME_MS + rows[i].time_delta_ms);
        expect_nullable(record.key, rows[i].key, i);
        expect_nullable(record.value, rows[i].value, i);
        cr_expect_eq(record.header_count, rows[i].header_count);
        struct reader headers = reader_make(record.headers.data, record.headers.size);
        for (unsigned h = 0; h < record.header_count; h++) {
            struct slice key, value;
            cr_assert_eq(record_header_read(&headers, &key, &value), 0);
            cr_expect(slice_equals_string(key, "name") && slice_equals_string(value, "x"));
        }
        cr_expect_eq(reader_left(&headers), 0);
    }
    cr_expect_eq(reader_left(&records), 0);
}

Test(record, log_append_time_is_the_time_of_all) {
    uint8_t bytes[512];
    struct record_batch batch;
    size_t size = make_batch(bytes, sizeof(bytes), RECORD_LOG_APPEND_TIME);
    cr_assert_eq(read_batch(bytes, size, true, &batch), 0);
    struct reader records = reader_make(batch.records.data, batch.records.size);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct record record;
        cr_assert_eq(record_read(&batch, &records, &record), 0);
        cr_expect_eq(record.timestamp_ms, TIME_MS + 300);
    }
}

Test(record, a_cut_or_changed_batch_is_refused) {
    uint8_t bytes[512];
    struct record_batch batch;
    size_t size = make_batch(bytes, sizeof(bytes), 0);
    for (size_t cut = 0; cut < size; cut++)
        cr_expect_eq(read_batch(bytes, cut, false, &batch), DG_ERR_MALFORMED, "cut at %zu", cut);
    for (size_t at = 0; at < size; at++) {
        bytes[at] ^= 0x20;
        int err = read_batch(bytes, size, true, &batch);
        /* The CRC begins behind itself; base offset and leader epoch may be anything. */
        bool is_free = at < 8 || (at >= 12 && at < 16);
        cr_expect_eq(err, is_free ? 0 : DG_ERR_MALFORMED, "byte %zu", at);
        bytes[at] ^= 0x20;
    }
}

Test(record, header_fields_are_checked_without_the_crc) {
    static const struct {
        unsigned at;
        unsigned size;
        uint64_t value;
        int err;
    } cases[] = {
        {8, 4, 48, DG_ERR_MALFORMED},         /* shorter than its header */
        {8, 4, 0xffffffff, DG_ERR_MALFORMED}, /* negative */
        {8, 4, 0x7fffffff, DG_ERR_MALFORMED}, /* longer than what is there */
        {16, 1, 1, DG_ERR_MALFORMED},         /* an older format */
        {16, 1, 3, DG_ERR_MALFORMED},
        {0, 8, UINT64_MAX, DG_ERR_MALFORMED}, /* base offset -1 */
        {23, 4, 0xffffffff, DG_ERR_MALFORMED},
        {57, 4, 0, DG_ERR_MALFORMED},
        {57, 4, COUNT_OF(rows) + 1, DG_ERR_MALFORMED}, /* more than offsets */
        {57, 4, 1, 0},                                 /* compaction leaves gaps */
        {17, 4, 0, 0},                                 /* the CRC was not asked for */
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint8_t bytes[512];
        struct record_batch batch;
        size_t size = make_batch(bytes, sizeof(bytes), 0);
        for (unsigned b = 0; b < cases[i].size; b++)
            bytes[cases[i].at + b] = (uint8_t)(cases[i].value >> 8 * (cases[i].size - 1 - b));
        cr_expect_eq(read_batch(bytes, size, false, &batch), cases[i].err, "case %zu", i);
    }
}

Test(record, malformed_records_are_refused) {
    static const struct {
        const char *name;
        uint8_t bytes[12];
        size_t size;
    } cases[] = {
        {"nothing", {0}, 0},
        {"negative length", {1}, 1},
        {"longer than the batch", {20, 0}, 2},
        {"cut before the key", {6, 0, 0, 0}, 4},
        {"key longer than the record", {12, 0, 0, 0, 20, 'a', 'b'}, 7},
        {"key length -2", {12, 0, 0, 0, 3, 1, 0}, 7},
        {"value longer than the record", {12, 0, 0, 0, 1, 20, 0}, 7},
        {"no header count", {10, 0, 0, 0, 1, 1}, 6},
        {"negative header count", {12, 0, 0, 0, 1, 1, 1}, 7},
        {"more headers than bytes", {14, 0, 0, 0, 1, 1, 4, 0}, 8},
    };
    struct record_batch batch = {.base_offset = 0};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct record record;
        struct reader r = reader_make(cases[i].bytes, cases[i].size);
        cr_expect_eq(record_read(&batch, &r, &record), DG_ERR_MALFORMED, "%s", cases[i].name);
        cr_expect(r.failed && reader_left(&r) == 0, "%s", cases[i].name);
    }
}

Test(record, malformed_headers_are_refused) {
    static const struct {
        uint8_t bytes[4];
        size_t size;
        int err;
    } cases[] = {
        {{2, 'a', 2, 'b'}, 4, 0},           {{0, 1}, 2, 0}, /* empty key, null value */
        {{1, 2, 'b'}, 3, DG_ERR_MALFORMED},                 /* null key */
        {{2, 'a'}, 2, DG_ERR_MALFORMED},    {{2, 'a', 4, 'b'}, 4, DG_ERR_MALFORMED},
        {{3}, 1, DG_ERR_MALFORMED},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct slice key, value;
        struct reader r = reader_make(cases[i].bytes, cases[i].size);
        cr_expect_eq(record_header_read(&r, &key, &value), cases[i].err, "case %zu", i);
    }
}
