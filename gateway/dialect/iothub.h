/*
 * Azure IoT Hub's names over MQTT: what its clients write and expect, and nothing of what comes of
 * it. A client is known by its user name, <host>/<device id>/?<query>, whose host is one of
 * iothub.hosts. Its topics carry properties in a bag, "k=v&$.mid=7", percent-encoded; what begins
 * with "$." are properties of the message itself, the others are the application's.
 *
 * Device ids may have '+', '#', '%' and '?' in them: a topic is compared byte for byte first, then
 * with its device percent-decoded, and never taken for a pattern. Pure; any bytes may come in.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/slice.h"
#include "common/writer.h"

/* ---- CONNECT ---- */

/* What stands before the first '/'; false: there is none, so it is no user name of IoT Hub's. */
bool iothub_user_host(struct slice user_name, struct slice *ret_host);

/* Holds the rest of a user name that has a host against the client identifier, which is the device
 * id. ret_model_id: still percent-encoded; empty: none. DG_ERR_CLIENT_ID: they differ, it is a
 * module's, or no device may be called so. */
DG_NODISCARD int iothub_check_user(struct slice user_name, struct slice client_id,
                                   struct slice *ret_model_id);

/* Decodes %xx and nothing else into room; what is no escape stays as it is. The decoded size, or
 * DG_ERR_TOO_LARGE. */
DG_NODISCARD int iothub_decode(struct slice text, uint8_t *room, size_t room_size);

/* ---- topics of publishes ---- */

enum iothub_topic_kind {
    IOTHUB_TELEMETRY,    /* devices/<id>/messages/events[/[bag]] */
    IOTHUB_METHOD_REPLY, /* $iothub/methods/res/<status>/?$rid=<id> */
    IOTHUB_TWIN_GET,     /* $iothub/twin/GET/?$rid=<id> */
    IOTHUB_TWIN_REPORT,  /* $iothub/twin/PATCH/properties/reported/?$rid=<id>[&$version=<n>] */
};

struct iothub_topic {
    enum iothub_topic_kind kind;
    struct slice path; /* telemetry: without bag and the '/' before it */
    struct slice bag;
    struct slice request_id; /* as it stands */
    struct slice status;
    struct slice version; /* empty: none */
};

/* DG_ERR_NOT_AUTHORIZED: any other topic, also another device's; DG_ERR_TOPIC_NAME: without a
 * request id, or over LIMIT_IOTHUB_TOPIC_BYTES. */
DG_NODISCARD int iothub_classify_topic(struct slice topic, struct slice device,
                                       struct iothub_topic *ret_topic);

/* A method's status: any decimal number of up to nine digits. DG_ERR_TOPIC_NAME. */
DG_NODISCARD int iothub_read_status(struct slice status, unsigned *ret_status);

/* ---- properties of telemetry ---- */

/* What the gateway itself says of each message. */
struct iothub_facts {
    struct slice auth_method; /* "sas" or "x509" */
    struct slice model_id;    /* empty: none */
    int64_t generation;       /* of the device: its key in the registry */
    bool retain, is_will;
};

/* Room for what a bag becomes. */
enum { IOTHUB_HEADER_BYTES = 4 * LIMIT_IOTHUB_TOPIC_BYTES };

/* The headers that a bag becomes (schemas/events/headers.md), as a section of MQTT 5 user
 * properties in w; ret_content_type points into it. DG_ERR_MALFORMED: not UTF-8, or a NUL;
 * DG_ERR_TOO_LARGE. */
DG_NODISCARD int iothub_read_bag(struct slice bag, const struct iothub_facts *facts,
                                 struct writer *w, struct slice *ret_content_type);

/* ---- filters ---- */

enum iothub_filter {
    IOTHUB_FILTER_MESSAGES, /* devices/<id>/messages/devicebound/# */
    IOTHUB_FILTER_METHODS,  /* $iothub/methods/POST/# */
    IOTHUB_FILTER_TWIN,     /* $iothub/twin/res/# */
    IOTHUB_FILTER_DESIRED,  /* $iothub/twin/PATCH/properties/desired/# */
};

/* Which one a device's filter is, or DG_ERR_NOT_AUTHORIZED: it is none. */
DG_NODISCARD int iothub_find_filter(struct slice filter, struct slice device);

/* Those, in words. */
const char *iothub_allowed_filters(void);

/* ---- topics of what the device gets; w fails when there is no room ---- */

/* What is sent with a message beside its payload. */
struct iothub_message {
    struct slice device;
    struct slice id;           /* when the properties give none */
    struct slice name;         /* of a command that has one; IoT Hub's have none */
    struct slice content_type; /* empty: none */
    struct slice properties;   /* a section of MQTT 5 user properties: "$.mid" ... and others */
    int64_t expires_ms;        /* wall clock; 0: never */
};
void iothub_write_message_topic(struct writer *w, const struct iothub_message *message);
void iothub_write_method_topic(struct writer *w, struct slice name, struct slice request_id);
/* version 0: none. */
void iothub_write_twin_topic(struct writer *w, unsigned status, struct slice request_id,
                             uint64_t version);
void iothub_write_desired_topic(struct writer *w, uint64_t version);
