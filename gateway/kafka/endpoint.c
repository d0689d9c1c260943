/* Framing, dispatch and the life of a connection. */
#include "gateway/kafka/endpoint.h"

#include <stdlib.h>

#include "common/assert.h"
#include "common/log.h"
#include "common/metrics.h"
#include "gateway/kafka/session.h"

enum {
    ARENA_SIZE = 16 * 1024 * 1024, /* decoded request and answer; touched only as far as used */
    OUTPUT_SIZE = 1024 * 1024,
    FRAME_HEADER_SIZE = 4,
};

static const struct {
    enum kafka_api_key key;
    kafka_handler *handle;
} handlers[] = {
    {KAFKA_PRODUCE, kafka_handle_produce},
    {KAFKA_FETCH, kafka_handle_fetch},
    {KAFKA_LIST_OFFSETS, kafka_handle_list_offsets},
    {KAFKA_METADATA, kafka_handle_metadata},
    {KAFKA_FIND_COORDINATOR, kafka_handle_coordinator},
    {KAFKA_SASL_HANDSHAKE, kafka_handle_sasl_handshake},
    {KAFKA_API_VERSIONS, kafka_handle_api_versions},
    {KAFKA_OFFSET_FOR_LEADER_EPOCH, kafka_handle_epoch},
    {KAFKA_SASL_AUTHENTICATE, kafka_handle_authenticate},
};

static kafka_handler *find_handler(int key) {
    for (unsigned i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++)
        if ((int)handlers[i].key == key)
            return handlers[i].handle;
    dg_assert(false); /* every row of kafka_apis has a handler */
    return NULL;
}

bool kafka_take_items(struct kafka_call *call, struct kafka_array *array, uint32_t count,
                      size_t item_size) {
    array->items = kafka_arena_take(&call->arena, (size_t)count * item_size);
    array->count = array->items ? count : 0;
    return array->items != NULL;
}

/* ---- answering
 * ------------------------------------------------------------------------------------ */

static void send_output(struct kafka_session *session, const struct kafka_output *output) {
    struct connection *c = session->connection;
    size_t at = 0;
    for (unsigned i = 0; i < output->gap_count; i++) {
        const struct kafka_gap *gap = &output->gaps[i];
        connection_write(c, output->w.start + at, gap->position - at);
        connection_write_extent(c, gap->records->source);
        at = gap->position;
    }
    connection_write(c, output->w.start + at, writer_size(&output->w) - at);
}

int kafka_answer(struct kafka_call *call, const void *response) {
    struct kafka_worker *worker = call->session->worker;
    bool flexible = kafka_api_is_flexible(call->api, call->header.version);
    struct kafka_output output = {.w = writer_make(worker->output_bytes, OUTPUT_SIZE),
                                  .gaps = worker->gaps};
    writer_u32(&output.w, 0);
    writer_u32(&output.w, (uint32_t)call->header.correlation_id);
    if (flexible && call->api->key != KAFKA_API_VERSIONS) /* its header is v0 in every version */
        writer_u8(&output.w, 0);
    kafka_encode(call->api->response, call->header.version, flexible, &output, response);
    uint64_t size = writer_size(&output.w) - FRAME_HEADER_SIZE + output.gap_bytes;
    if (output.w.failed || size > INT32_MAX)
        return DG_ERR_LIMIT;
    struct writer length = writer_make(worker->output_bytes, FRAME_HEADER_SIZE);
    writer_u32(&length, (uint32_t)size);
    send_output(call->session, &output);
    metric_add(METRIC_KAFKA_REQUESTS, 1);
    return KAFKA_ANSWERED;
}

/* ---- requests
 * ------------------------------------------------------------------------------------- */

static int close_with(struct kafka_session *session, int err, const char *why) {
    char peer[CONNECTION_PEER_TEXT_SIZE];
    connection_format_peer(session->connection, peer);
    LOG_WARN("kafka.protocol_error", log_text("peer", peer), log_text("why", why),
             log_text("software", session->software));
    return err;
}

