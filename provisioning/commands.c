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

enum device_column {
    COLUMN_TENANT_KEY,
    COLUMN_STREAM_ID,
    COLUMN_DEVICE_KEY,
    COLUMN_PARTITION,
    COLUMN_TENANT,
    COLUMN_DEVICE
};

static int64_t number_at(const struct registry_request *result, unsigned column) {
    return strtoll(registry_value(result, 0, column), NULL, 10);
}

static void then_create(struct provisioning_call *call, struct registry_request *result) {
    struct command_request request = {.ttl_ms = TTL_MS,
                                      .pending_max = LIMIT_COMMANDS_PENDING,
                                      .wants_reply = true,
                                      .properties = slice_from_string("{}"),
                                      .content_type = slice_from_string("application/json"),
                                      .owner = http_exchange_id(call->exchange),
                                      .created = on_created};
    if (result->row_count == 0) {
        call_problem(call, DG_ERR_NOT_FOUND, "no such device");
        return;
    }
    request.target = (struct command_target){.tenant_key = number_at(result, COLUMN_TENANT_KEY),
                                             .stream_id = number_at(result, COLUMN_STREAM_ID),
                                             .device_key = number_at(result, COLUMN_DEVICE_KEY),
                                             .partition =
                                                 (uint32_t)number_at(result, COLUMN_PARTITION)};
    snprintf(request.target.tenant, sizeof(request.target.tenant), "%s",
             registry_value(result, 0, COLUMN_TENANT));
    snprintf(request.target.device, sizeof(request.target.device), "%s",
             registry_value(result, 0, COLUMN_DEVICE));
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
    struct registry_request *request =
        resource_request_named(call, STATEMENT_COMMAND_DEVICE, slice_make(NULL, 0));
    if (request)
        call_execute(call, request, then_create);
}
