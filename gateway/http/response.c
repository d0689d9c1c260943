/* Answers: status line, headers, problems. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/assert.h"
#include "common/metrics.h"
#include "common/utf8.h"
#include "gateway/http/exchange.h"

enum { ADDED_HEADERS_BYTES_MAX = 16 * 1024, HEAD_TEXT_SIZE = 512, DATE_TEXT_SIZE = 32 };

static const struct {
    unsigned status;
    const char *text;
} STATUS_TEXTS[] = {
    {101, "Switching Protocols"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {204, "No Content"},
    {206, "Partial Content"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {422, "Unprocessable Content"},
    {426, "Upgrade Required"},
    {428, "Precondition Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
};

const char *http_status_text(unsigned status) {
    for (size_t i = 0; i < sizeof(STATUS_TEXTS) / sizeof(STATUS_TEXTS[0]); i++)
        if (STATUS_TEXTS[i].status == status)
            return STATUS_TEXTS[i].text;
    return "";
}

/* RFC 9110 5.6.7; names of days and months are English whatever the locale. */
static const char *date_of(struct worker *worker) {
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static _Thread_local int64_t written_second = -1;
    static _Thread_local char date[DATE_TEXT_SIZE];
    int64_t second = worker->wall_ms / 1000;
    if (second == written_second)
        return date;
    time_t now = (time_t)second;
    struct tm parts;
    gmtime_r(&now, &parts);
    snprintf(date, sizeof(date), "%.3s, %02u %.3s %04u %02u:%02u:%02u GMT",
             days + 3 * parts.tm_wday, (unsigned)parts.tm_mday % 100, months + 3 * parts.tm_mon,
             (unsigned)(parts.tm_year + 1900) % 10000, (unsigned)parts.tm_hour % 100,
             (unsigned)parts.tm_min % 100, (unsigned)parts.tm_sec % 100);
    written_second = second;
    return date;
}

/* 1xx, 204 and 304 have no body and no length (RFC 9110 8.6). */
static bool has_body(unsigned status) {
    return status >= 200 && status != 204 && status != 304;
}

static void write_text(struct connection *c, const char *text) {
    connection_write(c, text, strlen(text));
}

void http_write_answer(struct connection *c, const struct http_answer *answer) {
    char head[HEAD_TEXT_SIZE];
    snprintf(head, sizeof(head), "HTTP/1.1 %u %s\r\nDate: %s\r\n", answer->status,
             http_status_text(answer->status), date_of(c->worker));
    write_text(c, head);
    if (has_body(answer->status)) {
        snprintf(head, sizeof(head), "Content-Length: %zu\r\n", answer->body.size);
        write_text(c, head);
        write_text(c, "X-Content-Type-Options: nosniff\r\n");
    }
    if (answer->content_type) {
        write_text(c, "Content-Type: ");
        write_text(c, answer->content_type);
        write_text(c, "\r\n");
    }
    if (!answer->own_cache_control)
        write_text(c, "Cache-Control: no-store\r\n");
    if (answer->close)
        write_text(c, "Connection: close\r\n");
    connection_write(c, answer->headers.data, answer->headers.size);
    write_text(c, "\r\n");
    if (has_body(answer->status) && !answer->head_only)
        connection_write(c, answer->body.data, answer->body.size);
    metric_add(METRIC_HTTP_REQUESTS, 1);
    if (answer->status >= 500)
        metric_add(METRIC_HTTP_ERRORS, 1);
}

/* ---- problems ---- */

static int append_text(struct buffer *out, const char *text) {
    return buffer_append(out, text, strlen(text), LIMIT_OUTPUT_BYTES);
}

/* A JSON string; what is not UTF-8 is left out rather than sent on: half a character, where a long
 * name was cut off. */
static int append_json_string(struct buffer *out, const char *text) {
    int err = append_text(out, "\"");
    size_t left_of_character = 0;
    for (; err == 0 && *text; text++) {
        if (left_of_character == 0)
            left_of_character = utf8_character_size(text, strlen(text));
        if (left_of_character == 0)
            continue;
        left_of_character--;
        unsigned char byte = (unsigned char)*text;
        char escaped[8] = {(char)byte};
        if (byte == '"' || byte == '\\')
            snprintf(escaped, sizeof(escaped), "\\%c", byte);
        else if (byte < 0x20)
            snprintf(escaped, sizeof(escaped), "\\u%04x", byte);
        err = append_text(out, escaped);
    }
    return err < 0 ? err : append_text(out, "\"");
}

/* DG_ERR_TOO_LARGE -> /problems/too-large: relative, as the gateway does not know its public name.
 */
static int append_type(struct buffer *out, int err) {
    static const char prefix[] = "DG_ERR_";
    char type[64] = "about:blank";
    const char *name = dg_err_row(err)->name;
    if (err != 0 && strncmp(name, prefix, sizeof(prefix) - 1) == 0) {
        int size = snprintf(type, sizeof(type), "/problems/%s", name + sizeof(prefix) - 1);
        for (int i = (int)sizeof("/problems/") - 1; i < size && type[i]; i++)
            type[i] = type[i] == '_' ? '-' : (char)(type[i] | 0x20);
    }
    return append_json_string(out, type);
}

int http_format_problem(struct buffer *out, unsigned status, int err, const char *detail) {
    char number[48];
    snprintf(number, sizeof(number), ",\"status\":%u", status);
    const char *title = err != 0 ? dg_err_text(err) : http_status_text(status);
    bool failed = append_text(out, "{\"type\":") < 0 || append_type(out, err) < 0 ||
                  append_text(out, ",\"title\":") < 0 || append_json_string(out, title) < 0 ||
                  append_text(out, number) < 0;
    if (!failed && detail)
        failed = append_text(out, ",\"detail\":") < 0 || append_json_string(out, detail) < 0;
    return failed || append_text(out, "}\n") < 0 ? DG_ERR_NO_MEMORY : 0;
}

/* ---- the handlers' interface ---- */

void http_add_header(struct http_exchange *x, const char *name, const char *value) {
    if (strpbrk(name, "\r\n: ") || strpbrk(value, "\r\n"))
        return;
    size_t before = x->headers.end;
    const char *const parts[] = {name, ": ", value, "\r\n"};
    for (unsigned i = 0; i < 4; i++)
        if (buffer_append(&x->headers, parts[i], strlen(parts[i]), ADDED_HEADERS_BYTES_MAX) < 0) {
            x->headers.end = before; /* a whole line or none */
            return;
        }
    if (http_name_equals(slice_from_string(name), "Cache-Control"))
        x->own_cache_control = true;
}

void http_respond(struct http_exchange *x, unsigned status, const char *content_type,
                  struct slice body) {
    dg_assert(x->handling);
    bool close = !x->keep_alive || !http_body_complete(x);
    struct http_answer answer = {.status = status,
                                 .content_type = content_type,
                                 .body = body,
                                 .headers = buffer_slice(&x->headers),
                                 .head_only = x->head_only,
                                 .close = close,
                                 .own_cache_control = x->own_cache_control};
    http_write_answer(x->connection, &answer);
    http_end_exchange(x, close);
}

void http_respond_problem(struct http_exchange *x, int err, const char *detail) {
    unsigned status = dg_err_row(err)->http_status;
    struct buffer body = {0};
    if (http_format_problem(&body, status, err, detail) < 0)
        buffer_free(&body);
    http_respond(x, status, "application/problem+json", buffer_slice(&body));
    buffer_free(&body);
}
