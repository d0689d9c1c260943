/* A session with a recorder behind it instead of a connection, registry and stream. */
#pragma once

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/metrics.h"
#include "gateway/session/session.h"
#include "leaks.h"

enum { RECORDER_EVENTS = 2048, RECORDER_MUTATIONS = 64, RECORDER_BYTES = 65536 };

/* A change of state: with the event of this index, or by itself. */
struct recorded_mutation {
    uint8_t name_space;
    bool is_delete, takes_offset;
    int with_event; /* -1: by itself */
    uint64_t tag;
    uint8_t key[64], value[256];
    size_t key_size, value_size;
};

struct recorded_event {
    enum event_type type;
    char child[64], via[64]; /* "": the session's own */
    uint32_t partition;      /* of the child */
    uint64_t tag;
    uint8_t qos;
    bool quarantined;
    bool payload_is_utf8;
    char id[80];
    char subject[128];
    char payload[512];
    char content_type[64], headers[512]; /* headers: "name=value;" of each */
};

struct recorder {
    struct session session;
    struct session_shared shared;
    struct config *config;
    uint8_t sent[RECORDER_BYTES];
    size_t sent_size;
    struct recorded_event events[RECORDER_EVENTS];
    unsigned event_count;
    struct recorded_mutation mutations[RECORDER_MUTATIONS];
    unsigned mutation_count;
    struct session_kept *kept;  /* what was released with the claim */
    struct producer *producers; /* likewise */
    unsigned discard_count;
    int64_t known_offset; /* what find_offset() answers */
    int append_err;       /* what append() answers */
    int login_err;
    struct session_login login;
    char login_device[160], login_tenant[80], login_secret[128], login_host[80];
    unsigned login_count, claim_count, release_count, close_count, finished_count;
    unsigned pause_count, resume_count;
    struct session_end end;
    const struct session_takeover *takeover;
    unsigned filters_refused;
    uint64_t deadline_ms;
    char child[160]; /* that was asked for last */
    unsigned find_child_count;
    int find_child_err;
    unsigned receives_count, receives_no_more_count;
    int64_t received_key; /* of either, the last one */
    uint64_t reply_tag;   /* of the reply to a command that came last */
    int64_t reply_key;
    unsigned reply_status;
    int reply_err;
    struct recorded_ask {
        int64_t device_key;
        uint64_t tag;
        size_t identity_size;
        enum twin_action action;
        int64_t expected_version;
        char device[64], patch[256], note[64];
    } ask; /* of a twin, that came last */
    unsigned ask_count;
    int ask_err;
    char told[512]; /* "+17 -17 +18:s1 ~19 " who listens to whose desired state (~: changes), or no
                       more */
    int listen_err;
};

static inline struct recorder *recorder_of(struct session *session) {
    return session->shared->context;
}

static inline void record_send(struct session *session, const void *data, size_t size) {
    struct recorder *r = recorder_of(session);
    cr_assert(r->sent_size + size <= RECORDER_BYTES);
    memcpy(r->sent + r->sent_size, data, size);
    r->sent_size += size;
}

static inline void copy_text(char *to, size_t room, struct slice from) {
    size_t size = from.size < room - 1 ? from.size : room - 1;
    if (size > 0)
        memcpy(to, from.data, size);
    to[size] = '\0';
}

static inline int record_login(struct session *session, const struct session_login *login) {
    struct recorder *r = recorder_of(session);
    r->login = *login;
    copy_text(r->login_device, sizeof(r->login_device), login->device);
    copy_text(r->login_tenant, sizeof(r->login_tenant), login->tenant);
    copy_text(r->login_secret, sizeof(r->login_secret), login->secret);
    copy_text(r->login_host, sizeof(r->login_host), login->host);
    r->login_count++;
    return r->login_err;
}

static inline int record_find_child(struct session *session, struct slice name) {
    struct recorder *r = recorder_of(session);
    copy_text(r->child, sizeof(r->child), name);
    r->find_child_count++;
    return r->find_child_err;
}

static inline int record_claim(struct session *session) {
    recorder_of(session)->claim_count++;
    return 0;
}

