/*
 * Devices on their way into an answer of the service API: what PostgreSQL does not know, whether
 * they are connected to this gateway, is asked for and written into each. Worker's thread.
 */
#pragma once

#include "provisioning/call.h"

enum { IOTHUB_SHOWN_BYTES_MAX = LIMIT_OUTPUT_BYTES - LIMIT_HTTP_HEAD_BYTES };

/* Objects (devices or twins) with their keys, in an order that stays. */
struct iothub_shown {
    json_t *objects; /* an array; owned */
    void *more;      /* of who shows them; owned, freed with free() */
    unsigned count;
    int64_t keys[];
};

/* Room for so many. NULL: out of memory. */
struct iothub_shown *iothub_shown_new(unsigned most);
/* For call->free_state. */
void iothub_shown_free(void *shown);
/* Takes object over. DG_ERR_NO_MEMORY, also when it is NULL. */
DG_NODISCARD int iothub_shown_add(struct iothub_shown *shown, json_t *object, int64_t device_key);

/* Becomes the call's state, whatever that was. then runs when connectionState, lastActivityTime
 * and, where it is a member, connectionStateUpdatedTime of each are set; failures are answered. */
void iothub_show(struct provisioning_call *call, struct iothub_shown *shown,
                 void (*then)(struct provisioning_call *call, struct iothub_shown *shown));

/* How many of the first objects an answer has room for. */
unsigned iothub_shown_fitting(const struct iothub_shown *shown);

static inline bool iothub_is_connected(const json_t *object) {
    const char *state = json_string_value(json_object_get(object, "connectionState"));
    return state && strcmp(state, "Connected") == 0;
}
