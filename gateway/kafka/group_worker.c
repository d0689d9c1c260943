/*
 * The coordinator's place in a worker. A group's home is the worker that a seeded hash of its
 * tenant and name chooses; requests for it travel there as mail and their answers back, also when
 * both are the same worker. Offsets go through an appender of the coordinator's own.
 */
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/random.h"
#include "gateway/kafka/beyond.h"
#include "gateway/kafka/group_store.h"
#include "gateway/kafka/groups.h"
#include "gateway/kafka/session.h"
#include "gateway/kafka/survey.h"

enum {
    TICK_MS = 100,
    INITIAL_DELAY_MS = 500, /* so that consumers that start together need one round */
    FREE_WAITS_MAX = 1000,
    PIECE_MAX = 128, /* offsets handed to the stream at once */
};

struct kafka_groups {
    struct worker *worker;
    struct worker **workers;
    unsigned worker_count;
    struct groups *groups;
    struct kafka_survey *survey;
    struct stream_appender *appender;
    struct event tick;
    uint64_t next_ms; /* when groups_tick() has something to do; 0: after a request */
    struct group_request *storing_first, *storing_last; /* no room for them yet */
    bool is_stopping;
    uint8_t keys[PIECE_MAX][GROUP_STORE_KEY_MAX]; /* scratch */
    uint8_t values[PIECE_MAX][GROUP_STORE_VALUE_MAX];
};

static uint64_t now_ms(const struct kafka_groups *k) {
    return k->worker->now_ns / 1000000;
}

/* ---- where a group lives ---- */

static unsigned home_of(const struct kafka_groups *k, int64_t tenant_key, struct slice group) {
    uint8_t key[8 + LIMIT_KAFKA_GROUP_NAME_BYTES];
    size_t size =
        group.size < LIMIT_KAFKA_GROUP_NAME_BYTES ? group.size : LIMIT_KAFKA_GROUP_NAME_BYTES;
    memcpy(key, &tenant_key, 8);
    if (size > 0)
        memcpy(key + 8, group.data, size);
    return (unsigned)(hash_bytes(key, 8 + size) % k->worker_count);
}

static void deliver_request(struct mail *mail, void *receiver) {
    struct worker *worker = receiver;
    struct group_request *request = (struct group_request *)(void *)mail;
    struct kafka_groups *k = kafka_of(worker) ? kafka_of(worker)->groups : NULL;
    if (!k) {
        group_request_free(request);
        return;
    }
    worker_refresh_time(worker);
    k->next_ms = 0;
    group_handle(k->groups, request, now_ms(k));
}

static void deliver_answer(struct mail *mail, void *receiver) {
    kafka_group_answered(receiver, (struct group_request *)(void *)mail);
}

struct kafka_survey *kafka_groups_survey(const struct kafka_worker *worker) {
    return worker->groups ? worker->groups->survey : NULL;
}

unsigned kafka_groups_worker_count(const struct kafka_worker *worker) {
    return worker->groups->worker_count;
}

void kafka_groups_ask(struct kafka_worker *worker, struct group_request *request) {
    const struct kafka_groups *k = worker->groups;
    unsigned home = request->operation == GROUP_LIST
                        ? request->tag
                        : home_of(k, request->tenant_key, request->group);
    request->mail.deliver = deliver_request;
    mailbox_post(&k->workers[home]->mailbox, &request->mail);
}

void groups_ask(struct worker *worker, struct group_request *request) {
    kafka_groups_ask(kafka_of(worker), request);
}

unsigned groups_worker_count(const struct worker *worker) {
    return kafka_groups_worker_count(worker->slots[WORKER_SLOT_KAFKA]);
}

int groups_err(int16_t error) {
    switch (error) {
    case KAFKA_ERROR_NONE:
        return 0;
    case KAFKA_ERROR_GROUP_NOT_FOUND:
    case KAFKA_ERROR_INVALID_GROUP:
        return DG_ERR_NOT_FOUND;
    case KAFKA_ERROR_NON_EMPTY_GROUP:
    case KAFKA_ERROR_UNKNOWN_MEMBER: /* a commit of nobody's, while there are members */
        return DG_ERR_IN_USE;
    case KAFKA_ERROR_POLICY_VIOLATION: /* too many groups, or partitions of one */
        return DG_ERR_LIMIT;
    default:
        return DG_ERR_BUSY;
    }
}

