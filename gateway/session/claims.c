/*
 * The home's table maps a device key to a holder: who has it, who waits, or, when nobody has it,
 * the session that is kept. Steps:
 *
 *   asker          home                              holder's worker
 *   ASK      ->    free: holder = asker
 *   settled  <-    GRANTED
 *                  held: waits                 ->    EVICT: ends the connection, flushes its events
 *                  holder = who waits          <-    RELEASE
 *   settled  <-    GRANTED
 */
#include "gateway/session/claims.h"

#include <stdlib.h>

#include "common/assert.h"
#include "common/hash.h"
#include "common/metrics.h"
#include "gateway/session/device_map.h"

struct holder {
    uint64_t owner; /* 0: the home itself, which deletes what is over */
    uint32_t worker;
    bool is_held;
    struct claim *waiting;
    struct session_kept *kept;  /* while it is not held */
    struct producer *producers; /* likewise */
};

struct claims {
    struct worker *worker;
    struct worker **workers;
    unsigned worker_count;
    struct claims_receiver receiver;
    struct device_map holders; /* device key -> struct holder *, devices whose home is here */
    uint32_t kept_count;       /* of them, with a session and not held */
    uint32_t sweep_slot;
    struct due *wills; /* of kept sessions */
    uint64_t will_bytes;
};

static struct claims *claims_of(struct worker *worker) {
    dg_assert(worker->slots[WORKER_SLOT_CLAIMS]);
    return worker->slots[WORKER_SLOT_CLAIMS];
}

unsigned claims_home(int64_t device_key, unsigned worker_count) {
    return (unsigned)(hash_bytes(&device_key, sizeof(device_key)) >> 32) % worker_count;
}

void claim_free(struct claim *claim) {
    if (!claim)
        return;
    kept_free(claim->kept);
    free(claim->takeover);
    producers_free(claim->producers);
    free(claim);
}

static void claim_arrive(struct claims *claims, struct claim *claim);

static void claim_deliver(struct mail *mail, void *receiver) {
    struct worker *worker = receiver;
    claim_arrive(claims_of(worker), (struct claim *)(void *)mail);
}

/* Hands the claim to a worker: by mail, or directly when it is this one. */
static void claim_send(struct claims *claims, struct claim *claim, unsigned worker,
                       enum claim_step step) {
    claim->step = (uint8_t)step;
    if (worker == claims->worker->index) {
        claim_arrive(claims, claim);
        return;
    }
    /* Set before the workers started; gone only when they have all ended. */
    if (!claims->workers[worker]->slots[WORKER_SLOT_CLAIMS]) {
        claim_free(claim);
        return;
    }
    claim->mail.deliver = claim_deliver;
    mailbox_post(&claims->workers[worker]->mailbox, &claim->mail);
}

/* ---- at home ---- */

static void claim_answer(struct claims *claims, struct claim *claim, int err) {
    claim->err = (int8_t)err;
    claim_send(claims, claim, claim->worker, CLAIM_GRANTED);
}

static struct holder *holder_find(struct claims *claims, int64_t device_key) {
    uint64_t value;
    if (!device_map_get(&claims->holders, device_key, &value))
        return NULL;
    return (struct holder *)(uintptr_t)value;
}

/* Nobody holds it yet. NULL: no memory. */
static struct holder *holder_create(struct claims *claims, int64_t device_key) {
    if (device_map_reserve(&claims->holders) < 0)
        return NULL;
    struct holder *holder = calloc(1, sizeof(*holder));
    if (holder)
        device_map_set(&claims->holders, device_key, (uintptr_t)holder);
    return holder;
}

static struct holder *holder_of(struct claims *claims, int64_t device_key) {
    struct holder *holder = holder_find(claims, device_key);
    return holder ? holder : holder_create(claims, device_key);
}

/* A session begins to wait for a connection, and its will for its time; with too many of them it
 * is due at once. */
