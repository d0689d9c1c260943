/* The table of routes and who may use which. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "common/limits.h"
#include "provisioning/auth.h"
#include "provisioning/provisioning.h"
#include "provisioning/resource.h"
#include "provisioning/route.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

Test(routes, every_row_is_complete) {
    for (unsigned i = 0; i < PROVISIONING_ROUTE_COUNT; i++) {
        const struct provisioning_route *row = &provisioning_rows[i];
        const struct http_route *route = &provisioning_routes[i];
        cr_assert(row->id && row->method && row->path && row->run && row->resource && row->summary);
        cr_expect_eq(route->context, row);
        cr_expect_eq(route->pattern, row->path);
        cr_expect(route->begin == auth_begin && route->handle == auth_handle,
                  "%s goes past the check of keys", row->id);
        cr_expect_leq(route->body_limit_bytes, LIMIT_HTTP_BODY_BYTES);
        cr_expect(strncmp(row->path, "/v1/", 4) == 0, "%s", row->path);
        cr_expect_neq(row->roles, 0);
        bool writes = strcmp(row->method, "GET") != 0 && strcmp(row->method, "DELETE") != 0;
        cr_expect(writes || route->body_limit_bytes == 0, "%s", row->id);
        for (unsigned j = 0; j < i; j++)
            cr_expect(strcmp(row->path, provisioning_rows[j].path) != 0 ||
                          strcmp(row->method, provisioning_rows[j].method) != 0,
                      "%s is there twice", row->id);
    }
    cr_expect_null(provisioning_routes[PROVISIONING_ROUTE_COUNT].pattern);
}

/* A route whose path names a tenant checks it, and only platform routes name none. */
Test(routes, scope_follows_from_the_path) {
    for (unsigned i = 0; i < PROVISIONING_ROUTE_COUNT; i++) {
        const struct provisioning_route *row = &provisioning_rows[i];
        bool names_tenant = strstr(row->path, "{tenant}") != NULL;
        if (row->scope == PROVISIONING_SCOPE_TENANT)
            cr_expect(names_tenant, "%s", row->id);
        if (!names_tenant)
            cr_expect_neq(row->scope, PROVISIONING_SCOPE_TENANT, "%s", row->id);
    }
}

Test(routes, path_parameters_are_those_of_the_resource) {
    for (unsigned i = 0; i < PROVISIONING_ROUTE_COUNT; i++) {
        const struct provisioning_route *row = &provisioning_rows[i];
        for (const char *at = strchr(row->path, '{'); at; at = strchr(at + 1, '{')) {
            bool known = false;
            for (unsigned p = 0; p < RESOURCE_PATH_MAX && row->resource->path[p].parameter; p++) {
                size_t size = strlen(row->resource->path[p].parameter);
                known = known || (strncmp(at + 1, row->resource->path[p].parameter, size) == 0 &&
                                  at[1 + size] == '}');
            }
            cr_expect(known, "%s: %s", row->id, at);
        }
    }
}

Test(auth, bearer) {
    static const struct {
        const char *header, *key_id, *secret; /* NULL: refused */
    } cases[] = {
        {"Bearer admin.s3cret", "admin", "s3cret"},
        {"bearer  admin.s3cret", "admin", "s3cret"},
        {"Bearer a.b.c", "a.b", "c"},
        {"Bearer admin", NULL, NULL},
        {"Bearer .x", NULL, NULL},
        {"Bearer x.", NULL, NULL},
        {"Bearer ", NULL, NULL},
        {"Bearer", NULL, NULL},
        {"", NULL, NULL},
        {"Basic YTpi", NULL, NULL},
        {"Bearer.a.b", NULL, NULL},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct slice key_id, secret;
        bool split = auth_split_bearer(slice_from_string(cases[i].header), &key_id, &secret);
        cr_expect_eq(split, cases[i].key_id != NULL, "%s", cases[i].header);
        if (!split)
            continue;
        cr_expect(slice_equals_string(key_id, cases[i].key_id), "%s", cases[i].header);
        cr_expect(slice_equals_string(secret, cases[i].secret), "%s", cases[i].header);
    }
}

