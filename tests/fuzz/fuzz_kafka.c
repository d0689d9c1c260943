/*
 * What a Kafka client can send. First byte: 0, one request frame for the codec alone: what was
 * decoded lies within the frame and, written again, reads the same. Else the bytes of a connection
 * (1: new, 2: a tenant's reader, 3: the platform's) for the endpoint itself, above a stream that is
 * always ready and a transport that takes everything; every extent must come back.
 */
#include <stdlib.h>

#include "common/log.h"
#include "gateway/kafka/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds) {
    if (!holds)
        abort();
}

/* ---- the codec ---- */

static uint8_t first_arena[1 << 20], second_arena[1 << 20], wire[1 << 20];

static void check_inside(struct slice part, struct slice frame) {
    if (part.size > 0)
        check(part.data >= frame.data && part.data + part.size <= frame.data + frame.size);
}

static void check_fields(const struct kafka_field *fields, const uint8_t *from,
                         struct slice frame) {
    for (const struct kafka_field *field = fields; field->name; field++) {
        const struct kafka_array *array = (const void *)(from + field->offset);
        if (field->type == KAFKA_STRING || field->type == KAFKA_BYTES)
            check_inside(*(const struct slice *)(const void *)(from + field->offset), frame);
        if (field->type < KAFKA_ARRAY)
            continue;
        check(array->count <= frame.size && (array->count == 0 || array->items));
        for (uint32_t i = 0; i < array->count; i++) {
            if (field->type == KAFKA_ARRAY)
                check_fields(field->element,
                             (const uint8_t *)array->items + (size_t)i * field->element_size,
                             frame);
            if (field->type == KAFKA_STRING_ARRAY)
                check_inside(((const struct slice *)array->items)[i], frame);
        }
    }
}

static size_t write_again(const struct kafka_api *api, int version, const void *request) {
    struct kafka_output output = {.w = writer_make(wire, sizeof(wire))};
    bool flexible = kafka_api_is_flexible(api, version);
    if (flexible)
        writer_u8(&output.w, 0);
    kafka_encode(api->request, version, flexible, &output, request);
    check(!output.w.failed);
    return writer_size(&output.w);
}

static void fuzz_codec(const uint8_t *data, size_t size) {
    struct reader r = reader_make(data, size);
    struct kafka_request_header header;
    if (kafka_decode_header(&r, &header) < 0)
        return;
    const struct kafka_api *api = kafka_api_find(header.api);
    if (!api || header.version < api->first || header.version > api->last)
        return;
    struct kafka_arena arena = {first_arena, first_arena + sizeof(first_arena)};
    void *request, *again;
    int err = kafka_decode_request(api, &header, &r, &arena, &request);
    check(err == 0 || err == DG_ERR_MALFORMED || err == DG_ERR_LIMIT);
    if (err < 0)
        return;
    check_fields(api->request, request, slice_make(data, size));
    size_t written = write_again(api, header.version, request);
    r = reader_make(wire, written);
    arena = (struct kafka_arena){second_arena, second_arena + sizeof(second_arena)};
    check(kafka_decode_request(api, &header, &r, &arena, &again) == 0 && reader_left(&r) == 0);
    check(write_again(api, header.version, again) == written);
}

/* ---- what stands around the endpoint ---- */

static char advertised[] = "localhost:9092";
static struct config config = {.kafka_advertised = advertised};
static struct worker worker;
static struct kafka_worker kafka;
static struct connection connection;
static long extents; /* given out and not yet back */
static struct hold { int unused; } hold;
static bool closed;

void connection_write(struct connection *c, const void *data, size_t size) {
    check(size <= KAFKA_OUTPUT_SIZE);
    for (size_t i = 0; i < size; i += 4096)
        (void)*((const volatile uint8_t *)data + i);
}

void connection_write_extent(struct connection *c, struct stream_extent *extent) {
    stream_extent_release(extent);
}

size_t connection_unsent(const struct connection *c) {
    return 0;
}

void connection_pause(struct connection *c) {
}

void connection_resume(struct connection *c) {
}

void connection_close(struct connection *c, int err) {
    closed = true;
}

void connection_set_deadline(struct connection *c, uint64_t deadline_ms) {
}

void connection_format_peer(const struct connection *c, char *ret_text) {
    ret_text[0] = '\0';
}

void connection_set_known(struct connection *c) {
}

bool connection_is_encrypted(const struct connection *c) {
    return true;
}

bool connection_peer_is_loopback(const struct connection *c) {
    return false;
}

struct connection *connection_find(struct worker *owner, uint64_t id) {
    return closed ? NULL : &connection;
}

void worker_refresh_time(struct worker *owner) {
}

void stream_offsets(struct stream *stream, uint64_t stream_id, uint32_t partition,
                    struct stream_offsets *ret_offsets) {
    check(partition < 4);
    *ret_offsets = (struct stream_offsets){.log_start = 5, .durable_end = 1000};
}

