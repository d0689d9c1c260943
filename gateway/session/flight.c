/*
 * An entry's number is its place in the order of recording, from 1 on; its slot the number modulo
 * the ring's size. A number is alive while fewer entries than the ring's size came after it, so a
 * link to what was overwritten is told by its number alone and nothing is ever unlinked.
 */
#include "gateway/session/flight.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/hash.h"
#include "common/limits.h"

enum { REPEAT_STEPS = 8, KEY_BYTES = LIMIT_TENANT_BYTES + 1 + LIMIT_DEVICE_ID_BYTES };

_Static_assert((LIMIT_FLIGHT_ENTRIES & (LIMIT_FLIGHT_ENTRIES - 1)) == 0, "a power of two");
_Static_assert((LIMIT_FLIGHT_STRANGERS & (LIMIT_FLIGHT_STRANGERS - 1)) == 0, "a power of two");

struct ring {
    struct flight_entry *entries;
    uint64_t *newest; /* by bucket: the number of its newest entry */
    uint64_t next;    /* the number to be given next */
    uint32_t size;
};

struct flight {
    struct ring devices, strangers;
};

const struct flight_kind_row flight_kinds[FLIGHT_KIND_COUNT] = {
#define KIND(id, name_, metric_, is_end_, by_detail_, detail_, words_) \
    [FLIGHT_##id] = {.name = name_,                                    \
                     .detail = detail_,                                \
                     .words = words_,                                  \
                     .metric = metric_,                                \
                     .is_end = is_end_,                                \
                     .by_detail = by_detail_},
#define ADVICE(...)
#include "gateway/session/flight_table.h"
#undef KIND
#undef ADVICE
};

static const struct advice {
    enum flight_kind kind;
    int err;
    enum metric_id refused;
    const char *words;
} advices[] = {
#define KIND(...)
#define ADVICE(kind_, err_, refused_, words_) \
    {.kind = kind_, .err = err_, .refused = refused_, .words = words_},
#include "gateway/session/flight_table.h"
#undef KIND
#undef ADVICE
};

/* The last row fits everything. */
static const struct advice *find_advice(enum flight_kind kind, int err) {
    const struct advice *advice = advices;
    while ((advice->kind != FLIGHT_ANY && advice->kind != kind) ||
           (advice->err != 0 && advice->err != err))
        advice++;
    return advice;
}

const char *flight_advice(enum flight_kind kind, int err) {
    return find_advice(kind, err)->words;
}

void flight_print(const struct flight_entry *entry, char *ret_text, size_t text_size) {
    const char *words = flight_kinds[entry->kind].words;
    bool goes_on = words[strlen(words) - 1] == ':';
    snprintf(ret_text, text_size, "%s%s%s", words, goes_on ? " " : "",
             goes_on ? dg_err_text(entry->err) : "");
}

int64_t flight_claimed_key(struct slice tenant, struct slice device) {
    uint8_t text[KEY_BYTES];
    if (tenant.size > LIMIT_TENANT_BYTES || device.size > LIMIT_DEVICE_ID_BYTES || device.size == 0)
        return 0;
    if (tenant.size > 0)
        memcpy(text, tenant.data, tenant.size);
    text[tenant.size] = '@'; /* in no tenant's name */
    memcpy(text + tenant.size + 1, device.data, device.size);
    return (int64_t)(hash_bytes(text, tenant.size + 1 + device.size) | 1ull << 63);
}

/* ---- life ---- */

static bool ring_open(struct ring *ring, uint32_t size) {
    *ring = (struct ring){.entries = calloc(size, sizeof(*ring->entries)),
                          .newest = calloc(size, sizeof(*ring->newest)),
                          .next = 1,
                          .size = size};
    return ring->entries && ring->newest;
}

static void ring_close(struct ring *ring) {
    free(ring->entries);
    free(ring->newest);
}

int flight_create(struct flight **ret_flight) {
    struct flight *flight = calloc(1, sizeof(*flight));
    if (!flight)
        return DG_ERR_NO_MEMORY;
    if (!ring_open(&flight->devices, LIMIT_FLIGHT_ENTRIES) ||
        !ring_open(&flight->strangers, LIMIT_FLIGHT_STRANGERS)) {
        flight_free(flight);
        return DG_ERR_NO_MEMORY;
    }
    *ret_flight = flight;
    return 0;
}

void flight_free(struct flight *flight) {
    if (!flight)
        return;
    ring_close(&flight->devices);
    ring_close(&flight->strangers);
    free(flight);
}

