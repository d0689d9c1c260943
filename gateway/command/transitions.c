#include "gateway/command/transitions.h"

#include <event2/event.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/random.h"
#include "gateway/session/claims.h"

enum {
    KEY_SIZE = 17,
    INSTANCE_SIZE = 17,
    DELETIONS_MAX = 64, /* of one unit */
    RETRY_MS = 1000,
    FREE_WAITS_MAX = 1000,
};

struct queue {
    struct transition *first, **end;
};

/* What the statement of a kind says; rows are gathered while the one before is under way. */
static const enum registry_statement statements[] = {
    [PROJECTION_COMMAND] = STATEMENT_COMMAND_PROJECT,
    [PROJECTION_TWIN] = STATEMENT_TWIN_PROJECT,
};
enum { KIND_COUNT = sizeof(statements) / sizeof(statements[0]) };

struct transitions {
    struct worker *worker;
    struct stream *stream;
    struct stream_appender *appender;
    struct registry *registry;
    struct event_counter counter;
    struct event_scratch scratch;
    uint64_t next_sequence;
    unsigned most[KIND_COUNT];        /* rows of the next statement */
    struct queue waiting;             /* to be appended */
    struct queue durable[KIND_COUNT]; /* PostgreSQL is to be told */
    struct queue told[KIND_COUNT];    /* ... and has been asked to take it */
    struct queue projected;           /* its state is to be deleted */
    struct event retry_timer;
    char instance[INSTANCE_SIZE];
    void (*restored)(struct worker *worker);
    unsigned restored_left; /* of the process before */
};

static struct transitions *transitions_of(const struct worker *worker) {
    return worker->slots[WORKER_SLOT_TRANSITIONS];
}

const char *transitions_instance(const struct worker *worker) {
    return transitions_of(worker)->instance;
}

/* ---- queues ---- */

static void queue_init(struct queue *queue) {
    queue->first = NULL;
    queue->end = &queue->first;
}

static void push(struct queue *queue, struct transition *transition) {
    transition->next = NULL;
    *queue->end = transition;
    queue->end = &transition->next;
}

static struct transition *pop(struct queue *queue) {
    struct transition *transition = queue->first;
    queue->first = transition->next;
    if (!queue->first)
        queue->end = &queue->first;
    return transition;
}

/* All of `from`, in front and in their order. */
static void push_front(struct queue *queue, struct queue *from) {
    if (!from->first)
        return;
    *from->end = queue->first;
    if (!queue->first)
        queue->end = from->end;
    queue->first = from->first;
    queue_init(from);
}

static void retry_later(struct transitions *t) {
    static const struct timeval pause = {.tv_sec = RETRY_MS / 1000};
    if (!evtimer_pending(&t->retry_timer, NULL))
        evtimer_add(&t->retry_timer, &pause);
}

/* ---- state ---- */

static struct slice write_key(const struct transition *transition, uint8_t key[KEY_SIZE]) {
    key[0] = (uint8_t)transition->kind;
    memcpy(key + 1, &transition->owner, 8);
    memcpy(key + 9, &transition->sequence, 8);
    return slice_make(key, KEY_SIZE);
}

int64_t transitions_device_key(struct slice key) {
    int64_t owner = 0;
    if (key.size == KEY_SIZE && key.data[0] == PROJECTION_TWIN)
        memcpy(&owner, key.data + 1, sizeof(owner));
    return owner;
}

/* As far as the stream takes it: the rest waits for room. */
static void delete_projected(struct transitions *t) {
    while (t->projected.first) {
        struct stream_mutation mutations[DELETIONS_MAX];
        uint8_t keys[DELETIONS_MAX][KEY_SIZE];
        unsigned count = 0;
        for (const struct transition *i = t->projected.first; i && count < DELETIONS_MAX;
             i = i->next, count++)
            mutations[count] = (struct stream_mutation){.name_space = STREAM_STATE_PROJECTION,
                                                        .is_delete = true,
                                                        .key = write_key(i, keys[count])};
        if (stream_mutate(t->appender, mutations, count, (struct stream_ticket){0}) < 0)
            return;
        while (count-- > 0) {
            struct transition *transition = pop(&t->projected);
            transition->projected(t->worker, transition);
        }
    }
}

/* ---- PostgreSQL ---- */

static void project(struct transitions *t, enum projection_kind kind);
static transition_fn leftover_done;

static void on_restored(struct transitions *t, unsigned count) {
    if (t->restored_left == 0)
        return;
    dg_assert(count <= t->restored_left);
    t->restored_left -= count;
    if (t->restored_left == 0)
        t->restored(t->worker);
}