static int decode_and_handle(struct kafka_call *call, struct reader *r) {
    bool flexible = kafka_api_is_flexible(call->api, call->header.version);
    void *request = kafka_arena_take(&call->arena, call->api->request_size);
    dg_assert(request);
    int err = flexible ? kafka_skip_tags(r) : 0;
    if (err == 0)
        err = kafka_decode(call->api->request, call->header.version, flexible, r, &call->arena,
                           request);
    if (err < 0)
        return close_with(call->session, err, "malformed request");
    return find_handler(call->api->key)(call, request);
}

/* A whole frame without its length. KAFKA_ANSWERED, KAFKA_WAITS or an error that closes. */
static int take_frame(struct kafka_session *session, struct slice frame) {
    struct kafka_worker *worker = session->worker;
    struct reader r = reader_make(frame.data, frame.size);
    struct kafka_call call = {
        .session = session,
        .arena = {.at = worker->arena_bytes, .end = worker->arena_bytes + ARENA_SIZE},
    };
    if (kafka_decode_header(&r, &call.header) < 0)
        return close_with(session, DG_ERR_MALFORMED, "malformed request header");
    call.api = kafka_api_find(call.header.api);
    if (!call.api)
        return close_with(session, DG_ERR_NOT_SUPPORTED, "an API that is not offered");
    if (session->state != KAFKA_STATE_READY && !call.api->before_login)
        return close_with(session, DG_ERR_NOT_AUTHORIZED, "a request before login");
    session->active_ms = worker->worker->now_ns / 1000000;
    if (call.api->key == KAFKA_API_VERSIONS && call.header.version > call.api->last)
        return kafka_handle_api_versions(&call, NULL);
    if (call.header.version < call.api->first || call.header.version > call.api->last)
        return close_with(session, DG_ERR_UNSUPPORTED_VERSION, "a version that is not offered");
    return decode_and_handle(&call, &r);
}

static uint32_t frame_limit(const struct kafka_session *session) {
    return session->state == KAFKA_STATE_READY ? LIMIT_KAFKA_REQUEST_BYTES
                                               : LIMIT_KAFKA_BEFORE_LOGIN_BYTES;
}

/* A consumer that does not read gets nothing more until it has: its unsent bytes are bounded by one
 * answer. */
static ssize_t on_receive(struct connection *c, const uint8_t *data, size_t size) {
    struct kafka_session *session = c->session;
    size_t used = 0;
    while (size - used >= FRAME_HEADER_SIZE && session->state != KAFKA_STATE_REFUSED &&
           session->state != KAFKA_STATE_LOGGING_IN) {
        if (connection_unsent(c) > 0 && used > 0)
            break;
        struct reader r = reader_make(data + used, size - used);
        uint32_t length = reader_u32(&r);
        if (length > frame_limit(session))
            return close_with(session, DG_ERR_TOO_LARGE, "a request over the limit");
        if (reader_left(&r) < length)
            break;
        int outcome = take_frame(session, reader_slice(&r, length));
        if (outcome < 0)
            return outcome;
        if (outcome == KAFKA_WAITS)
            break;
        used += FRAME_HEADER_SIZE + length;
        if (connection_unsent(c) > 0) {
            connection_pause(c); /* on_drained goes on */
            break;
        }
    }
    return (ssize_t)used;
}

static void on_drained(struct connection *c) {
    const struct kafka_session *session = c->session;
    bool waits = session->waits || session->asking || session->state == KAFKA_STATE_LOGGING_IN ||
                 session->state == KAFKA_STATE_REFUSED;
    if (!waits)
        connection_resume(c);
}

/* ---- life
 * ----------------------------------------------------------------------------------------- */

