/* The query language of IoT Hub: which SQL/JSON path becomes of a query. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "provisioning/iothub_query.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static const char ALL[] = "SELECT * FROM devices";

Test(iothub_query, conditions) {
    static const struct {
        const char *where, *path;
    } cases[] = {
        {"deviceId = 'a'", "(($.\"deviceId\" == \"a\"))"},
        {"status!=\"enabled\"", "(($.\"status\" != \"enabled\"))"},
        {"tags.a.b <> 5", "(($.\"tags\".\"a\".\"b\" != 5))"},
        {"tags['a b'].c >= -1.50e+3", "(($.\"tags\".\"a b\".\"c\" >= -1.50e+3))"},
        {"007 < properties.reported.$version",
         "((7 < $.\"properties\".\"reported\".\"$version\"))"},
        {"tags.x = null", "(($.\"tags\".\"x\" == null))"},
        {"tags.x = true OR tags.y = FALSE",
         "(($.\"tags\".\"x\" == true)) || (($.\"tags\".\"y\" == false))"},
        {"not (tags.x = 1 and NOT NOT tags.y = 2)",
         "!(((($.\"tags\".\"x\" == 1)) && (($.\"tags\".\"y\" == 2))))"},
        {"tags.x IN ['a', 2]", "(exists($.\"tags\".\"x\" ? (@ == \"a\" || @ == 2)))"},
        {"tags.x nin ['a']", "(!exists($.\"tags\".\"x\" ? (@ == \"a\")))"},
        {"IS_DEFINED(tags.x)", "(!((exists($.\"tags\".\"x\")) is unknown))"},
        {"is_number(tags.x)", "(($.\"tags\".\"x\".type() == \"number\"))"},
        {"STARTSWITH(deviceId, 'de')", "(($.\"deviceId\" starts with \"de\"))"},
        {"CONTAINS(deviceId, 'e.')", "(($.\"deviceId\" like_regex \"e.\" flag \"q\"))"},
        /* What would end a string or a name does not. */
        {"tags['\"] || (1 == 1'] = '\\'\"\\\\\\n'",
         "(($.\"tags\".\"\\u0022] || (1 == 1\" == \"'\\u0022\\u005c\\u000a\"))"},
        {"tags.\xc3\xa4 = '\xe2\x82\xac'", "(($.\"tags\".\"\xc3\xa4\" == \"\xe2\x82\xac\"))"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char text[512], wanted[512], detail[IOTHUB_QUERY_DETAIL_SIZE] = "";
        struct iothub_query query;
        snprintf(text, sizeof(text), "%s WHERE %s", ALL, cases[i].where);
        snprintf(wanted, sizeof(wanted), "strict %s", cases[i].path);
        cr_expect_eq(iothub_query_parse(slice_from_string(text), &query, detail, sizeof(detail)), 0,
                     "%s: %s", text, detail);
        cr_expect_str_eq(query.condition, wanted, "%s", text);
        cr_expect_eq(query.top, 0u);
    }
}

Test(iothub_query, heads) {
    struct iothub_query query;
    char detail[IOTHUB_QUERY_DETAIL_SIZE];
    cr_expect_eq(iothub_query_parse(slice_from_string("select  top 10\n* from Devices"), &query,
                                    detail, sizeof(detail)),
                 0);
    cr_expect_eq(query.top, 10u);
    cr_expect_str_empty(query.condition);
}

