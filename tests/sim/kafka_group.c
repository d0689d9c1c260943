/*
 * Simulation of a consumer group: the coordinator with clients that behave like real ones, on a
 * clock and a network that are numbers. Nothing here is random but the seed, so what fails once
 * fails again:
 *
 *     kafka_group_sim [seed [count]]     so many runs from that seed on; one is told step by step
 *
 * Clients are dynamic or static members and assign eagerly (range) or cooperatively. They crash,
 * pause, leave, start again, lose their connections and what was on its way, change their mind, and
 * are removed by an administrator. Checked after each step: what the coordinator holds is
 * consistent; a sync is answered with what the leader of that generation gave; the leader's
 * assignments do not overlap and neither do those of the members of one generation; generations
 * only grow; no request waits longer than the time-outs allow or is answered twice; what the
 * coordinator knows of offsets is what the disk has. And when the disturbances are over: the group
 * becomes stable, with all clients and all partitions in it; when the clients have gone,
 * administrators commit, forget and delete across each other, and a deleted group is gone from the
 * disk as well.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/reader.h"
#include "common/writer.h"
#include "gateway/kafka/group_internal.h"

enum {
    RUNS = 250,
    CLIENTS = 6,
    PARTITIONS = 12,
    ALL_PARTITIONS = (1 << PARTITIONS) - 1,
    HEARTBEAT_MS = 1000,
    SESSION_MS_MAX = 10000,
    REBALANCE_MS_MAX = 20000,
    INITIAL_DELAY_MS = 500,
    DISTURBED_MS = 120000,
    SETTLED_MS = SESSION_MS_MAX + 2 * REBALANCE_MS_MAX + 10000,
    /* A round ends with its time-out; the first one may be prolonged by each that joins it. */
    WAIT_MS_MAX = 2 * REBALANCE_MS_MAX + SESSION_MS_MAX,
    TICKETS = 20000,
    MESSAGES = 256,
    GENERATIONS = 2000,
    STORES = 64,
    STORE_MS_MAX = 300,
    NOTHING = -1,
};

enum client_state { DOWN, RESTING, JOINING, SYNCING, RUNNING };

struct client {
    unsigned index;
    enum client_state state;
    bool is_static;
    int16_t version;
    unsigned connection; /* what was asked on an older one is not heard any more */
    unsigned topics;     /* what it wants, a number that changes now and then */
    int32_t session_ms, rebalance_ms;
    char id[128];
    int32_t generation;
    uint32_t owned; /* partitions, a bit each */
    bool leads;
    uint64_t wake_ms, beat_ms, paused_until_ms;
    uint64_t last_arrival_ms;     /* of its connection, which keeps the order */
    struct group_request *joined; /* the answer, until the sync */
};

struct ticket {
    unsigned client, connection;
    enum group_operation operation;
    uint64_t handled_ms; /* 0: not yet with the coordinator */
    bool is_answered;
};

struct message {
    uint64_t at_ms;
    bool is_answer;
    struct group_request *request;
};

/* What the leader of a generation gave, by member id; and what was fetched. */
struct generation {
    bool is_assigned;
    unsigned count;
    char ids[CLIENTS * 4][128];
    uint32_t masks[CLIENTS * 4];
    uint32_t fetched[CLIENTS];
};

/* A request that is being stored: the disk has it from this time on, in the order of asking. */
struct store {
    uint64_t at_ms;
    struct group_request *request;
};

static struct world {
    uint64_t seed, random, now_ms;
    bool is_cooperative, tells;
    struct groups *groups;
    struct client clients[CLIENTS];
    struct ticket tickets[TICKETS];
    uint64_t ticket_count, first_open; /* all before first_open are answered */
    struct message messages[MESSAGES];
    unsigned message_count;
    struct generation generations[GENERATIONS];
    int32_t last_generation;
    struct store stores[STORES];
    unsigned store_count;
    int64_t disk[PARTITIONS], disk_stamp; /* offsets of stream 1, and of stream 0 */
    bool may_be_gone;                     /* the group has been deleted */
    int64_t deleted;                      /* offsets up to this one are gone for good */
    unsigned stable_rounds;
} w;

