#include "gateway/mqtt/endpoint.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/random.h"
#include "gateway/mqtt/endpoint_internal.h"

enum { FREE_WAITS_MAX = 1000 };

void mqtt_set_time(struct mqtt_worker *mqtt) {
    mqtt->shared.now_ns = mqtt->worker->now_ns;
    mqtt->shared.wall_ms = mqtt->worker->wall_ms;
    mqtt->shared.config = mqtt->worker->config;
}

/* ---- connections ---- */

static int on_open(struct connection *c) {
    struct mqtt_worker *mqtt = mqtt_of(c->worker);
    if (mqtt->draining)
        return DG_ERR_SHUTTING_DOWN;
    mqtt_set_time(mqtt);
    const struct config *config = mqtt->shared.config;
    struct session *session;
    int err = mqtt_session_create(mqtt, connection_may_carry_secrets(c), &session);
    if (err < 0)
        return err;
    session->link = c;
    c->session = session;
    /* From the accept on; a WebSocket from its upgrade, since HTTP came before it in its own time.
     */
    uint64_t start_ms = c->websocket ? mqtt->worker->now_ns / 1000000 : connection_accepted_ms(c);
    connection_set_deadline(c, start_ms + config->mqtt_connect_timeout);
    return 0;
}

static ssize_t on_receive(struct connection *c, const uint8_t *data, size_t size) {
    mqtt_set_time(mqtt_of(c->worker));
    return (ssize_t)session_receive(c->session, data, size);
}

static uint64_t on_deadline(struct connection *c, uint64_t now_ms) {
    mqtt_set_time(mqtt_of(c->worker));
    return session_deadline(c->session);
}

static void on_closed(struct connection *c, int err) {
    struct mqtt_worker *mqtt = mqtt_of(c->worker);
    struct session *session = c->session;
    if (!session)
        return; /* freed with the worker */
    if (mqtt->out_connection == c)
        mqtt_flush(mqtt);
    mqtt_set_time(mqtt);
    bool was_finished = session->flags & SESSION_FINISHED;
    session_unlinked(session, err);
    c->session = NULL;
    if (was_finished)
        mqtt_session_bury(mqtt, session);
    else
        stream_appender_turn(mqtt->appender); /* last events: this turn's hook has already run */
}

const struct connection_protocol mqtt_protocol = {
    .name = "mqtt",
    .open = on_open,
    .receive = on_receive,
    .deadline = on_deadline,
    .closed = on_closed,
};

/* ---- the stream ---- */

static void on_done(void *context, const struct stream_ticket *ticket, int err, int64_t offset) {
    struct mqtt_worker *mqtt = context;
    if (ticket->owner == 0) {
        mqtt_kept_done(mqtt, ticket->tag, err);
        return;
    }
    /* A session lives until its last ticket came back. */
    struct session *session = mqtt_find(mqtt, ticket->owner);
    dg_assert(session);
    mqtt_set_time(mqtt);
    mqtt->shared.done_offset = err == 0 ? offset : -1;
    session_append_done(session, ticket->tag, err);
}

static void on_ready(void *context) {
    struct mqtt_worker *mqtt = context;
    struct session *list = mqtt->waiting;
    mqtt->waiting = NULL;
    mqtt_set_time(mqtt);
    mqtt_kept_ready(mqtt);
    while (list) {
        struct session *session = list;
        list = session->next_waiting; /* it may be put on the new list at once */
        session_ready(session);
    }
}

/* ---- life ---- */

/* Nothing but the end of the turn, which calls who comes next. */
static void on_quota_timer(evutil_socket_t fd, short what, void *context) {
}

static void call_waiting(struct mqtt_worker *mqtt) {
    enum { SOONEST_US = 1000 };
    mqtt_set_time(mqtt);
    uint64_t wait_us = admission_turn(&mqtt->shared) / 1000;
    if (wait_us < SOONEST_US)
        wait_us = SOONEST_US;
    event_add(&mqtt->quota_timer, &(struct timeval){.tv_sec = (time_t)(wait_us / 1000000),
                                                    .tv_usec = (suseconds_t)(wait_us % 1000000)});
}

