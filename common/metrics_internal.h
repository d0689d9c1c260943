/* Shared by metrics.c (the sums), metrics_series.c and metrics_print.c (their text). Nobody else
 * includes this. */
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

static inline bool metric_is_series(enum metric_kind kind) {
    return kind >= METRIC_KIND_SERIES_SUM && kind <= METRIC_KIND_SERIES_COUNTER;
}

/* One of a metric of such a kind. */
struct metric_series {
    const char *labels;
    int64_t value;
};

/* Calls visit for each series of a metric, ordered by labels, until it fails: then its error is the
 * result; DG_ERR_NO_MEMORY. Any thread; visit publishes nothing. metrics_series.c */
typedef int metric_visit_fn(void *context, const struct metric_series *series);
DG_NODISCARD int metric_visit_series(enum metric_id id, metric_visit_fn *visit, void *context);

/* NULL for counters and gauges. */
const struct metric_scale *metric_scale(enum metric_id id);

/* Sum over all threads. Any thread; takes the lock of the list. */
struct metric_reading metric_read_all(enum metric_id id);
