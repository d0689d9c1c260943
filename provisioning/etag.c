#include "provisioning/etag.h"

#include "provisioning/call.h"

static struct slice trim(struct slice text) {
    while (text.size > 0 && (text.data[0] == ' ' || text.data[0] == '\t'))
        text = slice_skip(text, 1);
    while (text.size > 0 && (text.data[text.size - 1] == ' ' || text.data[text.size - 1] == '\t'))
        text.size--;
    return text;
}

/* The version in "17", or a version that nothing has. */
static int64_t tag_version(struct slice tag) {
    int64_t version = 0;
    if (tag.size < 3 || tag.size > 20 || tag.data[0] != '"' || tag.data[tag.size - 1] != '"' ||
        tag.data[1] == '0')
        return INT64_MAX;
    for (size_t i = 1; i < tag.size - 1; i++) {
        if (tag.data[i] < '0' || tag.data[i] > '9')
            return INT64_MAX;
        version = version * 10 + (tag.data[i] - '0');
    }
    return version;
}

bool etag_matches(struct slice list, int64_t version) {
    if (slice_equals_string(trim(list), "*"))
        return true;
    while (list.size > 0) {
        const uint8_t *comma = memchr(list.data, ',', list.size);
        size_t size = comma ? (size_t)(comma - list.data) : list.size;
        struct slice tag = trim(slice_make(list.data, size));
        if (slice_starts_with(tag, "W/"))
            tag = slice_skip(tag, 2);
        if (tag_version(tag) == version)
            return true;
        list = slice_skip(list, comma ? size + 1 : size);
    }
    return false;
}

bool etag_parse_if_match(struct slice value, int64_t *ret_precondition) {
    struct slice tag = trim(value);
    if (slice_equals_string(tag, "*")) {
        *ret_precondition = CALL_PRECONDITION_EXISTS;
        return true;
    }
    if (tag.size == 0 || memchr(tag.data, ',', tag.size))
        return false;
    *ret_precondition = tag_version(tag);
    return true;
}
