/*
 * Time. Order and time-outs use the monotonic clock, time stamps the wall clock; pure modules are
 * given both as arguments and never call these. Any thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

uint64_t clock_monotonic_ns(void);
static inline uint64_t clock_monotonic_ms(void) {
    return clock_monotonic_ns() / 1000000u;
}

/* Milliseconds since 1970-01-01 UTC. */
int64_t clock_wall_ms(void);

enum { CLOCK_RFC3339_SIZE = 24 }; /* "2026-11-24T13:02:03.456Z", without NUL */

/* Writes exactly CLOCK_RFC3339_SIZE characters, no NUL. Years 1970 to 9999; others are clamped. */
void clock_format_rfc3339(int64_t wall_ms, char *ret_text);

/* Parses an RFC 3339 time of any offset and fraction to ms. 0 or DG_ERR_MALFORMED. */
int clock_parse_rfc3339(const char *text, size_t size, int64_t *ret_wall_ms);
