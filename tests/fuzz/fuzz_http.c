/* The whole syntax of a request: head, target, chunks (also alone: no head has to be guessed before
 * them). What is accepted must hold. */
#include <stdlib.h>

#include "common/assert.h"
#include "gateway/http/http_parse.h"
#include "gateway/http/target.h"

enum { BODY_LIMIT = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_target(struct slice raw) {
    struct http_target target;
    uint8_t *text = malloc(raw.size + 1);
    if (!text)
        return;
    memcpy(text, raw.data, raw.size);
    if (http_target_parse(raw, text, &target) == 0) {
        dg_assert(target.segment_count > 0 && target.path.size > 0);
        for (unsigned i = 0; i < target.segment_count; i++)
            for (size_t at = 0; at < target.segments[i].size; at++)
                dg_assert(target.segments[i].data[at] >= 0x20 &&
                          target.segments[i].data[at] != '/');
    }
    free(text);
}

/* The grammar, read a second time and in another way: the body that a whole run of chunks carries,
 * or false when it is not exactly that. */
static bool read_chunks(const uint8_t *data, size_t size, struct buffer *body) {
    for (size_t at = 0; at < size;) {
        const uint8_t *line = data + at, *end = memmem(line, size - at, "\r\n", 2);
        char digits[9] = "";
        if (!end || end == line || end - line > 8)
            return false;
        memcpy(digits, line, (size_t)(end - line));
        if (strspn(digits, "0123456789abcdefABCDEF") != (size_t)(end - line))
            return false;
        size_t count = strtoul(digits, NULL, 16);
        at = (size_t)(end - data) + 2;
        if (size - at < count + 2 || memcmp(data + at + count, "\r\n", 2) != 0)
            return false;
        if (count == 0)
            return at + 2 == size;
        if (buffer_append(body, data + at, count, BODY_LIMIT) < 0)
            return false;
        at += count + 2;
    }
    return false;
}

static bool same_body(const struct buffer *a, const struct buffer *b) {
    size_t size = buffer_size(a);
    return size == buffer_size(b) &&
           (size == 0 || memcmp(a->data + a->start, b->data + b->start, size) == 0);
}

/* In one run, in two and by the grammar: all see the same end and the same body. */
static void check_chunks(const uint8_t *data, size_t size) {
    struct buffer body = {0}, again = {0}, read = {0};
    struct http_chunks chunks, parts;
    http_chunks_begin(&chunks, &body, BODY_LIMIT);
    http_chunks_begin(&parts, &again, BODY_LIMIT);
    ssize_t used = http_chunks_decode(&chunks, data, size);
    size_t half = size / 2;
    ssize_t first = http_chunks_decode(&parts, data, half), second = 0;
    if (first == (ssize_t)half)
        second = http_chunks_decode(&parts, data + half, size - half);
    dg_assert(buffer_size(&body) <= BODY_LIMIT && used <= (ssize_t)size);
    dg_assert(used < 0 ? first == used || second == used : first + second == used);
    dg_assert(parts.complete == chunks.complete);
    dg_assert(used < 0 || chunks.complete || used == (ssize_t)size);
    if (chunks.complete)
        dg_assert(read_chunks(data, (size_t)used, &read) && same_body(&read, &body) &&
                  same_body(&again, &body));
    buffer_free(&body);
    buffer_free(&again);
    buffer_free(&read);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct http_head head;
    http_parse_setup();
    check_chunks(data, size);
    ssize_t head_size = http_parse_find_head(data, size);
    if (head_size <= 0)
        return 0;
    dg_assert((size_t)head_size <= size);
    if (http_parse_head(data, (size_t)head_size, &head) < 0)
        return 0;
    dg_assert(head.version == 10 || head.version == 11);
    dg_assert(!(head.chunked && head.content_length > 0));
    for (unsigned i = 0; i < head.field_count; i++) {
        dg_assert(head.fields[i].name.at + head.fields[i].name.size < head_size);
        dg_assert(head.fields[i].value.at + head.fields[i].value.size < head_size);
        (void)http_list_contains(http_span_slice(data, head.fields[i].value), "upgrade");
    }
    check_target(http_span_slice(data, head.target));
    if (head.chunked)
        check_chunks(data + head_size, size - (size_t)head_size);
    return 0;
}
