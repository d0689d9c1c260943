#include "provisioning/stream_call.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "provisioning/query.h"
#include "provisioning/worker.h"

const struct provisioning_resource stream_resource = {
    .noun = "stream", .path = {{"tenant", NAME_TENANT}, {"stream", NAME_OTHER}}};
const struct provisioning_resource group_resource = {
    .noun = "consumer group", .path = {{"tenant", NAME_TENANT}, {"group", NAME_OTHER}}};

struct stream *stream_of(const struct provisioning_call *call) {
    return provisioning_state(call->worker)->stream;
}

static void free_answers(struct stream_call *s) {
    for (unsigned i = 0; i < s->answer_count; i++)
        group_request_free(s->answers[i]);
    free(s->answers);
    s->answers = NULL;
    s->answer_count = s->answers_left = 0;
}

static void free_stream_call(void *state) {
    struct stream_call *s = state;
    free_answers(s);
    if (s->own)
        s->free_own(s->own);
    free(s);
}

/* ---- the tenant ---- */

static void take_tenant(struct provisioning_call *call, const struct registry_tenant_query *query) {
    struct stream_call *s = call->state;
    /* A name may have been given to another tenant since the caller's key was made. */
    bool is_own =
        query->tenant_count == 1 && (call->principal.tenant_key == 0 ||
                                     call->principal.tenant_key == query->tenants[0].tenant_key);
    if (query->err < 0) {
        call_fail(call, query->err, NULL);
    } else if (!is_own) {
        call_problem(call, DG_ERR_NOT_FOUND, "no such tenant");
    } else {
        s->tenant = query->tenants[0];
        s->then(call, s);
    }
}

static void deliver_tenant(struct mail *mail, void *receiver) {
    struct registry_tenant_query *query = (struct registry_tenant_query *)(void *)mail;
    struct http_exchange *x = http_find(receiver, query->owner);
    if (x)
        take_tenant(http_context(x), query);
    registry_tenant_query_free(query);
}

void stream_call_begin(struct provisioning_call *call, stream_call_fn *then) {
    struct slice name = http_path_parameter(call->exchange, "tenant");
    if (!name_is_valid(NAME_TENANT, name)) {
        call_problem(call, DG_ERR_NOT_FOUND, "no such tenant");
        return;
    }
    struct stream_call *s = calloc(1, sizeof(*s));
    struct registry_tenant_query *query = calloc(1, sizeof(*query));
    if (!s || !query) {
        free(s);
        free(query);
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
        return;
    }
    s->then = then;
    call->state = s;
    call->free_state = free_stream_call;
    memcpy(query->tenant, name.data, name.size);
    query->mail.deliver = deliver_tenant;
    query->reply_to = &call->worker->mailbox;
    query->owner = http_exchange_id(call->exchange);
    registry_find_tenants(call->registry, query);
}

enum stream_kind stream_kind_find(const struct registry_tenant *tenant, struct slice name) {
    char topic[KAFKA_TOPIC_NAME_SIZE];
    const enum stream_kind *kind = kafka_topic_kinds;
    for (; *kind != STREAM_KINDS; kind++) {
        kafka_topic_name(tenant, *kind, topic);
        if (slice_equals_string(name, topic) ||
            slice_equals_string(name, kafka_topic_kind_name(*kind)))
            break;
    }
    return *kind;
}

/* ---- questions ---- */

struct group_request *stream_call_question(const struct stream_call *s,
                                           enum group_operation operation, struct slice group) {
    struct group_request *request = group_request_new(operation);
    if (!request)
        return NULL;
    request->tenant_key = s->tenant.tenant_key;
    request->generation = -1; /* a commit: of nobody's */
    if (group_keep(request, group, &request->group))
        return request;
    group_request_free(request);
    return NULL;
}

static void deliver_answer(struct mail *mail, void *receiver) {
    struct group_request *answer = (struct group_request *)(void *)mail;
    struct http_exchange *x = http_find(receiver, answer->owner);
    struct provisioning_call *call = x ? http_context(x) : NULL;
    struct stream_call *s = call ? call->state : NULL;
    if (!s) {
        group_request_free(answer); /* its asker has gone */
        return;
    }
    s->answers[answer->serial] = answer;
    if (--s->answers_left == 0)
        s->then(call, s);
}

