/*
 * All threads of the engine at once: two workers that append to the same partitions, committer,
 * placer, checkpointer, warm pool, a reader with a watcher, and one that asks about everything. A
 * small journal, small segments, retention and hardly any descriptors make checkpoints, rolls,
 * removals and syncs frequent. Every worker's records are read in their order, none twice. A plain
 * program, so that it runs under ThreadSanitizer.
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/local/engine.h"
#include "storage/local/walk.h"
#include "storage/record.h"
#include "support.h"

enum { WORKERS = 2, PARTITIONS = 6, STREAM_ID = 7, RECORDS = 40000, OPEN_MAX = 3 };

static void fail(const char *what) {
    fprintf(stderr, "storage_race: %s\n", what);
    exit(1);
}

static void wait_for_mail(struct mailbox *mailbox) {
    struct pollfd wait = {.fd = mailbox_fd(mailbox), .events = POLLIN};
    poll(&wait, 1, 20);
    mailbox_drain(mailbox);
}

/* ---- workers ------------------------------------------------------------------------------------
 */

struct worker {
    struct stream *stream;
    uint32_t index;
    struct mailbox mailbox;
    struct stream_appender *appender;
    uint64_t acked;
    uint64_t next_of[PARTITIONS];
    int64_t last_offset[PARTITIONS];
};

struct value {
    uint32_t worker;
    uint32_t padding;
    uint64_t number; /* of the worker in this partition */
};

static void on_done(void *context, const struct stream_ticket *ticket, int err, int64_t offset) {
    struct worker *worker = context;
    struct stream_offsets offsets;
    stream_offsets(worker->stream, STREAM_ID, (uint32_t)ticket->tag, &offsets);
    if (err < 0 || offset <= worker->last_offset[ticket->tag])
        fail("a ticket came back wrong");
    if (offset >= offsets.durable_end)
        fail("acknowledged before it can be read");
    worker->last_offset[ticket->tag] = offset;
    worker->acked++;
}

static void on_ready(void *context) {
}

static void append_one(struct worker *worker, unsigned i) {
    static const uint8_t padding[30000];
    uint32_t partition = i * 7 / 3 % PARTITIONS;
    struct value value = {.worker = worker->index,
                          .padding = i % 50 == 0 ? (uint32_t)sizeof(padding) : i % 300,
                          .number = worker->next_of[partition]++};
    uint8_t bytes[sizeof(value) + sizeof(padding)];
    memcpy(bytes, &value, sizeof(value));
    memcpy(bytes + sizeof(value), padding, value.padding);
    struct stream_record record = {.timestamp_ms = 1000 + i,
                                   .value = slice_make(bytes, sizeof(value) + value.padding)};
    int err;
    while ((err = stream_append(worker->appender, STREAM_ID, partition, &record,
                                (struct stream_ticket){.owner = 1, .tag = partition})) ==
           DG_ERR_PRESSURE)
        wait_for_mail(&worker->mailbox);
    if (err < 0)
        fail("cannot append");
}

static void *run_worker(void *context) {
    struct worker *worker = context;
    for (unsigned i = 0; i < PARTITIONS; i++)
        worker->last_offset[i] = -1;
    if (mailbox_init(&worker->mailbox, worker) < 0 ||
        stream_appender_create(worker->stream, &worker->mailbox, on_done, on_ready, worker,
                               &worker->appender) < 0)
        fail("no appender");
    for (unsigned i = 0; i < RECORDS; i++) {
        append_one(worker, i);
        if (i % 100 == 0) {
            mailbox_drain(&worker->mailbox);
            stream_appender_turn(worker->appender);
        }
        if (i % 5000 == 0)
            usleep(3000); /* the committer falls asleep now and then */
    }
    while (stream_appender_pending(worker->appender) > 0) {
        stream_appender_turn(worker->appender);
        wait_for_mail(&worker->mailbox);
    }
    if (worker->acked != RECORDS)
        fail("a ticket is missing");
    stream_appender_free(worker->appender);
    return NULL;
}

