/* Direct methods, as back ends written for Azure IoT Hub call them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/command/calls.h"
#include "provisioning/iothub_request.h"
#include "provisioning/iothub_route.h"
#include "provisioning/json.h"
#include "provisioning/methods.h"

enum {
    CONNECT_TIMEOUT_MAX_S = 300,
    RESPONSE_TIMEOUT_S = 30,
    RESPONSE_TIMEOUT_MIN_S = 5,
    RESPONSE_TIMEOUT_MAX_S = 300,
};

/* ---- what the client sent ---- */

/* False after answering. */
static bool read_seconds(struct provisioning_call *call, const char *member, unsigned least,
                         unsigned most, uint32_t *ret_ms) {
    const json_t *value = json_object_get(call->body, member);
    json_int_t seconds = json_integer_value(value);
    if (!value || json_is_null(value))
        return true;
    if (!json_is_integer(value) || seconds < least || seconds > most) {
        iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid, "%s must be %u to %u", member, least,
                      most);
        return false;
    }
    *ret_ms = (uint32_t)seconds * 1000;
    return true;
}

/* One level of a topic. */
static bool read_name(struct provisioning_call *call, struct slice *ret_name) {
    const json_t *value = json_object_get(call->body, "methodName");
    const char *name = json_string_value(value);
    size_t size = json_string_length(value);
    bool is_valid = name && size > 0 && size <= LIMIT_METHOD_NAME_BYTES && !strpbrk(name, "/+#");
    for (size_t i = 0; is_valid && i < size; i++)
        is_valid = (uint8_t)name[i] >= 0x20 && name[i] != 0x7f;
    if (!is_valid)
        iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid,
                      "methodName must have 1 to %d bytes and none of / + #",
                      LIMIT_METHOD_NAME_BYTES);
    else
        *ret_name = slice_make(name, size);
    return is_valid;
}

/* ---- answers ---- */

static void answer_reply(struct http_exchange *x, const struct outbox_reply *reply) {
    bool is_empty = reply->payload.size == 0;
    if (!is_empty && !json_is_value(reply->payload)) {
        iothub_refuse(x, IOTHUB_BadDeviceResponse, "the device has answered with no JSON");
        return;
    }
    json_t *payload = is_empty ? json_null()
                               : json_loadb((const char *)reply->payload.data, reply->payload.size,
                                            JSON_DECODE_ANY, NULL);
    iothub_answer(x, 200, json_pack("{s:i, s:o}", "status", (int)reply->status, "payload", payload),
                  0);
}

static void answer_problem(struct http_exchange *x, const struct call_answer *answer) {
    switch (answer->err) {
    case DG_ERR_NOT_CONNECTED:
        iothub_refuse(x, IOTHUB_DeviceNotOnline, "the device is not connected");
        break;
    case DG_ERR_NOT_FOUND:
        iothub_refuse(x, IOTHUB_DeviceNotOnline, "the device has not subscribed to methods");
        break;
    case DG_ERR_CLOSED:
        iothub_refuse(x, IOTHUB_GatewayTimeout, "the device went before it answered");
        break;
    default:
        iothub_refuse(x, iothub_error_of(answer->err), "%s", dg_err_text(answer->err));
    }
}

static void on_answered(struct worker *worker, uint64_t owner, const struct call_answer *answer) {
    struct http_exchange *x = http_find(worker, owner);
    if (x && answer->reply)
        answer_reply(x, answer->reply);
    else if (x)
        answer_problem(x, answer);
}

/* ---- the call ---- */

static void then_begin(struct provisioning_call *call, const struct registry_device_query *found) {
    struct call_request request = {.tenant_key = found->tenant_key,
                                   .device_key = found->device_key,
                                   .content_type = slice_from_string("application/json"),
                                   .response_timeout_ms = RESPONSE_TIMEOUT_S * 1000,
                                   .answered = on_answered};
    if (!read_name(call, &request.name) ||
        !read_seconds(call, "connectTimeoutInSeconds", 0, CONNECT_TIMEOUT_MAX_S,
                      &request.connect_timeout_ms) ||
        !read_seconds(call, "responseTimeoutInSeconds", RESPONSE_TIMEOUT_MIN_S,
                      RESPONSE_TIMEOUT_MAX_S, &request.response_timeout_ms))
        return;
    const json_t *payload = json_object_get(call->body, "payload");
    char *text = payload ? json_print_exact(payload) : strdup("null");
    size_t size = text ? strlen(text) : 0;
    request.payload = slice_make(text, size);
    if (!text)
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
    else if (size > LIMIT_OUTGOING_PAYLOAD_BYTES)
        iothub_refuse(call->exchange, IOTHUB_MessageTooLarge, "payload has at most %d bytes",
                      LIMIT_OUTGOING_PAYLOAD_BYTES);
    else
        method_begin(call, &request);
    free(text);
}

void iothub_method_call(struct provisioning_call *call) {
    char id[LIMIT_DEVICE_ID_BYTES + 1];
    if (iothub_read_path(call, id) && iothub_read_body(call, JSON_OBJECT))
        call_find_device(call, then_begin);
}
