/*
 * "May this session do this": one function, asked where the effect happens (storing an event, a
 * will, granting a filter). Identity is the verified credential's, never what a packet says. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/slice.h"
#include "gateway/dialect/native.h"
#include "gateway/event/event.h"

struct session;

enum session_action { SESSION_PUBLISH, SESSION_LEAVE_WILL, SESSION_SUBSCRIBE };

enum { SESSION_ASK = 1 };

struct topic_map;
struct child; /* children.h: key, group and partition of a device behind a gateway */

/* Requests of IoT Hub's clients about their twin: no events. */
enum session_twin { SESSION_TWIN_NONE, SESSION_TWIN_GET, SESSION_TWIN_REPORT };

struct session_permit {
    enum event_type event_type; /* what a publish or will becomes */
    struct slice subject;       /* and its ce_subject */
    struct slice topic;         /* as the device whose it is would have published it */
    /* Whose it is: a device behind the session's; empty and NULL: the session's own. The child is
     * valid until the table of children changes. */
    struct slice child_name;
    const struct child *child;
    int refused;   /* not by session_may(): why it is stored as something else; 0: it is not */
    bool is_reply; /* to a call: no event */
    struct slice reply_id, reply_status;
    /* IoT Hub's dialect: a request is named by reply_id. */
    enum session_twin twin;
    struct slice version; /* that a report is for; empty: any */
    struct slice bag;     /* properties as published ... */
    /* ... and, by session_iothub_translate(), what becomes of them */
    struct slice headers, content_type;
};

/*
 * name is the topic (publish, will) or the filter (subscribe), already of valid form. 0 and the
 * permit, whose first two members are of a topic; DG_ERR_NOT_AUTHORIZED, DG_ERR_NOT_SUPPORTED (a
 * control topic whose channel this gateway does not serve), and for a filter DG_ERR_WILDCARD or
 * DG_ERR_SHARED_SUBSCRIPTION. Of a device behind this one: DG_ERR_VIA (it may not speak for that
 * device), DG_ERR_UNAVAILABLE (nobody knows), and SESSION_ASK: the registry is to be asked for
 * permit->child_name first. A will is never that of a device behind.
 */
DG_NODISCARD int session_may(const struct session *session, enum session_action action,
                             struct slice name, struct session_permit *ret_permit);

/* What a topic becomes that some device may publish for itself, whoever it is: the part of
 * session_may() that asks for no session. topics: its tenant's map, or NULL. */
DG_NODISCARD int authorize_topic(const struct topic_map *topics, struct slice topic,
                                 struct session_permit *ret_permit);

/* The same for a device behind it, by its name: where something is delivered for it. */
DG_NODISCARD int session_may_speak_for(const struct session *session, struct slice child_name,
                                       const struct child **ret_child);
