/* The tables that http walks, made from routes_table.h. */
#include "provisioning/access_policies.h"
#include "provisioning/auth.h"
#include "provisioning/commands.h"
#include "provisioning/connection.h"
#include "provisioning/credentials.h"
#include "provisioning/jobs.h"
#include "provisioning/methods.h"
#include "provisioning/operations.h"
#include "provisioning/provisioning.h"
#include "provisioning/resource.h"
#include "provisioning/route.h"
#include "provisioning/stream_call.h"
#include "provisioning/twins.h"

/* Roles that columns of the table stand for. */
enum {
    ROLES_ADMIN = REGISTRY_ROLE_ADMIN,
    ROLES_MANAGE = REGISTRY_ROLE_ADMIN | REGISTRY_ROLE_OPERATOR,
    ROLES_READ = PROVISIONING_ROLES_READ,
    /* Who may use consumer groups in the Kafka endpoint, and who may see how they stand. */
    ROLES_CONSUME = REGISTRY_ROLE_ADMIN | REGISTRY_ROLE_CONSUMER | REGISTRY_ROLE_AUDITOR,
    ROLES_WATCH = ROLES_READ | ROLES_CONSUME,
    ROLES_COMMAND = REGISTRY_ROLE_ADMIN | REGISTRY_ROLE_COMMANDER,
    ROLES_SHAPE = ROLES_MANAGE | ROLES_COMMAND, /* each its members of a twin */
    ROLES_FOLLOW = ROLES_READ | ROLES_COMMAND,  /* what becomes of commands */
};

/* Largest bodies: metadata and tags with their names and escapes; certificates and secrets. */
enum {
    OBJECT_BYTES = 2 * (LIMIT_METADATA_BYTES + LIMIT_TAGS_BYTES),
    SECRET_BYTES = 32 * 1024,
    POLICY_BYTES = 2 * LIMIT_POLICY_BYTES,
    RESET_BYTES = 4 * 1024,
    COMMAND_BYTES = LIMIT_COMMAND_BODY_BYTES,
    TWIN_BYTES = 4 * LIMIT_TWIN_BYTES, /* with nulls, escapes and white space */
    JOB_BYTES = LIMIT_HTTP_BODY_BYTES,
};

const struct provisioning_route provisioning_rows[] = {
#define ROUTE(id, method_, path_, scope_, roles_, bytes, run_, resource_, summary_) \
    [PROVISIONING_##id] = {#id,                                                     \
                           #method_,                                                \
                           path_,                                                   \
                           PROVISIONING_SCOPE_##scope_,                             \
                           ROLES_##roles_,                                          \
                           bytes,                                                   \
                           run_,                                                    \
                           &resource_##_resource,                                   \
                           summary_},
#define OPERATION(...)
#include "provisioning/routes_table.h"
#undef ROUTE
#undef OPERATION
};

const struct http_route provisioning_routes[] = {
#define ROUTE(id, method_, path_, scope_, roles_, bytes, run_, resource_, summary_) \
    {HTTP_METHOD_##method_,                                                         \
     path_,                                                                         \
     bytes,                                                                         \
     auth_handle,                                                                   \
     &provisioning_rows[PROVISIONING_##id],                                         \
     auth_begin},
#define OPERATION(...)
#include "provisioning/routes_table.h"
#undef ROUTE
#undef OPERATION
    {.pattern = NULL},
};

const struct http_route provisioning_operations_routes[] = {
#define ROUTE(...)
#define OPERATION(id, method_, path_, handler, summary_) \
    {HTTP_METHOD_##method_, path_, 0, handler, NULL},
#include "provisioning/routes_table.h"
#undef ROUTE
#undef OPERATION
    {.pattern = NULL},
};