/* ---- reader -------------------------------------------------------------------------------------
 */

struct place {
    int64_t offset;
    int64_t last_ms;
    uint64_t next_of[WORKERS];
    bool has_skipped; /* retention was faster */
};

struct reader_thread {
    struct stream *stream;
    struct mailbox mailbox;
    struct stream_watcher *watcher;
    struct place places[PARTITIONS];
    uint32_t look_ups;
};

static atomic_bool is_done;

static void on_advanced(void *context, uint64_t stream_id, uint32_t partition) {
    struct reader_thread *reader = context;
    stream_watch(reader->watcher, stream_id, partition);
}

static void check_value(struct place *place, const struct record *record) {
    struct value value;
    if (record->value.size < sizeof(value))
        fail("a record is short");
    memcpy(&value, record->value.data, sizeof(value));
    if (record->offset < place->offset)
        return; /* of a batch that begins before */
    if (record->offset != place->offset++ || record->timestamp_ms < place->last_ms ||
        value.worker >= WORKERS || value.padding + sizeof(value) != record->value.size)
        fail("a record is out of place");
    uint64_t *next = &place->next_of[value.worker];
    if (place->has_skipped ? value.number < *next : value.number != *next)
        fail("a worker's records are out of order");
    *next = value.number + 1;
    place->last_ms = record->timestamp_ms;
}

static void check_batches(struct place *place, const uint8_t *bytes, size_t size) {
    struct reader r = reader_make(bytes, size);
    while (reader_left(&r) > 0) {
        struct record_batch batch;
        struct record record;
        if (record_batch_read(&r, true, &batch) < 0)
            fail("a batch is not valid");
        struct reader records = reader_make(batch.records.data, batch.records.size);
        for (uint32_t i = 0; i < batch.record_count; i++) {
            if (record_read(&batch, &records, &record) < 0)
                fail("a record is not valid");
            check_value(place, &record);
        }
    }
}

static void check_extent(struct place *place, const struct stream_extent *extent) {
    uint8_t *bytes = extent->memory ? NULL : malloc(extent->size_bytes);
    if (bytes && pread(extent->fd, bytes, extent->size_bytes, (off_t)extent->position) !=
                     (ssize_t)extent->size_bytes)
        fail("cannot read a segment");
    check_batches(place, bytes ? bytes : extent->memory, extent->size_bytes);
    free(bytes);
    if (place->offset != extent->next_offset)
        fail("an extent does not end where it says");
}

static void skip_to_start(struct reader_thread *reader, uint32_t partition) {
    struct stream_offsets offsets;
    stream_offsets(reader->stream, STREAM_ID, partition, &offsets);
    if (reader->places[partition].offset > offsets.log_start)
        fail("out of range behind the log start");
    reader->places[partition].offset = offsets.log_start;
    reader->places[partition].has_skipped = true;
}

/* As a consumer that begins by time; here the answer is only looked at. */
static void look_up(struct reader_thread *reader, uint32_t partition) {
    int64_t offset, found_ms, wanted_ms = 1000 + reader->places[partition].offset % RECORDS;
    int err = stream_find_time(reader->stream, STREAM_ID, partition, wanted_ms, reader->watcher,
                               &offset, &found_ms);
    if (err == 0 && found_ms < wanted_ms)
        fail("found too early");
    if (err < 0 && err != DG_ERR_COLD && err != DG_ERR_NOT_FOUND &&
        err != DG_ERR_OFFSET_OUT_OF_RANGE)
        fail(dg_err_text(err));
}

/* True when something was read. */
static bool read_some(struct reader_thread *reader, uint32_t partition) {
    struct place *place = &reader->places[partition];
    struct stream_extent extent;
    int err = stream_read(reader->stream, STREAM_ID, partition, place->offset, 64 * 1024,
                          reader->watcher, &extent);
    if (err == DG_ERR_COLD)
        return false;
    if (err == DG_ERR_OFFSET_OUT_OF_RANGE) {
        skip_to_start(reader, partition);
        return true;
    }
    if (err < 0)
        fail(dg_err_text(err));
    bool found = extent.size_bytes > 0;
    if (found)
        check_extent(place, &extent);
    stream_extent_release(&extent);
    return found;
}

