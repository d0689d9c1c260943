/* JSON values: merge patches, numbers, pointers. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "registry/json.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static json_t *load(const char *text) {
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    cr_assert_not_null(value, "%s", text);
    return value;
}

/* RFC 7396, appendix A, and a few of our own. */
Test(json, merge_patch) {
    static const struct {
        const char *target, *patch, *result;
    } cases[] = {
        {"{\"a\":\"b\"}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
        {"{\"a\":\"b\"}", "{\"b\":\"c\"}", "{\"a\":\"b\",\"b\":\"c\"}"},
        {"{\"a\":\"b\"}", "{\"a\":null}", "{}"},
        {"{\"a\":\"b\",\"b\":\"c\"}", "{\"a\":null}", "{\"b\":\"c\"}"},
        {"{\"a\":[\"b\"]}", "{\"a\":\"c\"}", "{\"a\":\"c\"}"},
        {"{\"a\":\"c\"}", "{\"a\":[\"b\"]}", "{\"a\":[\"b\"]}"},
        {"{\"a\":{\"b\":\"c\"}}", "{\"a\":{\"b\":\"d\",\"c\":null}}", "{\"a\":{\"b\":\"d\"}}"},
        {"{\"a\":[{\"b\":\"c\"}]}", "{\"a\":[1]}", "{\"a\":[1]}"},
        {"[\"a\",\"b\"]", "[\"c\",\"d\"]", "[\"c\",\"d\"]"},
        {"{\"a\":\"b\"}", "[\"c\"]", "[\"c\"]"},
        {"{\"a\":\"foo\"}", "null", "null"},
        {"{\"a\":\"foo\"}", "\"bar\"", "\"bar\""},
        {"{\"e\":null}", "{\"a\":1}", "{\"e\":null,\"a\":1}"},
        {"[1,2]", "{\"a\":\"b\",\"c\":null}", "{\"a\":\"b\"}"},
        {"{}", "{\"a\":{\"bb\":{\"ccc\":null}}}", "{\"a\":{\"bb\":{}}}"},
        {"{\"a\":1}", "{}", "{\"a\":1}"},
        {"{\"a\":{\"b\":1,\"c\":2}}", "{\"a\":{\"b\":null}}", "{\"a\":{\"c\":2}}"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *target = load(cases[i].target), *patch = load(cases[i].patch);
        json_t *kept = json_deep_copy(target), *wanted = load(cases[i].result);
        json_t *merged = json_merge_patch(target, patch);
        cr_expect(json_equal(merged, wanted), "case %zu", i);
        cr_expect(json_equal(target, kept), "the target of case %zu was changed", i);
        json_decref(target), json_decref(patch), json_decref(kept), json_decref(wanted);
        json_decref(merged);
    }
}

Test(json, numbers_keep_their_shortest_form) {
    static const char *const same[] = {
        "{\"a\":0.1}",           "[21.5,1e-7,-273.15]", "9007199254740993",
        "[0.30000000000000004]", "\"caf\xc3\xa9\"",     "{\"lat\":47.376887,\"lon\":8.541694}",
    };
    for (size_t i = 0; i < COUNT_OF(same); i++) {
        json_t *value = load(same[i]);
        char *text = json_print_exact(value);
        json_t *again = load(text);
        cr_expect(json_equal(value, again), "%s", text);
        cr_expect(strlen(text) <= strlen(same[i]) + 2, "%s -> %s", same[i], text);
        free(text);
        json_decref(value), json_decref(again);
    }
}

Test(json, pointer) {
    static const struct {
        const char *name, *pointer;
    } cases[] = {
        {"a", "/tags/a"},
        {"a/b~c", "/tags/a~1b~0c"},
        {"caf\xc3\xa9", "/tags/caf\xc3\xa9"},
        {"0123456789012345678901234567890123456789012345678901234567890123456789",
         "/tags/0123456789012345678901234567890123456789012345678901234567890123..."},
        {"012345678901234567890123456789012345678901234567890123456789012\xc3\xa9",
         "/tags/012345678901234567890123456789012345678901234567890123456789012..."},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char pointer[256] = "/tags";
        json_pointer_append(pointer, sizeof(pointer), cases[i].name);
        cr_expect_str_eq(pointer, cases[i].pointer);
    }
    char small[8] = "/tags";
    json_pointer_append(small, sizeof(small), "long");
    cr_expect_str_eq(small, "/tags");
}
