/*
 * "May this session do this": one function, asked where the effect happens (storing an event, a
 * will, granting a filter). Identity is the verified credential's, never what a packet says. Pure.
 */
#pragma once

#include <stdint.h>

#include "common/err.h"
#include "common/slice.h"
#include "gateway/dialect/native.h"
#include "gateway/event/event.h"

struct session;

enum session_action { SESSION_PUBLISH, SESSION_LEAVE_WILL, SESSION_SUBSCRIBE };

struct session_permit {
    enum event_type event_type; /* what a publish or will becomes */
    struct slice subject;       /* and its ce_subject */
};

/*
 * name is the topic (publish, will) or the filter (subscribe), already of valid form. 0 and, for a
 * topic, the permit; DG_ERR_NOT_AUTHORIZED, DG_ERR_NOT_SUPPORTED (a control topic whose channel
 * this gateway does not serve), and for a filter DG_ERR_WILDCARD or DG_ERR_SHARED_SUBSCRIPTION.
 */
DG_NODISCARD int session_may(const struct session *session, enum session_action action,
                             struct slice name, struct session_permit *ret_permit);

/* What a topic becomes that some device may publish, whoever it is: the part of session_may() that
 * asks for no session. */
DG_NODISCARD int authorize_topic(struct slice topic, struct session_permit *ret_permit);