static void begin_waiting(struct claims *claims, int64_t device_key, struct session_kept *kept) {
    struct session_will *will = kept->will;
    claims->kept_count++;
    metric_add(METRIC_SESSIONS_KEPT, 1);
    if (!will)
        return;
    will->device_key = device_key;
    claims->will_bytes += will->size_bytes;
    if (claims->will_bytes > LIMIT_WILLS_BYTES && !will->was_deferred)
        will->due.at_ms = kept->disconnected_ms;
    due_add(&claims->wills, &will->due);
    metric_add(METRIC_WILLS_WAITING, 1);
}

static void end_waiting(struct claims *claims, struct session_kept *kept) {
    claims->kept_count--;
    metric_add(METRIC_SESSIONS_KEPT, -1);
    if (!kept->will)
        return;
    claims->will_bytes -= kept->will->size_bytes;
    due_remove(&claims->wills, &kept->will->due);
    metric_add(METRIC_WILLS_WAITING, -1);
}

/* The claim becomes the holder and takes what is kept. */
static void holder_take(struct claims *claims, struct holder *holder, struct claim *claim) {
    if (holder->kept)
        end_waiting(claims, holder->kept);
    claim->kept = holder->kept;
    claim->producers = holder->producers;
    claim->may_keep = claims->kept_count < LIMIT_SESSIONS_KEPT_PER_WORKER;
    *holder = (struct holder){.owner = claim->owner, .worker = claim->worker, .is_held = true};
}

static void holder_give(struct claims *claims, struct holder *holder, struct claim *claim) {
    holder_take(claims, holder, claim);
    claim_answer(claims, claim, 0);
}

/* The holder is told to go; what it is told is a copy that names the newcomer. */
static int holder_evict(struct claims *claims, const struct holder *holder,
                        const struct claim *newcomer) {
    struct claim *order = malloc(sizeof(*order));
    if (!order)
        return DG_ERR_NO_MEMORY;
    *order = *newcomer;
    order->owner = holder->owner;
    claim_send(claims, order, holder->worker, CLAIM_EVICT);
    return 0;
}

static void home_ask(struct claims *claims, struct claim *claim) {
    struct holder *holder = holder_of(claims, claim->device_key);
    if (!holder) {
        claim_answer(claims, claim, DG_ERR_NO_MEMORY);
        return;
    }
    if (!holder->is_held) {
        holder_give(claims, holder, claim);
        return;
    }
    struct claim *replaced = holder->waiting;
    holder->waiting = claim; /* before the eviction: a holder on this worker may release at once */
    if (replaced) {
        claim_answer(claims, replaced, DG_ERR_BUSY);
        return;
    }
    if (holder->owner != 0 && holder_evict(claims, holder, claim) < 0) {
        holder->waiting = NULL;
        claim_answer(claims, claim, DG_ERR_NO_MEMORY);
    }
}

static void home_release(struct claims *claims, struct claim *claim) {
    struct holder *holder = holder_find(claims, claim->device_key);
    bool current = holder && holder->is_held && holder->owner == claim->owner &&
                   holder->worker == claim->worker;
    int64_t device_key = claim->device_key;
    if (current) {
        holder->is_held = false;
        holder->kept = claim->kept;
        holder->producers = claim->producers;
        claim->kept = NULL;
        claim->producers = NULL;
        if (holder->waiting) {
            holder->waiting->takeover = claim->takeover;
            claim->takeover = NULL;
        }
    }
    claim_free(claim);
    if (!current)
        return;
    if (holder->kept)
        begin_waiting(claims, device_key, holder->kept);
    if (holder->waiting) {
        holder_give(claims, holder, holder->waiting);
    } else if (!holder->kept && !holder->producers) {
        device_map_remove(&claims->holders, device_key);
        free(holder);
    }
}

/* ---- sessions without a connection ---- */

int claims_install(struct worker *home, int64_t device_key, struct session_kept *kept) {
    struct claims *claims = claims_of(home);
    struct holder *holder = holder_of(claims, device_key);
    if (!holder)
        return DG_ERR_NO_MEMORY;
    holder->kept = kept;
    begin_waiting(claims, device_key, kept);
    return 0;
}

