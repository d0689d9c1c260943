/* Sessions without a connection: those whose time is over are found, what is on the disk of
 * sessions that are over is deleted, and their wills are stored. Of producers likewise. */
#include <stdlib.h>

#include "common/assert.h"
#include "common/metrics.h"
#include "gateway/mqtt/endpoint_internal.h"
#include "gateway/session/quarantine.h"

enum { SWEEP_MS = 1000 };

/* ---- deleting ---- */

static void ending_free(struct mqtt_ending *ending) {
    kept_free(ending->kept);
    registry_policy_release(ending->policy);
    free(ending);
}

/* Identities; those of a session that began anew are nobody's, so nobody waits for them. */
static int delete_identities(struct mqtt_worker *mqtt, struct mqtt_ending *ending) {
    const struct identities *identities = ending->kept->identities;
    for (; identities && ending->slot < identities->capacity; ending->slot++) {
        uint16_t packet_id = identities->slots[ending->slot].packet_id;
        if (packet_id == 0)
            continue;
        uint8_t key[KEPT_IDENTITY_KEY_BYTES];
        struct stream_mutation mutation =
            kept_identity_mutation(ending->device_key, ending->kept->epoch, packet_id, true, key);
        int err = stream_mutate(mqtt->appender, &mutation, 1, (struct stream_ticket){0});
        if (err < 0)
            return err;
    }
    return 0;
}

/* The event of a will, in one unit with the change of the record that says so. */
static int append_will(struct mqtt_worker *mqtt, const struct mqtt_ending *ending,
                       const struct stream_mutation *with, struct stream_ticket ticket) {
    struct quarantine_finding finding;
    struct will_content content;
    struct device_event event;
    struct stream_record record;
    will_read(ending->kept->will, &content);
    int err =
        will_event(&content, ending->policy ? ending->policy->topic_map : NULL,
                   mqtt->worker->wall_ms, mqtt->worker->config->events_device_time_window, &event);
    if (err == 0 && quarantine_judge_by(ending->policy, &event, content.topic, &finding) < 0) {
        content.source.stream_id += STREAM_QUARANTINE - STREAM_EVENTS; /* of the same tenant */
        metric_add(METRIC_QUARANTINED, 1);
    }
    if (err == 0)
        err = event_build(&event, &content.source, &mqtt->counter, &mqtt->scratch, &record);
    if (err < 0)
        return err;
    return stream_append_with(mqtt->appender, content.source.stream_id, content.source.partition,
                              &record, with, 1, ticket);
}

/* The record goes last: until then a restart finds the session and deletes the rest. */
static int change_record(struct mqtt_worker *mqtt, struct mqtt_ending *ending) {
    struct kept_bytes bytes;
    struct stream_ticket ticket = {.tag = (uintptr_t)ending};
    struct stream_mutation mutation =
        kept_mutation(ending->is_over ? NULL : ending->kept, NULL, ending->device_key, &bytes);
    if (ending->leaves_will) {
        int err = append_will(mqtt, ending, &mutation, ticket);
        if (err == 0 || err == DG_ERR_PRESSURE || err == DG_ERR_NO_MEMORY)
            return err;
        ending->leaves_will = false; /* it can never be stored */
    }
    return stream_mutate(mqtt->appender, &mutation, 1, ticket);
}

/* What is forgotten; the claim's producers stay until the ticket comes back. */
static int delete_producer(struct mqtt_worker *mqtt, struct mqtt_ending *ending) {
    struct producers_change change;
    const struct producers_context context = {.device_key = ending->device_key,
                                              .wall_ms = ending->wall_ms};
    struct claim *claim = ending->claim;
    producers_forget(claim->producers, &context, &change);
    int err = stream_mutate(mqtt->appender, change.mutations, change.count,
                            (struct stream_ticket){.tag = (uintptr_t)ending});
    if (err < 0)
        producers_forgotten(&claim->producers, err);
    return err;
}

static int end_session(struct mqtt_worker *mqtt, struct mqtt_ending *ending) {
    int err = ending->is_over ? delete_identities(mqtt, ending) : 0;
    return err == 0 && ending->claim ? change_record(mqtt, ending) : err;
}

static void run(struct mqtt_worker *mqtt) {
    while (mqtt->endings) {
        struct mqtt_ending *ending = mqtt->endings;
        int err = ending->kept ? end_session(mqtt, ending) : delete_producer(mqtt, ending);
        if (err < 0)
            return; /* pressure: mqtt_kept_ready() goes on; no memory: the next one to end does */
        mqtt->endings = ending->next;
        if (!mqtt->endings)
            mqtt->endings_end = &mqtt->endings;
        if (!ending->claim)
            ending_free(ending);
    }
}

static void add(struct mqtt_worker *mqtt, struct mqtt_ending *ending) {
    *mqtt->endings_end = ending;
    mqtt->endings_end = &ending->next;
    run(mqtt);
}

void mqtt_kept_discard(struct mqtt_worker *mqtt, int64_t device_key, struct session_kept *kept) {
    struct mqtt_ending *ending = kept->identities ? malloc(sizeof(*ending)) : NULL;
    if (!ending) { /* without memory the next start deletes what is left: its epoch is nobody's */
        kept_free(kept);
        return;
    }
    *ending = (struct mqtt_ending){.kept = kept, .device_key = device_key, .is_over = true};
    add(mqtt, ending);
}

