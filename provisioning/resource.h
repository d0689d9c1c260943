/*
 * What all kinds of resources have in common: get, put, patch, delete and list, each driven by a
 * row that says which statements and members belong to the kind.
 *
 * Conventions of the statements (registry/statements_table.h):
 *   get      (path...)                               -> outcome, version, body
 *   put      (path..., members..., precondition, extra...) -> outcome, version, body
 *   update   the same as put, but never creates
 *   remove   (path..., precondition)                 -> outcome, version, null
 *   list     (path without the last, cursor, limit, page bytes, filters...) -> key, body,
 * candidates No row at all means that what the path names does not exist. The outcome is a word of
 * the table in resource.c. PostgreSQL writes the body, the handlers pass it on. A list of an
 * existing but empty collection is one row with a null key.
 */
#pragma once

#include "provisioning/call.h"
#include "provisioning/members.h"
#include "provisioning/query.h"

enum { RESOURCE_PATH_MAX = 3 };

struct provisioning_resource {
    const char *noun; /* "device" */
    /* Path parameters in order; the last one names the resource itself. */
    struct {
        const char *parameter;
        enum name_kind kind;
    } path[RESOURCE_PATH_MAX];
    const struct member *members; /* of PUT and PATCH */
    enum registry_statement list, get, put, update, remove;
    unsigned filters; /* enum query_filter: what the list takes */
    /* A check of members against each other; may be NULL. */
    int (*check)(const json_t *object, char *ret_detail, size_t detail_size);
    /* Appends the extra parameters of put and update; may be NULL. A negative error with a detail
     * is answered as a problem. */
    int (*bind_extra)(struct provisioning_call *call, const json_t *object,
                      struct registry_request *request, char *ret_detail, size_t detail_size);
};

extern const struct provisioning_resource tenant_resource, policy_resource, device_resource,
    credential_resource, authority_resource, api_key_resource;

/* Handlers for routes_table.h. */
void resource_list(struct provisioning_call *call);
void resource_get(struct provisioning_call *call);
void resource_put(struct provisioning_call *call);
void resource_patch(struct provisioning_call *call);
void resource_delete(struct provisioning_call *call);

/* ---- for handlers of one kind (credentials.c, api_keys.c)
 * ---------------------------------------- */

/* A statement with the path's parameters appended: those that name the collection, then, when it is
 * not NULL, name instead of the last one. NULL after answering with a problem. */
struct registry_request *resource_request_named(struct provisioning_call *call,
                                                enum registry_statement statement,
                                                struct slice name);
/* The same with the name in the path; refuses names that cannot exist. */
struct registry_request *resource_request(struct provisioning_call *call,
                                          enum registry_statement statement);
DG_NODISCARD int resource_bind_precondition(struct registry_request *request,
                                            const struct etag_condition *precondition);
/* 404: what the path names does not exist. */
void resource_answer_missing(struct provisioning_call *call);
/* 201 and 202 say where the new thing is: the path, and behind it the name that the server gave. */
void resource_add_location(struct provisioning_call *call);
/* Answers from the first row: see the table in resource.c. */
void resource_answer(struct provisioning_call *call, struct registry_request *result);
/* Answers with a body to which members ("key":"...", ...) are added before its last brace. */
void resource_answer_with(struct provisioning_call *call, unsigned status, const char *version,
                          const char *body, const char *members);
/* True after answering 304, since the client has the version that was found. */
bool resource_answer_unchanged(struct provisioning_call *call, struct registry_request *result);