static void tell(const char *format, ...) {
    if (!w.tells)
        return;
    va_list arguments;
    va_start(arguments, format);
    printf("%8llu ", (unsigned long long)w.now_ms);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

#define check(condition, ...)                                                                     \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            fprintf(stderr,                                                                       \
                    "kafka_group: seed %llu, %llu ms, line %d: %s: ", (unsigned long long)w.seed, \
                    (unsigned long long)w.now_ms, __LINE__, #condition);                          \
            fprintf(stderr, __VA_ARGS__);                                                         \
            fputc('\n', stderr);                                                                  \
            abort();                                                                              \
        }                                                                                         \
    } while (0)

static uint64_t random_bits(void *context) {
    uint64_t z = w.random += 0x9e3779b97f4a7c15; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static unsigned below(unsigned bound) {
    return (unsigned)(random_bits(NULL) >> 33) % bound;
}

/* ---- the network ---- */

static void post(struct group_request *request, bool is_answer) {
    struct client *c = &w.clients[w.tickets[request->owner].client];
    uint64_t at_ms = w.now_ms + 1 + below(below(8) == 0 ? 2000 : 20);
    if (at_ms < c->last_arrival_ms)
        at_ms = c->last_arrival_ms;
    c->last_arrival_ms = at_ms;
    check(w.message_count < MESSAGES, "too many messages");
    w.messages[w.message_count++] = (struct message){at_ms, is_answer, request};
}

static struct group_request *begin_request(struct client *c, enum group_operation operation) {
    struct group_request *request = group_request_new(operation);
    check(w.ticket_count < TICKETS, "too many requests");
    request->owner = w.ticket_count;
    w.tickets[w.ticket_count++] =
        (struct ticket){.client = c->index, .connection = c->connection, .operation = operation};
    char instance[2] = {(char)('A' + c->index)};
    request->version = c->version;
    request->generation = c->generation;
    check(group_keep(request, slice_from_string("g"), &request->group), "memory");
    check(group_keep(request, slice_from_string(c->id), &request->member), "memory");
    if (c->is_static)
        check(group_keep(request, slice_make(instance, 1), &request->instance), "memory");
    return request;
}

static void write_partitions(struct writer *to, uint32_t mask) {
    writer_u32(to, 1);
    writer_u16(to, 1);
    writer_u8(to, 't');
    writer_u32(to, (uint32_t)__builtin_popcount(mask));
    for (uint32_t p = 0; p < PARTITIONS; p++)
        if (mask & 1u << p)
            writer_u32(to, p);
}

static void put_item(struct group_request *request, struct slice id, const uint8_t *bytes,
                     size_t size) {
    if (!request->items)
        request->items = group_take(request, CLIENTS * 4 * sizeof(*request->items));
    struct group_item *item = &request->items[request->item_count++];
    check(group_keep(request, id, &item->id), "memory");
    check(group_keep(request, slice_make(bytes, size), &item->bytes), "memory");
}

/* A consumer's metadata (version 1): one topic, no user data, what is owned. */
static void put_subscription(struct group_request *request, uint32_t topic, uint32_t owned) {
    uint8_t bytes[128];
    struct writer to = writer_make(bytes, sizeof(bytes));
    writer_u16(&to, 1);
    writer_u32(&to, 1);
    writer_u16(&to, 4);
    writer_u32(&to, topic);
    writer_u32(&to, UINT32_MAX);
    write_partitions(&to, owned);
    put_item(request, slice_from_string("range"), bytes, writer_size(&to));
}

static void put_assignment(struct group_request *request, struct slice member, uint32_t mask) {
    uint8_t bytes[128];
    struct writer to = writer_make(bytes, sizeof(bytes));
    writer_u16(&to, 0);
    write_partitions(&to, mask);
    writer_u32(&to, UINT32_MAX);
    put_item(request, member, bytes, writer_size(&to));
}

static uint32_t read_partitions(struct reader *from) {
    uint32_t mask = 0;
    reader_take(from, 4 + 2 + 1);
    for (uint32_t count = reader_u32(from); count > 0 && !from->failed; count--)
        mask |= 1u << reader_u32(from);
    check(!from->failed, "partitions");
    return mask;
}

static uint32_t assigned_in(struct slice assignment) {
    struct reader r = reader_make(assignment.data, assignment.size);
    reader_take(&r, 2);
    return assignment.size == 0 ? 0 : read_partitions(&r);
}

static uint32_t owned_in(struct slice metadata) {
    struct reader r = reader_make(metadata.data, metadata.size);
    reader_take(&r, 2 + 4 + 2 + 4 + 4);
    return read_partitions(&r);
}

/* ---- clients ---- */

static void rest(struct client *c, uint64_t ms) {
    c->state = RESTING;
    c->wake_ms = w.now_ms + ms;
    group_request_free(c->joined);
    c->joined = NULL;
}

static void send_join(struct client *c) {
    struct group_request *request = begin_request(c, GROUP_JOIN);
    if (!w.is_cooperative)
        c->owned = 0; /* eager: everything is given back first */
    request->session_timeout_ms = c->session_ms;
    request->rebalance_timeout_ms = c->rebalance_ms;
    check(group_keep(request, slice_from_string("consumer"), &request->protocol_type), "memory");
    put_subscription(request, c->topics, c->owned);
    c->state = JOINING;
    c->wake_ms = w.now_ms + (uint64_t)c->rebalance_ms + 5000;
    post(request, false);
}

static void put_offset(struct group_request *request, uint32_t partition) {
    request->offsets = group_take(request, sizeof(*request->offsets));
    check(request->offsets, "memory");
    request->offset_count = 1;
    request->offsets[0] = (struct group_offset){
        .stream_id = 1, .partition = partition, .offset = (int64_t)w.ticket_count};
}

static void send_beat(struct client *c) {
    struct group_request *request =
        begin_request(c, below(6) == 0 ? GROUP_COMMIT : GROUP_HEARTBEAT);
    c->beat_ms = w.now_ms + HEARTBEAT_MS;
    if (request->operation == GROUP_COMMIT)
        put_offset(request, below(PARTITIONS));
    post(request, false);
}

static void lose_everything(struct client *c) {
    c->owned = 0;
    c->generation = -1;
}

static unsigned bits(uint32_t mask) {
    return (unsigned)__builtin_popcount(mask);
}

/* Partitions for each member of the join's answer: what is owned stays (cooperative), what nobody
 * owns goes to who has least, who has too much gives back. */
static void assign(const struct group_request *joined, uint32_t *ret_masks) {
    uint32_t count = joined->item_count, taken = 0;
    unsigned fair = (PARTITIONS + count - 1) / count;
    for (uint32_t m = 0; m < count; m++) {
        uint32_t claimed = owned_in(joined->items[m].bytes);
        ret_masks[m] = claimed & ~taken; /* two who say they own it: the first */
        taken |= claimed;
    }
    uint32_t in_hand = taken;
    for (uint32_t m = 0; m < count; m++)
        while (bits(ret_masks[m]) > fair)
            ret_masks[m] &= ret_masks[m] - 1;
    for (uint32_t p = 0; p < PARTITIONS; p++) {
        if (in_hand & 1u << p)
            continue; /* to be given back first, and to another one in the next round */
        uint32_t least = 0;
        for (uint32_t m = 1; m < count; m++)
            if (bits(ret_masks[m]) < bits(ret_masks[least]))
                least = m;
        ret_masks[least] |= 1u << p;
    }
}

static void send_sync(struct client *c) {
    struct group_request *request = begin_request(c, GROUP_SYNC);
    if (c->leads) {
        uint32_t masks[CLIENTS * 4];
        assign(c->joined, masks);
        for (uint32_t m = 0; m < c->joined->item_count; m++)
            put_assignment(request, c->joined->items[m].id, masks[m]);
    }
    c->state = SYNCING;
    c->wake_ms = w.now_ms + (uint64_t)c->rebalance_ms + 5000;
    c->beat_ms = w.now_ms + HEARTBEAT_MS;
    post(request, false);
}

static void stop(struct client *c, uint64_t for_ms) {
    lose_everything(c);
    rest(c, 0);
    c->id[0] = '\0';
    c->connection++;
    c->paused_until_ms = 0;
    c->state = DOWN;
    c->wake_ms = for_ms == UINT64_MAX ? UINT64_MAX : w.now_ms + for_ms;
}

/* What every answer may say. True: it is dealt with. */
static bool take_error(struct client *c, int16_t error) {
    switch (error) {
    case 0:
        return false;
    case KAFKA_ERROR_UNKNOWN_MEMBER:
        c->id[0] = '\0';
        lose_everything(c);
        break;
    case KAFKA_ERROR_ILLEGAL_GENERATION:
        lose_everything(c);
        break;
    case KAFKA_ERROR_REBALANCE:
        break;
    case KAFKA_ERROR_FENCED_INSTANCE:
        check(c->is_static, "error 82");
        stop(c, 1000);
        return true;
    default:
        check(false, "error %d", error);
    }
    rest(c, 1 + below(100));
    return true;
}

static void take_join(struct client *c, struct group_request *answer) {
    if (c->state != JOINING) {
        group_request_free(answer);
        return;
    }
    if (answer->error == 0 || answer->error == KAFKA_ERROR_MEMBER_ID_REQUIRED) {
        check(answer->member.size < sizeof(c->id), "id");
        memcpy(c->id, answer->member.data, answer->member.size);
        c->id[answer->member.size] = '\0';
    }
    if (answer->error == KAFKA_ERROR_MEMBER_ID_REQUIRED) {
        check(c->version >= 4 && !c->is_static, "error 79");
        rest(c, 1);
    } else if (!take_error(c, answer->error)) {
        c->generation = answer->generation;
        c->leads = slice_equals_string(answer->leader, c->id) && !answer->skip_assignment;
        check(c->leads == (answer->item_count > 0 && !answer->skip_assignment), "members");
        group_request_free(c->joined);
        c->joined = answer;
        send_sync(c);
        return;
    }
    group_request_free(answer);
}

static void take_sync(struct client *c, const struct group_request *answer) {
    if (c->state != SYNCING || answer->generation != c->generation || take_error(c, answer->error))
        return;
    uint32_t given = assigned_in(answer->assignment);
    uint32_t gone = c->owned & ~given;
    struct generation *g = &w.generations[c->generation];
    for (unsigned i = 0; i < CLIENTS; i++)
        check(i == c->index || !(g->fetched[i] & given), "clients %u and %u", i, c->index);
    g->fetched[c->index] |= given;
    c->owned = given;
    c->state = RUNNING;
    c->wake_ms = UINT64_MAX;
    if (w.is_cooperative && gone)
        rest(c, 1 + below(50)); /* what it has given back others shall get */
}

static void take_answer(struct group_request *answer) {
    const struct ticket *ticket = &w.tickets[answer->owner];
    struct client *c = &w.clients[ticket->client];
    if (ticket->connection != c->connection || c->state == DOWN) {
        group_request_free(answer);
        return;
    }
    if (ticket->operation == GROUP_JOIN) {
        take_join(c, answer);
        return;
    }
    bool is_current =
        answer->generation == c->generation && slice_equals_string(answer->member, c->id);
    if (ticket->operation == GROUP_SYNC)
        take_sync(c, answer);
    else if (ticket->operation == GROUP_HEARTBEAT && is_current && c->state >= SYNCING)
        take_error(c, answer->error);
    group_request_free(answer);
}

static void act(struct client *c) {
    if (w.now_ms < c->paused_until_ms)
        return;
    if (w.now_ms >= c->wake_ms && c->state != RUNNING) {
        if (c->state == JOINING || c->state == SYNCING)
            c->connection++; /* it gives the connection up */
        rest(c, 0);
        send_join(c);
    } else if (c->state >= SYNCING && w.now_ms >= c->beat_ms) {
        send_beat(c);
    }
}

static uint64_t next_act_ms(const struct client *c) {
    uint64_t at_ms = c->state == RUNNING ? UINT64_MAX : c->wake_ms;
    if (c->state >= SYNCING && c->beat_ms < at_ms)
        at_ms = c->beat_ms;
    return at_ms != UINT64_MAX && at_ms < c->paused_until_ms ? c->paused_until_ms : at_ms;
}

/* ---- the coordinator's side ---- */

/* A sync that is about to be handled: is it the one that all wait for? */
static void note_assignment(const struct group_request *request) {
    const struct group *group = group_find(w.groups, 0, request->group);
    if (request->operation != GROUP_SYNC || group->state != GROUP_COMPLETING ||
        request->generation != group->generation ||
        !slice_equals(request->member, group_member_id(group->leader)))
        return;
    struct generation *g = &w.generations[request->generation];
    uint32_t all = 0;
    check(!g->is_assigned, "generation %d is assigned twice", request->generation);
    g->is_assigned = true;
    for (uint32_t i = 0; i < request->item_count; i++) {
        uint32_t mask = assigned_in(request->items[i].bytes);
        check(!(all & mask), "the leader's assignment");
        all |= mask;
        snprintf(g->ids[g->count], sizeof(g->ids[0]), "%.*s", (int)request->items[i].id.size,
                 (const char *)request->items[i].id.data);
        g->masks[g->count++] = mask;
    }
}

/* A static member has a new id now and then; the instance is what both begin with. */
static bool is_same_member(const char *assigned, struct slice id) {
    return slice_equals_string(id, assigned) || (id.data[1] == '-' && id.data[0] == assigned[0]);
}

static void check_sync(const struct group_request *answer) {
    const struct generation *g = &w.generations[answer->generation];
    check(g->is_assigned, "nobody assigned generation %d", answer->generation);
    for (unsigned i = 0; i < g->count; i++)
        if (is_same_member(g->ids[i], answer->member)) {
            check(assigned_in(answer->assignment) == g->masks[i], "another's assignment");
            return;
        }
    check(answer->assignment.size == 0, "an assignment of nobody's");
}

static void on_answer(void *context, struct group_request *request) {
    struct ticket *ticket = &w.tickets[request->owner];
    check(!ticket->is_answered, "answered twice");
    ticket->is_answered = true;
    tell("client %u: operation %d: error %d, generation %d", ticket->client, ticket->operation,
         request->error, request->generation);
    if (ticket->operation == GROUP_JOIN && request->error == 0) {
        check(request->generation >= w.last_generation, "generation %d after %d",
              request->generation, w.last_generation);
        check(request->generation < GENERATIONS, "too many rounds");
        w.last_generation = request->generation;
    }
    if (ticket->operation == GROUP_SYNC && request->error == 0)
        check_sync(request);
    if (ticket->operation == GROUP_DELETE && request->error == 0)
        w.deleted = (int64_t)request->owner;
    post(request, true);
}

static void on_store(void *context, struct group_request *request) {
    uint64_t at_ms = w.now_ms + below(STORE_MS_MAX);
    check(w.store_count < STORES, "too many stores");
    if (w.store_count > 0 && at_ms < w.stores[w.store_count - 1].at_ms)
        at_ms = w.stores[w.store_count - 1].at_ms;
    w.stores[w.store_count++] = (struct store){at_ms, request};
}

static void write_to_disk(const struct group_request *request) {
    for (uint32_t i = 0; i < request->offset_count; i++) {
        const struct group_offset *o = &request->offsets[i];
        int64_t *at = o->stream_id == GROUP_STAMP_STREAM ? &w.disk_stamp : &w.disk[o->partition];
        if (o->error == 0)
            *at = o->is_delete ? NOTHING : o->offset;
    }
}

static void finish_stores(void) {
    while (w.store_count > 0 && w.stores[0].at_ms <= w.now_ms) {
        struct group_request *request = w.stores[0].request;
        memmove(w.stores, w.stores + 1, --w.store_count * sizeof(w.stores[0]));
        if (below(20) == 0)
            group_fail_offsets(request, 0, request->offset_count);
        write_to_disk(request);
        group_stored(w.groups, request, w.now_ms);
    }
}

/* What is known is what is on disk. */
static void check_disk(const struct group *group) {
    for (uint64_t p = 0; p < PARTITIONS; p++) {
        struct group_offset_key key = {.stream_id = 1, .partition = p};
        const struct group_stored_offset *known = NULL;
        if (group)
            HASH_FIND(hh, group->offsets, &key, sizeof(key), known);
        check((known ? known->offset : NOTHING) == w.disk[p], "partition %u", (unsigned)p);
        check(w.disk[p] == NOTHING || w.disk[p] > w.deleted, "partition %u is back", (unsigned)p);
    }
    check((group && group->stamp_ms ? group->stamp_ms : NOTHING) == w.disk_stamp, "stamp");
}

static void check_group(void) {
    const struct group *group = group_find(w.groups, 0, slice_from_string("g"));
    check_disk(group);
    check(group || w.may_be_gone, "it has an offset");
    if (!group)
        return;
    unsigned count = 0;
    size_t metadata = 0;
    bool leader_is_in = false;
    for (const struct group_member *m = group->members; m; m = group_member_next(m)) {
        count++;
        leader_is_in |= m == group->leader;
        metadata += 5 + m->profile->items[0].bytes.size;
        check(group_member_find(group, group_member_id(m)) == m, "table");
        check(!m->waiting || m->waiting->operation ==
                                 (group->state == GROUP_PREPARING ? GROUP_JOIN : GROUP_SYNC),
              "a request of another state waits");
        check(!m->waiting || group->state != GROUP_STABLE, "what for?");
    }
    check(count == group->member_count && metadata == group->metadata_bytes, "%u", count);
    check(leader_is_in == (count > 0), "leader");
    check((group->state == GROUP_EMPTY) == (count == 0), "state %d, %u members", group->state,
          count);
    check(group->generation >= w.last_generation, "generation");
    while (w.first_open < w.ticket_count && w.tickets[w.first_open].is_answered)
        w.first_open++;
    for (uint64_t i = w.first_open; i < w.ticket_count; i++) {
        const struct ticket *ticket = &w.tickets[i];
        check(ticket->is_answered || ticket->handled_ms == 0 ||
                  w.now_ms - ticket->handled_ms <= WAIT_MS_MAX,
              "client %u waits, operation %d", ticket->client, ticket->operation);
    }
}

/* ---- disturbances ---- */

static void remove_by_administrator(struct client *c) {
    struct group_request *request = begin_request(c, GROUP_LEAVE);
    put_item(request, slice_from_string(c->id), NULL, 0);
    if (c->is_static)
        request->items[0].instance = request->instance;
    post(request, false);
}

static void disturb(void) {
    struct client *c = &w.clients[below(CLIENTS)];
    unsigned what = below(8);
    tell("client %u: disturbance %u in state %d", c->index, what, c->state);
    if (c->state == DOWN) {
        c->wake_ms = w.now_ms;
    } else if (what == 0 || what == 1) { /* crashes; starts again soon or much later */
        stop(c, below(2) == 0 ? below(500) : below(30000));
    } else if (what == 2) { /* leaves */
        if (c->id[0])
            remove_by_administrator(c);
        stop(c, below(20000));
    } else if (what == 3 || what == 4) {
        c->paused_until_ms = w.now_ms + below(what == 3 ? 3000 : 30000);
    } else if (what == 5) { /* its connection breaks */
        c->connection++;
        if (c->state != RESTING && c->state != RUNNING)
            rest(c, below(100));
    } else if (what == 6) { /* wants something else */
        c->topics++;
        if (c->state == RUNNING)
            rest(c, 0);
    } else if (c->id[0]) {
        remove_by_administrator(c);
    }
}

/* ---- a run ---- */

static void deliver(void) {
    for (unsigned i = 0; i < w.message_count;) {
        struct message m = w.messages[i];
        const struct client *c = &w.clients[w.tickets[m.request->owner].client];
        if (m.at_ms > w.now_ms || (m.is_answer && w.now_ms < c->paused_until_ms)) {
            i++;
            continue;
        }
        w.message_count--;
        memmove(&w.messages[i], &w.messages[i + 1], (w.message_count - i) * sizeof(m));
        if (m.is_answer) {
            take_answer(m.request);
        } else {
            w.tickets[m.request->owner].handled_ms = w.now_ms;
            note_assignment(m.request);
            group_handle(w.groups, m.request, w.now_ms);
            check_group();
        }
        i = 0; /* what was answered may be due, and order matters */
    }
}

static uint64_t next_step_ms(uint64_t tick_ms) {
    uint64_t at_ms = tick_ms;
    if (w.store_count > 0 && w.stores[0].at_ms < at_ms)
        at_ms = w.stores[0].at_ms;
    for (unsigned i = 0; i < CLIENTS; i++)
        if (next_act_ms(&w.clients[i]) < at_ms)
            at_ms = next_act_ms(&w.clients[i]);
    for (unsigned i = 0; i < w.message_count; i++) {
        const struct message *m = &w.messages[i];
        const struct client *c = &w.clients[w.tickets[m->request->owner].client];
        uint64_t due_ms =
            m->is_answer && c->paused_until_ms > m->at_ms ? c->paused_until_ms : m->at_ms;
        if (due_ms < at_ms)
            at_ms = due_ms;
    }
    return at_ms;
}

static void run_until(uint64_t end_ms, bool is_disturbed) {
    uint64_t disturb_ms = is_disturbed ? w.now_ms : UINT64_MAX;
    for (;;) {
        uint64_t tick_ms = groups_tick(w.groups, w.now_ms, (int64_t)w.now_ms, 0);
        check_group();
        check(tick_ms > w.now_ms, "a deadline that stays");
        uint64_t at_ms = next_step_ms(tick_ms);
        if (disturb_ms < at_ms)
            at_ms = disturb_ms;
        if (at_ms > end_ms)
            break;
        if (at_ms > w.now_ms)
            w.now_ms = at_ms;
        finish_stores();
        deliver();
        for (unsigned i = 0; i < CLIENTS; i++)
            act(&w.clients[i]);
        if (w.now_ms >= disturb_ms) {
            disturb();
            disturb_ms = w.now_ms + below(below(2) == 0 ? 300 : 8000);
        }
    }
    w.now_ms = end_ms;
}

static void check_settled(void) {
    const struct group *group = group_find(w.groups, 0, slice_from_string("g"));
    uint32_t owned = 0;
    unsigned running = 0;
    for (unsigned i = 0; i < CLIENTS; i++) {
        const struct client *c = &w.clients[i];
        if (c->state == DOWN)
            continue;
        check(c->state == RUNNING, "client %u is in state %d", i, c->state);
        check(c->generation == group->generation, "client %u: %d", i, c->generation);
        check(!(owned & c->owned), "client %u", i);
        owned |= c->owned;
        running++;
    }
    check(group->state == (running > 0 ? GROUP_STABLE : GROUP_EMPTY), "state %d", group->state);
    check(group->member_count == running, "%u members, %u clients", group->member_count, running);
    check(running == 0 || owned == ALL_PARTITIONS, "partitions %x", owned);
    check(!group->pending, "an id that nobody has");
    w.stable_rounds += (unsigned)group->generation;
}

static const struct group_effects effects = {on_answer, on_store, random_bits};

static void begin_run(uint64_t seed) {
    static const int16_t versions[] = {3, 5, 8, 9};
    struct group_offset offset = {.stream_id = 1,
                                  .partition = 0}; /* so that the group stays, and its generation */
    bool tells = w.tells;
    unsigned rounds = w.stable_rounds;
    memset(&w, 0, sizeof(w));
    w.seed = w.random = seed;
    w.tells = tells;
    w.stable_rounds = rounds;
    w.now_ms = 1000;
    w.is_cooperative = below(2) == 0;
    w.disk_stamp = w.deleted = NOTHING;
    for (unsigned p = 1; p < PARTITIONS; p++)
        w.disk[p] = NOTHING;
    w.groups = groups_create(&effects, NULL, INITIAL_DELAY_MS);
    check(group_restore_offset(w.groups, 0, slice_from_string("g"), &offset) == 0, "memory");
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct client *c = &w.clients[i];
        c->index = i;
        c->version = versions[below(4)];
        c->is_static = c->version >= 5 && below(2) == 0;
        c->session_ms = 3000 + (int32_t)below(SESSION_MS_MAX - 3000 + 1);
        c->rebalance_ms = 2000 + (int32_t)below(REBALANCE_MS_MAX - 2000);
        c->generation = -1;
        c->wake_ms = below(3) == 0 ? UINT64_MAX : w.now_ms + below(2000);
    }
}

