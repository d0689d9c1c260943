#include "gateway/command/twins.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/metrics.h"
#include "gateway/command/twins_internal.h"
#include "gateway/session/claims.h"

#include <utlist.h>

enum { EVICT_TRIES = 64 };

static struct worker *home_of(const struct twins *twins, int64_t device_key) {
    return twins->options->workers[claims_home(device_key, twins->options->worker_count)];
}

/* ---- what is remembered ---- */

struct twin *twin_find(const struct twins *twins, int64_t device_key) {
    uint64_t value = 0;
    (void)device_map_get(&twins->by_key, device_key, &value);
    return (struct twin *)(uintptr_t)value;
}

/* NULL: no memory. */
static struct twin *reach(struct twins *twins, int64_t device_key) {
    struct twin *twin = twin_find(twins, device_key);
    if (twin || device_map_reserve(&twins->by_key) < 0 || !(twin = calloc(1, sizeof(*twin))))
        return twin;
    twin->device_key = device_key;
    device_map_set(&twins->by_key, device_key, (uintptr_t)twin);
    return twin;
}

static void forget_reported(struct twins *twins, struct twin *twin) {
    if (!twin->reported)
        return;
    DL_DELETE(twins->known, twin);
    twins->known_bytes -= twin->reported_size;
    free(twin->reported);
    twin->reported = NULL;
}

static void free_twin(struct twins *twins, struct twin *twin) {
    forget_reported(twins, twin);
    twin_drop_ears(twin);
    device_map_remove(&twins->by_key, twin->device_key);
    free(twin);
}

static void free_if_unused(struct twins *twins, struct twin *twin) {
    if (!twin->asks && !twin->ears && !twin->reported && twin->unsaid == 0 && !twin->is_running &&
        !twin->wants_load && !twin->is_loading)
        free_twin(twins, twin);
}

/* Documents that were not used for the longest time go; not those that only the stream has. */
static void make_room(struct twins *twins, const struct twin *except) {
    for (unsigned i = 0; i < EVICT_TRIES && twins->known_bytes > LIMIT_TWIN_KNOWN_BYTES; i++) {
        struct twin *last = twins->known->prev;
        if (last == except)
            return;
        if (last->unsaid > 0) {
            DL_DELETE(twins->known, last);
            DL_PREPEND(twins->known, last);
            continue;
        }
        forget_reported(twins, last);
        free_if_unused(twins, last);
    }
}

void twin_know(struct twins *twins, struct twin *twin, char *reported, int64_t version) {
    forget_reported(twins, twin);
    if (!reported)
        return;
    twin->reported = reported;
    twin->reported_size = strlen(reported);
    twin->reported_version = version;
    twins->known_bytes += twin->reported_size;
    DL_PREPEND(twins->known, twin);
    make_room(twins, twin);
}

/* ---- asking ---- */

static void free_ask(struct twin_ask *ask) {
    free(ask->document);
    free(ask);
}

static struct slice put(uint8_t **at, struct slice from) {
    struct slice copy = slice_make(*at, from.size);
    if (from.size > 0)
        memcpy(*at, from.data, from.size);
    *at += from.size;
    return copy;
}

static void deliver_ask(struct mail *mail, void *receiver);

int twins_ask(struct worker *worker, const struct twin_request *request) {
    struct twins *twins = twins_of(worker);
    size_t size =
        sizeof(struct twin_ask) + request->note.size + request->patch.size + request->identity.size;
    dg_assert(request->note.size <= LIMIT_TWIN_NOTE_BYTES);
    if (twins->ask_count >= LIMIT_TWIN_ASKS || twins->ask_bytes + size > LIMIT_TWIN_ASK_BYTES)
        return DG_ERR_BUSY;
    struct twin_ask *ask = malloc(size);
    if (!ask)
        return DG_ERR_NO_MEMORY;
    uint8_t *at = ask->bytes;
    *ask = (struct twin_ask){.mail.deliver = deliver_ask,
                             .asker = worker,
                             .request = *request,
                             .answer = {.owner = request->owner, .tag = request->tag},
                             .size_bytes = size};
    ask->answer.note = ask->request.note = put(&at, request->note);
    ask->request.patch = put(&at, request->patch);
    ask->request.identity = put(&at, request->identity);
    twins->ask_count++;
    twins->ask_bytes += size;
    mailbox_post(&home_of(twins, request->target.device_key)->mailbox, &ask->mail);
    return 0;
}

