/*
 * The HTTP API: /v1 (tenants, devices, credentials, certificate authorities, API keys; streams and
 * their consumer groups) and the operations routes (health, metrics). Routes run on the worker that
 * owns the connection; whatever needs PostgreSQL or a slow hash goes to the registry by message and
 * the answer comes back later.
 *
 * One row of routes_table.h is the only place where a route's facts live.
 */
#pragma once

#include <stdbool.h>

#include "common/buffer.h"
#include "common/err.h"
#include "gateway/http/http.h"
#include "gateway/loop/worker.h"
#include "registry/registry.h"
#include "storage/stream.h"

/* What the composition root knows about the whole process. Called on any worker. */
struct provisioning_health {
    void *context;
    /* False when traffic should go elsewhere; then why says so in words. */
    bool (*ready)(void *context, struct buffer *why);
};

struct provisioning_options {
    struct provisioning_health health;
};

/* Tables for http_routes, each ended by a row without a pattern. */
extern const struct http_route provisioning_routes[];            /* /v1 */
extern const struct http_route provisioning_operations_routes[]; /* /healthz, /readyz, /metrics */
extern const struct http_route provisioning_device_routes[];     /* of devices and services */

/* Before worker_start(). Registry, stream and what options point to outlive the worker; so does the
 * worker's part of the Kafka endpoint. DG_ERR_NO_MEMORY. */
DG_NODISCARD int provisioning_worker_start(struct worker *worker, struct registry *registry,
                                           struct stream *stream,
                                           const struct provisioning_options *options);

/* After the worker's connections are closed, before stream_close(). Nothing when never started. */
void provisioning_worker_free(struct worker *worker);
