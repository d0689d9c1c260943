/*
 * A whole session fed with a stranger's bytes, while messages are given to it. The first byte says
 * how the world answers: bits 0-1 how the login ends, bit 2 whether the stream is under pressure
 * now and then, bit 3 whether it is full, the rest how large the pieces are in which the bytes
 * arrive.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/log.h"
#include "gateway/session/session.h"

enum { TAGS_MAX = 4096, CHILDREN_MAX = 8 };

static struct {
    uint64_t tags[TAGS_MAX];
    unsigned tag_count, appends;
    unsigned taken, offered, finished_messages;
    bool pressure, full, asked_login, asked_claim, released, closed, finished;
    char children[CHILDREN_MAX][LIMIT_DEVICE_ID_BYTES + 1]; /* that were asked for */
    unsigned child_count;
    struct twin_answer answers[TAGS_MAX]; /* of reports */
    unsigned answer_count;
} world;

static void on_send(struct session *session, const void *data, size_t size) {
    dg_assert(!world.closed && size > 0);
}
static int on_login(struct session *session, const struct session_login *login) {
    world.asked_login = true;
    return 0;
}
static int on_claim(struct session *session) {
    world.asked_claim = true;
    return 0;
}
static int on_find_child(struct session *session, struct slice name) {
    dg_assert(name.size > 0 && name.size < sizeof(world.children[0]));
    if (world.child_count == CHILDREN_MAX)
        return DG_ERR_NO_MEMORY;
    memcpy(world.children[world.child_count], name.data, name.size);
    world.children[world.child_count++][name.size] = '\0';
    return 0;
}
static int take(uint64_t tag) {
    if ((world.pressure && ++world.appends % 5 == 0) || world.tag_count == TAGS_MAX)
        return DG_ERR_PRESSURE;
    world.tags[world.tag_count++] = tag;
    return 0;
}
static int on_append(struct session *session, const struct device_event *event,
                     const struct stream_mutation *with, unsigned count, uint64_t tag) {
    struct producer *list = NULL;
    for (unsigned i = 0; i < count; i++)
        if (with[i].name_space == STREAM_STATE_PRODUCER && !with[i].is_delete)
            dg_assert(producers_restore(&list, with[i].key, with[i].value,
                                        session->shared->stream_epoch) == 0);
    producers_free(list);
    dg_assert((event->child.size > 0) == (event->via.size > 0));
    return take(tag);
}
static int on_mutate(struct session *session, const struct stream_mutation *mutation,
                     uint64_t tag) {
    int64_t device_key;
    uint64_t epoch;
    uint16_t packet_id;
    struct session_kept *kept;
    if (mutation->name_space == STREAM_STATE_QOS2) {
        dg_assert(kept_identity_decode(mutation->key, &device_key, &epoch, &packet_id) == 0);
    } else if (!mutation->is_delete) { /* what is written can be read */
        dg_assert(kept_decode(mutation->key, mutation->value, &device_key, &kept) == 0);
        kept_free(kept);
    }
    return take(tag);
}
static int on_reply(struct session *session, const struct session_command_reply *reply,
                    uint64_t tag) {
    return take(tag) < 0 ? DG_ERR_BUSY : 0;
}
static int on_ask_twin(struct session *session, const struct twin_request *request) {
    dg_assert(request->patch.size <= LIMIT_TWIN_BYTES && request->target.device_key != 0);
    if (world.answer_count == TAGS_MAX)
        return DG_ERR_BUSY;
    world.answers[world.answer_count++] =
        (struct twin_answer){.owner = request->owner, .tag = request->tag};
    return 0;
}
static int on_listen_state(struct session *session, const struct twin_listener *listener) {
    dg_assert(listener->device_key != 0 && listener->child.size <= LIMIT_DEVICE_ID_BYTES);
    return world.appends % 3 == 1 ? DG_ERR_NO_MEMORY : 0;
}
static void on_ignore_state(struct session *session, int64_t device_key) {
    dg_assert(device_key != 0);
}
static int64_t on_find_offset(struct session *session, struct slice key) {
    return world.full ? -1 : INT64_MAX;
}
static void on_discard(struct session *session, struct session_kept *kept) {
    kept_free(kept);
}
static void on_release(struct session *session) {
    dg_assert(!world.released);
    world.released = true;
    kept_free(session->kept);
    session->kept = NULL;
    producers_free(session->producers);
    session->producers = NULL;
}
static void on_close(struct session *session, const struct session_end *end) {
    dg_assert(!world.closed);
    world.closed = true;
}
static void on_finished(struct session *session) {
    world.finished = true;
}
static void on_nothing(struct session *session) {
}
static void on_deadline(struct session *session, uint64_t at_ms) {
}
static void on_limit(struct session *session, uint32_t max_packet_bytes) {
}
static void on_peer(struct session *session, char *ret_text) {
    ret_text[0] = '\0';
}