void kafka_groups_refuse(struct kafka_worker *worker, struct group_request *request,
                         int16_t error) {
    request->error = error;
    request->state = GROUP_DEAD;
    for (uint32_t i = 0; i < request->offset_count; i++)
        request->offsets[i].offset = request->offsets[i].epoch = -1;
    request->mail.deliver = deliver_answer;
    mailbox_post(&worker->worker->mailbox, &request->mail);
}

/* ---- effects ---- */

static void effect_answer(void *context, struct group_request *request) {
    struct kafka_groups *k = context;
    if (k->is_stopping) {
        group_request_free(request);
        return;
    }
    request->mail.deliver = request->answered ? request->answered : deliver_answer;
    mailbox_post(&k->workers[request->worker]->mailbox, &request->mail);
}

static uint64_t effect_random(void *context) {
    return random_u64();
}

/* ---- storing: in pieces that each fit one unit ---- */

/* Hands the next offsets of the request to the stream. 0, DG_ERR_PRESSURE, other errors. */
static int store_piece(struct kafka_groups *k, struct group_request *request) {
    struct stream_mutation mutations[PIECE_MAX];
    unsigned count = 0;
    uint32_t at = request->stored_count;
    size_t size = 0;
    for (; at < request->offset_count && count < PIECE_MAX; at++) {
        const struct group_offset *offset = &request->offsets[at];
        if (offset->error != 0)
            continue;
        mutations[count] = group_store_encode(request, offset, k->keys[count], k->values[count]);
        size += mutations[count].key.size + mutations[count].value.size + 8;
        if (size > STREAM_MUTATIONS_BYTES)
            break;
        count++;
    }
    /* tag: which offsets the piece is of */
    struct stream_ticket ticket = {.owner = (uint64_t)(uintptr_t)request,
                                   .tag = (uint64_t)request->stored_count << 32 | at};
    int err = count > 0 ? stream_mutate(k->appender, mutations, count, ticket) : 0;
    if (err == 0) {
        request->stored_count = at;
        request->pieces_left += count > 0;
    }
    return err;
}

static void settle(struct kafka_groups *k, struct group_request *request) {
    if (request->pieces_left == 0 && request->stored_count == request->offset_count)
        group_stored(k->groups, request, now_ms(k));
}

static void fail_rest(struct group_request *request) {
    group_fail_offsets(request, request->stored_count, request->offset_count);
    request->stored_count = request->offset_count;
}

/* False: no room, the stream tells when to go on. */
static bool store_all(struct kafka_groups *k, struct group_request *request) {
    while (request->stored_count < request->offset_count) {
        int err = store_piece(k, request);
        if (err == DG_ERR_PRESSURE)
            return false;
        if (err < 0)
            fail_rest(request);
    }
    settle(k, request);
    return true;
}

static void store_waiting(struct kafka_groups *k) {
    struct group_request *request;
    while ((request = k->storing_first)) {
        struct group_request *next = request->next_storing;
        if (!store_all(k, request)) /* else it is answered, or its tickets come */
            return;
        k->storing_first = next;
        if (!next)
            k->storing_last = NULL;
    }
}

static void effect_store(void *context, struct group_request *request) {
    struct kafka_groups *k = context;
    if (request->operation == GROUP_EXPIRE)
        LOG_INFO("kafka.offsets_expired", log_int("tenant_key", request->tenant_key),
                 log_slice("group", request->group));
    request->stored_count = request->pieces_left = 0;
    request->next_storing = NULL;
    *(k->storing_last ? &k->storing_last->next_storing : &k->storing_first) = request;
    k->storing_last = request;
    if (k->storing_first == request)
        store_waiting(k);
}

static void on_stored(void *context, const struct stream_ticket *ticket, int err, int64_t offset) {
    struct kafka_groups *k = context;
    struct group_request *request = (struct group_request *)(uintptr_t)ticket->owner;
    worker_refresh_time(k->worker);
    request->pieces_left--;
    if (err < 0)
        group_fail_offsets(request, (uint32_t)(ticket->tag >> 32), (uint32_t)ticket->tag);
    settle(k, request);
}

