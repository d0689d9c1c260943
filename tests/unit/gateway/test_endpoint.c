/*
 * The MQTT endpoint on real workers and sockets. Behind it a stream that keeps records in a list
 * and a registry that knows every device by the password "secret"; both are below.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/mqtt/endpoint.h"
#include "gateway/mqtt/packet.h"
#include "gateway/session/claims.h"
#include "tests/unit/gateway/loopback.h"

TestSuite(endpoint, .fini = loopback_check_leaks);

/* ---- the stream ---- */

enum { STORED_MAX = 512, OPEN_MAX = 256, STORED_VALUE = 200 };

struct stored {
    uint64_t stream;
    uint32_t partition;
    bool is_state; /* no record */
    char value[STORED_VALUE];
    struct stream_ticket ticket;
    int err;
};

struct stream_appender {
    struct mailbox *mailbox;
    stream_done_fn *done;
    stream_ready_fn *ready;
    void *context;
    struct stored open[OPEN_MAX];
    unsigned open_count;
    uint64_t pending;
};

struct committed {
    struct mail mail;
    struct stream_appender *appender;
    unsigned count;
    struct stored records[];
};

static struct {
    pthread_mutex_t lock;
    struct stored stored[STORED_MAX];
    unsigned count;
    atomic_bool pressure, full;
    atomic_uint deletions;
    struct stream_appender *appenders[2];
} store = {.lock = PTHREAD_MUTEX_INITIALIZER};

int stream_appender_create(struct stream *stream, struct mailbox *mailbox, stream_done_fn *done,
                           stream_ready_fn *ready, void *context,
                           struct stream_appender **ret_appender) {
    struct stream_appender *a = calloc(1, sizeof(*a));
    a->mailbox = mailbox;
    a->done = done;
    a->ready = ready;
    a->context = context;
    store.appenders[store.appenders[0] ? 1 : 0] = a;
    *ret_appender = a;
    return 0;
}

void stream_appender_free(struct stream_appender *appender) {
    cr_assert_eq(appender->pending, 0);
    store.appenders[appender == store.appenders[1]] = NULL;
    free(appender);
}

uint64_t stream_appender_pending(const struct stream_appender *appender) {
    return appender->pending;
}

int stream_mutate(struct stream_appender *a, const struct stream_mutation *mutations,
                  unsigned count, struct stream_ticket ticket) {
    if (atomic_load(&store.pressure) || a->open_count == OPEN_MAX)
        return DG_ERR_PRESSURE;
    for (unsigned i = 0; i < count; i++)
        atomic_fetch_add(&store.deletions, mutations[i].is_delete);
    a->open[a->open_count++] = (struct stored){.is_state = true, .ticket = ticket};
    a->pending++;
    return 0;
}

int stream_append_with(struct stream_appender *a, uint64_t stream_id, uint32_t partition,
                       const struct stream_record *record, const struct stream_mutation *mutations,
                       unsigned count, struct stream_ticket ticket) {
    if (atomic_load(&store.pressure) || a->open_count == OPEN_MAX)
        return DG_ERR_PRESSURE;
    struct stored *to = &a->open[a->open_count++];
    *to = (struct stored){.stream = stream_id, .partition = partition, .ticket = ticket};
    size_t size = record->value.size < STORED_VALUE - 1 ? record->value.size : STORED_VALUE - 1;
    memcpy(to->value, record->value.data, size);
    a->pending++;
    return 0;
}

static void deliver_committed(struct mail *mail, void *receiver) {
    struct committed *batch = (struct committed *)(void *)mail;
    for (unsigned i = 0; i < batch->count; i++) {
        batch->appender->pending--;
        batch->appender->done(batch->appender->context, &batch->records[i].ticket,
                              batch->records[i].err, i);
    }
    free(batch);
}

void stream_appender_turn(struct stream_appender *a) {
    if (a->open_count == 0)
        return;
    struct committed *batch = malloc(sizeof(*batch) + a->open_count * sizeof(a->open[0]));
    batch->mail.deliver = deliver_committed;
    batch->appender = a;
    batch->count = a->open_count;
    memcpy(batch->records, a->open, a->open_count * sizeof(a->open[0]));
    pthread_mutex_lock(&store.lock);
    for (unsigned i = 0; i < batch->count; i++) {
        batch->records[i].err = atomic_load(&store.full) ? DG_ERR_STORAGE_FULL : 0;
        if (batch->records[i].err == 0 && !batch->records[i].is_state && store.count < STORED_MAX)
            store.stored[store.count++] = batch->records[i];
    }
    pthread_mutex_unlock(&store.lock);
    a->open_count = 0;
    mailbox_post(a->mailbox, &batch->mail);
}