void claims_recall(struct worker *worker, int64_t session_device, int64_t device_key) {
    const struct holder *holder = holder_find(claims_of(worker), session_device);
    if (holder && holder->kept)
        outbox_recall(&holder->kept->outbox, device_key);
}

const struct session_kept *claims_kept(struct worker *worker, int64_t device_key) {
    const struct holder *holder = holder_find(claims_of(worker), device_key);
    return holder ? holder->kept : NULL;
}

int claims_install_producers(struct worker *home, int64_t device_key, struct producer *producers) {
    struct holder *holder = holder_of(claims_of(home), device_key);
    if (!holder)
        return DG_ERR_NO_MEMORY;
    holder->producers = producers;
    return 0;
}

/* The home takes the device for itself. NULL: no memory. */
static struct claim *take_home(struct claims *claims, int64_t device_key, struct holder *holder) {
    struct claim *claim = calloc(1, sizeof(*claim));
    if (!claim)
        return NULL;
    claim->worker = (uint16_t)claims->worker->index;
    claim->device_key = device_key;
    holder_take(claims, holder, claim);
    return claim;
}

/* A session with a will ends when that is due. */
static bool has_anything_over(const struct holder *holder, int64_t wall_ms) {
    const struct session_kept *kept = holder->kept;
    return !holder->is_held && ((kept && !kept->will && kept_is_over(kept, wall_ms)) ||
                                producers_has_forgotten(holder->producers, wall_ms));
}

void claims_sweep(struct worker *worker, int64_t wall_ms) {
    struct claims *claims = claims_of(worker);
    uint32_t capacity = claims->holders.capacity;
    for (uint32_t left = capacity / LIMIT_SESSION_SWEEP_CALLS; left > 0; left--) {
        claims->sweep_slot = (claims->sweep_slot + 1) & (capacity - 1);
        struct device_map_slot slot = claims->holders.slots[claims->sweep_slot];
        struct holder *holder = (struct holder *)(uintptr_t)slot.value;
        struct claim *claim = slot.key != 0 && has_anything_over(holder, wall_ms)
                                  ? take_home(claims, slot.key, holder)
                                  : NULL;
        if (claim) /* without memory: later */
            claims->receiver.expired(claims->receiver.context, claim);
    }
}

const struct session_will *claims_next_will(struct worker *worker, int64_t wall_ms) {
    struct claims *claims = claims_of(worker);
    struct due *first = claims->wills;
    if (!first || first->at_ms > wall_ms)
        return NULL;
    due_remove(&claims->wills, first);
    return (struct session_will *)(void *)first;
}

struct claim *claims_take_will(struct worker *worker, int64_t device_key, int64_t due_ms) {
    struct claims *claims = claims_of(worker);
    struct holder *holder = holder_find(claims, device_key);
    struct session_will *will = holder && holder->kept ? holder->kept->will : NULL;
    if (!will || will->due.at_ms != due_ms)
        return NULL;
    struct claim *claim = take_home(claims, device_key, holder);
    if (!claim)
        due_add(&claims->wills, &will->due);
    return claim;
}

/* ---- on every worker ---- */

static void worker_settled(struct claims *claims, struct claim *claim) {
    uint64_t owner = claim->owner;
    int err = claim->err;
    if (err < 0) {
        claim_free(claim);
        claim = NULL;
    }
    claims->receiver.settled(claims->receiver.context, owner, claim, err);
}

static void worker_evict(struct claims *claims, struct claim *order) {
    struct claim copy = *order;
    free(order);
    claims->receiver.evict(claims->receiver.context, copy.owner, &copy.peer_address,
                           copy.peer_port);
}

