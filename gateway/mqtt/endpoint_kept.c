/* Sessions without a connection: those whose time is over are found, and what is on the disk of
 * sessions that are over is deleted. */
#include <stdlib.h>

#include "common/assert.h"
#include "gateway/mqtt/endpoint_internal.h"

enum { SWEEP_MS = 1000 };

/* ---- deleting ---- */

static void ending_free(struct mqtt_ending *ending) {
    kept_free(ending->kept);
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

/* The record goes last: until then a restart finds the session and deletes the rest. */
static int delete_record(struct mqtt_worker *mqtt, struct mqtt_ending *ending) {
    struct kept_bytes bytes;
    struct stream_mutation mutation = kept_mutation(NULL, ending->device_key, &bytes);
    return stream_mutate(mqtt->appender, &mutation, 1,
                         (struct stream_ticket){.tag = (uintptr_t)ending});
}

static void run(struct mqtt_worker *mqtt) {
    while (mqtt->endings) {
        struct mqtt_ending *ending = mqtt->endings;
        int err = delete_identities(mqtt, ending);
        if (err == 0 && ending->claim)
            err = delete_record(mqtt, ending);
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
    *ending = (struct mqtt_ending){.kept = kept, .device_key = device_key};
    add(mqtt, ending);
}

void mqtt_kept_ready(struct mqtt_worker *mqtt) {
    run(mqtt);
}

void mqtt_kept_done(struct mqtt_worker *mqtt, uint64_t tag, int err) {
    struct mqtt_ending *ending = (struct mqtt_ending *)(uintptr_t)tag;
    if (!ending)
        return;
    struct claim *claim = ending->claim;
    if (err < 0) { /* no room: it stays, and its time is over at the next look too */
        claim->kept = ending->kept;
        ending->kept = NULL;
    }
    ending_free(ending);
    claims_release(mqtt->worker, claim);
}

/* ---- whose time is over ---- */

void mqtt_on_expired(void *context, struct claim *claim) {
    struct mqtt_worker *mqtt = context;
    struct mqtt_ending *ending = malloc(sizeof(*ending));
    if (!ending) { /* later */
        claims_release(mqtt->worker, claim);
        return;
    }
    *ending =
        (struct mqtt_ending){.claim = claim, .kept = claim->kept, .device_key = claim->device_key};
    claim->kept = NULL;
    add(mqtt, ending);
}

static void on_sweep(evutil_socket_t fd, short what, void *context) {
    struct mqtt_worker *mqtt = context;
    worker_refresh_time(mqtt->worker);
    claims_sweep(mqtt->worker, mqtt->worker->wall_ms);
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
