/*
 * The Kafka-protocol read endpoint on the gateway's connections: what stock consumers need to list,
 * seek and read the stream. One worker's thread, unless said otherwise.
 *
 * Requests of one connection are answered in order. One that has to wait (a long poll, a look-up in
 * the registry) stays unread in the connection's input, and reading is paused; when the wait is
 * over the same bytes are handled again. So a waiting consumer costs no copy of its request. Group
 * requests alone are copied and used up, since they travel to the group's worker (group_wire.c).
 */
#pragma once

#include "common/err.h"
#include "gateway/loop/worker.h"
#include "gateway/transport/connection.h"
#include "registry/registry.h"
#include "storage/stream.h"

extern const struct connection_protocol kafka_protocol;

/* Per-worker state; before worker_start(). DG_ERR_NO_MEMORY. */
DG_NODISCARD int kafka_worker_start(struct worker *worker, struct stream *stream,
                                    struct registry *registry);

/* Consumer groups and the ledger of quotas, for which workers work together: before any worker
 * runs, after all of them have their part. workers outlives it. DG_ERR_NO_MEMORY. */
DG_NODISCARD int kafka_groups_start(struct worker *worker, struct worker **workers, unsigned count);

/* After the worker's connections are closed, before stream_close(). Nothing when never started. */
void kafka_worker_free(struct worker *worker);

/* Ends the connections of principals that a change of the registry concerns. */
void kafka_revoke(struct worker *worker, const struct registry_revocation *revocation);
