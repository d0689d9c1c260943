/*
 * Fetch: whole stored batches, by sendfile where the transport can. The answer's small parts are
 * encoded in memory, the batches stay where they are (stream_extent).
 *
 * A fetch that finds less than min_bytes waits: it arms a notification for each of its partitions,
 * looks once more, and is handled again when one of them moves or max_wait is over.
 */
#include "common/assert.h"
#include "common/metrics.h"
#include "gateway/kafka/session.h"

/* Bytes an answer may still take, and what it has so far. */
struct budget {
    int64_t left_bytes, taken_bytes;
    bool any_error, any_cold;
};

static void release_extents(const struct kafka_fetch_response *response) {
    const struct kafka_topic *topics = response->topics.items;
    for (uint32_t t = 0; t < response->topics.count; t++) {
        const struct kafka_fetch_answer *answers = topics[t].partitions.items;
        for (uint32_t p = 0; p < topics[t].partitions.count; p++)
            if (answers[p].records.source)
                stream_extent_release(answers[p].records.source);
    }
}

static int16_t check_epoch(const struct kafka_fetch_partition *asked) {
    if (asked->current_epoch > KAFKA_LEADER_EPOCH)
        return KAFKA_ERROR_UNKNOWN_LEADER_EPOCH;
    return 0;
}

/* Reads one partition into its answer. The first that has data gets at least one whole batch, also
 * beyond the limits, so that a big batch cannot stall a reader for ever (KIP-74). */
static int read_partition(struct kafka_call *call, const struct kafka_topic_ref *topic,
                          const struct kafka_fetch_partition *asked, struct budget *budget,
                          struct kafka_fetch_answer *answer) {
    struct kafka_worker *worker = call->session->worker;
    if (budget->taken_bytes > 0 && budget->left_bytes <= 0)
        return 0;
    int64_t limit = asked->max_bytes < budget->left_bytes ? asked->max_bytes : budget->left_bytes;
    struct stream_extent *extent = kafka_arena_take(&call->arena, sizeof(*extent));
    if (!extent)
        return DG_ERR_LIMIT;
    int err = stream_read(worker->stream, topic->stream_id, (uint32_t)asked->index, asked->offset,
                          limit > 0 ? (uint32_t)limit : 1, worker->watcher, extent);
    if (err == DG_ERR_COLD) {
        metric_add(METRIC_KAFKA_COLD_READS, 1);
        budget->any_cold = true;
        return 0;
    }
    if (err < 0 || extent->size_bytes == 0)
        return err;
    if (budget->taken_bytes > 0 && extent->size_bytes > limit) {
        stream_extent_release(extent);
        return 0;
    }
    answer->records = (struct kafka_records){.size_bytes = extent->size_bytes, .source = extent};
    budget->left_bytes -= extent->size_bytes;
    budget->taken_bytes += extent->size_bytes;
    return 0;
}

static void answer_partition(struct kafka_call *call, int16_t topic_error,
                             const struct kafka_topic_ref *topic,
                             const struct kafka_fetch_partition *asked, struct budget *budget,
                             struct kafka_fetch_answer *answer) {
    *answer = (struct kafka_fetch_answer){.index = asked->index,
                                          .error = topic_error,
                                          .high_watermark = -1,
                                          .last_stable = -1,
                                          .log_start = -1,
                                          .aborted = {.is_null = true},
                                          .preferred_replica = -1};
    if (answer->error == 0 && (uint32_t)asked->index >= topic->tenant->partition_count)
        answer->error = KAFKA_ERROR_UNKNOWN_TOPIC;
    if (answer->error == 0)
        answer->error = check_epoch(asked);
    if (answer->error == 0) {
        int err = read_partition(call, topic, asked, budget, answer);
        struct stream_offsets offsets; /* after the read: never behind what it returned */
        stream_offsets(call->session->worker->stream, topic->stream_id, (uint32_t)asked->index,
                       &offsets);
        answer->high_watermark = answer->last_stable = offsets.durable_end;
        answer->log_start = offsets.log_start;
        if (err < 0)
            answer->error = dg_err_row(err)->kafka_code;
    }
    budget->any_error |= answer->error != 0;
}

static bool fill(struct kafka_call *call, const struct kafka_fetch_request *r,
                 struct budget *budget, struct kafka_fetch_response *response) {
    bool by_id = call->header.version >= 13;
    if (!kafka_take_items(call, &response->topics, r->topics.count, sizeof(struct kafka_topic)))
        return false;
    for (uint32_t t = 0; t < r->topics.count; t++) {
        const struct kafka_topic *asked = (const struct kafka_topic *)r->topics.items + t;
        struct kafka_topic *topic = (struct kafka_topic *)response->topics.items + t;
        struct kafka_topic_ref ref;
        int16_t error = kafka_topic_find(call->session, asked, by_id, &ref);
        topic->name = asked->name;
        memcpy(topic->id, asked->id, KAFKA_UUID_SIZE);
        if (!kafka_take_items(call, &topic->partitions, asked->partitions.count,
                              sizeof(struct kafka_fetch_answer)))
            return false;
        const struct kafka_fetch_partition *partitions = asked->partitions.items;
        struct kafka_fetch_answer *answers = topic->partitions.items;
        for (uint32_t p = 0; p < asked->partitions.count; p++)
            answer_partition(call, error, &ref, &partitions[p], budget, &answers[p]);
    }
    return true;
}

