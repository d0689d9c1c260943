#include "gateway/http/exchange.h"

static const char *const METHOD_NAMES[HTTP_METHOD_COUNT] = {
    [HTTP_METHOD_GET] = "GET",        [HTTP_METHOD_PUT] = "PUT",       [HTTP_METHOD_POST] = "POST",
    [HTTP_METHOD_PATCH] = "PATCH",    [HTTP_METHOD_DELETE] = "DELETE", [HTTP_METHOD_HEAD] = "HEAD",
    [HTTP_METHOD_OPTIONS] = "OPTIONS"};

const char *http_method_name(enum http_method method) {
    return METHOD_NAMES[method];
}

enum http_method http_method_parse(struct slice name) {
    unsigned method = 0;
    while (method < HTTP_METHOD_COUNT && !slice_equals_string(name, METHOD_NAMES[method]))
        method++;
    return (enum http_method)method;
}

/* Cuts the next segment off a pattern that begins with '/'; false at its end. */
static bool next_segment(const char **pattern, struct slice *ret_segment) {
    if (**pattern != '/')
        return false;
    const char *start = *pattern + 1;
    size_t size = strcspn(start, "/");
    *ret_segment = slice_make(start, size);
    *pattern = start + size;
    return true;
}

static bool is_parameter(struct slice segment) {
    return segment.size > 2 && segment.data[0] == '{';
}

/* A parameter is any one segment that is not empty. */
static bool matches(const char *pattern, const struct http_target *target) {
    struct slice segment;
    unsigned i = 0;
    for (; next_segment(&pattern, &segment); i++) {
        if (i == target->segment_count)
            return false;
        struct slice given = target->segments[i];
        if (is_parameter(segment) ? given.size == 0 : !slice_equals(segment, given))
            return false;
    }
    return i == target->segment_count;
}

/* A fixed segment wins over a parameter at the same place ("/devices/query", "/devices/{id}"). */
static bool is_more_exact(const struct http_route *a, const struct http_route *b) {
    const char *first = a->pattern, *second = b->pattern;
    struct slice x, y;
    while (next_segment(&first, &x) && next_segment(&second, &y))
        if (is_parameter(x) != is_parameter(y))
            return is_parameter(y);
    return false;
}

const struct http_route *http_route_find(const struct http_routes *routes,
                                         const struct http_target *target, enum http_method method,
                                         unsigned *ret_allowed) {
    const struct http_route *found = NULL;
    enum http_method served = method == HTTP_METHOD_HEAD ? HTTP_METHOD_GET : method;
    unsigned allowed = 0;
    for (const struct http_route *const *table = routes->tables; table && *table; table++)
        for (const struct http_route *route = *table; route->pattern; route++) {
            if (!matches(route->pattern, target))
                continue;
            allowed |= 1u << route->method;
            if (route->method == HTTP_METHOD_GET)
                allowed |= 1u << HTTP_METHOD_HEAD;
            bool fits = route->method == served || route->method == method;
            if (fits && (!found || is_more_exact(route, found)))
                found = route;
        }
    if (!found)
        *ret_allowed = allowed;
    return found;
}

int http_route_parameter(const struct http_route *route, const char *name) {
    const char *pattern = route->pattern;
    struct slice segment;
    size_t size = strlen(name);
    for (int i = 0; next_segment(&pattern, &segment); i++)
        if (is_parameter(segment) && segment.size == size + 2 &&
            memcmp(segment.data + 1, name, size) == 0)
            return i;
    return -1;
}
