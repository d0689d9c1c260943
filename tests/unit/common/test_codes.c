/* Errors, hashes, checksums, UTF-8, randomness: pure functions against published values. */
#include <criterion/criterion.h>

#include "common/crc32c.h"
#include "common/err.h"
#include "common/hash.h"
#include "common/murmur2.h"
#include "common/random.h"
#include "common/slice.h"
#include "common/utf8.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

Test(err, every_row_is_found_by_its_value) {
    static const int listed[] = {
#define X(name, value, ...) value,
        DG_ERRORS(X)
#undef X
    };
    for (size_t i = 0; i < COUNT_OF(listed); i++) {
        cr_expect_eq(listed[i], -(int)i - 1, "values are dense, in order");
        const struct dg_err_row *row = dg_err_row(listed[i]);
        cr_expect_eq((int)row->err, listed[i]);
        cr_expect(strlen(row->text) > 0 && strncmp(row->name, "DG_ERR_", 7) == 0);
        cr_expect(row->mqtt5_reason >= 0x80, "%s", row->name);
        cr_expect(row->mqtt3_connack <= 5, "%s", row->name);
        cr_expect(row->kafka_code != 0, "%s", row->name);
        cr_expect(row->http_status >= 400 && row->http_status < 600, "%s", row->name);
        cr_expect(strncmp(row->amqp_condition, "amqp:", 5) == 0, "%s", row->name);
    }
    cr_expect_eq(dg_err_row(0)->http_status, 200);
    cr_expect_str_eq(dg_err_text(0), "success");
    cr_expect_eq(dg_err_row(5)->err, DG_ERR_INTERNAL);
    cr_expect_eq(dg_err_row(-(int)COUNT_OF(listed) - 1)->err, DG_ERR_INTERNAL);
    cr_expect_eq(dg_err_row(INT32_MIN)->err, DG_ERR_INTERNAL);
}

Test(murmur2, kafka_vectors) {
    static const struct {
        const char *key;
        int32_t hash;
    } cases[] = {
        {"", 275646681},
        {"21", -973932308},
        {"foobar", -790332482},
        {"abc", 479470107},
        {"a-little-bit-long-string", -985981536},
        {"dev-0001", 1772648},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        cr_expect_eq(murmur2_kafka(cases[i].key, strlen(cases[i].key)), cases[i].hash, "%s",
                     cases[i].key);
    cr_expect_eq(murmur2_partition("21", 2, 16), ((uint32_t)-973932308 & 0x7fffffff) % 16);
}

Test(hash, depends_on_every_byte) {
    cr_expect_eq(hash_bytes("abc", 3), hash_bytes("abc", 3));
    cr_expect_neq(hash_bytes("abc", 3), hash_bytes("abd", 3));
    cr_expect_neq(hash_bytes("abc", 2), hash_bytes("abc", 3));
}

Test(random, differs_and_fills_long_requests) {
    static uint8_t a[70000], b[70000];
    random_bytes(a, sizeof(a));
    random_bytes(b, sizeof(b));
    cr_expect(memcmp(a, b, sizeof(a)) != 0);
    cr_expect(memcmp(a + sizeof(a) - 32, b + sizeof(b) - 32, 32) != 0);
    cr_expect_neq(random_u64(), random_u64());
}

static uint32_t crc32c_bitwise(const uint8_t *data, size_t size) {
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ 0x82f63b78 : crc >> 1;
    }
    return ~crc;
}

/* RFC 3720 B.4 and the check value of the algorithm. */
Test(crc32c, published_values) {
    uint8_t zeros[32] = {0}, ones[32], rising[32], falling[32];
    memset(ones, 0xff, sizeof(ones));
    for (uint8_t i = 0; i < 32; i++) {
        rising[i] = i;
        falling[i] = (uint8_t)(31 - i);
    }
    cr_expect_eq(crc32c_update(0, "123456789", 9), 0xe3069283);
    cr_expect_eq(crc32c_update(0, zeros, 32), 0x8a9136aa);
    cr_expect_eq(crc32c_update(0, ones, 32), 0x62a8ab43);
    cr_expect_eq(crc32c_update(0, rising, 32), 0x46dd794e);
    cr_expect_eq(crc32c_update(0, falling, 32), 0x113fdb5c);
    cr_expect_eq(crc32c_update(0, NULL, 0), 0);
}

