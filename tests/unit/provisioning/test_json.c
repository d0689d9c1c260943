/* JSON, cursors, entity tags, queries, members: pure functions against case tables. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "provisioning/call.h"
#include "provisioning/cursor.h"
#include "provisioning/etag.h"
#include "provisioning/json.h"
#include "provisioning/members.h"
#include "provisioning/query.h"
#include "provisioning/resource.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static json_t *load(const char *text) {
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    cr_assert_not_null(value, "%s", text);
    return value;
}

Test(json, parse_object) {
    static const struct {
        const char *text;
        const char *detail; /* NULL: accepted; else part of the message */
    } cases[] = {
        {"{}", NULL},
        {" {\"a\": [1, {\"b\": null}]} \n", NULL},
        {"", "empty"},
        {"[]", "object"},
        {"\"x\"", "'[' or '{'"},
        {"{\"a\":1,\"a\":2}", "duplicate"},
        {"{\"a\":1} x", "end of file"},
        {"{\"a\":NaN}", "invalid token"},
        {"{\"a\":\"\\u0000\"}", "\\u0000"},
        {"{\"a\":\"\xff\"}", "byte 0xff"},
        {"{\"a\":\"\\ud800\"}", "Unicode"},
        {"{\"a\":1e400}", "overflow"},
        {"{'a':1}", "line 1, column"},
        {"{\"a\":[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]}", NULL},
        {"{\"a\":[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}", "deeper than 16"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *object = NULL;
        char detail[CALL_DETAIL_SIZE] = "";
        int err =
            json_parse_object(slice_from_string(cases[i].text), &object, detail, sizeof(detail));
        cr_expect_eq(err, cases[i].detail ? DG_ERR_MALFORMED : 0, "%s", cases[i].text);
        cr_expect_eq(object != NULL, err == 0, "%s", cases[i].text);
        if (cases[i].detail)
            cr_expect(strstr(detail, cases[i].detail), "%s: %s", cases[i].text, detail);
        json_decref(object);
    }
}

Test(json, text_from_outside) {
    static const struct {
        const char *bytes;
        size_t size, limit;
        const char *text;
    } cases[] = {
        {"plain", 5, 16, "plain"},
        {"", 0, 16, ""},
        {"gr\xc3\xbcn", 5, 16, "gr\xc3\xbcn"},
        {"a\xff\0b", 4, 16,
         "a\xef\xbf\xbd\xef\xbf\xbd"
         "b"},
        {"0123456789", 10, 10, "0123456789"},
        {"0123456789", 10, 9, "012345678..."},
        {"012345678\xc3\xbc", 11, 10, "012345678..."},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *value = json_from_text(slice_make(cases[i].bytes, cases[i].size), cases[i].limit);
        cr_assert(json_is_string(value), "case %zu", i);
        cr_expect_str_eq(json_string_value(value), cases[i].text, "case %zu", i);
        json_decref(value);
    }
    cr_expect(json_is_null(json_from_text((struct slice){0}, 16)));
}

Test(json, arrays_and_offsets) {
    json_t *array = json_append(json_array(), json_from_offset(INT64_MAX));
    array = json_append(array, json_from_offset(-1));
    cr_assert_eq(json_array_size(array), 2);
    cr_expect_str_eq(json_string_value(json_array_get(array, 0)), "9223372036854775807");
    cr_expect_null(json_append(array, NULL));
    cr_expect_null(json_append(NULL, json_true()));
}

Test(json, nul_bytes_and_deep_nesting_are_refused) {
    json_t *object = NULL;
    char detail[CALL_DETAIL_SIZE] = "", deep[8000];
    cr_expect_eq(
        json_parse_object(slice_make("{\"a\":\"b\0c\"}", 11), &object, detail, sizeof(detail)),
        DG_ERR_MALFORMED);
    memset(deep, '[', sizeof(deep));
    memcpy(deep, "{\"a\":", 5);
    cr_expect_eq(json_parse_object(slice_make(deep, sizeof(deep)), &object, detail, sizeof(detail)),
                 DG_ERR_MALFORMED);
    cr_expect_null(object);
}

