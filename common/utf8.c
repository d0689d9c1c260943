/* Well-formed sequences are those of Unicode 15, table 3-7. */
#include "common/utf8.h"

#include <stdint.h>
#include <string.h>

static bool is_continuation(uint8_t byte) {
    return (byte & 0xc0) == 0x80;
}

/* The second byte carries the limits of a lead byte: no overlong form, no surrogate, <= 10FFFF. */
static bool is_second(uint8_t lead, uint8_t second) {
    uint8_t lowest = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    uint8_t highest = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    return second >= lowest && second <= highest;
}

size_t utf8_character_size(const void *data, size_t size) {
    const uint8_t *p = data;
    if (size == 0)
        return 0;
    if (p[0] < 0x80)
        return p[0] != 0;
    size_t length = p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    if (length == 0 || size < length || !is_second(p[0], p[1]))
        return 0;
    for (size_t i = 2; i < length; i++)
        if (!is_continuation(p[i]))
            return 0;
    return length;
}

/* Eight ASCII bytes and none of them 0. Bytes below 0x80 cannot borrow from their neighbours, so
 * subtracting 1 from each sets a high bit only where a byte was 0. */
static bool is_plain_word(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    return ((word | (word - 0x0101010101010101u)) & 0x8080808080808080u) == 0;
}

bool utf8_is_valid(const void *data, size_t size) {
    const uint8_t *at = data;
    size_t left = size;
    while (left > 0) {
        size_t step = left >= 8 && is_plain_word(at) ? 8 : utf8_character_size(at, left);
        if (step == 0)
            return false;
        at += step;
        left -= step;
    }
    return true;
}

bool utf8_is_text(const void *data, size_t size) {
    const uint8_t *at = data, *zero;
    while (size > 0 && (zero = memchr(at, 0, size))) {
        if (!utf8_is_valid(at, (size_t)(zero - at)))
            return false;
        size -= (size_t)(zero - at) + 1;
        at = zero + 1;
    }
    return utf8_is_valid(at, size);
}