static void take_told(struct transitions *t, enum projection_kind kind) {
    unsigned count = 0, left = 0;
    for (; t->told[kind].first; count++) {
        left += t->told[kind].first->done == leftover_done;
        push(&t->projected, pop(&t->told[kind]));
    }
    metric_add(METRIC_PROJECTIONS_WAITING, -(int64_t)count);
    t->most[kind] *= 2;
    if (t->most[kind] > LIMIT_COMMANDS_OF_STATEMENT)
        t->most[kind] = LIMIT_COMMANDS_OF_STATEMENT;
    delete_projected(t);
    on_restored(t, left); /* not what devices have caused meanwhile */
}

/* A row that PostgreSQL will never take (it would be a defect) must not stand in the way of all
 * others: it is looked for one by one, and left out. */
static void take_refusal(struct transitions *t, enum projection_kind kind, const char *detail) {
    if (t->told[kind].first && !t->told[kind].first->next) {
        LOG_ERROR("projection.refused", log_int("owner", t->told[kind].first->owner),
                  log_text("why", detail ? detail : ""));
        take_told(t, kind);
        return;
    }
    t->most[kind] = 1;
    push_front(&t->durable[kind], &t->told[kind]);
}

static void on_projected(struct mail *mail, void *receiver) {
    struct registry_request *request = (struct registry_request *)(void *)mail;
    struct transitions *t = transitions_of(receiver);
    enum projection_kind kind = (enum projection_kind)request->owner;
    int err = request->err;
    if (t && err == 0) {
        take_told(t, kind);
    } else if (t && err == DG_ERR_INVALID) {
        take_refusal(t, kind, request->detail);
    } else if (t) { /* it may have been too much for the time that a statement has */
        t->most[kind] = (t->most[kind] + 3) / 4;
        push_front(&t->durable[kind], &t->told[kind]);
        retry_later(t);
    }
    if (t && (err == 0 || err == DG_ERR_INVALID))
        project(t, kind);
    registry_request_free(request);
}

static char *write_rows(struct transitions *t, enum projection_kind kind, struct slice *ret_text) {
    size_t size = 2, count = 0;
    const struct transition *i = t->durable[kind].first;
    for (; i && count < t->most[kind] && size < LIMIT_COMMAND_BYTES_OF_STATEMENT; i = i->next) {
        size += i->row.size + 1;
        count++;
    }
    char *text = malloc(size);
    if (!text)
        return NULL;
    char *at = text;
    *at++ = '[';
    for (; count > 0; count--) {
        struct transition *transition = pop(&t->durable[kind]);
        memcpy(at, transition->row.data, transition->row.size);
        at += transition->row.size;
        *at++ = ',';
        push(&t->told[kind], transition);
    }
    at[-1] = ']';
    *ret_text = slice_make(text, (size_t)(at - text));
    return text;
}

static int fill_request(struct transitions *t, enum projection_kind kind,
                        struct registry_request *request) {
    struct slice rows;
    char *text = request ? write_rows(t, kind, &rows) : NULL;
    if (!text)
        return DG_ERR_NO_MEMORY;
    int err = registry_request_add(request, rows);
    if (err == 0)
        err = registry_request_add(request, slice_from_string(t->instance));
    free(text);
    return err;
}

/* What has gathered, unless some is under way. */
static void project(struct transitions *t, enum projection_kind kind) {
    if (t->told[kind].first || !t->durable[kind].first)
        return;
    struct registry_request *request = registry_request_new(statements[kind]);
    if (fill_request(t, kind, request) < 0) {
        push_front(&t->durable[kind], &t->told[kind]);
        registry_request_free(request);
        retry_later(t);
        return;
    }
    request->mail.deliver = on_projected;
    request->reply_to = &t->worker->mailbox;
    request->owner = kind;
    request->account = registry_account_of_commands(t->worker->index);
    request->is_own = true;
    registry_execute(t->registry, request);
}

/* ---- the stream ---- */

static int append_event(struct transitions *t, struct transition *transition,
                        const struct stream_mutation *mutations, unsigned count,
                        struct stream_ticket ticket) {
    const struct command_target *target = &transition->target;
    struct device_event event = {
        .type = transition->type,
        .protocol = "duragate",
        .id = transition->id,
        .subject = transition->subject,
        .payload = transition->payload,
        .received_ms = t->worker->wall_ms,
    };
    struct event_source source = {
        .tenant = slice_from_string(target->tenant),
        .device = slice_from_string(target->device),
        .partition = target->partition,
        .stream_id = registry_stream(target->stream_id, STREAM_COMMANDS),
    };
    struct stream_record record;
    int err = event_build(&event, &source, &t->counter, &t->scratch, &record);
    if (err < 0)
        return err;
    return stream_append_with(t->appender, source.stream_id, source.partition, &record, mutations,
                              count, ticket);
}