static inline void record_release(struct session *session) {
    struct recorder *r = recorder_of(session);
    r->release_count++;
    r->kept = session->kept;
    session->kept = NULL;
    producers_free(r->producers);
    r->producers = session->producers;
    session->producers = NULL;
}

static inline void record_mutation(struct recorder *r, const struct stream_mutation *mutation,
                                   int with_event, uint64_t tag) {
    cr_assert_lt(r->mutation_count, RECORDER_MUTATIONS);
    struct recorded_mutation *to = &r->mutations[r->mutation_count++];
    *to = (struct recorded_mutation){.name_space = mutation->name_space,
                                     .is_delete = mutation->is_delete,
                                     .takes_offset = mutation->takes_offset,
                                     .with_event = with_event,
                                     .tag = tag,
                                     .key_size = mutation->key.size,
                                     .value_size = mutation->value.size};
    cr_assert(to->key_size <= sizeof(to->key) && to->key_size > 0 &&
              to->value_size <= sizeof(to->value));
    memcpy(to->key, mutation->key.data, to->key_size);
    if (to->value_size > 0)
        memcpy(to->value, mutation->value.data, to->value_size);
}

static inline int record_mutate(struct session *session, const struct stream_mutation *mutation,
                                uint64_t tag) {
    struct recorder *r = recorder_of(session);
    if (r->append_err == 0)
        record_mutation(r, mutation, -1, tag);
    return r->append_err;
}

static inline void record_receives(struct session *session, int64_t device_key) {
    recorder_of(session)->receives_count++;
    recorder_of(session)->received_key = device_key;
}

static inline void record_receives_no_more(struct session *session, int64_t child_key) {
    recorder_of(session)->receives_no_more_count++;
    recorder_of(session)->received_key = child_key;
}

static inline int record_reply(struct session *session, const struct session_command_reply *reply,
                               uint64_t tag) {
    struct recorder *r = recorder_of(session);
    r->reply_tag = tag;
    r->reply_key = reply->command_key;
    r->reply_status = reply->status;
    return r->reply_err;
}

static inline int record_ask_twin(struct session *session, const struct twin_request *request) {
    struct recorder *r = recorder_of(session);
    cr_assert_eq(request->owner, session->id);
    if (r->ask_err < 0)
        return r->ask_err;
    r->ask = (struct recorded_ask){.device_key = request->target.device_key,
                                   .tag = request->tag,
                                   .identity_size = request->identity.size,
                                   .action = request->action,
                                   .expected_version = request->expected_version};
    copy_text(r->ask.device, sizeof(r->ask.device), slice_from_string(request->target.device));
    copy_text(r->ask.patch, sizeof(r->ask.patch), request->patch);
    copy_text(r->ask.note, sizeof(r->ask.note), request->note);
    r->ask_count++;
    return 0;
}

static inline int record_listen_state(struct session *session,
                                      const struct twin_listener *listener) {
    struct recorder *r = recorder_of(session);
    size_t at = strlen(r->told);
    cr_assert_eq(listener->owner, session->id);
    if (r->listen_err < 0)
        return r->listen_err;
    snprintf(r->told + at, sizeof(r->told) - at, "%s%lld%s%.*s ",
             listener->shape == TWIN_CHANGES ? "~" : "+", (long long)listener->device_key,
             listener->child.size > 0 ? ":" : "", (int)listener->child.size,
             (const char *)listener->child.data);
    return 0;
}

static inline void record_ignore_state(struct session *session, int64_t device_key) {
    struct recorder *r = recorder_of(session);
    size_t at = strlen(r->told);
    snprintf(r->told + at, sizeof(r->told) - at, "-%lld ", (long long)device_key);
}

/* Whatever was asked for. */
static inline int64_t record_find_offset(struct session *session, struct slice key) {
    cr_assert_eq(key.size, KEPT_IDENTITY_KEY_BYTES);
    return recorder_of(session)->known_offset;
}

static inline void record_discard(struct session *session, struct session_kept *kept) {
    recorder_of(session)->discard_count++;
    kept_free(kept);
}