static const struct session_takeover *on_takeover(const struct session *session) {
    static const struct session_takeover takeover = {"192.0.2.7:1", "192.0.2.8:1", "gw1-1-0-s1"};
    return session->shared->now_ns % 2000000 ? &takeover : NULL;
}
static void on_filter_refused(const struct session *session, struct slice filter, int err) {
    dg_assert(err < 0);
}

static void on_receives(struct session *session, int64_t device_key) {
}

static const struct session_effects effects = {
    .send = on_send,
    .login = on_login,
    .claim = on_claim,
    .find_child = on_find_child,
    .release = on_release,
    .append = on_append,
    .mutate = on_mutate,
    .receives = on_receives,
    .receives_no_more = on_receives,
    .reply = on_reply,
    .ask_twin = on_ask_twin,
    .listen_state = on_listen_state,
    .ignore_state = on_ignore_state,
    .find_offset = on_find_offset,
    .discard = on_discard,
    .pause = on_nothing,
    .resume = on_nothing,
    .set_deadline = on_deadline,
    .format_peer = on_peer,
    .takeover = on_takeover,
    .filter_refused = on_filter_refused,
    .raise_input_limit = on_limit,
    .connected = on_nothing,
    .close = on_close,
    .finished = on_finished,
};

/* Producer "p" of device 42: sequences 1 to 3 of epoch 1. */
static const uint8_t producer_key[] = {0, 0, 0, 0, 0, 0, 0, 42, 0, 'p'};
static const uint8_t producer_value[PRODUCER_VALUE_BYTES] = {
    [0] = 1, [8] = 1, [16] = 3, [32] = 7, [40] = 1};

/* What is read is what is written; an entry of the state may be anything. */
static void check_producers(const uint8_t *data, size_t size) {
    struct producer_sequence sequence;
    struct producer *list = NULL;
    if (producer_sequence_parse(slice_make(data, size), &sequence) == 0) {
        char text[128];
        int written = snprintf(text, sizeof(text), "%.*s:%u:%llu", (int)sequence.producer.size,
                               (const char *)sequence.producer.data, sequence.epoch,
                               (unsigned long long)sequence.sequence);
        dg_assert(slice_equals(slice_make(text, (size_t)written), slice_make(data, size)));
    }
    if (size < PRODUCER_VALUE_BYTES)
        return;
    size_t key_size = size - PRODUCER_VALUE_BYTES;
    if (producers_restore(&list, slice_make(data, key_size),
                          slice_make(data + key_size, PRODUCER_VALUE_BYTES), 0) == 0)
        dg_assert(list);
    producers_free(list);
}

/* Now and then the device has a session, with a message that is not released. */
static void claim(struct session *session, unsigned how) {
    struct session_kept *kept = NULL;
    if ((how & 3) == 2) {
        session_claim_done(session, DG_ERR_BUSY, NULL, true);
        return;
    }
    if ((how & 3) == 1 && (kept = kept_new(1))) {
        dg_assert(identities_reserve(&kept->identities) == 0);
        identities_set(kept->identities, 1, IDENTITY_STORED);
        kept->disconnected_ms = session->shared->wall_ms;
        kept->expiry_s = how >> 4;
        struct will_content former = {.topic = slice_from_string("former")};
        if (how & 8)
            dg_assert(will_create(&former, &kept->will) == 0);
        dg_assert(kept_subscribe(kept, slice_from_string("$dg/commands/#"), how >> 4 & 1 ? 1 : 2));
        dg_assert(kept_subscribe(kept, slice_from_string("$iothub/methods/POST/#"), 1));
    }
    if (how & 8) /* and a producer */
        dg_assert(producers_restore(&session->producers, slice_make(producer_key, 10),
                                    slice_make(producer_value, PRODUCER_VALUE_BYTES), 0) == 0);
    session_claim_done(session, 0, kept, how & 4);
}

