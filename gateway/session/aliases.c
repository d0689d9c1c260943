#include "gateway/session/aliases.h"

#include <stdlib.h>

#include "common/assert.h"

int aliases_set(struct aliases **table, uint16_t alias, struct slice topic) {
    dg_assert(alias > 0 && alias <= LIMIT_MQTT_TOPIC_ALIASES);
    dg_assert(topic.size > 0 && topic.size <= LIMIT_MQTT_TOPIC_BYTES);
    if (!*table && !(*table = calloc(1, sizeof(**table))))
        return DG_ERR_NO_MEMORY;
    uint8_t *copy = malloc(topic.size);
    if (!copy)
        return DG_ERR_NO_MEMORY;
    memcpy(copy, topic.data, topic.size);
    free((*table)->topics[alias - 1]);
    (*table)->topics[alias - 1] = copy;
    (*table)->sizes[alias - 1] = (uint16_t)topic.size;
    return 0;
}

struct slice aliases_get(const struct aliases *table, uint16_t alias) {
    if (!table || alias == 0 || alias > LIMIT_MQTT_TOPIC_ALIASES)
        return slice_make(NULL, 0);
    return slice_make(table->topics[alias - 1], table->sizes[alias - 1]);
}

uint16_t aliases_choose_outgoing(const struct aliases *table, uint16_t maximum,
                                 struct slice topic) {
    const struct aliases *outgoing = table ? table->outgoing : NULL;
    uint16_t alias = 1;
    for (; alias <= maximum && alias <= LIMIT_MQTT_TOPIC_ALIASES; alias++) {
        struct slice known = aliases_get(outgoing, alias);
        if (known.data == NULL || slice_equals(known, topic))
            return alias;
    }
    return 0;
}

int aliases_set_outgoing(struct aliases **table, uint16_t alias, struct slice topic) {
    if (!*table && !(*table = calloc(1, sizeof(**table))))
        return DG_ERR_NO_MEMORY;
    return aliases_set(&(*table)->outgoing, alias, topic);
}

void aliases_free(struct aliases **table) {
    for (unsigned i = 0; *table && i < LIMIT_MQTT_TOPIC_ALIASES; i++)
        free((*table)->topics[i]);
    if (*table)
        aliases_free(&(*table)->outgoing);
    free(*table);
    *table = NULL;
}
