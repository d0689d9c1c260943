/*
 * What a back end, or time, has caused goes into the tenant's commands stream: rows of
 * stream_outbox, which were committed together with the change itself.
 *
 * A row is appended under its key (STREAM_STATE_OUTBOX, i64 little-endian, no value), in one unit;
 * then it is deleted in PostgreSQL, then the state. So it is written once, whatever ends in
 * between. Rows that nobody has appended, since an answer got lost or the gateway has ended, are
 * read again: at the start, when somebody says so, and now and then. The worker that is a device's
 * home appends the device's rows; the first worker reads.
 */
#pragma once

#include "common/err.h"
#include "gateway/command/command_event.h"
#include "gateway/command/target.h"
#include "gateway/event/event.h"
#include "gateway/loop/worker.h"
#include "registry/registry.h"
#include "storage/stream.h"

struct relay_row {
    int64_t outbox_key;
    struct command_target target;
    enum event_type type;
    struct slice subject, payload; /* copied */
};

/* On the home of its device. The event is in line before anything that is appended later. Without
 * memory the row is read again later. */
void relay_append(struct worker *worker, const struct relay_row *row);

/* Any worker: there are rows of this gateway that no relay_append() will be called for. */
void relay_soon(struct worker *worker);

/* Before any worker runs; after transitions_worker_start(). DG_ERR_NO_MEMORY. */
DG_NODISCARD int relay_worker_start(struct worker *worker, struct worker **workers, unsigned count,
                                    struct stream *stream, struct registry *registry);
/* On the first worker, at the start: all that was left is in line, then finished() is called.
 * Until PostgreSQL answers, nothing. From then on it looks by itself. */
void relay_begin(struct worker *worker, void (*finished)(struct worker *worker));
/* After all workers have ended, before transitions_worker_free(). Harmless without a part. */
void relay_worker_free(struct worker *worker);
