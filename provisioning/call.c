#include "provisioning/call.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "provisioning/json.h"

/* When to ask again, in seconds. */
#define RETRY_AFTER "2"

void call_free(void *context) {
    struct provisioning_call *call = context;
    if (!call)
        return;
    json_decref(call->body);
    free(call->name);
    if (call->secret)
        explicit_bzero(call->secret, strlen(call->secret));
    free(call->secret);
    if (call->state)
        call->free_state(call->state);
    free(call);
}

/* ---- answers ------------------------------------------------------------------------------------
 */

void call_problem(struct provisioning_call *call, int err, const char *format, ...) {
    char detail[CALL_DETAIL_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail, sizeof(detail), format, arguments);
    va_end(arguments);
    if (call->problem)
        call->problem(call, err, detail);
    else
        http_respond_problem(call->exchange, err, detail);
}

void call_fail(struct provisioning_call *call, int err, const char *detail) {
    const char *text = detail ? detail : "";
    switch (err) {
    case DG_ERR_TIMEOUT:
        text = "the registry did not answer in time; a change may have been made all the same";
        break;
    case DG_ERR_UNAVAILABLE:
        text = "the registry cannot be reached";
        break;
    case DG_ERR_LIMIT:
        text = "too many requests of this tenant or API key are under way";
        break;
    case DG_ERR_EXISTS:
        text = "something else already has this name, certificate or thumbprint";
        break;
    case DG_ERR_DISABLED:
        call_problem(call, DG_ERR_NOT_AUTHORIZED, "this API key or its tenant is disabled");
        return;
    }
    if (err == DG_ERR_TIMEOUT)
        err = DG_ERR_UNAVAILABLE;
    bool is_passing = dg_err_row(err)->http_status == 503 || dg_err_row(err)->http_status == 429;
    if (is_passing && !call->problem)
        http_add_header(call->exchange, "Retry-After", RETRY_AFTER);
    call_problem(call, err, "%s", text);
}

void call_answer(struct provisioning_call *call, unsigned status, const char *version,
                 struct slice body) {
    char tag[32];
    if (version) {
        snprintf(tag, sizeof(tag), "\"%s\"", version);
        http_add_header(call->exchange, "ETag", tag);
    }
    http_add_header(call->exchange, "Cache-Control",
                    call->secret ? "no-store" : "private, no-cache");
    http_respond(call->exchange, status, body.size ? "application/json" : NULL, body);
}

/* ---- what the client sent -----------------------------------------------------------------------
 */

/* "application/json; charset=utf-8" is JSON; no header at all is taken for it. */
static bool body_claims_json(struct http_exchange *x) {
    static const char *const types[] = {"application/json", "application/merge-patch+json"};
    struct slice type;
    if (!http_request_header(x, "Content-Type", &type) || type.size == 0)
        return true;
    const uint8_t *semicolon = memchr(type.data, ';', type.size);
    size_t size = semicolon ? (size_t)(semicolon - type.data) : type.size;
    while (size > 0 && type.data[size - 1] == ' ')
        size--;
    for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++)
        if (strlen(types[i]) == size && strncasecmp((const char *)type.data, types[i], size) == 0)
            return true;
    return false;
}

bool call_read_body(struct provisioning_call *call) {
    char detail[CALL_DETAIL_SIZE];
    if (!body_claims_json(call->exchange)) {
        call_problem(call, DG_ERR_MEDIA_TYPE, "send Content-Type: application/json");
        return false;
    }
    int err =
        json_parse_object(http_request_body(call->exchange), &call->body, detail, sizeof(detail));
    if (err < 0)
        call_problem(call, err, "%s", detail);
    return err == 0;
}

bool call_read_precondition(struct provisioning_call *call) {
    struct slice match, none_match;
    bool has_match = http_request_header(call->exchange, "If-Match", &match);
    bool has_none = http_request_header(call->exchange, "If-None-Match", &none_match);
    const char *why = NULL;
    call->precondition = (struct etag_condition){0};
    if (http_request_header_count(call->exchange, "If-Match") > 1 ||
        http_request_header_count(call->exchange, "If-None-Match") > 1)
        why = "If-Match or If-None-Match is given more than once";
    else if (has_match && has_none)
        why = "If-Match and If-None-Match exclude each other";
    else if (has_match && !etag_parse_if_match(match, &call->precondition))
        why = "If-Match takes 1 to 16 entity tags, or *";
    else if (has_none && !slice_equals_string(none_match, "*"))
        why = "If-None-Match takes only * when something is written";
    _Static_assert(ETAG_LIST_MAX == 16, "the sentence names it");
    if (has_none)
        call->precondition = etag_condition_of(ETAG_ABSENT);
    if (why)
        call_problem(call, DG_ERR_MALFORMED, "%s", why);
    return !why;
}