int stream_find_state(struct stream *stream, enum stream_namespace name_space, struct slice key,
                      void *ret_value, size_t room) {
    return DG_ERR_NOT_FOUND;
}

struct slice stream_secret(const struct stream *stream) {
    return slice_make(NULL, 0);
}

void stream_visit_state(struct stream *stream, enum stream_namespace name_space,
                        stream_state_fn *visit, void *context) {
}

int32_t stream_epoch(const struct stream *stream) {
    return 0;
}

void stream_extent_release(struct stream_extent *extent) {
}

static unsigned stored_count(void) {
    pthread_mutex_lock(&store.lock);
    unsigned count = store.count;
    pthread_mutex_unlock(&store.lock);
    return count;
}

static bool wait_for_stored(unsigned count) {
    for (unsigned i = 0; i < 5000 && stored_count() < count; i++)
        usleep(1000);
    return stored_count() >= count;
}

/* ---- the registry ---- */

struct registry_login *registry_login_new(enum registry_login_kind kind, struct slice tenant,
                                          struct slice name, struct slice secret) {
    if (slice_equals_string(name, "no-memory"))
        return NULL;
    struct registry_login *login = calloc(1, sizeof(*login) + secret.size);
    login->kind = kind;
    memcpy(login->tenant, tenant.data, tenant.size);
    memcpy(login->name, name.data, name.size);
    memcpy(login->secret_bytes, secret.data, secret.size);
    login->secret = slice_make(login->secret_bytes, secret.size);
    return login;
}

void registry_login_free(struct registry_login *login) {
    free(login);
}

void registry_login(struct registry *registry, struct registry_login *login) {
    login->err = slice_equals_string(login->secret, "secret") ? 0 : DG_ERR_BAD_CREDENTIALS;
    login->identity = (struct registry_identity){.tenant_key = 7,
                                                 .tenant_stream_id = 3,
                                                 .partition_count = 16,
                                                 .device_key = atoi(login->name + 3) + 1,
                                                 .partition = 5,
                                                 .credential_key = 99};
    strcpy(login->identity.tenant, login->tenant);
    strcpy(login->identity.device, login->name);
    mailbox_post(login->reply_to, &login->mail);
}

/* Wills that wait: nobody does here. */
struct registry_request *registry_request_new(enum registry_statement statement) {
    return NULL;
}

int registry_request_add(struct registry_request *request, struct slice value) {
    return DG_ERR_NO_MEMORY;
}

void registry_request_free(struct registry_request *request) {
}

void registry_execute(struct registry *registry, struct registry_request *request) {
}

static atomic_uint child_queries;

/* There are children s0 to s9, which dev0 may speak for. */
void registry_find_child(struct registry *registry, struct registry_child_query *query) {
    atomic_fetch_add(&child_queries, 1);
    bool exists = query->child[0] == 's' && query->child[1] != '\0' && query->child[2] == '\0';
    query->err = exists ? 0 : DG_ERR_VIA;
    if (exists) {
        query->device_key = 1000 + query->child[1];
        query->partition = 9;
        query->via = strdup("dev0 ");
    }
    mailbox_post(query->reply_to, &query->mail);
}

/* ---- the server ---- */

static struct loopback server;
static const struct connection_listener listener = {.name = "mqtt", .protocol = &mqtt_protocol};

static int prepare(struct worker *worker) {
    int err = mqtt_worker_start(worker, NULL, NULL);
    return err < 0 ? err : claims_worker_start(worker, server.workers, LOOPBACK_WORKERS_MAX);
}

static void start(void) {
    store.count = 0;
    atomic_store(&store.pressure, false);
    atomic_store(&store.full, false);
    /* The client's end is a socket pair, which has no loopback address. */
    static const char *const overrides[] = {"security.allow_plaintext_passwords=true", NULL};
    loopback_start(&server, LOOPBACK_WORKERS_MAX, prepare, overrides);
}

static void stop(void) {
    for (unsigned i = 0; i < server.worker_count; i++)
        worker_stop(server.workers[i]);
    for (unsigned i = 0; i < server.worker_count; i++)
        worker_join(server.workers[i]);
    for (unsigned i = 0; i < server.worker_count; i++)
        mqtt_worker_free(server.workers[i]);
    for (unsigned i = 0; i < server.worker_count; i++)
        worker_free(server.workers[i]);
    config_free(server.config);
}

/* ---- the device ---- */

