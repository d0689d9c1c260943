/*
 * Structured log lines on standard error: time, level, event name, then key=value pairs; as logfmt
 * or JSON. One line is one write(). Library code never logs; the caller that decides logs once.
 *
 *     LOG_WARN("mqtt.refused", log_slice("device", id), log_text("why", "bad packet"),
 *              log_int("bytes", n));
 *
 * A value is cut after 512 bytes ("..."), a line after 4096 (whole fields; then cut=true).
 * Values are escaped, so bytes from outside cannot forge a line. Never pass a secret. Any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/slice.h"

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

struct log_field {
    const char *key;
    enum { LOG_FIELD_SLICE, LOG_FIELD_INT } kind;
    struct slice text;
    int64_t number;
};

static inline struct log_field log_slice(const char *key, struct slice text) {
    return (struct log_field){.key = key, .kind = LOG_FIELD_SLICE, .text = text};
}
static inline struct log_field log_text(const char *key, const char *text) {
    return log_slice(key, slice_from_string(text ? text : ""));
}
static inline struct log_field log_int(const char *key, int64_t number) {
    return (struct log_field){.key = key, .kind = LOG_FIELD_INT, .number = number};
}

extern _Atomic(enum log_level) log_minimum; /* set once at start or by a configuration reload */

void log_configure(enum log_level minimum, enum log_format format);
void log_write(enum log_level level, const char *event, const struct log_field *fields,
               unsigned field_count);

/* For lines that a stranger can cause: at most LOG_SAMPLE_LINES of them in LOG_SAMPLE_MS
 * (monotonic). Zeroed at first; one thread. When the line may be written, ret_suppressed is how
 * many were not since the one before. */
enum { LOG_SAMPLE_LINES = 10, LOG_SAMPLE_MS = 10000 };
struct log_sample {
    uint64_t since_ms;
    unsigned written, suppressed;
};
bool log_sample(struct log_sample *sample, uint64_t now_ms, unsigned *ret_suppressed);

#define LOG_AT(level, event, ...)                                                    \
    do {                                                                             \
        if ((level) >= log_minimum) {                                                \
            const struct log_field log_fields_[] = {{0}, ##__VA_ARGS__};             \
            log_write((level), (event), log_fields_ + 1,                             \
                      (unsigned)(sizeof(log_fields_) / sizeof(log_fields_[0])) - 1); \
        }                                                                            \
    } while (0)
#define LOG_DEBUG(event, ...) LOG_AT(LOG_LEVEL_DEBUG, event, ##__VA_ARGS__)
#define LOG_INFO(event, ...) LOG_AT(LOG_LEVEL_INFO, event, ##__VA_ARGS__)
#define LOG_WARN(event, ...) LOG_AT(LOG_LEVEL_WARN, event, ##__VA_ARGS__)
#define LOG_ERROR(event, ...) LOG_AT(LOG_LEVEL_ERROR, event, ##__VA_ARGS__)
