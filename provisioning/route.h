/* The rows of routes_table.h as data: what a route is called, who may use it, what it does. */
#pragma once

#include <stdint.h>

#include "registry/registry.h"

struct provisioning_call;
struct provisioning_resource;

/* Who may read the registry. */
enum {
    PROVISIONING_ROLES_READ = REGISTRY_ROLE_ADMIN | REGISTRY_ROLE_OPERATOR | REGISTRY_ROLE_READER
};

/* Which principals a route is for, before roles are looked at. */
enum provisioning_scope {
    PROVISIONING_SCOPE_PLATFORM, /* keys without a tenant */
    PROVISIONING_SCOPE_TENANT,   /* keys of the tenant in the path, and of the platform */
    PROVISIONING_SCOPE_OWN,      /* every key; the handler shows a tenant's key only its own */
};

struct provisioning_route {
    const char *id; /* "LIST_TENANTS" */
    const char *method;
    const char *path;
    enum provisioning_scope scope;
    uint32_t roles; /* any of these enum registry_role bits */
    uint32_t body_limit_bytes;
    void (*run)(struct provisioning_call *call);
    const struct provisioning_resource *resource;
    const char *summary;
};

enum provisioning_route_id {
#define ROUTE(id, ...) PROVISIONING_##id,
#define OPERATION(...)
#include "provisioning/routes_table.h"
#undef ROUTE
#undef OPERATION
    PROVISIONING_ROUTE_COUNT
};

/* In the order of the table. */
extern const struct provisioning_route provisioning_rows[PROVISIONING_ROUTE_COUNT];
