/* Documents of device twins. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/limits.h"
#include "registry/twin.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static int parse(const char *text, size_t size, char detail[256]) {
    json_t *patch = NULL;
    detail[0] = '\0';
    int err = twin_parse(slice_make(text, size), &patch, detail, 256);
    cr_expect((err == 0) == (patch != NULL));
    json_decref(patch);
    return err;
}

Test(twin, what_may_be_in_a_patch) {
    static const char *const good[] = {
        "{}",
        "{\"a\":null,\"b\":{\"c\":[1,2.5,\"x\",true,null,{}]}}",
        "{\"caf\xc3\xa9/~-_\":1}",
        "{\"a\":4503599627370496,\"b\":-4503599627370496,\"c\":0,\"d\":1e-30,\"e\":4.5e15}",
        "{\"1\":{\"2\":{\"3\":{\"4\":{\"5\":{\"6\":{\"7\":{\"8\":{\"9\":{\"10\":{\"x\":1}}}}}}}}}}"
        "}",
    };
    char detail[256];
    for (size_t i = 0; i < COUNT_OF(good); i++)
        cr_expect_eq(parse(good[i], strlen(good[i]), detail), 0, "%s: %s", good[i], detail);
}

Test(twin, what_may_not) {
    static const struct {
        const char *text, *detail;
    } cases[] = {
        {"", "the document: must be a JSON object"},
        {"[1]", "the document: must be a JSON object"},
        {"nonsense", "not JSON: line 1, column 8: '[' or '{' expected near 'nonsense'"},
        {"{\"a\":1,\"a\":2}", "not JSON: line 1, column 10: duplicate object key near '\"a\"'"},
        {"{\"a\":\"\\u0000\"}", "not JSON: line 1, column 13: \\u0000 is not allowed without "
                                "JSON_ALLOW_NUL near '\"\\u0000\"'"},
        {"{\"a\":{\"b.c\":1}}", "/a: a name has no control characters, '.', '$' or space"},
        {"{\"$version\":1}", "the document: a name has no control characters, '.', '$' or space"},
        {"{\"a b\":1}", "the document: a name has no control characters, '.', '$' or space"},
        {"{\"a\\u0085b\":1}", "the document: a name has no control characters, '.', '$' or space"},
        {"{\"a\\u007f\":1}", "the document: a name has no control characters, '.', '$' or space"},
        {"{\"a\":[1,{\"b\":4503599627370497}]}", "/a/1/b: a number is from -2^52 to 2^52"},
        {"{\"a\":1e16}", "/a: a number is from -2^52 to 2^52"},
        {"{\"a\":-1e-31}", "/a: a number is 0, or at least 1e-30 either way"},
        {"{\"1\":{\"2\":{\"3\":{\"4\":{\"5\":{\"6\":{\"7\":{\"8\":{\"9\":{\"10\":{\"x\":[]}}}}}}}}}"
         "}}",
         "/1/2/3/4/5/6/7/8/9/10/x: nested deeper than 10 levels"},
    };
    char detail[256];
    cr_expect_eq(parse("{}\0", 3, detail), DG_ERR_STATE_DOCUMENT);
    cr_expect_str_eq(detail, "not JSON: has a byte of 0");
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        cr_expect_eq(parse(cases[i].text, strlen(cases[i].text), detail), DG_ERR_STATE_DOCUMENT,
                     "%s", cases[i].text);
        cr_expect_str_eq(detail, cases[i].detail);
    }
}

/* {"k...k":"s...s"} */
static int parse_sized(size_t name_size, size_t string_size, char detail[256]) {
    static char text[2 * LIMIT_TWIN_BYTES];
    int at = sprintf(text, "{\"");
    memset(text + at, 'k', name_size);
    at += (int)name_size + sprintf(text + at + name_size, "\":\"");
    memset(text + at, 's', string_size);
    at += (int)string_size + sprintf(text + at + string_size, "\"}");
    return parse(text, (size_t)at, detail);
}

