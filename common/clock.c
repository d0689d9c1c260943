/* The two clocks, and RFC 3339 text of the wall clock (proleptic Gregorian calendar, UTC). */
#include "common/clock.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "common/assert.h"
#include "common/err.h"

static struct timespec read_clock(clockid_t id) {
    struct timespec now;
    int failed = clock_gettime(id, &now);
    dg_assert(failed == 0);
    return now;
}

uint64_t clock_monotonic_ns(void) {
    struct timespec now = read_clock(CLOCK_MONOTONIC);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int64_t clock_wall_ms(void) {
    struct timespec now = read_clock(CLOCK_REALTIME);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static const int64_t DAY_MS = 86400000;
static const int64_t LAST_MS = 253402300799999; /* 9999-12-31T23:59:59.999Z */

struct civil_date {
    unsigned year;
    unsigned month; /* 1 to 12 */
    unsigned day;   /* 1 to 31 */
};

enum { DAYS_PER_ERA = 146097, DAYS_0000_03_01_TO_1970 = 719468 };

/* Years are counted from 1 March, so that the leap day is the last of its year. */
static struct civil_date civil_from_days(unsigned days_since_1970) {
    unsigned days = days_since_1970 + DAYS_0000_03_01_TO_1970;
    unsigned era = days / DAYS_PER_ERA;
    unsigned in_era = days % DAYS_PER_ERA;
    unsigned year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    unsigned in_year = in_era - (365 * year + year / 4 - year / 100);
    unsigned month = (5 * in_year + 2) / 153; /* 0: March */
    unsigned day = in_year - (153 * month + 2) / 5 + 1;
    unsigned civil_month = month < 10 ? month + 3 : month - 9;
    return (struct civil_date){era * 400 + year + (civil_month <= 2), civil_month, day};
}

static int64_t days_from_civil(struct civil_date date) {
    int64_t year = (int64_t)date.year - (date.month <= 2);
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t month = date.month > 2 ? date.month - 3 : date.month + 9;
    int64_t day_of_year = (153 * month + 2) / 5 + date.day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * DAYS_PER_ERA + day_of_era - DAYS_0000_03_01_TO_1970;
}

static void put_digits(char *at, unsigned count, unsigned value) {
    while (count-- > 0) {
        at[count] = (char)('0' + value % 10);
        value /= 10;
    }
}

void clock_format_rfc3339(int64_t wall_ms, char *ret_text) {
    int64_t ms = wall_ms < 0 ? 0 : wall_ms > LAST_MS ? LAST_MS : wall_ms;
    struct civil_date date = civil_from_days((unsigned)(ms / DAY_MS));
    unsigned in_day = (unsigned)(ms % DAY_MS);
    memcpy(ret_text, "0000-00-00T00:00:00.000Z", CLOCK_RFC3339_SIZE);
    put_digits(ret_text, 4, date.year);
    put_digits(ret_text + 5, 2, date.month);
    put_digits(ret_text + 8, 2, date.day);
    put_digits(ret_text + 11, 2, in_day / 3600000);
    put_digits(ret_text + 14, 2, in_day / 60000 % 60);
    put_digits(ret_text + 17, 2, in_day / 1000 % 60);
    put_digits(ret_text + 20, 3, in_day % 1000);
}

struct text_cursor {
    const char *at;
    const char *end;
    bool failed;
};

static unsigned take_digits(struct text_cursor *t, unsigned count) {
    unsigned value = 0;
    for (unsigned i = 0; i < count; i++) {
        if (t->at == t->end || *t->at < '0' || *t->at > '9') {
            t->failed = true;
            return 0;
        }
        value = value * 10 + (unsigned)(*t->at++ - '0');
    }
    return value;
}

/* Takes one character of `allowed` and returns it, or 0 (and failed). */
static char take_one_of(struct text_cursor *t, const char *allowed) {
    if (t->at == t->end || *t->at == '\0' || !strchr(allowed, *t->at)) {
        t->failed = true;
        return 0;
    }
    return *t->at++;
}

static bool next_is(const struct text_cursor *t, char c) {
    return t->at < t->end && *t->at == c;
}

static int64_t take_fraction_ms(struct text_cursor *t) {
    if (!next_is(t, '.'))
        return 0;
    t->at++;
    int64_t ms = take_digits(t, 1) * 100; /* at least one digit (RFC 3339 5.6) */
    for (int64_t weight = 10; t->at < t->end && *t->at >= '0' && *t->at <= '9'; weight /= 10)
        ms += (*t->at++ - '0') * weight;
    return ms;
}

static int64_t take_offset_ms(struct text_cursor *t) {
    char sign = take_one_of(t, "Zz+-");
    if (sign != '+' && sign != '-')
        return 0;
    unsigned hours = take_digits(t, 2);
    take_one_of(t, ":");
    unsigned minutes = take_digits(t, 2);
    if (hours > 23 || minutes > 59)
        t->failed = true;
    int64_t ms = (int64_t)(hours * 60 + minutes) * 60000;
    return sign == '-' ? -ms : ms;
}

static unsigned days_of_month(unsigned year, unsigned month) {
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    return days[month - 1] + (month == 2 && leap);
}

static struct civil_date take_date(struct text_cursor *t) {
    struct civil_date date = {.year = take_digits(t, 4)};
    take_one_of(t, "-");
    date.month = take_digits(t, 2);
    take_one_of(t, "-");
    date.day = take_digits(t, 2);
    if (date.month < 1 || date.month > 12 || date.day < 1 ||
        date.day > days_of_month(date.year, date.month))
        t->failed = true;
    return date;
}

/* A leap second (60) is the first of the next minute, as in POSIX time. */
static int64_t take_time_ms(struct text_cursor *t) {
    unsigned hour = take_digits(t, 2);
    take_one_of(t, ":");
    unsigned minute = take_digits(t, 2);
    take_one_of(t, ":");
    unsigned second = take_digits(t, 2);
    if (hour > 23 || minute > 59 || second > 60)
        t->failed = true;
    return (int64_t)((hour * 60 + minute) * 60 + second) * 1000;
}

int clock_parse_rfc3339(const char *text, size_t size, int64_t *ret_wall_ms) {
    struct text_cursor t = {.at = text, .end = text + size};
    struct civil_date date = take_date(&t);
    take_one_of(&t, "Tt ");
    int64_t ms = take_time_ms(&t);
    ms += take_fraction_ms(&t);
    ms -= take_offset_ms(&t);
    if (t.failed || t.at != t.end)
        return DG_ERR_MALFORMED;
    *ret_wall_ms = days_from_civil(date) * DAY_MS + ms;
    return 0;
}
