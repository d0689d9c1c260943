#include "tests/unit/gateway/kafka_support.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "storage/local/draft.h"
#include "storage/local/store.h"

/* ---- the registry ---- */

struct kafka_table kafka_table;
int32_t kafka_first_epoch;
struct kafka_beside kafka_beside;

static const struct principal {
    const char *name, *tenant;
    int64_t tenant_key, stream_id, credential_key;
    uint32_t roles;
} principals[] = {
    {"reader", "acme", 1, ACME_STREAM, 11, REGISTRY_ROLE_CONSUMER},
    {"auditor", "acme", 1, ACME_STREAM, 12, REGISTRY_ROLE_AUDITOR},
    {"operator", "acme", 1, ACME_STREAM, 13, REGISTRY_ROLE_OPERATOR | REGISTRY_ROLE_READER},
    {"beta-reader", "beta", 2, BETA_STREAM, 14, REGISTRY_ROLE_CONSUMER},
    {"platform", "", 0, 0, 15, REGISTRY_ROLE_ADMIN},
};

struct registry_login *registry_login_new(enum registry_login_kind kind, struct slice tenant,
                                          struct slice name, struct slice secret) {
    if (name.size > LIMIT_DEVICE_ID_BYTES || secret.size > LIMIT_PASSWORD_BYTES ||
        slice_equals_string(name, "no-memory"))
        return NULL;
    struct registry_login *login = calloc(1, sizeof(*login) + secret.size);
    cr_assert(kind == REGISTRY_LOGIN_PRINCIPAL || kind == REGISTRY_LOGIN_PRINCIPAL_SCRAM);
    cr_assert_eq(tenant.size, 0);
    login->kind = kind;
    if (name.size > 0)
        memcpy(login->name, name.data, name.size);
    if (secret.size > 0)
        memcpy(login->secret_bytes, secret.data, secret.size);
    login->secret = slice_make(login->secret_bytes, secret.size);
    return login;
}

void registry_login_free(struct registry_login *login) {
    free(login);
}

const struct credential_master *registry_master(const struct registry *registry) {
    static const struct credential_master master = {.id = "k1", .key = "master"};
    return &master;
}

static bool is_right(struct registry_login *login) {
    static const char secret[] = "secret";
    uint8_t sealed[CREDENTIAL_SEALED_SIZE];
    struct scram_keys keys;
    if (login->kind == REGISTRY_LOGIN_PRINCIPAL)
        return slice_equals_string(login->secret, secret);
    cr_assert_eq(scram_keys_seal(registry_master(NULL), login->name, secret, sealed), 0);
    cr_assert_eq(scram_keys_open(registry_master(NULL), slice_make(sealed, sizeof(sealed)), &keys),
                 0);
    return scram_keys_check(&keys, login->secret, login->proof, login->signature);
}

void registry_login(struct registry *registry, struct registry_login *login) {
    login->err = strcmp(login->name, "down") == 0 ? DG_ERR_UNAVAILABLE : DG_ERR_BAD_CREDENTIALS;
    for (size_t i = 0; i < sizeof(principals) / sizeof(principals[0]); i++) {
        const struct principal *p = &principals[i];
        if (strcmp(p->name, login->name) != 0 || !is_right(login))
            continue;
        login->err = 0;
        login->identity = (struct registry_identity){.tenant_key = p->tenant_key,
                                                     .tenant_stream_id = p->stream_id,
                                                     .partition_count = KAFKA_TEST_PARTITIONS,
                                                     .roles = p->roles,
                                                     .credential_key = p->credential_key,
                                                     .valid_until_ms = kafka_table.valid_until_ms};
        strcpy(login->identity.tenant, p->tenant);
    }
    mailbox_post(login->reply_to, &login->mail);
}

