/*
 * Appenders: one per worker. Open batches per (stream, partition), handed over as units when the
 * committer is free, or when enough has gathered for a group of good size (protocol clause 3).
 * Everything but the mail is the worker's alone. Formats: batch.c, journal.c.
 */
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/metrics.h"
#include "storage/local/engine.h"
#include "storage/record.h"

enum {
    SUBMIT_BYTES = 1024 * 1024, /* hand over even if the committer is busy: a good group */
    FREE_UNITS_MAX = 256,
    COMPRESS_MIN_BYTES = 256, /* below it nothing is gained */
};

/* What the worker appends to now, or did before. */
struct open_partition {
    UT_hash_handle hh;
    struct partition_key key;
    struct partition *partition;
    struct unit *unit;  /* NULL: nothing open */
    uint32_t size_hint; /* of its last batch */
    bool is_listed;
    struct open_partition *next; /* with something open, in order of first append */
};

struct stream_appender {
    struct committer_waiter waiter;
    struct stream *stream;
    struct mailbox *mailbox;
    stream_done_fn *done;
    stream_ready_fn *ready;
    void *context;
    struct compressor *compressor; /* NULL until something is to be compressed */
    struct open_partition *partitions;
    struct open_partition *open_first, *open_last;
    struct unit *state;                  /* open, of mutations alone; NULL: none */
    struct unit *full_first, *full_last; /* sealed, not handed over yet */
    struct unit *free_units;
    unsigned free_count;
    uint64_t open_bytes;    /* not handed over */
    uint64_t charged_bytes; /* not handed over or in flight */
    uint64_t pending_count;
    bool is_waiting; /* for the committer's mail */
    bool wants_ready;
    bool is_dead;
};

/* ---- units --------------------------------------------------------------------------------------
 */

static void unit_free(struct unit *unit) {
    chunk_release(unit->batch.chunk);
    free(unit->tickets);
    free(unit->mutations);
    free(unit->offsets);
    free(unit);
}

static void unit_put_back(struct stream_appender *appender, struct unit *unit) {
    chunk_release(unit->batch.chunk);
    unit->batch = (struct batch){0};
    if (appender->free_count == FREE_UNITS_MAX) {
        unit_free(unit);
        return;
    }
    unit->next = appender->free_units;
    appender->free_units = unit;
    appender->free_count++;
}

/* On the worker's thread: the unit is durable or refused. */
static void deliver_unit(struct mail *mail, void *receiver) {
    struct unit *unit = (struct unit *)(void *)((char *)mail - offsetof(struct unit, mail));
    struct stream_appender *appender = unit->appender;
    uint32_t count = unit->ticket_count;
    appender->charged_bytes -= unit->charged_bytes;
    appender->pending_count -= count;
    for (uint32_t i = 0; i < count; i++)
        appender->done(appender->context, &unit->tickets[i], unit->err,
                       unit->err == 0 && unit->partition ? unit->base_offset + i : -1);
    unit_put_back(appender, unit);
    if (appender->wants_ready && appender->charged_bytes <= LIMIT_APPENDER_BYTES / 2) {
        appender->wants_ready = false;
        appender->ready(appender->context);
    }
}

/* On the committer's thread. */
static void complete_unit(struct unit *unit) {
    mailbox_post(unit->appender->mailbox, &unit->mail);
}

/* partition NULL: for mutations alone. */
static struct unit *unit_take(struct stream_appender *appender, struct partition *partition) {
    struct unit *unit = appender->free_units;
    if (unit) {
        appender->free_units = unit->next;
        appender->free_count--;
    } else if (!(unit = calloc(1, sizeof(*unit)))) {
        return NULL;
    }
    unit->next = NULL;
    unit->mail.deliver = deliver_unit;
    unit->appender = appender;
    unit->complete = complete_unit;
    unit->stream_id = partition ? partition->key.stream_id : 0;
    unit->partition_number = partition ? partition->key.number : 0;
    unit->partition = partition;
    unit->ticket_count = 0;
    unit->mutation_count = unit->mutation_bytes = unit->offset_count = 0;
    unit->charged_bytes = 0;
    return unit;
}