static void refuse_parameter(struct provisioning_call *call, struct slice name,
                             const char *const *known, bool twice) {
    char names[128] = "";
    for (unsigned i = 0; known[i]; i++) {
        size_t at = strlen(names);
        snprintf(names + at, sizeof(names) - at, "%s%s",
                 i == 0         ? ""
                 : known[i + 1] ? ", "
                                : " and ",
                 known[i]);
    }
    if (twice)
        call_problem(call, DG_ERR_MALFORMED, "query parameter %.*s: given twice", (int)name.size,
                     (const char *)name.data);
    else
        call_problem(call, DG_ERR_MALFORMED, "query parameter %.*s: not known; there are %s",
                     (int)name.size, (const char *)name.data, names);
}

bool call_check_parameters(struct provisioning_call *call, const char *const *known) {
    struct slice name;
    unsigned seen = 0;
    for (unsigned i = 0; http_query_name(call->exchange, i, &name); i++) {
        unsigned at = 0;
        while (known[at] && !slice_equals_string(name, known[at]))
            at++;
        if (!known[at] || seen & 1u << at) {
            refuse_parameter(call, name, known, known[at] != NULL);
            return false;
        }
        seen |= 1u << at;
    }
    return true;
}

bool call_read_seconds(struct provisioning_call *call, const char *name, unsigned least,
                       unsigned most, uint32_t *ret_ms) {
    struct slice text;
    unsigned seconds = 0;
    if (!http_query_parameter(call->exchange, name, &text))
        return true;
    bool valid = text.size > 0 && text.size <= 3;
    for (size_t i = 0; valid && i < text.size; i++) {
        valid = text.data[i] >= '0' && text.data[i] <= '9';
        seconds = seconds * 10 + (unsigned)(text.data[i] - '0');
    }
    if (!valid || seconds < least || seconds > most) {
        call_problem(call, DG_ERR_MALFORMED, "query parameter %s: must be %u to %u seconds", name,
                     least, most);
        return false;
    }
    *ret_ms = seconds * 1000;
    return true;
}

/* ---- statements ---------------------------------------------------------------------------------
 */

/* Worker's thread. */
static void deliver_result(struct mail *mail, void *receiver) {
    struct registry_request *request = (struct registry_request *)(void *)mail;
    struct http_exchange *x = http_find(receiver, request->owner);
    struct provisioning_call *call = x ? http_context(x) : NULL;
    if (call && request->err < 0)
        call_fail(call, request->err, request->detail);
    else if (call)
        call->then(call, request);
    registry_request_free(request);
}

void call_send(struct provisioning_call *call, struct registry_request *request,
               void (*deliver)(struct mail *mail, void *receiver)) {
    request->mail.deliver = deliver;
    request->reply_to = &call->worker->mailbox;
    request->owner = http_exchange_id(call->exchange);
    request->account = registry_account(&call->principal);
    request->scope_tenant_key = call->principal.tenant_key;
    registry_execute(call->registry, request);
}

static void deliver_device(struct mail *mail, void *receiver) {
    struct registry_device_query *found = (struct registry_device_query *)(void *)mail;
    struct http_exchange *x = http_find(receiver, found->owner);
    struct provisioning_call *call = x ? http_context(x) : NULL;
    if (call && found->err == DG_ERR_NOT_FOUND)
        call_problem(call, found->err, "no device '%s'", found->device);
    else if (call && found->err < 0)
        call_fail(call, found->err, NULL);
    else if (call)
        call->then_device(call, found);
    free(found);
}

void call_find_device(struct provisioning_call *call,
                      void (*then)(struct provisioning_call *call,
                                   const struct registry_device_query *found)) {
    struct slice tenant = http_path_parameter(call->exchange, "tenant");
    struct slice device = http_path_parameter(call->exchange, "device");
    if (tenant.size == 0) /* IoT Hub's paths have none */
        tenant = slice_from_string(call->principal.tenant);
    struct registry_device_query *query = calloc(1, sizeof(*query));
    if (!query) {
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
        return;
    }
    if (tenant.size >= sizeof(query->tenant) || device.size >= sizeof(query->device) ||
        memchr(device.data, 0, device.size) || memchr(tenant.data, 0, tenant.size)) {
        free(query);
        call_problem(call, DG_ERR_NOT_FOUND, "no device of this name");
        return;
    }
    memcpy(query->tenant, tenant.data, tenant.size);
    memcpy(query->device, device.data, device.size);
    query->scope_tenant_key = call->principal.tenant_key;
    query->owner = http_exchange_id(call->exchange);
    query->reply_to = &call->worker->mailbox;
    query->mail.deliver = deliver_device;
    call->then_device = then;
    registry_find_device(call->registry, query);
}

void call_execute(struct provisioning_call *call, struct registry_request *request,
                  void (*then)(struct provisioning_call *call, struct registry_request *result)) {
    call->then = then;
    call_send(call, request, deliver_result);
}
