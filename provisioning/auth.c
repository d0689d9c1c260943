#include "provisioning/auth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "provisioning/call.h"
#include "provisioning/members.h"
#include "provisioning/worker.h"

bool auth_split_bearer(struct slice header, struct slice *ret_key_id, struct slice *ret_secret) {
    static const char scheme[] = "Bearer ";
    size_t at = sizeof(scheme) - 1;
    if (header.size <= at || strncasecmp((const char *)header.data, scheme, at) != 0)
        return false;
    while (at < header.size && header.data[at] == ' ')
        at++;
    struct slice token = slice_skip(header, at);
    size_t behind = token.size; /* behind the last dot */
    while (behind > 0 && token.data[behind - 1] != '.')
        behind--;
    if (behind <= 1 || behind == token.size)
        return false;
    *ret_key_id = slice_make(token.data, behind - 1);
    *ret_secret = slice_skip(token, behind);
    return true;
}

int auth_permit(const struct provisioning_route *route, const struct registry_identity *principal,
                struct slice tenant) {
    bool platform = principal->tenant_key == 0;
    if (principal->device_key != 0)
        return DG_ERR_NOT_AUTHORIZED;
    if (route->scope == PROVISIONING_SCOPE_TENANT && tenant.size == 0)
        return DG_ERR_NOT_FOUND;
    if (!platform && tenant.size > 0 && !slice_equals_string(tenant, principal->tenant))
        return DG_ERR_NOT_FOUND;
    if (!platform && route->scope == PROVISIONING_SCOPE_PLATFORM)
        return DG_ERR_NOT_AUTHORIZED;
    return principal->roles & route->roles ? 0 : DG_ERR_NOT_AUTHORIZED;
}

static void refuse_credentials(struct http_exchange *x, const char *challenge, const char *detail) {
    http_add_header(x, "WWW-Authenticate", challenge);
    http_respond_problem(x, DG_ERR_BAD_CREDENTIALS, detail);
}

/* What a refused caller is told; a device's key or another tenant's name teaches nothing. */
static void refuse_permission(struct provisioning_call *call, int err) {
    char roles[128];
    if (err == DG_ERR_NOT_FOUND) {
        call_problem(call, err, "no such tenant");
        return;
    }
    roles_print(call->route->roles, roles, sizeof(roles));
    bool platform = call->route->scope == PROVISIONING_SCOPE_PLATFORM;
    call_problem(call, err, "this needs %s with one of the roles %s",
                 platform ? "an API key of the platform" : "an API key", roles);
}

static void check_permission(struct provisioning_call *call) {
    struct slice tenant = http_path_parameter(call->exchange, "tenant");
    int err = auth_permit(call->route, &call->principal, tenant);
    call->permitted = err == 0;
    if (err < 0)
        refuse_permission(call, err);
    else
        http_continue(call->exchange);
}

struct provisioning_call *auth_take_login(struct mail *mail, void *receiver, int *ret_err) {
    struct registry_login *login = (struct registry_login *)(void *)mail;
    struct http_exchange *x = http_find(receiver, login->owner);
    struct provisioning_call *call = x ? http_context(x) : NULL;
    *ret_err = login->err;
    if (call && login->err == 0) {
        call->principal = login->identity;
        connection_set_known(http_connection(x));
    }
    registry_login_free(login);
    return call;
}

/* Worker's thread: the registry has looked at the key. */
static void deliver_login(struct mail *mail, void *receiver) {
    int err;
    struct provisioning_call *call = auth_take_login(mail, receiver, &err);
    if (!call)
        return;
    if (err == 0)
        check_permission(call);
    else if (err == DG_ERR_BAD_CREDENTIALS)
        refuse_credentials(call->exchange, "Bearer realm=\"duragate\", error=\"invalid_token\"",
                           "the API key is unknown, expired or wrong");
    else
        call_fail(call, err, NULL);
}

static struct provisioning_call *create_call(struct http_exchange *x,
                                             const struct http_route *route) {
    struct provisioning_call *call = calloc(1, sizeof(*call));
    if (!call)
        return NULL;
    call->exchange = x;
    call->worker = http_worker(x);
    call->registry = provisioning_state(call->worker)->registry;
    call->route = route->context;
    http_set_context(x, call, call_free);
    return call;
}

/* One header of this form, or the refusal was sent. */
static bool read_bearer(struct http_exchange *x, struct slice *ret_key_id,
                        struct slice *ret_secret) {
    struct slice header;
    unsigned count = http_request_header_count(x, "Authorization");
    if (!connection_may_carry_secrets(http_connection(x))) {
        http_respond_problem(x, DG_ERR_NOT_AUTHORIZED,
                             "API keys are refused in plain text here; use the TLS port");
        return false;
    }
    if (count > 1) {
        http_respond_problem(x, DG_ERR_MALFORMED, "Authorization is given more than once");
        return false;
    }
    if (http_request_header(x, "Authorization", &header) &&
        auth_split_bearer(header, ret_key_id, ret_secret) &&
        ret_key_id->size <= LIMIT_API_KEY_ID_BYTES && ret_secret->size <= LIMIT_PASSWORD_BYTES)
        return true;
    refuse_credentials(x, "Bearer realm=\"duragate\"",
                       "send Authorization: Bearer <key id>.<secret>");
    return false;
}

void auth_begin(struct http_exchange *x, const struct http_route *route) {
    struct slice key_id, secret;
    if (!read_bearer(x, &key_id, &secret))
        return;
    struct provisioning_call *call = create_call(x, route);
    struct registry_login *login =
        call ? registry_login_new(REGISTRY_LOGIN_PRINCIPAL, slice_make(NULL, 0), key_id, secret)
             : NULL;
    if (!login) {
        http_respond_problem(x, DG_ERR_NO_MEMORY, "");
        return;
    }
    login->mail.deliver = deliver_login;
    login->reply_to = &call->worker->mailbox;
    login->owner = http_exchange_id(x);
    registry_login(call->registry, login);
}

void auth_handle(struct http_exchange *x, const struct http_route *route) {
    struct provisioning_call *call = http_context(x);
    dg_assert(call && call->permitted);
    call->route->run(call);
}
