/* Open batches: what is built can be read, and placing changes what it should and no more. */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "storage/local/batch.h"
#include "storage/record.h"
#include "support.h"

TestSuite(batch, .fini = check_leaks);

static struct chunk_pool pool;

static void append(struct batch *batch, int64_t timestamp_ms, struct slice key,
                   struct slice value) {
    struct stream_record record = {.timestamp_ms = timestamp_ms, .key = key, .value = value};
    uint64_t before = batch->chunk ? batch->size_bytes : RECORD_BATCH_HEADER_SIZE;
    cr_assert_eq(batch_append(batch, &pool, 0, &record), 0);
    cr_expect(batch->size_bytes - before <= batch_record_bound(&record));
}

static void append_text(struct batch *batch, int64_t timestamp_ms, const char *text) {
    append(batch, timestamp_ms, slice_from_string("key"), slice_from_string(text));
}

static struct record_batch read_back(const struct batch *batch) {
    struct reader r = reader_make(batch->chunk->data, batch->size_bytes);
    struct record_batch read;
    cr_assert_eq(record_batch_read(&r, true, &read), 0);
    cr_expect_eq(reader_left(&r), 0);
    cr_expect_eq(read.record_count, batch->record_count);
    cr_expect_eq(read.last_offset_delta, (int32_t)batch->record_count - 1);
    return read;
}

static void expect_times(const struct batch *batch, int64_t base_offset, const int64_t *times_ms,
                         size_t count) {
    struct record_batch read = read_back(batch);
    struct reader r = reader_make(read.records.data, read.records.size);
    for (size_t i = 0; i < count; i++) {
        struct record record;
        cr_assert_eq(record_read(&read, &r, &record), 0);
        cr_expect_eq(record.offset, base_offset + (int64_t)i);
        cr_expect_eq(record.timestamp_ms, times_ms[i], "record %zu: %lld", i,
                     (long long)record.timestamp_ms);
    }
    cr_expect_eq(reader_left(&r), 0);
}

Test(batch, keeps_records_and_raises_times) {
    struct batch batch = {0};
    chunk_pool_init(&pool);
    append_text(&batch, 1000, "a");
    append_text(&batch, 900, "b"); /* the clock went back */
    append_text(&batch, 1500, "c");
    append_text(&batch, 1499, "d");
    batch_seal(&batch);
    expect_times(&batch, 0, (int64_t[]){1000, 1000, 1500, 1500}, 4);
    cr_expect_eq(read_back(&batch).max_timestamp_ms, 1500);
    chunk_release(batch.chunk);
    chunk_pool_free(&pool);
}

/* Smaller, the same records, and the codec in the header, also after the batch got one time. */
Test(batch, compresses) {
    static const enum compression codecs[] = {COMPRESSION_LZ4, COMPRESSION_ZSTD};
    struct compressor *compressor = compressor_create();
    chunk_pool_init(&pool);
    for (size_t c = 0; c < COUNT_OF(codecs); c++) {
        struct batch batch = {0};
        for (unsigned i = 0; i < 100; i++)
            append_text(&batch, 1000 + i, "the same text again and again");
        uint32_t size_before = batch.size_bytes;
        batch_compress(&batch, &pool, compressor, codecs[c]);
        cr_expect_lt(batch.size_bytes, size_before / 4);
        batch_seal(&batch);
        for (unsigned one_time = 0; one_time < 2; one_time++) {
            batch_place(&batch, 7, one_time ? 5000 : 0, 0);
            struct record_batch read = read_back(&batch);
            cr_expect_eq(read.attributes, (one_time ? RECORD_LOG_APPEND_TIME : 0) | codecs[c]);
            struct slice records;
            uint8_t *owned;
            cr_assert_eq(record_batch_expand(&read, &records, &owned), 0);
            struct reader r = reader_make(records.data, records.size);
            for (unsigned i = 0; i < 100; i++) {
                struct record record;
                cr_assert_eq(record_read(&read, &r, &record), 0);
                cr_expect_eq(record.offset, 7 + i);
                cr_expect_eq(record.timestamp_ms, one_time ? 5000 : 1000 + i);
                cr_expect(slice_equals_string(record.value, "the same text again and again"));
            }
            cr_expect_eq(reader_left(&r), 0);
            free(owned);
        }
        chunk_release(batch.chunk);
    }
    compressor_free(compressor);
    chunk_pool_free(&pool);
}

Test(batch, stays_as_it_is_when_nothing_is_gained) {
    struct compressor *compressor = compressor_create();
    struct batch batch = {0};
    chunk_pool_init(&pool);
    append_text(&batch, 1000, "short");
    batch_compress(&batch, &pool, compressor, COMPRESSION_ZSTD);
    batch_seal(&batch);
    expect_times(&batch, 0, (int64_t[]){1000}, 1);
    cr_expect_eq(read_back(&batch).attributes, 0);
    chunk_release(batch.chunk);
    compressor_free(compressor);
    chunk_pool_free(&pool);
}

