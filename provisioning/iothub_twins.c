/* Device twins, as back ends written for Azure IoT Hub use them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/command/relay.h"
#include "gateway/command/transitions.h"
#include "provisioning/iothub_request.h"
#include "provisioning/iothub_route.h"
#include "provisioning/iothub_show.h"
#include "registry/twin.h"

/* ---- one twin ---- */

enum twin_column { COLUMN_DEVICE_KEY, COLUMN_ETAG, COLUMN_BODY };
enum { COLUMN_OUTCOME = 0 };

static void answer_one(struct provisioning_call *call, struct iothub_shown *shown) {
    json_t *twin = json_incref(json_array_get(shown->objects, 0));
    const char *etag = json_string_value(json_object_get(twin, "etag"));
    iothub_answer(call->exchange, 200, twin, etag ? iothub_parse_etag(slice_from_string(etag)) : 0);
}

static void answer_missing(struct provisioning_call *call) {
    iothub_refuse(call->exchange, IOTHUB_DeviceNotFound, "the device is not registered");
}

static void then_show(struct provisioning_call *call, struct registry_request *result) {
    if (result->row_count == 0) {
        answer_missing(call);
        return;
    }
    struct iothub_shown *shown = iothub_shown_new(1);
    int err =
        shown ? iothub_shown_add(shown, json_loads(registry_value(result, 0, COLUMN_BODY), 0, NULL),
                                 iothub_number(result, 0, COLUMN_DEVICE_KEY))
              : DG_ERR_NO_MEMORY;
    if (err == 0) {
        iothub_show(call, shown, answer_one);
        return;
    }
    iothub_shown_free(shown);
    call_fail(call, err, NULL);
}

void iothub_twin_get(struct provisioning_call *call) {
    char id[LIMIT_DEVICE_ID_BYTES + 1];
    if (!iothub_read_path(call, id))
        return;
    struct registry_request *request = iothub_request_new(call, STATEMENT_IOTHUB_TWIN_GET);
    iothub_request_add(&request, id);
    iothub_execute(call, request, then_show);
}

/* ---- changes ---- */

static const struct {
    const char *word;
    enum iothub_error error;
    const char *text;
} refusals[] = {
    {"precondition", IOTHUB_PreconditionFailed, "the twin has another etag"},
    {"large_tags", IOTHUB_MessageTooLarge, "tags would have more than 8 KiB"},
    {"large_desired", IOTHUB_MessageTooLarge, "desired properties would have more than 32 KiB"},
};

static void then_changed(struct provisioning_call *call, struct registry_request *result) {
    const char *outcome = result->row_count ? registry_value(result, 0, COLUMN_OUTCOME) : NULL;
    if (!outcome) {
        answer_missing(call);
        return;
    }
    for (unsigned i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
        if (strcmp(outcome, refusals[i].word) == 0) {
            iothub_refuse(call->exchange, refusals[i].error, "%s", refusals[i].text);
            return;
        }
    relay_soon(call->worker);
    iothub_twin_get(call);
}

/* A member of the twin that is to be changed, without what only the gateway writes. False after
 * answering. *ret_value is NULL when it is absent. */
static bool read_document(struct provisioning_call *call, const json_t *object, const char *name,
                          const char *pointer, json_t **ret_value) {
    char detail[CALL_DETAIL_SIZE] = "";
    json_t *value = json_object_get(object, name);
    if (value && !json_is_object(value)) {
        iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid, "%s must be an object", pointer + 1);
        return false;
    }
    json_object_del(value, "$metadata");
    json_object_del(value, "$version");
    int err = value ? twin_check(value, pointer, detail, sizeof(detail)) : 0;
    if (err < 0)
        iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid, "%s", detail);
    else
        *ret_value = value;
    return err == 0;
}

static void add_document(struct registry_request **request, json_t *value, bool replaces) {
    if (value)
        iothub_request_add_json(request, json_incref(value));
    else
        iothub_request_add(request, replaces ? "{}" : NULL);
}

static void change(struct provisioning_call *call, bool replaces) {
    char id[LIMIT_DEVICE_ID_BYTES + 1], expected[32];
    struct etag_condition condition;
    json_t *tags = NULL, *desired = NULL;
    if (!iothub_read_path(call, id) || !iothub_read_body(call, JSON_OBJECT) ||
        !read_document(call, call->body, "tags", "/tags", &tags) ||
        !read_document(call, json_object_get(call->body, "properties"), "desired",
                       "/properties/desired", &desired))
        return;
    bool is_conditional = iothub_read_if_match(call->exchange, &condition);
    snprintf(expected, sizeof(expected), "{%lld}",
             is_conditional ? (long long)condition.versions[0] : 0);
    struct registry_request *request = iothub_request_new(call, STATEMENT_IOTHUB_TWIN_WRITE);
    iothub_request_add(&request, id);
    add_document(&request, desired, replaces);
    add_document(&request, tags, replaces);
    iothub_request_add(&request, replaces ? "true" : "false");
    iothub_request_add(&request, is_conditional ? expected : NULL);
    iothub_request_add(&request, transitions_instance(call->worker));
    iothub_execute(call, request, then_changed);
}

void iothub_twin_patch(struct provisioning_call *call) {
    change(call, false);
}

void iothub_twin_replace(struct provisioning_call *call) {
    change(call, true);
}
