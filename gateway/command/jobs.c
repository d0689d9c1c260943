#include "gateway/command/jobs.h"

#include <stdio.h>
#include <stdlib.h>

#include "gateway/command/commands_internal.h"

enum { PACE_MS = 100 };

static int64_t number_at(const struct registry_request *result, unsigned column) {
    const char *text = result->row_count == 1 ? registry_value(result, 0, column) : NULL;
    return text ? strtoll(text, NULL, 10) : 0;
}

/* Whether it was sent. */
static bool send_statement(struct commands *commands, enum registry_statement statement,
                           unsigned count, const int64_t *numbers,
                           void (*deliver)(struct mail *, void *)) {
    struct registry_request *request = registry_request_new(statement);
    int err = request ? registry_request_add(
                            request, slice_from_string(transitions_instance(commands->worker)))
                      : DG_ERR_NO_MEMORY;
    for (unsigned i = 0; err == 0 && i < count; i++) {
        char text[24];
        snprintf(text, sizeof(text), "%lld", (long long)numbers[i]);
        err = registry_request_add(request, slice_from_string(text));
    }
    if (err < 0)
        registry_request_free(request);
    else
        commands_execute(commands, request, deliver);
    return err == 0;
}

/* ---- steps ---- */

/* Often enough for the fastest job, but not more often than it takes to be smooth. */
static void set_timer(struct commands *commands, int64_t rate) {
    int64_t pause_ms = 1000 / rate > PACE_MS ? 1000 / rate : PACE_MS;
    struct timeval pause = {.tv_sec = pause_ms / 1000, .tv_usec = pause_ms % 1000 * 1000};
    evtimer_add(&commands->job_timer, &pause);
}

static void step(struct commands *commands);

static void on_stepped(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    if (commands) {
        commands->is_stepping = false;
        if (number_at(result, 0) > 0)
            relay_soon(commands->worker);
        if (number_at(result, 1) > 0)
            step(commands);
        else if (number_at(result, 2) > 0)
            set_timer(commands, number_at(result, 2));
    }
    registry_request_free(result);
}

static void step(struct commands *commands) {
    const int64_t most[] = {LIMIT_JOB_STEP_BYTES, LIMIT_COMMANDS_PENDING};
    if (!commands->is_stepping)
        commands->is_stepping = send_statement(commands, STATEMENT_JOB_STEP, 2, most, on_stepped);
}

static void on_timer(evutil_socket_t fd, short what, void *context) {
    struct commands *commands = context;
    worker_refresh_time(commands->worker);
    step(commands);
}

/* ---- what was aborted ---- */

static void cancel(struct commands *commands);

static void on_cancelled(struct mail *mail, void *receiver) {
    struct registry_request *result = (struct registry_request *)(void *)mail;
    struct commands *commands = commands_of(receiver);
    int64_t count = number_at(result, 0);
    registry_request_free(result);
    if (!commands)
        return;
    commands->is_cancelling = false;
    if (count > 0)
        relay_soon(commands->worker);
    if (count == LIMIT_COMMANDS_OF_STATEMENT)
        cancel(commands);
}

static void cancel(struct commands *commands) {
    if (!commands->is_cancelling)
        commands->is_cancelling =
            send_statement(commands, STATEMENT_JOB_CANCEL, 0, NULL, on_cancelled);
}

/* ---- life ---- */

void jobs_look(struct commands *commands) {
    step(commands);
    cancel(commands);
}

static void deliver_soon(struct mail *mail, void *receiver) {
    struct commands *commands = commands_of(receiver);
    free(mail);
    if (commands && commands->is_ready)
        jobs_look(commands);
}

void jobs_soon(struct worker *worker) {
    struct commands *commands = commands_of(worker);
    struct mail *mail = commands ? malloc(sizeof(*mail)) : NULL;
    if (!mail)
        return;
    mail->deliver = deliver_soon;
    mailbox_post(&commands->options->workers[0]->mailbox, mail);
}

void jobs_start(struct commands *commands) {
    evtimer_assign(&commands->job_timer, commands->worker->base, on_timer, commands);
}

void jobs_stop(struct commands *commands) {
    evtimer_del(&commands->job_timer);
}
