/* Private to event/: the header writer, and what a device says of its own event. */
#pragma once

#include "common/writer.h"
#include "gateway/event/event.h"
#include "storage/record.h"

/* Headers written so far; over the limit w.failed is set. */
struct event_headers {
    struct writer w;
    unsigned count;
};

enum { SHORT_BYTES = 63 }; /* a length of one byte as zigzag varint */

#define EVENT_TEXT(text) ((struct slice){(const uint8_t *)("" text), sizeof(text) - 1})

/* Inlined, so that constant keys and sizes become plain moves. */
__attribute__((always_inline)) static inline void event_put(struct event_headers *h,
                                                            struct slice key, struct slice value) {
    h->count++;
    if (key.size > SHORT_BYTES || value.size > SHORT_BYTES) {
        record_write_header(&h->w, key, value);
        return;
    }
    uint8_t *at = writer_reserve(&h->w, 2 + key.size + value.size);
    if (at == NULL)
        return;
    *at++ = (uint8_t)(key.size << 1);
    memcpy(at, key.data, key.size);
    at += key.size;
    *at++ = (uint8_t)(value.size << 1);
    if (value.size > 0)
        memcpy(at, value.data, value.size);
}

/* What the device's user properties say; data NULL: nothing. */
struct event_attributes {
    bool is_cloudevent; /* the four required attributes are there */
    struct slice specversion, id, source, type, subject, time, content_type, traceparent;
};

/* Finds and checks them. 0 or DG_ERR_PROTOCOL. */
DG_NODISCARD int event_read_attributes(const struct device_event *event,
                                       struct event_attributes *ret_attributes);

/* Copies the user properties that are not among the attributes. 0 or DG_ERR_PROTOCOL (a CloudEvents
 * extension given twice). */
DG_NODISCARD int event_put_user_properties(const struct device_event *event,
                                           const struct event_attributes *attributes,
                                           struct event_headers *h);
