/*
 * Those who have arrived and not yet shown who they are. They are counted by source: an address, or
 * with IPv6 its /64, since one holds all of that. TLS connections stand in two lines, oldest first:
 * silent ones, which cost no more than a descriptor, and handshakes. The silent give way to newer
 * ones; a handshake to a newer one when it has stalled.
 *
 * Loopback is not counted as a source. Worker's thread only.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

struct connection;
struct connection_pool;
struct source;

/* ---- sources: how many unknown connections each has ---- */
struct sources {
    struct source *by_prefix;
};
/* Counts one more; false when the source has `most` (0: no bound) already, or memory is out. */
bool sources_add(struct sources *sources, const struct in6_addr *address, unsigned most);
void sources_remove(struct sources *sources, const struct in6_addr *address);
/* False for loopback and for an address that is not known. */
bool sources_count(const struct in6_addr *address);

/* ---- lines ---- */
struct arrival_line {
    uint32_t first, last; /* index + 1 */
    unsigned count;
};

struct arrivals {
    struct sources sources;
    struct arrival_line silent, handshakes;
};

/* False when the connection's source has as many unknown ones as it may have. */
bool arrival_admit(struct connection *c);
/* A TLS connection waits for its first byte; an older one may be closed for it. */
void arrival_begin_silence(struct connection *c);
/* The first byte came. False when there are too many handshakes. */
bool arrival_begin_handshake(struct connection *c);
/* No longer in a line: TLS is done, or the connection ends. */
void arrival_leave(struct connection *c);
/* No longer counted: known, or it ends. */
void arrival_forget(struct connection *c);