static int reserve_ticket(struct unit *unit) {
    if (unit->ticket_count < unit->ticket_capacity)
        return 0;
    uint32_t capacity = unit->ticket_capacity ? unit->ticket_capacity * 2 : 32;
    struct stream_ticket *tickets = realloc(unit->tickets, capacity * sizeof(*tickets));
    if (!tickets)
        return DG_ERR_NO_MEMORY;
    unit->tickets = tickets;
    unit->ticket_capacity = capacity;
    return 0;
}

/* ---- open batches -------------------------------------------------------------------------------
 */

static struct open_partition *partition_entry(struct stream_appender *appender, uint64_t stream_id,
                                              uint32_t number) {
    struct partition_key key = {.stream_id = stream_id, .number = number};
    struct open_partition *entry;
    HASH_FIND(hh, appender->partitions, &key, sizeof(key), entry);
    if (entry)
        return entry;
    struct partition *partition =
        partition_obtain(&appender->stream->partitions, stream_id, number);
    if (!partition || !(entry = calloc(1, sizeof(*entry))))
        return NULL;
    entry->key = key;
    entry->partition = partition;
    HASH_ADD(hh, appender->partitions, key, sizeof(key), entry);
    return entry;
}

/* Opens a unit for the partition if none is open. */
static int open_unit(struct stream_appender *appender, struct open_partition *entry) {
    if (entry->unit)
        return 0;
    entry->unit = unit_take(appender, entry->partition);
    if (!entry->unit)
        return DG_ERR_NO_MEMORY;
    if (entry->is_listed)
        return 0;
    entry->is_listed = true;
    entry->next = NULL;
    *(appender->open_last ? &appender->open_last->next : &appender->open_first) = entry;
    appender->open_last = entry;
    return 0;
}

/* The unit waits to be handed over, unless its first append failed. */
static void queue_unit(struct stream_appender *appender, struct unit *unit) {
    if (unit->ticket_count == 0) {
        unit_put_back(appender, unit);
        return;
    }
    unit->next = NULL;
    *(appender->full_last ? &appender->full_last->next : &appender->full_first) = unit;
    appender->full_last = unit;
}

/* Here, not on the committer's thread: workers compress beside each other, and who waits for a
 * group that is being written waits for no compression. */
static void compress(struct stream_appender *appender, struct batch *batch) {
    enum compression codec = atomic_load_explicit(&appender->stream->codec, memory_order_relaxed);
    if (codec == COMPRESSION_NONE || batch->size_bytes < COMPRESS_MIN_BYTES)
        return;
    if (!appender->compressor && !(appender->compressor = compressor_create()))
        return;
    metric_add(METRIC_COMPRESSION_IN_BYTES, batch->size_bytes);
    batch_compress(batch, &appender->stream->chunks, appender->compressor, codec);
    metric_add(METRIC_COMPRESSION_OUT_BYTES, batch->size_bytes);
}

static void close_unit(struct stream_appender *appender, struct open_partition *entry) {
    struct unit *unit = entry->unit;
    entry->unit = NULL;
    if (unit->batch.record_count > 0) {
        entry->size_hint = unit->batch.size_bytes;
        compress(appender, &unit->batch);
        batch_seal(&unit->batch);
    }
    queue_unit(appender, unit);
}

static void close_all(struct stream_appender *appender) {
    struct open_partition *entry = appender->open_first;
    appender->open_first = appender->open_last = NULL;
    for (; entry; entry = entry->next) {
        entry->is_listed = false;
        if (entry->unit)
            close_unit(appender, entry);
    }
    if (appender->state)
        queue_unit(appender, appender->state);
    appender->state = NULL;
}

static void submit_all(struct stream_appender *appender) {
    close_all(appender);
    appender->open_bytes = 0;
    if (!appender->full_first)
        return;
    bool taken = committer_submit(&appender->stream->committer, appender->full_first,
                                  appender->full_last, &appender->waiter);
    dg_assert(taken); /* appenders are freed before the stream is closed */
    appender->full_first = appender->full_last = NULL;
}

void stream_appender_turn(struct stream_appender *appender) {
    if (!appender->open_first && !appender->full_first && !appender->state)
        return;
    if (appender->open_bytes < SUBMIT_BYTES) {
        if (appender->is_waiting)
            return;
        if (!committer_is_free_or_wait(&appender->stream->committer, &appender->waiter)) {
            appender->is_waiting = true;
            return;
        }
    }
    submit_all(appender);
}

/* ---- mutations ----------------------------------------------------------------------------------
 */

