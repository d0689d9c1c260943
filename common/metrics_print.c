/* The Prometheus text exposition (version 0.0.4) of the metrics table. */
#include <stdarg.h>
#include <stdio.h>

#include "common/assert.h"
#include "common/metrics_internal.h"

enum { LINE_BYTES = 512, PAGE_BYTES = 1024 * 1024 };

__attribute__((format(printf, 2, 3))) static int put_line(struct buffer *out, const char *format,
                                                          ...) {
    char line[LINE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int size = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    dg_assert(size >= 0 && size < LINE_BYTES); /* rows of the table are short */
    return buffer_append(out, line, (size_t)size, buffer_size(out) + PAGE_BYTES);
}

static const char *kind_name(enum metric_kind kind) {
    switch (kind) {
    case METRIC_KIND_COUNTER:
    case METRIC_KIND_SERIES_COUNTER:
        return "counter";
    case METRIC_KIND_GAUGE:
    case METRIC_KIND_SERIES_SUM:
    case METRIC_KIND_SERIES_LEAST:
    case METRIC_KIND_SERIES_MOST:
        return "gauge";
    default:
        return "histogram";
    }
}

static int put_head(struct buffer *out, const struct metric_row *row) {
    int err = put_line(out, "# HELP %s %s\n", row->name, row->help);
    return err ? err : put_line(out, "# TYPE %s %s\n", row->name, kind_name(row->kind));
}

static int put_value(struct buffer *out, const char *name, const char *labels, int64_t value) {
    const char *open = *labels ? "{" : "", *close = *labels ? "}" : "";
    return put_line(out, "%s%s%s%s %lld\n", name, open, labels, close, (long long)value);
}

struct series_output {
    struct buffer *out;
    const char *name;
};

static int put_series(void *context, const struct metric_series *series) {
    struct series_output *output = context;
    return put_value(output->out, output->name, series->labels, series->value);
}

static int put_bucket(struct buffer *out, const struct metric_row *row, const char *bound,
                      int64_t count) {
    return put_line(out, "%s_bucket{%s%sle=\"%s\"} %lld\n", row->name, row->labels,
                    *row->labels ? "," : "", bound, (long long)count);
}

static int put_histogram(struct buffer *out, const struct metric_row *row,
                         const struct metric_scale *scale, const struct metric_reading *reading) {
    const char *open = *row->labels ? "{" : "", *close = *row->labels ? "}" : "";
    int64_t count = 0;
    for (unsigned i = 0; i <= scale->bound_count; i++) {
        char bound[32] = "+Inf";
        if (i < scale->bound_count)
            snprintf(bound, sizeof(bound), "%.10g", (double)scale->bounds[i] / scale->unit);
        count += reading->buckets[i];
        int err = put_bucket(out, row, bound, count);
        if (err)
            return err;
    }
    int err = put_line(out, "%s_sum%s%s%s %.15g\n", row->name, open, row->labels, close,
                       (double)reading->sum / scale->unit);
    return err ? err
               : put_line(out, "%s_count%s%s%s %lld\n", row->name, open, row->labels, close,
                          (long long)count);
}

static int put_metric(struct buffer *out, enum metric_id id) {
    const struct metric_row *row = &metric_rows[id];
    bool first_of_name = id == 0 || strcmp(row->name, metric_rows[id - 1].name) != 0;
    int err = first_of_name ? put_head(out, row) : 0;
    if (err)
        return err;
    if (metric_is_series(row->kind))
        return metric_visit_series(id, put_series, &(struct series_output){out, row->name});
    struct metric_reading reading = metric_read_all(id);
    const struct metric_scale *scale = metric_scale(id);
    return scale ? put_histogram(out, row, scale, &reading)
                 : put_value(out, row->name, row->labels, reading.sum);
}

int metrics_print(struct buffer *out) {
    for (unsigned id = 0; id < METRIC_COUNT; id++) {
        int err = put_metric(out, (enum metric_id)id);
        if (err)
            return err;
    }
    return 0;
}
