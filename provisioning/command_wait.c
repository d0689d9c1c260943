/*
 * What a POST of a command waits for. The home of the device tells of a command that it has in
 * memory (commands_watch()); of others only PostgreSQL knows, which is asked now and then. Either
 * way the row is what is answered: what commands_watch() tells is a reason to look at it, no more.
 */
#include <event2/event.h>
#include <stdio.h>

#include "provisioning/command_view.h"
#include "provisioning/posting.h"
#include "provisioning/resource.h"

enum {
    PAUSE_MIN_MS = 20,
    PAUSE_MAX_MS = 500, /* below a second; so often it is seen, too, whether the caller is there */
    GRACE_MS = 10000,   /* until the connection gives up on the answer itself */
};

static void look(struct provisioning_call *call);

static uint64_t now_ms(const struct provisioning_call *call) {
    return call->worker->now_ns / 1000000;
}

/* ---- time ---- */

static void set_timer(struct provisioning_call *call, struct posting *posting, uint64_t ms) {
    uint64_t now = now_ms(call);
    uint64_t left = now < posting->deadline_ms ? posting->deadline_ms - now : 0;
    struct timeval pause = {.tv_usec = (suseconds_t)(ms < left ? ms : left) * 1000};
    evtimer_add(&posting->timer, &pause);
}

static void pause_look(struct provisioning_call *call, struct posting *posting) {
    set_timer(call, posting, posting->pause_ms);
    posting->pause_ms = posting->pause_ms < PAUSE_MAX_MS / 2 ? posting->pause_ms * 2 : PAUSE_MAX_MS;
}

/* A hint, maybe of an earlier request on this connection. */
static void on_reached(struct worker *worker, uint64_t owner, bool is_here) {
    struct http_exchange *x = http_find(worker, owner);
    struct provisioning_call *call = x ? http_context(x) : NULL;
    struct posting *posting = call ? posting_of(call) : NULL;
    if (!posting || !posting->is_watched)
        return;
    posting->is_watched = false;
    look(call);
}

static void watch(struct provisioning_call *call, struct posting *posting) {
    struct command_watch order = {.device_key = posting->target.device_key,
                                  .command_key = posting->command_key,
                                  .state = posting->wanted,
                                  .owner = http_exchange_id(call->exchange),
                                  .reached = on_reached};
    posting->is_watched = commands_watch(call->worker, &order) == 0;
    set_timer(call, posting, PAUSE_MAX_MS);
}

/* Nobody reads from the caller's connection meanwhile. */
static void on_timer(evutil_socket_t fd, short what, void *context) {
    struct provisioning_call *call = context;
    struct posting *posting = call->state;
    struct connection *connection = http_connection(call->exchange);
    worker_refresh_time(call->worker);
    if (connection_peer_is_gone(connection))
        connection_close(connection, DG_ERR_CLOSED);
    else if (now_ms(call) >= posting->deadline_ms)
        look(call);
    else if (!posting->is_watched)
        watch(call, posting);
    else
        set_timer(call, posting, PAUSE_MAX_MS);
}

/* ---- looking ---- */

static void answer_row(struct provisioning_call *call, unsigned status,
                       const struct registry_request *row) {
    struct buffer out = {0};
    int err = command_view_row(row, &out);
    resource_add_location(call);
    if (err < 0)
        call_fail(call, err, NULL);
    else
        call_answer(call, status, NULL, buffer_slice(&out));
    buffer_free(&out);
}

static void answer_unknown(struct provisioning_call *call) {
    resource_add_location(call);
    http_add_header(call->exchange, "Retry-After", "2");
    call_problem(call, DG_ERR_UNAVAILABLE,
                 "command %s is queued; how far it is the registry does not say now", call->name);
}

static void answer_other(struct provisioning_call *call) {
    call_problem(call, DG_ERR_INVALID,
                 "Idempotency-Key: command %s of this device has it, and is another one",
                 call->name);
}

static void judge(struct provisioning_call *call, struct posting *posting,
                  const struct registry_request *result) {
    bool is_over = !posting->waits || now_ms(call) >= posting->deadline_ms;
    if (result->err < 0 && is_over) {
        answer_unknown(call);
    } else if (result->err < 0) {
        pause_look(call, posting);
    } else if (result->row_count == 0) {
        call_problem(call, DG_ERR_NOT_FOUND, "command %s has gone, with its device", call->name);
    } else if (posting->must_match && !command_view_is(result, &posting->draft)) {
        answer_other(call);
    } else if (posting->waits && command_view_has_reached(result, posting->wanted)) {
        answer_row(call, 200, result);
    } else if (is_over) {
        answer_row(call, 202, result);
    } else {
        posting->must_match = false;
        pause_look(call, posting);
    }
}

static void on_looked(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    struct http_exchange *x = http_find(receiver, result->owner);
    struct provisioning_call *call = x ? http_context(x) : NULL;
    struct posting *posting = call ? posting_of(call) : NULL;
    if (posting)
        judge(call, posting, result);
    registry_request_free(result);
}

/* Nothing else is awaited meanwhile: it has an answer, or the registry's own deadline ends it. */
static void look(struct provisioning_call *call) {
    struct posting *posting = call->state;
    evtimer_del(&posting->timer);
    posting->is_watched = false;
    struct registry_request *request =
        resource_request_named(call, STATEMENT_COMMAND_GET, slice_from_string(call->name));
    if (request)
        call_send(call, request, on_looked);
}

/* ---- beginning and end ---- */

void posting_wait(struct provisioning_call *call) {
    struct posting *posting = call->state;
    evtimer_assign(&posting->timer, call->worker->base, on_timer, call);
    posting->pause_ms = PAUSE_MIN_MS;
    posting->deadline_ms = now_ms(call) + posting->timeout_ms;
    connection_set_deadline(http_connection(call->exchange), posting->deadline_ms + GRACE_MS);
    if (posting->must_match)
        look(call);
    else
        watch(call, posting);
}

void posting_end_wait(struct posting *posting) {
    if (event_initialized(&posting->timer))
        evtimer_del(&posting->timer);
}