/* Bytes in a unit; UINT64_MAX: one of them is over its limit. */
static uint64_t mutations_size(const struct stream_mutation *mutations, unsigned count) {
    uint64_t size = 0;
    for (unsigned i = 0; i < count; i++) {
        if (mutations[i].key.size > LIMIT_MUTATION_KEY_BYTES ||
            mutations[i].value.size > LIMIT_MUTATION_VALUE_BYTES)
            return UINT64_MAX;
        dg_assert(!mutations[i].takes_offset || mutations[i].value.size >= sizeof(int64_t));
        size += mutation_size(&mutations[i]);
    }
    return size;
}

/* Room for so many bytes of so many mutations more. */
static int reserve_mutations(struct unit *unit, uint32_t size, unsigned count) {
    if (unit->offset_count + count > unit->offset_capacity) {
        uint32_t capacity = 2 * (unit->offset_count + count);
        struct unit_offset *offsets = realloc(unit->offsets, capacity * sizeof(*offsets));
        if (!offsets)
            return DG_ERR_NO_MEMORY;
        unit->offsets = offsets;
        unit->offset_capacity = capacity;
    }
    uint32_t needed = unit->mutation_bytes + size;
    if (needed <= unit->mutation_capacity)
        return 0;
    uint32_t capacity = needed > 2 * unit->mutation_capacity ? needed : 2 * unit->mutation_capacity;
    uint8_t *bytes = realloc(unit->mutations, capacity);
    if (!bytes)
        return DG_ERR_NO_MEMORY;
    unit->mutations = bytes;
    unit->mutation_capacity = capacity;
    return 0;
}

/* After reserve_mutations(). record: of the unit, whose offset some of them take. */
static void put_mutations(struct unit *unit, const struct stream_mutation *mutations,
                          unsigned count, uint32_t record) {
    struct writer w = writer_make(unit->mutations, unit->mutation_capacity);
    w.at += unit->mutation_bytes;
    for (unsigned i = 0; i < count; i++) {
        mutation_write(&w, &mutations[i]);
        uint32_t end = (uint32_t)writer_size(&w);
        if (mutations[i].takes_offset)
            unit->offsets[unit->offset_count++] = (struct unit_offset){
                .value_at = end - (uint32_t)mutations[i].value.size, .record = record};
        unit->mutation_bytes = end;
    }
    unit->mutation_count += count;
}

static void charge(struct stream_appender *appender, struct unit *unit, uint32_t bytes) {
    unit->charged_bytes += bytes;
    appender->charged_bytes += bytes;
    appender->open_bytes += bytes;
}

static void put_ticket(struct stream_appender *appender, struct unit *unit,
                       struct stream_ticket ticket) {
    unit->tickets[unit->ticket_count++] = ticket;
    appender->pending_count++;
    if (appender->open_bytes >= SUBMIT_BYTES)
        submit_all(appender);
}

/* DG_ERR_PRESSURE when so many bytes more are too many in flight. */
static int check_pressure(struct stream_appender *appender, uint64_t bytes) {
    if (appender->charged_bytes + bytes <= LIMIT_APPENDER_BYTES)
        return 0;
    appender->wants_ready = true;
    return DG_ERR_PRESSURE;
}

/* ---- appending ----------------------------------------------------------------------------------
 */

/* A full unit makes way for the next one; the list of open partitions keeps the entry. */
static int make_room(struct stream_appender *appender, struct open_partition *entry,
                     uint64_t bytes) {
    const struct unit *unit = entry->unit;
    if (unit && unit->batch.size_bytes + unit->mutation_bytes + bytes > UNIT_BATCH_MAX)
        close_unit(appender, entry);
    return open_unit(appender, entry);
}