/* Columns of the matrix: who asks. Tenant keys belong to acme. */
static const struct {
    const char *name;
    int64_t tenant_key;
    uint32_t roles;
} principals[] = {
    {"platform admin", 0, REGISTRY_ROLE_ADMIN},
    {"platform operator", 0, REGISTRY_ROLE_OPERATOR},
    {"platform reader", 0, REGISTRY_ROLE_READER},
    {"platform consumer", 0, REGISTRY_ROLE_CONSUMER},
    {"acme admin", 7, REGISTRY_ROLE_ADMIN},
    {"acme operator", 7, REGISTRY_ROLE_OPERATOR},
    {"acme reader", 7, REGISTRY_ROLE_READER},
    {"acme consumer", 7, REGISTRY_ROLE_CONSUMER},
    {"acme auditor", 7, REGISTRY_ROLE_AUDITOR},
    {"acme commander", 7, REGISTRY_ROLE_COMMANDER},
    {"no role at all", 7, 0},
};

/* + allowed, - 403, 0 as if it did not exist (404). */
static const struct {
    enum provisioning_route_id route;
    const char *own;   /* tenant acme, or a path without a tenant */
    const char *other; /* tenant other; NULL: the path has none */
} matrix[] = {
    {PROVISIONING_LIST_TENANTS, "+++-+++----", NULL},
    {PROVISIONING_GET_TENANT, "+++-+++----", "+++-0000000"},
    {PROVISIONING_PUT_TENANT, "+----------", "+---0000000"},
    {PROVISIONING_PATCH_TENANT, "+----------", "+---0000000"},
    {PROVISIONING_DELETE_TENANT, "+----------", "+---0000000"},
    {PROVISIONING_GET_POLICY, "+++-+++----", "+++-0000000"},
    {PROVISIONING_PUT_POLICY, "+---+------", "+---0000000"},
    {PROVISIONING_PATCH_POLICY, "+---+------", "+---0000000"},
    {PROVISIONING_LIST_DEVICES, "+++-+++----", "+++-0000000"},
    {PROVISIONING_GET_DEVICE, "+++-+++----", "+++-0000000"},
    {PROVISIONING_PUT_DEVICE, "++--++-----", "++--0000000"},
    {PROVISIONING_PATCH_DEVICE, "++--++-----", "++--0000000"},
    {PROVISIONING_DELETE_DEVICE, "++--++-----", "++--0000000"},
    {PROVISIONING_LIST_RECENT, "+++-+++----", "+++-0000000"},
    {PROVISIONING_CALL_METHOD, "+---+----+-", "+---0000000"},
    {PROVISIONING_LIST_COMMANDS, "+++-+++--+-", "+++-0000000"},
    {PROVISIONING_POST_COMMAND, "+---+----+-", "+---0000000"},
    {PROVISIONING_GET_COMMAND, "+++-+++--+-", "+++-0000000"},
    {PROVISIONING_DELETE_COMMAND, "+---+----+-", "+---0000000"},
    {PROVISIONING_GET_TWIN, "+++-+++----", "+++-0000000"},
    {PROVISIONING_PATCH_TWIN, "++--++---+-", "++--0000000"},
    {PROVISIONING_PUT_DESIRED, "+---+----+-", "+---0000000"},
    {PROVISIONING_LIST_JOBS, "+++-+++--+-", "+++-0000000"},
    {PROVISIONING_GET_JOB, "+++-+++--+-", "+++-0000000"},
    {PROVISIONING_PUT_JOB, "+---+----+-", "+---0000000"},
    {PROVISIONING_DELETE_JOB, "+---+----+-", "+---0000000"},
    {PROVISIONING_ABORT_JOB, "+---+----+-", "+---0000000"},
    {PROVISIONING_LIST_JOB_RESULTS, "+++-+++--+-", "+++-0000000"},
    {PROVISIONING_LIST_CREDENTIALS, "+++-+++----", "+++-0000000"},
    {PROVISIONING_POST_CREDENTIAL, "++--++-----", "++--0000000"},
    {PROVISIONING_GET_CREDENTIAL, "+++-+++----", "+++-0000000"},
    {PROVISIONING_PUT_CREDENTIAL, "++--++-----", "++--0000000"},
    {PROVISIONING_PATCH_CREDENTIAL, "++--++-----", "++--0000000"},
    {PROVISIONING_DELETE_CREDENTIAL, "++--++-----", "++--0000000"},
    {PROVISIONING_LIST_AUTHORITIES, "+++-+++----", "+++-0000000"},
    {PROVISIONING_GET_AUTHORITY, "+++-+++----", "+++-0000000"},
    {PROVISIONING_PUT_AUTHORITY, "+---+------", "+---0000000"},
    {PROVISIONING_PATCH_AUTHORITY, "+---+------", "+---0000000"},
    {PROVISIONING_DELETE_AUTHORITY, "+---+------", "+---0000000"},
    {PROVISIONING_LIST_API_KEYS, "+++-+++----", "+++-0000000"},
    {PROVISIONING_POST_API_KEY, "+---+------", "+---0000000"},
    {PROVISIONING_GET_API_KEY, "+++-+++----", "+++-0000000"},
    {PROVISIONING_PATCH_API_KEY, "+---+------", "+---0000000"},
    {PROVISIONING_DELETE_API_KEY, "+---+------", "+---0000000"},
    {PROVISIONING_LIST_ACCESS_POLICIES, "+++-+++----", "+++-0000000"},
    {PROVISIONING_GET_ACCESS_POLICY, "+++-+++----", "+++-0000000"},
    {PROVISIONING_PUT_ACCESS_POLICY, "+---+------", "+---0000000"},
    {PROVISIONING_PATCH_ACCESS_POLICY, "+---+------", "+---0000000"},
    {PROVISIONING_DELETE_ACCESS_POLICY, "+---+------", "+---0000000"},
    {PROVISIONING_LIST_PLATFORM_KEYS, "+++--------", NULL},
    {PROVISIONING_POST_PLATFORM_KEY, "+----------", NULL},
    {PROVISIONING_GET_PLATFORM_KEY, "+++--------", NULL},
    {PROVISIONING_PATCH_PLATFORM_KEY, "+----------", NULL},
    {PROVISIONING_DELETE_PLATFORM_KEY, "+----------", NULL},
    {PROVISIONING_LIST_STREAMS, "+++++++++--", "++++0000000"},
    {PROVISIONING_LIST_PARTITIONS, "+++++++++--", "++++0000000"},
    {PROVISIONING_LIST_GROUPS, "+++++++++--", "++++0000000"},
    {PROVISIONING_GET_GROUP, "+++++++++--", "++++0000000"},
    {PROVISIONING_RESET_GROUP, "+--++--++--", "+--+0000000"},
    {PROVISIONING_DELETE_GROUP, "+--++--++--", "+--+0000000"},
};

