#include <criterion/criterion.h>
#include <time.h>

#include "common/clock.h"
#include "common/err.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

Test(clock, runs) {
    uint64_t before = clock_monotonic_ns();
    cr_expect(clock_monotonic_ns() >= before);
    cr_expect(clock_wall_ms() / 1000 - time(NULL) <= 1);
}

Test(clock, formats_as_the_c_library_does) {
    for (int64_t second = 0; second < 253402300800; second += 86400 * 13 + 4567) {
        char expected[32], text[CLOCK_RFC3339_SIZE + 1] = "";
        struct tm parts;
        time_t at = second;
        gmtime_r(&at, &parts);
        strftime(expected, sizeof(expected), "%Y-%m-%dT%H:%M:%S.789Z", &parts);
        clock_format_rfc3339(second * 1000 + 789, text);
        cr_assert_str_eq(text, expected);
        int64_t back;
        cr_assert_eq(clock_parse_rfc3339(text, strlen(text), &back), 0);
        cr_assert_eq(back, second * 1000 + 789);
    }
}

Test(clock, clamps) {
    static const struct {
        int64_t ms;
        const char *text;
    } cases[] = {
        {0, "1970-01-01T00:00:00.000Z"},
        {-5, "1970-01-01T00:00:00.000Z"},
        {INT64_MIN, "1970-01-01T00:00:00.000Z"},
        {253402300799999, "9999-12-31T23:59:59.999Z"},
        {253402300800000, "9999-12-31T23:59:59.999Z"},
        {INT64_MAX, "9999-12-31T23:59:59.999Z"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char text[CLOCK_RFC3339_SIZE + 1] = "";
        clock_format_rfc3339(cases[i].ms, text);
        cr_expect_str_eq(text, cases[i].text);
    }
}

Test(clock, parses) {
    static const struct {
        const char *text;
        int64_t ms;
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01t00:00:00z", 0},
        {"1970-01-01 00:00:00Z", 0},
        {"1969-12-31T23:59:59Z", -1000},
        {"2026-11-24T13:02:03.456Z", 1795525323456},
        {"2026-11-24T13:02:03.4Z", 1795525323400},
        {"2026-11-24T13:02:03.456999999999999999999Z", 1795525323456},
        {"2026-11-24T15:02:03+02:00", 1795525323000},
        {"2026-11-24T07:32:03-05:30", 1795525323000},
        {"2024-02-29T00:00:00Z", 1709164800000},
        {"2000-02-29T00:00:00Z", 951782400000},
        {"2016-12-31T23:59:60Z", 1483228800000},
        {"0000-01-01T00:00:00Z", -62167219200000},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int64_t ms = 1;
        int err = clock_parse_rfc3339(cases[i].text, strlen(cases[i].text), &ms);
        cr_expect_eq(err, 0, "%s", cases[i].text);
        cr_expect_eq(ms, cases[i].ms, "%s: %lld", cases[i].text, (long long)ms);
    }
}

Test(clock, refuses) {
    static const char *const cases[] = {
        "",
        "2026",
        "2026-11-24",
        "2026-11-24T13:02:03",
        "2026-11-24T13:02:03.Z",
        "2026-11-24T13:02Z",
        "2026-13-24T13:02:03Z",
        "2026-00-24T13:02:03Z",
        "2026-11-31T13:02:03Z",
        "2026-11-00T13:02:03Z",
        "2025-02-29T00:00:00Z",
        "1900-02-29T00:00:00Z",
        "2026-11-24T24:02:03Z",
        "2026-11-24T13:60:03Z",
        "2026-11-24T13:02:61Z",
        "2026-11-24T13:02:03+24:00",
        "2026-11-24T13:02:03+02:60",
        "2026-11-24T13:02:03+0200",
        "2026-11-24T13:02:03Zx",
        " 2026-11-24T13:02:03Z",
        "2026-11-24X13:02:03Z",
        "+026-11-24T13:02:03Z",
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int64_t ms = 77;
        int err = clock_parse_rfc3339(cases[i], strlen(cases[i]), &ms);
        cr_expect_eq(err, DG_ERR_MALFORMED, "%s", cases[i]);
        cr_expect_eq(ms, 77, "untouched on failure");
    }
    int64_t ms;
    cr_expect_eq(clock_parse_rfc3339("2026-11-24T13:02:03\0", 20, &ms), DG_ERR_MALFORMED);
}