/* An administrator's request, handled at once. */
static void administer(enum group_operation operation) {
    struct client *c = &w.clients[0];
    c->is_static = false;
    c->generation = -1;
    struct group_request *request = begin_request(c, operation);
    if (operation != GROUP_DELETE)
        put_offset(request, below(PARTITIONS));
    w.tickets[request->owner].handled_ms = w.now_ms;
    group_handle(w.groups, request, w.now_ms);
}

/* Across each other, while the disk takes its time. The last deletion may fail to be stored. */
static void administer_at_random(void) {
    static const enum group_operation operations[] = {GROUP_COMMIT, GROUP_COMMIT, GROUP_COMMIT,
                                                      GROUP_DELETE, GROUP_DELETE_OFFSETS};
    w.may_be_gone = true;
    w.last_generation = 0; /* a new group begins anew */
    for (unsigned i = 0; i < 200; i++) {
        administer(operations[below(5)]);
        run_until(w.now_ms + below(STORE_MS_MAX), false);
    }
    for (unsigned i = 0; i < 50 && group_find(w.groups, 0, slice_from_string("g")); i++) {
        administer(GROUP_DELETE);
        run_until(w.now_ms + STORE_MS_MAX, false);
    }
    check(!group_find(w.groups, 0, slice_from_string("g")), "a group that was deleted");
    check_disk(NULL);
}

