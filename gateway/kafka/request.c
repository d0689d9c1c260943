/* From bytes to a handler and back: frames, headers, dispatch, the encoded answer. */
#include <stdlib.h>

#include "common/assert.h"
#include "common/metrics.h"
#include "gateway/kafka/session.h"

static const struct {
    enum kafka_api_key key;
    kafka_handler *handle;
} handlers[] = {
    {KAFKA_PRODUCE, kafka_handle_produce},
    {KAFKA_FETCH, kafka_handle_fetch},
    {KAFKA_LIST_OFFSETS, kafka_handle_list_offsets},
    {KAFKA_METADATA, kafka_handle_metadata},
    {KAFKA_OFFSET_COMMIT, kafka_handle_group},
    {KAFKA_OFFSET_FETCH, kafka_handle_group},
    {KAFKA_FIND_COORDINATOR, kafka_handle_coordinator},
    {KAFKA_JOIN_GROUP, kafka_handle_group},
    {KAFKA_HEARTBEAT, kafka_handle_group},
    {KAFKA_LEAVE_GROUP, kafka_handle_group},
    {KAFKA_SYNC_GROUP, kafka_handle_group},
    {KAFKA_DESCRIBE_GROUPS, kafka_handle_group},
    {KAFKA_LIST_GROUPS, kafka_handle_group},
    {KAFKA_SASL_HANDSHAKE, kafka_handle_sasl_handshake},
    {KAFKA_API_VERSIONS, kafka_handle_api_versions},
    {KAFKA_OFFSET_FOR_LEADER_EPOCH, kafka_handle_epoch},
    {KAFKA_DESCRIBE_CONFIGS, kafka_handle_describe_configs},
    {KAFKA_DESCRIBE_CLUSTER, kafka_handle_describe_cluster},
    {KAFKA_SASL_AUTHENTICATE, kafka_handle_authenticate},
    {KAFKA_DELETE_GROUPS, kafka_handle_group},
    {KAFKA_OFFSET_DELETE, kafka_handle_group},
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

uint32_t kafka_count_partitions(const struct kafka_array *topics) {
    uint32_t count = topics->count;
    for (uint32_t t = 0; t < topics->count; t++)
        count += ((const struct kafka_topic *)topics->items)[t].partitions.count;
    return count;
}

/* ---- answering ---- */

static void send_output(struct connection *c, const struct kafka_output *output) {
    size_t at = 0;
    for (unsigned i = 0; i < output->gap_count; i++) {
        const struct kafka_gap *gap = &output->gaps[i];
        connection_write(c, output->w.start + at, gap->position - at);
        for (struct kafka_extent *e = gap->records->source; e; e = e->next)
            connection_write_extent(c, &e->extent);
        at = gap->position;
    }
    connection_write(c, output->w.start + at, writer_size(&output->w) - at);
}

static bool encode(struct kafka_call *call, const void *response, uint8_t *bytes, size_t size,
                   struct kafka_output *ret_output) {
    *ret_output = (struct kafka_output){.w = writer_make(bytes, size),
                                        .gaps = call->session->worker->gaps,
                                        .gap_limit = LIMIT_KAFKA_FETCH_PARTITIONS};
    kafka_encode_answer(call->api, &call->header, ret_output, response);
    return !ret_output->w.failed;
}

/* The worker's buffer is enough for all but the topics of very many tenants. */
static int answer_large(struct kafka_call *call, const void *response) {
    struct kafka_output output;
    uint8_t *bytes = malloc(LIMIT_KAFKA_ANSWER_BYTES);
    bool encoded = bytes && encode(call, response, bytes, LIMIT_KAFKA_ANSWER_BYTES, &output);
    if (encoded)
        send_output(call->session->connection, &output);
    free(bytes);
    return encoded ? KAFKA_ANSWERED : DG_ERR_LIMIT;
}

/* ---- quotas ---- */

/* Charges amount; how long the bucket is over its quota. */
static uint64_t charge_ms(struct bucket *bucket, uint64_t amount, uint64_t per_second,
                          const struct worker *worker) {
    return bucket_charge(bucket, amount, per_second, worker->now_ns) / 1000000;
}

bool kafka_is_over_quota(const struct kafka_session *session) {
    const struct worker *worker = session->worker->worker;
    return session->account &&
           charge_ms(&session->account->fetched_bytes, 0,
                     worker->config->kafka_quota_fetch_bytes_per_second, worker) > 0;
}

/* How long the connection is to be muted. */
static uint64_t charge(struct kafka_call *call) {
    struct kafka_account *account = call->session->account;
    const struct worker *worker = call->session->worker->worker;
    const struct config *config = worker->config;
    if (!account)
        return 0;
    uint64_t requests_ms =
        charge_ms(&account->requests, 1, (uint64_t)config->kafka_quota_requests_per_second, worker);
    uint64_t bytes_ms = call->api->key != KAFKA_FETCH
                            ? 0
                            : charge_ms(&account->fetched_bytes, call->fetched_bytes,
                                        config->kafka_quota_fetch_bytes_per_second, worker);
    uint64_t over_ms = requests_ms > bytes_ms ? requests_ms : bytes_ms;
    return over_ms < LIMIT_KAFKA_THROTTLE_MS ? over_ms : LIMIT_KAFKA_THROTTLE_MS;
}

/* Where the version has no such field the client is muted without a word. */
static void set_throttle(const struct kafka_api *api, void *response, uint64_t time_ms) {
    for (const struct kafka_field *field = api->response; field->name; field++)
        if (strcmp(field->name, "throttle") == 0)
            *(int32_t *)(void *)((uint8_t *)response + field->offset) = (int32_t)time_ms;
}

static void throttle(struct kafka_session *session, uint64_t time_ms) {
    metric_observe(METRIC_KAFKA_THROTTLED, time_ms * 1000000, 1);
    kafka_mute(session, time_ms);
}

void kafka_throttle_login(struct kafka_session *session) {
    const struct worker *worker = session->worker->worker;
    uint64_t over_ms = charge_ms(&session->account->requests, 0,
                                 (uint64_t)worker->config->kafka_quota_requests_per_second, worker);
    if (over_ms > 0)
        throttle(session, over_ms < LIMIT_KAFKA_THROTTLE_MS ? over_ms : LIMIT_KAFKA_THROTTLE_MS);
}

int kafka_answer(struct kafka_call *call, void *response) {
    struct kafka_output output;
    int outcome = KAFKA_ANSWERED;
    uint64_t throttle_ms = charge(call);
    if (throttle_ms > 0)
        set_throttle(call->api, response, throttle_ms);
    if (encode(call, response, call->session->worker->output_bytes, KAFKA_OUTPUT_SIZE, &output))
        send_output(call->session->connection, &output);
    else
        outcome = answer_large(call, response);
    if (outcome == KAFKA_ANSWERED)
        metric_add(METRIC_KAFKA_REQUESTS, 1);
    if (outcome == KAFKA_ANSWERED && throttle_ms > 0)
        throttle(call->session, throttle_ms);
    return outcome;
}

/* ---- requests ---- */

static int refuse(struct kafka_session *session, int err, const char *why) {
    session->why = why;
    return err;
}

static int decode_and_handle(struct kafka_call *call, struct reader *r) {
    void *request = NULL;
    int err = kafka_decode_request(call->api, &call->header, r, &call->arena, &request);
    if (err < 0)
        return refuse(call->session, err, "malformed request");
    return find_handler(call->api->key)(call, request);
}

/* A whole frame without its length. KAFKA_ANSWERED, KAFKA_WAITS or an error that closes. */
static int take_frame(struct kafka_session *session, struct slice frame) {
    struct kafka_worker *worker = session->worker;
    if (session->state == KAFKA_STATE_RAW_TOKEN)
        return kafka_take_raw_token(session, frame);
    struct reader r = reader_make(frame.data, frame.size);
    struct kafka_call call = {
        .session = session,
        .arena = {.at = worker->arena_bytes, .end = worker->arena_bytes + KAFKA_ARENA_SIZE},
    };
    if (kafka_decode_header(&r, &call.header) < 0)
        return refuse(session, DG_ERR_MALFORMED, "malformed request header");
    call.api = kafka_api_find(call.header.api);
    if (!call.api)
        return refuse(session, DG_ERR_NOT_SUPPORTED, "an API that is not offered");
    if (session->state != KAFKA_STATE_READY && !call.api->before_login)
        return refuse(session, DG_ERR_NOT_AUTHORIZED, "a request before login");
    if (session->state == KAFKA_STATE_READY) /* before, the time allowed for login runs */
        session->active_ms = kafka_now_ms(session);
    if (call.api->key == KAFKA_API_VERSIONS && call.header.version > call.api->last)
        return kafka_handle_api_versions(&call, NULL);
    if (call.header.version < call.api->first || call.header.version > call.api->last)
        return refuse(session, DG_ERR_UNSUPPORTED_VERSION, "a version that is not offered");
    return decode_and_handle(&call, &r);
}

static bool takes_requests(const struct kafka_session *session) {
    if (session->gather || session->muted)
        return false;
    return session->state <= KAFKA_STATE_RAW_TOKEN || session->state == KAFKA_STATE_READY;
}

static uint32_t frame_limit(const struct kafka_session *session) {
    return session->state == KAFKA_STATE_READY ? LIMIT_KAFKA_REQUEST_BYTES
                                               : LIMIT_KAFKA_BEFORE_LOGIN_BYTES;
}

/* A consumer that does not read gets nothing more until it has: what is unsent is bounded by one
 * answer. */
ssize_t kafka_take_input(struct kafka_session *session, const uint8_t *data, size_t size) {
    struct connection *c = session->connection;
    size_t used = 0;
    while (size - used >= KAFKA_FRAME_HEADER_SIZE && takes_requests(session)) {
        if (connection_unsent(c) > 0) {
            connection_pause(c); /* drained() goes on */
            break;
        }
        struct reader r = reader_make(data + used, size - used);
        uint32_t length = reader_u32(&r);
        if (length > frame_limit(session))
            return refuse(session, DG_ERR_TOO_LARGE, "a request over the limit");
        if (reader_left(&r) < length)
            break;
        int outcome = take_frame(session, reader_slice(&r, length));
        if (outcome < 0)
            return outcome;
        if (outcome == KAFKA_WAITS)
            break;
        used += KAFKA_FRAME_HEADER_SIZE + length;
    }
    return (ssize_t)used;
}
