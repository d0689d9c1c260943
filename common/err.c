/*
 * The error rows by value. The invariant (values dense from -1 down, none twice) is checked while
 * compiling: a repeated value is an initializer override, a gap makes the table longer than the
 * list.
 */
#include "common/err.h"

#include <stddef.h>

static const struct dg_err_row rows[] = {[0] = {DG_OK, "DG_OK", "success", 0, 0, 0, 200, ""},
#define X(name, value, mqtt5, mqtt3, kafka, http, condition, text) \
    [-(value)] = {name, #name, text, mqtt5, mqtt3, kafka, http, condition},
                                         DG_ERRORS(X)
#undef X
};

enum {
    ROW_COUNT = sizeof(rows) / sizeof(rows[0]),
#define X(...) +1
    LISTED_COUNT = DG_ERRORS(X)
#undef X
};
_Static_assert(ROW_COUNT == LISTED_COUNT + 1, "error values must be dense");

const struct dg_err_row *dg_err_row(int err) {
    if (err > 0 || err <= -ROW_COUNT)
        return &rows[-DG_ERR_INTERNAL];
    return &rows[-err];
}

const char *dg_err_text(int err) {
    return dg_err_row(err)->text;
}
