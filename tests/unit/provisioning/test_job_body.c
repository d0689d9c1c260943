/* What a PUT of a job asks for, against case tables. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/limits.h"
#include "provisioning/job_body.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static json_t *load(const char *text) {
    json_t *value = json_loads(text, 0, NULL);
    cr_assert_not_null(value, "%s", text);
    return value;
}

Test(job_body, taken) {
    static const struct {
        const char *body, *asked;
    } cases[] = {
        {"{\"command\":{\"name\":\"reboot\",\"payload\":{\"in\":1}},\"devices\":[\"b\",\"a\"]}",
         "{\"kind\":\"command\",\"what\":{\"name\":\"reboot\",\"payload\":{\"in\":1},"
         "\"content_type\":\"application/json\",\"ttl_s\":3600,\"wants_reply\":true,"
         "\"properties\":{}},\"payload\":\"eyJpbiI6MX0=\",\"devices\":[\"b\",\"a\"],\"rate\":100}"},
        {"{\"command\":{\"name\":\"x\",\"payload_base64\":\"AAE=\",\"ttl_s\":5,"
         "\"wants_reply\":false,\"properties\":{\"a\":\"b\"},\"content_type\":\"c\"},"
         "\"query\":{\"tags\":{\"site\":\"n\"},\"enabled\":false},\"rate\":1000}",
         "{\"kind\":\"command\",\"what\":{\"name\":\"x\",\"payload_base64\":\"AAE=\","
         "\"content_type\":\"c\",\"ttl_s\":5,\"wants_reply\":false,\"properties\":{\"a\":\"b\"}},"
         "\"payload\":\"AAE=\",\"query\":{\"tags\":{\"site\":\"n\"},\"enabled\":false},"
         "\"rate\":1000}"},
        {"{\"desired\":{\"a\":null,\"b\":{\"c\":1}},\"query\":{}}",
         "{\"kind\":\"desired\",\"what\":{\"a\":null,\"b\":{\"c\":1}},\"query\":{},\"rate\":100}"},
        {"{\"command\":{\"name\":\"x\"},\"query\":{},\"rate\":1}",
         "{\"kind\":\"command\",\"what\":{\"name\":\"x\",\"ttl_s\":3600,"
         "\"wants_reply\":true,\"properties\":{}},\"payload\":\"\",\"query\":{},\"rate\":1}"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *body = load(cases[i].body), *wanted = load(cases[i].asked), *asked = NULL;
        char detail[512] = "";
        cr_assert_eq(job_body_read(body, &asked, detail, sizeof(detail)), 0, "%s", detail);
        char *text = json_dumps(asked, 0);
        cr_expect(json_equal(asked, wanted), "%s", text);
        free(text);
        json_decref(asked);
        json_decref(wanted);
        json_decref(body);
    }
}

Test(job_body, refused) {
    static const struct {
        const char *body, *detail;
    } cases[] = {
        {"{}", "/command: either"},
        {"{\"command\":{\"name\":\"a\"},\"desired\":{},\"query\":{}}", "/command: either"},
        {"{\"desired\":[],\"query\":{}}", "/desired: "},
        {"{\"desired\":{\"$a\":1},\"query\":{}}", "/desired: a name"},
        {"{\"command\":[],\"query\":{}}", "/command: must be an object"},
        {"{\"command\":{},\"query\":{}}", "/command/name: is required"},
        {"{\"command\":{\"name\":\"a b\"},\"query\":{}}", "/command/name: must be"},
        {"{\"command\":{\"name\":\"a\",\"payload_base64\":\"?\"},\"query\":{}}",
         "/command/payload_base64: must be"},
        {"{\"command\":{\"name\":\"a\"}}", "/devices: either"},
        {"{\"command\":{\"name\":\"a\"},\"query\":{},\"devices\":[]}", "/devices: either"},
        {"{\"command\":{\"name\":\"a\"},\"query\":1}", "/query: must be an object"},
        {"{\"command\":{\"name\":\"a\"},\"query\":{\"tags\":[]}}", "/query/tags: must be"},
        {"{\"command\":{\"name\":\"a\"},\"query\":{\"enabled\":0}}", "/query/enabled: must be"},
        {"{\"command\":{\"name\":\"a\"},\"query\":{\"site\":\"a\"}}", "/query/site: no such"},
        {"{\"command\":{\"name\":\"a\"},\"devices\":{}}", "/devices: must be a list"},
        {"{\"command\":{\"name\":\"a\"},\"devices\":[\"a\",\"\"]}", "/devices/1: must be"},
        {"{\"command\":{\"name\":\"a\"},\"devices\":[null]}", "/devices/0: must be"},
        {"{\"command\":{\"name\":\"a\"},\"devices\":[\"a\",\"b\",\"a\"]}", "/devices/2: is there"},
        {"{\"command\":{\"name\":\"a\"},\"query\":{},\"rate\":0}", "/rate: must be"},
        {"{\"command\":{\"name\":\"a\"},\"query\":{},\"rate\":1001}", "/rate: must be"},
        {"{\"command\":{\"name\":\"a\"},\"query\":{},\"at\":1}", "/at: no such member"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *body = load(cases[i].body), *asked = NULL;
        char detail[512] = "";
        cr_expect_eq(job_body_read(body, &asked, detail, sizeof(detail)), DG_ERR_INVALID, "%s",
                     cases[i].body);
        cr_expect_eq(strncmp(detail, cases[i].detail, strlen(cases[i].detail)), 0, "%s: %s",
                     cases[i].body, detail);
        cr_expect_null(asked);
        json_decref(body);
    }
}

/* As many devices as there may be, and one more; a payload that is too large. */
Test(job_body, limits) {
    json_t *body = load("{\"command\":{\"name\":\"a\"}}"), *devices = json_array(), *asked = NULL;
    char detail[512] = "", id[16];
    for (int i = 0; i < LIMIT_JOB_LISTED_DEVICES; i++) {
        snprintf(id, sizeof(id), "d%d", i);
        json_array_append_new(devices, json_string(id));
    }
    json_object_set(body, "devices", devices);
    cr_expect_eq(job_body_read(body, &asked, detail, sizeof(detail)), 0, "%s", detail);
    json_decref(asked);
    asked = NULL;
    json_array_append_new(devices, json_string("more"));
    cr_expect_eq(job_body_read(body, &asked, detail, sizeof(detail)), DG_ERR_INVALID);
    cr_expect_eq(strncmp(detail, "/devices: ", 10), 0, "%s", detail);

    char *text = malloc(LIMIT_COMMAND_PAYLOAD_BYTES);
    memset(text, 'x', LIMIT_COMMAND_PAYLOAD_BYTES);
    json_array_clear(devices);
    json_object_set_new(json_object_get(body, "command"), "payload",
                        json_stringn(text, LIMIT_COMMAND_PAYLOAD_BYTES));
    cr_expect_eq(job_body_read(body, &asked, detail, sizeof(detail)), DG_ERR_TOO_LARGE);
    cr_expect_eq(strncmp(detail, "/command/payload: ", 18), 0, "%s", detail);
    cr_expect_null(asked);
    free(text);
    json_decref(devices);
    json_decref(body);
}
