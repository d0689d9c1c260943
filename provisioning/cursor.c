#include "provisioning/cursor.h"

#include "common/assert.h"
#include "common/utf8.h"

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void cursor_encode(struct slice key, char *ret_text) {
    dg_assert(key.size <= CURSOR_KEY_BYTES_MAX);
    uint32_t bits = 0;
    unsigned bit_count = 0;
    for (size_t i = 0; i < key.size; i++) {
        bits = bits << 8 | key.data[i];
        for (bit_count += 8; bit_count >= 6; bit_count -= 6)
            *ret_text++ = alphabet[bits >> (bit_count - 6) & 63];
    }
    if (bit_count > 0)
        *ret_text++ = alphabet[bits << (6 - bit_count) & 63];
    *ret_text = '\0';
}

int cursor_decode(struct slice text, char *ret_key) {
    uint8_t key[CURSOR_KEY_BYTES_MAX + 1];
    uint32_t bits = 0;
    unsigned bit_count = 0;
    size_t size = 0;
    if (text.size == 0 || text.size >= CURSOR_TEXT_SIZE)
        return DG_ERR_MALFORMED;
    for (size_t i = 0; i < text.size; i++) {
        const char *at = text.data[i] ? strchr(alphabet, text.data[i]) : NULL;
        if (!at)
            return DG_ERR_MALFORMED;
        bits = bits << 6 | (uint32_t)(at - alphabet);
        bit_count += 6;
        if (bit_count < 8)
            continue;
        bit_count -= 8;
        key[size++] = (uint8_t)(bits >> bit_count);
    }
    if (size == 0 || size > CURSOR_KEY_BYTES_MAX || bit_count >= 6 ||
        (bits & ((1u << bit_count) - 1)) != 0 || !utf8_is_valid(key, size))
        return DG_ERR_MALFORMED;
    key[size] = '\0';
    memcpy(ret_key, key, size + 1);
    return 0;
}
