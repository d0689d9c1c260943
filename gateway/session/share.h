/*
 * Shares of what is on its way to the disk. A worker's appender takes LIMIT_APPENDER_BYTES, and a
 * group that is written waits for all of its bytes; so who publishes as fast as it can would make
 * everybody's acknowledgement late, and would find the appender full before the others do.
 *
 * While others publish too, one connection has at most LIMIT_SESSION_SHARE_BYTES in flight and one
 * tenant, on one worker, LIMIT_TENANT_SHARE_BYTES: it is not read meanwhile. A tenant's connections
 * wait in a line for it (admission.h). Who is alone may have everything.
 *
 * Bytes are counted in units, rounded up to a power of two, at least one for each ticket; the power
 * travels in the ticket's tag. Pure. One worker's thread.
 */
#pragma once

#include "common/assert.h"
#include "gateway/session/session_internal.h"
#include "gateway/session/tenants.h"

enum {
    SHARE_UNIT_BYTES = 256,
    SHARE_TAG_SHIFT = 52,
    SHARE_ALONE_NS = 1000000000, /* nobody else has published for so long */
};

/* The power of two of an event's units. */
static inline unsigned share_code(const struct device_event *event) {
    size_t units = (event->payload.size + event->user_properties.size) / SHARE_UNIT_BYTES;
    return units == 0 ? 0 : 64u - (unsigned)__builtin_clzll(units);
}
static inline unsigned share_of_tag(uint64_t tag) {
    return tag >> SHARE_TAG_SHIFT & 15;
}
static inline uint64_t share_to_tag(uint64_t tag, unsigned code) {
    return tag | (uint64_t)code << SHARE_TAG_SHIFT;
}

/* So much is on its way from now on ... */
static inline void share_take(struct session *session, unsigned code) {
    struct session_shared *shared = session->shared;
    uint32_t units = 1u << code;
    session->outstanding += units;
    session->tenant->outstanding += units;
    if (shared->last_session != session->id) {
        if (shared->last_session != 0)
            shared->session_changed_ns = shared->now_ns;
        shared->last_session = session->id;
    }
    if (shared->last_tenant != session->tenant->key) {
        if (shared->last_tenant != 0)
            shared->tenant_changed_ns = shared->now_ns;
        shared->last_tenant = session->tenant->key;
    }
}

/* ... and have arrived. */
static inline void share_give(struct session *session, unsigned code) {
    uint32_t units = 1u << code;
    dg_assert(session->outstanding >= units && session->tenant->outstanding >= units);
    session->outstanding -= units;
    session->tenant->outstanding -= units;
}

/* The connection has its share. */
static inline bool share_session_is_used(const struct session *session) {
    const struct session_shared *shared = session->shared;
    return session->outstanding >= LIMIT_SESSION_SHARE_BYTES / SHARE_UNIT_BYTES &&
           shared->now_ns - shared->session_changed_ns < SHARE_ALONE_NS;
}
/* What makes it worth going on. */
static inline bool share_session_may_resume(const struct session *session) {
    return session->outstanding <= LIMIT_SESSION_SHARE_BYTES / SHARE_UNIT_BYTES / 2;
}

/* Units that the tenant may still have in flight. */
static inline uint32_t share_tenant_room(const struct session *session) {
    const struct session_shared *shared = session->shared;
    const uint32_t most = LIMIT_TENANT_SHARE_BYTES / SHARE_UNIT_BYTES;
    uint32_t used = session->tenant->outstanding;
    if (used >= most && shared->now_ns - shared->tenant_changed_ns < SHARE_ALONE_NS)
        return 0;
    return used < most ? most - used : most;
}

/* The session's next publish waits for the tenant's share, or behind others that do. */
static inline bool share_tenant_is_used(const struct session *session) {
    return session->tenant->share->first || share_tenant_room(session) == 0;
}
