/*
 * A CRC register is a polynomial over GF(2), bit 31 being x^0. Appending n bytes of zero multiplies
 * it by x^(8n) modulo the Castagnoli polynomial; that one operation gives both crc32c_combine() and
 * the folding of the three lanes in which a long buffer is read (the instruction takes three
 * cycles but starts every cycle).
 */
#include "common/crc32c.h"

#include <string.h>

#if defined(__SSE4_2__) && defined(__PCLMUL__) && !defined(CRC32C_PORTABLE)
#define CRC32C_HARDWARE 1
#include <nmmintrin.h>
#include <wmmintrin.h>
#else
#define CRC32C_HARDWARE 0
#endif

static const uint32_t ONE = 0x80000000; /* x^0 */

enum { DIGITS = sizeof(size_t) };
static uint32_t power_of_bytes[DIGITS][256]; /* [i][d]: x^(8 * d * 256^i) */

#if CRC32C_HARDWARE

static uint32_t multiply(uint32_t a, uint32_t b) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi32_si128((int)a), _mm_cvtsi32_si128((int)b), 0);
    uint64_t bits = (uint64_t)_mm_cvtsi128_si64(product) << 1;
    return (uint32_t)(bits >> 32) ^ _mm_crc32_u32(0, (uint32_t)bits);
}

#else

static const uint32_t POLYNOMIAL = 0x82f63b78;
static uint32_t step_of_byte[4][256]; /* [i][b]: byte b followed by i bytes of zero */

static uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (uint32_t bit = ONE; bit != 0; bit >>= 1) {
        if (a & bit)
            product ^= b;
        b = b & 1 ? b >> 1 ^ POLYNOMIAL : b >> 1;
    }
    return product;
}

__attribute__((constructor(101))) static void fill_steps(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc & 1 ? crc >> 1 ^ POLYNOMIAL : crc >> 1;
        step_of_byte[0][byte] = crc;
    }
    for (unsigned i = 1; i < 4; i++)
        for (unsigned byte = 0; byte < 256; byte++) {
            uint32_t crc = step_of_byte[i - 1][byte];
            step_of_byte[i][byte] = crc >> 8 ^ step_of_byte[0][crc & 0xff];
        }
}

#endif

/* Before main(), so that the tables need no lock. */
__attribute__((constructor(102))) static void fill_powers(void) {
    uint32_t base = ONE >> 8; /* x^8: one byte */
    for (unsigned digit = 0; digit < DIGITS; digit++) {
        uint32_t power = ONE;
        for (unsigned i = 0; i < 256; i++) {
            power_of_bytes[digit][i] = power;
            power = multiply(power, base);
        }
        base = power;
    }
}

static uint32_t append_zeros(uint32_t crc, size_t count) {
    for (unsigned digit = 0; count > 0; digit++, count >>= 8)
        if (count & 0xff)
            crc = multiply(crc, power_of_bytes[digit][count & 0xff]);
    return crc;
}

uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, size_t size_b) {
    return append_zeros(crc_a, size_b) ^ crc_b;
}

#if CRC32C_HARDWARE

static uint64_t load_word(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    return word;
}

static uint32_t update_lane(uint32_t crc, const uint8_t *at, size_t size) {
    uint64_t wide = crc;
    for (; size >= 8; size -= 8, at += 8)
        wide = _mm_crc32_u64(wide, load_word(at));
    crc = (uint32_t)wide;
    for (; size > 0; size--)
        crc = _mm_crc32_u8(crc, *at++);
    return crc;
}

/* Three lanes of `lane` bytes (a multiple of 8), one after the other in memory. */
static uint32_t update_lanes(uint32_t crc, const uint8_t *at, size_t lane) {
    uint64_t a = crc, b = 0, c = 0;
    for (const uint8_t *end = at + lane; at < end; at += 8) {
        a = _mm_crc32_u64(a, load_word(at));
        b = _mm_crc32_u64(b, load_word(at + lane));
        c = _mm_crc32_u64(c, load_word(at + 2 * lane));
    }
    uint32_t shift = append_zeros(ONE, lane);
    uint32_t ab = multiply((uint32_t)a, shift) ^ (uint32_t)b;
    return multiply(ab, shift) ^ (uint32_t)c;
}

enum { LANES_FROM_BYTES = 512 }; /* below, folding costs more than the lanes save */

uint32_t crc32c_update(uint32_t crc, const void *data, size_t size) {
    const uint8_t *at = data;
    crc = ~crc;
    if (size >= LANES_FROM_BYTES) {
        size_t lane = size / 24 * 8;
        crc = update_lanes(crc, at, lane);
        at += 3 * lane;
        size -= 3 * lane;
    }
    return ~update_lane(crc, at, size);
}

#else

uint32_t crc32c_update(uint32_t crc, const void *data, size_t size) {
    const uint8_t *at = data;
    crc = ~crc;
    for (; size >= 4; size -= 4, at += 4) {
        crc ^=
            (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        crc = step_of_byte[3][crc & 0xff] ^ step_of_byte[2][crc >> 8 & 0xff] ^
              step_of_byte[1][crc >> 16 & 0xff] ^ step_of_byte[0][crc >> 24];
    }
    for (; size > 0; size--)
        crc = crc >> 8 ^ step_of_byte[0][(crc ^ *at++) & 0xff];
    return ~crc;
}

#endif
