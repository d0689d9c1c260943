#include "provisioning/worker.h"

#include "common/assert.h"

/* Each worker touches only its own; static, so there is nothing to free and nothing to run out of.
 */
static struct provisioning_worker states[LIMIT_WORKERS];

int provisioning_worker_start(struct worker *worker, struct registry *registry,
                              struct stream *stream, const struct provisioning_options *options) {
    dg_assert(worker->index < LIMIT_WORKERS && options->health.ready);
    struct provisioning_worker *state = &states[worker->index];
    *state = (struct provisioning_worker){.registry = registry, .health = options->health};
    worker->slots[WORKER_SLOT_PROVISIONING] = state;
    return 0;
}
