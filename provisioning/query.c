#include "provisioning/query.h"

#include <stdio.h>

#include "common/limits.h"
#include "gateway/command/state.h"
#include "gateway/http/target.h"

/* One parameter being read, and where the sentence about it goes. */
struct reading {
    struct query *query;
    struct slice value;
    struct slice name;
    char *detail;
    size_t detail_size;
};

static int refuse(struct reading *reading, const char *text) {
    snprintf(reading->detail, reading->detail_size, "query parameter %.*s: %s",
             (int)(reading->name.size < 64 ? reading->name.size : 64),
             (const char *)reading->name.data, text);
    return DG_ERR_MALFORMED;
}

static int read_limit(struct reading *reading) {
    unsigned limit = 0;
    for (size_t i = 0; i < reading->value.size; i++) {
        uint8_t c = reading->value.data[i];
        if (c < '0' || c > '9' || limit > LIMIT_PAGE_ROWS)
            return refuse(reading, "must be a number from 1 to 1000");
        limit = limit * 10 + (c - '0');
    }
    _Static_assert(LIMIT_PAGE_ROWS == 1000, "the sentences above and below name it");
    if (limit == 0 || limit > LIMIT_PAGE_ROWS)
        return refuse(reading, "must be a number from 1 to 1000");
    reading->query->limit = limit;
    return 0;
}

static int read_cursor(struct reading *reading) {
    if (cursor_decode(reading->value, reading->query->cursor) < 0)
        return refuse(reading, "is not the next_cursor of a page");
    return 0;
}

static int read_enabled(struct reading *reading) {
    if (slice_equals_string(reading->value, "true"))
        reading->query->enabled = "true";
    else if (slice_equals_string(reading->value, "false"))
        reading->query->enabled = "false";
    else
        return refuse(reading, "must be true or false");
    return 0;
}

static int read_tag(struct reading *reading) {
    struct query *query = reading->query;
    struct slice name = slice_skip(reading->name, strlen("tag."));
    char text[129];
    if (name.size == 0 || name.size >= sizeof(text))
        return refuse(reading, "name a tag: tag.<name>=<value>");
    memcpy(text, name.data, name.size);
    text[name.size] = '\0';
    if (!query->tags)
        query->tags = json_object();
    if (json_object_get(query->tags, text))
        return refuse(reading, "is given twice");
    json_t *value = json_stringn((const char *)reading->value.data, reading->value.size);
    return json_object_set_new(query->tags, text, value) == 0 ? 0 : DG_ERR_NO_MEMORY;
}

static int read_state(struct reading *reading) {
    enum command_state state = command_state_find(reading->value);
    if (state == COMMAND_STATE_COUNT)
        return refuse(reading, "must be one of:" COMMAND_STATE_NAMES);
    snprintf(reading->query->state, sizeof(reading->query->state), "%s",
             command_states[state].name);
    return 0;
}

static const struct {
    const char *name;
    bool prefix;     /* the name only begins so */
    unsigned filter; /* enum query_filter; 0: of every list */
    int (*read)(struct reading *reading);
} readers[] = {
    {"limit", false, 0, read_limit},
    {"cursor", false, 0, read_cursor},
    {"enabled", false, QUERY_REGISTERED, read_enabled},
    {"tag.", true, QUERY_REGISTERED, read_tag},
    {"state", false, QUERY_STATE, read_state},
};

static int read_parameter(struct reading *reading, unsigned filters) {
    for (unsigned i = 0; i < sizeof(readers) / sizeof(readers[0]); i++) {
        bool named = readers[i].prefix ? slice_starts_with(reading->name, readers[i].name)
                                       : slice_equals_string(reading->name, readers[i].name);
        if (named && (readers[i].filter == 0 || readers[i].filter & filters))
            return readers[i].read(reading);
    }
    return refuse(reading, filters & QUERY_REGISTERED
                               ? "not known; there are limit, cursor, enabled and tag.<name>"
                           : filters & QUERY_STATE ? "not known; there are limit, cursor and state"
                                                   : "not known; there are limit and cursor");
}

int query_parse(struct slice target, unsigned filters, struct query *ret_query, char *ret_detail,
                size_t detail_size) {
    uint8_t text[LIMIT_HTTP_TARGET_BYTES];
    struct http_target parsed;
    struct query query = {.limit = QUERY_LIMIT_DEFAULT};
    if (target.size > sizeof(text))
        return DG_ERR_TOO_LARGE;
    memcpy(text, target.data, target.size);
    int err = http_target_parse(target, text, &parsed);
    if (err < 0)
        snprintf(ret_detail, detail_size, "the query cannot be decoded");
    for (unsigned i = 0; err == 0 && i < parsed.parameter_count; i++) {
        struct reading reading = {&query, parsed.parameters[i].value, parsed.parameters[i].name,
                                  ret_detail, detail_size};
        err = read_parameter(&reading, filters);
    }
    if (err < 0)
        query_free(&query);
    else
        *ret_query = query;
    return err;
}

void query_free(struct query *query) {
    json_decref(query->tags);
    query->tags = NULL;
}
