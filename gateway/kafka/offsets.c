/*
 * ListOffsets and OffsetForLeaderEpoch: where a partition begins, ends, and stood at a time.
 *
 * A look-up by time that would have to wait for the disk is left to the stream; the request waits
 * in its connection as a cold Fetch does, and is handled again from the start.
 */
#include "gateway/kafka/session.h"

enum { FIRST_VERSION_WITH_EPOCH = 4 };
enum { OFFSET_LATEST = -1, OFFSET_EARLIEST = -2, OFFSET_MAX_TIMESTAMP = -3 };

/* The last partition of a request that is looked up from the disk; the pool works in order. */
struct cold_place {
    bool any;
    uint64_t stream_id;
    uint32_t partition;
};

/* A look-up that finds nothing is no error: offset and timestamp stay -1. */
static int16_t look_up(struct kafka_session *session, const struct kafka_topic_ref *topic,
                       const struct kafka_list_offsets_partition *asked, struct cold_place *cold,
                       struct kafka_list_offsets_answer *answer) {
    struct kafka_worker *worker = session->worker;
    struct stream_offsets offsets;
    uint32_t partition = (uint32_t)asked->index;
    int err = 0;
    stream_offsets(worker->stream, topic->stream_id, partition, &offsets);
    switch (asked->timestamp) {
    case OFFSET_LATEST:
        answer->offset = offsets.durable_end;
        return 0;
    case OFFSET_EARLIEST:
        answer->offset = offsets.log_start;
        return 0;
    case OFFSET_MAX_TIMESTAMP:
        err = stream_find_last(worker->stream, topic->stream_id, partition, &answer->offset,
                               &answer->timestamp);
        break;
    default:
        if (asked->timestamp < 0)
            return KAFKA_ERROR_INVALID_REQUEST;
        err = stream_find_time(worker->stream, topic->stream_id, partition, asked->timestamp,
                               worker->watcher, &answer->offset, &answer->timestamp);
    }
    if (err == DG_ERR_COLD)
        *cold = (struct cold_place){true, topic->stream_id, partition};
    if (err == 0 || err == DG_ERR_NOT_FOUND)
        return 0;
    return kafka_storage_error(session, topic, asked->index, asked->timestamp, err);
}

static struct kafka_list_offsets_answer
answer_partition(struct kafka_call *call, int16_t topic_error, const struct kafka_topic_ref *topic,
                 const struct kafka_list_offsets_partition *asked, struct cold_place *cold) {
    struct kafka_list_offsets_answer answer = {
        .index = asked->index,
        .error = topic_error,
        .timestamp = -1,
        .offset = -1,
        .leader_epoch = stream_epoch(call->session->worker->stream),
    };
    int32_t epoch =
        call->header.version >= FIRST_VERSION_WITH_EPOCH ? asked->current_epoch : KAFKA_NO_EPOCH;
    if (answer.error == 0)
        answer.error = kafka_topic_check_partition(call->session, topic, asked->index, epoch);
    kafka_note_miss(call->session, answer.error);
    if (answer.error == 0)
        answer.error = look_up(call->session, topic, asked, cold, &answer);
    return answer;
}

static bool fill(struct kafka_call *call, const struct kafka_list_offsets_request *r,
                 struct cold_place *cold, struct kafka_list_offsets_response *response) {
    if (!kafka_take_items(call, &response->topics, r->topics.count, sizeof(struct kafka_topic)))
        return false;
    for (uint32_t t = 0; t < r->topics.count; t++) {
        const struct kafka_topic *asked = (const struct kafka_topic *)r->topics.items + t;
        struct kafka_topic *topic = (struct kafka_topic *)response->topics.items + t;
        struct kafka_topic_ref ref;
        int16_t error = kafka_topic_find(call->session, asked, false, &ref);
        topic->name = asked->name;
        if (!kafka_take_items(call, &topic->partitions, asked->partitions.count,
                              sizeof(struct kafka_list_offsets_answer)))
            return false;
        const struct kafka_list_offsets_partition *partitions = asked->partitions.items;
        struct kafka_list_offsets_answer *answers = topic->partitions.items;
        for (uint32_t p = 0; p < asked->partitions.count; p++)
            answers[p] = answer_partition(call, error, &ref, &partitions[p], cold);
    }
    return true;
}

