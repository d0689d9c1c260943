/*
 * The topic aliases of a connection (MQTT5 3.3.2.3.4): those that the device has set, and in a
 * table of their own (outgoing) those that were set for it. A table exists only when there is one.
 * One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/slice.h"

struct aliases {
    uint8_t *topics[LIMIT_MQTT_TOPIC_ALIASES]; /* NULL: not set */
    uint16_t sizes[LIMIT_MQTT_TOPIC_ALIASES];
    struct aliases *outgoing;
};

/* Sets or replaces. *table may be NULL; alias is 1 to LIMIT_MQTT_TOPIC_ALIASES, the topic not empty
 * and at most LIMIT_MQTT_TOPIC_BYTES. 0 or DG_ERR_NO_MEMORY. */
DG_NODISCARD int aliases_set(struct aliases **table, uint16_t alias, struct slice topic);

/* Empty when it is not set; table may be NULL. Valid until it is set anew. */
struct slice aliases_get(const struct aliases *table, uint16_t alias);

/* The alias of a topic to the device, or the first one up to maximum that is not set, or 0. */
uint16_t aliases_choose_outgoing(const struct aliases *table, uint16_t maximum, struct slice topic);
/* Sets what aliases_choose_outgoing() gave. */
DG_NODISCARD int aliases_set_outgoing(struct aliases **table, uint16_t alias, struct slice topic);
/* Whether the device knows it. */
static inline bool aliases_has_outgoing(const struct aliases *table, uint16_t alias) {
    return table && table->outgoing && alias > 0 && table->outgoing->topics[alias - 1];
}

/* *table may be NULL and is NULL afterwards. */
void aliases_free(struct aliases **table);
