/*
 * Normalising: whatever a device did becomes one CloudEvents 1.0 event in Kafka's binary mode,
 * ready for the stream. Pure: time and identity are arguments. The header names and values are
 * those of the table at the top of event.c; schemas/ describes them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/slice.h"
#include "common/writer.h"
#include "storage/stream.h"

enum event_type {                            /* a row each in event.c: ce_type text */
                  EVENT_TELEMETRY,           /* duragate.telemetry.v1 */
                  EVENT_EVENT,               /* duragate.event.v1: alarms, notifications */
                  EVENT_DEVICE_CONNECTED,    /* duragate.device.connected.v1 */
                  EVENT_DEVICE_DISCONNECTED, /* duragate.device.disconnected.v1 */
                  /* duragate.command.<state>.v1, in the order of enum command_state */
                  EVENT_COMMAND_QUEUED,
                  EVENT_COMMAND_SENT,
                  EVENT_COMMAND_DELIVERED,
                  EVENT_COMMAND_COMPLETED,
                  EVENT_COMMAND_REJECTED,
                  EVENT_COMMAND_ABANDONED,
                  EVENT_COMMAND_EXPIRED,
                  EVENT_COMMAND_DEAD_LETTERED,
                  EVENT_COMMAND_CANCELLED,
                  EVENT_STATE_DESIRED,  /* duragate.state.desired.v1 */
                  EVENT_STATE_REPORTED, /* duragate.state.reported.v1 */
                  EVENT_TYPE_COUNT
};

/* Who speaks, from the verified credential. Slices outlive the call only. */
struct event_source {
    struct slice tenant;
    struct slice device;
    uint32_t partition;
    uint64_t stream_id;
};

/* Which gateway counts: the parts of a generated ce_id (node-boot-worker-counter). */
struct event_counter {
    char prefix[48]; /* "gw1-65f0c2a1-0-" */
    uint8_t prefix_size;
    uint64_t next;
};

/* Named so because libevent has a struct event. */
struct device_event {
    enum event_type type;
    const char *protocol; /* "mqtt3.1.1", "mqtt5" ... : ce_protocol */
    uint8_t qos;
    bool retain;
    bool payload_is_utf8; /* MQTT 5 Payload Format Indicator 1, checked */
    struct slice id;      /* ce_id, when the device gives none of its own; empty: made */
    /* Whose it is when it is not the speaker's, who is `via` then; empty: the speaker's. */
    struct slice child, via;
    uint32_t child_partition;
    struct slice subject;         /* topic as published; empty: none */
    struct slice content_type;    /* empty: application/octet-stream */
    struct slice user_properties; /* MQTT 5 property section as received, or empty */
    uint32_t user_property_count;
    /* More headers, as they are: a section of user properties whose names the gateway has chosen or
     * checked (event_owns_header()). */
    struct slice headers;
    struct slice payload;
    int64_t received_ms;
    uint64_t device_time_window_ms;
    /* MQTT 5, copied when present */
    struct slice response_topic, correlation_data;
    uint32_t message_expiry_s; /* 0: none */
    /* Why it goes to the tenant's quarantine stream, and which rule says so; empty: it does not */
    struct slice quarantine_reason, quarantine_rule;
};

enum { EVENT_TIME_SIZE = 24 }; /* CLOCK_RFC3339_SIZE */

/* Room for the headers of one record; reused from event to event. All zero before the first. */
struct event_scratch {
    uint8_t bytes[LIMIT_EVENT_HEADERS_BYTES];
    struct iovec parts[1];
    /* The receive time as text: events come many to the millisecond. */
    int64_t time_ms;
    char time[EVENT_TIME_SIZE];
};

/*
 * Builds the stream record of an event. Parts point into scratch, source and event.
 * DG_ERR_TOO_LARGE when payload or headers are over their limit; DG_ERR_PROTOCOL when the device's
 * own CloudEvents attributes are not valid (empty id, a reserved type ...). event->user_properties
 * is a section that the packet codec has checked.
 */
DG_NODISCARD int event_build(const struct device_event *event, const struct event_source *source,
                             struct event_counter *counter, struct event_scratch *scratch,
                             struct stream_record *ret_record);

/* Whether readers would take a header of this name for one that the gateway answers for. */
bool event_owns_header(struct slice name);

/* What a device's connected and disconnected events say; schemas/ describes the JSON. */
struct event_presence {
    bool connected;
    const char *reason;  /* words */
    uint8_t reason_code; /* MQTT 5's */
    struct slice client_id;
    const char *protocol;
    struct slice peer;       /* "192.0.2.7:5123" */
    struct slice session_id; /* names one connection across both events */
    uint64_t duration_ms;    /* 0 when connected */
    int64_t credential_key;
    /* connected, after a take-over: the connection that had to go; else empty */
    struct slice previous_peer, previous_session_id;
};

/* Writes the payload of a presence event. 0, or DG_ERR_LIMIT when w is out of room (4 KiB are
 * enough for every client id). */
DG_NODISCARD int event_write_presence(const struct event_presence *presence, struct writer *w);
