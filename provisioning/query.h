/* The query of a list: ?limit=&cursor=&enabled=&tag.<name>=. Pure but for memory. */
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
};

enum { QUERY_LIMIT_DEFAULT = 100 };

/* target as the client sent it. DG_ERR_MALFORMED and a sentence for anything unknown or wrong.
 * Frees nothing of *ret_query that was there before; query_free() it after success. */
DG_NODISCARD int query_parse(struct slice target, bool filters, struct query *ret_query,
                             char *ret_detail, size_t detail_size);
void query_free(struct query *query);