static int wanted_err(char c) {
    return c == '+' ? 0 : c == '-' ? DG_ERR_NOT_AUTHORIZED : DG_ERR_NOT_FOUND;
}

static void expect_row(const struct provisioning_route *route, const char *wanted,
                       const char *tenant) {
    for (size_t i = 0; i < COUNT_OF(principals); i++) {
        struct registry_identity identity = {.tenant_key = principals[i].tenant_key,
                                             .roles = principals[i].roles};
        if (identity.tenant_key)
            strcpy(identity.tenant, "acme");
        int err = auth_permit(route, &identity, slice_from_string(tenant));
        cr_expect_eq(err, wanted_err(wanted[i]), "%s, %s, tenant '%s': %d", route->id,
                     principals[i].name, tenant, err);
    }
}

Test(auth, matrix) {
    cr_assert_eq(COUNT_OF(matrix), PROVISIONING_ROUTE_COUNT);
    for (size_t i = 0; i < COUNT_OF(matrix); i++) {
        const struct provisioning_route *route = &provisioning_rows[matrix[i].route];
        cr_assert_eq((size_t)matrix[i].route, i);
        expect_row(route, matrix[i].own, matrix[i].other ? "acme" : "");
        if (matrix[i].other)
            expect_row(route, matrix[i].other, "other");
    }
}

/* An empty tenant in the path must not turn into "the platform's". */
Test(auth, empty_tenant_and_devices) {
    struct registry_identity platform = {.roles = REGISTRY_ROLE_ADMIN};
    struct registry_identity device = {
        .tenant_key = 7, .tenant = "acme", .device_key = 3, .roles = REGISTRY_ROLE_ADMIN};
    for (unsigned i = 0; i < PROVISIONING_ROUTE_COUNT; i++) {
        const struct provisioning_route *route = &provisioning_rows[i];
        if (route->scope == PROVISIONING_SCOPE_TENANT)
            cr_expect_eq(auth_permit(route, &platform, slice_from_string("")), DG_ERR_NOT_FOUND);
        cr_expect_eq(auth_permit(route, &device, slice_from_string("acme")), DG_ERR_NOT_AUTHORIZED);
    }
}
