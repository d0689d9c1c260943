/*
 * Queries over devices and their twins. A page looks at so many devices and no more, so it may have
 * fewer than were asked for, or none, and yet not be the last.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "provisioning/cursor.h"
#include "provisioning/iothub_query.h"
#include "provisioning/iothub_request.h"
#include "provisioning/iothub_route.h"
#include "provisioning/iothub_show.h"
#include "provisioning/json.h"

enum { PAGE_DEFAULT = 100, PAGE_BYTES_MAX = LIMIT_OUTPUT_BYTES / 2 };

/* IOTHUB_QUERY: what was looked at, then what of it may be shown. */
enum query_column {
    COLUMN_SCANNED,
    COLUMN_LAST_SCANNED,
    COLUMN_KEY,
    COLUMN_ROW, /* {"device_key":, "if_connected":, "if_disconnected":, "twin":} */
    COLUMN_CANDIDATES,
};

/* A page, until it is known who is connected. */
struct page {
    unsigned left;                       /* of TOP; 0: no limit */
    char next[CURSOR_KEY_BYTES_MAX + 1]; /* key of the last that was looked at; "": no more */
    bool is_shown[LIMIT_PAGE_ROWS][2];   /* [connected] */
};

/* A page's token: how many of TOP are left, and the key behind which it begins. */
static bool read_token(struct provisioning_call *call, unsigned *ret_left, char *ret_key) {
    struct slice header;
    char token[CURSOR_KEY_BYTES_MAX + 1];
    ret_key[0] = '\0';
    if (!http_request_header(call->exchange, "x-ms-continuation", &header) || header.size == 0)
        return true;
    unsigned left;
    int size = 0;
    if (cursor_decode(header, token) < 0 || sscanf(token, "%7u/%n", &left, &size) != 1 ||
        size == 0 || !token[size]) {
        iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid,
                      "x-ms-continuation is not that of a page");
        return false;
    }
    *ret_left = left;
    strcpy(ret_key, token + size);
    return true;
}

static void add_token(struct http_exchange *x, unsigned left, const char *key) {
    char token[CURSOR_KEY_BYTES_MAX + 1], text[CURSOR_TEXT_SIZE];
    snprintf(token, sizeof(token), "%u/%s", left, key);
    cursor_encode(slice_from_string(token), text);
    http_add_header(x, "x-ms-continuation", text);
}

static bool read_page_size(struct provisioning_call *call, unsigned *ret_size) {
    struct slice header;
    unsigned size = 0;
    *ret_size = PAGE_DEFAULT;
    if (!http_request_header(call->exchange, "x-ms-max-item-count", &header) || header.size == 0)
        return true;
    for (size_t i = 0; i < header.size && size <= LIMIT_PAGE_ROWS; i++)
        size = header.data[i] >= '0' && header.data[i] <= '9' ? size * 10 + (header.data[i] - '0')
                                                              : LIMIT_PAGE_ROWS + 1;
    if (size == 0 || size > LIMIT_PAGE_ROWS) {
        iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid, "x-ms-max-item-count must be 1 to %d",
                      LIMIT_PAGE_ROWS);
        return false;
    }
    *ret_size = size;
    return true;
}

static void answer_page(struct provisioning_call *call, struct iothub_shown *shown) {
    const struct page *page = shown->more;
    json_t *twins = json_array();
    for (unsigned i = 0; i < shown->count; i++) {
        json_t *twin = json_array_get(shown->objects, i);
        if (page->is_shown[i][iothub_is_connected(twin)])
            twins = json_append(twins, json_incref(twin));
    }
    unsigned count = (unsigned)json_array_size(twins);
    bool is_whole = page->left != 0 && count >= page->left;
    if (page->next[0] && !is_whole)
        add_token(call->exchange, page->left ? page->left - count : 0, page->next);
    http_add_header(call->exchange, "x-ms-item-type", "Twin");
    iothub_answer(call->exchange, 200, twins, 0);
}