int32_t stream_epoch(const struct stream *stream) {
    return 3;
}

int stream_epoch_end(struct stream *stream, uint64_t stream_id, uint32_t partition, int32_t epoch,
                     int32_t *ret_epoch, int64_t *ret_end) {
    check(partition < 4);
    if (epoch < 0 || epoch > 3)
        return DG_ERR_NOT_FOUND;
    *ret_epoch = epoch;
    *ret_end = 1000;
    return 0;
}

int stream_find_time(struct stream *stream, uint64_t stream_id, uint32_t partition,
                     int64_t timestamp_ms, struct stream_watcher *watcher, int64_t *ret_offset,
                     int64_t *ret_timestamp_ms) {
    check(partition < 4 && timestamp_ms >= 0);
    return timestamp_ms % 7 == 6 ? DG_ERR_COLD : DG_ERR_NOT_FOUND;
}

int stream_find_last(struct stream *stream, uint64_t stream_id, uint32_t partition,
                     int64_t *ret_offset, int64_t *ret_timestamp_ms) {
    *ret_offset = *ret_timestamp_ms = 999;
    return 0;
}

int stream_read(struct stream *stream, uint64_t stream_id, uint32_t partition, int64_t offset,
                uint32_t max_bytes, struct stream_watcher *watcher,
                struct stream_extent *ret_extent) {
    check(partition < 4 && max_bytes > 0 && max_bytes <= LIMIT_KAFKA_FETCH_BYTES);
    if (offset < 5 || offset > 1000)
        return DG_ERR_OFFSET_OUT_OF_RANGE;
    if (offset % 7 == 6)
        return DG_ERR_COLD;
    *ret_extent = (struct stream_extent){.fd = -1, .next_offset = offset};
    if (offset == 1000)
        return 0;
    ret_extent->size_bytes = 5000; /* maybe more than was asked for: one batch */
    ret_extent->next_offset = offset + 100 > 1000 ? 1000 : offset + 100;
    ret_extent->hold = &hold;
    extents++;
    return 0;
}

void stream_extent_release(struct stream_extent *extent) {
    check(extent->hold == &hold);
    extent->hold = NULL;
    extents--;
}

void stream_watch(struct stream_watcher *watcher, uint64_t stream_id, uint32_t partition) {
    check(partition < 4);
}

int stream_watcher_create(struct stream *stream, struct mailbox *mailbox,
                          stream_advanced_fn *advanced, void *context,
                          struct stream_watcher **ret_watcher) {
    return DG_ERR_NO_MEMORY;
}

void stream_watcher_free(struct stream_watcher *watcher) {
}

/* Offsets are durable at the end of the turn; every other request is refused for lack of room. */
static stream_done_fn *stored;
static void *stored_context;
static struct stream_ticket tickets[64];
static unsigned ticket_count;

int stream_appender_create(struct stream *stream, struct mailbox *mailbox, stream_done_fn *done,
                           stream_ready_fn *ready, void *context,
                           struct stream_appender **ret_appender) {
    stored = done;
    stored_context = context;
    *ret_appender = (void *)&stored; /* nobody looks into it */
    return 0;
}

void stream_appender_free(struct stream_appender *appender) {
    check(ticket_count == 0);
}

int stream_mutate(struct stream_appender *appender, const struct stream_mutation *mutations,
                  unsigned count, struct stream_ticket ticket) {
    size_t size = 0;
    for (unsigned i = 0; i < count; i++) {
        check(mutations[i].key.size <= LIMIT_MUTATION_KEY_BYTES);
        check(mutations[i].value.size <= LIMIT_MUTATION_VALUE_BYTES);
        size += mutations[i].key.size + mutations[i].value.size + 8;
    }
    check(count > 0 && size <= STREAM_MUTATIONS_BYTES);
    if (ticket_count == sizeof(tickets) / sizeof(tickets[0]))
        return DG_ERR_NO_MEMORY;
    tickets[ticket_count++] = ticket;
    return 0;
}

void stream_appender_turn(struct stream_appender *appender) {
    while (ticket_count > 0) {
        struct stream_ticket ticket = tickets[0];
        memmove(tickets, tickets + 1, --ticket_count * sizeof(tickets[0]));
        stored(stored_context, &ticket, ticket_count % 2 ? DG_ERR_STORAGE_FULL : 0, -1);
    }
}

uint64_t stream_appender_pending(const struct stream_appender *appender) {
    return ticket_count;
}

void stream_visit_state(struct stream *stream, enum stream_namespace name_space,
                        stream_state_fn *visit, void *context) {
}

void worker_add_turn_hook(struct worker *owner, void (*run)(void *context), void *context) {
}

void worker_await_mail(struct worker *owner) {
    mailbox_drain(&owner->mailbox);
}

