#include "provisioning/job_body.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "provisioning/command_draft.h"
#include "registry/twin.h"

/* Where the sentence about what is wrong goes. */
struct reading {
    const json_t *body;
    json_t *asked;
    char *detail;
    size_t detail_size;
};

enum { RATE = 100 };

static const struct member job_members[] = {
    {"command", MEMBER_VALUE},
    {"desired", MEMBER_VALUE},
    {"devices", MEMBER_LIST, false, 0, LIMIT_JOB_LISTED_DEVICES, NULL},
    {"query", MEMBER_VALUE},
    {"rate", MEMBER_INTEGER, false, 1, LIMIT_JOB_RATE, NULL},
    {NULL},
};

static const struct member query_members[] = {
    {"enabled", MEMBER_BOOLEAN, false, 0, 0, NULL},
    {"tags", MEMBER_TAGS, false, 0, LIMIT_TAGS_BYTES, NULL},
    {NULL},
};

static int refuse(struct reading *reading, const char *text) {
    snprintf(reading->detail, reading->detail_size, "%s", text);
    return DG_ERR_INVALID;
}

/* What was said of a member within this one. */
static int refuse_within(struct reading *reading, const char *pointer, int err, const char *text) {
    snprintf(reading->detail, reading->detail_size, "%s%s", pointer, text);
    return err;
}

/* Takes the value over. */
static int put(json_t *object, const char *name, json_t *value) {
    return json_object_set_new(object, name, value) == 0 ? 0 : DG_ERR_NO_MEMORY;
}

/* ---- what ---- */

static json_t *encode_base64(struct slice bytes) {
    unsigned char *text = malloc(bytes.size / 3 * 4 + 5);
    int size = text ? EVP_EncodeBlock(text, bytes.data, (int)bytes.size) : 0;
    json_t *value = text ? json_stringn((const char *)text, (size_t)size) : NULL;
    free(text);
    return value;
}

/* As it was given, with what it did not say. */
static json_t *write_command(const json_t *command, const struct command_draft *draft) {
    json_t *what = json_copy((json_t *)(uintptr_t)command);
    json_t *more =
        json_pack("{s:I, s:b, s:o}", "ttl_s", (json_int_t)(draft->ttl_ms / 1000), "wants_reply",
                  draft->wants_reply, "properties", json_loads(draft->properties, 0, NULL));
    bool failed = !what || !more || json_object_update_missing(what, more) != 0;
    json_decref(more);
    if (!failed && draft->content_type.size > 0)
        failed =
            put(what, "content_type",
                json_stringn((const char *)draft->content_type.data, draft->content_type.size)) < 0;
    if (!failed)
        return what;
    json_decref(what);
    return NULL;
}

static int read_command(struct reading *reading, const json_t *command) {
    struct command_draft draft;
    char detail[256] = "";
    if (!json_is_object(command))
        return refuse(reading, "/command: must be an object");
    int err = command_draft_read(command, &draft, detail, sizeof(detail));
    if (err < 0)
        return refuse_within(reading, "/command", err, detail);
    err = put(reading->asked, "kind", json_string("command"));
    if (err == 0)
        err = put(reading->asked, "what", write_command(command, &draft));
    if (err == 0)
        err = put(reading->asked, "payload",
                  encode_base64(slice_make(draft.payload, draft.payload_size)));
    command_draft_free(&draft);
    return err;
}

/* The same merge patch for each. How large a twin is with it is seen when it is. */
static int read_desired(struct reading *reading, const json_t *desired) {
    if (twin_check(desired, "/desired", reading->detail, reading->detail_size) < 0)
        return DG_ERR_INVALID;
    int err = put(reading->asked, "kind", json_string("desired"));
    return err == 0 ? put(reading->asked, "what", json_incref((json_t *)(uintptr_t)desired)) : err;
}

static int read_what(struct reading *reading) {
    const json_t *command = json_object_get(reading->body, "command");
    const json_t *desired = json_object_get(reading->body, "desired");
    if (!command == !desired)
        return refuse(reading, "/command: either this is given, or /desired");
    return command ? read_command(reading, command) : read_desired(reading, desired);
}

/* ---- who ---- */

static int refuse_device(struct reading *reading, size_t index, const char *text) {
    snprintf(reading->detail, reading->detail_size, "/devices/%zu: %s", index, text);
    return DG_ERR_INVALID;
}

/* One that there is not is a result like others; one that comes twice is a mistake. */
static int read_devices(struct reading *reading, const json_t *devices) {
    json_t *seen = json_object();
    int err = seen ? 0 : DG_ERR_NO_MEMORY;
    for (size_t i = 0; err == 0 && i < json_array_size(devices); i++) {
        const char *id = json_string_value(json_array_get(devices, i));
        if (!id || !*id || strlen(id) > LIMIT_DEVICE_ID_BYTES)
            err = refuse_device(reading, i, "must be the id of a device");
        else if (json_object_get(seen, id))
            err = refuse_device(reading, i, "is there twice");
        else
            err = put(seen, id, json_true());
    }
    json_decref(seen);
    return err == 0 ? put(reading->asked, "devices", json_incref((json_t *)(uintptr_t)devices))
                    : err;
}

static int read_query(struct reading *reading, const json_t *query) {
    char detail[256] = "";
    if (!json_is_object(query))
        return refuse(reading, "/query: must be an object");
    int err = members_check(query_members, query, detail, sizeof(detail));
    if (err < 0)
        return refuse_within(reading, "/query", err, detail);
    return put(reading->asked, "query", json_incref((json_t *)(uintptr_t)query));
}

static int read_who(struct reading *reading) {
    const json_t *devices = json_object_get(reading->body, "devices");
    const json_t *query = json_object_get(reading->body, "query");
    if (!devices == !query)
        return refuse(reading, "/devices: either this is given, or /query");
    return devices ? read_devices(reading, devices) : read_query(reading, query);
}

int job_body_read(const json_t *body, json_t **ret_asked, char *ret_detail, size_t detail_size) {
    const json_t *rate = json_object_get(body, "rate");
    int err = members_check(job_members, body, ret_detail, detail_size);
    if (err < 0)
        return err;
    struct reading reading = {body, json_object(), ret_detail, detail_size};
    err = reading.asked ? read_what(&reading) : DG_ERR_NO_MEMORY;
    if (err == 0)
        err = read_who(&reading);
    if (err == 0)
        err = put(reading.asked, "rate", json_integer(rate ? json_integer_value(rate) : RATE));
    if (err == 0)
        *ret_asked = reading.asked;
    else
        json_decref(reading.asked);
    return err;
}
