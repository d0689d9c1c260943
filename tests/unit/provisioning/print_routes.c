/* Prints the management listener's routes, one per line: method, path; again those that take a
 * body: body, method, path; then the kinds of what happens to devices: kind, name. With an
 * argument, the routes of the service API for clients of IoT Hub that are served. For
 * check_openapi.py. */
#include <stdio.h>

#include "gateway/session/flight.h"
#include "provisioning/iothub_route.h"
#include "provisioning/provisioning.h"

static const char *const methods[HTTP_METHOD_COUNT] = {
    [HTTP_METHOD_GET] = "get",     [HTTP_METHOD_PUT] = "put",       [HTTP_METHOD_POST] = "post",
    [HTTP_METHOD_PATCH] = "patch", [HTTP_METHOD_DELETE] = "delete",
};

static void print_table(const struct http_route *route) {
    for (; route->pattern; route++) {
        printf("%s %s\n", methods[route->method], route->pattern);
        if (route->body_limit_bytes > 0)
            printf("body %s %s\n", methods[route->method], route->pattern);
    }
}

static void print_iothub(void) {
    for (unsigned i = 0; i < IOTHUB_ROUTE_COUNT; i++)
        if (iothub_rows[i].run)
            printf("%s %s\n", methods[provisioning_device_routes[i].method], iothub_rows[i].path);
}

int main(int count, char **arguments) {
    if (count > 1) {
        print_iothub();
        return 0;
    }
    print_table(provisioning_routes);
    print_table(provisioning_operations_routes);
    for (unsigned i = 0; i < FLIGHT_KIND_COUNT; i++)
        printf("kind %s\n", flight_kinds[i].name);
    return 0;
}
