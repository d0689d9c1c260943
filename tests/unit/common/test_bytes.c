/* Buffer, reader and writer: bounds above all. */
#include <criterion/criterion.h>

#include "common/buffer.h"
#include "common/reader.h"
#include "common/writer.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

Test(buffer, keeps_order_and_limit) {
    struct buffer b = {0};
    uint8_t next_in = 0, next_out = 0;
    for (int round = 0; round < 3000; round++) {
        uint8_t data[7];
        size_t size = (size_t)(round * 5 % 8);
        for (size_t i = 0; i < size; i++)
            data[i] = (uint8_t)(next_in + i);
        int err = buffer_append(&b, data, size, 1000);
        if (err == 0)
            next_in = (uint8_t)(next_in + size);
        else
            cr_assert(err == DG_ERR_LIMIT && buffer_size(&b) + size > 1000);
        if (round % 3 == 0) {
            size_t drop = buffer_size(&b) < 9 ? buffer_size(&b) : 9;
            for (size_t i = 0; i < drop; i++)
                cr_assert_eq(buffer_slice(&b).data[i], next_out++);
            buffer_consume(&b, drop);
        }
        cr_assert(b.capacity <= 1000 && buffer_size(&b) <= 1000);
    }
    buffer_consume(&b, buffer_size(&b));
    cr_expect_null(b.data, "an empty buffer owns no memory");
    buffer_free(&b);
}

Test(buffer, refuses_without_change) {
    struct buffer b = {0};
    cr_expect_eq(buffer_append(&b, "abc", 3, 2), DG_ERR_LIMIT);
    cr_expect_eq(buffer_reserve(&b, SIZE_MAX, 100), DG_ERR_LIMIT);
    cr_expect_null(b.data);
    cr_assert_eq(buffer_append(&b, "abc", 3, 3), 0);
    cr_expect_eq(buffer_append(&b, "d", 1, 3), DG_ERR_LIMIT);
    cr_expect_eq(buffer_reserve(&b, SIZE_MAX, SIZE_MAX), DG_ERR_LIMIT);
    cr_expect_eq(buffer_reserve(&b, 1, 1), DG_ERR_LIMIT, "already past a smaller limit");
    cr_expect(slice_equals_string(buffer_slice(&b), "abc"));
    cr_expect_eq(buffer_append(&b, NULL, 0, 3), 0);
    buffer_free(&b);
    cr_expect_eq(buffer_slice(&b).size, 0);
}

Test(buffer, moves_to_the_front_before_it_grows) {
    struct buffer b = {0};
    cr_assert_eq(buffer_append(&b, (uint8_t[200]){0}, 200, 256), 0);
    uint8_t *memory = b.data;
    buffer_consume(&b, 150);
    cr_assert_eq(buffer_reserve(&b, 206, 256), 0);
    cr_expect_eq(b.data, memory);
    cr_expect_eq(b.start, 0);
    cr_expect_eq(b.end, 50);
    buffer_free(&b);
}

Test(reader_writer, integers_round_trip) {
    uint8_t bytes[64];
    struct writer w = writer_make(bytes, sizeof(bytes));
    writer_u8(&w, 0xab);
    writer_u16(&w, 0x1234);
    writer_u32(&w, 0xdeadbeef);
    writer_u64(&w, 0x0102030405060708);
    writer_string(&w, "text");
    cr_assert_not(w.failed);
    cr_expect(memcmp(bytes, "\xab\x12\x34\xde\xad\xbe\xef\1\2\3\4\5\6\7\x08text", 19) == 0);
    struct reader r = reader_make(bytes, writer_size(&w));
    cr_expect_eq(reader_u8(&r), 0xab);
    cr_expect_eq(reader_u16(&r), 0x1234);
    cr_expect_eq(reader_u32(&r), 0xdeadbeef);
    cr_expect_eq(reader_u64(&r), 0x0102030405060708);
    cr_expect(slice_equals_string(reader_slice(&r, 4), "text"));
    cr_expect_not(r.failed);
    cr_expect_eq(reader_u8(&r), 0);
    cr_expect(r.failed);
    cr_expect_eq(reader_slice(&r, 0).size, 0, "stays failed");
}

Test(reader_writer, varints) {
    static const int64_t values[] = {0,   1,   -1,        63,        -64,       64,
                                     -65, 300, INT32_MAX, INT32_MIN, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        uint8_t bytes[10];
        struct writer w = writer_make(bytes, sizeof(bytes));
        writer_varlong(&w, values[i]);
        cr_assert_not(w.failed);
        struct reader r = reader_make(bytes, writer_size(&w));
        cr_expect_eq(reader_varlong(&r), values[i]);
        cr_expect(!r.failed && reader_left(&r) == 0);
        r = reader_make(bytes, writer_size(&w) - 1);
        reader_varlong(&r);
        cr_expect(r.failed, "a cut varint");
    }
    static const struct {
        uint8_t bytes[6];
        size_t size;
        bool valid;
        uint32_t value;
    } unsigned_cases[] = {
        {{0}, 1, true, 0},
        {{0x7f}, 1, true, 127},
        {{0x80, 0x01}, 2, true, 128},
        {{0xff, 0xff, 0xff, 0xff, 0x0f}, 5, true, UINT32_MAX},
        {{0xff, 0xff, 0xff, 0xff, 0x1f}, 5, false, 0},
        {{0x80, 0x80, 0x80, 0x80, 0x80, 0x00}, 6, false, 0},
        {{0x80}, 1, false, 0},
    };
    for (size_t i = 0; i < COUNT_OF(unsigned_cases); i++) {
        struct reader r = reader_make(unsigned_cases[i].bytes, unsigned_cases[i].size);
        cr_expect_eq(reader_uvarint(&r), unsigned_cases[i].value, "%zu", i);
        cr_expect_eq(r.failed, !unsigned_cases[i].valid, "%zu", i);
    }
}

Test(reader_writer, a_full_writer_writes_nothing_more) {
    uint8_t bytes[4] = {0};
    struct writer w = writer_make(bytes, 3);
    writer_u16(&w, 0xffff);
    writer_u16(&w, 0xffff);
    cr_expect(w.failed);
    writer_u8(&w, 0xff);
    cr_expect_eq(writer_size(&w), 2);
    cr_expect(bytes[2] == 0 && bytes[3] == 0);
}
