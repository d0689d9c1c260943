/* Commands: bodies that are asked for, and how they are shown. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "common/limits.h"
#include "provisioning/call.h"
#include "provisioning/command_view.h"
#include "provisioning/json.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static json_t *load(const char *text) {
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    cr_assert_not_null(value, "%s", text);
    return value;
}

/* The body that the draft's slices point into is the caller's. */
static int read_draft(const json_t *body, struct command_draft *draft, char *detail) {
    detail[0] = '\0';
    return command_draft_read(body, draft, detail, CALL_DETAIL_SIZE);
}

Test(command_draft, good) {
    static const struct {
        const char *body, *payload, *content_type, *properties;
        int64_t ttl_ms;
        bool wants_reply;
    } cases[] = {
        {"{\"name\":\"x\"}", "", "", "{}", 3600000, true},
        {"{\"name\":\"x\",\"payload\":null}", "null", "application/json", "{}", 3600000, true},
        {"{\"name\":\"x\",\"payload\":{\"b\" : 0.1, \"a\":[true]},\"ttl_s\":1}",
         "{\"b\":0.1,\"a\":[true]}", "application/json", "{}", 1000, true},
        {"{\"name\":\"x\",\"payload_base64\":\"AAE=\",\"wants_reply\":false}", "\0\1",
         "application/octet-stream", "{}", 3600000, false},
        {"{\"name\":\"x\",\"payload_base64\":\"\"}", "", "application/octet-stream", "{}", 3600000,
         true},
        {"{\"name\":\"x\",\"payload\":\"t\",\"content_type\":\"text/x\",\"ttl_s\":2592000,"
         "\"properties\":{\"a\":\"b\"}}",
         "\"t\"", "text/x", "{\"a\":\"b\"}", 2592000000, true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *body = load(cases[i].body);
        char detail[CALL_DETAIL_SIZE];
        struct command_draft draft;
        cr_assert_eq(read_draft(body, &draft, detail), 0, "%s: %s", cases[i].body, detail);
        size_t size = i == 3 ? 2 : strlen(cases[i].payload);
        cr_expect(slice_equals(slice_make(draft.payload, draft.payload_size),
                               slice_make(cases[i].payload, size)),
                  "%s", cases[i].body);
        cr_expect(slice_equals_string(draft.name, "x"));
        cr_expect(slice_equals_string(draft.content_type, cases[i].content_type));
        cr_expect_str_eq(draft.properties, cases[i].properties);
        cr_expect_eq(draft.ttl_ms, cases[i].ttl_ms);
        cr_expect_eq(draft.wants_reply, cases[i].wants_reply);
        command_draft_free(&draft);
        json_decref(body);
    }
}

Test(command_draft, refused) {
    static const struct {
        const char *body, *detail;
    } cases[] = {
        {"{}", "/name: is required"},
        {"{\"name\":\"a/b\"}", "/name: must be a string of 1 to 64"},
        {"{\"name\":\"x\",\"id\":\"c1\"}",
         "/id: no such member here; allowed: name, payload, payload_base64, content_type, ttl_s, "
         "wants_reply, properties"},
        {"{\"name\":\"x\",\"payload\":null,\"payload_base64\":\"\"}",
         "/payload_base64: there is /payload already"},
        {"{\"name\":\"x\",\"payload_base64\":\"A\"}", "/payload_base64: must be base64"},
        {"{\"name\":\"x\",\"ttl_s\":0}", "/ttl_s: must be an integer from 1 to 2592000"},
        {"{\"name\":\"x\",\"content_type\":\"\"}", "/content_type: must have 1 to 256"},
        {"{\"name\":\"x\",\"wants_reply\":null}", "/wants_reply: must be true or false"},
        {"{\"name\":\"x\",\"properties\":{\"a\":null}}", "/properties/a: must be a string"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *body = load(cases[i].body);
        char detail[CALL_DETAIL_SIZE];
        struct command_draft draft = {.ttl_ms = 7};
        cr_expect_eq(read_draft(body, &draft, detail), DG_ERR_INVALID, "%s", cases[i].body);
        cr_expect(strncmp(detail, cases[i].detail, strlen(cases[i].detail)) == 0, "%s: %s",
                  cases[i].body, detail);
        cr_expect_eq(draft.ttl_ms, 7, "outputs are untouched");
        json_decref(body);
    }
}

Test(command_draft, payload_size) {
    for (size_t over = 0; over <= 1; over++) {
        char *text = malloc(LIMIT_COMMAND_PAYLOAD_BYTES + over + 1);
        size_t size = LIMIT_COMMAND_PAYLOAD_BYTES + over - 2; /* the quotes */
        memset(text, 'x', size);
        json_t *body = json_pack("{s:s, s:s%}", "name", "x", "payload", text, size);
        char detail[CALL_DETAIL_SIZE];
        struct command_draft draft;
        int err = read_draft(body, &draft, detail);
        cr_expect_eq(err, over ? DG_ERR_TOO_LARGE : 0, "%s", detail);
        if (err == 0)
            command_draft_free(&draft);
        json_decref(body);
        free(text);
    }
}

Test(command_draft, idempotency_key) {
    char key[130];
    memset(key, '~', sizeof(key));
    cr_expect(command_idempotency_key_is_valid(slice_make(key, 128)));
    cr_expect(command_idempotency_key_is_valid(slice_from_string(" ")));
    cr_expect(!command_idempotency_key_is_valid(slice_make(key, 129)));
    cr_expect(!command_idempotency_key_is_valid(slice_make(key, 0)));
    cr_expect(!command_idempotency_key_is_valid(slice_make("a\0b", 3)));
    cr_expect(!command_idempotency_key_is_valid(slice_from_string("\x7f")));
    cr_expect(!command_idempotency_key_is_valid(slice_from_string("\xc3\xbc")));
}

Test(base64, strict) {
    static const struct {
        const char *text, *bytes; /* NULL: refused */
    } cases[] = {
        {"", ""},           {"MQ==", "1"},          {"MTI=", "12"},
        {"MTIz", "123"},    {"MTIzNA==", "1234"},   {"M", NULL},
        {"MQ", NULL},       {"MQ=", NULL},          {"MR==", NULL},
        {"MTJ=", NULL},     {"====", NULL},         {"M===", NULL},
        {"=MQ=", NULL},     {"MQ==MQ==", NULL},     {" MQ=", NULL},
        {"MQ==    ", NULL}, {"MTI-", NULL},         {"MTI_", NULL},
        {"MT\nz", NULL},    {"MTIz\n\n\n\n", NULL},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint8_t *bytes = NULL;
        size_t size = 99;
        int err = json_decode_base64(slice_from_string(cases[i].text), &bytes, &size);
        cr_expect_eq(err, cases[i].bytes ? 0 : DG_ERR_INVALID, "%s", cases[i].text);
        if (cases[i].bytes)
            cr_expect(slice_equals_string(slice_make(bytes, size), cases[i].bytes), "%s",
                      cases[i].text);
        else
            cr_expect(bytes == NULL && size == 99, "%s", cases[i].text);
        free(bytes);
    }
}

Test(payload, shown) {
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"", "\"payload\":null"},
        {"1.50", "\"payload\":1.50"},
        {" {\"a\":[]}\n", "\"payload\": {\"a\":[]}\n"},
        {"{\"a\":1,\"a\":2}", "\"payload_base64\":\"eyJhIjoxLCJhIjoyfQ==\""},
        {"off", "\"payload_base64\":\"b2Zm\""},
        {"\"\xff\"", "\"payload_base64\":\"Iv8i\""},
        {"[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]",
         "\"payload_base64\":\"W1tbW1tbW1tbW1tbW1tbW1tdXV1dXV1dXV1dXV1dXV1dXQ==\""},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct buffer out = {0};
        cr_assert_eq(json_append_payload(&out, slice_from_string(cases[i].bytes)), 0);
        cr_expect(slice_equals_string(buffer_slice(&out), cases[i].text), "%s", cases[i].bytes);
        buffer_free(&out);
    }
}