static void send_connect(struct client *client, enum mqtt_version version, const char *user,
                         const char *password) {
    uint8_t bytes[256];
    struct writer w = writer_make(bytes, sizeof(bytes));
    mqtt_write_connect(&w, version, true, 60, slice_from_string("c"), slice_from_string(user),
                       slice_from_string(password));
    cr_assert(client_send(client, bytes, writer_size(&w)));
}

static void connect_to(struct client *client, unsigned worker, const char *user) {
    struct loopback view = {.workers = {server.workers[worker]}, .worker_count = 1};
    client_connect(client, &view, &listener);
    send_connect(client, MQTT_VERSION_3_1_1, user, "secret");
    uint8_t connack[4];
    cr_assert_eq(client_read(client, connack, 4), 4);
    cr_assert(connack[0] == 0x20 && connack[3] == 0, "%02x %02x", connack[0], connack[3]);
}

static void publish_to(struct client *client, const char *topic, uint16_t id, const char *payload) {
    uint8_t bytes[256];
    struct writer w = writer_make(bytes, sizeof(bytes));
    mqtt_write_publish(&w, MQTT_VERSION_3_1_1, false, 1, false, slice_from_string(topic), id,
                       slice_make(NULL, 0), slice_from_string(payload));
    cr_assert(client_send(client, bytes, writer_size(&w)));
}

static void publish(struct client *client, uint16_t id, const char *payload) {
    publish_to(client, "t", id, payload);
}

static void expect_puback(struct client *client, uint16_t id) {
    uint8_t ack[4];
    cr_assert_eq(client_read(client, ack, 4), 4);
    cr_assert(ack[0] == 0x40 && ack[2] == id >> 8 && ack[3] == (id & 255), "%02x id %u", ack[0],
              ack[2] << 8 | ack[3]);
}

Test(endpoint, publishes_are_acknowledged_in_order) {
    start();
    struct client client;
    connect_to(&client, 0, "dev1@acme");
    for (uint16_t id = 1; id <= 100; id++)
        publish(&client, id, "x");
    for (uint16_t id = 1; id <= 100; id++)
        expect_puback(&client, id);
    cr_assert(client_send(&client, "\xE0\0", 2));
    cr_assert(client_at_end(&client));
    client_close(&client);
    cr_assert(wait_for_stored(102));
    cr_assert_not_null(strstr(store.stored[0].value, "\"connected\":true"));
    cr_assert_not_null(strstr(store.stored[101].value, "\"connected\":false"));
    cr_assert_eq(store.stored[1].stream, registry_stream(3, STREAM_EVENTS));
    cr_assert_eq(store.stored[1].partition, 5);
    stop();
}

/* The worker remembers what the registry said until the device has changed. */
Test(endpoint, a_gateway_speaks_for_a_child) {
    start();
    struct client client;
    connect_to(&client, 0, "dev0@acme");
    publish_to(&client, "$dg/via/s1/t", 1, "for s1");
    publish_to(&client, "$dg/via/other/t", 2, "put aside");
    publish_to(&client, "$dg/via/s1/t", 3, "for s1");
    publish(&client, 4, "own");
    for (uint16_t id = 1; id <= 4; id++)
        expect_puback(&client, id);
    static const struct {
        const char *value;
        uint32_t partition;
        enum stream_kind stream;
    } expected[] = {{"for s1", 9, STREAM_EVENTS},
                    {"put aside", 5, STREAM_QUARANTINE},
                    {"for s1", 9, STREAM_EVENTS},
                    {"own", 5, STREAM_EVENTS}};
    cr_assert(wait_for_stored(5));
    for (unsigned i = 0; i < 4; i++) {
        const struct stored *stored = &store.stored[i + 1];
        cr_expect_str_eq(stored->value, expected[i].value);
        cr_expect_eq(stored->partition, expected[i].partition, "%s", expected[i].value);
        cr_expect_eq(stored->stream, registry_stream(3, expected[i].stream));
    }
    cr_assert_eq(atomic_load(&child_queries), 2);
    client_close(&client);
    cr_assert(wait_for_stored(6));
    stop();
}

Test(endpoint, wrong_password) {
    start();
    struct client client;
    client_connect(&client, &server, &listener);
    send_connect(&client, MQTT_VERSION_3_1_1, "dev1@acme", "wrong");
    uint8_t connack[4];
    cr_assert_eq(client_read(&client, connack, 4), 4);
    cr_assert_eq(connack[3], 4);
    cr_assert(client_at_end(&client));
    client_close(&client);
    stop();
    cr_assert_eq(store.count, 0);
}

