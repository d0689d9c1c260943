/* Codecs: what goes in comes out; what is damaged or too long is refused. */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "common/limits.h"
#include "storage/compression.h"
#include "support.h"

TestSuite(compression, .fini = check_leaks);

static const enum compression codecs[] = {COMPRESSION_LZ4, COMPRESSION_ZSTD};
static uint8_t plain[LIMIT_UNIT_BYTES], back[LIMIT_UNIT_BYTES];

static void fill_repetitive(void) {
    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)(i % 251 + i / 4096);
}

static void fill_random(void) {
    uint32_t state = 1;
    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)((state = state * 1664525u + 1013904223u) >> 24);
}

Test(compression, names) {
    enum compression codec;
    cr_expect(compression_by_name("zstd", &codec) == 0 && codec == COMPRESSION_ZSTD);
    cr_expect(compression_by_name("none", &codec) == 0 && codec == COMPRESSION_NONE);
    cr_expect_eq(compression_by_name("gzip", &codec), DG_ERR_INVALID);
}

Test(compression, round_trips_of_all_sizes) {
    static const size_t sizes[] = {600, 4096, 65537, 300000, LIMIT_UNIT_BYTES};
    struct compressor *compressor = compressor_create();
    fill_repetitive();
    for (size_t c = 0; c < COUNT_OF(codecs); c++) {
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            struct slice bytes = slice_make(plain, sizes[i]), small;
            size_t size = 0;
            cr_assert_eq(compressor_run(compressor, codecs[c], bytes, &small), 0);
            cr_expect_lt(small.size, bytes.size);
            cr_assert_eq(compression_expand(codecs[c], small, back, sizes[i], &size), 0);
            cr_expect(size == sizes[i] && memcmp(back, plain, size) == 0);
            cr_expect_eq(compression_expand(codecs[c], small, back, sizes[i] - 1, &size),
                         DG_ERR_MALFORMED, "codec %d, size %zu", codecs[c], sizes[i]);
        }
    }
    compressor_free(compressor);
}

Test(compression, what_would_grow_is_left) {
    struct compressor *compressor = compressor_create();
    struct slice small = {0};
    fill_random();
    for (size_t c = 0; c < COUNT_OF(codecs); c++)
        cr_expect_eq(
            compressor_run(compressor, codecs[c], slice_make(plain, sizeof(plain)), &small),
            DG_ERR_TOO_LARGE);
    cr_expect_null(small.data);
    compressor_free(compressor);
}

/* Cut off at each place, and each byte changed: an error or other bytes, never more than asked. */
Test(compression, damage) {
    struct compressor *compressor = compressor_create();
    fill_repetitive();
    for (size_t c = 0; c < COUNT_OF(codecs); c++) {
        struct slice small;
        size_t size = 0;
        cr_assert_eq(compressor_run(compressor, codecs[c], slice_make(plain, 1000), &small), 0);
        uint8_t *copy = malloc(small.size);
        for (size_t at = 0; at < small.size; at++) {
            memcpy(copy, small.data, small.size);
            cr_expect_eq(compression_expand(codecs[c], slice_make(copy, at), back, 1000, &size),
                         DG_ERR_MALFORMED, "codec %d cut at %zu", codecs[c], at);
            copy[at] ^= 0xFF;
            if (compression_expand(codecs[c], slice_make(copy, small.size), back, 1000, &size) == 0)
                cr_expect_leq(size, 1000);
        }
        free(copy);
    }
    size_t size;
    cr_expect_eq(compression_expand(1, slice_make(plain, 10), back, 10, &size), DG_ERR_MALFORMED);
    compressor_free(compressor);
}
