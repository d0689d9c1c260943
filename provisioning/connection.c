#include "provisioning/connection.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "gateway/session/inquiry.h"
#include "provisioning/json.h"
#include "provisioning/query.h"
#include "provisioning/resource.h"
#include "provisioning/stream_call.h"

/* Columns of STATEMENT_DEVICE_GET. */
enum { COLUMN_VERSION = 1, COLUMN_BODY, COLUMN_DEVICE_KEY, COLUMN_CREATED_MS };
enum { RECENT_DEFAULT = 50, END_SEARCHED = 20 };

/* What the registry said, until the workers have answered. */
struct found {
    char version[24];
    char body[]; /* JSON of the device */
};

/* ---- asking ---- */

static void deliver_answer(struct worker *worker, struct inquiry *inquiry,
                           void (*then)(struct provisioning_call *, const struct inquiry *)) {
    struct http_exchange *x = http_find(worker, inquiry->owner);
    struct provisioning_call *call = x ? http_context(x) : NULL;
    if (call)
        then(call, inquiry);
    inquiry_free(inquiry);
}

/* About the device that was found. */
static void ask(struct provisioning_call *call, const struct registry_request *result,
                unsigned wanted, void (*answered)(struct worker *worker, struct inquiry *inquiry)) {
    struct inquiry *inquiry = inquiry_new(wanted);
    if (!inquiry) {
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
        return;
    }
    inquiry->owner = http_exchange_id(call->exchange);
    inquiry->device_key = strtoll(registry_value(result, 0, COLUMN_DEVICE_KEY), NULL, 10);
    inquiry->since_ms = strtoll(registry_value(result, 0, COLUMN_CREATED_MS), NULL, 10);
    inquiry->claimed_key = flight_claimed_key(http_path_parameter(call->exchange, "tenant"),
                                              http_path_parameter(call->exchange, "device"));
    inquiry->answered = answered;
    inquiry_send(call->worker, inquiry);
}

/* ---- entries ---- */

