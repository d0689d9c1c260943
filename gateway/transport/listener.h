/*
 * Listening sockets of the main thread. Each accepted connection goes to the worker with the
 * fewest connections. When descriptors run out, accepting pauses for a moment instead of spinning.
 */
#pragma once

#include "gateway/transport/connection.h"

struct listener_set;

/* Main thread. workers outlives the set. DG_ERR_NO_MEMORY. */
DG_NODISCARD int listener_set_create(struct event_base *base, struct worker **workers,
                                     unsigned worker_count, struct listener_set **ret_set);

/*
 * Binds every address of a comma-separated list ("127.0.0.1:1883,[::1]:1883", port 0 allowed) for
 * one kind of listener. An empty list binds nothing. IPv6 sockets are IPv6-only. An address family
 * that the machine does not have is skipped with a log line when another address of the list works.
 * DG_ERR_INVALID or DG_ERR_IO with a message for people in ret_error (CONFIG_ERROR_SIZE).
 */
DG_NODISCARD int listener_set_bind(struct listener_set *set, const char *addresses,
                                   const struct connection_listener *kind, char *ret_error);

/* The listeners that are paced accept, all together, so many connections in a second (a second's
 * worth at once); who comes beyond that waits in the backlog. 0: no limit. */
void listener_set_pace(struct listener_set *set, uint64_t per_second);

/* The port of one socket of this kind (for port 0), or 0 when none is bound. */
uint16_t listener_set_port(const struct listener_set *set, const struct connection_listener *kind);

/* Stops accepting; closes the sockets. */
void listener_set_close(struct listener_set *set);
void listener_set_free(struct listener_set *set);