static uint32_t count_partitions(const struct kafka_fetch_request *r) {
    uint32_t count = 0;
    for (uint32_t t = 0; t < r->topics.count; t++)
        count += ((const struct kafka_topic *)r->topics.items)[t].partitions.count;
    return count;
}

/* ---- waiting
 * -------------------------------------------------------------------------------------- */

static uint64_t wait_deadline_ms(const struct kafka_session *session,
                                 const struct kafka_fetch_request *r) {
    int64_t wait_ms = r->max_wait_ms > 0 ? r->max_wait_ms : 0;
    if (wait_ms > LIMIT_KAFKA_MAX_WAIT_MS)
        wait_ms = LIMIT_KAFKA_MAX_WAIT_MS;
    return session->worker->worker->now_ns / 1000000 + (uint64_t)wait_ms;
}

static int arm(struct kafka_call *call, const struct kafka_fetch_request *r) {
    struct kafka_worker *worker = call->session->worker;
    bool by_id = call->header.version >= 13;
    for (uint32_t t = 0; t < r->topics.count; t++) {
        const struct kafka_topic *topic = (const struct kafka_topic *)r->topics.items + t;
        const struct kafka_fetch_partition *partitions = topic->partitions.items;
        struct kafka_topic_ref ref;
        if (kafka_topic_find(call->session, topic, by_id, &ref) != 0)
            continue;
        for (uint32_t p = 0; p < topic->partitions.count; p++) {
            uint32_t index = (uint32_t)partitions[p].index;
            int err = kafka_wait_add(&worker->waits, call->session, ref.stream_id, index);
            if (err < 0)
                return err;
            stream_watch(worker->watcher, ref.stream_id, index);
        }
    }
    return 0;
}

/* True when a partition has more than the answer took: it moved before it was armed. */
static bool has_moved(struct kafka_call *call, const struct kafka_fetch_request *r,
                      const struct kafka_fetch_response *response) {
    struct stream *stream = call->session->worker->stream;
    bool by_id = call->header.version >= 13;
    for (uint32_t t = 0; t < response->topics.count; t++) {
        const struct kafka_topic *asked = (const struct kafka_topic *)r->topics.items + t;
        const struct kafka_topic *topic = (const struct kafka_topic *)response->topics.items + t;
        const struct kafka_fetch_answer *answers = topic->partitions.items;
        struct kafka_topic_ref ref;
        if (kafka_topic_find(call->session, asked, by_id, &ref) != 0)
            continue;
        for (uint32_t p = 0; p < topic->partitions.count; p++) {
            struct stream_offsets offsets;
            stream_offsets(stream, ref.stream_id, (uint32_t)answers[p].index, &offsets);
            if (offsets.durable_end != answers[p].high_watermark)
                return true;
        }
    }
    return false;
}

/* Not enough yet. Answers KAFKA_WAITS, or 0 when something moved meanwhile: look again. */
static int begin_wait(struct kafka_call *call, const struct kafka_fetch_request *r,
                      const struct kafka_fetch_response *response, const struct budget *budget) {
    struct kafka_session *session = call->session;
    int err = arm(call, r);
    if (err < 0 || (!budget->any_cold && has_moved(call, r, response))) {
        kafka_wait_clear(&session->worker->waits, session);
        return err;
    }
    connection_pause(session->connection);
    connection_set_deadline(session->connection, session->wait_until_ms);
    return KAFKA_WAITS;
}

static int answer(struct kafka_call *call, const struct kafka_fetch_response *response,
                  const struct budget *budget) {
    call->session->wait_until_ms = 0;
    metric_add(METRIC_KAFKA_FETCHED_BYTES, budget->taken_bytes);
    int outcome = kafka_answer(call, response);
    if (outcome < 0)
        release_extents(response);
    return outcome;
}

int kafka_handle_fetch(struct kafka_call *call, const void *request) {
    const struct kafka_fetch_request *r = request;
    struct kafka_session *session = call->session;
    struct kafka_fetch_response response = {0};
    if (r->session_id != 0) {
        response.error = KAFKA_ERROR_FETCH_SESSION_NOT_FOUND;
        return kafka_answer(call, &response);
    }
    if (count_partitions(r) > LIMIT_KAFKA_FETCH_PARTITIONS)
        return DG_ERR_LIMIT;
    if (session->wait_until_ms == 0)
        session->wait_until_ms = wait_deadline_ms(session, r);
    struct kafka_arena empty = call->arena;
    for (;;) {
        struct budget budget = {.left_bytes = r->max_bytes < LIMIT_KAFKA_FETCH_BYTES
                                                  ? r->max_bytes
                                                  : LIMIT_KAFKA_FETCH_BYTES};
        bool filled = fill(call, r, &budget, &response);
        bool in_time = session->worker->worker->now_ns / 1000000 < session->wait_until_ms;
        if (filled && (budget.any_error || budget.taken_bytes >= r->min_bytes || !in_time))
            return answer(call, &response, &budget);
        int outcome = filled ? begin_wait(call, r, &response, &budget) : DG_ERR_LIMIT;
        release_extents(&response);
        if (outcome != 0)
            return outcome;
        call->arena = empty;
        response = (struct kafka_fetch_response){0};
    }
}
