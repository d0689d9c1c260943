#include "provisioning/iothub_request.h"

#include <stdlib.h>

#include "common/device_id.h"
#include "provisioning/json.h"

bool iothub_read_path(struct provisioning_call *call, char ret_id[LIMIT_DEVICE_ID_BYTES + 1]) {
    struct slice id = http_path_parameter(call->exchange, "device");
    if (!device_id_is_hub(id)) {
        iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid,
                      "the path names no device that could exist");
        return false;
    }
    memcpy(ret_id, id.data, id.size);
    ret_id[id.size] = '\0';
    return true;
}

bool iothub_read_body(struct provisioning_call *call, json_type type) {
    struct slice text = http_request_body(call->exchange);
    json_error_t error = {.line = 0};
    const char *bytes = text.size ? (const char *)text.data : "";
    call->body = json_loadb(bytes, text.size, JSON_REJECT_DUPLICATES, &error);
    if (call->body && json_typeof(call->body) == type &&
        json_depth(call->body, LIMIT_JSON_DEPTH) <= LIMIT_JSON_DEPTH)
        return true;
    iothub_refuse(call->exchange, IOTHUB_ArgumentInvalid, "the body must be a JSON %s%s%s",
                  type == JSON_ARRAY ? "array" : "object", call->body ? "" : ", ",
                  call->body ? "" : error.text);
    return false;
}

struct registry_request *iothub_request_new(struct provisioning_call *call,
                                            enum registry_statement statement) {
    struct registry_request *request = registry_request_new(statement);
    iothub_request_add(&request, call->principal.tenant);
    return request;
}

void iothub_request_add(struct registry_request **request, const char *text) {
    struct slice value = text ? slice_from_string(text) : slice_make(NULL, 0);
    if (!*request || registry_request_add(*request, value) == 0)
        return;
    registry_request_free(*request);
    *request = NULL;
}

void iothub_request_add_json(struct registry_request **request, json_t *value) {
    char *text = value ? json_print_exact(value) : NULL;
    json_decref(value);
    if (text) {
        iothub_request_add(request, text);
        explicit_bzero(text, strlen(text)); /* keys may be within */
        free(text);
    } else {
        registry_request_free(*request);
        *request = NULL;
    }
}

void iothub_execute(struct provisioning_call *call, struct registry_request *request,
                    void (*then)(struct provisioning_call *call, struct registry_request *result)) {
    if (request)
        call_execute(call, request, then);
    else
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
}
