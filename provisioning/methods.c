/* POST .../devices/{device}/methods/{method}: calls a connected device and answers with what it
 * says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/utf8.h"
#include "gateway/command/calls.h"
#include "provisioning/json.h"
#include "provisioning/methods.h"

const struct provisioning_resource method_resource = {
    .noun = "device",
    .path = {{"tenant", NAME_TENANT}, {"device", NAME_HUB_DEVICE}, {"method", NAME_OTHER}}};

enum {
    CONNECT_TIMEOUT_MAX_S = 300,
    RESPONSE_TIMEOUT_S = 30,
    RESPONSE_TIMEOUT_MAX_S = 300,
    GRACE_MS = 10000, /* until the connection gives up on the answer itself */
};

/* ---- what the client asks for ---- */

static bool read_content_type(struct provisioning_call *call, struct slice *ret_type) {
    struct slice type = slice_make(NULL, 0);
    (void)http_request_header(call->exchange, "Content-Type", &type);
    if (type.size > LIMIT_CALL_CONTENT_TYPE_BYTES || !utf8_is_valid(type.data, type.size)) {
        call_problem(call, DG_ERR_MEDIA_TYPE, "Content-Type must be UTF-8 of at most %d bytes",
                     LIMIT_CALL_CONTENT_TYPE_BYTES);
        return false;
    }
    *ret_type = type;
    return true;
}

/* ---- answers ---- */

static void answer_reply(struct provisioning_call *call, const struct outbox_reply *reply) {
    struct buffer out = {0};
    char status[32];
    snprintf(status, sizeof(status), "{\"status\":%u,", reply->status);
    int err = buffer_append(&out, status, strlen(status), LIMIT_OUTPUT_BYTES);
    if (err == 0)
        err = json_append_payload(&out, reply->payload);
    if (err == 0)
        err = buffer_append(&out, "}", 1, LIMIT_OUTPUT_BYTES);
    if (err == 0)
        call_answer(call, 200, NULL, buffer_slice(&out));
    else
        call_fail(call, err, NULL);
    buffer_free(&out);
}

static void answer_problem(struct provisioning_call *call, const struct call_answer *answer) {
    struct slice device = http_path_parameter(call->exchange, "device");
    int size = (int)device.size;
    const char *name = (const char *)device.data;
    switch (answer->err) {
    case DG_ERR_NOT_CONNECTED:
        call_problem(call, answer->err, "device '%.*s' is not connected", size, name);
        break;
    case DG_ERR_NOT_FOUND:
        call_problem(call, DG_ERR_NOT_CONNECTED,
                     "device '%.*s' has not subscribed to $dg/commands/#", size, name);
        break;
    case DG_ERR_DEVICE_REFUSED:
        call_problem(call, answer->err, "device '%.*s' refused the call with reason code 0x%02x",
                     size, name, answer->reason);
        break;
    case DG_ERR_TOO_LARGE:
        call_problem(call, answer->err, "device '%.*s' does not take packets so large", size, name);
        break;
    case DG_ERR_CLOSED:
        call_problem(call, DG_ERR_TIMEOUT, "the session of device '%.*s' ended before it answered",
                     size, name);
        break;
    case DG_ERR_TIMEOUT:
        call_problem(call, answer->err, "device '%.*s' did not answer in time", size, name);
        break;
    default:
        http_add_header(call->exchange, "Retry-After", "2");
        call_problem(call, answer->err, "too much waits for device '%.*s'", size, name);
    }
}

static void on_answered(struct worker *worker, uint64_t owner, const struct call_answer *answer) {
    struct http_exchange *x = http_find(worker, owner);
    struct provisioning_call *call = x ? http_context(x) : NULL;
    if (call && answer->reply)
        answer_reply(call, answer->reply);
    else if (call)
        answer_problem(call, answer);
}

/* The caller may go while the device is away: its connection is not read until it has an answer. */
static bool is_wanted(struct worker *worker, uint64_t owner) {
    struct http_exchange *x = http_find(worker, owner);
    if (!x || !connection_peer_is_gone(http_connection(x)))
        return x != NULL;
    connection_close(http_connection(x), DG_ERR_CLOSED);
    return false;
}

/* ---- the call ---- */

void method_begin(struct provisioning_call *call, struct call_request *request) {
    struct http_exchange *x = call->exchange;
    request->owner = http_exchange_id(x);
    request->is_wanted = is_wanted;
    int err = calls_begin(call->worker, request);
    if (err < 0) {
        call_fail(call, err, "too many calls are under way");
        return;
    }
    connection_set_deadline(http_connection(x), call->worker->now_ns / 1000000 +
                                                    request->connect_timeout_ms +
                                                    request->response_timeout_ms + GRACE_MS);
}

static void then_begin(struct provisioning_call *call, const struct registry_device_query *found) {
    struct call_request request = {.tenant_key = found->tenant_key,
                                   .device_key = found->device_key,
                                   .name = http_path_parameter(call->exchange, "method"),
                                   .payload = http_request_body(call->exchange),
                                   .response_timeout_ms = RESPONSE_TIMEOUT_S * 1000,
                                   .answered = on_answered};
    static const char *const known[] = {"connect_timeout", "response_timeout", NULL};
    if (call_check_parameters(call, known) &&
        call_read_seconds(call, "connect_timeout", 0, CONNECT_TIMEOUT_MAX_S,
                          &request.connect_timeout_ms) &&
        call_read_seconds(call, "response_timeout", 1, RESPONSE_TIMEOUT_MAX_S,
                          &request.response_timeout_ms) &&
        read_content_type(call, &request.content_type))
        method_begin(call, &request);
}

void method_call(struct provisioning_call *call) {
    struct slice method = http_path_parameter(call->exchange, "method");
    if (!name_is_valid(NAME_OTHER, method)) {
        call_problem(call, DG_ERR_INVALID, "the name of a method must be %s",
                     name_rule(NAME_OTHER));
        return;
    }
    call_find_device(call, then_begin);
}
