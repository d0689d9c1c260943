#include "gateway/loop/worker.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/clock.h"
#include "common/thread.h"
#include "gateway/transport/connection.h"

void worker_refresh_time(struct worker *worker) {
    worker->now_ns = clock_monotonic_ns();
    worker->wall_ms = clock_wall_ms();
}

static void on_mail(evutil_socket_t fd, short what, void *context) {
    struct worker *worker = context;
    worker_refresh_time(worker);
    mailbox_drain(&worker->mailbox);
}

static void on_stop(struct mail *mail, void *receiver) {
    struct worker *worker = receiver;
    worker->stopping = true;
}

/* No locks: the base belongs to one thread, others wake it through the mailbox. No precise timers:
 * the coarse clock is good enough for deadlines of 100 ms. */
static struct event_base *create_base(void) {
    struct event_config *options = event_config_new();
    if (!options)
        return NULL;
    event_config_set_flag(options, EVENT_BASE_FLAG_NOLOCK);
    struct event_base *base = event_base_new_with_config(options);
    event_config_free(options);
    return base;
}

static int watch_mailbox(struct worker *worker) {
    int fd = mailbox_fd(&worker->mailbox);
    if (event_assign(&worker->mailbox_event, worker->base, fd, EV_READ | EV_PERSIST, on_mail,
                     worker) < 0)
        return DG_ERR_IO;
    return event_add(&worker->mailbox_event, NULL) < 0 ? DG_ERR_IO : 0;
}

int worker_create(unsigned index, const struct config *config, struct worker **ret_worker) {
    struct worker *worker = calloc(1, sizeof(*worker));
    if (!worker)
        return DG_ERR_NO_MEMORY;
    worker->index = index;
    worker->config = config;
    atomic_init(&worker->load, 0);
    atomic_flag_clear(&worker->stop_posted);
    worker->stop_mail.deliver = on_stop;
    worker->mailbox.event_fd = -1;

    int err = DG_ERR_NO_MEMORY;
    worker->read_buffer = malloc(LIMIT_READ_BUFFER_BYTES);
    worker->base = create_base();
    if (!worker->read_buffer || !worker->base)
        goto fail;
    err = mailbox_init(&worker->mailbox, worker);
    if (err < 0)
        goto fail;
    err = watch_mailbox(worker);
    if (err < 0)
        goto fail;
    worker_refresh_time(worker);
    *ret_worker = worker;
    return 0;
fail:
    worker_free(worker);
    return err;
}

void worker_free(struct worker *worker) {
    if (!worker)
        return;
    dg_assert(!worker->started);
    connection_pool_free(worker);
    if (event_initialized(&worker->mailbox_event))
        event_del(&worker->mailbox_event);
    if (worker->mailbox.event_fd >= 0)
        mailbox_free(&worker->mailbox);
    if (worker->base)
        event_base_free(worker->base);
    free(worker->read_buffer);
    free(worker);
}

void worker_add_turn_hook(struct worker *worker, void (*run)(void *context), void *context) {
    dg_assert(worker->turn_hook_count < WORKER_TURN_HOOKS_MAX);
    worker->turn_hooks[worker->turn_hook_count].run = run;
    worker->turn_hooks[worker->turn_hook_count].context = context;
    worker->turn_hook_count++;
}

static void end_turn(struct worker *worker) {
    worker_refresh_time(worker);
    for (unsigned i = 0; i < worker->turn_hook_count; i++)
        worker->turn_hooks[i].run(worker->turn_hooks[i].context);
}

static void *run(void *context) {
    struct worker *worker = context;
    while (!worker->stopping) {
        event_base_loop(worker->base, EVLOOP_ONCE);
        end_turn(worker);
    }
    /* What was posted behind the stop is delivered while everything it names still exists. */
    mailbox_drain(&worker->mailbox);
    if (worker->connections)
        connection_pool_close_all(worker, DG_ERR_SHUTTING_DOWN);
    end_turn(worker);
    end_turn(worker); /* hands on what closed() callbacks appended to the stream */
    return NULL;
}

int worker_start(struct worker *worker) {
    dg_assert(!worker->started);
    char name[32];
    snprintf(name, sizeof(name), "worker-%u", worker->index);
    int err = thread_start(&worker->thread, name, run, worker);
    worker->started = err == 0;
    return err;
}

void worker_await_mail(struct worker *worker) {
    enum { WAIT_MS = 10 };
    struct pollfd wait = {.fd = mailbox_fd(&worker->mailbox), .events = POLLIN};
    (void)poll(&wait, 1, WAIT_MS);
    mailbox_drain(&worker->mailbox);
}

void worker_stop(struct worker *worker) {
    if (!atomic_flag_test_and_set(&worker->stop_posted))
        mailbox_post(&worker->mailbox, &worker->stop_mail);
}

void worker_join(struct worker *worker) {
    if (!worker->started)
        return;
    pthread_join(worker->thread, NULL);
    worker->started = false;
}