static void end_run(void) {
    for (unsigned i = 0; i < CLIENTS; i++)
        stop(&w.clients[i], UINT64_MAX);
    run_until(w.now_ms + WAIT_MS_MAX + SESSION_MS_MAX, false);
    const struct group *group = group_find(w.groups, 0, slice_from_string("g"));
    check(group->state == GROUP_EMPTY && !group->pending, "state %d", group->state);
    administer_at_random();
    run_until(w.now_ms + WAIT_MS_MAX, false);
    for (uint64_t i = 0; i < w.ticket_count; i++)
        check(w.tickets[i].is_answered, "client %u: operation %d was never answered",
              w.tickets[i].client, w.tickets[i].operation);
    check(w.message_count == 0, "messages");
    groups_free(w.groups);
}

static void run(uint64_t seed) {
    begin_run(seed);
    run_until(w.now_ms + DISTURBED_MS, true);
    for (unsigned i = 0; i < CLIENTS; i++) /* the last disturbance */
        if (w.clients[i].state == DOWN)
            w.clients[i].wake_ms = below(2) == 0 ? w.now_ms : UINT64_MAX;
        else
            w.clients[i].paused_until_ms = 0;
    run_until(w.now_ms + SETTLED_MS, false);
    check_settled();
    end_run();
}

int main(int argc, char **argv) {
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : RUNS;
    w.tells = count == 1;
    for (uint64_t seed = first; seed < first + count; seed++)
        run(seed);
    printf("%llu runs, %u rounds\n", (unsigned long long)count, w.stable_rounds);
    return 0;
}
