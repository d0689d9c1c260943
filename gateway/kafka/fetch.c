/*
 * Fetch: whole stored batches, by sendfile where the transport can. The answer's small parts are
 * encoded in memory, the batches stay where they are (stream_extent).
 *
 * A fetch that finds less than min_bytes is parked: it arms a notification for each of its
 * partitions, and is handled again when they brought the bytes it misses (wait.h counts them; what
 * was there already is not read again for each commit), when a cold range is warm, or when max_wait
 * is over.
 */
#include <stdlib.h>

#include "common/log.h"
#include "common/metrics.h"
#include "gateway/kafka/fetch_codec.h"
#include "gateway/kafka/fetch_size.h"
#include "gateway/kafka/session.h"

enum {
    FIRST_VERSION_WITH_EPOCH = 9,
    FIRST_VERSION_WITH_IDS = 13,
    EXTENTS_MAX = 64,        /* of one partition in one answer */
    READ_MAX_BYTES = 1 << 20 /* what the stream warms at once: a longer run would stay cold */
};

/* What an answer has so far. */
struct progress {
    struct kafka_budget budget;
    bool any_error, any_cold;
    bool is_full; /* a partition has as much as one answer takes of it: nothing to wait for */
    bool is_over; /* the quota: nothing is read, and the answer says when to come again */
};

int16_t kafka_storage_error(struct kafka_session *session, const struct kafka_topic_ref *topic,
                            int32_t partition, int64_t at, int err) {
    const struct kafka_place *last = &session->unreadable;
    bool is_news = last->stream_id != topic->stream_id || last->partition != partition ||
                   last->at != at || last->err != err;
    if (is_news && (err == DG_ERR_CORRUPT || err == DG_ERR_IO || err == DG_ERR_CODEC)) {
        session->unreadable = (struct kafka_place){topic->stream_id, at, partition, err};
        LOG_ERROR("storage.unreadable", log_int("stream", (int64_t)topic->stream_id),
                  log_int("partition", partition), log_int("at", at),
                  log_text("why", dg_err_text(err)));
    }
    return dg_err_row(err)->kafka_code;
}

static void release_extents(const struct kafka_fetch_response *response) {
    const struct kafka_topic *topics = response->topics.items;
    for (uint32_t t = 0; t < response->topics.count; t++) {
        const struct kafka_fetch_answer *answers = topics[t].partitions.items;
        for (uint32_t p = 0; p < topics[t].partitions.count; p++)
            for (struct kafka_extent *e = answers[p].records.source; e; e = e->next)
                stream_extent_release(&e->extent);
    }
}

/* The next run of batches that fits, or NULL: there is none, or there is no room. DG_ERR_COLD. */
static int read_extent(struct kafka_call *call, const struct kafka_topic_ref *topic,
                       const struct kafka_fetch_partition *asked, int64_t offset, int64_t taken,
                       struct progress *progress, struct kafka_extent **ret_extent) {
    struct kafka_worker *worker = call->session->worker;
    *ret_extent = NULL;
    uint32_t room = kafka_budget_room(&progress->budget, asked->max_bytes - taken);
    progress->is_full |= room == 0;
    if (room == 0)
        return 0;
    room = room < READ_MAX_BYTES ? room : READ_MAX_BYTES;
    struct kafka_extent *read = kafka_arena_take(&call->arena, sizeof(*read));
    if (!read)
        return DG_ERR_NO_MEMORY;
    int err = stream_read(worker->stream, topic->stream_id, (uint32_t)asked->index, offset, room,
                          worker->watcher, &read->extent);
    if (err < 0 || read->extent.size_bytes == 0)
        return err;
    if (call->header.version < KAFKA_FETCH_WITH_ZSTD &&
        (err = kafka_extent_check_codec(&read->extent)) < 0) {
        stream_extent_release(&read->extent);
        return err;
    }
    if (!kafka_budget_take(&progress->budget, room, read->extent.size_bytes)) {
        progress->is_full = true;
        stream_extent_release(&read->extent);
        return 0;
    }
    *ret_extent = read;
    return 0;
}

/* Reads one partition into its answer, as far as there is room. The stream gives what lies together
 * (at its tail one batch), so several runs are strung together. */
static int read_partition(struct kafka_call *call, const struct kafka_topic_ref *topic,
                          const struct kafka_fetch_partition *asked, struct progress *progress,
                          struct kafka_fetch_answer *answer) {
    struct kafka_extent **end = &answer->records.source;
    int64_t offset = asked->offset;
    for (unsigned count = 0; count < EXTENTS_MAX; count++) {
        int err =
            read_extent(call, topic, asked, offset, answer->records.size_bytes, progress, end);
        if (err == DG_ERR_COLD)
            answer->is_cold = progress->any_cold = true;
        if (err < 0) /* what was read is good; the next Fetch meets the error */
            return count == 0 && err != DG_ERR_COLD ? err : 0;
        if (!*end)
            return 0;
        answer->records.size_bytes += (*end)->extent.size_bytes;
        offset = (*end)->extent.next_offset;
        end = &(*end)->next;
    }
    progress->is_full = true;
    return 0;
}

