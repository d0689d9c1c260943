#include "provisioning/worker.h"

#include <jansson.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "provisioning/stream_call.h"

/* Each worker touches only its own; static, so there is nothing to free and nothing to run out of.
 */
static struct provisioning_worker states[LIMIT_WORKERS];

/* A body may hold a password, and so may the values that were parsed from it. */
static void wipe_free(void *memory) {
    if (memory)
        explicit_bzero(memory, malloc_usable_size(memory));
    free(memory);
}

int provisioning_worker_start(struct worker *worker, struct registry *registry,
                              struct stream *stream, const struct provisioning_options *options) {
    dg_assert(worker->index < LIMIT_WORKERS && options->health.ready);
    struct provisioning_worker *state = &states[worker->index];
    *state = (struct provisioning_worker){
        .registry = registry, .stream = stream, .health = options->health};
    worker->slots[WORKER_SLOT_PROVISIONING] = state;
    json_set_alloc_funcs(malloc, wipe_free);
    return stream_watcher_create(stream, &worker->mailbox, group_reset_advanced, worker,
                                 &state->watcher);
}

void provisioning_worker_free(struct worker *worker) {
    struct provisioning_worker *state = provisioning_state(worker);
    if (!state)
        return;
    if (state->watcher)
        stream_watcher_free(state->watcher);
    state->watcher = NULL;
    worker->slots[WORKER_SLOT_PROVISIONING] = NULL;
}
