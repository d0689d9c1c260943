/*
 * One live connection per device, across all workers (and, later, protocols).
 *
 * A device's home worker is chosen by a seeded hash of its key. The home keeps who holds the device
 * and serialises claims: a new claim makes the holder's worker end its connection; only when that
 * one has let go (its events are with the committer, its last one among them) is the claim granted.
 * Everything travels as mail between workers; what stays on one worker is a direct call.
 *
 * The home also keeps the session (kept.h) and the producers (producers.h) of a device that has no
 * connection. They go with the claim to whoever holds the device and come back with the release.
 * What is over is given to the home's own receiver under a claim of its own, so that nobody else
 * has the device while it is being deleted.
 *
 * A will that waits (kept.h) is offered to the home's receiver when it is due; a session that has
 * one ends together with it and not by itself.
 *
 * A claim waits behind at most one holder; a third connection of the same device replaces the one
 * that waits (DG_ERR_BUSY). A release names its owner, so a late one does not drop a newer holder.
 */
#pragma once

#include <netinet/in.h>
#include <stdint.h>

#include "common/err.h"
#include "common/mailbox.h"
#include "gateway/loop/worker.h"
#include "gateway/session/kept.h"
#include "gateway/session/producers.h"

struct session_takeover; /* session.h */

enum claim_step { CLAIM_ASK, CLAIM_GRANTED, CLAIM_EVICT, CLAIM_RELEASE };

/*
 * The right to be a device's connection, from asking to releasing. Allocated by claims_ask(); it
 * belongs to the claims while it travels and to the asker once `settled` was called with err 0.
 */
struct claim {
    struct mail mail;
    uint16_t worker; /* the asker's */
    uint16_t peer_port;
    uint8_t step; /* enum claim_step */
    int8_t err;
    bool may_keep; /* the home has room for one more session */
    int64_t device_key;
    uint64_t owner; /* the asker's own id; with worker it names the holder */
    struct in6_addr peer_address;
    struct session_kept *kept;  /* travels with the claim; NULL: none */
    struct producer *producers; /* likewise */
    /* From the holder that was evicted to who comes after it; NULL: none. Freed with free(). */
    struct session_takeover *takeover;
};

struct inquiry; /* inquiry.h */

/* What the holder of connections on a worker does; called on that worker's thread. */
struct claims_receiver {
    /* The answer to claims_ask(). err 0: the asker owns claim and gives it to claims_release() in
     * the end, at once if its connection has gone meanwhile. Else claim is gone, DG_ERR_BUSY or
     * DG_ERR_NO_MEMORY. May be called from within claims_ask(). */
    void (*settled)(void *context, uint64_t owner, struct claim *claim, int err);
    /* Another connection (its peer is named) wants the device: end the owner's and release. An
     * owner that is gone or going needs nothing. */
    void (*evict)(void *context, uint64_t owner, const struct in6_addr *peer_address,
                  uint16_t peer_port);
    /* claim->kept is over, or one of claim->producers is forgotten: delete it, then release the
     * claim, without it. */
    void (*expired)(void *context, struct claim *claim);
    void *context;
    /* Fills in what is known here of a device. NULL: nothing ever is. */
    void (*answer)(void *context, struct inquiry *inquiry);
};

/* Both before any worker runs, in either order. 0 or DG_ERR_NO_MEMORY. workers outlives them. */
DG_NODISCARD int claims_worker_start(struct worker *worker, struct worker **workers,
                                     unsigned count);
DG_NODISCARD int claims_set_receiver(struct worker *worker, const struct claims_receiver *receiver);

/* After all workers have ended and before the first of them is freed. Harmless without a part. */
void claims_worker_free(struct worker *worker);

/* Asks for a device. 0: settled() follows or has been called; DG_ERR_NO_MEMORY. */
DG_NODISCARD int claims_ask(struct worker *worker, int64_t device_key, uint64_t owner,
                            const struct in6_addr *peer_address, uint16_t peer_port);

/* Who holds a device whose home is this worker; false: nobody. */
bool claims_find(struct worker *home, int64_t device_key, unsigned *ret_worker,
                 uint64_t *ret_owner);

/* Lets go. Takes over the claim, and what it carries. Never fails. */
void claims_release(struct worker *worker, struct claim *claim);

/* Looks at a part of the sessions without a connection whose home is this worker; all of them in
 * LIMIT_SESSION_SWEEP_CALLS calls. Calls expired() for each whose time is over. */
void claims_sweep(struct worker *worker, int64_t wall_ms);

/* The will that is due first of those whose home is this worker, or NULL when none is due. It is
 * not offered again until its session is released anew. Valid during the call. */
const struct session_will *claims_next_will(struct worker *worker, int64_t wall_ms);
/* Takes the device of a will that was offered for the home itself: a claim with its session. NULL:
 * the session does not wait with that will any more, or no memory (the will is offered again). */
struct claim *claims_take_will(struct worker *worker, int64_t device_key, int64_t due_ms);

/* Before any worker runs, on the home of the device: a session from before the start. 0 or
 * DG_ERR_NO_MEMORY; takes over kept only when it is 0. */
DG_NODISCARD int claims_install(struct worker *home, int64_t device_key, struct session_kept *kept);
/* Likewise, producers; in either order. */
DG_NODISCARD int claims_install_producers(struct worker *home, int64_t device_key,
                                          struct producer *producers);

/* The session without a connection whose home is this worker, or NULL. */
const struct session_kept *claims_kept(struct worker *worker, int64_t device_key);

/* Drops the commands of a device (outbox.h) that the session without a connection of this one
 * has, if there is one. On the session's home. */
void claims_recall(struct worker *worker, int64_t session_device, int64_t device_key);

/* The worker of this index, or NULL when there is none, or no claims at all. */
struct worker *claims_peer(struct worker *worker, unsigned index);
/* This worker's, or NULL when its claims are gone. */
const struct claims_receiver *claims_receiver_of(struct worker *worker);

/* A claim that goes nowhere any more, with what it carries. Accepts NULL. */
void claim_free(struct claim *claim);

/* Which worker keeps this device's claims. */
unsigned claims_home(int64_t device_key, unsigned worker_count);
