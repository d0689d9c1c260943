/* Sessions of before the start. Behind them a store that is a list of entries, below; the workers
 * have no threads. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "common/mailbox.h"
#include "gateway/mqtt/endpoint.h"
#include "gateway/session/claims.h"
#include "leaks.h"

TestSuite(restore, .fini = check_leaks);

enum { WORKERS = 2, ENTRIES = 1000, NOW_MS = 1000000 };

/* ---- the store ---- */

struct entry {
    uint8_t name_space;
    uint8_t key[64], value[256];
    size_t key_size, value_size;
};

static struct {
    struct entry entries[ENTRIES];
    unsigned count, pending, changes;

    int err;
    int32_t epoch;
} store;

struct stream_appender {
    stream_done_fn *done;
    void *context;
};

static struct entry *find(const struct stream_mutation *m) {
    for (unsigned i = 0; i < store.count; i++) {
        struct entry *entry = &store.entries[i];
        if (entry->name_space == m->name_space && entry->key_size == m->key.size &&
            memcmp(entry->key, m->key.data, m->key.size) == 0)
            return entry;
    }
    return NULL;
}

static void apply(const struct stream_mutation *m) {
    struct entry *entry = find(m);
    if (m->is_delete) {
        if (entry)
            *entry = store.entries[--store.count];
        return;
    }
    if (!entry)
        entry = &store.entries[store.count++];
    cr_assert_leq(store.count, ENTRIES);
    *entry = (struct entry){
        .name_space = m->name_space, .key_size = m->key.size, .value_size = m->value.size};
    memcpy(entry->key, m->key.data, m->key.size);
    memcpy(entry->value, m->value.data, m->value.size);
}

int stream_appender_create(struct stream *stream, struct mailbox *mailbox, stream_done_fn *done,
                           stream_ready_fn *ready, void *context,
                           struct stream_appender **ret_appender) {
    struct stream_appender *appender = malloc(sizeof(*appender));
    *appender = (struct stream_appender){done, context};
    *ret_appender = appender;
    return 0;
}

void stream_appender_free(struct stream_appender *appender) {
    cr_assert_eq(store.pending, 0);
    free(appender);
}

uint64_t stream_appender_pending(const struct stream_appender *appender) {
    return store.pending;
}

int stream_mutate(struct stream_appender *appender, const struct stream_mutation *mutations,
                  unsigned count, struct stream_ticket ticket) {
    if (store.pending == 3)
        return DG_ERR_PRESSURE;
    cr_assert_eq(count, 1);
    if (store.err == 0)
        apply(mutations);
    store.changes++;
    store.pending++;
    return 0;
}

void stream_appender_turn(struct stream_appender *appender) {
    for (; store.pending > 0; store.pending--)
        appender->done(appender->context, &(struct stream_ticket){0}, store.err, -1);
}

int stream_append_with(struct stream_appender *appender, uint64_t stream_id, uint32_t partition,
                       const struct stream_record *record, const struct stream_mutation *mutations,
                       unsigned count, struct stream_ticket ticket) {
    return DG_ERR_INTERNAL;
}

int stream_find_state(struct stream *stream, enum stream_namespace name_space, struct slice key,
                      void *ret_value, size_t room) {
    return DG_ERR_NOT_FOUND;
}

int32_t stream_epoch(const struct stream *stream) {
    return store.epoch;
}

void stream_extent_release(struct stream_extent *extent) {
}

void stream_visit_state(struct stream *stream, enum stream_namespace name_space,
                        stream_state_fn *visit, void *context) {
    for (unsigned i = 0; i < store.count; i++) {
        struct entry *entry = &store.entries[i];
        if (entry->name_space == name_space)
            visit(context, slice_make(entry->key, entry->key_size),
                  slice_make(entry->value, entry->value_size));
    }
}

/* ---- what was there ---- */

static void put_session(int64_t device, uint64_t epoch, int64_t disconnected_ms,
                        uint32_t expiry_s) {
    struct session_kept kept = {.epoch = epoch,
                                .stream_epoch = 3,
                                .disconnected_ms = disconnected_ms,
                                .expiry_s = expiry_s};
    struct kept_bytes bytes;
    struct stream_mutation mutation = kept_mutation(&kept, NULL, device, &bytes);
    apply(&mutation);
}

static void put_identity(int64_t device, uint64_t epoch, uint16_t packet_id) {
    uint8_t key[KEPT_IDENTITY_KEY_BYTES];
    struct stream_mutation mutation = kept_identity_mutation(device, epoch, packet_id, false, key);
    apply(&mutation);
}

static void put_sequence(int64_t device, const char *text, int32_t stream_epoch) {
    struct producer *list = NULL;
    struct producer_sequence sequence;
    struct producers_change change;
    const struct producers_context context = {device, stream_epoch, NOW_MS};
    cr_assert_eq(producer_sequence_parse(slice_from_string(text), &sequence), 0);
    cr_assert_eq(producers_prepare(&list, &sequence, &context, &change), 0);
    apply(&change.mutations[0]);
    producers_cancel(&list);
}