static void answer_partition(struct kafka_call *call, int16_t topic_error,
                             const struct kafka_topic_ref *topic,
                             const struct kafka_fetch_partition *asked, struct progress *progress,
                             struct kafka_fetch_answer *answer) {
    *answer = (struct kafka_fetch_answer){.index = asked->index,
                                          .error = topic_error,
                                          .high_watermark = -1,
                                          .last_stable = -1,
                                          .log_start = -1,
                                          .aborted = {.is_null = true},
                                          .preferred_replica = -1};
    int32_t epoch =
        call->header.version >= FIRST_VERSION_WITH_EPOCH ? asked->current_epoch : KAFKA_NO_EPOCH;
    if (answer->error == 0)
        answer->error = kafka_topic_check_partition(call->session, topic, asked->index, epoch);
    kafka_note_miss(call->session, answer->error);
    if (answer->error == 0) {
        struct stream *stream = call->session->worker->stream;
        struct stream_offsets offsets;
        stream_offsets(stream, topic->stream_id, (uint32_t)asked->index, &offsets);
        answer->stream_id = topic->stream_id;
        answer->seen_bytes = offsets.appended_bytes; /* before the read: counts twice, never not */
        int err = progress->is_over ? 0 : read_partition(call, topic, asked, progress, answer);
        /* after the read: never behind what it returned */
        stream_offsets(stream, topic->stream_id, (uint32_t)asked->index, &offsets);
        answer->high_watermark = answer->last_stable = offsets.durable_end;
        answer->log_start = offsets.log_start;
        if (err < 0)
            answer->error =
                kafka_storage_error(call->session, topic, asked->index, asked->offset, err);
    }
    progress->any_error |= answer->error != 0;
}

static bool fill(struct kafka_call *call, const struct kafka_fetch_request *r,
                 struct progress *progress, struct kafka_fetch_response *response) {
    bool by_id = call->header.version >= FIRST_VERSION_WITH_IDS;
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
            answer_partition(call, error, &ref, &partitions[p], progress, &answers[p]);
    }
    return true;
}

/* ---- waiting ---- */

static uint64_t wait_deadline_ms(const struct kafka_session *session,
                                 const struct kafka_fetch_request *r) {
    int64_t wait_ms = r->max_wait_ms > 0 ? r->max_wait_ms : 0;
    if (wait_ms > LIMIT_KAFKA_MAX_WAIT_MS)
        wait_ms = LIMIT_KAFKA_MAX_WAIT_MS;
    return kafka_now_ms(session) + (uint64_t)wait_ms;
}

/* Each partition of the answer that was read, or of a cold answer those that are cold. */
static int arm(struct kafka_call *call, const struct kafka_fetch_response *response,
               bool only_cold) {
    struct kafka_worker *worker = call->session->worker;
    const struct kafka_topic *topics = response->topics.items;
    for (uint32_t t = 0; t < response->topics.count; t++) {
        const struct kafka_fetch_answer *answers = topics[t].partitions.items;
        for (uint32_t p = 0; p < topics[t].partitions.count; p++) {
            const struct kafka_fetch_answer *a = &answers[p];
            if (a->stream_id == 0 || (only_cold && !a->is_cold))
                continue;
            int err = kafka_wait_add(&worker->waits, call->session, a->stream_id,
                                     (uint32_t)a->index, a->seen_bytes);
            if (err < 0)
                return err;
            if (!only_cold) /* a cold range is told of without being asked */
                stream_watch(worker->watcher, a->stream_id, (uint32_t)a->index);
        }
    }
    return 0;
}

/* True when what came between the read and the arming is enough. */
static bool has_enough_by_now(const struct kafka_session *session) {
    bool enough = false;
    for (struct kafka_wait *wait = session->waits; wait; wait = wait->next_of_session) {
        struct stream_offsets offsets;
        kafka_wait_offsets(wait, session->worker->stream, &offsets);
        enough |= kafka_wait_count_one(wait, offsets.appended_bytes);
    }
    return enough;
}

/* Not enough yet. Answers KAFKA_WAITS, or 0 when enough came meanwhile: look again. */
static int begin_wait(struct kafka_call *call, const struct kafka_fetch_response *response,
                      const struct progress *progress) {
    struct kafka_session *session = call->session;
    session->missing_bytes =
        progress->any_cold ? 0 : progress->budget.min_bytes - progress->budget.taken_bytes;
    int err = arm(call, response, progress->any_cold);
    if (err < 0 || (!progress->any_cold && has_enough_by_now(session))) {
        kafka_wait_clear(&session->worker->waits, session);
        return err;
    }
    kafka_park(session);
    return KAFKA_WAITS;
}

