/*
 * Device twins for back ends. One statement checks the condition, merges, and writes what the
 * stream is to say (schemas/0008_twins.sql); PostgreSQL tells whichever gateway has the device.
 */
#include "provisioning/twins.h"

#include <stdlib.h>

#include "gateway/command/relay.h"
#include "gateway/command/transitions.h"
#include "provisioning/json.h"
#include "provisioning/resource.h"
#include "registry/twin.h"

/* Who may write which member. */
static const struct {
    const char *name, *pointer;
    uint32_t roles;
} members[] = {
    {"desired", "/desired", REGISTRY_ROLE_ADMIN | REGISTRY_ROLE_COMMANDER},
    {"tags", "/tags", REGISTRY_ROLE_ADMIN | REGISTRY_ROLE_OPERATOR},
};
enum { MEMBER_COUNT = sizeof(members) / sizeof(members[0]) };

/* The ETag covers what back ends write, so an answer is never 304: what the device has reported is
 * in it too. */
void twin_get(struct provisioning_call *call) {
    struct registry_request *request = resource_request(call, STATEMENT_TWIN_GET);
    if (request)
        call_execute(call, request, resource_answer);
}

/* ---- writing ---- */

static void then_written(struct provisioning_call *call, struct registry_request *result) {
    relay_soon(call->worker);
    resource_answer(call, result);
}

/* NULL: SQL NULL. */
static int bind_document(struct registry_request *request, const json_t *document) {
    char *text = document ? json_print_exact(document) : NULL;
    if (document && !text)
        return DG_ERR_NO_MEMORY;
    int err = registry_request_add(request, text ? slice_from_string(text) : slice_make(NULL, 0));
    free(text);
    return err;
}

static void write_twin(struct provisioning_call *call, const json_t *desired, const json_t *tags,
                       bool replaces) {
    struct registry_request *request = resource_request(call, STATEMENT_TWIN_WRITE);
    if (!request)
        return;
    int err = bind_document(request, desired);
    if (err == 0)
        err = bind_document(request, tags);
    if (err == 0)
        err = registry_request_add(request, slice_from_string(replaces ? "true" : "false"));
    if (err == 0)
        err = resource_bind_precondition(request, &call->precondition);
    if (err == 0)
        err = registry_request_add(request, slice_from_string(transitions_instance(call->worker)));
    if (err < 0) {
        registry_request_free(request);
        call_fail(call, err, NULL);
        return;
    }
    call_execute(call, request, then_written);
}

/* False after answering. */
static bool check_document(struct provisioning_call *call, const json_t *document,
                           const char *pointer) {
    char detail[CALL_DETAIL_SIZE] = "";
    int err = twin_check(document, pointer, detail, sizeof(detail));
    if (err < 0)
        call_problem(call, DG_ERR_INVALID, "%s", detail);
    return err == 0;
}

/* Index of a member that is known; else MEMBER_COUNT. */
static unsigned find_member(const char *name) {
    unsigned i = 0;
    while (i < MEMBER_COUNT && strcmp(members[i].name, name) != 0)
        i++;
    return i;
}

/* False after answering. */
static bool check_members(struct provisioning_call *call) {
    const char *name;
    json_t *value;
    json_object_foreach(call->body, name, value) {
        char pointer[128] = "";
        unsigned at = find_member(name);
        json_pointer_append(pointer, sizeof(pointer), name);
        if (at == MEMBER_COUNT) {
            call_problem(call, DG_ERR_INVALID, "%s: no such member here; allowed: desired, tags",
                         pointer);
            return false;
        }
        if (!(call->principal.roles & members[at].roles)) {
            char roles[64];
            roles_print(members[at].roles, roles, sizeof(roles));
            call_problem(call, DG_ERR_NOT_AUTHORIZED, "%s: needs one of the roles %s", pointer,
                         roles);
            return false;
        }
        if (!check_document(call, value, members[at].pointer))
            return false;
    }
    return true;
}

void twin_patch(struct provisioning_call *call) {
    if (call_read_precondition(call) && call_read_body(call) && check_members(call))
        write_twin(call, json_object_get(call->body, "desired"),
                   json_object_get(call->body, "tags"), false);
}

void twin_put_desired(struct provisioning_call *call) {
    if (call_read_precondition(call) && call_read_body(call) &&
        check_document(call, call->body, ""))
        write_twin(call, call->body, NULL, true);
}