int kafka_handle_list_offsets(struct kafka_call *call, const void *request) {
    const struct kafka_list_offsets_request *r = request;
    struct kafka_session *session = call->session;
    struct kafka_list_offsets_response response = {0};
    struct cold_place cold = {0};
    if (kafka_count_partitions(&r->topics) > LIMIT_KAFKA_FETCH_PARTITIONS ||
        !fill(call, r, &cold, &response))
        return DG_ERR_LIMIT;
    if (kafka_must_ask_again(session))
        return kafka_ask_tenants(session);
    if (session->wait_until_ms == 0)
        session->wait_until_ms = kafka_now_ms(session) + LIMIT_KAFKA_MAX_WAIT_MS;
    if (cold.any && kafka_now_ms(session) < session->wait_until_ms) {
        session->missing_bytes = 0;
        int err =
            kafka_wait_add(&session->worker->waits, session, cold.stream_id, cold.partition, 0);
        if (err < 0)
            return err;
        kafka_park(session);
        return KAFKA_WAITS;
    }
    session->wait_until_ms = 0;
    return kafka_answer(call, &response);
}

/* Where an epoch ended: a consumer whose position lies behind that has read what the stream does
 * not hold any more. Of an epoch that is not known -1. */
static struct kafka_epoch_answer answer_epoch(struct kafka_call *call, int16_t topic_error,
                                              const struct kafka_topic_ref *topic,
                                              const struct kafka_epoch_partition *asked) {
    struct kafka_epoch_answer answer = {
        .error = topic_error, .index = asked->index, .epoch = -1, .end_offset = -1};
    if (answer.error == 0)
        answer.error =
            kafka_topic_check_partition(call->session, topic, asked->index, asked->current_epoch);
    kafka_note_miss(call->session, answer.error);
    if (answer.error != 0)
        return answer;
    int err =
        stream_epoch_end(call->session->worker->stream, topic->stream_id, (uint32_t)asked->index,
                         asked->epoch, &answer.epoch, &answer.end_offset);
    (void)err; /* not known: outputs as they were */
    return answer;
}

int kafka_handle_epoch(struct kafka_call *call, const void *request) {
    const struct kafka_epoch_request *r = request;
    struct kafka_epoch_response response = {0};
    if (kafka_count_partitions(&r->topics) > LIMIT_KAFKA_FETCH_PARTITIONS)
        return DG_ERR_LIMIT;
    if (!kafka_take_items(call, &response.topics, r->topics.count, sizeof(struct kafka_topic)))
        return DG_ERR_LIMIT;
    for (uint32_t t = 0; t < r->topics.count; t++) {
        const struct kafka_topic *asked = (const struct kafka_topic *)r->topics.items + t;
        struct kafka_topic *topic = (struct kafka_topic *)response.topics.items + t;
        struct kafka_topic_ref ref;
        int16_t error = kafka_topic_find(call->session, asked, false, &ref);
        topic->name = asked->name;
        if (!kafka_take_items(call, &topic->partitions, asked->partitions.count,
                              sizeof(struct kafka_epoch_answer)))
            return DG_ERR_LIMIT;
        const struct kafka_epoch_partition *partitions = asked->partitions.items;
        struct kafka_epoch_answer *answers = topic->partitions.items;
        for (uint32_t p = 0; p < asked->partitions.count; p++)
            answers[p] = answer_epoch(call, error, &ref, &partitions[p]);
    }
    if (kafka_must_ask_again(call->session))
        return kafka_ask_tenants(call->session);
    return kafka_answer(call, &response);
}
