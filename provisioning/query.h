/* The query of a list: ?limit=&cursor=&enabled=&tag.<name>=&state=. Pure but for memory. */
#pragma once

#include <jansson.h>

#include "common/err.h"
#include "common/slice.h"
#include "provisioning/cursor.h"

struct query {
    unsigned limit;
    char cursor[CURSOR_KEY_BYTES_MAX + 1]; /* last key of the page before; "" for the first page */
    const char *enabled;                   /* "true", "false" or NULL */
    json_t *tags;                          /* owned; wanted tags, or NULL */
    char state[16];                        /* of commands; "": any */
};

/* What a list can be narrowed by, beside pages. */
enum query_filter {
    QUERY_REGISTERED = 1, /* enabled, tag.<name> */
    QUERY_STATE = 2,      /* state of a command */
};

enum { QUERY_LIMIT_DEFAULT = 100 };

/* target as the client sent it. DG_ERR_MALFORMED and a sentence for anything unknown or wrong.
 * Frees nothing of *ret_query that was there before; query_free() it after success. */
DG_NODISCARD int query_parse(struct slice target, unsigned filters, struct query *ret_query,
                             char *ret_detail, size_t detail_size);
void query_free(struct query *query);
