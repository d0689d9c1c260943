/*
 * Counters, gauges and histograms. Each thread adds to its own shard without a lock; a reader sums
 * the shards. The rows are in metrics_table.h and nowhere else.
 */
#pragma once

#include <stdint.h>

#include "common/buffer.h"

enum metric_id {
#define METRIC(id, kind, name, labels, help) METRIC_##id,
#include "common/metrics_table.h"
#undef METRIC
    METRIC_COUNT
};

enum metric_kind {
    METRIC_KIND_COUNTER,
    METRIC_KIND_GAUGE,
    METRIC_KIND_SERIES_SUM, /* gauges with labels of their own: metrics_series.h */
    METRIC_KIND_SERIES_LEAST,
    METRIC_KIND_SERIES_MOST,
    METRIC_KIND_SERIES_COUNTER,
    METRIC_KIND_HISTOGRAM_SECONDS,
    METRIC_KIND_HISTOGRAM_BYTES,
    METRIC_KIND_HISTOGRAM_COUNT,
};

/* Counter or gauge, any thread; gauges may take a negative amount. */
void metric_add(enum metric_id id, int64_t amount);

/* Gauge with one owner: replaces the value. */
void metric_set(enum metric_id id, int64_t value);

/* Histogram, any thread: one observation, or the same value `times` times. */
void metric_observe(enum metric_id id, uint64_t value, uint64_t times);

/* Sum over all threads (a histogram: number of observations). */
int64_t metric_read(enum metric_id id);

/* Appends the Prometheus text exposition of every metric. */
DG_NODISCARD int metrics_print(struct buffer *out);
