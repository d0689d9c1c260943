/* What this worker knows of a device, for an administrator (session/inquiry.h). */
#include <stdio.h>

#include "gateway/mqtt/endpoint_internal.h"
#include "gateway/session/inquiry.h"
#include "gateway/session/tenants.h"

static struct session *find_connected(const struct mqtt_worker *mqtt, int64_t device_key) {
    uint64_t first = 0;
    (void)device_map_get(&mqtt->by_device, device_key, &first);
    struct session *session = (struct session *)(uintptr_t)first;
    while (session && session->state != SESSION_CONNECTED)
        session = session->neighbour;
    return session;
}

static int64_t wall_time(const struct session_shared *shared, uint64_t monotonic_ms) {
    return shared->wall_ms - (int64_t)(shared->now_ns / 1000000) + (int64_t)monotonic_ms;
}

static void describe(struct session *session, struct inquiry_connection *ret) {
    const struct session_shared *shared = session->shared;
    struct slice client_id = session_client_id(session);
    size_t shown =
        client_id.size < sizeof(ret->client_id) ? client_id.size : sizeof(ret->client_id);
    *ret = (struct inquiry_connection){
        .protocol = session->version == MQTT_VERSION_5 ? "mqtt5" : "mqtt3.1.1",
        .client_id_size = (uint16_t)shown,
        .keep_alive_s = session->keep_alive_s,
        .expiry_s = session->expiry_s,
        .in_flight = inflight_count(session->inflight),
        .unreleased = session->kept ? identities_count(session->kept->identities) : 0,
        .published = session->published,
        .dropped = session->dropped,
        .refused = session->refused,
        .since_ms = wall_time(shared, session->connected_ms),
        .last_activity_ms = wall_time(shared, session->input_ms),
        .credential_key = session->credential_key,
    };
    if (shown > 0)
        memcpy(ret->client_id, client_id.data, shown);
    shared->effects->format_peer(session, ret->peer);
    session_format_id(session, ret->session_id);
}

static void describe_others(struct mqtt_worker *mqtt, struct inquiry *inquiry) {
    for (unsigned i = 0; i < inquiry->other_count; i++) {
        struct inquiry_presence *other = &inquiry->others[i];
        const struct session *session = find_connected(mqtt, other->device_key);
        if (!session)
            continue;
        other->is_connected = true;
        other->since_ms = wall_time(&mqtt->shared, session->connected_ms);
        other->last_activity_ms = wall_time(&mqtt->shared, session->input_ms);
    }
}

void mqtt_on_inquiry(void *context, struct inquiry *inquiry) {
    struct mqtt_worker *mqtt = context;
    mqtt_set_time(mqtt);
    if (inquiry->tenant_key != 0)
        inquiry->connection_count += tenant_users(&mqtt->shared, inquiry->tenant_key);
    if (inquiry->wanted == 0) {
        describe_others(mqtt, inquiry);
        return;
    }
    struct session *session = find_connected(mqtt, inquiry->device_key);
    const struct session_kept *kept = claims_kept(mqtt->worker, inquiry->device_key);
    if (session) {
        inquiry->is_connected = true;
        describe(session, &inquiry->connection);
        inquiry->connection.worker = mqtt->worker->index;
    }
    if (kept && !kept_is_over(kept, mqtt->shared.wall_ms)) {
        inquiry->is_kept = true;
        inquiry->kept = (struct inquiry_kept){kept->disconnected_ms, kept->expiry_s};
    }
    inquiry_read_flight(inquiry, mqtt->shared.flight);
}
