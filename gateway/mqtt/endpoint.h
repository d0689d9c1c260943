/*
 * MQTT on the gateway's connections: joins a worker's connections, sessions, stream appender,
 * registry and claims. One worker's thread, unless said otherwise.
 */
#pragma once

#include <stdbool.h>

#include "common/err.h"
#include "gateway/command/twins.h"
#include "gateway/loop/worker.h"
#include "gateway/session/outbox.h"
#include "gateway/transport/connection.h"
#include "registry/registry.h"
#include "storage/stream.h"

extern const struct connection_protocol mqtt_protocol;

/* Creates the worker's MQTT part and its stream appender (WORKER_SLOT_STREAM) and adds the turn
 * hook that submits events. Before worker_start() and before connection_pool_create(). */
DG_NODISCARD int mqtt_worker_start(struct worker *worker, struct stream *stream,
                                   struct registry *registry);

/* The worker counts quotas together with another one. Before any worker runs. */
void mqtt_worker_join(struct worker *worker, struct worker *other);

/* What sessions of before the start have left behind: those whose time is over are deleted, the
 * others go to the workers that are their devices' homes. Waits for the disk. After
 * claims_worker_start() of all workers, before the first worker_start(). DG_ERR_NO_MEMORY. */
DG_NODISCARD int mqtt_restore_sessions(struct stream *stream, struct worker **workers,
                                       unsigned count, int64_t wall_ms);

/* Likewise the producers of devices. */
DG_NODISCARD int mqtt_restore_producers(struct stream *stream, struct worker **workers,
                                        unsigned count);

/* After all workers were joined and before the first worker_free() and stream_close(): takes back
 * what the committer still holds, then frees all. Harmless when it was never started. */
void mqtt_worker_free(struct worker *worker);

/* Gives a message to the session of this id, the claim's owner. As session_deliver(); also
 * DG_ERR_PRESSURE: the device does not read. */
DG_NODISCARD int mqtt_deliver(struct worker *worker, uint64_t owner,
                              struct outbox_message *message);

/* commands_options.recall */
void mqtt_recall(struct worker *worker, uint64_t owner, int64_t device_key);

/* commands_options.replied: of a reply that this session's device has given. */
void mqtt_reply_done(struct worker *worker, uint64_t owner, uint64_t tag, int err);

/* Gives a session what the home of a twin says; harmless when it has gone. */
void mqtt_twin_answered(struct worker *worker, const struct twin_answer *answer);

/* Ends the sessions that a change of the registry concerns. */
void mqtt_revoke(struct worker *worker, const struct registry_revocation *revocation);

/* What the sessions that stay are to know of the registry. */
void mqtt_update(struct worker *worker, const struct registry_update *update);

/* worker->config is another one now; the one before is about to be freed. */
void mqtt_worker_reconfigure(struct worker *worker);

/* SIGTERM: no session reads on; each ends (DISCONNECT 0x8B) when its last acknowledgement has left.
 * May be called again. */
void mqtt_worker_drain(struct worker *worker);

/* True when no session is left and every appended record has come back. */
bool mqtt_worker_idle(struct worker *worker);
