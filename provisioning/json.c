#include "provisioning/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/buffer.h"
#include "common/limits.h"
#include "common/utf8.h"

int json_parse_object(struct slice text, json_t **ret_object, char *ret_detail,
                      size_t detail_size) {
    json_error_t error;
    if (text.size == 0) {
        snprintf(ret_detail, detail_size, "the body is empty; a JSON object is expected");
        return DG_ERR_MALFORMED;
    }
    json_t *object = json_loadb((const char *)text.data, text.size, JSON_REJECT_DUPLICATES, &error);
    if (!object) {
        snprintf(ret_detail, detail_size, "line %d, column %d: %s", error.line, error.column,
                 error.text);
        return DG_ERR_MALFORMED;
    }
    if (!json_is_object(object))
        snprintf(ret_detail, detail_size, "the body must be a JSON object");
    else if (json_depth(object, LIMIT_JSON_DEPTH) > LIMIT_JSON_DEPTH)
        snprintf(ret_detail, detail_size, "the body is nested deeper than %d", LIMIT_JSON_DEPTH);
    else {
        *ret_object = object;
        return 0;
    }
    json_decref(object);
    return DG_ERR_MALFORMED;
}

json_t *json_append(json_t *array, json_t *item) {
    if (array && item && json_array_append(array, item) == 0) {
        json_decref(item);
        return array;
    }
    json_decref(array);
    json_decref(item);
    return NULL;
}

json_t *json_from_offset(int64_t offset) {
    char text[24];
    snprintf(text, sizeof(text), "%" PRId64, offset);
    return json_string(text);
}

json_t *json_from_text(struct slice text, size_t limit) {
    static const char replacement[] = "\xef\xbf\xbd", cut[] = "..."; /* U+FFFD */
    struct buffer out = {0};
    int err = 0;
    if (!text.data)
        return json_null();
    for (size_t at = 0; err == 0 && at < text.size;) {
        size_t size = utf8_character_size(text.data + at, text.size - at);
        err = size > 0 ? buffer_append(&out, text.data + at, size, limit)
                       : buffer_append(&out, replacement, sizeof(replacement) - 1, limit);
        at += size > 0 ? size : 1;
    }
    if (err == DG_ERR_LIMIT)
        err = buffer_append(&out, cut, sizeof(cut) - 1, limit + sizeof(cut));
    struct slice copied = buffer_slice(&out);
    json_t *value =
        err < 0 ? NULL : json_stringn(copied.data ? (const char *)copied.data : "", copied.size);
    buffer_free(&out);
    return value;
}