Test(iothub_query, refusals) {
    static const struct {
        const char *text;
        int err;
        const char *detail;
    } cases[] = {
        {"", DG_ERR_MALFORMED, "SELECT is expected"},
        {"SELECT deviceId FROM devices", DG_ERR_NOT_SUPPORTED, "only SELECT *"},
        {"SELECT COUNT() AS n FROM devices", DG_ERR_NOT_SUPPORTED, "only SELECT *"},
        {"SELECT * FROM devices.jobs", DG_ERR_NOT_SUPPORTED, "only FROM devices"},
        {"SELECT * FROM device", DG_ERR_MALFORMED, "devices is expected"},
        {"SELECT TOP 0 * FROM devices", DG_ERR_MALFORMED, "TOP takes"},
        {"SELECT TOP 1000001 * FROM devices", DG_ERR_MALFORMED, "TOP takes"},
        {"SELECT TOP -1 * FROM devices", DG_ERR_MALFORMED, "TOP takes"},
        {"SELECT * FROM devices GROUP BY status", DG_ERR_NOT_SUPPORTED, "GROUP BY"},
        {"SELECT * FROM devices; drop table device", DG_ERR_MALFORMED,
         "cannot be read, at '  drop"},
        {"SELECT * FROM devices WHERE", DG_ERR_MALFORMED, "a property is expected"},
        {"SELECT * FROM devices WHERE tags.a", DG_ERR_MALFORMED, "a comparison is expected"},
        {"SELECT * FROM devices WHERE tags.a = ", DG_ERR_MALFORMED, "a property is expected"},
        {"SELECT * FROM devices WHERE tags.a = 'x", DG_ERR_MALFORMED, "cannot be read"},
        {"SELECT * FROM devices WHERE tags.a = '\\u0041'", DG_ERR_MALFORMED, "backslash"},
        {"SELECT * FROM devices WHERE (tags.a = 1", DG_ERR_MALFORMED, ") is expected"},
        {"SELECT * FROM devices WHERE tags.a = 1)", DG_ERR_MALFORMED, "the end"},
        {"SELECT * FROM devices WHERE tags[1] = 1", DG_ERR_MALFORMED, "in quotes"},
        {"SELECT * FROM devices WHERE 'a' IN ['a']", DG_ERR_MALFORMED, "before IN"},
        {"SELECT * FROM devices WHERE tags.a IN []", DG_ERR_MALFORMED, "a string, a number"},
        {"SELECT * FROM devices WHERE lastActivityTime > '2'", DG_ERR_NOT_SUPPORTED, "about"},
        {"SELECT * FROM devices WHERE ENDSWITH(tags.a, 'x')", DG_ERR_NOT_SUPPORTED, "about"},
        {"SELECT * FROM devices WHERE \xff = 1", DG_ERR_MALFORMED, "UTF-8"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct iothub_query query;
        char detail[IOTHUB_QUERY_DETAIL_SIZE] = "";
        int err =
            iothub_query_parse(slice_from_string(cases[i].text), &query, detail, sizeof(detail));
        cr_expect_eq(err, cases[i].err, "%s: %d", cases[i].text, err);
        cr_expect(strstr(detail, cases[i].detail), "%s: %s", cases[i].text, detail);
        cr_expect(!strpbrk(detail, ";:"), "%s", detail);
    }
}

/* However deep, however long: an error and not the end of the stack. */
Test(iothub_query, bounds) {
    static char text[LIMIT_IOTHUB_QUERY_BYTES + 2];
    static struct iothub_query query;
    char detail[IOTHUB_QUERY_DETAIL_SIZE];
    size_t head = (size_t)snprintf(text, sizeof(text), "%s WHERE ", ALL);
    memset(text + head, '(', sizeof(text) - head);
    cr_expect_eq(iothub_query_parse(slice_make(text, sizeof(text)), &query, detail, sizeof(detail)),
                 DG_ERR_MALFORMED);
    cr_expect(strstr(detail, "at most"));
    cr_expect_eq(
        iothub_query_parse(slice_make(text, sizeof(text) - 2), &query, detail, sizeof(detail)),
        DG_ERR_MALFORMED);
    cr_expect(strstr(detail, "too deeply"), "%s", detail);
    memset(text + head, '.', sizeof(text) - head);
    memcpy(text + head, "tags.a=1", 8);
    for (size_t at = head + 8; at + 12 < sizeof(text); at += 12)
        memcpy(text + at, " OR tags.a=1", 12);
    size_t size = head + 8 + (sizeof(text) - head - 8 - 12) / 12 * 12;
    cr_expect_eq(iothub_query_parse(slice_make(text, size), &query, detail, sizeof(detail)), 0,
                 "%s", detail);
}
