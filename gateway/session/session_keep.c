/*
 * Sessions that outlive their connection (MQTT5 3.1.2.4, 3.1.2.11.2, 4.1): which session a
 * connection goes on with, and what of it is written when.
 *
 * A session is durable when it may outlive the connection; then its record is on the disk before
 * CONNACK, SUBACK and UNSUBACK of what changed it, and its identities in the unit of their event. A
 * session that ends with its connection writes nothing.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/metrics.h"
#include "gateway/session/session_internal.h"
#include "gateway/session/tenants.h"

/* ---- beginning ---- */

uint32_t session_cap_expiry(const struct session *session, uint32_t asked_s) {
    uint64_t cap_s = session->shared->config->mqtt_max_session_expiry / 1000;
    return asked_s < cap_s ? asked_s : (uint32_t)cap_s;
}

int session_keep(struct session *session) {
    if (!session->kept)
        session->kept = kept_new(session->shared->next_epoch++);
    return session->kept ? 0 : DG_ERR_NO_MEMORY;
}

/* Goes on with the device's session or begins another one; nothing is written yet. */
static int choose(struct session *session, struct session_kept *kept, bool may_keep) {
    if (!may_keep && !kept && session->expiry_s > 0) {
        session->expiry_s = 0;
        session->flags |= SESSION_EXPIRY_CAPPED;
    }
    if (kept && !(session->flags & SESSION_CLEAN_START) &&
        !kept_is_over(kept, session->shared->wall_ms)) {
        session->kept = kept;
        session->flags |= SESSION_RESUMED | SESSION_DURABLE;
        return 0;
    }
    session->former = kept;
    if (session->expiry_s == 0)
        return 0;
    session->flags |= SESSION_DURABLE;
    return session_keep(session);
}

/* What is written: the session as it is now, or that it is over. Points into bytes. */
static struct stream_mutation record(struct session *session, bool is_over, int64_t disconnected_ms,
                                     struct kept_bytes *bytes) {
    struct session_kept *kept = session->kept;
    if (is_over)
        return kept_mutation(NULL, NULL, session->device_key, bytes);
    kept->disconnected_ms = disconnected_ms;
    kept->expiry_s = session->expiry_s;
    kept->stream_epoch = session->shared->stream_epoch;
    const struct session_will *will = disconnected_ms == 0 ? session->will : kept->will;
    return kept_mutation(kept, will, session->device_key, bytes);
}

/* The session did not come to be: back to what there was. */
static void undo(struct session *session) {
    if (session->flags & SESSION_RESUMED) {
        session->kept->disconnected_ms = session->shared->wall_ms;
        return;
    }
    kept_free(session->kept);
    session->kept = session->former;
    session->former = NULL;
}

static void opened(struct session *session) {
    session->flags |= SESSION_OPENED;
    if (session->flags & SESSION_RESUMED) {
        metric_add(METRIC_SESSIONS_RESUMED, 1);
        free(session->kept->will); /* MQTT5 3.1.3-9 */
        session->kept->will = NULL;
    }
    if (session->former)
        session->shared->effects->discard(session, session->former);
    session->former = NULL;
}

/* A session that ends here leaves its will (MQTT5 3.1.3.2.2). As the effect. */
static int write_opening(struct session *session) {
    struct kept_bytes bytes;
    struct stream_mutation mutation =
        record(session, !(session->flags & SESSION_DURABLE), 0, &bytes);
    if (session->former && session->former->will) {
        int err = session_will_append(session, session->former->will, &mutation, SESSION_TAG_SAVED);
        if (err == 0 || err == DG_ERR_PRESSURE)
            return err;
    }
    return session_mutate(session, &mutation, session_tag_make(SESSION_TAG_SAVED, 0, 0));
}

int session_open(struct session *session) {
    if (session->flags & (SESSION_OPENED | SESSION_SAVING))
        return 0;
    bool durable = session->flags & SESSION_DURABLE;
    if (!durable && !session->former) {
        opened(session);
        return 0;
    }
    int err = write_opening(session);
    if (err == 0)
        session->flags |= SESSION_SAVING;
    else if (err == DG_ERR_PRESSURE)
        session->flags |= SESSION_PAUSED_STREAM;
    return err;
}