void mqtt_kept_ready(struct mqtt_worker *mqtt) {
    run(mqtt);
}

static void session_ended(struct mqtt_worker *mqtt, struct mqtt_ending *ending, int err) {
    struct claim *claim = ending->claim;
    bool leaves_will = ending->leaves_will;
    if (err < 0 || !ending->is_over) { /* no room: it stays, and its time is over later too */
        claim->kept = ending->kept;
        ending->kept = NULL;
    }
    ending_free(ending);
    if (err < 0 && claim->kept->will) {
        mqtt_kept_defer_will(mqtt, claim);
        return;
    }
    if (err == 0 && claim->kept) {
        free(claim->kept->will);
        claim->kept->will = NULL;
    }
    if (err == 0 && leaves_will)
        metric_add(METRIC_WILLS_STORED_LATER, 1);
    claims_release(mqtt->worker, claim);
}

static void producer_deleted(struct mqtt_worker *mqtt, struct mqtt_ending *ending, int err) {
    struct claim *claim = ending->claim;
    producers_forgotten(&claim->producers, err);
    ending_free(ending);
    claims_release(mqtt->worker, claim);
}

void mqtt_kept_done(struct mqtt_worker *mqtt, uint64_t tag, int err) {
    struct mqtt_ending *ending = (struct mqtt_ending *)(uintptr_t)tag;
    if (ending && ending->kept)
        session_ended(mqtt, ending, err);
    else if (ending)
        producer_deleted(mqtt, ending, err);
}

/* ---- whose time is over ---- */

static void end_kept(struct mqtt_worker *mqtt, struct claim *claim, bool is_over, bool leaves_will,
                     struct registry_policy *policy) {
    struct mqtt_ending *ending = malloc(sizeof(*ending));
    if (!ending) { /* later */
        claims_release(mqtt->worker, claim);
        return;
    }
    *ending = (struct mqtt_ending){.claim = claim,
                                   .kept = claim->kept,
                                   .device_key = claim->device_key,
                                   .is_over = is_over,
                                   .leaves_will = leaves_will,
                                   .policy = registry_policy_keep(policy)};
    claim->kept = NULL;
    if (is_over)
        flight_record(mqtt->shared.flight, &(struct flight_note){.at_ms = mqtt->worker->wall_ms,
                                                                 .key = ending->device_key,
                                                                 .kind = FLIGHT_SESSION_EXPIRED});
    add(mqtt, ending);
}

static void forget_producer(struct mqtt_worker *mqtt, struct claim *claim) {
    struct mqtt_ending *ending = malloc(sizeof(*ending));
    if (!ending) { /* later */
        claims_release(mqtt->worker, claim);
        return;
    }
    *ending = (struct mqtt_ending){
        .claim = claim, .device_key = claim->device_key, .wall_ms = mqtt->worker->wall_ms};
    add(mqtt, ending);
}

void mqtt_on_expired(void *context, struct claim *claim) {
    struct mqtt_worker *mqtt = context;
    const struct session_kept *kept = claim->kept;
    if (kept && !kept->will && kept_is_over(kept, mqtt->worker->wall_ms))
        end_kept(mqtt, claim, true, false, NULL);
    else
        forget_producer(mqtt, claim);
}

void mqtt_kept_leave_will(struct mqtt_worker *mqtt, struct claim *claim, bool is_allowed,
                          struct registry_policy *policy) {
    bool is_over = kept_is_over(claim->kept, mqtt->worker->wall_ms);
    end_kept(mqtt, claim, is_over, is_allowed, policy);
}

void mqtt_kept_defer_will(struct mqtt_worker *mqtt, struct claim *claim) {
    struct session_will *will = claim->kept->will;
    will->due.at_ms = mqtt->worker->wall_ms + LIMIT_WILL_RETRY_MS;
    will->was_deferred = true;
    claims_release(mqtt->worker, claim);
}

static void on_sweep(evutil_socket_t fd, short what, void *context) {
    struct mqtt_worker *mqtt = context;
    worker_refresh_time(mqtt->worker);
    claims_sweep(mqtt->worker, mqtt->worker->wall_ms);
    mqtt_wills_ask(mqtt);
    if (mqtt->worker->index == 0)
        quota_ledger_publish(mqtt->shared.quotas);
}

void mqtt_kept_start(struct mqtt_worker *mqtt) {
    static const struct timeval period = {.tv_sec = SWEEP_MS / 1000};
    event_assign(&mqtt->sweep_timer, mqtt->worker->base, -1, EV_PERSIST, on_sweep, mqtt);
    event_add(&mqtt->sweep_timer, &period);
}

void mqtt_kept_free(struct mqtt_worker *mqtt) {
    if (event_initialized(&mqtt->sweep_timer))
        event_del(&mqtt->sweep_timer);
    while (mqtt->endings) {
        struct mqtt_ending *ending = mqtt->endings;
        mqtt->endings = ending->next;
        claim_free(ending->claim);
        ending_free(ending);
    }
}