static inline void print_headers(struct slice section, char *ret_text, size_t room) {
    struct slice key, value;
    size_t size = 0;
    ret_text[0] = '\0';
    while (mqtt_user_property_next(&section, &key, &value) && size < room)
        size += (size_t)snprintf(ret_text + size, room - size, "%.*s=%.*s;", (int)key.size,
                                 (const char *)key.data, (int)value.size, (const char *)value.data);
}

static inline int record_append(struct session *session, const struct device_event *event,
                                const struct stream_mutation *with, unsigned count, uint64_t tag) {
    struct recorder *r = recorder_of(session);
    if (r->append_err < 0)
        return r->append_err;
    cr_assert_lt(r->event_count, RECORDER_EVENTS);
    for (unsigned i = 0; i < count; i++)
        record_mutation(r, &with[i], (int)r->event_count, tag);
    struct recorded_event *to = &r->events[r->event_count++];
    to->type = event->type;
    to->tag = tag;
    to->qos = event->qos;
    to->quarantined = event->quarantine_reason.size > 0;
    to->payload_is_utf8 = event->payload_is_utf8;
    copy_text(to->id, sizeof(to->id), event->id);
    copy_text(to->subject, sizeof(to->subject), event->subject);
    copy_text(to->via, sizeof(to->via), event->via);
    copy_text(to->child, sizeof(to->child), event->child);
    to->partition = event->child_partition;
    copy_text(to->payload, sizeof(to->payload), event->payload);
    copy_text(to->content_type, sizeof(to->content_type), event->content_type);
    print_headers(event->headers, to->headers, sizeof(to->headers));
    return 0;
}

static inline void record_pause(struct session *session) {
    recorder_of(session)->pause_count++;
}

static inline void record_resume(struct session *session) {
    recorder_of(session)->resume_count++;
}

static inline void record_set_deadline(struct session *session, uint64_t at_ms) {
    recorder_of(session)->deadline_ms = at_ms;
}

static inline void record_format_peer(struct session *session, char *ret_text) {
    strcpy(ret_text, "192.0.2.7:5123");
}

static inline const struct session_takeover *record_takeover(const struct session *session) {
    return ((const struct recorder *)session->shared->context)->takeover;
}

static inline void record_filter_refused(const struct session *session, struct slice filter,
                                         int err) {
    ((struct recorder *)session->shared->context)->filters_refused++;
}

static inline void record_raise_input_limit(struct session *session, uint32_t max_packet_bytes) {
}

static inline void record_connected(struct session *session) {
}

static inline void record_close(struct session *session, const struct session_end *end) {
    struct recorder *r = recorder_of(session);
    r->end = *end;
    r->close_count++;
}

static inline void record_finished(struct session *session) {
    recorder_of(session)->finished_count++;
}

static const struct session_effects recorder_effects = {
    .send = record_send,
    .login = record_login,
    .claim = record_claim,
    .find_child = record_find_child,
    .release = record_release,
    .append = record_append,
    .receives = record_receives,
    .receives_no_more = record_receives_no_more,
    .reply = record_reply,
    .ask_twin = record_ask_twin,
    .listen_state = record_listen_state,
    .ignore_state = record_ignore_state,
    .mutate = record_mutate,
    .find_offset = record_find_offset,
    .discard = record_discard,
    .pause = record_pause,
    .resume = record_resume,
    .set_deadline = record_set_deadline,
    .format_peer = record_format_peer,
    .takeover = record_takeover,
    .filter_refused = record_filter_refused,
    .raise_input_limit = record_raise_input_limit,
    .connected = record_connected,
    .close = record_close,
    .finished = record_finished,
};

enum { START_MS = 1000000 };
/* Of the least share, and of a kind that asks nothing more. */
#define TAG_OF_NOTHING (15ull << 48)

static inline struct recorder *recorder_create(void) {
    struct recorder *r = calloc(1, sizeof(*r));
    char error[CONFIG_ERROR_SIZE];
    cr_assert_eq(config_load(NULL, NULL, NULL, &r->config, error), 0, "%s", error);
    r->config->mqtt_receive_maximum = 8;
    session_shared_init(&r->shared, &recorder_effects, r->config, "gw1-1-0-");
    r->shared.context = r;
    r->shared.now_ns = START_MS * 1000000ull;
    r->shared.wall_ms = 1700000000000;
    session_init(&r->session, &r->shared, 1, true);
    return r;
}

