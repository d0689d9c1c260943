/*
 * Device twins on the workers: what a device says of itself (reported state) on its way to the
 * stream and to PostgreSQL, and what back ends want of it (desired state) on its way to the device.
 *
 * All that belongs to one device happens on its home worker (claims_home()), in the order in which
 * it was asked for; others ask by mail. The home reads a twin from PostgreSQL when it needs it,
 * many at a time, and remembers what a device has reported while there is room for it.
 *
 * Reported state is merged into what is known and appended to <tenant>.commands as
 * duragate.state.reported.v1, together with what PostgreSQL is to say (transitions.h); then it is
 * answered: it is durable. One report of a device at a time, so a version is given once.
 *
 * Desired state is heard of by NOTIFY duragate_twin, read, and given to each session that listens:
 * the newest only, when the device has acknowledged the one before. A session that is gone is
 * forgotten when it is told; it listens anew when the device comes back.
 *
 * Shapes of what a listener is given: the whole document, {"version":n,"state":{...}} on
 * $dg/state/desired, QoS 1, also when it begins to listen (native); or each change,
 * {...patch...,"$version":n} on $dg/state/desired/<n>, QoS 0, in order, nothing when it begins to
 * listen, and the whole document as one change when more were made than are kept (IoT Hub). Of a
 * device behind a gateway device: the same below $dg/via/<device>/.
 */
#pragma once

#include <stdint.h>

#include "common/err.h"
#include "gateway/command/twin.h"
#include "gateway/loop/worker.h"
#include "gateway/session/outbox.h"

struct registry;

/* 0: the answer follows, later. DG_ERR_BUSY, DG_ERR_NO_MEMORY. */
DG_NODISCARD int twins_ask(struct worker *worker, const struct twin_request *request);

/* From now on; again: as if anew. A device has LIMIT_TWIN_LISTENERS; the oldest gives way.
 * DG_ERR_NO_MEMORY. */
DG_NODISCARD int twins_listen(struct worker *worker, const struct twin_listener *listener);
/* Harmless when it does not listen; without memory it ends when it is told next. */
void twins_ignore(struct worker *worker, int64_t device_key, uint64_t owner);

/* What NOTIFY says, on every worker: device keys, "17,18"; "": some may have been missed. */
void twins_notice(struct worker *worker, const char *device_keys);

struct twins_options {
    struct worker **workers;
    unsigned worker_count;
    struct registry *registry;
    /* Gives a message to a session on its worker's thread, as session_deliver(). */
    int (*deliver)(struct worker *worker, uint64_t owner, struct outbox_message *message);
    /* On the asker's worker, never from within twins_ask(). */
    void (*answered)(struct worker *worker, const struct twin_answer *answer);
};

/* Before any worker runs, after transitions_worker_start(); options outlive it. PostgreSQL is not
 * asked before it says what the process before left: twins_restored(). */
DG_NODISCARD int twins_worker_start(struct worker *worker, const struct twins_options *options);
/* transitions_restore() calls it, on each worker. */
void twins_restored(struct worker *worker);
/* After all workers have ended, before transitions_worker_free(). Harmless without a part. */
void twins_worker_free(struct worker *worker);