static const struct registry_tenant tenants[] = {
    {.tenant_key = 1, .stream_id = 3, .partition_count = 4, .name = "acme"},
    {.tenant_key = 2, .stream_id = 9, .partition_count = 4, .name = "beta"},
};

struct registry_login *registry_login_new(enum registry_login_kind kind, struct slice tenant,
                                          struct slice name, struct slice secret) {
    return name.size <= LIMIT_DEVICE_ID_BYTES ? calloc(1, sizeof(struct registry_login)) : NULL;
}

void registry_login_free(struct registry_login *login) {
    free(login);
}

/* Answered at once, which the real one never does: more paths for the price of one. */
void registry_login(struct registry *registry, struct registry_login *login) {
    login->identity = (struct registry_identity){.tenant_key = 1,
                                                 .tenant_stream_id = 3,
                                                 .partition_count = 4,
                                                 .tenant = "acme",
                                                 .roles = REGISTRY_ROLE_CONSUMER};
    login->mail.deliver(&login->mail, &worker);
}

const struct credential_master *registry_master(const struct registry *registry) {
    static const struct credential_master master = {.id = "k1"};
    return &master;
}

void registry_find_tenants(struct registry *registry, struct registry_tenant_query *query) {
    query->tenant_count = query->tenant[0] ? 1 : 2;
    query->tenants = malloc(sizeof(tenants));
    memcpy(query->tenants, tenants, sizeof(tenants));
    query->mail.deliver(&query->mail, &worker);
}

void registry_tenant_query_free(struct registry_tenant_query *query) {
    free(query->tenants);
    free(query);
}

/* ---- the endpoint ---- */

static void prepare(void) {
    kafka.worker = &worker;
    kafka.arena_bytes = malloc(KAFKA_ARENA_SIZE);
    kafka.output_bytes = malloc(KAFKA_OUTPUT_SIZE);
    kafka.gaps = malloc(LIMIT_KAFKA_FETCH_PARTITIONS * sizeof(*kafka.gaps));
    worker.base = event_base_new();
    check(mailbox_init(&worker.mailbox, &worker) == 0);
    worker.slots[WORKER_SLOT_KAFKA] = &kafka;
    worker.config = &config;
    worker.now_ns = 10000000000;
    log_minimum = LOG_LEVEL_ERROR;
    static const struct connection_listener listener = {.name = "kafka"};
    connection = (struct connection){.worker = &worker, .listener = &listener};
}

/* A session that waits for a group: mail travels, offsets become durable, time passes. */
static void let_groups_answer(struct kafka_session *s) {
    for (unsigned i = 0; i < 100 && !closed && s->gather; i++) {
        while (mailbox_drain(&worker.mailbox) > 0)
            ;
        stream_appender_turn(NULL);
        while (mailbox_drain(&worker.mailbox) > 0)
            ;
        worker.now_ns += 31ull * 1000000000;
        kafka_groups_tick(&kafka);
    }
    check(closed || !s->gather);
}

static void fuzz_connection(int kind, const uint8_t *data, size_t size) {
    static struct worker *workers[] = {&worker};
    closed = false;
    check(kafka_protocol.open(&connection) == 0);
    check(kafka_groups_start(&worker, workers, 1) == 0);
    struct kafka_session *s = connection.session;
    if (kind > 1) {
        s->state = KAFKA_STATE_READY;
        s->identity.roles = kind == 2 ? REGISTRY_ROLE_CONSUMER : REGISTRY_ROLE_ADMIN;
        s->tenants_known = true;
        s->tenant_count = kind - 1u;
        s->tenants = malloc(sizeof(tenants));
        memcpy(s->tenants, tenants, sizeof(tenants));
    }
    for (bool again = false; size > 0;) {
        ssize_t used = kafka_protocol.receive(&connection, data, size);
        check(used <= (ssize_t)size && extents == 0);
        if (used < 0 || (used == 0 && again))
            break;
        let_groups_answer(s);
        again = used == 0 && !s->parked; /* it asked the registry, or it wants more bytes */
        if (s->parked) {                 /* time passes */
            worker.now_ns += 31ull * 1000000000;
            kafka_resume(s);
        }
        data += used;
        size -= (size_t)used;
    }
    kafka_protocol.closed(&connection, DG_ERR_CLOSED);
    kafka_groups_free(&kafka);
    while (mailbox_drain(&worker.mailbox) > 0)
        ;
    check(!kafka.sessions && !kafka.waits.lists);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0)
        return 0;
    if (!kafka.worker)
        prepare();
    uint8_t *exact = malloc(size > 1 ? size - 1 : 1);
    memcpy(exact, data + 1, size - 1);
    if (data[0] % 4 == 0)
        fuzz_codec(exact, size - 1);
    else
        fuzz_connection(data[0] % 4, exact, size - 1);
    free(exact);
    return 0;
}