Test(cursor, round_trip) {
    static const char *const keys[] = {"a", "ab", "abc", "abcd", "sensor-1:x.y", "caf\xc3\xa9"};
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        char text[CURSOR_TEXT_SIZE], key[CURSOR_KEY_BYTES_MAX + 1];
        cursor_encode(slice_from_string(keys[i]), text);
        cr_expect_eq(cursor_decode(slice_from_string(text), key), 0, "%s", text);
        cr_expect_str_eq(key, keys[i]);
    }
    char longest[CURSOR_KEY_BYTES_MAX], text[CURSOR_TEXT_SIZE], key[CURSOR_KEY_BYTES_MAX + 1];
    memset(longest, 'x', sizeof(longest));
    cursor_encode(slice_make(longest, sizeof(longest)), text);
    cr_expect_eq(strlen(text), CURSOR_TEXT_SIZE - 1);
    cr_expect_eq(cursor_decode(slice_from_string(text), key), 0);
    cr_expect_eq(strlen(key), sizeof(longest));
}

Test(cursor, others_are_refused) {
    static const char *const texts[] = {"", "A", "YQ==", "YR", "a+b/", "AA", "_w", "YWJj ", "wyg"};
    for (size_t i = 0; i < COUNT_OF(texts); i++) {
        char key[CURSOR_KEY_BYTES_MAX + 1] = "untouched";
        cr_expect_eq(cursor_decode(slice_from_string(texts[i]), key), DG_ERR_MALFORMED, "%s",
                     texts[i]);
        cr_expect_str_eq(key, "untouched");
    }
    char text[CURSOR_TEXT_SIZE + 8], key[CURSOR_KEY_BYTES_MAX + 1];
    memset(text, 'Y', sizeof(text));
    cr_expect_eq(cursor_decode(slice_make(text, sizeof(text)), key), DG_ERR_MALFORMED);
}

