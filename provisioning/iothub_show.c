#include "provisioning/iothub_show.h"

#include <stdlib.h>

#include "gateway/session/inquiry.h"
#include "provisioning/iothub_error.h"

struct iothub_shown *iothub_shown_new(unsigned most) {
    struct iothub_shown *shown = calloc(1, sizeof(*shown) + most * sizeof(shown->keys[0]));
    if (shown && !(shown->objects = json_array())) {
        free(shown);
        return NULL;
    }
    return shown;
}

void iothub_shown_free(void *context) {
    struct iothub_shown *shown = context;
    if (!shown)
        return;
    json_decref(shown->objects);
    free(shown->more);
    free(shown);
}

int iothub_shown_add(struct iothub_shown *shown, json_t *object, int64_t device_key) {
    if (!object || json_array_append_new(shown->objects, object) != 0)
        return DG_ERR_NO_MEMORY;
    shown->keys[shown->count++] = device_key;
    return 0;
}

static void write_presence(json_t *object, const struct inquiry_presence *presence) {
    bool is_connected = presence->is_connected;
    json_object_set_new(object, "connectionState",
                        json_string(is_connected ? "Connected" : "Disconnected"));
    json_object_set_new(object, "lastActivityTime", iothub_time(presence->last_activity_ms));
    if (json_object_get(object, "connectionStateUpdatedTime"))
        json_object_set_new(object, "connectionStateUpdatedTime", iothub_time(presence->since_ms));
}

static void deliver_presence(struct worker *worker, struct inquiry *inquiry) {
    struct http_exchange *x = http_find(worker, inquiry->owner);
    struct provisioning_call *call = x ? http_context(x) : NULL;
    if (call) {
        struct iothub_shown *shown = call->state;
        for (unsigned i = 0; i < shown->count; i++)
            write_presence(json_array_get(shown->objects, i), &inquiry->others[i]);
        call->then_shown(call, shown);
    }
    inquiry_free(inquiry);
}

void iothub_show(struct provisioning_call *call, struct iothub_shown *shown,
                 void (*then)(struct provisioning_call *call, struct iothub_shown *shown)) {
    struct inquiry *inquiry = inquiry_new(0);
    if (call->state)
        call->free_state(call->state);
    call->state = shown;
    call->free_state = iothub_shown_free;
    call->then_shown = then;
    if (inquiry)
        inquiry->others = calloc(shown->count + 1, sizeof(*inquiry->others));
    if (!inquiry || !inquiry->others) {
        free(inquiry);
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
        return;
    }
    inquiry->other_count = shown->count;
    for (unsigned i = 0; i < shown->count; i++)
        inquiry->others[i].device_key = shown->keys[i];
    inquiry->owner = http_exchange_id(call->exchange);
    inquiry->answered = deliver_presence;
    inquiry_send(call->worker, inquiry);
}

unsigned iothub_shown_fitting(const struct iothub_shown *shown) {
    size_t size = 2;
    unsigned count = 0;
    for (; count < shown->count; count++) {
        /* Only counted: nothing is written. */
        size += json_dumpb(json_array_get(shown->objects, count), NULL, 0, JSON_COMPACT) + 1;
        if (size > IOTHUB_SHOWN_BYTES_MAX)
            break;
    }
    return count;
}