static int answer(struct kafka_call *call, struct kafka_fetch_response *response,
                  const struct progress *progress) {
    call->session->wait_until_ms = 0;
    call->fetched_bytes = (uint64_t)progress->budget.taken_bytes;
    int outcome = kafka_answer(call, response);
    if (outcome < 0)
        release_extents(response);
    else
        metric_add(METRIC_KAFKA_FETCHED_BYTES, progress->budget.taken_bytes);
    return outcome;
}

/* Under a quota no answer takes more of it than a second brings. */
static struct kafka_budget make_budget(const struct kafka_call *call,
                                       const struct kafka_fetch_request *r) {
    uint64_t quota = call->session->worker->worker->config->kafka_quota_fetch_bytes_per_second;
    bool is_less = quota > 0 && r->max_bytes > 0 && quota < (uint64_t)r->max_bytes;
    return kafka_budget_make(r->min_bytes, is_less ? (int32_t)quota : r->max_bytes);
}

/* Reads what there is: answered, waiting, or 0 with nothing sent: look again. */
static int try_answer(struct kafka_call *call, const struct kafka_fetch_request *r,
                      bool *ret_answered) {
    struct progress progress = {.budget = make_budget(call, r),
                                .is_over = kafka_is_over_quota(call->session)};
    struct kafka_fetch_response response = {0};
    bool filled = fill(call, r, &progress, &response);
    if (kafka_must_ask_again(call->session)) {
        release_extents(&response);
        return kafka_ask_tenants(call->session);
    }
    bool in_time = kafka_now_ms(call->session) < call->session->wait_until_ms;
    if (filled && (progress.any_error || progress.is_full || progress.is_over || !in_time ||
                   kafka_budget_is_met(&progress.budget))) {
        *ret_answered = true;
        return answer(call, &response, &progress);
    }
    int outcome = filled ? begin_wait(call, &response, &progress) : DG_ERR_LIMIT;
    release_extents(&response);
    return outcome;
}

/* ---- the request ---- */

struct named {
    uint64_t stream_id;
    int64_t index;
};

static int compare_named(const void *a, const void *b) {
    const struct named *x = a, *y = b;
    if (x->stream_id != y->stream_id)
        return x->stream_id < y->stream_id ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Reading one partition thousands of times over would be cheap to ask for. */
static int check_request(struct kafka_call *call, const struct kafka_fetch_request *r) {
    uint32_t room = kafka_count_partitions(&r->topics), count = 0;
    struct named *named = kafka_arena_take(&call->arena, room * sizeof(*named));
    if (room > LIMIT_KAFKA_FETCH_PARTITIONS || !named)
        return DG_ERR_LIMIT;
    bool by_id = call->header.version >= FIRST_VERSION_WITH_IDS;
    for (uint32_t t = 0; t < r->topics.count; t++) {
        const struct kafka_topic *topic = (const struct kafka_topic *)r->topics.items + t;
        const struct kafka_fetch_partition *partitions = topic->partitions.items;
        struct kafka_topic_ref ref;
        if (kafka_topic_find(call->session, topic, by_id, &ref) != 0)
            continue;
        for (uint32_t p = 0; p < topic->partitions.count; p++)
            named[count++] = (struct named){ref.stream_id, partitions[p].index};
    }
    qsort(named, count, sizeof(named[0]), compare_named);
    for (uint32_t i = 1; i < count; i++) {
        if (compare_named(&named[i - 1], &named[i]) == 0) {
            call->session->why = "a Fetch that names a partition twice";
            return DG_ERR_MALFORMED;
        }
    }
    return 0;
}

/* There are no fetch sessions: session 0 tells the client so, and it goes on with whole requests
 * (KIP-227). */
int kafka_handle_fetch(struct kafka_call *call, const void *request) {
    const struct kafka_fetch_request *r = request;
    struct kafka_session *session = call->session;
    if (r->session_id != 0) {
        struct kafka_fetch_response response = {.error = KAFKA_ERROR_FETCH_SESSION_NOT_FOUND};
        return kafka_answer(call, &response);
    }
    int err = check_request(call, r);
    if (err < 0)
        return err;
    if (session->wait_until_ms == 0)
        session->wait_until_ms = wait_deadline_ms(session, r);
    struct kafka_arena arena = call->arena;
    bool answered = false;
    int outcome;
    do {
        call->arena = arena;
        outcome = try_answer(call, r, &answered);
    } while (outcome == 0 && !answered);
    return outcome;
}
