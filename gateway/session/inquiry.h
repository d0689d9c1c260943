/*
 * A question about one device to all workers: is it connected here, is its session kept here, what
 * does the flight recorder know. One message goes from worker to worker, is filled in on each, and
 * comes back to who asked; so nothing is shared and nothing is waited for. Who asked has its own
 * deadline: a message that comes back to nobody is freed there.
 *
 * Any worker's thread; what answers on each is the claims_receiver's `answer`.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/mailbox.h"
#include "gateway/loop/worker.h"
#include "gateway/session/flight.h"

/* A live connection. Times are wall clock, ms. */
struct inquiry_connection {
    unsigned worker;
    const char *protocol; /* static text */
    char peer[64], session_id[64];
    char client_id[LIMIT_CLIENT_ID_BYTES]; /* may be cut */
    uint16_t client_id_size;
    uint16_t keep_alive_s;
    uint32_t expiry_s;
    uint32_t in_flight;  /* publishes not acknowledged yet */
    uint32_t unreleased; /* QoS 2 messages without PUBREL */
    uint32_t published, dropped, refused;
    int64_t since_ms, last_activity_ms, credential_key;
};

/* A session without a connection. */
struct inquiry_kept {
    int64_t disconnected_ms; /* wall clock */
    uint32_t expiry_s;
};

/* Of many devices less is asked: who is connected, and since when. */
struct inquiry_presence {
    int64_t device_key;
    bool is_connected;
    int64_t since_ms, last_activity_ms;
};

struct inquiry {
    struct mail mail;
    /* the question */
    uint64_t owner; /* the asker's own, returned untouched */
    int64_t device_key;
    int64_t claimed_key; /* flight.h: entries from before a login, not older than ... */
    int64_t since_ms;    /* ... this: a name may have been another device's */
    /* On the asker's thread; takes the inquiry over. */
    void (*answered)(struct worker *worker, struct inquiry *inquiry);
    /* Others, who are all that is asked about when there are some; owned. */
    struct inquiry_presence *others;
    unsigned other_count;
    int64_t tenant_key; /* ... whose connections are counted; 0: none */
    /* where it is */
    uint16_t asker, next;
    /* the answer */
    bool is_connected, is_kept;
    uint64_t connection_count; /* of the tenant */
    struct inquiry_connection connection;
    struct inquiry_kept kept;
    unsigned wanted, entry_count;
    struct flight_entry entries[]; /* newest first */
};

/* At most LIMIT_RECENT_ENTRIES entries are wanted; 0: only of others. NULL: out of memory. */
struct inquiry *inquiry_new(unsigned wanted);
/* Takes the inquiry over; answered() follows, unless the gateway ends first. */
void inquiry_send(struct worker *worker, struct inquiry *inquiry);
void inquiry_free(struct inquiry *inquiry);

/* For who answers: adds what this worker's recorder knows. */
void inquiry_read_flight(struct inquiry *inquiry, const struct flight *flight);