/* Back at the asker. */
static void deliver_answer(struct mail *mail, void *receiver) {
    struct twin_ask *ask = (struct twin_ask *)(void *)mail;
    struct twins *twins = twins_of(receiver);
    if (twins) {
        twins->ask_count--;
        twins->ask_bytes -= ask->size_bytes;
        twins->options->answered(receiver, &ask->answer);
    }
    free_ask(ask);
}

static void send_back(struct twin_ask *ask, int err) {
    ask->answer.err = err;
    ask->answer.why = slice_from_string(ask->why);
    ask->answer.document = ask->document ? slice_from_string(ask->document) : slice_make(NULL, 0);
    ask->mail.deliver = deliver_answer;
    mailbox_post(&ask->asker->mailbox, &ask->mail);
}

void twin_answer(struct twin *twin, int err) {
    struct twin_ask *ask = twin->asks;
    twin->asks = ask->next;
    send_back(ask, err);
}

void twin_answer_all(struct twin *twin, int err) {
    while (twin->asks && !twin->is_reporting)
        twin_answer(twin, err);
}

/* ---- at the home ---- */

/* False: it waits. */
static bool serve(struct twins *twins, struct twin *twin) {
    struct twin_ask *ask = twin->asks;
    bool is_get = ask->request.action == TWIN_GET;
    if (is_get ? ask->loads_left > 0 : !twin->reported) {
        if (!twin->is_loading || ask->loads_left > 1)
            twin_load(twins, twin);
        return false;
    }
    if (!is_get)
        return !twin_report_begin(twins, twin);
    ask->loads_left = twin->is_loading ? 2 : 1;
    return true;
}

void twin_run(struct twins *twins, struct twin *twin) {
    if (twin->is_running)
        return;
    twin->is_running = true;
    while (twin->asks && !twin->is_reporting && serve(twins, twin)) {
    }
    twin->is_running = false;
    free_if_unused(twins, twin);
}

static void deliver_ask(struct mail *mail, void *receiver) {
    struct twin_ask *ask = (struct twin_ask *)(void *)mail;
    struct twins *twins = twins_of(receiver);
    struct twin *twin = twins ? reach(twins, ask->request.target.device_key) : NULL;
    if (!twins) { /* the gateway ends */
        free_ask(ask);
        return;
    }
    if (!twin) {
        send_back(ask, DG_ERR_NO_MEMORY);
        return;
    }
    LL_APPEND(twin->asks, ask);
    twin_run(twins, twin);
}

/* ---- listening ---- */

struct listening {
    struct mail mail;
    struct worker *worker;
    int64_t device_key;
    uint64_t owner;
    struct twin_ear *ear; /* owned; NULL: it listens no more */
};

static void deliver_listening(struct mail *mail, void *receiver) {
    struct listening *listening = (struct listening *)(void *)mail;
    struct twins *twins = twins_of(receiver);
    struct twin *twin = !twins           ? NULL
                        : listening->ear ? reach(twins, listening->device_key)
                                         : twin_find(twins, listening->device_key);
    if (twin && listening->ear)
        twin_add_ear(twins, twin, listening->ear);
    else if (twin)
        twin_drop_ear(twin, listening->worker, listening->owner);
    else
        free(listening->ear);
    if (twin)
        free_if_unused(twins, twin);
    free(listening);
}

