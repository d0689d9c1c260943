/*
 * Sessions of before the start. Whoever was connected when the gateway ended without a farewell
 * (kill -9) is taken as disconnected now, and that is written: the time without a connection goes
 * on over any number of starts. What belongs to no session any more is deleted. A session with a
 * will is not over before that is stored, which the home of its claims sees to.
 */
#include <poll.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/buffer.h"
#include "common/log.h"
#include "gateway/mqtt/endpoint_internal.h"

struct restoring {
    struct worker **workers;
    unsigned worker_count;
    int64_t wall_ms;
    int32_t stream_epoch;
    struct device_map sessions; /* device key -> struct session_kept * */
    struct buffer writes;       /* of struct written */
    unsigned restored, expired, malformed, refused;
    int err;
    struct stream_appender *appender;
};

struct written {
    int64_t device_key;
    uint64_t epoch;
    uint16_t packet_id;        /* 0: the session's record */
    struct session_kept *kept; /* its new value, or NULL: delete */
};

static void add_write(struct restoring *restoring, struct written written) {
    if (restoring->err == 0)
        restoring->err =
            buffer_append(&restoring->writes, &written, sizeof(written), LIMIT_STATE_BYTES);
}

/* ---- reading ---- */

static void take_session(struct restoring *restoring, int64_t device_key,
                         struct session_kept *kept) {
    if (kept->disconnected_ms == 0) {
        kept->disconnected_ms = restoring->wall_ms;
        add_write(restoring, (struct written){.device_key = device_key, .kept = kept});
    }
    if (kept->will)
        kept->will->due.at_ms = will_due_ms(kept->will, kept->disconnected_ms, kept->expiry_s);
    if (restoring->err == 0)
        restoring->err = device_map_reserve(&restoring->sessions);
    if (restoring->err < 0) {
        kept_free(kept);
        return;
    }
    device_map_set(&restoring->sessions, device_key, (uintptr_t)kept);
    restoring->restored++;
}

static bool is_over(const struct restoring *restoring, const struct session_kept *kept) {
    bool ended_with_connection = kept->disconnected_ms == 0 && kept->expiry_s == 0;
    bool is_over = ended_with_connection || kept_is_over(kept, restoring->wall_ms);
    return kept->stream_epoch != restoring->stream_epoch || (is_over && !kept->will);
}

static void on_session(void *context, struct slice key, struct slice value) {
    struct restoring *restoring = context;
    int64_t device_key;
    struct session_kept *kept;
    if (restoring->err < 0)
        return;
    int err = kept_decode(key, value, &device_key, &kept);
    if (err == DG_ERR_NO_MEMORY) {
        restoring->err = err;
    } else if (err < 0) {
        restoring->malformed++;
    } else if (is_over(restoring, kept)) {
        restoring->expired++;
        kept_free(kept);
        add_write(restoring, (struct written){.device_key = device_key});
    } else {
        take_session(restoring, device_key, kept);
    }
}

static void on_identity(void *context, struct slice key, struct slice value) {
    struct restoring *restoring = context;
    int64_t device_key;
    uint64_t epoch, found = 0;
    uint16_t packet_id;
    if (restoring->err < 0)
        return;
    if (kept_identity_decode(key, &device_key, &epoch, &packet_id) < 0) {
        restoring->malformed++;
        return;
    }
    (void)device_map_get(&restoring->sessions, device_key, &found);
    struct session_kept *kept = (struct session_kept *)(uintptr_t)found;
    if (!kept || kept->epoch != epoch) {
        add_write(restoring, (struct written){device_key, epoch, packet_id, NULL});
        return;
    }
    restoring->err = identities_reserve(&kept->identities);
    if (restoring->err == 0)
        identities_set(kept->identities, packet_id, IDENTITY_STORED);
}

/* ---- writing ---- */

/* A store without room is no reason not to start: what was refused is done at the next start. */
static void on_written(void *context, const struct stream_ticket *ticket, int err, int64_t offset) {
    struct restoring *restoring = context;
    restoring->refused += err < 0;
}

static void on_room(void *context) {
}