/* ---- links ---- */

static uint64_t *bucket_of(const struct ring *ring, int64_t key) {
    return &ring->newest[hash_bytes(&key, sizeof(key)) & (ring->size - 1)];
}

/* The entry of this number, or NULL when it was overwritten or is none. */
static struct flight_entry *ring_entry(const struct ring *ring, uint64_t number) {
    if (number == 0 || ring->next - number > ring->size)
        return NULL;
    return &ring->entries[number & (ring->size - 1)];
}

/* The newest entry of the key, if it is one of the bucket's newest. */
static struct flight_entry *find_newest(const struct ring *ring, int64_t key) {
    struct flight_entry *entry = ring_entry(ring, *bucket_of(ring, key));
    for (unsigned i = 0; entry && i < REPEAT_STEPS; i++) {
        if (entry->key == key)
            return entry;
        entry = ring_entry(ring, entry->older);
    }
    return NULL;
}

/* ---- recording ---- */

static size_t host_size(struct slice peer) {
    size_t size = peer.size;
    while (size > 0 && peer.data[size - 1] != ':')
        size--;
    return size;
}

static bool is_same_host(struct slice a, struct slice b) {
    return slice_equals(slice_make(a.data, host_size(a)), slice_make(b.data, host_size(b)));
}

static uint8_t put_text(struct flight_entry *entry, size_t at, struct slice text) {
    size_t size = text.size < sizeof(entry->text) - at ? text.size : sizeof(entry->text) - at;
    if (size > 0)
        memcpy(entry->text + at, text.data, size);
    return (uint8_t)size;
}

static void fill(struct flight_entry *entry, const struct flight_note *note) {
    entry->at_ms = note->at_ms;
    entry->count++;
    entry->reason_code = note->reason_code;
    entry->peer_size = put_text(entry, 0, note->peer);
    entry->detail_size = put_text(entry, entry->peer_size, note->detail);
}

static bool is_repeat(const struct flight_entry *entry, const struct flight_note *note) {
    return entry && entry->kind == note->kind && entry->err == note->err &&
           is_same_host(flight_peer(entry), note->peer) &&
           (!flight_kinds[note->kind].by_detail ||
            slice_equals(flight_detail(entry), note->detail));
}

static void ring_record(struct ring *ring, const struct flight_note *note) {
    struct flight_entry *entry = find_newest(ring, note->key);
    if (!is_repeat(entry, note)) {
        uint64_t *newest = bucket_of(ring, note->key);
        entry = &ring->entries[ring->next & (ring->size - 1)];
        *entry = (struct flight_entry){.key = note->key,
                                       .older = *newest,
                                       .kind = (uint8_t)note->kind,
                                       .err = (int8_t)note->err};
        *newest = ring->next++;
    }
    fill(entry, note);
}

static void count(const struct flight_note *note) {
    enum metric_id metric = flight_kinds[note->kind].metric;
    if (note->kind == FLIGHT_LOGIN_REFUSED || note->kind == FLIGHT_CONNECT_REFUSED)
        metric = find_advice(note->kind, note->err)->refused;
    if (metric != METRIC_COUNT)
        metric_add(metric, 1);
}

void flight_record(struct flight *flight, const struct flight_note *note) {
    count(note);
    if (flight && note->key != 0)
        ring_record(note->key > 0 ? &flight->devices : &flight->strangers, note);
}

/* ---- looking up ---- */

unsigned flight_find(const struct flight *flight, int64_t key, struct flight_entry *ret_entries,
                     unsigned room) {
    const struct ring *ring = key > 0 ? &flight->devices : &flight->strangers;
    const struct flight_entry *entry = ring_entry(ring, *bucket_of(ring, key));
    unsigned found = 0;
    for (unsigned i = 0; entry && found < room && i < LIMIT_FLIGHT_STEPS; i++) {
        if (entry->key == key)
            ret_entries[found++] = *entry;
        entry = ring_entry(ring, entry->older);
    }
    return found;
}

unsigned flight_merge(struct flight_entry *into, unsigned count, unsigned room,
                      const struct flight_entry *from, unsigned from_count) {
    unsigned at = 0;
    for (unsigned i = 0; i < from_count; i++) {
        while (at < count && into[at].at_ms >= from[i].at_ms)
            at++;
        if (at == room)
            break;
        count += count < room;
        memmove(&into[at + 1], &into[at], (count - 1 - at) * sizeof(into[0]));
        into[at++] = from[i];
    }
    return count;
}
