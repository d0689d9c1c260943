/* Strict JSON on top of jansson. Pure but for memory. */
#pragma once

#include <jansson.h>

#include "common/buffer.h"
#include "common/err.h"
#include "common/slice.h"
#include "registry/json.h"

/*
 * One JSON object: no duplicate names, no U+0000, no trailing text, not deeper than
 * LIMIT_JSON_DEPTH. DG_ERR_MALFORMED with a message of at most detail_size bytes.
 */
DG_NODISCARD int json_parse_object(struct slice text, json_t **ret_object, char *ret_detail,
                                   size_t detail_size);

/* array with item at its end; takes both over. NULL when either is, or out of memory. */
json_t *json_append(json_t *array, json_t *item);
/* An offset as the API gives it: a string. NULL: out of memory. */
json_t *json_from_offset(int64_t offset);
/* Bytes from outside as a string of at most limit bytes: what is not UTF-8 is replaced, what is cut
 * ends with "...". null when data is NULL. NULL: out of memory. */
json_t *json_from_text(struct slice text, size_t limit);

/* Whether bytes are one JSON value that a body may hold. */
bool json_is_value(struct slice text);
/* Bytes of a device or a back end as a member: "payload" with the JSON value as it stands when they
 * are one, or null when there are none; else "payload_base64". */
DG_NODISCARD int json_append_payload(struct buffer *out, struct slice payload);
/* Base64 as RFC 4648, 4 has it, padded and without anything else. *ret_bytes is the caller's to
 * free. DG_ERR_INVALID, DG_ERR_NO_MEMORY. */
DG_NODISCARD int json_decode_base64(struct slice text, uint8_t **ret_bytes, size_t *ret_size);
