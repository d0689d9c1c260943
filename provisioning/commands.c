/*
 * Commands over HTTP. Creating one asks the registry for the device, then the device's home for the
 * command (commands_create()); what is answered then is command_wait.c's.
 */
#include "provisioning/commands.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/metrics.h"
#include "gateway/command/relay.h"
#include "gateway/command/transitions.h"
#include "provisioning/command_view.h"
#include "provisioning/posting.h"

enum { ATTEMPTS_MAX = 3, WAIT_S = 30, WAIT_MAX_S = 300 };

const struct provisioning_resource command_resource = {
    .noun = "command",
    .path = {{"tenant", NAME_TENANT}, {"device", NAME_HUB_DEVICE}, {"command", NAME_OTHER}},
    .members = command_members,
    .list = STATEMENT_COMMAND_LIST,
    .get = STATEMENT_COMMAND_GET,
    .filters = QUERY_STATE};

/* ---- creating ---- */

struct posting *posting_of(struct provisioning_call *call) {
    return call->route->run == command_post ? call->state : NULL;
}

static void free_posting(void *state) {
    struct posting *posting = state;
    posting_end_wait(posting);
    command_draft_free(&posting->draft);
    free(posting);
}

static void create(struct provisioning_call *call);

static void answer_queued(struct provisioning_call *call, const struct command_created *created) {
    struct posting *posting = call->state;
    struct buffer out = {0};
    int err = command_view_queued(&posting->draft, created, posting->idempotency_key, &out);
    resource_add_location(call);
    if (err < 0)
        call_fail(call, err, NULL);
    else
        call_answer(call, 202, NULL, buffer_slice(&out));
    buffer_free(&out);
}

static void answer_failure(struct provisioning_call *call, int err) {
    struct slice device = http_path_parameter(call->exchange, "device");
    if (err == DG_ERR_NOT_FOUND) {
        call_problem(call, err, "no device '%.*s' any more", (int)device.size,
                     (const char *)device.data);
    } else if (err == DG_ERR_QUOTA) {
        http_add_header(call->exchange, "Retry-After", "60");
        call_problem(call, err,
                     "%d commands wait for device '%.*s', and no more may: cancel some, or let it "
                     "take them",
                     LIMIT_COMMANDS_PENDING, (int)device.size, (const char *)device.data);
    } else {
        call_fail(call, err, NULL);
    }
}

static void go_on(struct provisioning_call *call, const struct command_created *created) {
    struct posting *posting = call->state;
    char id[COMMAND_ID_SIZE];
    command_format_id(created->key, id);
    call->name = strdup(id);
    posting->command_key = created->key;
    posting->must_match = created->is_repeated;
    if (!call->name)
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
    else if (posting->waits || posting->must_match)
        posting_wait(call);
    else
        answer_queued(call, created);
}

/* Busy with a key: another one is being created with it this moment; asked again it is there. */
static void on_created(struct worker *worker, uint64_t owner,
                       const struct command_created *created) {
    struct http_exchange *x = http_find(worker, owner);
    struct provisioning_call *call = x ? http_context(x) : NULL;
    struct posting *posting = call ? posting_of(call) : NULL;
    if (!posting)
        return;
    if (created->err == 0)
        go_on(call, created);
    else if (created->err == DG_ERR_BUSY && posting->idempotency_key.size > 0 &&
             ++posting->attempts < ATTEMPTS_MAX)
        create(call);
    else
        answer_failure(call, created->err);
}

static void create(struct provisioning_call *call) {
    struct posting *posting = call->state;
    const struct command_draft *draft = &posting->draft;
    struct command_request request = {
        .target = posting->target,
        .dialect = COMMAND_NATIVE,
        .name = draft->name,
        .payload = slice_make(draft->payload, draft->payload_size),
        .content_type = draft->content_type,
        .properties = slice_from_string(draft->properties),
        .idempotency_key = posting->idempotency_key,
        .ttl_ms = draft->ttl_ms,
        .pending_max = LIMIT_COMMANDS_PENDING,
        .wants_reply = draft->wants_reply,
        .owner = http_exchange_id(call->exchange),
        .created = on_created,
    };
    int err = commands_create(call->worker, &request);
    if (err < 0)
        call_fail(call, err, NULL);
}

/* ---- what the client asks for ---- */

static void then_create(struct provisioning_call *call, const struct registry_device_query *found) {
    struct posting *posting = call->state;
    posting->target = (struct command_target){.tenant_key = found->tenant_key,
                                              .stream_id = found->stream_id,
                                              .device_key = found->device_key,
                                              .partition = found->partition};
    memcpy(posting->target.tenant, found->tenant, sizeof(posting->target.tenant));
    memcpy(posting->target.device, found->device, sizeof(posting->target.device));
    create(call);
}