/* What a POST is answered, against the draft itself. */
Test(command_view, queued) {
    json_t *body = load("{\"name\":\"x\",\"payload\":[1.5],\"properties\":{\"a\":\"b\"}}");
    struct command_created created = {.key = 12, .created_ms = 1, .expires_ms = 3600001};
    struct command_draft draft;
    struct buffer out = {0};
    char detail[CALL_DETAIL_SIZE];
    cr_assert_eq(read_draft(body, &draft, detail), 0);
    cr_assert_eq(command_view_queued(&draft, &created, slice_from_string("k\"y"), &out), 0);
    struct slice text = buffer_slice(&out);
    json_t *shown = json_loadb((const char *)text.data, text.size, 0, NULL);
    json_t *wanted =
        load("{\"command_id\":\"c12\",\"name\":\"x\",\"state\":\"queued\",\"delivery_count\":0,"
             "\"wants_reply\":true,\"content_type\":\"application/json\","
             "\"created_at\":\"1970-01-01T00:00:00.001Z\","
             "\"expires_at\":\"1970-01-01T01:00:00.001Z\",\"sent_at\":null,\"delivered_at\":null,"
             "\"finished_at\":null,\"reason\":null,\"idempotency_key\":\"k\\\"y\","
             "\"properties\":{\"a\":\"b\"},\"payload\":[1.5],\"reply\":null}");
    cr_expect(json_equal(shown, wanted), "%.*s", (int)text.size, (const char *)text.data);
    cr_expect(command_draft_is(&draft, shown, slice_from_string("[1.5]")));
    cr_expect(!command_draft_is(&draft, shown, slice_from_string("[1.6]")));
    static const char *const others[] = {"{\"name\":\"y\"}", "{\"wants_reply\":false}",
                                         "{\"content_type\":null}", "{\"properties\":{}}"};
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        json_t *change = load(others[i]), *other = json_deep_copy(shown);
        json_object_update(other, change);
        cr_expect(!command_draft_is(&draft, other, slice_from_string("[1.5]")), "%s", others[i]);
        json_decref(change);
        json_decref(other);
    }
    json_decref(wanted);
    json_decref(shown);
    json_decref(body);
    buffer_free(&out);
    command_draft_free(&draft);
}