/* Only now, since whoever had the device before no longer counts. False: there are as many
 * connections as there may be, and the session has ended. */
static bool enter(struct session *session, struct session_kept *kept) {
    char text[96];
    if (tenant_enter(session->tenant) == 0) {
        session->flags |= SESSION_ENTERED;
        return true;
    }
    session->former = kept;
    snprintf(text, sizeof(text), "over the tenant's quota of %llu connections",
             (unsigned long long)session->tenant->policy->quota.connections);
    session_stop(session, DG_ERR_QUOTA, text);
    return false;
}

void session_claim_done(struct session *session, int err, struct session_kept *kept,
                        bool may_keep) {
    session->flags &= ~(uint32_t)SESSION_CLAIM_ASKED;
    if (err == 0)
        session->flags |= SESSION_CLAIM_HELD;
    if (session->state == SESSION_CLOSED) { /* gone while it waited */
        session->former = kept;
        session_settle(session);
        return;
    }
    if (err == 0 && !enter(session, kept))
        return;
    if (err == 0)
        err = choose(session, kept, may_keep);
    if (err < 0)
        session_stop(session, err, NULL);
    else
        session_connect_finish(session);
}

/* ---- changing ---- */

bool session_save_change(struct session *session) {
    struct kept_bytes bytes;
    struct stream_mutation mutation = record(session, false, 0, &bytes);
    int err = session_mutate(session, &mutation, session_tag_make(SESSION_TAG_SAVED, 0, 0));
    if (err == 0) {
        session->flags &= ~(uint32_t)SESSION_CHANGED;
        session->flags |= SESSION_SAVING;
        session_pause(session, SESSION_PAUSED_STATE);
    } else if (err == DG_ERR_PRESSURE) {
        session_pause(session, SESSION_PAUSED_STREAM);
    } else {
        session_stop(session, err, NULL);
    }
    return session->state == SESSION_CLOSED;
}

void session_saved(struct session *session, int err) {
    bool was_open = session->flags & SESSION_OPENED, closed = session->state == SESSION_CLOSED;
    dg_assert(session->flags & SESSION_SAVING);
    session->flags &= ~(uint32_t)SESSION_SAVING;
    if (err == 0 && !was_open)
        opened(session);
    if (closed)
        session_settle(session);
    else if (err < 0)
        session_stop(session, err, NULL);
    else if (!was_open)
        session_connect_finish(session);
    else
        session_unpause(session, SESSION_PAUSED_STATE);
}

/* ---- ending ---- */

const struct stream_mutation *session_end_mutation(struct session *session,
                                                   struct stream_mutation *mutation,
                                                   struct kept_bytes *bytes) {
    const uint32_t open = SESSION_DURABLE | SESSION_OPENED;
    if ((session->flags & (open | SESSION_END_SAVED)) != open)
        return NULL;
    *mutation = record(session, session->expiry_s == 0, session->shared->wall_ms, bytes);
    return mutation;
}

int session_save_end(struct session *session) {
    struct kept_bytes bytes;
    struct stream_mutation mutation;
    if (!session_end_mutation(session, &mutation, &bytes))
        return 0;
    int err = session_mutate(session, &mutation, session_tag_make(SESSION_TAG_OWN, 0, 0));
    if (err != DG_ERR_PRESSURE)
        session->flags |= SESSION_END_SAVED;
    return err;
}

void session_let_go(struct session *session) {
    struct session_subscription *s = session->kept ? session->kept->subscriptions : NULL;
    for (; s; s = s->next)
        session_deliver_sleep(session, s);
    if (session->kept)
        session->kept->children_asked = 0;
    if (!(session->flags & SESSION_OPENED)) {
        undo(session);
    } else if (!(session->flags & SESSION_DURABLE)) {
        kept_free(session->kept);
        session->kept = NULL;
    } else if (session->expiry_s == 0) {
        session->shared->effects->discard(session, session->kept);
        session->kept = NULL;
    } else {
        kept_drop_removed(session->kept); /* of an UNSUBSCRIBE whose answer did not leave */
    }
}