static int append(struct transitions *t, struct transition *transition) {
    struct stream_mutation mutations[2];
    uint8_t key[KEY_SIZE];
    unsigned count = 0;
    struct stream_ticket ticket = {.owner = (uintptr_t)transition};
    if (transition->kind != PROJECTION_NONE)
        mutations[count++] = (struct stream_mutation){.name_space = STREAM_STATE_PROJECTION,
                                                      .key = write_key(transition, key),
                                                      .value = transition->row};
    if (transition->state.name_space != 0)
        mutations[count++] = transition->state;
    if (transition->type == EVENT_TYPE_COUNT)
        return stream_mutate(t->appender, mutations, count, ticket);
    return append_event(t, transition, mutations, count, ticket);
}

static void append_waiting(struct transitions *t) {
    while (t->waiting.first) {
        int err = append(t, t->waiting.first);
        if (err == DG_ERR_PRESSURE)
            return; /* on_ready() comes back here */
        struct transition *transition = pop(&t->waiting);
        if (err < 0) {
            transition->err = err;
            transition->done(t->worker, transition);
        }
    }
}

void transitions_append(struct worker *worker, struct transition *transition) {
    struct transitions *t = transitions_of(worker);
    dg_assert(transition->row.size <= TRANSITION_ROW_BYTES);
    transition->sequence = t->next_sequence++;
    transition->err = 0;
    bool is_first = !t->waiting.first;
    push(&t->waiting, transition);
    if (is_first) /* else: what is before it waits */
        append_waiting(t);
}

static void on_done(void *context, const struct stream_ticket *ticket, int err, int64_t offset) {
    struct transitions *t = context;
    struct transition *transition = (struct transition *)(uintptr_t)ticket->owner;
    if (!transition)
        return; /* a deletion; one that was refused is made good at the next start */
    if (err == DG_ERR_STORAGE_FULL && transition->insists) {
        struct queue again;
        queue_init(&again);
        push(&again, transition);
        push_front(&t->waiting, &again);
        retry_later(t);
        return;
    }
    transition->err = err;
    if (err == 0 && transition->kind != PROJECTION_NONE) {
        enum projection_kind kind = transition->kind;
        push(&t->durable[kind], transition);
        metric_add(METRIC_PROJECTIONS_WAITING, 1);
        transition->done(t->worker, transition);
        project(t, kind);
        return;
    }
    transition->done(t->worker, transition);
}

static void on_ready(void *context) {
    append_waiting(context);
    delete_projected(context);
}

static void on_retry(evutil_socket_t fd, short what, void *context) {
    struct transitions *t = context;
    worker_refresh_time(t->worker);
    append_waiting(t);
    for (unsigned kind = 1; kind < KIND_COUNT; kind++)
        project(t, (enum projection_kind)kind);
}

/* ---- what was left ---- */

struct leftover {
    struct transition transition; /* first */
    uint8_t row[];
};

static void leftover_done(struct worker *worker, struct transition *transition) {
    free(transition);
}

struct restoring {
    struct worker **workers;
    unsigned count;
    int err;
    uint64_t last_sequence;
};

static void restore_one(void *context, struct slice key, struct slice value) {
    struct restoring *restoring = context;
    struct leftover *left = key.size == KEY_SIZE && key.data[0] > 0 && key.data[0] < KIND_COUNT
                                ? malloc(sizeof(*left) + value.size)
                                : NULL;
    if (!left) {
        restoring->err = DG_ERR_NO_MEMORY;
        return;
    }
    memcpy(left->row, value.data, value.size);
    left->transition = (struct transition){.kind = (enum projection_kind)key.data[0],
                                           .row = slice_make(left->row, value.size),
                                           .done = leftover_done,
                                           .projected = leftover_done};
    memcpy(&left->transition.owner, key.data + 1, 8);
    memcpy(&left->transition.sequence, key.data + 9, 8);
    if (left->transition.sequence > restoring->last_sequence)
        restoring->last_sequence = left->transition.sequence;
    /* Whichever worker it is that tells PostgreSQL: before anything new is decided. */
    unsigned home = claims_home(left->transition.owner, restoring->count);
    struct transitions *t = transitions_of(restoring->workers[home]);
    push(&t->durable[left->transition.kind], &left->transition);
    metric_add(METRIC_PROJECTIONS_WAITING, 1);
    t->restored_left++;
}

static int compare(const void *a, const void *b) {
    uint64_t left = (*(struct transition *const *)a)->sequence;
    uint64_t right = (*(struct transition *const *)b)->sequence;
    return left < right ? -1 : left > right;
}

/* State has no order. */
static int sort(struct queue *queue) {
    size_t count = 0;
    for (const struct transition *i = queue->first; i; i = i->next)
        count++;
    struct transition **all = malloc((count + 1) * sizeof(struct transition *));
    if (!all)
        return DG_ERR_NO_MEMORY;
    for (size_t i = 0; i < count; i++)
        all[i] = pop(queue);
    qsort(all, count, sizeof(struct transition *), compare);
    for (size_t i = 0; i < count; i++)
        push(queue, all[i]);
    free(all);
    return 0;
}