static void *run_reader(void *context) {
    struct reader_thread *reader = context;
    if (mailbox_init(&reader->mailbox, reader) < 0 ||
        stream_watcher_create(reader->stream, &reader->mailbox, on_advanced, reader,
                              &reader->watcher) < 0)
        fail("no watcher");
    for (uint32_t i = 0; i < PARTITIONS; i++)
        stream_watch(reader->watcher, STREAM_ID, i);
    for (bool stopping = false, found = true; !stopping || found;) {
        stopping = atomic_load(&is_done);
        found = false;
        for (uint32_t i = 0; i < PARTITIONS; i++)
            found = read_some(reader, i) || found;
        look_up(reader, reader->look_ups++ % PARTITIONS);
        if (!found)
            wait_for_mail(&reader->mailbox);
    }
    stream_watcher_free(reader->watcher);
    return NULL;
}

/* ---- questions ----------------------------------------------------------------------------------
 */

static void count_partition(void *context, uint64_t stream_id, uint32_t partition,
                            const struct stream_offsets *offsets) {
    unsigned *count = context;
    (*count)++;
}

static void *run_questions(void *context) {
    struct test_store *store = context;
    for (int64_t ms = 1000; !atomic_load(&is_done); ms += 997) {
        struct stream_health health;
        unsigned count = 0;
        int64_t offset, found_ms;
        uint32_t partition = (uint32_t)ms % PARTITIONS;
        stream_health(store->stream, &health);
        stream_visit_partitions(store->stream, count_partition, &count);
        int err = stream_find_time(store->stream, STREAM_ID, partition, 1000 + ms % RECORDS, NULL,
                                   &offset, &found_ms);
        if (err == 0 && found_ms < 1000 + ms % RECORDS)
            fail("found too early");
        err = stream_find_last(store->stream, STREAM_ID, partition, &offset, &found_ms);
        if (err < 0 && err != DG_ERR_NOT_FOUND)
            fail("the last record is not there");
        store->options.retention_bytes = 800 * 1024 + (uint64_t)ms % 3 * 100000;
        stream_reconfigure(store->stream, &store->options);
        walk_forget_indexes(store->stream, 0);
        usleep(2000);
    }
    return NULL;
}

int main(void) {
    static struct test_store store;
    static struct worker workers[WORKERS];
    static struct reader_thread reader;
    pthread_t worker_threads[WORKERS], reader_thread, question_thread;
    test_store_init(&store);
    store.options.segment_size_bytes = 256 * 1024;
    store.options.retention_bytes = 1024 * 1024;
    if (test_store_open(&store) < 0)
        fail(store.error);
    store.stream->files.open_max = OPEN_MAX;
    for (uint32_t i = 0; i < WORKERS; i++) {
        workers[i].stream = store.stream;
        workers[i].index = i;
        pthread_create(&worker_threads[i], NULL, run_worker, &workers[i]);
    }
    reader.stream = store.stream;
    pthread_create(&reader_thread, NULL, run_reader, &reader);
    pthread_create(&question_thread, NULL, run_questions, &store);
    for (uint32_t i = 0; i < WORKERS; i++)
        pthread_join(worker_threads[i], NULL);
    atomic_store(&is_done, true);
    pthread_join(reader_thread, NULL);
    pthread_join(question_thread, NULL);
    test_store_close(&store);
    for (uint32_t i = 0; i < WORKERS; i++) {
        mailbox_drain(&workers[i].mailbox);
        mailbox_free(&workers[i].mailbox);
    }
    mailbox_drain(&reader.mailbox);
    mailbox_free(&reader.mailbox);
    test_store_remove(&store);
    return 0;
}
