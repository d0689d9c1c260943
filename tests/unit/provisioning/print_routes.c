/* Prints the management listener's routes, one per line: method, path. For check_openapi.py. */
#include <stdio.h>

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
    return 0;
}
