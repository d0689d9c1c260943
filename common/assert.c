/* The end of a process whose invariant is broken: one line on standard error, then abort(). */
#include "common/assert.h"

#include <stdio.h>
#include <stdlib.h>

void dg_assert_failed(const char *expression, const char *file, int line) {
    fprintf(stderr, "%s:%d: invariant broken: %s\n", file, line, expression);
    abort();
}