static bool read_wait(struct provisioning_call *call, struct posting *posting) {
    static const char *const known[] = {"wait", "timeout", NULL};
    struct slice state, timeout;
    posting->timeout_ms = WAIT_S * 1000;
    if (!call_check_parameters(call, known) ||
        !call_read_seconds(call, "timeout", 1, WAIT_MAX_S, &posting->timeout_ms))
        return false;
    posting->waits = http_query_parameter(call->exchange, "wait", &state);
    posting->wanted = posting->waits ? command_state_find(state) : COMMAND_QUEUED;
    if (posting->wanted == COMMAND_STATE_COUNT)
        call_problem(call, DG_ERR_MALFORMED, "query parameter wait: must be one of:%s",
                     COMMAND_STATE_NAMES);
    else if (!posting->waits && http_query_parameter(call->exchange, "timeout", &timeout))
        call_problem(call, DG_ERR_MALFORMED,
                     "query parameter timeout: says how long to wait; for what says wait");
    else
        return true;
    return false;
}

static bool read_idempotency_key(struct provisioning_call *call, struct posting *posting) {
    static const char name[] = "Idempotency-Key";
    if (!http_request_header(call->exchange, name, &posting->idempotency_key))
        return true;
    if (http_request_header_count(call->exchange, name) == 1 &&
        command_idempotency_key_is_valid(posting->idempotency_key))
        return true;
    call_problem(call, DG_ERR_MALFORMED, "%s: must be there once, with 1 to 128 printable bytes",
                 name);
    return false;
}

static bool read_draft(struct provisioning_call *call, struct posting *posting) {
    char detail[CALL_DETAIL_SIZE] = "";
    if (!call_read_body(call))
        return false;
    int err = command_draft_read(call->body, &posting->draft, detail, sizeof(detail));
    if (err < 0)
        call_problem(call, err, "%s", detail);
    return err == 0;
}

void command_post(struct provisioning_call *call) {
    struct posting *posting = calloc(1, sizeof(*posting));
    if (!posting) {
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
        return;
    }
    call->state = posting;
    call->free_state = free_posting;
    if (read_wait(call, posting) && read_idempotency_key(call, posting) &&
        read_draft(call, posting))
        call_find_device(call, then_create);
}

/* ---- reading ---- */

static void then_get(struct provisioning_call *call, struct registry_request *result) {
    struct buffer out = {0};
    if (result->row_count == 0) {
        resource_answer_missing(call);
        return;
    }
    int err = command_view_row(result, &out);
    if (err < 0)
        call_fail(call, err, NULL);
    else
        call_answer(call, 200, NULL, buffer_slice(&out));
    buffer_free(&out);
}

void command_get(struct provisioning_call *call) {
    struct registry_request *request = resource_request(call, STATEMENT_COMMAND_GET);
    if (request)
        call_execute(call, request, then_get);
}

/* ---- cancelling ---- */

/* The columns of COMMAND_CANCEL. */
enum cancel_column { COLUMN_OUTCOME, COLUMN_STATE };

static void then_cancelled(struct provisioning_call *call, struct registry_request *result) {
    const char *outcome = result->row_count ? registry_value(result, 0, COLUMN_OUTCOME) : NULL;
    const char *state = outcome ? registry_value(result, 0, COLUMN_STATE) : NULL;
    if (!outcome) {
        resource_answer_missing(call);
    } else if (strcmp(outcome, "cancelled") == 0) {
        metric_add(METRIC_COMMANDS_CANCELLED, 1);
        relay_soon(call->worker);
        call_answer(call, 204, NULL, slice_make(NULL, 0));
    } else if (strcmp(outcome, "held") == 0) {
        call_problem(call, DG_ERR_IN_USE,
                     "a gateway is delivering it to the device (its state is %s): it cannot be "
                     "taken back any more",
                     state);
    } else {
        call_problem(call, DG_ERR_OVER, "there is nothing left to cancel: its state is %s", state);
    }
}

void command_delete(struct provisioning_call *call) {
    struct registry_request *request = resource_request(call, STATEMENT_COMMAND_CANCEL);
    int err = request ? registry_request_add(request,
                                             slice_from_string(transitions_instance(call->worker)))
                      : 0;
    if (request && err == 0) {
        call_execute(call, request, then_cancelled);
    } else if (request) {
        registry_request_free(request);
        call_fail(call, err, NULL);
    }
}
