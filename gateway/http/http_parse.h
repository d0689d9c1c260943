/*
 * The syntax of HTTP/1.x requests (RFC 9112), strictly: what two servers could read differently is
 * refused. Pure; any thread. Everything here works on borrowed bytes; nothing is allocated but the
 * body of a chunked request, in the caller's buffer.
 */
#pragma once

#include <sys/types.h>

#include "common/buffer.h"
#include "common/limits.h"
#include "common/slice.h"

/* A run of bytes within the head. */
struct http_span {
    uint16_t at, size;
};

struct http_field {
    struct http_span name, value;
};

struct http_head {
    struct http_span method, target;
    unsigned version; /* 10 or 11 */
    unsigned field_count;
    struct http_field fields[LIMIT_HTTP_HEADERS];
    uint64_t content_length; /* 0 without the header */
    bool chunked;
    bool keep_alive;
    bool upgrade; /* "Connection: upgrade" and an Upgrade header */
};

/*
 * The size of the head up to and with its empty line, or 0 while that has not come yet.
 * DG_ERR_MALFORMED at once for what no head begins with; DG_ERR_LIMIT past LIMIT_HTTP_HEAD_BYTES or
 * DG_ERR_TOO_LARGE past LIMIT_HTTP_TARGET_BYTES without an end.
 */
ssize_t http_parse_find_head(const uint8_t *data, size_t size);

/*
 * Parses a whole head. DG_ERR_MALFORMED; DG_ERR_LIMIT: too many fields; DG_ERR_TOO_LARGE: the
 * target; DG_ERR_UNSUPPORTED_VERSION; DG_ERR_NOT_SUPPORTED: a method or transfer coding that nobody
 * here knows.
 */
DG_NODISCARD int http_parse_head(const uint8_t *data, size_t size, struct http_head *ret_head);

static inline struct slice http_span_slice(const uint8_t *head, struct http_span span) {
    return slice_make(head + span.at, span.size);
}

/* Names compare without case (RFC 9110 5.1). */
bool http_name_equals(struct slice name, const char *text);
/* True when a comma-separated list holds the token, compared without case (RFC 9110 5.6.1). */
bool http_list_contains(struct slice list, const char *token);

/* The decoder of a chunked body (chunks.c). */
struct http_chunks {
    uint8_t at;     /* enum chunks_at */
    uint8_t digits; /* of the size being read */
    uint32_t left;  /* of the chunk */
    struct buffer *body;
    size_t limit_bytes;
    bool complete;
};

/* Begins after the head; decoded bytes are appended to body, at most limit_bytes. */
void http_chunks_begin(struct http_chunks *chunks, struct buffer *body, size_t limit_bytes);

/* Decodes; how many bytes were used (all, unless `complete` was set). DG_ERR_MALFORMED for all but
 * the plainest framing, also for extensions and trailers; DG_ERR_TOO_LARGE as soon as a size passes
 * the limit; DG_ERR_NO_MEMORY. After an error nothing more may be decoded. */
ssize_t http_chunks_decode(struct http_chunks *chunks, const uint8_t *data, size_t size);

/* Once per process before the first request: the parser's own limit. */
void http_parse_setup(void);
