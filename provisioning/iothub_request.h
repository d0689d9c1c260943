/* What handlers of the service API share: what came with a request, and statements that it needs.
 * Worker's thread. */
#pragma once

#include "provisioning/iothub_error.h"

/* The device in the path, NUL-terminated; false after answering. */
bool iothub_read_path(struct provisioning_call *call, char ret_id[LIMIT_DEVICE_ID_BYTES + 1]);
/* The body into call->body, an object or an array; false after answering. */
bool iothub_read_body(struct provisioning_call *call, json_type type);

/* A statement about the tenant, which is its first parameter. The others are added with the next
 * two, which accept NULL; iothub_execute() answers when anything of it has failed. */
struct registry_request *iothub_request_new(struct provisioning_call *call,
                                            enum registry_statement statement);
/* text may be NULL, which is SQL NULL. A request that cannot be whole any more becomes NULL. */
void iothub_request_add(struct registry_request **request, const char *text);
/* Takes value over; NULL: out of memory. */
void iothub_request_add_json(struct registry_request **request, json_t *value);
void iothub_execute(struct provisioning_call *call, struct registry_request *request,
                    void (*then)(struct provisioning_call *call, struct registry_request *result));

/* A number of an answer; null is 0. */
static inline int64_t iothub_number(const struct registry_request *result, unsigned row,
                                    unsigned column) {
    const char *text = registry_value(result, row, column);
    return text ? strtoll(text, NULL, 10) : 0;
}