void registry_find_tenants(struct registry *registry, struct registry_tenant_query *query) {
    static const struct registry_tenant rows[] = {
        {.tenant_key = 1, .stream_id = ACME_STREAM, KAFKA_TEST_PARTITIONS, .name = "acme"},
        {.tenant_key = 2, .stream_id = BETA_STREAM, KAFKA_TEST_PARTITIONS, .name = "beta"},
    };
    unsigned count = kafka_table.tenant_count > 2 ? kafka_table.tenant_count : 2;
    query->err = kafka_table.tenants_unavailable ? DG_ERR_UNAVAILABLE : 0;
    if (query->err == 0)
        query->tenants = calloc(count, sizeof(rows[0]));
    for (unsigned i = 0; query->err == 0 && i < count; i++) {
        struct registry_tenant row = rows[i % 2];
        if (i >= 2) {
            row.tenant_key = row.stream_id = 1000 + i;
            snprintf(row.name, sizeof(row.name), "tenant-%u", i);
        } else if (i == 0 && kafka_table.acme_is_new) {
            row.tenant_key = row.stream_id = 999;
        } else if (i == 0) {
            row.partition_count += kafka_table.more_partitions;
        }
        if (!query->tenant[0] || strcmp(query->tenant, row.name) == 0)
            query->tenants[query->tenant_count++] = row;
    }
    mailbox_post(query->reply_to, &query->mail);
}

void registry_tenant_query_free(struct registry_tenant_query *query) {
    free(query->tenants);
    free(query);
}

/* ---- the server ---- */

const struct connection_listener kafka_test_listener = {.name = "kafka",
                                                        .protocol = &kafka_protocol};

static struct kafka_server *starting;

static void on_done(void *context, const struct stream_ticket *ticket, int err, int64_t offset) {
    struct kafka_server *server = context;
    cr_assert_eq(err, 0);
    server->pending--;
}

static void on_ready(void *context) {
}

static void end_turn(void *context) {
    stream_appender_turn(context);
}

static int prepare(struct worker *worker) {
    int err = stream_appender_create(starting->stream, &worker->mailbox, on_done, on_ready,
                                     starting, &starting->appender);
    if (err == 0)
        err = kafka_worker_start(worker, starting->stream, NULL);
    if (err == 0)
        err = kafka_groups_start(worker, starting->loopback.workers, 1);
    if (err == 0)
        worker_add_turn_hook(worker, end_turn, starting->appender);
    if (err == 0 && kafka_beside.start)
        err = kafka_beside.start(worker, starting->stream);
    return err;
}

/* As a restore leaves it. */
static void raise_epoch(const struct stream_options *options, int32_t epoch) {
    struct stream *stream;
    struct format_store format;
    struct draft draft;
    char error[STREAM_ERROR_SIZE];
    cr_assert_eq(stream_open(options, &stream, error), 0, "%s", error);
    stream_close(stream);
    cr_assert_eq(store_read_format(options->directory, &format), 0);
    cr_assert_eq(draft_load(options->directory, format.secret, &draft), 0);
    cr_assert_eq(draft_raise_epoch(&draft, epoch), 0);
    cr_assert_eq(draft_save(&draft, options->directory, format.secret), 0);
    draft_free(&draft);
}

void kafka_server_start(struct kafka_server *server, const char *const *overrides) {
    *server = (struct kafka_server){0};
    kafka_table = (struct kafka_table){0};
    const char *root = getenv("TMPDIR");
    snprintf(server->directory, sizeof(server->directory), "%s/duragate-kafka-XXXXXX",
             root ? root : "/tmp");
    cr_assert(mkdtemp(server->directory));
    struct stream_options options = {.directory = server->directory,
                                     .journal_size_bytes = 16 << 20,
                                     .segment_size_bytes = 4 << 20,
                                     .segment_age_ms = 3600 * 1000};
    char error[STREAM_ERROR_SIZE];
    if (kafka_first_epoch > 0)
        raise_epoch(&options, kafka_first_epoch);
    cr_assert_eq(stream_open(&options, &server->stream, error), 0, "%s", error);
    starting = server;
    static const char *const usual[] = {"security.allow_plaintext_passwords=true", NULL};
    loopback_start(&server->loopback, 1, prepare, overrides ? overrides : usual);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *walk) {
    return remove(path);
}