static void claim_arrive(struct claims *claims, struct claim *claim) {
    static void (*const steps[])(struct claims *, struct claim *) = {
        [CLAIM_ASK] = home_ask,
        [CLAIM_GRANTED] = worker_settled,
        [CLAIM_EVICT] = worker_evict,
        [CLAIM_RELEASE] = home_release,
    };
    dg_assert(claim->step < sizeof(steps) / sizeof(steps[0]));
    steps[claim->step](claims, claim);
}

int claims_ask(struct worker *worker, int64_t device_key, uint64_t owner,
               const struct in6_addr *peer_address, uint16_t peer_port) {
    struct claims *claims = claims_of(worker);
    struct claim *claim = malloc(sizeof(*claim));
    if (!claim)
        return DG_ERR_NO_MEMORY;
    *claim = (struct claim){
        .worker = (uint16_t)worker->index,
        .device_key = device_key,
        .owner = owner,
        .peer_address = *peer_address,
        .peer_port = peer_port,
    };
    claim_send(claims, claim, claims_home(device_key, claims->worker_count), CLAIM_ASK);
    return 0;
}

bool claims_find(struct worker *home, int64_t device_key, unsigned *ret_worker,
                 uint64_t *ret_owner) {
    struct claims *claims = home->slots[WORKER_SLOT_CLAIMS];
    const struct holder *holder = claims ? holder_find(claims, device_key) : NULL;
    if (!holder || !holder->is_held || holder->owner == 0)
        return false;
    *ret_worker = holder->worker;
    *ret_owner = holder->owner;
    return true;
}

void claims_release(struct worker *worker, struct claim *claim) {
    struct claims *claims = claims_of(worker);
    claim_send(claims, claim, claims_home(claim->device_key, claims->worker_count), CLAIM_RELEASE);
}

/* ---- who else there is ---- */

struct worker *claims_peer(struct worker *worker, unsigned index) {
    const struct claims *claims = worker->slots[WORKER_SLOT_CLAIMS];
    return claims && index < claims->worker_count ? claims->workers[index] : NULL;
}

const struct claims_receiver *claims_receiver_of(struct worker *worker) {
    const struct claims *claims = worker->slots[WORKER_SLOT_CLAIMS];
    return claims ? &claims->receiver : NULL;
}

/* ---- life ---- */

static int claims_create(struct worker *worker, struct claims **ret_claims) {
    if (!worker->slots[WORKER_SLOT_CLAIMS])
        worker->slots[WORKER_SLOT_CLAIMS] = calloc(1, sizeof(struct claims));
    if (!worker->slots[WORKER_SLOT_CLAIMS])
        return DG_ERR_NO_MEMORY;
    *ret_claims = worker->slots[WORKER_SLOT_CLAIMS];
    return 0;
}

int claims_worker_start(struct worker *worker, struct worker **workers, unsigned count) {
    dg_assert(count > 0 && count <= LIMIT_WORKERS && worker->index < count);
    struct claims *claims;
    int err = claims_create(worker, &claims);
    if (err < 0)
        return err;
    claims->worker = worker;
    claims->workers = workers;
    claims->worker_count = count;
    return 0;
}

int claims_set_receiver(struct worker *worker, const struct claims_receiver *receiver) {
    struct claims *claims;
    int err = claims_create(worker, &claims);
    if (err == 0)
        claims->receiver = *receiver;
    return err;
}

void claims_worker_free(struct worker *worker) {
    struct claims *claims = worker->slots[WORKER_SLOT_CLAIMS];
    if (!claims)
        return;
    for (uint32_t i = 0; i < claims->holders.capacity; i++) {
        struct holder *holder = (struct holder *)(uintptr_t)claims->holders.slots[i].value;
        if (claims->holders.slots[i].key == 0)
            continue;
        if (holder->kept)
            end_waiting(claims, holder->kept);
        claim_free(holder->waiting);
        kept_free(holder->kept);
        producers_free(holder->producers);
        free(holder);
    }
    device_map_free(&claims->holders);
    free(claims);
    worker->slots[WORKER_SLOT_CLAIMS] = NULL;
}