static int post_listening(struct worker *worker, int64_t device_key, uint64_t owner,
                          struct twin_ear *ear) {
    struct listening *listening = malloc(sizeof(*listening));
    if (!listening)
        return DG_ERR_NO_MEMORY;
    *listening = (struct listening){.mail.deliver = deliver_listening,
                                    .worker = worker,
                                    .device_key = device_key,
                                    .owner = owner,
                                    .ear = ear};
    mailbox_post(&home_of(twins_of(worker), device_key)->mailbox, &listening->mail);
    return 0;
}

int twins_listen(struct worker *worker, const struct twin_listener *listener) {
    struct slice child = listener->child;
    struct twin_ear *ear = malloc(sizeof(*ear) + child.size);
    if (!ear)
        return DG_ERR_NO_MEMORY;
    *ear = (struct twin_ear){.worker = worker,
                             .owner = listener->owner,
                             .shape = listener->shape,
                             .child_size = (uint8_t)child.size};
    if (child.size > 0)
        memcpy(ear->child, child.data, child.size);
    int err = post_listening(worker, listener->device_key, listener->owner, ear);
    if (err < 0)
        free(ear);
    return err;
}

void twins_ignore(struct worker *worker, int64_t device_key, uint64_t owner) {
    (void)!post_listening(worker, device_key, owner, NULL);
}

/* ---- changes ---- */

/* Somebody else may have written it: what is known of it does not hold, unless it is what
 * PostgreSQL is being told. */
static void changed(struct twins *twins, struct twin *twin) {
    if (twin->ears)
        twin_load(twins, twin);
    if (twin->unsaid > 0)
        twin->is_stale = true;
    else
        forget_reported(twins, twin);
    free_if_unused(twins, twin);
}

static void all_changed(struct twins *twins) {
    for (struct twin *twin = twins->known, *next; twin; twin = next) {
        next = twin->next;
        if (!twin->ears)
            changed(twins, twin);
    }
    for (uint32_t i = 0; i < twins->by_key.capacity; i++) {
        struct twin *twin = (struct twin *)(uintptr_t)twins->by_key.slots[i].value;
        if (twins->by_key.slots[i].key != 0 && twin->ears)
            changed(twins, twin); /* is not freed: the map stays as it is */
    }
}

void twins_notice(struct worker *worker, const char *device_keys) {
    struct twins *twins = twins_of(worker);
    if (device_keys[0] == '\0') {
        all_changed(twins);
        return;
    }
    for (const char *at = device_keys; *at;) {
        char *end;
        int64_t key = strtoll(at, &end, 10);
        struct twin *twin = key > 0 ? twin_find(twins, key) : NULL;
        if (twin)
            changed(twins, twin);
        at = *end == ',' ? end + 1 : end + strlen(end);
    }
}

/* ---- life ---- */

int twins_worker_start(struct worker *worker, const struct twins_options *options) {
    struct twins *twins = calloc(1, sizeof(*twins));
    if (!twins)
        return DG_ERR_NO_MEMORY;
    twins->worker = worker;
    twins->options = options;
    twins->loads_end = &twins->loads;
    evtimer_assign(&twins->retry_timer, worker->base, twins_on_retry, twins);
    worker->slots[WORKER_SLOT_TWINS] = twins;
    return 0;
}

void twins_worker_free(struct worker *worker) {
    struct twins *twins = twins_of(worker);
    if (!twins)
        return;
    for (uint32_t i = 0; i < twins->by_key.capacity; i++) {
        struct twin *twin = (struct twin *)(uintptr_t)twins->by_key.slots[i].value;
        if (twins->by_key.slots[i].key == 0)
            continue;
        for (struct twin_ask *ask = twin->asks, *next; ask; ask = next) {
            next = ask->next;
            free_ask(ask);
        }
        twin_drop_ears(twin);
        free(twin->reported);
        free(twin);
    }
    device_map_free(&twins->by_key);
    evtimer_del(&twins->retry_timer);
    worker->slots[WORKER_SLOT_TWINS] = NULL;
    free(twins);
}
