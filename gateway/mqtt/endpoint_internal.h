/* What the files of the MQTT endpoint share. */
#pragma once

#include "common/log.h"
#include "gateway/event/event.h"
#include "gateway/mqtt/endpoint.h"
#include "gateway/session/claims.h"
#include "gateway/session/session.h"

enum { MQTT_OUT_BYTES = 4096 };

/* A session that is over and whose identities, and record if a claim says so, are being deleted; or
 * that goes on without its will; or one of the claim's producers. */
struct mqtt_ending {
    struct mqtt_ending *next;
    struct claim *claim;       /* the home's own, of what is over; else NULL */
    struct session_kept *kept; /* NULL: a producer */
    int64_t device_key;
    int64_t wall_ms; /* when it was over */
    uint32_t slot;   /* of the identities: those before are submitted */
    bool is_over, leaves_will;
    struct registry_policy *policy; /* a reference: by which the will is judged; NULL: none */
};

struct mqtt_slot {
    struct session *session; /* NULL: free */
    uint32_t generation;
    uint32_t next_free;
};

struct mqtt_worker {
    struct worker *worker;
    struct stream *stream;
    struct stream_appender *appender;
    struct registry *registry;
    struct session_shared shared;
    struct event_counter counter;

    /* Sessions by id: index and generation. */
    struct mqtt_slot *slots;
    uint32_t slot_count, free_slot, session_count;
    /* Sessions by device key: the first; the others behind session->neighbour. */
    struct device_map by_device;
    struct session *waiting;                    /* for the stream, newest first */
    struct session *dead;                       /* to be freed at the turn's end */
    struct mqtt_ending *endings, **endings_end; /* not submitted yet, oldest first */
    struct event sweep_timer;
    struct event quota_timer; /* somebody waits for a quota */
    bool draining;
    struct {                /* about which wills the registry is asked */
        int64_t device_key; /* 0: free */
        int64_t due_ms;
    } wills_asked[LIMIT_WILLS_ASKED];

    /* Small packets to one connection are gathered into one write. */
    struct connection *out_connection;
    size_t out_size;
    uint8_t out_bytes[MQTT_OUT_BYTES];
    struct event_scratch scratch;
    struct log_sample refused_lines, refused_filters, quarantine_lines;
};

extern const struct session_effects mqtt_effects;

static inline struct mqtt_worker *mqtt_of(struct worker *worker) {
    return worker->slots[WORKER_SLOT_MQTT];
}

/* Before every input of a session. */
void mqtt_set_time(struct mqtt_worker *mqtt);
/* Hands gathered packets to their connection. */
void mqtt_flush(struct mqtt_worker *mqtt);

/* The live session of this id, or NULL. */
static inline struct session *mqtt_find(const struct mqtt_worker *mqtt, uint64_t id) {
    uint64_t index = id >> 32;
    if (index >= mqtt->slot_count || mqtt->slots[index].generation != (uint32_t)id)
        return NULL;
    return mqtt->slots[index].session;
}

/* A new session in a slot of its own. DG_ERR_LIMIT, DG_ERR_NO_MEMORY. */
DG_NODISCARD int mqtt_session_create(struct mqtt_worker *mqtt, bool passwords_allowed,
                                     struct session **ret_session);
/* Finished and without connection: forgotten now, freed at the turn's end. */
void mqtt_session_bury(struct mqtt_worker *mqtt, struct session *session);
void mqtt_free_dead(struct mqtt_worker *mqtt);
/* Makes the session known by its device; it has one. DG_ERR_NO_MEMORY. */
DG_NODISCARD int mqtt_session_index(struct mqtt_worker *mqtt, struct session *session);
/* End of the worker: frees sessions whatever their state. */
void mqtt_sessions_free(struct mqtt_worker *mqtt);

/* Sessions without a connection: endpoint_kept.c. */
void mqtt_kept_start(struct mqtt_worker *mqtt);
void mqtt_kept_free(struct mqtt_worker *mqtt);
/* Takes over kept, which nobody else has any more. */
void mqtt_kept_discard(struct mqtt_worker *mqtt, int64_t device_key, struct session_kept *kept);
/* The stream takes more. */
void mqtt_kept_ready(struct mqtt_worker *mqtt);
/* A ticket whose owner is no session. */
void mqtt_kept_done(struct mqtt_worker *mqtt, uint64_t tag, int err);
void mqtt_on_expired(void *context, struct claim *claim);
/* The claim's session has a will that is due: appends it, unless it may not be, and writes that the
 * session has it no more, or is over. Then the claim is released. policy may be NULL. */
void mqtt_kept_leave_will(struct mqtt_worker *mqtt, struct claim *claim, bool is_allowed,
                          struct registry_policy *policy);
/* The will could not be stored: it is due again in a moment. Releases the claim. */
void mqtt_kept_defer_will(struct mqtt_worker *mqtt, struct claim *claim);

/* Wills that are due, as many as the registry may be asked about: endpoint_wills.c. */
void mqtt_wills_ask(struct mqtt_worker *mqtt);

/* claims_receiver */
void mqtt_on_inquiry(void *context, struct inquiry *inquiry);
void mqtt_on_claim_settled(void *context, uint64_t owner, struct claim *claim, int err);
void mqtt_on_evict(void *context, uint64_t owner, const struct in6_addr *peer_address,
                   uint16_t peer_port);