static void on_room(void *context) {
    store_waiting(context);
}

/* ---- time ---- */

void kafka_groups_tick(struct kafka_worker *worker) {
    struct kafka_groups *k = worker->groups;
    worker_refresh_time(k->worker);
    if (now_ms(k) >= k->next_ms)
        k->next_ms = groups_tick(k->groups, now_ms(k), k->worker->wall_ms,
                                 k->worker->config->kafka_offsets_retention);
}

static void on_tick(evutil_socket_t fd, short what, void *context) {
    struct kafka_worker *kafka = context;
    kafka_groups_tick(kafka);
    kafka_survey_step(kafka->groups->survey);
}

static void end_turn(void *context) {
    struct kafka_groups *k = context;
    stream_appender_turn(k->appender);
}

/* ---- life ---- */

struct restoring {
    struct kafka_groups *k;
    int err;
};

static void restore(void *context, struct slice key, struct slice value) {
    struct restoring *restoring = context;
    struct kafka_groups *k = restoring->k;
    struct group_offset offset;
    struct slice group;
    int64_t tenant_key;
    if (group_store_decode(key, value, &tenant_key, &group, &offset) < 0 ||
        home_of(k, tenant_key, group) != k->worker->index)
        return;
    int err = group_restore_offset(k->groups, tenant_key, group, &offset);
    if (err < 0)
        restoring->err = err;
}

static int create_parts(struct kafka_groups *k, struct stream *stream) {
    static const struct group_effects effects = {
        .answer = effect_answer, .store = effect_store, .random = effect_random};
    k->groups = groups_create(&effects, k, INITIAL_DELAY_MS);
    k->survey =
        k->groups ? kafka_survey_create(kafka_of(k->worker), k->groups, k->worker_count) : NULL;
    if (!k->survey)
        return DG_ERR_NO_MEMORY;
    int err =
        stream_appender_create(stream, &k->worker->mailbox, on_stored, on_room, k, &k->appender);
    if (err < 0)
        return err;
    if (k->worker->index == 0)
        kafka_find_offsets_beyond(stream);
    struct restoring restoring = {.k = k};
    stream_visit_state(stream, STREAM_STATE_CONSUMER, restore, &restoring);
    static const struct timeval tick = {.tv_usec = TICK_MS * 1000};
    event_assign(&k->tick, k->worker->base, -1, EV_PERSIST, on_tick, kafka_of(k->worker));
    event_add(&k->tick, &tick);
    return restoring.err;
}

int kafka_groups_start(struct worker *worker, struct worker **workers, unsigned count) {
    struct kafka_worker *kafka = kafka_of(worker);
    struct kafka_groups *k = calloc(1, sizeof(*k));
    if (!k)
        return DG_ERR_NO_MEMORY;
    k->worker = worker;
    k->workers = workers;
    k->worker_count = count;
    kafka->groups = k;
    kafka->ledger = worker == workers[0] ? kafka_ledger_create()
                                         : kafka_ledger_share(kafka_of(workers[0])->ledger);
    if (!kafka->ledger)
        return DG_ERR_NO_MEMORY;
    worker_add_turn_hook(worker, end_turn, k);
    return create_parts(k, kafka->stream);
}

/* What is with the stream comes back first: its tickets name requests. */
static void wait_for_tickets(struct kafka_groups *k) {
    for (unsigned i = 0; i < FREE_WAITS_MAX && stream_appender_pending(k->appender) > 0; i++) {
        stream_appender_turn(k->appender);
        worker_await_mail(k->worker);
    }
}

void kafka_groups_free(struct kafka_worker *kafka) {
    struct kafka_groups *k = kafka->groups;
    if (!k)
        return;
    k->is_stopping = true;
    while (k->storing_first) {
        struct group_request *request = k->storing_first;
        k->storing_first = request->next_storing;
        fail_rest(request);
        settle(k, request);
    }
    if (k->appender)
        wait_for_tickets(k);
    if (event_initialized(&k->tick))
        event_del(&k->tick);
    stream_appender_free(k->appender);
    kafka_survey_free(k->survey);
    groups_free(k->groups);
    free(k);
    kafka->groups = NULL;
    kafka_ledger_release(kafka->ledger);
    kafka->ledger = NULL;
}
