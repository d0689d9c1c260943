/*
 * The target of a request, decoded: path segments and query parameters (RFC 3986). Decoding happens
 * once, in place, in a copy that the caller owns; after it no byte is ever decoded again. Pure.
 */
#pragma once

#include <sys/types.h>

#include "common/err.h"
#include "common/slice.h"

enum { HTTP_SEGMENTS_MAX = 16, HTTP_QUERY_PARAMETERS_MAX = 16 };

struct http_target {
    struct slice path; /* as sent, percent-encoded */
    unsigned segment_count;
    struct slice segments[HTTP_SEGMENTS_MAX];
    unsigned parameter_count;
    struct {
        struct slice name, value;
    } parameters[HTTP_QUERY_PARAMETERS_MAX];
};

/*
 * text is changed: decoded runs replace the encoded ones. raw is the same text unchanged; path
 * points into it. DG_ERR_MALFORMED for a bad escape, control characters (%00 first of all), an
 * escaped slash or backslash, a segment "." or "..", bytes that are not UTF-8; DG_ERR_LIMIT for too
 * many parts.
 */
DG_NODISCARD int http_target_parse(struct slice raw, uint8_t *text, struct http_target *ret_target);
