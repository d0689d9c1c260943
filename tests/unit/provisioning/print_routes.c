/* Prints the management listener's routes, one per line: method, path; then the kinds of what
 * happens to devices: kind, name. For check_openapi.py. */
#include <stdio.h>

#include "gateway/session/flight.h"
#include "provisioning/provisioning.h"

static const char *const methods[HTTP_METHOD_COUNT] = {
    [HTTP_METHOD_GET] = "get",     [HTTP_METHOD_PUT] = "put",       [HTTP_METHOD_POST] = "post",
    [HTTP_METHOD_PATCH] = "patch", [HTTP_METHOD_DELETE] = "delete",
};

static void print_table(const struct http_route *route) {
    for (; route->pattern; route++)
        printf("%s %s\n", methods[route->method], route->pattern);
}

int main(void) {
    print_table(provisioning_routes);
    print_table(provisioning_operations_routes);
    for (unsigned i = 0; i < FLIGHT_KIND_COUNT; i++)
        printf("kind %s\n", flight_kinds[i].name);
    return 0;
}
