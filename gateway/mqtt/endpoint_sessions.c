/* The sessions of a worker: by id, by device; revocation and draining walk them. */
#include <stdlib.h>

#include "common/assert.h"
#include "common/metrics.h"
#include "gateway/mqtt/endpoint_internal.h"
#include "gateway/session/tenants.h"

enum { SLOTS_FIRST = 64 };

/* ---- by id ---- */

static int grow_slots(struct mqtt_worker *mqtt) {
    uint32_t count = mqtt->slot_count ? mqtt->slot_count * 2 : SLOTS_FIRST;
    /* Twice the connections: sessions outlive them for a moment. */
    if (count > 2u * LIMIT_CONNECTIONS_PER_WORKER)
        return DG_ERR_LIMIT;
    struct mqtt_slot *slots = realloc(mqtt->slots, count * sizeof(*slots));
    if (!slots)
        return DG_ERR_NO_MEMORY;
    for (uint32_t i = count; i-- > mqtt->slot_count;) {
        slots[i] = (struct mqtt_slot){.generation = 1, .next_free = mqtt->free_slot};
        mqtt->free_slot = i;
    }
    mqtt->slots = slots;
    mqtt->slot_count = count;
    return 0;
}

int mqtt_session_create(struct mqtt_worker *mqtt, bool passwords_allowed,
                        struct session **ret_session) {
    if (mqtt->free_slot == UINT32_MAX) {
        int err = grow_slots(mqtt);
        if (err < 0)
            return err;
    }
    struct session *session = malloc(sizeof(*session));
    if (!session)
        return DG_ERR_NO_MEMORY;
    uint32_t index = mqtt->free_slot;
    struct mqtt_slot *slot = &mqtt->slots[index];
    mqtt->free_slot = slot->next_free;
    slot->session = session;
    mqtt->session_count++;
    session_init(session, &mqtt->shared, (uint64_t)index << 32 | slot->generation,
                 passwords_allowed);
    *ret_session = session;
    return 0;
}

static void free_slot(struct mqtt_worker *mqtt, uint64_t id) {
    uint32_t index = (uint32_t)(id >> 32);
    struct mqtt_slot *slot = &mqtt->slots[index];
    slot->session = NULL;
    if (++slot->generation == 0)
        slot->generation = 1; /* so that no id is 0 */
    slot->next_free = mqtt->free_slot;
    mqtt->free_slot = index;
    mqtt->session_count--;
}

/* ---- by device ---- */

int mqtt_session_index(struct mqtt_worker *mqtt, struct session *session) {
    uint64_t first = 0;
    int err = device_map_reserve(&mqtt->by_device);
    if (err < 0)
        return err;
    (void)device_map_get(&mqtt->by_device, session->device_key, &first);
    session->neighbour = (struct session *)(uintptr_t)first;
    device_map_set(&mqtt->by_device, session->device_key, (uintptr_t)session);
    return 0;
}

static void unindex(struct mqtt_worker *mqtt, struct session *session) {
    uint64_t first;
    if (!device_map_get(&mqtt->by_device, session->device_key, &first))
        return;
    struct session *head = (struct session *)(uintptr_t)first;
    struct session **at = &head;
    while (*at && *at != session)
        at = &(*at)->neighbour;
    if (!*at)
        return;
    *at = session->neighbour;
    if (head)
        device_map_set(&mqtt->by_device, session->device_key, (uintptr_t)head);
    else
        device_map_remove(&mqtt->by_device, session->device_key);
}

/* ---- the end ---- */

void mqtt_session_bury(struct mqtt_worker *mqtt, struct session *session) {
    unindex(mqtt, session);
    free_slot(mqtt, session->id);
    session->next_waiting = mqtt->dead;
    mqtt->dead = session;
}

void mqtt_free_dead(struct mqtt_worker *mqtt) {
    while (mqtt->dead) {
        struct session *session = mqtt->dead;
        mqtt->dead = session->next_waiting;
        session_free(session);
        free(session);
    }
}

void mqtt_sessions_free(struct mqtt_worker *mqtt) {
    mqtt_free_dead(mqtt);
    for (uint32_t i = 0; i < mqtt->slot_count; i++) {
        struct session *session = mqtt->slots[i].session;
        if (!session)
            continue;
        if (session->link)
            ((struct connection *)session->link)->session = NULL;
        claim_free(session->claim);
        session->outstanding = 0;
        session->flags = SESSION_FINISHED;
        session_free(session);
        free(session);
    }
    free(mqtt->slots);
    device_map_free(&mqtt->by_device);
}

/* ---- messages to devices ---- */