static unsigned count_in(enum stream_namespace name_space) {
    unsigned count = 0;
    for (unsigned i = 0; i < store.count; i++)
        count += store.entries[i].name_space == name_space;
    return count;
}

/* ---- the workers ---- */

static struct worker worker_of[WORKERS];
static struct worker *workers[WORKERS];
static struct claim *held;

static void on_settled(void *context, uint64_t owner, struct claim *claim, int err) {
    held = claim;
}
static void on_evict(void *context, uint64_t owner, const struct in6_addr *peer_address,
                     uint16_t peer_port) {
}
static void on_expired(void *context, struct claim *claim) {
}

static void begin(void) {
    memset(&store, 0, sizeof(store));
    store.epoch = 3;
    for (unsigned i = 0; i < WORKERS; i++) {
        static const struct claims_receiver receiver = {on_settled, on_evict, on_expired, NULL};
        workers[i] = &worker_of[i];
        *workers[i] = (struct worker){.index = i};
        cr_assert_eq(mailbox_init(&workers[i]->mailbox, workers[i]), 0);
        cr_assert_eq(claims_set_receiver(workers[i], &receiver), 0);
        cr_assert_eq(claims_worker_start(workers[i], workers, WORKERS), 0);
    }
}

static int restore_at(int64_t wall_ms) {
    int err = mqtt_restore_sessions(NULL, workers, WORKERS, wall_ms);
    return err < 0 ? err : mqtt_restore_producers(NULL, workers, WORKERS);
}

static void end(void) {
    for (unsigned i = 0; i < WORKERS; i++) {
        claims_worker_free(workers[i]);
        mailbox_free(&workers[i]->mailbox);
    }
}

static const char *const sequences[] = {"p:1:1", "q:1:1", "r:1:1"};
static bool known[3]; /* of who was taken last */

static bool knows(const struct producer *list, unsigned number) {
    struct producer_sequence sequence;
    cr_assert_eq(producer_sequence_parse(slice_from_string(sequences[number]), &sequence), 0);
    return producers_judge(list, &sequence, NOW_MS) == PRODUCERS_STORED;
}

/* The session that a connection of the device would get, which is taken out; its producers stay. */
static struct session_kept *take(int64_t device) {
    static const struct in6_addr any;
    unsigned home = claims_home(device, WORKERS);
    held = NULL;
    cr_assert_eq(claims_ask(workers[home], device, 1, &any, 1), 0);
    cr_assert_not_null(held);
    struct session_kept *kept = held->kept;
    held->kept = NULL;
    for (unsigned i = 0; i < 3; i++)
        known[i] = knows(held->producers, i);
    claims_release(workers[home], held);
    return kept;
}

Test(restore, producers_with_and_without_a_session) {
    begin();
    for (int64_t device = 1; device <= 100; device++) {
        if (device % 2)
            put_session(device, 5, NOW_MS - 1000, 60);
        put_sequence(device, "p:1:1", 3);
        put_sequence(device, "q:1:1", 3);
        put_sequence(device, "r:1:1", 2); /* an earlier epoch of the stream */
    }
    store.entries[store.count - 3].value[0] = 9; /* p of the last: the layout of a later release */
    cr_assert_eq(restore_at(NOW_MS), 0);
    cr_assert_eq(store.changes, 0);
    for (int64_t device = 1; device <= 100; device++) {
        struct session_kept *kept = take(device);
        cr_assert_eq(kept != NULL, device % 2 != 0);
        cr_assert(known[0] == (device < 100) && known[1] && !known[2]);
        kept_free(kept);
    }
    end();
}

Test(restore, nothing_to_change_writes_nothing) {
    begin();
    for (int64_t device = 1; device <= 100; device++) {
        put_session(device, 5, NOW_MS - 1000, 60);
        put_identity(device, 5, (uint16_t)device);
    }
    cr_assert_eq(restore_at(NOW_MS), 0);
    cr_assert_eq(store.changes, 0);
    for (int64_t device = 1; device <= 100; device++) {
        struct session_kept *kept = take(device);
        cr_assert_eq(kept->disconnected_ms, NOW_MS - 1000);
        cr_assert_eq(identities_get(kept->identities, (uint16_t)device), IDENTITY_STORED);
        cr_assert_eq(identities_count(kept->identities), 1);
        kept_free(kept);
    }
    end();
}

/* Whose will is due when. */
static void put_will(int64_t device, int64_t disconnected_ms, uint32_t expiry_s, uint32_t delay_s) {
    struct will_content content = {.delay_s = delay_s, .topic = slice_from_string("t")};
    struct session_kept kept = {
        .epoch = 5, .stream_epoch = 3, .disconnected_ms = disconnected_ms, .expiry_s = expiry_s};
    struct session_will *will;
    struct kept_bytes bytes;
    cr_assert_eq(will_create(&content, &will), 0);
    struct stream_mutation mutation = kept_mutation(&kept, will, device, &bytes);
    apply(&mutation);
    free(will);
}

