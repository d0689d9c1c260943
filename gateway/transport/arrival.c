#include "gateway/transport/arrival.h"

#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/hash.h"
#include "common/limits.h"
#include "common/metrics.h"
#include "gateway/transport/transport.h"

#include <uthash.h>

enum { STALLED_MS = 5000 }; /* a handshake that takes longer gives way to another one */

/* ---- sources ---- */

struct source {
    uint8_t prefix[16];
    unsigned count;
    UT_hash_handle hh;
};

bool sources_count(const struct in6_addr *address) {
    if (IN6_IS_ADDR_V4MAPPED(address))
        return address->s6_addr[12] != 127;
    return !IN6_IS_ADDR_LOOPBACK(address) && !IN6_IS_ADDR_UNSPECIFIED(address);
}

static struct source *find_source(struct sources *sources, const struct in6_addr *address,
                                  uint8_t *ret_prefix) {
    enum { NETWORK_BYTES = 8 };
    memcpy(ret_prefix, address, 16);
    if (!IN6_IS_ADDR_V4MAPPED(address))
        memset(ret_prefix + NETWORK_BYTES, 0, 16 - NETWORK_BYTES);
    struct source *source;
    HASH_FIND(hh, sources->by_prefix, ret_prefix, 16, source);
    return source;
}

bool sources_add(struct sources *sources, const struct in6_addr *address, unsigned most) {
    uint8_t prefix[16];
    struct source *source = find_source(sources, address, prefix);
    if (!source) {
        source = calloc(1, sizeof(*source));
        if (!source)
            return false;
        memcpy(source->prefix, prefix, sizeof(prefix));
        HASH_ADD(hh, sources->by_prefix, prefix, sizeof(source->prefix), source);
    } else if (most > 0 && source->count >= most) {
        return false;
    }
    source->count++;
    return true;
}

void sources_remove(struct sources *sources, const struct in6_addr *address) {
    uint8_t prefix[16];
    struct source *source = find_source(sources, address, prefix);
    dg_assert(source && source->count > 0);
    if (--source->count > 0)
        return;
    HASH_DELETE(hh, sources->by_prefix, source);
    free(source);
}

bool arrival_admit(struct connection *c) {
    if (!sources_count(&c->peer_address))
        return true;
    unsigned most = (unsigned)c->worker->config->security_unknown_connections;
    if (!sources_add(&c->worker->connections->arrivals.sources, &c->peer_address, most))
        return false;
    connection_set(c, CONNECTION_UNKNOWN);
    return true;
}

void arrival_forget(struct connection *c) {
    if (!connection_has(c, CONNECTION_UNKNOWN))
        return;
    connection_clear(c, CONNECTION_UNKNOWN);
    sources_remove(&c->worker->connections->arrivals.sources, &c->peer_address);
}

void connection_set_known(struct connection *c) {
    arrival_forget(c);
    if (!c->protocol->has_secrets)
        connection_clear(c, CONNECTION_SECRETS);
}

/* ---- lines ---- */

static struct connection *at(const struct connection_pool *pool, uint32_t place) {
    return place == 0 ? NULL : connection_slot(pool, place - 1);
}

static void line_add(struct connection_pool *pool, struct arrival_line *line,
                     struct connection *c) {
    struct connection *last = at(pool, line->last);
    c->arrival_before = line->last;
    c->arrival_behind = 0;
    line->last = c->index + 1;
    if (last)
        last->arrival_behind = c->index + 1;
    else
        line->first = c->index + 1;
    line->count++;
}

static void line_remove(struct connection_pool *pool, struct arrival_line *line,
                        struct connection *c) {
    struct connection *before = at(pool, c->arrival_before), *behind = at(pool, c->arrival_behind);
    *(before ? &before->arrival_behind : &line->first) = c->arrival_behind;
    *(behind ? &behind->arrival_before : &line->last) = c->arrival_before;
    c->arrival_before = c->arrival_behind = 0;
    line->count--;
}

/* It leaves the line at once, so that the next to come does not find it there again. */
static void evict(struct connection *c) {
    arrival_leave(c);
    metric_add(METRIC_CONNECTIONS_EVICTED, 1);
    connection_set(c, CONNECTION_ABRUPT);
    connection_close(c, DG_ERR_LIMIT);
}

void arrival_begin_silence(struct connection *c) {
    struct connection_pool *pool = c->worker->connections;
    struct arrival_line *line = &pool->arrivals.silent;
    if (line->count >= LIMIT_TLS_SILENT_PER_WORKER)
        evict(at(pool, line->first));
    connection_set(c, CONNECTION_SILENT);
    line_add(pool, line, c);
}

bool arrival_begin_handshake(struct connection *c) {
    struct connection_pool *pool = c->worker->connections;
    struct arrival_line *line = &pool->arrivals.handshakes;
    struct connection *oldest = at(pool, line->first);
    arrival_leave(c);
    if (line->count >= LIMIT_TLS_HANDSHAKES_PER_WORKER) {
        uint64_t age_ms = connection_now_ms(oldest) - connection_accepted_ms(oldest);
        if (age_ms < STALLED_MS)
            return false;
        evict(oldest);
    }
    connection_set(c, CONNECTION_SHAKING);
    line_add(pool, line, c);
    return true;
}

void arrival_leave(struct connection *c) {
    struct connection_pool *pool = c->worker->connections;
    if (connection_has(c, CONNECTION_SILENT))
        line_remove(pool, &pool->arrivals.silent, c);
    if (connection_has(c, CONNECTION_SHAKING))
        line_remove(pool, &pool->arrivals.handshakes, c);
    connection_clear(c, CONNECTION_SILENT | CONNECTION_SHAKING);
}
