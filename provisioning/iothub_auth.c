/*
 * Who calls the service API, and may they: an access policy's token says of which host it is, the
 * host which tenant is meant (iothub.hosts), the registry whether a key of the policy signed it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/host_map.h"
#include "gateway/http/target.h"
#include "provisioning/auth.h"
#include "provisioning/iothub_route.h"
#include "provisioning/members.h"
#include "provisioning/worker.h"
#include "registry/sas.h"

struct iothub_call {
    struct provisioning_call call; /* first: freed as one */
    const struct iothub_route *route;
};

static const struct iothub_route *route_of(const struct provisioning_call *call) {
    return ((const struct iothub_call *)(const void *)call)->route;
}

/* ---- the token ---- */

/* "host/devices/d1", decoded: what is used. False: it cannot be a resource of a token. */
static bool print_resource(struct http_exchange *x, const char *host, char *ret_text, size_t room) {
    uint8_t copy[LIMIT_HTTP_TARGET_BYTES];
    struct slice raw = http_request_target(x);
    struct http_target target;
    if (raw.size > sizeof(copy))
        return false;
    memcpy(copy, raw.data, raw.size);
    if (http_target_parse(raw, copy, &target) < 0)
        return false;
    size_t size = (size_t)snprintf(ret_text, room, "%s", host);
    for (unsigned i = 0; i < target.segment_count && size < room; i++)
        size +=
            (size_t)snprintf(ret_text + size, room - size, "/%.*s", (int)target.segments[i].size,
                             (const char *)target.segments[i].data);
    return size < room;
}

/* Which policy of which tenant the token says to be of: "tenant/policy". NULL, or why not. */
static const char *read_token(struct http_exchange *x, struct slice header, char *ret_policy,
                              size_t room) {
    struct sas_token token;
    char host[LIMIT_HOST_BYTES + 1], resource[LIMIT_HOST_BYTES + LIMIT_HTTP_TARGET_BYTES];
    struct slice tenant, known;
    if (http_request_header_count(x, "Authorization") != 1 || header.size > LIMIT_PASSWORD_BYTES ||
        sas_parse(header, &token) < 0 || token.policy.size == 0)
        return "send Authorization: SharedAccessSignature sr=..&sig=..&se=..&skn=.. of an access "
               "policy";
    if (!sas_read_host(&token, host, sizeof(host)) ||
        !host_map_find(http_worker(x)->config->iothub_hosts, slice_from_string(host), &known,
                       &tenant))
        return "the token is for a host that iothub.hosts does not name";
    if (!print_resource(x, host, resource, sizeof(resource)) ||
        !sas_covers(&token, slice_from_string(resource)))
        return "the token is for another resource";
    int size = snprintf(ret_policy, room, "%.*s/%.*s", (int)tenant.size, (const char *)tenant.data,
                        (int)token.policy.size, (const char *)token.policy.data);
    return name_is_valid(NAME_OTHER, token.policy) && (size_t)size < room
               ? NULL
               : "the token names a policy that cannot exist";
}

/* ---- may they ---- */

static void check_permission(struct provisioning_call *call) {
    struct http_exchange *x = call->exchange;
    const struct iothub_route *route = route_of(call);
    struct slice version;
    char right[64];
    roles_print(route->right, right, sizeof(right));
    call->permitted = (call->principal.roles & route->right) != 0;
    if (!call->permitted)
        iothub_refuse(x, IOTHUB_IotHubUnauthorizedAccess, "the policy lacks the right %s", right);
    else if (!http_query_parameter(x, "api-version", &version) || version.size == 0)
        iothub_refuse(x, IOTHUB_InvalidProtocolVersion, "the query lacks api-version");
    else
        http_continue(x);
}

/* Worker's thread: the registry has looked at the token. */
static void deliver_login(struct mail *mail, void *receiver) {
    int err;
    struct provisioning_call *call = auth_take_login(mail, receiver, &err);
    if (!call)
        return;
    if (err == 0)
        check_permission(call);
    else if (err == DG_ERR_BAD_CREDENTIALS)
        iothub_refuse(
            call->exchange, IOTHUB_IotHubUnauthorized,
            "the policy is unknown, or the token has expired or was signed by another key");
    else
        iothub_problem(call, err, "");
}

static struct provisioning_call *create_call(struct http_exchange *x,
                                             const struct http_route *route) {
    struct iothub_call *call = calloc(1, sizeof(*call));
    if (!call)
        return NULL;
    call->route = route->context;
    call->call.exchange = x;
    call->call.worker = http_worker(x);
    call->call.registry = provisioning_state(call->call.worker)->registry;
    call->call.problem = iothub_problem;
    http_set_context(x, call, call_free);
    return &call->call;
}

void iothub_begin(struct http_exchange *x, const struct http_route *route) {
    char policy[LIMIT_DEVICE_ID_BYTES + 1];
    struct slice header = slice_make(NULL, 0), nobody = slice_make(NULL, 0);
    (void)http_request_header(x, "Authorization", &header);
    const char *why = connection_may_carry_secrets(http_connection(x))
                          ? read_token(x, header, policy, sizeof(policy))
                          : "tokens are refused in plain text; use the TLS port";
    if (why) {
        iothub_refuse(x, IOTHUB_IotHubUnauthorized, "%s", why);
        return;
    }
    struct provisioning_call *call = create_call(x, route);
    struct registry_login *login = call ? registry_login_new(REGISTRY_LOGIN_ACCESS_POLICY, nobody,
                                                             slice_from_string(policy), header)
                                        : NULL;
    if (!login) {
        iothub_refuse(x, IOTHUB_ServiceUnavailable, "%s", dg_err_text(DG_ERR_NO_MEMORY));
        return;
    }
    login->mail.deliver = deliver_login;
    login->reply_to = &call->worker->mailbox;
    login->owner = http_exchange_id(x);
    registry_login(call->registry, login);
}

void iothub_handle(struct http_exchange *x, const struct http_route *route) {
    struct provisioning_call *call = http_context(x);
    dg_assert(call && call->permitted);
    const struct iothub_route *row = route_of(call);
    if (row->run)
        row->run(call);
    else
        iothub_refuse(x, row->error, "%s %s is not served here", row->method, row->path);
}
