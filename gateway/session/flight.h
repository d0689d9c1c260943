/*
 * The flight recorder: what happened to devices lately, for an administrator who asks why. One per
 * worker, of fixed size: two rings of entries, the oldest overwritten. Devices that have logged in
 * have one ring, names that were only claimed the other, so that strangers cannot push out what is
 * known of devices. The same thing happening to a device again and again, from one address, is one
 * entry that counts.
 *
 * Entries of one key hang together, so that a look-up follows links instead of reading the ring.
 * Storing is some memory writes and no allocation. What works records nothing but connecting,
 * subscribing and leaving: a publish that is accepted is no entry.
 *
 * Pure but for memory. One worker's thread. Only flight_create() can fail.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/metrics.h"
#include "common/slice.h"

struct flight;

enum flight_kind {
#define KIND(id, ...) FLIGHT_##id,
#define ADVICE(...)
#include "gateway/session/flight_table.h"
#undef KIND
#undef ADVICE
    FLIGHT_KIND_COUNT,
    FLIGHT_ANY = FLIGHT_KIND_COUNT
};

enum { FLIGHT_TEXT_BYTES = 95 };

struct flight_entry {
    int64_t at_ms;       /* wall clock; of the last time */
    int64_t key;         /* > 0: a device's key in the registry; < 0: flight_claimed_key() */
    uint64_t older;      /* the recorder's: the next one behind it, 0 for none */
    uint32_t count;      /* how often */
    uint8_t kind;        /* enum flight_kind */
    int8_t err;          /* 0, or enum dg_err */
    uint8_t reason_code; /* MQTT 5; 0: none */
    uint8_t peer_size;   /* of text, in front: the peer's address */
    uint8_t detail_size; /* ... behind it: a topic, a clause, words; may be cut */
    char text[FLIGHT_TEXT_BYTES];
};
_Static_assert(sizeof(struct flight_entry) == 128, "so many times that is the recorder's size");

/* What is to be recorded; slices are valid during the call. */
struct flight_note {
    int64_t at_ms;
    int64_t key; /* 0: nobody's: only counted */
    enum flight_kind kind;
    int err;
    uint8_t reason_code;
    struct slice peer, detail;
};

/* 0 or DG_ERR_NO_MEMORY. */
DG_NODISCARD int flight_create(struct flight **ret_flight);
/* Accepts NULL. */
void flight_free(struct flight *flight);

/* The key of names that somebody claims and nobody has verified. Differs with each start. */
int64_t flight_claimed_key(struct slice tenant, struct slice device);

/* Records, and counts in the metric of the kind and error. flight NULL: only counts. */
void flight_record(struct flight *flight, const struct flight_note *note);

/* The newest entries of this key, newest first, at most room; how many. Looks at no more than
 * LIMIT_FLIGHT_STEPS entries. */
unsigned flight_find(const struct flight *flight, int64_t key, struct flight_entry *ret_entries,
                     unsigned room);

/* Puts entries, newest first, in order among others that are, and drops the oldest beyond room;
 * returns how many there are. */
unsigned flight_merge(struct flight_entry *into, unsigned count, unsigned room,
                      const struct flight_entry *from, unsigned from_count);

static inline struct slice flight_peer(const struct flight_entry *entry) {
    return slice_make(entry->text, entry->peer_size);
}
static inline struct slice flight_detail(const struct flight_entry *entry) {
    return slice_make(entry->text + entry->peer_size, entry->detail_size);
}

struct flight_kind_row {
    const char *name;
    const char *detail; /* what the detail is; NULL: there is none */
    const char *words;
    enum metric_id metric; /* METRIC_COUNT: none of its own */
    bool is_end, by_detail;
};
/* The rows of flight_table.h. */
extern const struct flight_kind_row flight_kinds[FLIGHT_KIND_COUNT];

/* Writes what happened, in words. */
void flight_print(const struct flight_entry *entry, char *ret_text, size_t text_size);

/* What to do about it, or NULL. Static text. */
const char *flight_advice(enum flight_kind kind, int err);
