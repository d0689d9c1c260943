/* The whole syntax of a request: head, target, chunks in two steps. What is accepted must hold. */
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

static void check_chunks(const uint8_t *data, size_t size) {
    struct buffer body = {0};
    struct http_chunks chunks;
    http_chunks_begin(&chunks, &body, BODY_LIMIT);
    size_t half = size / 2;
    ssize_t used = http_chunks_decode(&chunks, data, half);
    if (used == (ssize_t)half)
        used = http_chunks_decode(&chunks, data + half, size - half);
    dg_assert(buffer_size(&body) <= BODY_LIMIT);
    buffer_free(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct http_head head;
    http_parse_setup();
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
