/*
 * What belongs to a session and not to its connection: subscriptions, and the QoS 2 messages that
 * are not released yet. Made when there is something to keep. One thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "gateway/session/identities.h"

struct session_subscription {
    struct session_subscription *next;
    uint8_t qos;
    uint16_t filter_size;
    uint8_t filter[];
};

struct session_kept {
    struct session_subscription *subscriptions;
    struct identities *identities;
};

/* NULL: no memory. */
struct session_kept *kept_new(void);
/* Accepts NULL. */
void kept_free(struct session_kept *kept);