static uint64_t idle_deadline_ms(const struct kafka_session *session) {
    const struct config *config = atomic_load(&session->worker->worker->config);
    uint64_t allowed_ms = session->state == KAFKA_STATE_READY ? config->kafka_idle_timeout
                                                              : config->mqtt_connect_timeout;
    return session->active_ms + allowed_ms;
}

void kafka_resume(struct kafka_session *session) {
    kafka_wait_clear(&session->worker->waits, session);
    connection_set_deadline(session->connection, idle_deadline_ms(session));
    connection_resume(session->connection);
}

static int on_open(struct connection *c) {
    struct kafka_worker *worker = kafka_of(c->worker);
    struct kafka_session *session = calloc(1, sizeof(*session));
    if (!session)
        return DG_ERR_NO_MEMORY;
    session->connection = c;
    session->worker = worker;
    session->active_ms = c->worker->now_ns / 1000000;
    session->next = worker->sessions;
    session->link = &worker->sessions;
    if (session->next)
        session->next->link = &session->next;
    worker->sessions = session;
    c->session = session;
    c->input_limit_bytes = LIMIT_KAFKA_BEFORE_LOGIN_BYTES + FRAME_HEADER_SIZE;
    connection_set_deadline(c, idle_deadline_ms(session));
    return 0;
}

static void on_closed(struct connection *c, int err) {
    struct kafka_session *session = c->session;
    if (!session)
        return;
    kafka_wait_clear(&session->worker->waits, session);
    *session->link = session->next;
    if (session->next)
        session->next->link = session->link;
    free(session->tenants);
    free(session);
    c->session = NULL;
}

static uint64_t on_deadline(struct connection *c, uint64_t now_ms) {
    struct kafka_session *session = c->session;
    int64_t valid_until_ms = session->identity.valid_until_ms;
    if (valid_until_ms > 0 && c->worker->wall_ms >= valid_until_ms) {
        connection_close(c, DG_ERR_ADMINISTRATIVE);
        return now_ms + 1000;
    }
    if (session->state == KAFKA_STATE_REFUSED) {
        connection_close(c, DG_ERR_BAD_CREDENTIALS);
        return now_ms + 1000;
    }
    if (session->waits && now_ms >= session->wait_until_ms) {
        kafka_resume(session);
        return idle_deadline_ms(session);
    }
    if (session->waits)
        return session->wait_until_ms;
    uint64_t deadline_ms = idle_deadline_ms(session);
    return deadline_ms > now_ms ? deadline_ms : 0;
}

const struct connection_protocol kafka_protocol = {
    .name = "kafka",
    .open = on_open,
    .receive = on_receive,
    .drained = on_drained,
    .deadline = on_deadline,
    .closed = on_closed,
};

/* ---- the worker's part
 * ---------------------------------------------------------------------------- */

static void on_advanced(void *context, uint64_t stream_id, uint32_t partition) {
    struct kafka_worker *worker = context;
    struct kafka_session *session;
    while ((session = kafka_wait_first(&worker->waits, stream_id, partition)))
        kafka_resume(session);
}

int kafka_worker_start(struct worker *worker, struct stream *stream, struct registry *registry) {
    struct kafka_worker *kafka = calloc(1, sizeof(*kafka));
    if (!kafka)
        return DG_ERR_NO_MEMORY;
    kafka->worker = worker;
    kafka->stream = stream;
    kafka->registry = registry;
    kafka->arena_bytes = malloc(ARENA_SIZE);
    kafka->output_bytes = malloc(OUTPUT_SIZE);
    kafka->gaps = malloc(KAFKA_GAPS_MAX * sizeof(*kafka->gaps));
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
    if (revocation->credential_key != 0 && identity->credential_key != revocation->credential_key)
        return false;
    if (revocation->credential_key == 0 &&
        (revocation->device_key != 0 || identity->tenant_key != revocation->tenant_key))
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
        connection_close(s->connection, revocation->err);
    }
}
