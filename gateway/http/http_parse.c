/*
 * The only file that knows the http-parser library, so that llhttp can take its place. The library
 * checks header characters, Content-Length and Transfer-Encoding; what it lets pass is checked by
 * hand before it sees the bytes: bare LF, folded lines, a space before the colon, HTTP/0.9, extra
 * spaces in the request line. It never sees a body (chunks.c).
 */
#include "gateway/http/http_parse.h"

#include <http_parser.h>
#include <strings.h>

enum {
    REQUEST_LINE_EXTRA_BYTES = 64, /* method, version and spaces around the longest target */
};

void http_parse_setup(void) {
    http_parser_set_max_header_size(LIMIT_HTTP_HEAD_BYTES + 1);
}

bool http_name_equals(struct slice name, const char *text) {
    return name.size == strlen(text) && strncasecmp((const char *)name.data, text, name.size) == 0;
}

bool http_list_contains(struct slice list, const char *token) {
    while (list.size > 0) {
        const uint8_t *comma = memchr(list.data, ',', list.size);
        size_t size = comma ? (size_t)(comma - list.data) : list.size;
        struct slice item = slice_make(list.data, size);
        list = slice_skip(list, comma ? size + 1 : size);
        while (item.size > 0 && (item.data[0] == ' ' || item.data[0] == '\t'))
            item = slice_skip(item, 1);
        while (item.size > 0 &&
               (item.data[item.size - 1] == ' ' || item.data[item.size - 1] == '\t'))
            item.size--;
        if (http_name_equals(item, token))
            return true;
    }
    return false;
}

/* ---- the head's lines, by hand ---- */

static bool is_token_byte(uint8_t byte) {
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || (byte && strchr("!#$%&'*+-.^_`|~", byte));
}

ssize_t http_parse_find_head(const uint8_t *data, size_t size) {
    if (size > 0 && !is_token_byte(data[0]))
        return DG_ERR_MALFORMED;
    size_t bound = size < LIMIT_HTTP_HEAD_BYTES ? size : LIMIT_HTTP_HEAD_BYTES;
    const uint8_t *end = memmem(data, bound, "\r\n\r\n", 4);
    if (end)
        return end - data + 4;
    size_t line_limit = LIMIT_HTTP_TARGET_BYTES + REQUEST_LINE_EXTRA_BYTES;
    if (size > line_limit && !memchr(data, '\n', line_limit))
        return DG_ERR_TOO_LARGE;
    if (size >= LIMIT_HTTP_HEAD_BYTES)
        return DG_ERR_LIMIT;
    return memmem(data, bound, "\n\n", 2) ? DG_ERR_MALFORMED : 0;
}

/* "METHOD SP target SP HTTP/d.d", single spaces, visible ASCII (RFC 9112 3). */
static int check_request_line(const uint8_t *data, size_t size, struct http_head *head) {
    size_t at = 0;
    while (at < size && is_token_byte(data[at]))
        at++;
    head->method = (struct http_span){0, (uint16_t)at};
    if (at == 0 || at == size || data[at] != ' ')
        return DG_ERR_MALFORMED;
    size_t start = ++at;
    while (at < size && data[at] > ' ' && data[at] < 0x7f)
        at++;
    head->target = (struct http_span){(uint16_t)start, (uint16_t)(at - start)};
    if (at == start || size - at != sizeof(" HTTP/1.1") - 1 || memcmp(data + at, " HTTP/", 6) != 0)
        return DG_ERR_MALFORMED;
    const uint8_t *version = data + at + 6;
    if (version[0] < '0' || version[0] > '9' || version[1] != '.' || version[2] < '0' ||
        version[2] > '9')
        return DG_ERR_MALFORMED;
    head->version = (unsigned)(version[0] - '0') * 10 + (unsigned)(version[2] - '0');
    if (head->version != 10 && head->version != 11)
        return DG_ERR_UNSUPPORTED_VERSION;
    return head->target.size > LIMIT_HTTP_TARGET_BYTES ? DG_ERR_TOO_LARGE : 0;
}

/* "name:" and no white space in front of either (RFC 9112 5.1, 5.2). */
static bool is_field_line(const uint8_t *data, size_t size) {
    size_t at = 0;
    while (at < size && is_token_byte(data[at]))
        at++;
    return at > 0 && at < size && data[at] == ':';
}

