#include "provisioning/command_draft.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/limits.h"
#include "provisioning/json.h"

enum {
    TTL_S = 3600,
    TTL_MAX_S = LIMIT_COMMAND_TTL_MS / 1000,
    OTHER_PROPERTY_BYTES = 256, /* response topic, id, expiry, subscription and the like */
};
/* Else a device with MQTT 5 would never get them. Encoded they are shorter than as JSON. */
_Static_assert(LIMIT_COMMAND_PROPERTY_BYTES + LIMIT_CALL_CONTENT_TYPE_BYTES +
                       OTHER_PROPERTY_BYTES <=
                   LIMIT_OUTGOING_PROPERTY_BYTES,
               "properties fit into a message");

const struct member command_members[] = {
    {"name", MEMBER_NAME, true, NAME_OTHER, 0, NULL},
    {"payload", MEMBER_VALUE, false, 0, 0, NULL},
    {"payload_base64", MEMBER_TEXT, false, 0, LIMIT_COMMAND_BODY_BYTES, NULL},
    {"content_type", MEMBER_TEXT, false, 1, LIMIT_CALL_CONTENT_TYPE_BYTES, NULL},
    {"ttl_s", MEMBER_INTEGER, false, 1, TTL_MAX_S, NULL},
    {"wants_reply", MEMBER_BOOLEAN, false, 0, 0, NULL},
    {"properties", MEMBER_TAGS, false, 0, LIMIT_COMMAND_PROPERTY_BYTES, NULL},
    {NULL},
};

static int refuse(int err, const char *text, char *ret_detail, size_t detail_size) {
    snprintf(ret_detail, detail_size, "%s", text);
    return err;
}

/* Neither: no bytes at all. */
static int read_payload(const json_t *body, struct command_draft *draft, char *ret_detail,
                        size_t detail_size) {
    const json_t *value = json_object_get(body, "payload");
    const json_t *base64 = json_object_get(body, "payload_base64");
    int err = 0;
    if (value && base64)
        return refuse(DG_ERR_INVALID, "/payload_base64: there is /payload already; one of them",
                      ret_detail, detail_size);
    if (value) {
        draft->payload = (uint8_t *)json_print_exact(value);
        draft->payload_size = draft->payload ? strlen((char *)draft->payload) : 0;
        err = draft->payload ? 0 : DG_ERR_NO_MEMORY;
    } else if (base64) {
        err = json_decode_base64(slice_make(json_string_value(base64), json_string_length(base64)),
                                 &draft->payload, &draft->payload_size);
    }
    if (err == DG_ERR_INVALID)
        return refuse(err, "/payload_base64: must be base64 with its padding (RFC 4648, 4)",
                      ret_detail, detail_size);
    return err;
}

static int check_size(const struct command_draft *draft, bool is_base64, char *ret_detail,
                      size_t detail_size) {
    if (draft->payload_size <= LIMIT_COMMAND_PAYLOAD_BYTES)
        return 0;
    snprintf(ret_detail, detail_size, "%s: a payload may have at most %d bytes, this one has %zu",
             is_base64 ? "/payload_base64" : "/payload", LIMIT_COMMAND_PAYLOAD_BYTES,
             draft->payload_size);
    return DG_ERR_TOO_LARGE;
}

static struct slice choose_content_type(const json_t *body) {
    const json_t *given = json_object_get(body, "content_type");
    if (given)
        return slice_make(json_string_value(given), json_string_length(given));
    if (json_object_get(body, "payload"))
        return slice_from_string("application/json");
    return slice_from_string(json_object_get(body, "payload_base64") ? "application/octet-stream"
                                                                     : "");
}

int command_draft_read(const json_t *body, struct command_draft *ret_draft, char *ret_detail,
                       size_t detail_size) {
    int err = members_check(command_members, body, ret_detail, detail_size);
    if (err < 0)
        return err;
    const json_t *name = json_object_get(body, "name");
    const json_t *ttl_s = json_object_get(body, "ttl_s");
    const json_t *properties = json_object_get(body, "properties");
    struct command_draft draft = {
        .name = slice_make(json_string_value(name), json_string_length(name)),
        .content_type = choose_content_type(body),
        .ttl_ms = (ttl_s ? json_integer_value(ttl_s) : TTL_S) * 1000,
        .wants_reply = !json_is_false(json_object_get(body, "wants_reply")),
    };
    err = read_payload(body, &draft, ret_detail, detail_size);
    if (err == 0)
        err = check_size(&draft, json_object_get(body, "payload_base64"), ret_detail, detail_size);
    draft.properties = err < 0 ? NULL : properties ? json_print_exact(properties) : strdup("{}");
    if (err == 0 && !draft.properties)
        err = DG_ERR_NO_MEMORY;
    if (err < 0)
        command_draft_free(&draft);
    else
        *ret_draft = draft;
    return err;
}

void command_draft_free(struct command_draft *draft) {
    free(draft->payload);
    free(draft->properties);
    *draft = (struct command_draft){0};
}

static bool text_is(const json_t *value, struct slice text) {
    return slice_equals(slice_make(json_string_value(value), json_string_length(value)), text);
}

bool command_draft_is(const struct command_draft *draft, const json_t *command,
                      struct slice payload) {
    json_t *properties = json_loads(draft->properties, 0, NULL);
    bool is_same = text_is(json_object_get(command, "name"), draft->name) &&
                   text_is(json_object_get(command, "content_type"), draft->content_type) &&
                   json_is_true(json_object_get(command, "wants_reply")) == draft->wants_reply &&
                   json_equal(json_object_get(command, "properties"), properties) &&
                   slice_equals(payload, slice_make(draft->payload, draft->payload_size));
    json_decref(properties);
    return is_same;
}

bool command_idempotency_key_is_valid(struct slice key) {
    enum { KEY_BYTES_MAX = 128 };
    for (size_t i = 0; i < key.size; i++)
        if (key.data[i] < ' ' || key.data[i] > '~')
            return false;
    return key.size >= 1 && key.size <= KEY_BYTES_MAX;
}