static json_t *json_from_time(int64_t wall_ms) {
    char text[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(wall_ms, text);
    return json_stringn(text, sizeof(text));
}

static json_t *json_from_part(struct slice text) {
    return text.size ? json_from_text(text, text.size) : json_null();
}

static json_t *describe_entry(const struct flight_entry *entry) {
    const struct flight_kind_row *row = &flight_kinds[entry->kind];
    const char *advice = flight_advice(entry->kind, entry->err);
    char text[160];
    flight_print(entry, text, sizeof(text));
    return json_pack("{s:o, s:s, s:s, s:i, s:o, s:s?, s:o, s:I, s:s?}", "at",
                     json_from_time(entry->at_ms), "kind", row->name, "text", text, "reason_code",
                     (int)entry->reason_code, "peer", json_from_part(flight_peer(entry)),
                     "detail_name", row->detail, "detail", json_from_part(flight_detail(entry)),
                     "count", (json_int_t)entry->count, "advice", advice);
}

/* ---- the connection ---- */

static json_t *describe_connected(const struct inquiry_connection *c) {
    return json_pack(
        "{s:b, s:s, s:o, s:s, s:s, s:o, s:o, s:i, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:o}",
        "connected", true, "protocol", c->protocol, "client_id",
        json_from_text(slice_make(c->client_id, c->client_id_size), sizeof(c->client_id)), "peer",
        c->peer, "session_id", c->session_id, "since", json_from_time(c->since_ms), "last_activity",
        json_from_time(c->last_activity_ms), "keep_alive_seconds", (int)c->keep_alive_s,
        "session_expiry_seconds", (json_int_t)c->expiry_s, "in_flight", (json_int_t)c->in_flight,
        "unreleased", (json_int_t)c->unreleased, "published", (json_int_t)c->published, "refused",
        (json_int_t)c->refused, "dropped", (json_int_t)c->dropped, "worker", (int)c->worker,
        "credential_key", json_from_offset(c->credential_key));
}

static json_t *describe_last_end(const struct inquiry *inquiry) {
    for (unsigned i = 0; i < inquiry->entry_count; i++)
        if (flight_kinds[inquiry->entries[i].kind].is_end)
            return describe_entry(&inquiry->entries[i]);
    return json_null();
}

static json_t *describe_session(const struct inquiry *inquiry) {
    const struct inquiry_kept *kept = &inquiry->kept;
    if (!inquiry->is_kept)
        return json_null();
    return json_pack("{s:o, s:o}", "disconnected_at", json_from_time(kept->disconnected_ms),
                     "expires_at",
                     json_from_time(kept->disconnected_ms + (int64_t)kept->expiry_s * 1000));
}

static json_t *describe_connection(const struct inquiry *inquiry) {
    if (inquiry->is_connected)
        return describe_connected(&inquiry->connection);
    return json_pack("{s:b, s:o, s:o}", "connected", false, "last_end", describe_last_end(inquiry),
                     "session", describe_session(inquiry));
}

static void answer_device(struct provisioning_call *call, const struct inquiry *inquiry) {
    const struct found *found = call->state;
    json_t *members = json_pack("{s:o}", "connection", describe_connection(inquiry));
    char *text = members ? json_dumps(members, JSON_COMPACT) : NULL;
    json_decref(members);
    if (text) {
        text[strlen(text) - 1] = '\0'; /* without its braces */
        resource_answer_with(call, 200, found->version, found->body, text + 1);
    } else {
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
    }
    free(text);
}

static void deliver_device(struct worker *worker, struct inquiry *inquiry) {
    deliver_answer(worker, inquiry, answer_device);
}

static void then_device(struct provisioning_call *call, struct registry_request *result) {
    if (resource_answer_unchanged(call, result))
        return;
    if (result->row_count == 0) {
        resource_answer(call, result);
        return;
    }
    const char *body = registry_value(result, 0, COLUMN_BODY);
    struct found *found = malloc(sizeof(*found) + strlen(body) + 1);
    if (!found) {
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
        return;
    }
    snprintf(found->version, sizeof(found->version), "%s",
             registry_value(result, 0, COLUMN_VERSION));
    strcpy(found->body, body);
    call->state = found;
    call->free_state = free;
    ask(call, result, END_SEARCHED, deliver_device);
}

void device_get(struct provisioning_call *call) {
    struct registry_request *request = resource_request(call, STATEMENT_DEVICE_GET);
    if (request)
        call_execute(call, request, then_device);
}

/* ---- lately ---- */

static void answer_recent(struct provisioning_call *call, const struct inquiry *inquiry) {
    json_t *items = json_array();
    for (unsigned i = 0; i < inquiry->entry_count; i++)
        items = json_append(items, describe_entry(&inquiry->entries[i]));
    stream_call_answer_page(call, items, json_null());
}

static void deliver_recent(struct worker *worker, struct inquiry *inquiry) {
    deliver_answer(worker, inquiry, answer_recent);
}

/* False after answering. */
static bool read_limit(struct provisioning_call *call, unsigned *ret_limit) {
    char detail[CALL_DETAIL_SIZE] = "";
    struct query query;
    struct slice value;
    int err =
        query_parse(http_request_target(call->exchange), false, &query, detail, sizeof(detail));
    if (err < 0) {
        call_problem(call, err, "%s", detail);
        return false;
    }
    bool is_given = http_query_parameter(call->exchange, "limit", &value);
    *ret_limit = !is_given                            ? RECENT_DEFAULT
                 : query.limit < LIMIT_RECENT_ENTRIES ? query.limit
                                                      : LIMIT_RECENT_ENTRIES;
    query_free(&query);
    return true;
}

static void then_recent(struct provisioning_call *call, struct registry_request *result) {
    unsigned limit;
    if (result->row_count == 0)
        resource_answer(call, result);
    else if (read_limit(call, &limit))
        ask(call, result, limit, deliver_recent);
}

void device_list_recent(struct provisioning_call *call) {
    struct registry_request *request = resource_request(call, STATEMENT_DEVICE_GET);
    if (request)
        call_execute(call, request, then_recent);
}
