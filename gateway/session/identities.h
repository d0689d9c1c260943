/*
 * The QoS 2 messages of one session that the device has not released yet (MQTT5 4.3.3): packet
 * identifier -> how far it is. A table exists only while there is one. Open addressing with a
 * seeded hash, 4 bytes a slot. One thread.
 */
#pragma once

#include <stdint.h>

#include "common/err.h"

enum identity_state {
    IDENTITY_UNKNOWN,
    IDENTITY_SUBMITTED, /* its event is on the way to the disk */
    IDENTITY_STORED,    /* durable: PUBREC, and no second event */
    IDENTITY_RELEASED,  /* PUBREL came; PUBCOMP waits until the identity is gone from the disk */
};

struct identity {
    uint16_t packet_id; /* 0: a free slot */
    uint8_t state;      /* enum identity_state */
};

struct identities {
    uint32_t capacity; /* a power of two */
    uint32_t count;
    struct identity slots[];
};

static inline uint32_t identities_count(const struct identities *table) {
    return table ? table->count : 0;
}

/* Makes room for one more, so that identities_set() cannot fail; *table may be NULL. 0 or
 * DG_ERR_NO_MEMORY. */
DG_NODISCARD int identities_reserve(struct identities **table);

/* Adds or changes; room was reserved, or it is there. */
void identities_set(struct identities *table, uint16_t packet_id, enum identity_state state);

/* IDENTITY_UNKNOWN when it is not there; table may be NULL. */
enum identity_state identities_get(const struct identities *table, uint16_t packet_id);

/* Removes it if it is there; an empty table is freed. *table may be NULL. */
void identities_remove(struct identities **table, uint16_t packet_id);
