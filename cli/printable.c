#include "cli/printable.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "common/utf8.h"

enum { STEP_SIZE = 5 /* \x1b and NUL; a character of four bytes fits as well */ };

/* C0, DEL, and C1 (U+0080 to U+009F), which some terminals obey. */
static bool is_control(const uint8_t *at, size_t size) {
    return at[0] < 0x20 || at[0] == 0x7f || (size == 2 && at[0] == 0xc2 && at[1] < 0xa0);
}

/* The character at the front as it may be shown; returns the bytes that it took, at least 1. */
static size_t take_character(const uint8_t *at, size_t size, char ret_shown[STEP_SIZE]) {
    size_t length = utf8_character_size(at, size);
    if (length > 0 && !is_control(at, length)) {
        memcpy(ret_shown, at, length);
        ret_shown[length] = '\0';
        return length;
    }
    if (at[0] == '\n' || at[0] == '\t' || at[0] == '\r')
        snprintf(ret_shown, STEP_SIZE, "\\%c", at[0] == '\n' ? 'n' : at[0] == '\t' ? 't' : 'r');
    else
        snprintf(ret_shown, STEP_SIZE, "\\x%02x", at[0]);
    return 1;
}

void printable_write(FILE *out, const void *data, size_t size) {
    const uint8_t *at = data;
    for (size_t done = 0; done < size;) {
        char shown[STEP_SIZE];
        done += take_character(at + done, size - done, shown);
        fputs(shown, out);
    }
}

void printable_copy(const char *text, size_t width_max, char *ret_text, size_t ret_size) {
    size_t size = strlen(text), used = 0, width = 0;
    for (size_t done = 0; done < size;) {
        char shown[STEP_SIZE];
        done += take_character((const uint8_t *)text + done, size - done, shown);
        width += printable_width(shown);
        if (width > width_max || used + strlen(shown) >= ret_size)
            break;
        memcpy(ret_text + used, shown, strlen(shown));
        used += strlen(shown);
    }
    ret_text[used] = '\0';
}

size_t printable_width(const char *text) {
    size_t width = 0;
    for (; *text; text++)
        width += ((uint8_t)*text & 0xc0) != 0x80;
    return width;
}
