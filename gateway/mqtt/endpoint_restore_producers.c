/* The producers of devices (session/producers.h) of before the start. What is forgotten or of
 * another epoch of the stream is deleted later, as at any time: by the sweep of sessions. */
#include "common/log.h"
#include "gateway/mqtt/endpoint_internal.h"

struct restoring {
    struct device_map lists; /* device key -> struct producer * */
    int32_t stream_epoch;
    unsigned malformed;
    int err;
};

static int restore(struct restoring *restoring, struct slice key, struct slice value) {
    int64_t device_key;
    uint64_t first = 0;
    int err = producers_key_device(key, &device_key);
    if (err == 0)
        err = device_map_reserve(&restoring->lists);
    if (err < 0)
        return err;
    (void)device_map_get(&restoring->lists, device_key, &first);
    struct producer *list = (struct producer *)(uintptr_t)first;
    err = producers_restore(&list, key, value, restoring->stream_epoch);
    if (list)
        device_map_set(&restoring->lists, device_key, (uintptr_t)list);
    return err;
}

static void on_entry(void *context, struct slice key, struct slice value) {
    struct restoring *restoring = context;
    if (restoring->err < 0)
        return;
    int err = restore(restoring, key, value);
    if (err == DG_ERR_NO_MEMORY)
        restoring->err = err;
    else if (err < 0)
        restoring->malformed++;
}

int mqtt_restore_producers(struct stream *stream, struct worker **workers, unsigned count) {
    struct restoring restoring = {.stream_epoch = stream_epoch(stream)};
    stream_visit_state(stream, STREAM_STATE_PRODUCER, on_entry, &restoring);
    for (uint32_t i = 0; i < restoring.lists.capacity; i++) {
        const struct device_map_slot *slot = &restoring.lists.slots[i];
        struct producer *list = (struct producer *)(uintptr_t)slot->value;
        if (slot->key == 0)
            continue;
        if (restoring.err == 0)
            restoring.err =
                claims_install_producers(workers[claims_home(slot->key, count)], slot->key, list);
        if (restoring.err < 0)
            producers_free(list);
    }
    if (restoring.malformed > 0)
        LOG_WARN("producers.unreadable", log_int("entries", restoring.malformed),
                 log_text("effect", "these are ignored"));
    device_map_free(&restoring.lists);
    return restoring.err;
}