static inline void advance(struct recorder *r, uint64_t ms) {
    r->shared.now_ns += ms * 1000000;
    r->shared.wall_ms += (int64_t)ms;
}

/* Everything appended so far and not completed becomes durable. */
static inline void complete_all(struct recorder *r, unsigned from) {
    for (unsigned i = from; i < r->event_count; i++)
        session_append_done(&r->session, r->events[i].tag, 0);
}

/* Ends whatever is left and checks that nothing leaks or stays unfinished. */
static inline void recorder_free(struct recorder *r) {
    r->append_err = 0;
    if (r->session.flags & SESSION_PAUSED_STREAM)
        session_ready(&r->session);
    session_unlinked(&r->session, DG_ERR_CLOSED);
    if (r->session.flags & SESSION_CLAIM_ASKED)
        session_claim_done(&r->session, DG_ERR_BUSY, NULL, true);
    while (r->session.outstanding > 0)
        session_append_done(&r->session, TAG_OF_NOTHING, 0);
    cr_assert_eq(r->finished_count, 1);
    session_free(&r->session);
    kept_free(r->kept);
    producers_free(r->producers);
    session_shared_free(&r->shared);
    config_free(r->config);
    free(r);
}

static inline void feed(struct recorder *r, const void *data, size_t size) {
    session_receive(&r->session, data, size);
}

static inline void forget_sent(struct recorder *r) {
    r->sent_size = 0;
}

static inline bool has_sent(const struct recorder *r, const void *bytes, size_t size) {
    return r->sent_size == size && memcmp(r->sent, bytes, size) == 0;
}

#define cr_assert_sent(r, ...)                                                                \
    do {                                                                                      \
        const uint8_t expected_[] = {__VA_ARGS__};                                            \
        cr_assert(has_sent(r, expected_, sizeof(expected_)), "sent %zu bytes: %02x %02x ...", \
                  (r)->sent_size, (r)->sent[0], (r)->sent[1]);                                \
    } while (0)

static inline void feed_connect(struct recorder *r, enum mqtt_version version) {
    uint8_t bytes[256];
    struct writer w = writer_make(bytes, sizeof(bytes));
    mqtt_write_connect(&w, version, true, 60, slice_from_string("client-1"),
                       slice_from_string("dev1@acme"), slice_from_string("secret"));
    cr_assert(!w.failed);
    feed(r, bytes, writer_size(&w));
}

static inline struct registry_identity identity_of(const char *device) {
    struct registry_identity identity = {.tenant_key = 7,
                                         .tenant_stream_id = 3,
                                         .partition_count = 16,
                                         .device_key = 42,
                                         .partition = 5,
                                         .credential_key = 99};
    strcpy(identity.tenant, "acme");
    strcpy(identity.device, device);
    return identity;
}

static inline void log_in(struct recorder *r) {
    struct registry_identity identity = identity_of("dev1");
    session_login_done(&r->session, 0, &identity);
}

static inline struct recorder *connected(enum mqtt_version version) {
    struct recorder *r = recorder_create();
    feed_connect(r, version);
    log_in(r);
    session_claim_done(&r->session, 0, NULL, true);
    cr_assert_eq(r->session.state, SESSION_CONNECTED);
    forget_sent(r);
    return r;
}

static inline void feed_publish(struct recorder *r, uint8_t qos, bool dup, uint16_t id,
                                const char *topic, const char *payload) {
    uint8_t bytes[2048];
    struct writer w = writer_make(bytes, sizeof(bytes));
    mqtt_write_publish(&w, r->session.version, dup, qos, false, slice_from_string(topic), id,
                       slice_make(NULL, 0), slice_from_string(payload));
    cr_assert(!w.failed);
    feed(r, bytes, writer_size(&w));
}

static const enum mqtt_version versions[] = {MQTT_VERSION_3_1_1, MQTT_VERSION_5};
#define EACH_VERSION(v)                          \
    for (unsigned v##_i = 0; v##_i < 2; v##_i++) \
        for (enum mqtt_version v = versions[v##_i], *v##_once = &v; v##_once; v##_once = NULL)
