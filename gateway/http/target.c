#include "gateway/http/target.h"

#include "common/utf8.h"

static int hex_digit(uint8_t byte) {
    if (byte >= '0' && byte <= '9')
        return byte - '0';
    byte |= 0x20;
    return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

enum { IN_PATH, IN_QUERY };

/* Decodes text[0..size) in place; the new size, or DG_ERR_MALFORMED. */
static ssize_t decode(uint8_t *text, size_t size, int where) {
    size_t to = 0;
    for (size_t from = 0; from < size; from++) {
        uint8_t byte = text[from];
        if (byte == '%') {
            int high = size - from > 2 ? hex_digit(text[from + 1]) : -1;
            int low = size - from > 2 ? hex_digit(text[from + 2]) : -1;
            if (high < 0 || low < 0)
                return DG_ERR_MALFORMED;
            byte = (uint8_t)(high << 4 | low);
            from += 2;
            if (where == IN_PATH && (byte == '/' || byte == '\\'))
                return DG_ERR_MALFORMED;
        } else if (byte == '+' && where == IN_QUERY) {
            byte = ' ';
        }
        if (byte < 0x20 || byte == 0x7f)
            return DG_ERR_MALFORMED;
        text[to++] = byte;
    }
    return utf8_is_valid(text, to) ? (ssize_t)to : DG_ERR_MALFORMED;
}

static int parse_path(uint8_t *text, size_t size, struct http_target *target) {
    if (size == 0 || text[0] != '/')
        return DG_ERR_MALFORMED;
    for (size_t at = 1; at <= size;) {
        const uint8_t *slash = memchr(text + at, '/', size - at);
        size_t length = slash ? (size_t)(slash - (text + at)) : size - at;
        if (target->segment_count == HTTP_SEGMENTS_MAX)
            return DG_ERR_LIMIT;
        ssize_t decoded = decode(text + at, length, IN_PATH);
        struct slice segment = slice_make(text + at, decoded < 0 ? 0 : (size_t)decoded);
        if (decoded < 0 || slice_equals_string(segment, ".") || slice_equals_string(segment, ".."))
            return DG_ERR_MALFORMED;
        target->segments[target->segment_count++] = segment;
        at += length + 1;
    }
    return 0;
}

static int parse_parameter(uint8_t *text, size_t size, struct http_target *target) {
    if (size == 0)
        return 0;
    if (target->parameter_count == HTTP_QUERY_PARAMETERS_MAX)
        return DG_ERR_LIMIT;
    const uint8_t *equals = memchr(text, '=', size);
    size_t name_size = equals ? (size_t)(equals - text) : size;
    size_t value_at = equals ? name_size + 1 : size;
    ssize_t name = decode(text, name_size, IN_QUERY);
    ssize_t value = decode(text + value_at, size - value_at, IN_QUERY);
    if (name < 0 || value < 0)
        return DG_ERR_MALFORMED;
    unsigned i = target->parameter_count++;
    target->parameters[i].name = slice_make(text, (size_t)name);
    target->parameters[i].value = slice_make(text + value_at, (size_t)value);
    return 0;
}

static int parse_query(uint8_t *text, size_t size, struct http_target *target) {
    int err = 0;
    for (size_t at = 0; at < size && err == 0;) {
        const uint8_t *ampersand = memchr(text + at, '&', size - at);
        size_t length = ampersand ? (size_t)(ampersand - (text + at)) : size - at;
        err = parse_parameter(text + at, length, target);
        at += length + 1;
    }
    return err;
}

/* Absolute form (RFC 9112 3.2.2): the scheme and authority are skipped. */
static size_t authority_size(struct slice raw) {
    size_t scheme = slice_starts_with(raw, "http://")    ? 7
                    : slice_starts_with(raw, "https://") ? 8
                                                         : 0;
    if (scheme == 0)
        return 0;
    const uint8_t *slash = memchr(raw.data + scheme, '/', raw.size - scheme);
    return slash ? (size_t)(slash - raw.data) : raw.size;
}

int http_target_parse(struct slice raw, uint8_t *text, struct http_target *ret_target) {
    struct http_target target = {0};
    size_t skip = authority_size(raw);
    raw = slice_skip(raw, skip);
    text += skip;
    const uint8_t *mark = raw.size > 0 ? memchr(raw.data, '?', raw.size) : NULL;
    size_t path_size = mark ? (size_t)(mark - raw.data) : raw.size;
    target.path = slice_make(raw.data, path_size);
    int err =
        memchr(raw.data, '#', raw.size) ? DG_ERR_MALFORMED : parse_path(text, path_size, &target);
    if (err == 0 && mark)
        err = parse_query(text + path_size + 1, raw.size - path_size - 1, &target);
    if (err == 0)
        *ret_target = target;
    return err;
}