int stream_append_with(struct stream_appender *appender, uint64_t stream_id, uint32_t partition,
                       const struct stream_record *record, const struct stream_mutation *mutations,
                       unsigned count, struct stream_ticket ticket) {
    uint64_t bound = batch_record_bound(record), size = mutations_size(mutations, count);
    if (size > STREAM_MUTATIONS_BYTES || bound + size > UNIT_BATCH_MAX - RECORD_BATCH_HEADER_SIZE)
        return DG_ERR_TOO_LARGE;
    if (partition >= LIMIT_PARTITIONS_PER_STREAM)
        return DG_ERR_INVALID;
    int err = check_pressure(appender, bound + size);
    if (err < 0)
        return err;
    struct open_partition *entry = partition_entry(appender, stream_id, partition);
    err = entry ? make_room(appender, entry, bound + size) : DG_ERR_NO_MEMORY;
    if (err == 0)
        err = reserve_ticket(entry->unit);
    if (err == 0 && count > 0)
        err = reserve_mutations(entry->unit, (uint32_t)size, count);
    if (err < 0)
        return err;
    struct unit *unit = entry->unit;
    uint32_t before = unit->batch.size_bytes;
    err = batch_append(&unit->batch, &appender->stream->chunks, entry->size_hint, record);
    if (err < 0)
        return err;
    if (count > 0)
        put_mutations(unit, mutations, count, unit->batch.record_count - 1);
    charge(appender, unit, unit->batch.size_bytes - before + (uint32_t)size);
    put_ticket(appender, unit, ticket);
    return 0;
}

int stream_append(struct stream_appender *appender, uint64_t stream_id, uint32_t partition,
                  const struct stream_record *record, struct stream_ticket ticket) {
    return stream_append_with(appender, stream_id, partition, record, NULL, 0, ticket);
}

/* The unit of mutations alone, with room for so many bytes more. */
static int open_state_unit(struct stream_appender *appender, uint32_t size, unsigned count) {
    if (appender->state && appender->state->mutation_bytes + size > UNIT_STATE_MAX) {
        queue_unit(appender, appender->state);
        appender->state = NULL;
    }
    if (!appender->state && !(appender->state = unit_take(appender, NULL)))
        return DG_ERR_NO_MEMORY;
    int err = reserve_mutations(appender->state, size, count);
    return err < 0 ? err : reserve_ticket(appender->state);
}

int stream_mutate(struct stream_appender *appender, const struct stream_mutation *mutations,
                  unsigned count, struct stream_ticket ticket) {
    uint64_t size = mutations_size(mutations, count);
    dg_assert(count > 0);
    if (size > STREAM_MUTATIONS_BYTES)
        return DG_ERR_TOO_LARGE;
    int err = check_pressure(appender, size);
    if (err == 0)
        err = open_state_unit(appender, (uint32_t)size, count);
    if (err < 0)
        return err;
    struct unit *unit = appender->state;
    put_mutations(unit, mutations, count, 0);
    charge(appender, unit, (uint32_t)size);
    put_ticket(appender, unit, ticket);
    return 0;
}

/* ---- life ---------------------------------------------------------------------------------------
 */

/* The committer is free, or has been busy with others for two groups: what is open may go. */
static void deliver_free(struct mail *mail, void *receiver) {
    struct stream_appender *appender =
        (struct stream_appender *)(void *)((char *)mail -
                                           offsetof(struct stream_appender, waiter.mail));
    if (appender->is_dead) {
        free(appender);
        return;
    }
    appender->is_waiting = false;
    submit_all(appender);
}

int stream_appender_create(struct stream *stream, struct mailbox *mailbox, stream_done_fn *done,
                           stream_ready_fn *ready, void *context,
                           struct stream_appender **ret_appender) {
    struct stream_appender *appender = calloc(1, sizeof(*appender));
    if (!appender)
        return DG_ERR_NO_MEMORY;
    appender->waiter.mailbox = mailbox;
    appender->waiter.mail.deliver = deliver_free;
    appender->stream = stream;
    appender->mailbox = mailbox;
    appender->done = done;
    appender->ready = ready;
    appender->context = context;
    *ret_appender = appender;
    return 0;
}

void stream_appender_free(struct stream_appender *appender) {
    if (!appender)
        return;
    dg_assert(appender->pending_count == 0);
    struct open_partition *entry, *next;
    HASH_ITER(hh, appender->partitions, entry, next) {
        HASH_DEL(appender->partitions, entry);
        if (entry->unit)
            unit_free(entry->unit);
        free(entry);
    }
    if (appender->state)
        unit_free(appender->state);
    compressor_free(appender->compressor);
    while (appender->free_units) {
        struct unit *unit = appender->free_units;
        appender->free_units = unit->next;
        unit_free(unit);
    }
    if (appender->is_waiting && !committer_forget(&appender->stream->committer, &appender->waiter))
        appender->is_dead = true; /* its mail is on the way and frees it */
    else
        free(appender);
}

uint64_t stream_appender_pending(const struct stream_appender *appender) {
    return appender->pending_count;
}