static void end_turn(void *context) {
    struct mqtt_worker *mqtt = context;
    if (mqtt->shared.waited)
        call_waiting(mqtt);
    mqtt_flush(mqtt);
    session_shared_turn(&mqtt->shared);
    mqtt_free_dead(mqtt);
    stream_appender_turn(mqtt->appender);
}

static struct mqtt_worker *create(struct worker *worker, struct registry *registry) {
    struct mqtt_worker *mqtt = calloc(1, sizeof(*mqtt));
    if (!mqtt)
        return NULL;
    const struct config *config = worker->config;
    mqtt->worker = worker;
    mqtt->registry = registry;
    mqtt->free_slot = UINT32_MAX;
    mqtt->endings_end = &mqtt->endings;
    /* Random, not the time: two starts within one tick of a clock must not share event ids. */
    int size = snprintf(mqtt->counter.prefix, sizeof(mqtt->counter.prefix), "%s-%08x-%u-",
                        config->server_node_id, (unsigned)random_u64(), worker->index);
    mqtt->counter.prefix_size = (uint8_t)size;
    dg_assert((size_t)size < sizeof(mqtt->counter.prefix));
    session_shared_init(&mqtt->shared, &mqtt_effects, config, mqtt->counter.prefix);
    mqtt->shared.context = mqtt;
    mqtt->shared.next_epoch = random_u64();
    return mqtt;
}

int mqtt_worker_start(struct worker *worker, struct stream *stream, struct registry *registry) {
    struct mqtt_worker *mqtt = create(worker, registry);
    if (!mqtt)
        return DG_ERR_NO_MEMORY;
    struct claims_receiver receiver = {.settled = mqtt_on_claim_settled,
                                       .evict = mqtt_on_evict,
                                       .expired = mqtt_on_expired,
                                       .answer = mqtt_on_inquiry,
                                       .context = mqtt};
    int err = claims_set_receiver(worker, &receiver);
    if (err == 0)
        err = flight_create(&mqtt->shared.flight);
    if (err == 0)
        err = stream_appender_create(stream, &worker->mailbox, on_done, on_ready, mqtt,
                                     &mqtt->appender);
    if (err < 0) {
        flight_free(mqtt->shared.flight);
        session_shared_free(&mqtt->shared);
        free(mqtt);
        return err;
    }
    mqtt->stream = stream;
    mqtt->shared.stream_epoch = stream_epoch(stream);
    evtimer_assign(&mqtt->quota_timer, worker->base, on_quota_timer, mqtt);
    worker->slots[WORKER_SLOT_MQTT] = mqtt;
    worker->slots[WORKER_SLOT_STREAM] = mqtt->appender;
    worker_add_turn_hook(worker, end_turn, mqtt);
    mqtt_kept_start(mqtt);
    return 0;
}

void mqtt_worker_join(struct worker *worker, struct worker *other) {
    if (worker != other)
        session_shared_join(&mqtt_of(worker)->shared, &mqtt_of(other)->shared);
}

/* The worker's thread has ended; its mail is ours to deliver. */
static void await_tickets(struct mqtt_worker *mqtt) {
    mailbox_drain(&mqtt->worker->mailbox); /* results that came after the last turn */
    for (unsigned i = 0; i < FREE_WAITS_MAX && stream_appender_pending(mqtt->appender) > 0; i++) {
        stream_appender_turn(mqtt->appender);
        worker_await_mail(mqtt->worker);
    }
}

void mqtt_worker_free(struct worker *worker) {
    struct mqtt_worker *mqtt = mqtt_of(worker);
    if (!mqtt)
        return;
    await_tickets(mqtt);
    mqtt_flush(mqtt);
    event_del(&mqtt->quota_timer);
    mqtt_sessions_free(mqtt);
    mqtt_kept_free(mqtt);
    flight_free(mqtt->shared.flight);
    session_shared_free(&mqtt->shared);
    stream_appender_free(mqtt->appender);
    claims_worker_free(worker);
    worker->slots[WORKER_SLOT_MQTT] = NULL;
    worker->slots[WORKER_SLOT_STREAM] = NULL;
    free(mqtt);
}