/* Those whose name begins with a capital letter are somebody else's, those with a digit unknown. */
static void answer_child(struct session *session) {
    const char *name = world.children[--world.child_count];
    char first = name[0];
    struct registry_child_query found = {.tenant_key = 7,
                                         .err = first >= '0' && first <= '9' ? DG_ERR_VIA : 0,
                                         .device_key = 100 + first};
    memcpy(found.child, name, sizeof(found.child));
    if (found.err == 0)
        found.via = strdup(first >= 'A' && first <= 'Z' ? "gw " : "gw dev1 ");
    dg_assert(
        children_store(&session->shared->children, &found, session->shared->now_ns / 1000000) == 0);
    free(found.via);
    session_child_done(session);
}

static void answer(struct session *session, unsigned how) {
    static struct registry_identity identity = {.tenant_key = 7,
                                                .tenant_stream_id = 3,
                                                .device_key = 42,
                                                .tenant = "acme",
                                                .device = "dev1"};
    if (world.asked_login) {
        world.asked_login = false;
        session_login_done(session, (how & 3) == 3 ? DG_ERR_BUSY : 0, &identity);
    }
    if (world.asked_claim) {
        world.asked_claim = false;
        claim(session, how);
    }
    while (world.child_count > 0)
        answer_child(session);
    if (session->flags & SESSION_PAUSED_STREAM)
        session_ready(session);
}

static void complete(struct session *session) {
    unsigned count = world.tag_count;
    world.tag_count = 0;
    uint64_t tags[TAGS_MAX];
    memcpy(tags, world.tags, count * sizeof(tags[0]));
    for (unsigned i = 0; i < count; i++)
        session_append_done(session, tags[i], world.full && i % 3 == 2 ? DG_ERR_STORAGE_FULL : 0);
    count = world.answer_count;
    world.answer_count = 0;
    for (unsigned i = 0; i < count; i++) {
        world.answers[i].err = world.full ? DG_ERR_STATE_SIZE : 0;
        world.answers[i].why = slice_from_string("too large");
        session_twin_answered(session, &world.answers[i]);
    }
}

static void on_message_finished(struct outbox_message *message) {
    world.finished_messages++;
    outbox_message_free_parts(message);
    free(message);
}

/* Messages that wait for the reply of a name that the input can guess; every second one not. */
static void deliver(struct session *session) {
    static const char *const topics[] = {"$dg/commands/1/x", "$dg/commands/1/x",
                                         "$dg/state/desired", "$dg/via/s1/state/desired"};
    struct outbox_message *message = calloc(1, sizeof(*message));
    dg_assert(message);
    *message = (struct outbox_message){
        .finished = on_message_finished,
        .expires_ms = session->shared->now_ns / 1000000 + world.taken % 8 * 2,
        .topic = slice_from_string(topics[world.offered++ % 4]),
        .payload = calloc(1, 2),
        .payload_size = 2,
        .qos = 2,
        .reply_id = {world.taken % 2 ? '1' : '\0'},
    };
    if (session_deliver(session, message) == 0) {
        world.taken++;
    } else {
        outbox_message_free_parts(message);
        free(message);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct config *config;
    static struct flight *flight;
    static const char *const hosts[] = {"iothub.hosts=h=acme", NULL};
    char error[CONFIG_ERROR_SIZE];
    if (!config && config_load(NULL, NULL, hosts, &config, error) < 0)
        abort();
    if (size < 1)
        return 0;
    check_producers(data, size);
    memset(&world, 0, sizeof(world));
    world.pressure = data[0] & 4;
    world.full = data[0] & 8;
    struct session_shared shared;
    struct session session;
    session_shared_init(&shared, &effects, config, "gw1-1-0-");
    if (!flight && flight_create(&flight) < 0)
        abort();
    shared.flight = flight;
    shared.now_ns = 1000000000;
    shared.wall_ms = 1700000000000;
    session_init(&session, &shared, 1, true);
    size_t step = (size_t)(data[0] >> 4) * 16 + 1, offered = 1, used = 1;
    for (unsigned idle = 0; idle < 4 && used < size && !world.closed; idle++) {
        offered = offered + step < size ? offered + step : size;
        size_t count = session_receive(&session, data + used, offered - used);
        dg_assert(count <= offered - used);
        used += count;
        if (count > 0 || offered < size)
            idle = 0;
        answer(&session, data[0]);
        complete(&session);
        deliver(&session);
        shared.now_ns += 1000000;
    }
    session_unlinked(&session, DG_ERR_CLOSED);
    for (unsigned i = 0; i < 4 && !world.finished; i++) {
        answer(&session, data[0]);
        complete(&session);
    }
    dg_assert(world.finished);
    session_free(&session);
    session_shared_free(&shared);
    dg_assert(world.taken == world.finished_messages);
    return 0;
}
