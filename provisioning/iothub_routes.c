/* The tables that http walks on the devices' and services' listener. */
#include "provisioning/iothub_route.h"
#include "provisioning/operations.h"
#include "provisioning/provisioning.h"

/* Largest bodies, with what clients send beside what is taken. */
enum {
    DEVICE_BYTES = 32 * 1024,
    BULK_BYTES = LIMIT_HTTP_BODY_BYTES,
    QUERY_BYTES = 2 * LIMIT_IOTHUB_QUERY_BYTES,
    TWIN_BYTES = 512 * 1024,
    METHOD_BYTES = LIMIT_OUTGOING_PAYLOAD_BYTES + 4096,
    ABSENT_BYTES = 256 * 1024,
};

const struct iothub_route iothub_rows[] = {
#define ROUTE(id, method_, path_, right_, bytes, run_) \
    {#id, #method_, path_, REGISTRY_RIGHT_##right_, run_, IOTHUB_ArgumentInvalid},
#define ABSENT(id, method_, path_, right_, error_) \
    {#id, #method_, path_, REGISTRY_RIGHT_##right_, NULL, IOTHUB_##error_},
#include "provisioning/iothub_routes_table.h"
#undef ROUTE
#undef ABSENT
};

/* Load balancers probe this listener too. */
const struct http_route provisioning_device_routes[] = {
#define ROUTE(id, method_, path_, right_, bytes, run_)                   \
    {HTTP_METHOD_##method_,           path_,       bytes, iothub_handle, \
     &iothub_rows[IOTHUB_ROUTE_##id], iothub_begin},
#define ABSENT(id, method_, path_, right_, error_)                              \
    {HTTP_METHOD_##method_,           path_,       ABSENT_BYTES, iothub_handle, \
     &iothub_rows[IOTHUB_ROUTE_##id], iothub_begin},
#include "provisioning/iothub_routes_table.h"
#undef ROUTE
#undef ABSENT
    {HTTP_METHOD_GET, "/healthz", 0, operations_healthz, NULL},
    {.pattern = NULL},
};