int mqtt_deliver(struct worker *worker, uint64_t owner, struct outbox_message *message) {
    struct mqtt_worker *mqtt = mqtt_of(worker);
    struct session *session = mqtt ? mqtt_find(mqtt, owner) : NULL;
    if (!session || !session->link)
        return DG_ERR_NOT_CONNECTED;
    if (connection_unsent(session->link) > LIMIT_OUTGOING_UNSENT_BYTES)
        return DG_ERR_PRESSURE;
    mqtt_set_time(mqtt);
    return session_deliver(session, message);
}

void mqtt_recall(struct worker *worker, uint64_t owner, int64_t device_key) {
    struct mqtt_worker *mqtt = mqtt_of(worker);
    struct session *session = mqtt ? mqtt_find(mqtt, owner) : NULL;
    if (!session)
        return;
    mqtt_set_time(mqtt);
    session_recall(session, device_key);
}

void mqtt_reply_done(struct worker *worker, uint64_t owner, uint64_t tag, int err) {
    struct mqtt_worker *mqtt = mqtt_of(worker);
    /* A session lives until its last ticket came back. */
    struct session *session = mqtt ? mqtt_find(mqtt, owner) : NULL;
    if (!session)
        return; /* freed with the worker */
    mqtt_set_time(mqtt);
    mqtt->shared.done_offset = -1;
    session_reply_done(session, tag, err);
}

void mqtt_twin_answered(struct worker *worker, const struct twin_answer *answer) {
    struct mqtt_worker *mqtt = mqtt_of(worker);
    struct session *session = mqtt ? mqtt_find(mqtt, answer->owner) : NULL;
    if (!session) /* the gateway ends */
        return;
    mqtt_set_time(mqtt);
    session_twin_answered(session, answer);
}

/* ---- walks ---- */

static void revoke_one(struct session *session, const struct registry_revocation *revocation) {
    if (!session_is_revoked(session, revocation))
        return;
    metric_add(METRIC_REVOCATIONS, 1);
    session_stop(session, revocation->err < 0 ? revocation->err : DG_ERR_ADMINISTRATIVE, NULL);
}

void mqtt_revoke(struct worker *worker, const struct registry_revocation *revocation) {
    struct mqtt_worker *mqtt = mqtt_of(worker);
    mqtt_set_time(mqtt);
    if (revocation->device_key == 0) {
        for (uint32_t i = 0; i < mqtt->slot_count; i++)
            if (mqtt->slots[i].session)
                revoke_one(mqtt->slots[i].session, revocation);
        return;
    }
    uint64_t first = 0;
    children_forget(&mqtt->shared.children, revocation->device_key);
    (void)device_map_get(&mqtt->by_device, revocation->device_key, &first);
    struct session *next;
    for (struct session *session = (struct session *)(uintptr_t)first; session; session = next) {
        next = session->neighbour;
        revoke_one(session, revocation);
    }
}

static void update_tenant(struct mqtt_worker *mqtt, const struct registry_update *update) {
    tenant_update(&mqtt->shared, update->tenant_key, update->policy);
    for (uint32_t i = 0; i < mqtt->slot_count; i++) {
        struct session *session = mqtt->slots[i].session;
        if (session && session->tenant && session->tenant->key == update->tenant_key)
            session_update_quotas(session, admission_group(session->admission));
    }
}

void mqtt_update(struct worker *worker, const struct registry_update *update) {
    struct mqtt_worker *mqtt = mqtt_of(worker);
    mqtt_set_time(mqtt);
    if (update->tenant_key == 0) {
        children_free(&mqtt->shared.children);
        return;
    }
    if (update->device_key == 0) {
        update_tenant(mqtt, update);
        return;
    }
    uint64_t first = 0;
    (void)device_map_get(&mqtt->by_device, update->device_key, &first);
    struct session *next;
    for (struct session *session = (struct session *)(uintptr_t)first; session; session = next) {
        next = session->neighbour;
        session_update_quotas(session, slice_from_string(update->group));
    }
}

void mqtt_worker_reconfigure(struct worker *worker) {
    mqtt_set_time(mqtt_of(worker));
}

void mqtt_worker_drain(struct worker *worker) {
    struct mqtt_worker *mqtt = mqtt_of(worker);
    mqtt->draining = true;
    mqtt_set_time(mqtt);
    for (uint32_t i = 0; i < mqtt->slot_count; i++)
        if (mqtt->slots[i].session)
            session_drain(mqtt->slots[i].session);
}

bool mqtt_worker_idle(struct worker *worker) {
    const struct mqtt_worker *mqtt = mqtt_of(worker);
    return mqtt->session_count == 0 && stream_appender_pending(mqtt->appender) == 0;
}
