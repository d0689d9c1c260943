#include "provisioning/json.h"

#include <inttypes.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

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

/* ---- payloads ---- */

static int append_text(struct buffer *out, const char *text) {
    return buffer_append(out, text, strlen(text), LIMIT_OUTPUT_BYTES);
}

bool json_is_value(struct slice text) {
    json_t *value = json_loadb((const char *)text.data, text.size,
                               JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    bool fits = value && json_depth(value, LIMIT_JSON_DEPTH) <= LIMIT_JSON_DEPTH;
    json_decref(value);
    return fits;
}

static int append_base64(struct buffer *out, struct slice payload) {
    unsigned char *text = malloc(payload.size / 3 * 4 + 5);
    if (!text)
        return DG_ERR_NO_MEMORY;
    int size = EVP_EncodeBlock(text, payload.data, (int)payload.size);
    int err = buffer_append(out, text, (size_t)size, LIMIT_OUTPUT_BYTES);
    free(text);
    return err;
}

int json_append_payload(struct buffer *out, struct slice payload) {
    if (payload.size == 0)
        return append_text(out, "\"payload\":null");
    if (json_is_value(payload)) {
        int err = append_text(out, "\"payload\":");
        return err < 0 ? err : buffer_append(out, payload.data, payload.size, LIMIT_OUTPUT_BYTES);
    }
    int err = append_text(out, "\"payload_base64\":\"");
    if (err == 0)
        err = append_base64(out, payload);
    return err < 0 ? err : append_text(out, "\"");
}

/* OpenSSL passes over spaces and takes padding for zeros: what it makes of its own bytes again is
 * what is compared. */
int json_decode_base64(struct slice text, uint8_t **ret_bytes, size_t *ret_size) {
    if (text.size % 4 != 0 || text.size > INT_MAX)
        return DG_ERR_INVALID;
    uint8_t *bytes = malloc(text.size / 4 * 3 + 1), *again = malloc(text.size + 1);
    int size = bytes && again ? EVP_DecodeBlock(bytes, text.data, (int)text.size) : 0;
    for (size_t i = 1; i <= 2 && i <= text.size; i++)
        size -= text.data[text.size - i] == '=';
    int err = !bytes || !again ? DG_ERR_NO_MEMORY
              : size < 0 || EVP_EncodeBlock(again, bytes, size) != (int)text.size ||
                      memcmp(again, text.data, text.size) != 0
                  ? DG_ERR_INVALID
                  : 0;
    free(again);
    if (err < 0) {
        free(bytes);
        return err;
    }
    *ret_bytes = bytes;
    *ret_size = (size_t)size;
    return 0;
}
