#include "provisioning/etag.h"

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

/* Cuts the next element off a list; false at its end. Empty elements are passed over (RFC 9110
 * 5.6.1.2). A comma within a tag cuts it too, which is as good: none of ours has one. */
static bool next_tag(struct slice *list, struct slice *ret_tag) {
    while (list->size > 0) {
        const uint8_t *comma = memchr(list->data, ',', list->size);
        size_t size = comma ? (size_t)(comma - list->data) : list->size;
        *ret_tag = trim(slice_make(list->data, size));
        *list = slice_skip(*list, comma ? size + 1 : size);
        if (ret_tag->size > 0)
            return true;
    }
    return false;
}

bool etag_matches(struct slice list, int64_t version) {
    struct slice tag;
    if (slice_equals_string(trim(list), "*"))
        return true;
    while (next_tag(&list, &tag)) {
        if (slice_starts_with(tag, "W/"))
            tag = slice_skip(tag, 2);
        if (tag_version(tag) == version)
            return true;
    }
    return false;
}

bool etag_parse_if_match(struct slice value, struct etag_condition *ret_condition) {
    struct etag_condition condition = {0};
    struct slice tag;
    if (slice_equals_string(trim(value), "*")) {
        *ret_condition = etag_condition_of(ETAG_EXISTS);
        return true;
    }
    while (next_tag(&value, &tag)) {
        if (condition.count == ETAG_LIST_MAX)
            return false;
        condition.versions[condition.count++] = tag_version(tag);
    }
    if (condition.count == 0)
        return false;
    *ret_condition = condition;
    return true;
}

bool etag_condition_has(const struct etag_condition *condition, int64_t version) {
    for (unsigned i = 0; i < condition->count; i++)
        if (condition->versions[i] == version)
            return true;
    return false;
}
