/* Shared by metrics.c (the sums) and metrics_print.c (their text). Nobody else includes this. */
#pragma once

#include "common/metrics.h"

enum { METRIC_BUCKETS = 20 }; /* of the longest scale, with +Inf */

struct metric_row {
    enum metric_kind kind;
    const char *name;
    const char *labels; /* without braces, or empty */
    const char *help;
};

struct metric_scale {
    const uint64_t *bounds; /* upper, inclusive, in the unit that is observed */
    unsigned bound_count;
    double unit; /* observed units in one unit of the exposition */
};

struct metric_reading {
    int64_t sum; /* of a histogram: of the observed values */
    int64_t buckets[METRIC_BUCKETS];
};

extern const struct metric_row metric_rows[METRIC_COUNT];

/* NULL for counters and gauges. */
const struct metric_scale *metric_scale(enum metric_id id);

/* Sum over all threads. Any thread; takes the lock of the list. */
struct metric_reading metric_read_all(enum metric_id id);