static bool are_complete(struct group_request *const *questions, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        if (!questions[i])
            return false;
    return true;
}

void stream_call_ask(struct provisioning_call *call, struct stream_call *s,
                     struct group_request *const *questions, unsigned count, stream_call_fn *then) {
    struct group_request **answers = calloc(count, sizeof(struct group_request *));
    if (!answers || !are_complete(questions, count)) {
        for (unsigned i = 0; i < count; i++)
            group_request_free(questions[i]);
        free(answers);
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
        return;
    }
    free_answers(s);
    s->answers = answers;
    s->answer_count = s->answers_left = count;
    s->then = then;
    for (unsigned i = 0; i < count; i++) {
        questions[i]->owner = http_exchange_id(call->exchange);
        questions[i]->worker = call->worker->index;
        questions[i]->serial = i;
        questions[i]->answered = deliver_answer;
        groups_ask(call->worker, questions[i]); /* its answer comes as mail, later */
    }
}

bool stream_call_may_use_group(struct provisioning_call *call) {
    struct slice group = http_path_parameter(call->exchange, "group");
    if (kafka_roles_may_use_group(call->principal.roles, group))
        return true;
    call_problem(call, DG_ERR_NOT_AUTHORIZED,
                 "groups that begin with audit. are for keys with the role auditor, all others for "
                 "the role consumer");
    return false;
}

void stream_call_missing(struct provisioning_call *call) {
    struct slice group = http_path_parameter(call->exchange, "group");
    call_problem(call, DG_ERR_NOT_FOUND, "no such consumer group '%.*s'", (int)group.size,
                 (const char *)group.data);
}

void stream_call_in_use(struct provisioning_call *call) {
    struct slice group = http_path_parameter(call->exchange, "group");
    call_problem(call, DG_ERR_IN_USE,
                 "consumer group '%.*s' has members; stop its consumers, wait until its state is "
                 "Empty, and try again",
                 (int)group.size, (const char *)group.data);
}

void stream_call_fail(struct provisioning_call *call, int16_t error) {
    int err = groups_err(error);
    if (err == DG_ERR_NOT_FOUND)
        stream_call_missing(call);
    else if (err == DG_ERR_IN_USE)
        stream_call_in_use(call);
    else
        call_fail(call, err, "the group's coordinator has no room for this now");
}

/* ---- answers ---- */

void stream_call_answer(struct provisioning_call *call, json_t *object) {
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (text)
        call_answer(call, 200, NULL, slice_from_string(text));
    else
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
    free(text);
}

void stream_call_answer_page(struct provisioning_call *call, json_t *items, json_t *cursor) {
    stream_call_answer(call, json_pack("{s:o, s:o}", "items", items, "next_cursor", cursor));
}

bool stream_call_page(struct provisioning_call *call, uint32_t count, uint32_t *ret_first,
                      uint32_t *ret_end) {
    char detail[CALL_DETAIL_SIZE] = "", *end = NULL;
    struct query query;
    int err =
        query_parse(http_request_target(call->exchange), false, &query, detail, sizeof(detail));
    unsigned long first = err == 0 ? strtoul(query.cursor, &end, 10) : 0;
    if (err == 0 && (*end != '\0' || first > count)) {
        snprintf(detail, sizeof(detail), "query parameter cursor: is not of this list");
        err = DG_ERR_MALFORMED;
    }
    if (err < 0) {
        call_problem(call, err, "%s", detail);
        return false;
    }
    *ret_first = (uint32_t)first;
    *ret_end = count - *ret_first > query.limit ? *ret_first + query.limit : count;
    query_free(&query);
    return true;
}

json_t *stream_call_cursor(uint32_t end, uint32_t count) {
    char key[16], text[CURSOR_TEXT_SIZE];
    if (end >= count)
        return json_null();
    snprintf(key, sizeof(key), "%" PRIu32, end);
    cursor_encode(slice_from_string(key), text);
    return json_string(text);
}
