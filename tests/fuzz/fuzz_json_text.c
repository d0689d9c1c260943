/* Is it JSON: what jansson takes must pass, and what does not pass jansson must refuse. jansson
 * alone refuses numbers that it has no room for, U+0000 and halves of surrogate pairs. */
#include <jansson.h>
#include <stdlib.h>

#include "common/json_text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool only_jansson_refuses(const struct slice text, const json_error_t *error) {
    enum json_error_code code = json_error_code(error);
    return code == json_error_numeric_overflow || memmem(text.data, text.size, "\\u", 2) ||
           code == json_error_stack_overflow;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct slice text = slice_make(data, size);
    json_error_t error;
    size_t at = SIZE_MAX;
    bool valid = json_text_is_valid(text, &at);
    json_t *value = json_loadb((const char *)data, size, JSON_DECODE_ANY, &error);
    if (!valid && at > size)
        abort();
    if (value && !valid && !memchr(data, 0, size)) { /* jansson stops at a NUL */
        unsigned depth = 0;                          /* ... and goes deeper */
        for (size_t i = 0; i < size; i++)
            depth += data[i] == '[' || data[i] == '{';
        if (depth <= JSON_TEXT_DEPTH_MAX)
            abort();
    }
    if (!value && valid && !only_jansson_refuses(text, &error))
        abort();
    json_decref(value);
    return 0;
}