/* Takes a row over into the page; DG_ERR_NO_MEMORY, or of a row that cannot be read. */
static int take_row(const struct registry_request *result, unsigned row, struct iothub_shown *shown,
                    struct page *page) {
    json_t *object = json_loads(registry_value(result, row, COLUMN_ROW), 0, NULL);
    unsigned index = shown->count;
    page->is_shown[index][0] = json_is_true(json_object_get(object, "if_disconnected"));
    page->is_shown[index][1] = json_is_true(json_object_get(object, "if_connected"));
    int err = iothub_shown_add(shown, json_incref(json_object_get(object, "twin")),
                               json_integer_value(json_object_get(object, "device_key")));
    json_decref(object);
    return err;
}

/* Where the next page begins: behind the last that is shown, or the last that was looked at. */
static void find_next(const struct registry_request *result, unsigned count, struct page *page) {
    const char *last = registry_value(result, 0, COLUMN_LAST_SCANNED);
    if (count > 0 && iothub_number(result, 0, COLUMN_CANDIDATES) > count)
        last = registry_value(result, count - 1, COLUMN_KEY);
    else if (iothub_number(result, 0, COLUMN_SCANNED) < LIMIT_IOTHUB_QUERY_SCANNED)
        last = NULL;
    snprintf(page->next, sizeof(page->next), "%s", last ? last : "");
}

static void then_query(struct provisioning_call *call, struct registry_request *result) {
    bool is_empty = result->row_count == 0 || !registry_value(result, 0, COLUMN_KEY);
    unsigned count = is_empty ? 0 : result->row_count;
    struct iothub_shown *shown = iothub_shown_new(count);
    struct page *page = shown ? calloc(1, sizeof(*page)) : NULL;
    int err = page ? 0 : DG_ERR_NO_MEMORY;
    if (shown)
        shown->more = page;
    for (unsigned row = 0; err == 0 && row < count; row++)
        err = take_row(result, row, shown, page);
    if (err < 0) {
        iothub_shown_free(shown);
        call_fail(call, err, NULL);
        return;
    }
    if (result->row_count > 0)
        find_next(result, count, page);
    page->left = *(const unsigned *)call->state;
    iothub_show(call, shown, answer_page);
}

/* False after answering. */
static bool read_query(struct provisioning_call *call, struct iothub_query *ret_query) {
    char detail[IOTHUB_QUERY_DETAIL_SIZE] = "";
    const json_t *text = json_object_get(call->body, "query");
    if (!json_is_string(text)) {
        iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid, "the body needs a query");
        return false;
    }
    int err = iothub_query_parse(slice_make(json_string_value(text), json_string_length(text)),
                                 ret_query, detail, sizeof(detail));
    if (err < 0)
        iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid, "%s", detail);
    return err == 0;
}

void iothub_query_run(struct provisioning_call *call) {
    struct iothub_query query;
    char cursor[CURSOR_KEY_BYTES_MAX + 1], limit[16], bytes[16], scanned[16];
    unsigned size;
    if (!iothub_read_body(call, JSON_OBJECT) || !read_query(call, &query) ||
        !read_token(call, &query.top, cursor) || !read_page_size(call, &size))
        return;
    snprintf(limit, sizeof(limit), "%u", query.top && query.top < size ? query.top : size);
    snprintf(bytes, sizeof(bytes), "%d", PAGE_BYTES_MAX);
    snprintf(scanned, sizeof(scanned), "%d", LIMIT_IOTHUB_QUERY_SCANNED);
    unsigned *left = malloc(sizeof(*left));
    if (!left) {
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
        return;
    }
    *left = query.top;
    call->state = left; /* until the page is there */
    call->free_state = free;
    struct registry_request *request = iothub_request_new(call, STATEMENT_IOTHUB_QUERY);
    iothub_request_add(&request, query.condition[0] ? query.condition : NULL);
    iothub_request_add(&request, cursor[0] ? cursor : NULL);
    iothub_request_add(&request, limit);
    iothub_request_add(&request, bytes);
    iothub_request_add(&request, scanned);
    iothub_execute(call, request, then_query);
}