Test(crc32c, every_size_alignment_and_split) {
    static uint8_t data[70001];
    random_bytes(data, sizeof(data));
    static const size_t sizes[] = {0,   1,   7,   8,    9,    255,  511,   512,
                                   513, 767, 768, 1536, 4095, 4096, 65536, 69990};
    for (size_t i = 0; i < COUNT_OF(sizes); i++)
        for (size_t offset = 0; offset < 9; offset++) {
            const uint8_t *at = data + offset;
            size_t size = sizes[i];
            uint32_t whole = crc32c_bitwise(at, size);
            cr_assert_eq(crc32c_update(0, at, size), whole, "size %zu offset %zu", size, offset);
            size_t cut = size * offset / 9;
            uint32_t front = crc32c_update(0, at, cut);
            uint32_t back = crc32c_update(0, at + cut, size - cut);
            cr_assert_eq(crc32c_update(front, at + cut, size - cut), whole);
            cr_assert_eq(crc32c_combine(front, back, size - cut), whole, "cut %zu of %zu", cut,
                         size);
        }
}

/* Lengths whose bytes nobody holds: combining must be associative at any length. */
Test(crc32c, combine_is_associative) {
    for (int round = 0; round < 1000; round++) {
        uint32_t a = (uint32_t)random_u64(), b = (uint32_t)random_u64(), c = (uint32_t)random_u64();
        size_t size_b = random_u64() >> (round % 50 + 10), size_c = random_u64() >> 20;
        uint32_t left = crc32c_combine(crc32c_combine(a, b, size_b), c, size_c);
        uint32_t right = crc32c_combine(a, crc32c_combine(b, c, size_c), size_b + size_c);
        cr_assert_eq(left, right);
    }
}

struct utf8_case {
    const char *text;
    size_t size;
    bool valid;
};
#define BYTES(text) text, sizeof(text) - 1

Test(utf8, sequences) {
    static const struct utf8_case cases[] = {
        {BYTES(""), true},
        {BYTES("plain"), true},
        {BYTES("\x01\x7f"), true},
        {BYTES("\xc2\x80"), true},
        {BYTES("\xdf\xbf"), true},
        {BYTES("\xe0\xa0\x80"), true},
        {BYTES("\xed\x9f\xbf"), true},
        {BYTES("\xee\x80\x80"), true},
        {BYTES("\xef\xbb\xbf"), true},
        {BYTES("\xef\xbf\xbf"), true},
        {BYTES("\xf0\x90\x80\x80"), true},
        {BYTES("\xf4\x8f\xbf\xbf"), true},
        {BYTES("\0"), false},
        {BYTES("\x80"), false},
        {BYTES("\xc0\x80"), false},
        {BYTES("\xc1\xbf"), false},
        {BYTES("\xc2"), false},
        {BYTES("\xc2\x41"), false},
        {BYTES("\xe0\x9f\xbf"), false},
        {BYTES("\xe2\x82"), false},
        {BYTES("\xe2\x82\x41"), false},
        {BYTES("\xed\xa0\x80"), false},
        {BYTES("\xed\xbf\xbf"), false},
        {BYTES("\xf0\x8f\xbf\xbf"), false},
        {BYTES("\xf0\x90\x80"), false},
        {BYTES("\xf4\x90\x80\x80"), false},
        {BYTES("\xf5\x80\x80\x80"), false},
        {BYTES("\xff"), false},
    };
    /* Each alone, and at every place of a longer text, so that the fast path meets it too. */
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        for (size_t front = 0; front < 20; front++) {
            char text[64];
            memset(text, 'x', sizeof(text));
            memcpy(text + front, cases[i].text, cases[i].size);
            cr_expect_eq(utf8_is_valid(text, front + cases[i].size), cases[i].valid, "%zu", i);
            if (cases[i].size > 0 && !cases[i].valid)
                cr_expect_not(utf8_is_valid(text, sizeof(text)), "%zu at %zu", i, front);
        }
}

/* Against an encoder of every code point. */
Test(utf8, every_code_point) {
    for (uint32_t c = 0; c < 0x120000; c++) {
        char text[4];
        size_t size = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        static const uint8_t leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
        for (size_t i = size; i-- > 1;)
            text[i] = (char)(0x80 | (c >> (6 * (size - 1 - i)) & 0x3f));
        text[0] = (char)(size == 1 ? c : leads[size] | c >> (6 * (size - 1)));
        bool valid = c != 0 && c <= 0x10ffff && !(c >= 0xd800 && c <= 0xdfff);
        cr_assert_eq(utf8_is_valid(text, size), valid, "U+%04X", c);
        cr_assert_eq(utf8_character_size(text, size), valid ? size : 0);
    }
}