Test(batch, null_and_empty_differ) {
    static const struct {
        struct slice key, value;
    } cases[] = {
        {{NULL, 0}, {NULL, 0}},
        {{(const uint8_t *)"", 0}, {(const uint8_t *)"", 0}},
        {{(const uint8_t *)"k", 1}, {NULL, 0}},
    };
    struct batch batch = {0};
    chunk_pool_init(&pool);
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        append(&batch, 1, cases[i].key, cases[i].value);
    batch_seal(&batch);
    struct record_batch read = read_back(&batch);
    struct reader r = reader_make(read.records.data, read.records.size);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct record record;
        cr_assert_eq(record_read(&read, &r, &record), 0);
        cr_expect_eq(record.key.data == NULL, cases[i].key.data == NULL, "case %zu", i);
        cr_expect_eq(record.value.data == NULL, cases[i].value.data == NULL, "case %zu", i);
        cr_expect_eq(record.key.size, cases[i].key.size);
    }
    chunk_release(batch.chunk);
    chunk_pool_free(&pool);
}

/* Through all chunk sizes; headers in several pieces. */
Test(batch, grows_and_keeps_its_content) {
    static uint8_t value[3000];
    uint8_t header[64];
    struct writer w = writer_make(header, sizeof(header));
    record_write_header(&w, slice_from_string("name"), slice_from_string("value"));
    struct iovec parts[] = {{header, 3}, {header + 3, writer_size(&w) - 3}};
    struct batch batch = {0};
    chunk_pool_init(&pool);
    enum { COUNT = 300 };
    for (unsigned i = 0; i < COUNT; i++) {
        memset(value, (int)i, sizeof(value));
        struct stream_record record = {
            .timestamp_ms = i,
            .value = slice_make(value, sizeof(value)),
            .headers = parts,
            .header_parts = 2,
            .header_count = 1,
        };
        cr_assert_eq(batch_append(&batch, &pool, 0, &record), 0);
    }
    cr_expect_eq(batch.chunk->capacity, LIMIT_UNIT_BYTES);
    batch_seal(&batch);
    struct record_batch read = read_back(&batch);
    struct reader r = reader_make(read.records.data, read.records.size);
    for (unsigned i = 0; i < COUNT; i++) {
        struct record record;
        struct slice key, text;
        cr_assert_eq(record_read(&read, &r, &record), 0);
        memset(value, (int)i, sizeof(value));
        cr_expect(slice_equals(record.value, slice_make(value, sizeof(value))), "%u", i);
        struct reader headers = reader_make(record.headers.data, record.headers.size);
        cr_assert_eq(record_header_read(&headers, &key, &text), 0);
        cr_expect(slice_equals_string(text, "value"));
    }
    chunk_release(batch.chunk);
    chunk_pool_free(&pool);
}

Test(batch, the_hint_sizes_a_new_chunk) {
    struct stream_record record = {.value = slice_from_string("x")};
    struct batch batch = {0};
    chunk_pool_init(&pool);
    cr_assert_eq(batch_append(&batch, &pool, 60000, &record), 0);
    cr_expect_eq(batch.chunk->capacity, 65536);
    chunk_release(batch.chunk);
    chunk_pool_free(&pool);
}

Test(batch, place_gives_offset_and_times) {
    static const struct {
        int64_t last_ms;
        bool one_time;
        int64_t times_ms[2];
    } cases[] = {
        {INT64_MIN, false, {1000, 2000}}, /* the partition is new */
        {999, false, {1000, 2000}},       {1000, false, {1000, 2000}},
        {1001, true, {2000, 2000}}, /* overlaps: all at the batch's own last time */
        {2000, true, {2000, 2000}},       {5000, true, {5000, 5000}}, /* lies before */
    };
    chunk_pool_init(&pool);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct batch batch = {0};
        append_text(&batch, 1000, "a");
        append_text(&batch, 2000, "b");
        batch_seal(&batch);
        uint32_t crc = read_back(&batch).crc;
        batch_place(&batch, 77, cases[i].last_ms, 0x01020304);
        cr_expect_eq(memcmp(batch.chunk->data + 12, "\1\2\3\4", 4), 0);
        expect_times(&batch, 77, cases[i].times_ms, 2);
        struct record_batch read = read_back(&batch);
        cr_expect_eq((read.attributes & RECORD_LOG_APPEND_TIME) != 0, cases[i].one_time, "%zu", i);
        cr_expect_eq(read.max_timestamp_ms, cases[i].times_ms[1]);
        cr_expect_eq(read.max_timestamp_ms, batch.max_ms);
        cr_expect_eq(batch_first_ms(&batch), cases[i].times_ms[0]);
        cr_expect_eq(read.crc == crc, !cases[i].one_time, "the offset is outside the CRC");
        chunk_release(batch.chunk);
    }
    chunk_pool_free(&pool);
}
