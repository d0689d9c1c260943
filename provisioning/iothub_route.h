/* The rows of iothub_routes_table.h as data, and who may use them. */
#pragma once

#include "provisioning/iothub_error.h"

struct iothub_route {
    const char *id; /* "GET_DEVICE" */
    const char *method;
    const char *path;
    uint32_t right;                              /* enum registry_right */
    void (*run)(struct provisioning_call *call); /* NULL: not served ... */
    enum iothub_error error;                     /* ... which is what is said of it */
};

enum iothub_route_id {
#define ROUTE(id, ...) IOTHUB_ROUTE_##id,
#define ABSENT(id, ...) IOTHUB_ROUTE_##id,
#include "provisioning/iothub_routes_table.h"
#undef ROUTE
#undef ABSENT
    IOTHUB_ROUTE_COUNT
};

/* In the order of the table. */
extern const struct iothub_route iothub_rows[IOTHUB_ROUTE_COUNT];

/* Of every route of the service API. begin: checks the token, the right and api-version before a
 * byte of the body is read. handle: runs the row that route->context points to. */
void iothub_begin(struct http_exchange *x, const struct http_route *route);
void iothub_handle(struct http_exchange *x, const struct http_route *route);

/* ---- handlers for the table ---- */
void iothub_device_get(struct provisioning_call *call);
void iothub_device_put(struct provisioning_call *call);
void iothub_device_delete(struct provisioning_call *call);
void iothub_device_list(struct provisioning_call *call);
void iothub_devices_bulk(struct provisioning_call *call);
void iothub_query_run(struct provisioning_call *call);
void iothub_device_statistics(struct provisioning_call *call);
void iothub_service_statistics(struct provisioning_call *call);
void iothub_commands_purge(struct provisioning_call *call);
void iothub_method_call(struct provisioning_call *call);
void iothub_twin_get(struct provisioning_call *call);
void iothub_twin_patch(struct provisioning_call *call);
void iothub_twin_replace(struct provisioning_call *call);
