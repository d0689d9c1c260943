/*
 * The home's table maps a device key to a holder: who has it, who waits. Steps:
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
#include "gateway/session/device_map.h"

struct holder {
    uint64_t owner;
    uint32_t worker;
    struct claim *waiting;
};

struct claims {
    struct worker *worker;
    struct worker **workers;
    unsigned worker_count;
    struct claims_receiver receiver;
    struct device_map holders; /* device key -> struct holder *, devices whose home is here */
};

static struct claims *claims_of(struct worker *worker) {
    dg_assert(worker->slots[WORKER_SLOT_CLAIMS]);
    return worker->slots[WORKER_SLOT_CLAIMS];
}

unsigned claims_home(int64_t device_key, unsigned worker_count) {
    return (unsigned)(hash_bytes(&device_key, sizeof(device_key)) >> 32) % worker_count;
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
        free(claim);
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

static int holder_create(struct claims *claims, const struct claim *claim) {
    int err = device_map_reserve(&claims->holders);
    if (err < 0)
        return err;
    struct holder *holder = malloc(sizeof(*holder));
    if (!holder)
        return DG_ERR_NO_MEMORY;
    *holder = (struct holder){.owner = claim->owner, .worker = claim->worker};
    device_map_set(&claims->holders, claim->device_key, (uintptr_t)holder);
    return 0;
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
    struct holder *holder = holder_find(claims, claim->device_key);
    if (!holder) {
        claim_answer(claims, claim, holder_create(claims, claim));
        return;
    }
    struct claim *replaced = holder->waiting;
    holder->waiting = claim; /* before the eviction: a holder on this worker may release at once */
    if (replaced) {
        claim_answer(claims, replaced, DG_ERR_BUSY);
        return;
    }
    if (holder_evict(claims, holder, claim) < 0) {
        holder->waiting = NULL;
        claim_answer(claims, claim, DG_ERR_NO_MEMORY);
    }
}

static void home_release(struct claims *claims, struct claim *claim) {
    struct holder *holder = holder_find(claims, claim->device_key);
    bool current = holder && holder->owner == claim->owner && holder->worker == claim->worker;
    int64_t device_key = claim->device_key;
    free(claim);
    if (!current)
        return;
    struct claim *next = holder->waiting;
    if (!next) {
        device_map_remove(&claims->holders, device_key);
        free(holder);
        return;
    }
    *holder = (struct holder){.owner = next->owner, .worker = next->worker};
    claim_answer(claims, next, 0);
}

/* ---- on every worker ---- */

static void worker_settled(struct claims *claims, struct claim *claim) {
    uint64_t owner = claim->owner;
    int err = claim->err;
    if (err < 0) {
        free(claim);
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

void claims_release(struct worker *worker, struct claim *claim) {
    struct claims *claims = claims_of(worker);
    claim_send(claims, claim, claims_home(claim->device_key, claims->worker_count), CLAIM_RELEASE);
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
        free(holder->waiting);
        free(holder);
    }
    device_map_free(&claims->holders);
    free(claims);
    worker->slots[WORKER_SLOT_CLAIMS] = NULL;
}
