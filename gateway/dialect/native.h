/*
 * The native topic names of DESIGN.md §4: what a published topic means, and which filters a device
 * may subscribe to. Pure.
 */
#pragma once

#include <stdbool.h>

#include "common/err.h"
#include "common/slice.h"

enum native_topic_kind {
    NATIVE_TELEMETRY,      /* any topic that does not begin with '$': subject = topic */
    NATIVE_EVENT,          /* $dg/events/<subject> */
    NATIVE_REPLY,          /* $dg/replies/<id>/<status> (accepted with the command channel) */
    NATIVE_STATE_REPORTED, /* $dg/state/reported */
    NATIVE_VIA,            /* $dg/via/<device>/<topic> */
};

/* 0, DG_ERR_NOT_AUTHORIZED for any other $ topic (DESIGN.md: refused), DG_ERR_TOPIC_NAME for an
 * empty one. ret_subject is what becomes ce_subject: the topic as published, or what follows
 * $dg/events/. */
DG_NODISCARD int native_classify_topic(struct slice topic, enum native_topic_kind *ret_kind,
                                       struct slice *ret_subject);

/* The parts of a topic of this kind; of any other, nothing is touched. */
void native_reply_parts(struct slice topic, struct slice *ret_id, struct slice *ret_status);
/* ... or of a filter that native_check_filter() lets pass. */
void native_via_parts(struct slice topic, struct slice *ret_device, struct slice *ret_rest);

/* 0 when a device may subscribe ($dg/commands/#, $dg/state/desired and the same below
 * $dg/via/<device>/); DG_ERR_WILDCARD, DG_ERR_SHARED_SUBSCRIPTION or DG_ERR_NOT_AUTHORIZED. */
DG_NODISCARD int native_check_filter(struct slice filter);

/* Those, in words. */
const char *native_allowed_filters(void);

/* A reply's status: 0, or DG_ERR_TOPIC_NAME when it is not a number from 100 to 999. */
DG_NODISCARD int native_read_status(struct slice status, unsigned *ret_status);

/* Splits a topic on which a device is called, $dg/commands/<id>/<name>; false when it is none. The
 * name may be empty: not every command has one. */
bool native_split_command(struct slice topic, struct slice *ret_id, struct slice *ret_name);

/* Whether a filter that native_check_filter() has let pass takes a topic of ours. */
bool native_filter_takes(struct slice filter, struct slice topic);

/* Splits an MQTT user name: device@tenant at the last '@'; without one, tenant "default" (static
 * text). DG_ERR_BAD_CREDENTIALS when either is empty. */
DG_NODISCARD int native_split_user_name(struct slice user_name, struct slice *ret_device,
                                        struct slice *ret_tenant);
