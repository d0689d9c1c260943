/* The life of a connection, and the worker's part. */
#include "gateway/kafka/endpoint.h"

#include <stdlib.h>

#include "common/assert.h"
#include "common/log.h"
#include "common/metrics.h"
#include "gateway/kafka/session.h"

enum {

    CHECK_MS = 10000, /* how often a connection is looked at */
    STALL_MS = 60000, /* an answer of which nothing was taken for so long */
    REFUSAL_DELAY_MS = 100,
};

/* ---- closing ---- */

void kafka_close(struct kafka_session *session, int err) {
    session->state = KAFKA_STATE_CLOSING;
    kafka_wait_clear(&session->worker->waits, session);
    connection_close(session->connection, err);
}

void kafka_close_later(struct kafka_session *session, int err) {
    session->state = KAFKA_STATE_REFUSED;
    session->refused_err = err;
    connection_pause(session->connection);
    connection_set_deadline(session->connection, kafka_now_ms(session) + REFUSAL_DELAY_MS);
}

/* ---- waiting ---- */

static void pause_for(struct kafka_session *session, uint64_t time_ms) {
    struct timeval time = {.tv_sec = (time_t)(time_ms / 1000),
                           .tv_usec = (suseconds_t)(time_ms % 1000 * 1000)};
    connection_pause(session->connection);
    evtimer_add(&session->timer, &time);
}

void kafka_park(struct kafka_session *session) {
    uint64_t now_ms = kafka_now_ms(session);
    session->parked = true;
    pause_for(session, session->wait_until_ms > now_ms ? session->wait_until_ms - now_ms : 0);
}

void kafka_mute(struct kafka_session *session, uint64_t time_ms) {
    session->muted = true;
    pause_for(session, time_ms);
}

static void unpark(struct kafka_session *session) {
    session->parked = session->muted = false;
    evtimer_del(&session->timer);
    kafka_wait_clear(&session->worker->waits, session);
}

void kafka_resume(struct kafka_session *session) {
    unpark(session);
    if (session->state == KAFKA_STATE_READY)
        connection_resume(session->connection);
}

static void on_timer(evutil_socket_t fd, short what, void *context) {
    struct kafka_session *session = context;
    worker_refresh_time(session->worker->worker);
    kafka_resume(session);
}

/* A partition moved, or a cold range is warm. Armed anew first: what comes later is told again. */
static void on_advanced(void *context, uint64_t stream_id, uint32_t partition) {
    struct kafka_worker *worker = context;
    struct stream_offsets offsets;
    if (!kafka_wait_exists(&worker->waits, stream_id, partition))
        return;
    stream_watch(worker->watcher, stream_id, partition);
    stream_offsets(worker->stream, stream_id, partition, &offsets);
    kafka_wait_count(&worker->waits, stream_id, partition, offsets.appended_bytes, kafka_resume);
}

/* ---- callbacks of the connection ---- */

static ssize_t on_receive(struct connection *c, const uint8_t *data, size_t size) {
    struct kafka_session *session = c->session;
    ssize_t used = kafka_take_input(session, data, size);
    if (used >= 0)
        return used;
    char peer[CONNECTION_PEER_TEXT_SIZE];
    connection_format_peer(c, peer);
    LOG_WARN("kafka.request_refused", log_text("peer", peer),
             log_text("why", session->why ? session->why : dg_err_text((int)used)),
             log_text("tenant", session->identity.tenant), log_text("software", session->software));
    session->state = KAFKA_STATE_CLOSING;
    return used;
}

static void on_drained(struct connection *c) {
    const struct kafka_session *session = c->session;
    bool waits = session->parked || session->muted || session->asking || session->gather ||
                 session->state == KAFKA_STATE_LOGGING_IN || session->state == KAFKA_STATE_REFUSED;
    if (!waits)
        connection_resume(c);
}

/* A peer that takes nothing of its answer keeps stored batches in memory: not for long. */
static bool is_stalled(struct kafka_session *session, uint64_t now_ms) {
    size_t unsent = connection_unsent(session->connection);
    bool same = unsent > 0 && unsent == session->unsent_before;
    session->unsent_before = unsent;
    if (!same)
        session->stalled_since_ms = now_ms;
    return same && now_ms - session->stalled_since_ms >= STALL_MS;
}

/* Why the connection must end now, or 0. */
static int end_reason(struct kafka_session *session, uint64_t now_ms) {
    const struct worker *worker = session->worker->worker;
    const struct config *config = worker->config;
    int64_t valid_until_ms = session->identity.valid_until_ms;
    bool ready = session->state == KAFKA_STATE_READY;
    uint64_t allowed_ms = ready ? config->kafka_idle_timeout : config->mqtt_connect_timeout;
    if (session->state == KAFKA_STATE_REFUSED)
        return session->refused_err;
    if (valid_until_ms > 0 && worker->wall_ms >= valid_until_ms)
        return DG_ERR_ADMINISTRATIVE;
    if (is_stalled(session, now_ms))
        return DG_ERR_TIMEOUT;
    if (!session->parked && !session->gather && now_ms - session->active_ms >= allowed_ms)
        return DG_ERR_KEEP_ALIVE;
    return 0;
}