static int write_one(struct restoring *restoring, const struct written *written) {
    struct kept_bytes bytes;
    uint8_t key[KEPT_IDENTITY_KEY_BYTES];
    struct stream_mutation mutation =
        written->packet_id == 0
            ? kept_mutation(written->kept, written->kept ? written->kept->will : NULL,
                            written->device_key, &bytes)
            : kept_identity_mutation(written->device_key, written->epoch, written->packet_id, true,
                                     key);
    return stream_mutate(restoring->appender, &mutation, 1, (struct stream_ticket){0});
}

/* Hands over what is open and waits for an answer, if there is to be one. */
static void wait_for_disk(struct restoring *restoring, struct mailbox *mailbox) {
    stream_appender_turn(restoring->appender);
    struct pollfd waiting = {.fd = mailbox_fd(mailbox), .events = POLLIN};
    if (stream_appender_pending(restoring->appender) > 0)
        (void)poll(&waiting, 1, -1);
    mailbox_drain(mailbox);
}

static void write_all(struct restoring *restoring, struct mailbox *mailbox) {
    struct slice left = buffer_slice(&restoring->writes);
    while (left.size > 0 && restoring->err == 0) {
        struct written written;
        memcpy(&written, left.data, sizeof(written));
        int err = write_one(restoring, &written);
        if (err == DG_ERR_PRESSURE)
            wait_for_disk(restoring, mailbox);
        else if (err < 0)
            restoring->err = err;
        else
            left = slice_skip(left, sizeof(written));
    }
    while (stream_appender_pending(restoring->appender) > 0)
        wait_for_disk(restoring, mailbox);
}

/* Through the first worker's mailbox: it has no thread yet, and outlives an answer of the committer
 * that comes when nobody waits for it any more. */
static void write_changes(struct restoring *restoring, struct stream *stream) {
    struct mailbox *mailbox = &restoring->workers[0]->mailbox;
    if (restoring->err < 0 || buffer_size(&restoring->writes) == 0)
        return;
    restoring->err = stream_appender_create(stream, mailbox, on_written, on_room, restoring,
                                            &restoring->appender);
    if (restoring->err < 0)
        return;
    write_all(restoring, mailbox);
    stream_appender_free(restoring->appender);
}

/* ---- handing over ---- */

static void hand_over(struct restoring *restoring) {
    for (uint32_t i = 0; i < restoring->sessions.capacity; i++) {
        const struct device_map_slot *slot = &restoring->sessions.slots[i];
        if (slot->key == 0)
            continue;
        struct session_kept *kept = (struct session_kept *)(uintptr_t)slot->value;
        unsigned home = claims_home(slot->key, restoring->worker_count);
        if (restoring->err == 0)
            restoring->err = claims_install(restoring->workers[home], slot->key, kept);
        if (restoring->err < 0)
            kept_free(kept);
    }
}

int mqtt_restore_sessions(struct stream *stream, struct worker **workers, unsigned count,
                          int64_t wall_ms) {
    struct restoring restoring = {.workers = workers,
                                  .worker_count = count,
                                  .wall_ms = wall_ms,
                                  .stream_epoch = stream_epoch(stream)};
    stream_visit_state(stream, STREAM_STATE_SESSION, on_session, &restoring);
    stream_visit_state(stream, STREAM_STATE_QOS2, on_identity, &restoring);
    write_changes(&restoring, stream);
    hand_over(&restoring);
    if (restoring.malformed > 0)
        LOG_WARN("sessions.unreadable", log_int("entries", restoring.malformed),
                 log_text("effect", "these are ignored"));
    if (restoring.refused > 0)
        LOG_WARN("sessions.not_written", log_int("entries", restoring.refused),
                 log_text("why", dg_err_text(DG_ERR_STORAGE_FULL)),
                 log_text("effect", "tried again at the next start"));
    if (restoring.restored > 0 || restoring.expired > 0)
        LOG_INFO("sessions.restored", log_int("sessions", restoring.restored),
                 log_int("expired", restoring.expired));
    device_map_free(&restoring.sessions);
    buffer_free(&restoring.writes);
    return restoring.err;
}
