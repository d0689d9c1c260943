/*
 * A will (MQTT5 3.1.2.5, 3.1.3.2): the event that a device leaves for when its connection or its
 * session ends. In memory as on the disk (integers big-endian), so that it is written as it is:
 *
 *   flags u8 (QoS in bits 0 and 1, enum will_flag), delay u32 (s), message expiry u32 (s; 0: none),
 *   user properties u8, tenant key i64, credential key i64, valid until i64 (wall clock, ms; 0: no
 *   end), stream u64, partition u32, then of each size u16 and bytes: tenant, device, topic,
 * content type, response topic, correlation data, property section, payload
 *
 * Whose it is stands in it since it may be stored when there is no session any more, also by a
 * gateway that was started since. One thread at a time, as the session that it belongs to.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/slice.h"
#include "gateway/event/event.h"
#include "gateway/session/due.h"

struct topic_map;

enum will_flag {
    WILL_RETAIN = 4,
    WILL_MQTT5 = 8,
    WILL_PAYLOAD_UTF8 = 16,
    WILL_IOTHUB = 32, /* of that dialect: telemetry, whose properties are headers as they are */
};

/* What it says. Slices point into the bytes that it was read from. */
struct will_content {
    uint8_t qos, flags; /* enum will_flag */
    uint32_t delay_s, message_expiry_s, user_property_count;
    struct slice topic, content_type, response_topic, correlation_data, user_properties, payload;
    /* whose it is, by the login */
    int64_t tenant_key, credential_key, valid_until_ms;
    struct event_source source;
};

enum {
    WILL_BYTES = 46 + 8 * 2 + LIMIT_TENANT_BYTES + LIMIT_DEVICE_ID_BYTES + LIMIT_MQTT_CONNECT_BYTES
};

struct session_will {
    struct due due;     /* while its session has no connection: claims.h */
    int64_t device_key; /* likewise */
    bool was_deferred;  /* likewise: it could not be stored when it was due */
    uint16_t size_bytes;
    uint8_t bytes[];
};

static inline struct slice will_bytes(const struct session_will *will) {
    return slice_make(will->bytes, will->size_bytes);
}

/* 0; DG_ERR_TOO_LARGE: over WILL_BYTES; DG_ERR_NO_MEMORY. Freed with free(). */
DG_NODISCARD int will_create(const struct will_content *content, struct session_will **ret_will);
/* 0, DG_ERR_NO_MEMORY, or DG_ERR_MALFORMED for bytes that will_create() does not make. */
DG_NODISCARD int will_decode(struct slice bytes, struct session_will **ret_will);

/* What it says; it points into it. */
void will_read(const struct session_will *will, struct will_content *ret_content);

/* When it is due: after its delay, or with the session's end (MQTT5 3.1.3.2.2). */
int64_t will_due_ms(const struct session_will *will, int64_t disconnected_ms, uint32_t expiry_s);

/* The event that it becomes; points into content. As authorize_topic(); DG_ERR_NOT_AUTHORIZED when
 * the credential was not to be valid for so long. */
DG_NODISCARD int will_event(const struct will_content *content, const struct topic_map *topics,
                            int64_t wall_ms, uint64_t device_time_window_ms,
                            struct device_event *ret_event);