/* Not the device's fault, so not its password. */
Test(endpoint, no_memory_to_log_in) {
    start();
    struct client client;
    client_connect(&client, &server, &listener);
    send_connect(&client, MQTT_VERSION_3_1_1, "no-memory@acme", "secret");
    uint8_t connack[4];
    cr_assert_eq(client_read(&client, connack, 4), 4);
    cr_assert_eq(connack[3], 3, "%d", connack[3]);
    cr_assert(client_at_end(&client));
    client_close(&client);
    stop();
}

Test(endpoint, take_over_keeps_the_order) {
    start();
    for (unsigned round = 0; round < 20; round++) {
        struct client old, newer;
        store.count = 0;
        connect_to(&old, round % 2, "dev4@acme");
        publish(&old, 1, "from the old");
        expect_puback(&old, 1);
        connect_to(&newer, round / 2 % 2, "dev4@acme");
        publish(&newer, 1, "from the new");
        expect_puback(&newer, 1);
        static const char *const expected[] = {"\"connected\":true", "from the old",
                                               "\"connected\":false", "\"connected\":true",
                                               "from the new"};
        cr_assert_eq(stored_count(), 5);
        for (unsigned i = 0; i < 5; i++)
            cr_assert_not_null(strstr(store.stored[i].value, expected[i]), "round %u: %u is %s",
                               round, i, store.stored[i].value);
        client_close(&old);
        client_close(&newer);
        cr_assert(wait_for_stored(6));
    }
    stop();
}

static bool connect_and_publish(unsigned worker, const char *user) {
    struct loopback view = {.workers = {server.workers[worker]}, .worker_count = 1};
    struct client client;
    uint8_t answers[8];
    client_connect(&client, &view, &listener);
    send_connect(&client, MQTT_VERSION_3_1_1, user, "secret");
    bool accepted = client_read(&client, answers, 4) == 4 && answers[3] == 0;
    if (accepted) {
        static const uint8_t packet[] = {0x32, 6, 0, 1, 't', 0, 1, 'x'};
        accepted = client_send(&client, packet, sizeof(packet)) &&
                   client_read(&client, answers, 4) == 4 && answers[0] == 0x40;
    }
    client_close(&client);
    return accepted;
}

Test(endpoint, a_storm_of_connections_of_one_device) {
    start();
    enum { CONNECTIONS = 60 };
    struct client clients[CONNECTIONS];
    for (unsigned i = 0; i < CONNECTIONS; i++) {
        struct loopback view = {.workers = {server.workers[i % 2]}, .worker_count = 1};
        client_connect(&clients[i], &view, &listener);
        send_connect(&clients[i], MQTT_VERSION_5, "dev9@acme", "secret");
    }
    for (unsigned i = 0; i < CONNECTIONS; i++)
        client_close(&clients[i]);
    /* Those still on their way may take over: a device would try again. */
    bool stored = false;
    for (unsigned i = 0; i < 50 && !stored; i++)
        stored = connect_and_publish(i % 2, "dev9@acme");
    cr_assert(stored);
    stop();
    int connected = 0;
    for (unsigned i = 0; i < store.count; i++) {
        connected += strstr(store.stored[i].value, "\"connected\":true") != NULL;
        connected -= strstr(store.stored[i].value, "\"connected\":false") != NULL;
        cr_assert(connected == 0 || connected == 1, "record %u of %u", i, store.count);
    }
    cr_assert_eq(connected, 0);
}

static void end_concerned(struct worker *worker, void *context) {
    mqtt_revoke(worker, context);
}

Test(endpoint, revocation_ends_the_connection) {
    start();
    struct registry_revocation *change = calloc(1, sizeof(*change));
    for (int64_t device_key = 0; device_key <= 2; device_key += 2) {
        struct client concerned, other;
        connect_to(&concerned, 0, "dev1@acme"); /* key 2 */
        connect_to(&other, 0, "dev2@acme");
        change->tenant_key = 7;
        change->device_key = device_key;
        change->err = DG_ERR_DISABLED;
        loopback_run(server.workers[0], end_concerned, change);
        cr_assert(client_at_end(&concerned));
        if (device_key == 0) {
            cr_assert(client_at_end(&other));
        } else {
            publish(&other, 1, "x");
            expect_puback(&other, 1);
        }
        client_close(&concerned);
        client_close(&other);
    }
    free(change);
    stop();
}

static void be_ready(struct worker *worker, void *context) {
    for (unsigned i = 0; i < 2; i++)
        if (store.appenders[i]->mailbox == &worker->mailbox)
            store.appenders[i]->ready(store.appenders[i]->context);
}

