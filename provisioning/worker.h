/* What provisioning keeps per worker. Worker's thread. */
#pragma once

#include "gateway/loop/worker.h"
#include "provisioning/provisioning.h"
#include "registry/registry.h"

struct provisioning_worker {
    struct registry *registry;
    struct provisioning_health health;
};

static inline struct provisioning_worker *provisioning_state(struct worker *worker) {
    return worker->slots[WORKER_SLOT_PROVISIONING];
}