Test(etag, lists) {
    static const struct {
        const char *list;
        bool matches; /* version 17 */
    } cases[] = {
        {"\"17\"", true},
        {"*", true},
        {" * ", true},
        {"W/\"17\"", true},
        {"\"1\", \"17\"", true},
        {"\"16\"", false},
        {"17", false},
        {"\"\"", false},
        {"\"017\"", false},
        {"", false},
        {"\"17", false},
        {"\"1\",,\"17\"", true},
        {"\"99999999999999999999999\"", false},
        {"\"170\"", false},
        {"w/\"17\"", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        cr_expect_eq(etag_matches(slice_from_string(cases[i].list), 17), cases[i].matches, "%s",
                     cases[i].list);
}

Test(etag, if_match) {
    static const struct {
        const char *value;
        struct etag_condition condition; /* count 0: refused */
    } cases[] = {
        {"*", {1, {ETAG_EXISTS}}},
        {" * ", {1, {ETAG_EXISTS}}},
        {"\"17\"", {1, {17}}},
        {" \"17\" ", {1, {17}}},
        {"W/\"17\"", {1, {INT64_MAX}}},
        {"\"abc\"", {1, {INT64_MAX}}},
        {"\"0\"", {1, {INT64_MAX}}},
        {"\"-1\"", {1, {INT64_MAX}}},
        {"\"1\", \"2\"", {2, {1, 2}}},
        {",\"1\" ,, W/\"2\",3,", {3, {1, INT64_MAX, INT64_MAX}}},
        {"\"1\", *", {2, {1, INT64_MAX}}},
        {"1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7", {0}},
        {"", {0}},
        {" , ", {0}},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct etag_condition condition = {0};
        cr_expect_eq(etag_parse_if_match(slice_from_string(cases[i].value), &condition),
                     cases[i].condition.count > 0, "%s", cases[i].value);
        cr_expect_eq(memcmp(&condition, &cases[i].condition, sizeof(condition)), 0, "%s",
                     cases[i].value);
    }
}

/* A member that has no null is not reset by one: what was switched off would be on again. */
Test(members, patches_with_null) {
    static const struct {
        const struct provisioning_resource *resource;
        const char *patch;
        const char *pointer; /* NULL: accepted */
    } cases[] = {
        {&device_resource, "{\"enabled\": null}", "/enabled"},
        {&device_resource, "{\"metadata\": null, \"tags\": null}", NULL},
        {&device_resource, "{\"metadata\": {\"enabled\": null}}", NULL},
        {&device_resource, "{\"enabled\": false}", NULL},
        {&device_resource, "{\"unknown\": null}", "/unknown"},
        {&device_resource, "{\"device_id\": null}", "/device_id"},
        {&tenant_resource, "{\"enabled\": null}", "/enabled"},
        {&tenant_resource, "{\"partition_count\": null}", "/partition_count"},
        {&api_key_resource, "{\"roles\": null}", "/roles"},
        {&api_key_resource, "{\"not_after\": null, \"description\": null}", NULL},
        {&authority_resource, "{\"certificate\": null}", "/certificate"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *patch = load(cases[i].patch);
        char detail[CALL_DETAIL_SIZE] = "";
        int err = members_check_patch(cases[i].resource->members, patch, detail, sizeof(detail));
        cr_expect_eq(err, cases[i].pointer ? DG_ERR_INVALID : 0, "%s", cases[i].patch);
        if (cases[i].pointer)
            cr_expect_eq(strncmp(detail, cases[i].pointer, strlen(cases[i].pointer)), 0, "%s: %s",
                         cases[i].patch, detail);
        json_decref(patch);
    }
}

Test(query, cases) {
    static const struct {
        const char *target;
        unsigned filters;
        const char *detail; /* NULL: accepted */
        unsigned limit;
        const char *enabled;
        const char *tags;
    } cases[] = {
        {"/v1/x", true, NULL, 100, NULL, NULL},
        {"/v1/x?limit=1", true, NULL, 1, NULL, NULL},
        {"/v1/x?limit=1000&enabled=true", true, NULL, 1000, "true", NULL},
        {"/v1/x?enabled=false&tag.floor=2&tag.a%2Eb=%C3%A9", true, NULL, 100, "false",
         "{\"floor\":\"2\",\"a.b\":\"\xc3\xa9\"}"},
        {"/v1/x?state=dead_lettered&limit=2", QUERY_STATE, NULL, 2, NULL, NULL},
        {"/v1/x?state=done", QUERY_STATE, "state: must be one of: queued sent", 0, NULL, NULL},
        {"/v1/x?state=sent", QUERY_REGISTERED, "state: not known; there are limit, cursor, enabled",
         0, NULL, NULL},
        {"/v1/x?enabled=true", QUERY_STATE, "there are limit, cursor and state", 0, NULL, NULL},
        {"/v1/x?limit=0", true, "limit: must be", 0, NULL, NULL},
        {"/v1/x?limit=1001", true, "limit: must be", 0, NULL, NULL},
        {"/v1/x?limit=99999999999999999999", true, "limit: must be", 0, NULL, NULL},
        {"/v1/x?limit=", true, "limit: must be", 0, NULL, NULL},
        {"/v1/x?limit=-1", true, "limit: must be", 0, NULL, NULL},
        {"/v1/x?cursor=*", true, "cursor: is not", 0, NULL, NULL},
        {"/v1/x?enabled=1", true, "enabled: must be", 0, NULL, NULL},
        {"/v1/x?enabled=true", false, "enabled: not known", 0, NULL, NULL},
        {"/v1/x?tag.a=1", false, "tag.a: not known", 0, NULL, NULL},
        {"/v1/x?tag.=1", true, "name a tag", 0, NULL, NULL},
        {"/v1/x?tag.a=1&tag.a=2", true, "given twice", 0, NULL, NULL},
        {"/v1/x?page=2", true, "page: not known", 0, NULL, NULL},
        {"/v1/x?limit=%00", true, "decoded", 0, NULL, NULL},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct query query = {0};
        char detail[CALL_DETAIL_SIZE] = "";
        int err = query_parse(slice_from_string(cases[i].target), cases[i].filters, &query, detail,
                              sizeof(detail));
        cr_expect_eq(err == 0, cases[i].detail == NULL, "%s: %s", cases[i].target, detail);
        if (cases[i].detail) {
            cr_expect(strstr(detail, cases[i].detail), "%s: %s", cases[i].target, detail);
            continue;
        }
        cr_expect_eq(query.limit, cases[i].limit);
        cr_expect_eq(query.enabled != NULL, cases[i].enabled != NULL);
        if (query.enabled)
            cr_expect_str_eq(query.enabled, cases[i].enabled);
        json_t *tags = cases[i].tags ? load(cases[i].tags) : NULL;
        cr_expect(tags ? json_equal(tags, query.tags) : !query.tags, "%s", cases[i].target);
        json_decref(tags);
        query_free(&query);
    }
}

Test(members, names) {
    static const struct {
        enum name_kind kind;
        const char *name;
        bool valid;
    } cases[] = {
        {NAME_TENANT, "acme", true},        {NAME_TENANT, "a", true},
        {NAME_TENANT, "0-9", true},         {NAME_TENANT, "-a", false},
        {NAME_TENANT, "a-", false},         {NAME_TENANT, "Acme", false},
        {NAME_TENANT, "a.b", false},        {NAME_TENANT, "", false},
        {NAME_DEVICE, "Dev_1.a:b-c", true}, {NAME_DEVICE, "a/b", false},
        {NAME_DEVICE, "a b", false},        {NAME_DEVICE, "..", false},
        {NAME_DEVICE, "...", true},         {NAME_OTHER, "key.1_a-B", true},
        {NAME_OTHER, "a:b", false},         {NAME_OTHER, ".", false},
        {NAME_DEVICE, "a+b", false},        {NAME_HUB_DEVICE, "a+%_#*?!(),:=@$'.-Z9", true},
        {NAME_HUB_DEVICE, "a/b", false},    {NAME_HUB_DEVICE, "a b", false},
        {NAME_HUB_DEVICE, "..", false},     {NAME_HUB_DEVICE, "", false},
        {NAME_HUB_DEVICE, "a\"b", false},   {NAME_OTHER, "\xc3\xa9", false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        cr_expect_eq(name_is_valid(cases[i].kind, slice_from_string(cases[i].name)), cases[i].valid,
                     "%s", cases[i].name);
    char longest[130];
    memset(longest, 'a', sizeof(longest));
    static const unsigned limits[] = {
        [NAME_TENANT] = 63, [NAME_DEVICE] = 128, [NAME_HUB_DEVICE] = 128, [NAME_OTHER] = 64};
    for (enum name_kind kind = NAME_TENANT; kind <= NAME_OTHER; kind++) {
        cr_expect(name_is_valid(kind, slice_make(longest, limits[kind])));
        cr_expect(!name_is_valid(kind, slice_make(longest, limits[kind] + 1)));
    }
    cr_expect(!name_is_valid(NAME_DEVICE, slice_make("a\0b", 3)));
    cr_expect(!name_is_valid(NAME_HUB_DEVICE, slice_make("a\0b", 3)));
}

/* The tables of each resource; the sentence begins with the pointer of what is wrong. */
Test(members, objects) {
    static const struct {
        const struct provisioning_resource *resource;
        const char *object;
        const char *detail; /* NULL: good */
    } cases[] = {
        {&device_resource, "{}", NULL},
        {&device_resource, "{\"enabled\":false,\"tags\":{\"a\":\"b\"},\"metadata\":{\"x\":[1]}}",
         NULL},
        {&device_resource, "{\"enabled\":1}", "/enabled: must be true or false"},
        {&device_resource, "{\"enabled\":null}", "/enabled: must be"},
        {&device_resource, "{\"tags\":{\"a\":{\"b\":[1]}}}", NULL},
        {&device_resource, "{\"tags\":[]}", "/tags: must be an object"},
        {&tenant_resource, "{\"tags\":{\"a\":1}}", "/tags/a: must be a string"},
        {&tenant_resource, "{\"tags\":{\"a/b\":{}}}", "/tags/a~1b: must be a string"},
        {&tenant_resource, "{\"tags\":{\"\":\"x\"}}", "/tags/: a name has 1 to 128 bytes"},
        {&device_resource, "{\"metadata\":\"x\"}", "/metadata: must be an object"},
        {&device_resource, "{\"partition\":3}", "/partition: is set by the server"},
        {&device_resource, "{\"enabld\":true}",
         "/enabld: no such member here; allowed: enabled, group, via, metadata, tags"},
        {&tenant_resource, "{\"partition_count\":1024}", NULL},
        {&tenant_resource, "{\"partition_count\":0}",
         "/partition_count: must be an integer from 1 to 1024"},
        {&tenant_resource, "{\"partition_count\":1025}", "/partition_count: must be"},
        {&tenant_resource, "{\"partition_count\":1.0}", "/partition_count: must be"},
        {&tenant_resource, "{\"name\":\"x\"}", "/name: is set by the server"},
        {&credential_resource, "{\"not_after\":null}", NULL},
        {&credential_resource, "{\"not_after\":\"2030-01-01T00:00:00Z\"}", NULL},
        {&credential_resource, "{\"not_after\":\"tomorrow\"}", "/not_after: must be a time"},
        {&credential_resource, "{\"not_after\":5}", "/not_after: must be a time"},
        {&api_key_resource, "{\"roles\":[\"admin\",\"reader\"]}", NULL},
        {&api_key_resource, "{}", "/roles: is required"},
        {&api_key_resource, "{\"roles\":[]}", "/roles: must be a list of at least one of admin"},
        {&api_key_resource, "{\"roles\":[\"reader\",\"root\"]}", "/roles/1: must be one of"},
        {&api_key_resource, "{\"roles\":[1]}", "/roles/0: must be one of"},
        {&device_resource, "{\"via\":[\"gw1\",\"gw2\"],\"group\":\"a\"}", NULL},
        {&device_resource, "{\"via\":[\"gw1\",\"gw1\"]}", "/via: names gw1 twice"},
        {&device_resource, "{\"via\":[1]}", "/via: each must be a string"},
        {&device_resource, "{\"via\":{}}", "/via: must be a list of at most 8"},
        {&authority_resource, "{\"certificate\":\"\"}", "/certificate: must have 1 to"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *object = load(cases[i].object);
        char detail[CALL_DETAIL_SIZE] = "";
        int err = members_check(cases[i].resource->members, object, detail, sizeof(detail));
        cr_expect_eq(err, cases[i].detail ? DG_ERR_INVALID : 0, "%s: %s", cases[i].object, detail);
        const char *wanted = cases[i].detail ? cases[i].detail : "";
        cr_expect(strncmp(detail, wanted, strlen(wanted)) == 0, "%s: %s", cases[i].object, detail);
        json_decref(object);
    }
}

Test(members, sizes) {
    static const struct {
        const char *member;
        size_t limit;
    } cases[] = {{"metadata", LIMIT_METADATA_BYTES}, {"tags", LIMIT_TAGS_BYTES}};
    static char text[64 * 1024];
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        for (size_t over = 0; over < 2; over++) {
            size_t filling = cases[i].limit - strlen("{\"a\":\"\"}") + over;
            int at = snprintf(text, sizeof(text), "{\"%s\":{\"a\":\"", cases[i].member);
            memset(text + at, 'x', filling);
            strcpy(text + at + filling, "\"}}");
            json_t *object = load(text);
            char detail[CALL_DETAIL_SIZE] = "";
            cr_expect_eq(members_check(device_resource.members, object, detail, sizeof(detail)),
                         over ? DG_ERR_INVALID : 0, "%s: %s", cases[i].member, detail);
            json_decref(object);
        }
    }
}

Test(members, validity_and_writable) {
    char detail[CALL_DETAIL_SIZE] = "";
    json_t *object = load("{\"not_before\":\"2030-01-01T00:00:00Z\","
                          "\"not_after\":\"2030-01-01T01:00:00+01:00\",\"version\":3}");
    cr_expect_eq(members_check_validity(object, detail, sizeof(detail)), DG_ERR_INVALID);
    cr_expect(strstr(detail, "/not_after"));
    json_t *writable = members_select_writable(credential_resource.members, object);
    cr_expect_eq(json_object_size(writable), 2);
    json_object_del(object, "not_before");
    cr_expect_eq(members_check_validity(object, detail, sizeof(detail)), 0);
    json_decref(object), json_decref(writable);
}

Test(members, roles) {
    char text[128];
    json_t *names = load("[\"admin\",\"consumer\",\"admin\"]");
    cr_expect_eq(member_roles(names), (uint32_t)(REGISTRY_ROLE_ADMIN | REGISTRY_ROLE_CONSUMER));
    json_decref(names);
    roles_print(REGISTRY_ROLE_OPERATOR | REGISTRY_ROLE_ADMIN, text, sizeof(text));
    cr_expect_str_eq(text, "admin, operator");
}