Test(endpoint, pressure_stops_reading_and_nothing_is_lost) {
    start();
    struct client client;
    connect_to(&client, 0, "dev1@acme");
    atomic_store(&store.pressure, true);
    for (uint16_t id = 1; id <= 20; id++)
        publish(&client, id, "x");
    usleep(50000);
    cr_assert_eq(stored_count(), 1);
    atomic_store(&store.pressure, false);
    loopback_run(server.workers[0], be_ready, NULL);
    for (uint16_t id = 1; id <= 20; id++)
        expect_puback(&client, id);
    client_close(&client);
    stop();
}

static void drain(struct worker *worker, void *context) {
    mqtt_worker_drain(worker);
    *(bool *)context = mqtt_worker_idle(worker);
}

Test(endpoint, draining_sends_what_is_acknowledged_first) {
    start();
    struct client client, silent;
    connect_to(&client, 0, "dev1@acme");
    client_connect(&silent, &server, &listener);
    publish(&client, 1, "x");
    expect_puback(&client, 1);
    bool idle[LOOPBACK_WORKERS_MAX] = {false};
    for (unsigned i = 0; i < 500 && !(idle[0] && idle[1]); i++) {
        for (unsigned worker = 0; worker < LOOPBACK_WORKERS_MAX; worker++)
            loopback_run(server.workers[worker], drain, &idle[worker]);
        usleep(2000);
    }
    cr_assert(idle[0] && idle[1]);
    cr_assert(client_at_end(&client));
    cr_assert(client_at_end(&silent));
    client_close(&client);
    client_close(&silent);
    struct client late;
    client_connect(&late, &server, &listener);
    cr_assert(client_at_end(&late));
    client_close(&late);
    stop();
    cr_assert_eq(store.count, 3);
}

/* A producer that stored something in 1970, at the home of the device. */
static void install_old_producer(struct worker *worker, void *context) {
    struct producer *list = NULL;
    struct producer_sequence sequence;
    struct producers_change change;
    const struct producers_context at = {.device_key = 1, .wall_ms = 1};
    cr_assert_eq(producer_sequence_parse(slice_from_string("old:1:1"), &sequence), 0);
    cr_assert_eq(producers_prepare(&list, &sequence, &at, &change), 0);
    producers_submit(&change, &sequence, 1);
    producers_settle(&list, change.ticket, 0);
    cr_assert_eq(claims_install_producers(worker, *(const int64_t *)context, list), 0);
}

static void sweep(struct worker *worker, void *context) {
    for (unsigned i = 0; i < LIMIT_SESSION_SWEEP_CALLS; i++)
        claims_sweep(worker, worker->wall_ms);
}

static void look_if_idle(struct worker *worker, void *context) {
    *(bool *)context = mqtt_worker_idle(worker);
}

static void sweep_and_wait(struct worker *worker) {
    bool idle = false;
    loopback_run(worker, sweep, NULL);
    for (unsigned i = 0; i < 5000 && !idle; i++)
        loopback_run(worker, look_if_idle, &idle);
    cr_assert(idle);
}

Test(endpoint, forgotten_producers_are_deleted) {
    start();
    struct worker *home = server.workers[claims_home(1, LOOPBACK_WORKERS_MAX)];
    unsigned before = atomic_load(&store.deletions);
    int64_t device = 1, other = 2;
    loopback_run(home, install_old_producer, &device);
    atomic_store(&store.full, true);
    sweep_and_wait(home);
    cr_assert_eq(atomic_load(&store.deletions), before + 1);
    atomic_store(&store.full, false);
    sweep_and_wait(home);
    cr_assert_eq(atomic_load(&store.deletions), before + 2, "again, since that was refused");
    sweep_and_wait(home);
    cr_assert_eq(atomic_load(&store.deletions), before + 2);
    struct client client;
    connect_to(&client, 0, "dev0@acme"); /* key 1 */
    publish(&client, 1, "x");
    expect_puback(&client, 1);
    client_close(&client);
    loopback_run(home, install_old_producer, &other);
    stop(); /* frees the rest */
}

Test(endpoint, stopping_without_draining_frees_everything) {
    start();
    struct client clients[4];
    for (unsigned i = 0; i < 4; i++) {
        char user[16];
        snprintf(user, sizeof(user), "dev%u@acme", i);
        connect_to(&clients[i], i % 2, user);
        publish(&clients[i], 1, "x");
    }
    stop();
    for (unsigned i = 0; i < 4; i++)
        client_close(&clients[i]);
}
