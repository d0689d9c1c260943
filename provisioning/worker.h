/* What provisioning keeps per worker. Worker's thread. */
#pragma once

#include "gateway/loop/worker.h"
#include "provisioning/provisioning.h"
#include "registry/registry.h"
#include "storage/stream.h"

struct group_reset;

struct provisioning_worker {
    struct registry *registry;
    struct stream *stream;
    struct provisioning_health health;
    struct stream_watcher *watcher;  /* tells when a look-up by time is to be tried again */
    struct group_reset *cold_resets; /* group_reset.c: they wait for it */
};

static inline struct provisioning_worker *provisioning_state(struct worker *worker) {
    return worker->slots[WORKER_SLOT_PROVISIONING];
}