/* Every line ends in CR LF and neither stands anywhere else. */
static int check_lines(const uint8_t *data, size_t size, struct http_head *head) {
    bool first = true;
    while (size > 2) {
        const uint8_t *end = memchr(data, '\r', size);
        size_t length = end ? (size_t)(end - data) : size;
        if (length + 2 > size || data[length + 1] != '\n' || memchr(data, '\n', length) ||
            memchr(data, '\0', length))
            return DG_ERR_MALFORMED;
        int err = first                         ? check_request_line(data, length, head)
                  : is_field_line(data, length) ? 0
                                                : DG_ERR_MALFORMED;
        if (err < 0)
            return err;
        first = false;
        data += length + 2;
        size -= length + 2;
    }
    return first ? DG_ERR_MALFORMED : 0;
}

/* ---- the head's fields, by the library ---- */

struct collector {
    const uint8_t *data;
    struct http_head *head;
    int err;
};

static struct http_span span_of(const struct collector *collector, const char *at, size_t size) {
    return (struct http_span){(uint16_t)((const uint8_t *)at - collector->data), (uint16_t)size};
}

static int on_field(http_parser *parser, const char *at, size_t size) {
    struct collector *collector = parser->data;
    struct http_head *head = collector->head;
    if (head->field_count == LIMIT_HTTP_HEADERS) {
        collector->err = DG_ERR_LIMIT;
        return -1;
    }
    head->fields[head->field_count++] = (struct http_field){.name = span_of(collector, at, size)};
    return 0;
}

static int on_value(http_parser *parser, const char *at, size_t size) {
    struct collector *collector = parser->data;
    if (collector->head->field_count == 0)
        return -1;
    while (size > 0 && (at[size - 1] == ' ' || at[size - 1] == '\t'))
        size--;
    collector->head->fields[collector->head->field_count - 1].value = span_of(collector, at, size);
    return 0;
}

static int on_head_complete(http_parser *parser) {
    struct collector *collector = parser->data;
    struct http_head *head = collector->head;
    head->chunked = (parser->flags & F_CHUNKED) != 0;
    head->content_length = (parser->flags & F_CONTENTLENGTH) ? parser->content_length : 0;
    head->keep_alive = http_should_keep_alive(parser) != 0;
    head->upgrade = parser->upgrade != 0 && parser->method != HTTP_CONNECT;
    http_parser_pause(parser, 1); /* the body is not the head's business */
    return 0;
}

/* Exactly one Host (RFC 9112 3.2; 1.0 may do without), one Content-Length, no Content-Length beside
 * Transfer-Encoding, and chunked as the only coding. */
static int check_framing(const uint8_t *data, const struct http_head *head) {
    unsigned hosts = 0, lengths = 0, codings = 0;
    for (unsigned i = 0; i < head->field_count; i++) {
        struct slice name = http_span_slice(data, head->fields[i].name);
        hosts += http_name_equals(name, "Host");
        lengths += http_name_equals(name, "Content-Length");
        if (!http_name_equals(name, "Transfer-Encoding"))
            continue;
        codings++;
        if (!http_name_equals(http_span_slice(data, head->fields[i].value), "chunked"))
            return DG_ERR_NOT_SUPPORTED;
    }
    bool host_ok = hosts == 1 || (hosts == 0 && head->version == 10);
    if (!host_ok || lengths > 1 || codings > 1 || (lengths > 0 && codings > 0))
        return DG_ERR_MALFORMED;
    return codings > 0 && head->version == 10 ? DG_ERR_MALFORMED : 0;
}

int http_parse_head(const uint8_t *data, size_t size, struct http_head *ret_head) {
    static const http_parser_settings settings = {.on_header_field = on_field,
                                                  .on_header_value = on_value,
                                                  .on_headers_complete = on_head_complete};
    struct http_head head = {0};
    if (size > LIMIT_HTTP_HEAD_BYTES)
        return DG_ERR_LIMIT;
    int err = check_lines(data, size, &head);
    if (err < 0)
        return err;
    struct collector collector = {.data = data, .head = &head};
    http_parser parser;
    http_parser_init(&parser, HTTP_REQUEST);
    parser.data = &collector;
    http_parser_execute(&parser, &settings, (const char *)data, size);
    switch (HTTP_PARSER_ERRNO(&parser)) {
    case HPE_PAUSED:
        break;
    case HPE_INVALID_METHOD:
        return DG_ERR_NOT_SUPPORTED;
    case HPE_HEADER_OVERFLOW:
        return DG_ERR_LIMIT;
    default:
        return collector.err < 0 ? collector.err : DG_ERR_MALFORMED;
    }
    err = check_framing(data, &head);
    if (err == 0)
        *ret_head = head;
    return err;
}