static void begin_restored(struct mail *mail, void *receiver) {
    struct transitions *t = transitions_of(receiver);
    free(mail);
    if (t->restored_left == 0)
        t->restored(t->worker);
    for (unsigned kind = 1; kind < KIND_COUNT; kind++)
        project(t, (enum projection_kind)kind);
}

int transitions_restore(struct stream *stream, struct worker **workers, unsigned count,
                        void (*restored)(struct worker *worker)) {
    struct restoring restoring = {.workers = workers, .count = count};
    stream_visit_state(stream, STREAM_STATE_PROJECTION, restore_one, &restoring);
    for (unsigned i = 0; restoring.err == 0 && i < count; i++) {
        struct transitions *t = transitions_of(workers[i]);
        struct mail *mail = malloc(sizeof(*mail));
        t->restored = restored;
        if (t->next_sequence <= restoring.last_sequence) /* the clock was set back */
            t->next_sequence = restoring.last_sequence + 1;
        for (unsigned kind = 1; restoring.err == 0 && kind < KIND_COUNT; kind++)
            restoring.err = sort(&t->durable[kind]);
        if (!mail) {
            restoring.err = DG_ERR_NO_MEMORY;
            break;
        }
        mail->deliver = begin_restored;
        mailbox_post(&workers[i]->mailbox, mail);
    }
    return restoring.err;
}

/* ---- life ---- */

/* The store's secret is not to be told: its hash is as good a name. */
static void name_instance(struct transitions *t) {
    static const char what[] = "duragate instance";
    uint8_t bytes[sizeof(what) + 64], hash[SHA256_DIGEST_LENGTH];
    struct slice secret = stream_secret(t->stream);
    dg_assert(secret.size <= 64);
    memcpy(bytes, what, sizeof(what));
    memcpy(bytes + sizeof(what), secret.data, secret.size);
    SHA256(bytes, sizeof(what) + secret.size, hash);
    for (unsigned i = 0; i < (INSTANCE_SIZE - 1) / 2; i++)
        snprintf(t->instance + 2 * i, 3, "%02x", hash[i]);
}

static void end_turn(void *context) {
    struct transitions *t = context;
    stream_appender_turn(t->appender);
}

int transitions_worker_start(struct worker *worker, struct stream *stream,
                             struct registry *registry) {
    struct transitions *t = calloc(1, sizeof(*t));
    if (!t)
        return DG_ERR_NO_MEMORY;
    t->worker = worker;
    t->stream = stream;
    t->registry = registry;
    t->next_sequence = (uint64_t)worker->wall_ms << 20; /* behind what an earlier process left */
    int size = snprintf(t->counter.prefix, sizeof(t->counter.prefix), "%s-%08x-c%u-",
                        worker->config->server_node_id, (unsigned)random_u64(), worker->index);
    t->counter.prefix_size = (uint8_t)size;
    queue_init(&t->waiting);
    queue_init(&t->projected);
    for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
        t->most[kind] = LIMIT_COMMANDS_OF_STATEMENT;
        queue_init(&t->durable[kind]);
        queue_init(&t->told[kind]);
    }
    int err = stream_appender_create(stream, &worker->mailbox, on_done, on_ready, t, &t->appender);
    if (err < 0) {
        free(t);
        return err;
    }
    name_instance(t);
    evtimer_assign(&t->retry_timer, worker->base, on_retry, t);
    worker->slots[WORKER_SLOT_TRANSITIONS] = t;
    worker_add_turn_hook(worker, end_turn, t);
    return 0;
}

static void end_all(struct transitions *t, struct queue *queue) {
    while (queue->first) {
        struct transition *transition = pop(queue);
        transition->projected(t->worker, transition);
    }
}

void transitions_worker_free(struct worker *worker) {
    struct transitions *t = transitions_of(worker);
    if (!t)
        return;
    mailbox_drain(&worker->mailbox);
    for (unsigned i = 0; i < FREE_WAITS_MAX && stream_appender_pending(t->appender) > 0; i++) {
        stream_appender_turn(t->appender);
        worker_await_mail(worker);
    }
    evtimer_del(&t->retry_timer);
    while (t->waiting.first) {
        struct transition *transition = pop(&t->waiting);
        transition->err = DG_ERR_SHUTTING_DOWN;
        transition->done(worker, transition);
    }
    for (unsigned kind = 0; kind < KIND_COUNT; kind++) {
        end_all(t, &t->durable[kind]);
        end_all(t, &t->told[kind]);
    }
    end_all(t, &t->projected);
    stream_appender_free(t->appender);
    worker->slots[WORKER_SLOT_TRANSITIONS] = NULL;
    free(t);
}
