/* What is JSON and what is not, and where it goes wrong. */
#include <criterion/criterion.h>
#include <string.h>

#include "common/json_text.h"

Test(json_text, valid) {
    static const char *const texts[] = {
        "{}",
        "[]",
        " [ ] ",
        "\t\r\n{ }",
        "0",
        "-0",
        "-1.5e+3",
        "1E9",
        "10",
        "\"\"",
        "true",
        "false",
        "null",
        "[1,2]",
        "[[],{}]",
        "{\"a\":1,\"b\":[true,null]}",
        "{\"a\":{\"b\":{\"c\":[{}]}}}",
        "\"\\u00e9\\n\\\"\\\\\\/\"",
        "\"\xC3\xA9\xF0\x9F\x98\x80\"",
        "{\"\":0}",
        "{\"a\":1,\"a\":2}",
        "\"\x7F\"",
        "\"\\ud800\"",
        "[1e1,0.0]",
        "{ \"a\" : [ ] , \"b\" : \"c\" }",
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        size_t at;
        cr_expect(json_text_is_valid(slice_from_string(texts[i]), &at), "%s", texts[i]);
    }
}

Test(json_text, invalid) {
    static const struct {
        const char *text;
        size_t at;
    } cases[] = {
        {"", 0},
        {" ", 1},
        {"{", 1},
        {"[", 1},
        {"}", 0},
        {"[1,]", 3},
        {"[,1]", 1},
        {"{\"a\"}", 4},
        {"{\"a\":}", 5},
        {"{a:1}", 1},
        {"{\"a\":1,}", 7},
        {"[1}", 2},
        {"{\"a\":1]", 6},
        {"01", 1},
        {"-", 1},
        {"+1", 0},
        {"1.", 2},
        {".5", 0},
        {"1e", 2},
        {"1e+", 3},
        {"tru", 3},
        {"True", 0},
        {"nul", 3},
        {"\"", 1},
        {"\"\n\"", 1},
        {"\"\\x\"", 2},
        {"\"\\u12g4\"", 5},
        {"\"\\", 2},
        {"[1] 2", 4},
        {"'a'", 0},
        {"NaN", 0},
        {"\"\xFF\"", 1},
        {"\"\xC3\"", 1},
        {"\xEF\xBB\xBF{}", 0},
        {"\"\xED\xA0\x80\"", 1},
        {"[1 2]", 3},
        {"1\v", 1},
        {"[\"a\" \"b\"]", 5},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t at = 999;
        cr_expect_not(json_text_is_valid(slice_from_string(cases[i].text), &at), "%s",
                      cases[i].text);
        cr_expect_eq(at, cases[i].at, "%s: %zu", cases[i].text, at);
    }
    size_t at;
    cr_expect_not(json_text_is_valid(slice_make("\"a\0b\"", 5), &at));
    cr_expect_eq(at, 2);
}

Test(json_text, depth) {
    char text[2 * JSON_TEXT_DEPTH_MAX + 3];
    size_t at;
    for (unsigned depth = JSON_TEXT_DEPTH_MAX; depth <= JSON_TEXT_DEPTH_MAX + 1; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        cr_expect_eq(json_text_is_valid(slice_make(text, 2 * depth), &at),
                     depth == JSON_TEXT_DEPTH_MAX);
    }
    cr_expect_eq(at, JSON_TEXT_DEPTH_MAX);
}
