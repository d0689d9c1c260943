/*
 * The topic aliases that a device has set on its connection (MQTT5 3.3.2.3.4). A table exists only
 * when there is one. One thread.
 */
#pragma once

#include <stdint.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/slice.h"

struct aliases {
    uint8_t *topics[LIMIT_MQTT_TOPIC_ALIASES]; /* NULL: not set */
    uint16_t sizes[LIMIT_MQTT_TOPIC_ALIASES];
};

/* Sets or replaces. *table may be NULL; alias is 1 to LIMIT_MQTT_TOPIC_ALIASES, the topic not empty
 * and at most LIMIT_MQTT_TOPIC_BYTES. 0 or DG_ERR_NO_MEMORY. */
DG_NODISCARD int aliases_set(struct aliases **table, uint16_t alias, struct slice topic);

/* Empty when it is not set; table may be NULL. Valid until it is set anew. */
struct slice aliases_get(const struct aliases *table, uint16_t alias);

/* *table may be NULL and is NULL afterwards. */
void aliases_free(struct aliases **table);