Test(restore, wills_are_due_after_their_delay_or_with_their_session) {
    static const struct {
        int64_t disconnected_ms, due_ms;
        uint32_t expiry_s, delay_s;
    } rows[] = {
        {NOW_MS - 1000, NOW_MS + 9000, 60, 10},
        {NOW_MS - 20000, NOW_MS - 10000, 60, 10},
        {0, NOW_MS + 10000, 60, 10},
        {0, NOW_MS, 60, 0},
        {0, NOW_MS, 0, 10}, /* was to end with its connection */
        {NOW_MS - 20000, NOW_MS - 15000, 5, 10},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        begin();
        put_will(7, rows[i].disconnected_ms, rows[i].expiry_s, rows[i].delay_s);
        unsigned home = claims_home(7, WORKERS);
        for (unsigned start = 0; start < 2; start++) {
            cr_assert_eq(restore_at(NOW_MS), 0);
            cr_assert_eq(store.count, 1);
            cr_assert_null(claims_next_will(workers[home], rows[i].due_ms - 1), "%u", i);
            cr_assert_not_null(claims_next_will(workers[home], rows[i].due_ms), "%u", i);
            struct session_kept *kept = take(7);
            cr_assert(kept && kept->will);
            kept_free(kept);
        }
        end();
    }
}

Test(restore, a_stream_whose_end_was_taken_back_has_no_wills) {
    begin();
    put_will(7, NOW_MS - 1000, 60, 10);
    store.epoch = 4;
    cr_assert_eq(restore_at(NOW_MS), 0);
    cr_assert_eq(store.count, 0);
    cr_assert_null(take(7));
    end();
}

/* However often it is started again, the time without a connection goes on. */
Test(restore, who_was_connected_is_disconnected_since_the_first_start) {
    begin();
    put_session(7, 5, 0, 60);
    for (int64_t wall_ms = NOW_MS; wall_ms < NOW_MS + 60000; wall_ms += 20000) {
        cr_assert_eq(restore_at(wall_ms), 0);
        struct session_kept *kept = take(7);
        cr_assert_eq(kept->disconnected_ms, NOW_MS);
        kept_free(kept);
        cr_assert_eq(store.changes, 1);
    }
    cr_assert_eq(restore_at(NOW_MS + 60000), 0);
    cr_assert_null(take(7));
    cr_assert_eq(store.count, 0);
    end();
}

Test(restore, what_belongs_to_no_session_is_deleted) {
    begin();
    put_session(1, 5, NOW_MS - 1000, 60);
    put_identity(1, 5, 10);
    put_identity(1, 4, 11); /* of the one before */
    put_session(2, 6, NOW_MS - 60000, 60);
    put_session(3, 6, 0, 0); /* was to end with its connection */
    for (uint16_t packet_id = 1; packet_id <= 20; packet_id++)
        put_identity(2, 6, packet_id);
    put_identity(4, 6, 1);
    cr_assert_eq(restore_at(NOW_MS), 0);
    cr_assert_eq(count_in(STREAM_STATE_SESSION), 1);
    cr_assert_eq(count_in(STREAM_STATE_QOS2), 1);
    struct session_kept *kept = take(1);
    cr_assert_eq(identities_get(kept->identities, 10), IDENTITY_STORED);
    cr_assert_eq(identities_get(kept->identities, 11), IDENTITY_UNKNOWN);
    kept_free(kept);
    for (int64_t device = 2; device <= 4; device++)
        cr_assert_null(take(device));
    end();
}

/* The device may have been told more than a store that went back knows. */
Test(restore, a_stream_whose_end_was_taken_back_has_no_sessions) {
    begin();
    put_session(1, 5, NOW_MS - 1000, 60);
    put_identity(1, 5, 10);
    store.epoch = 4;
    cr_assert_eq(restore_at(NOW_MS), 0);
    cr_assert_eq(store.count, 0);
    cr_assert_null(take(1));
    end();
}

Test(restore, what_cannot_be_read_is_left_alone) {
    begin();
    put_session(1, 5, NOW_MS - 1000, 60);
    put_session(2, 5, NOW_MS - 1000, 60);
    store.entries[0].value[0] = 9; /* the layout of a later release */
    cr_assert_eq(restore_at(NOW_MS), 0);
    cr_assert_eq(store.count, 2);
    cr_assert_null(take(1));
    kept_free(take(2));
    end();
}

Test(restore, a_store_without_room_is_no_reason_not_to_start) {
    begin();
    put_session(1, 5, 0, 60);
    store.err = DG_ERR_STORAGE_FULL;
    cr_assert_eq(restore_at(NOW_MS), 0);
    struct session_kept *kept = take(1);
    cr_assert_eq(kept->disconnected_ms, NOW_MS);
    kept_free(kept);
    end();
}