void kafka_server_stop(struct kafka_server *server) {
    struct worker *worker = server->loopback.workers[0];
    worker_stop(worker);
    worker_join(worker);
    if (kafka_beside.free)
        kafka_beside.free(worker);
    kafka_worker_free(worker);
    stream_appender_free(server->appender);
    mailbox_drain(&worker->mailbox); /* a mail to the watcher may still have been on its way */
    loopback_stop(&server->loopback);
    stream_close(server->stream);
    nftw(server->directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

struct appended {
    struct kafka_server *server;
    enum stream_kind kind;
    uint32_t partition;
    unsigned count;
    size_t size;
    int64_t first_ms;
};

static void append(struct worker *worker, void *context) {
    struct appended *batch = context;
    static uint8_t value[LIMIT_EVENT_PAYLOAD_BYTES];
    for (unsigned i = 0; i < batch->count; i++) {
        struct stream_record record = {.timestamp_ms = batch->first_ms + i,
                                       .key = slice_from_string("dev1"),
                                       .value = slice_make(value, batch->size)};
        cr_assert_eq(stream_append(batch->server->appender,
                                   registry_stream(ACME_STREAM, batch->kind), batch->partition,
                                   &record, (struct stream_ticket){.owner = 1}),
                     0);
        batch->server->pending++;
    }
}

static void ask_pending(struct worker *worker, void *context) {
    struct appended *batch = context;
    batch->count = batch->server->pending;
}

void kafka_server_append(struct kafka_server *server, enum stream_kind kind, uint32_t partition,
                         unsigned count, size_t size, int64_t first_ms) {
    struct appended batch = {server, kind, partition, count, size, first_ms};
    loopback_run(server->loopback.workers[0], append, &batch);
    do {
        usleep(1000);
        loopback_run(server->loopback.workers[0], ask_pending, &batch);
    } while (batch.count > 0);
}

/* ---- the client ---- */

void kafka_connect(struct kafka_client *c, struct kafka_server *server) {
    memset(c, 0, sizeof(*c));
    client_connect(&c->client, &server->loopback, &kafka_test_listener);
}

void kafka_disconnect(struct kafka_client *c) {
    client_close(&c->client);
    free(c->answer_bytes);
    c->answer_bytes = NULL;
}

static bool is_flexible(const struct kafka_client *c) {
    const struct kafka_api *api = kafka_api_find(c->api);
    return api && kafka_api_is_flexible(api, c->version);
}

void kafka_begin(struct kafka_client *c, int api, int version) {
    c->api = api;
    c->version = version;
    c->request = writer_make(c->request_bytes, sizeof(c->request_bytes));
    writer_u32(&c->request, 0);
    writer_u16(&c->request, (uint16_t)api);
    writer_u16(&c->request, (uint16_t)version);
    writer_u32(&c->request, (uint32_t)++c->correlation_id);
    writer_u16(&c->request, 4);
    writer_string(&c->request, "test");
    if (is_flexible(c))
        writer_u8(&c->request, 0);
}

void kafka_put_text(struct kafka_client *c, const char *text) {
    writer_u16(&c->request, (uint16_t)strlen(text));
    writer_string(&c->request, text);
}

void kafka_send(struct kafka_client *c) {
    cr_assert(!c->request.failed);
    size_t size = writer_size(&c->request);
    struct writer length = writer_make(c->request_bytes, 4);
    writer_u32(&length, (uint32_t)size - 4);
    (void)!client_send(&c->client, c->request_bytes, size); /* it may be closed already */
}

bool kafka_receive(struct kafka_client *c) {
    uint8_t length[4];
    if (client_read(&c->client, length, 4) != 4)
        return false;
    struct reader r = reader_make(length, 4);
    size_t size = reader_u32(&r);
    cr_assert(size >= 4 && size <= 64 << 20, "%zu", size);
    free(c->answer_bytes);
    c->answer_bytes = malloc(size);
    cr_assert_eq(client_read(&c->client, c->answer_bytes, size), size);
    c->answer = reader_make(c->answer_bytes, size);
    reader_u32(&c->answer); /* the correlation id; kafka_call_server() checks it */
    if (is_flexible(c) && c->api != KAFKA_API_VERSIONS)
        reader_u8(&c->answer);
    return true;
}

void kafka_call_server(struct kafka_client *c) {
    kafka_send(c);
    cr_assert(kafka_receive(c), "api %d version %d: closed", c->api, c->version);
    struct reader r = reader_make(c->answer_bytes, 4);
    cr_assert_eq((int32_t)reader_u32(&r), c->correlation_id);
}

int kafka_login(struct kafka_client *c, const char *user, const char *secret) {
    kafka_begin(c, KAFKA_SASL_HANDSHAKE, 1);
    kafka_put_text(c, "PLAIN");
    kafka_call_server(c);
    cr_assert_eq(reader_u16(&c->answer), 0);
    kafka_begin(c, KAFKA_SASL_AUTHENTICATE, 0);
    writer_u32(&c->request, (uint32_t)(strlen(user) + strlen(secret) + 2));
    writer_u8(&c->request, 0);
    writer_string(&c->request, user);
    writer_u8(&c->request, 0);
    writer_string(&c->request, secret);
    kafka_send(c);
    return kafka_receive(c) ? (int16_t)reader_u16(&c->answer) : -1000;
}

void kafka_enter(struct kafka_client *c, struct kafka_server *server, const char *user) {
    kafka_connect(c, server);
    cr_assert_eq(kafka_login(c, user, "secret"), 0);
}

void kafka_begin_fetch(struct kafka_client *c, const char *topic, int32_t max_wait_ms,
                       int32_t min_bytes, int32_t max_bytes, const struct kafka_asked *asked,
                       unsigned count) {
    kafka_begin(c, KAFKA_FETCH, 11);
    writer_u32(&c->request, 0xffffffff);
    writer_u32(&c->request, (uint32_t)max_wait_ms);
    writer_u32(&c->request, (uint32_t)min_bytes);
    writer_u32(&c->request, (uint32_t)max_bytes);
    writer_u8(&c->request, 0);
    writer_u32(&c->request, 0);
    writer_u32(&c->request, 0xffffffff);
    writer_u32(&c->request, 1);
    kafka_put_text(c, topic);
    writer_u32(&c->request, count);
    for (unsigned i = 0; i < count; i++) {
        writer_u32(&c->request, (uint32_t)asked[i].partition);
        writer_u32(&c->request, 0xffffffff);
        writer_u64(&c->request, (uint64_t)asked[i].offset);
        writer_u64(&c->request, UINT64_MAX);
        writer_u32(&c->request, (uint32_t)asked[i].max_bytes);
    }
    writer_u32(&c->request, 0); /* forgotten */
    writer_u16(&c->request, 0); /* rack */
}

void kafka_take_fetch(struct kafka_client *c, struct kafka_fetched *ret_fetched, unsigned count) {
    struct reader *r = &c->answer;
    cr_assert_eq(reader_u32(r), 0); /* throttle */
    cr_assert_eq(reader_u16(r), 0);
    cr_assert_eq(reader_u32(r), 0); /* no session */
    cr_assert_eq(reader_u32(r), 1);
    reader_take(r, reader_u16(r));
    cr_assert_eq(reader_u32(r), count);
    for (unsigned i = 0; i < count; i++) {
        struct kafka_fetched *f = &ret_fetched[i];
        f->partition = (int32_t)reader_u32(r);
        f->error = (int16_t)reader_u16(r);
        f->high_watermark = (int64_t)reader_u64(r);
        cr_assert_eq((int64_t)reader_u64(r), f->high_watermark);
        f->log_start = (int64_t)reader_u64(r);
        cr_assert_eq(reader_u32(r), 0xffffffff); /* no aborted transactions */
        cr_assert_eq(reader_u32(r), 0xffffffff); /* no other replica */
        f->records = reader_slice(r, reader_u32(r));
    }
    cr_assert(!r->failed && reader_left(r) == 0);
}

void kafka_begin_list_offsets(struct kafka_client *c, const char *topic, int32_t partition,
                              int64_t asked_ms) {
    kafka_begin(c, KAFKA_LIST_OFFSETS, 5);
    writer_u32(&c->request, 0xffffffff);
    writer_u8(&c->request, 0);
    writer_u32(&c->request, 1);
    kafka_put_text(c, topic);
    writer_u32(&c->request, 1);
    writer_u32(&c->request, (uint32_t)partition);
    writer_u32(&c->request, 0xffffffff);
    writer_u64(&c->request, (uint64_t)asked_ms);
}

int16_t kafka_take_list_offsets(struct kafka_client *c, int32_t partition, int64_t *ret_ms,
                                int64_t *ret_offset) {
    struct reader *r = &c->answer;
    reader_take(r, 4 + 4);
    reader_take(r, reader_u16(r));
    cr_assert_eq(reader_u32(r), 1);
    cr_assert_eq((int32_t)reader_u32(r), partition);
    int16_t error = (int16_t)reader_u16(r);
    *ret_ms = (int64_t)reader_u64(r);
    *ret_offset = (int64_t)reader_u64(r);
    cr_assert(!r->failed);
    return error;
}