Test(twin, sizes) {
    char detail[256];
    cr_expect_eq(parse_sized(LIMIT_TWIN_KEY_BYTES, LIMIT_TWIN_STRING_BYTES, detail), 0);
    cr_expect_eq(parse_sized(LIMIT_TWIN_KEY_BYTES + 1, 1, detail), DG_ERR_STATE_DOCUMENT);
    cr_expect_str_eq(detail, "the document: a name has at most 1024 bytes");
    cr_expect_eq(parse_sized(1, LIMIT_TWIN_STRING_BYTES + 1, detail), DG_ERR_STATE_DOCUMENT);
    cr_expect_str_eq(detail, "/k: a string has at most 4096 bytes");
    cr_expect_eq(parse_sized(1, LIMIT_TWIN_BYTES, detail), DG_ERR_STATE_SIZE);
    cr_expect_str_eq(detail, "a patch has at most 32768 bytes");
}

Test(twin, root_of_the_pointer) {
    json_t *document = json_pack("{s:{s:i}}", "a", "b.", 1);
    char detail[256];
    cr_expect_eq(twin_check(document, "/desired", detail, sizeof(detail)), DG_ERR_STATE_DOCUMENT);
    cr_expect_str_eq(detail, "/desired/a: a name has no control characters, '.', '$' or space");
    json_decref(document);
}

static int merge(const char *document, const char *patch, char **ret_document, char detail[256]) {
    return twin_merge(slice_make(document, strlen(document)), slice_make(patch, strlen(patch)),
                      ret_document, detail, 256);
}

Test(twin, merging) {
    char *document = NULL, detail[256];
    cr_expect_eq(merge("{\"a\": {\"b\": 1}, \"c\": 0.1}", "{\"a\":{\"b\":null,\"d\":2},\"e\":[]}",
                       &document, detail),
                 0);
    cr_expect_str_eq(document, "{\"a\":{\"d\":2},\"c\":0.1,\"e\":[]}");
    free(document);
    cr_expect_eq(merge("nonsense", "{}", &document, detail), DG_ERR_MALFORMED);
}

Test(twin, a_patch_as_it_is_passed_on) {
    char *text = NULL, detail[256], long_number[1000] = "{\"a\":null,\"b\":[0.";
    memset(long_number + strlen(long_number), '1', 900);
    strcat(long_number, "]}");
    cr_expect_eq(twin_print(slice_from_string(long_number), &text, detail, sizeof(detail)), 0);
    cr_expect_str_eq(text, "{\"a\":null,\"b\":[0.1111111111111111]}");
    free(text);
    char *wide = malloc(LIMIT_TWIN_BYTES + 1), *at = wide + sprintf(wide, "{\"a\":[1e5");
    while (at - wide < LIMIT_TWIN_BYTES - 10)
        at += sprintf(at, ",1e5");
    strcpy(at, "]}");
    cr_expect_eq(twin_print(slice_from_string(wide), &text, detail, sizeof(detail)),
                 DG_ERR_STATE_SIZE);
    cr_expect_str_eq(detail, "a patch has at most 32768 bytes as compact JSON");
    free(wide);
}

/* {"a":"x...","b":"x..."...}: of exactly this many bytes. */
static char *document_of(size_t size) {
    static char text[LIMIT_TWIN_BYTES + 1];
    size_t at = 0;
    for (char name = 'a'; at + 1 < size; name++) {
        size_t left = size - at - 1, head = 6, take = left < 2000 ? left : 1900;
        at += (size_t)sprintf(text + at, "%c\"%c\":\"", at == 0 ? '{' : ',', name);
        memset(text + at, 'x', take - head - 1);
        at += take - head - 1;
        text[at++] = '"';
    }
    text[at++] = '}';
    text[at] = '\0';
    cr_assert_eq(at, size);
    return text;
}

Test(twin, the_document_keeps_its_size) {
    char *document = NULL, detail[256];
    cr_expect_eq(merge(document_of(LIMIT_TWIN_BYTES), "{\"a\":null}", &document, detail), 0);
    free(document);
    cr_expect_eq(merge(document_of(LIMIT_TWIN_BYTES), "{}", &document, detail), 0);
    free(document);
    cr_expect_eq(merge(document_of(LIMIT_TWIN_BYTES), "{\"z\":1}", &document, detail),
                 DG_ERR_STATE_SIZE);
    cr_expect_str_eq(detail, "the document would have 32774 bytes as compact JSON; at most 32768 "
                             "are allowed");
}
