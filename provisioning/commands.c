/* Commands over HTTP: POST .../devices/{device}/commands and what becomes of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/command/commands.h"
#include "provisioning/commands.h"
#include "provisioning/json.h"

const struct provisioning_resource command_resource = {
    .noun = "command",
    .path = {{"tenant", NAME_TENANT}, {"device", NAME_DEVICE}, {"command", NAME_OTHER}}};

enum { TTL_MS = 3600 * 1000 };

/* ---- creating ---- */

static void on_created(struct worker *worker, uint64_t owner,
                       const struct command_created *created) {
    struct http_exchange *x = http_find(worker, owner);
    struct provisioning_call *call = x ? http_context(x) : NULL;
    char id[COMMAND_ID_SIZE], body[128];
    if (!call)
        return;
    if (created->err < 0) {
        call_fail(call, created->err, NULL);
        return;
    }
    command_format_id(created->key, id);
    snprintf(body, sizeof(body), "{\"command_id\":\"%s\"}", id);
    call_answer(call, 202, NULL, slice_from_string(body));
}

static void then_create(struct provisioning_call *call, const struct registry_device_query *found) {
    struct command_request request = {.ttl_ms = TTL_MS,
                                      .pending_max = LIMIT_COMMANDS_PENDING,
                                      .wants_reply = true,
                                      .properties = slice_from_string("{}"),
                                      .content_type = slice_from_string("application/json"),
                                      .owner = http_exchange_id(call->exchange),
                                      .created = on_created};
    request.target = (struct command_target){.tenant_key = found->tenant_key,
                                             .stream_id = found->stream_id,
                                             .device_key = found->device_key,
                                             .partition = found->partition};
    memcpy(request.target.tenant, found->tenant, sizeof(request.target.tenant));
    memcpy(request.target.device, found->device, sizeof(request.target.device));
    json_t *name = json_object_get(call->body, "name");
    json_t *wants_reply = json_object_get(call->body, "wants_reply");
    if (wants_reply)
        request.wants_reply = json_is_true(wants_reply);
    char *payload = json_dumps(json_object_get(call->body, "payload"), JSON_ENCODE_ANY);
    request.name = slice_from_string(json_string_value(name));
    request.payload = slice_from_string(payload ? payload : "");
    int err = commands_create(call->worker, &request);
    free(payload);
    if (err < 0)
        call_fail(call, err, NULL);
}

void command_post(struct provisioning_call *call) {
    if (!call_read_body(call))
        return;
    call_find_device(call, then_create);
}