static uint64_t next_check_ms(const struct kafka_session *session, uint64_t now_ms) {
    const struct worker *worker = session->worker->worker;
    const struct config *config = worker->config;
    bool ready = session->state == KAFKA_STATE_READY;
    uint64_t allowed_ms = ready ? config->kafka_idle_timeout : config->mqtt_connect_timeout;
    uint64_t wait_ms = allowed_ms < CHECK_MS ? allowed_ms : CHECK_MS;
    int64_t valid_ms = session->identity.valid_until_ms - worker->wall_ms;
    if (session->identity.valid_until_ms > 0 && valid_ms < (int64_t)wait_ms)
        wait_ms = valid_ms > 0 ? (uint64_t)valid_ms : 0;
    return now_ms + wait_ms;
}

static uint64_t on_deadline(struct connection *c, uint64_t now_ms) {
    struct kafka_session *session = c->session;
    int err = end_reason(session, now_ms);
    if (err < 0)
        kafka_close(session, err);
    return next_check_ms(session, now_ms);
}

void kafka_set_check(struct kafka_session *session) {
    connection_set_deadline(session->connection, next_check_ms(session, kafka_now_ms(session)));
}

static int on_open(struct connection *c) {
    struct kafka_worker *worker = kafka_of(c->worker);
    struct kafka_session *session = calloc(1, sizeof(*session));
    if (!session)
        return DG_ERR_NO_MEMORY;
    session->connection = c;
    session->worker = worker;
    session->active_ms = kafka_now_ms(session);
    evtimer_assign(&session->timer, c->worker->base, on_timer, session);
    session->next = worker->sessions;
    session->link = &worker->sessions;
    if (session->next)
        session->next->link = &session->next;
    worker->sessions = session;
    c->session = session;
    c->input_limit_bytes = LIMIT_KAFKA_BEFORE_LOGIN_BYTES + KAFKA_FRAME_HEADER_SIZE;
    kafka_set_check(session);
    return 0;
}

static void on_closed(struct connection *c, int err) {
    struct kafka_session *session = c->session;
    unpark(session);
    if (session->account)
        kafka_ledger_leave(session->worker->ledger, session->account);
    kafka_gather_free(session->gather);
    kafka_sasl_free(session);
    *session->link = session->next;
    if (session->next)
        session->next->link = session->link;
    free(session->tenants);
    free(session);
    c->session = NULL;
}

const struct connection_protocol kafka_protocol = {
    .name = "kafka",
    .open = on_open,
    .receive = on_receive,
    .drained = on_drained,
    .deadline = on_deadline,
    .closed = on_closed,
    .output_limit_bytes = LIMIT_KAFKA_ANSWER_BYTES,
};

/* ---- the worker's part ---- */

int kafka_worker_start(struct worker *worker, struct stream *stream, struct registry *registry) {
    struct kafka_worker *kafka = calloc(1, sizeof(*kafka));
    if (!kafka)
        return DG_ERR_NO_MEMORY;
    kafka->worker = worker;
    kafka->stream = stream;
    kafka->registry = registry;
    kafka->arena_bytes = malloc(KAFKA_ARENA_SIZE);
    kafka->output_bytes = malloc(KAFKA_OUTPUT_SIZE);
    kafka->gaps = malloc(LIMIT_KAFKA_FETCH_PARTITIONS * sizeof(*kafka->gaps));
    worker->slots[WORKER_SLOT_KAFKA] = kafka;
    if (!kafka->arena_bytes || !kafka->output_bytes || !kafka->gaps ||
        stream_watcher_create(stream, &worker->mailbox, on_advanced, kafka, &kafka->watcher) < 0) {
        kafka_worker_free(worker);
        return DG_ERR_NO_MEMORY;
    }
    return 0;
}

void kafka_worker_free(struct worker *worker) {
    struct kafka_worker *kafka = kafka_of(worker);
    if (!kafka)
        return;
    dg_assert(!kafka->sessions);
    kafka_groups_free(kafka);
    if (kafka->watcher)
        stream_watcher_free(kafka->watcher);
    free(kafka->arena_bytes);
    free(kafka->output_bytes);
    free(kafka->gaps);
    free(kafka);
    worker->slots[WORKER_SLOT_KAFKA] = NULL;
}

static bool is_concerned(const struct registry_identity *identity,
                         const struct registry_revocation *revocation) {
    if (revocation->credential_key != 0)
        return identity->credential_key == revocation->credential_key;
    if (revocation->device_key != 0 || identity->tenant_key != revocation->tenant_key)
        return false;
    for (unsigned i = 0; i < revocation->kept_count; i++)
        if (revocation->kept[i] == identity->credential_key)
            return false;
    return true;
}

void kafka_revoke(struct worker *worker, const struct registry_revocation *revocation) {
    for (struct kafka_session *s = kafka_of(worker)->sessions; s; s = s->next) {
        if (s->state != KAFKA_STATE_READY || !is_concerned(&s->identity, revocation))
            continue;
        metric_add(METRIC_REVOCATIONS, 1);
        kafka_close(s, revocation->err);
    }
}
