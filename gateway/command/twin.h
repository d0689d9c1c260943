/* What sessions and the home of a device's twin say to each other: gateway/command/twins.h. */
#pragma once

#include <stdint.h>

#include "common/slice.h"
#include "gateway/command/target.h"

enum twin_action {
    TWIN_GET,    /* answers with {"desired":{...,"$version":n},"reported":{...,"$version":m}} */
    TWIN_REPORT, /* a merge patch of reported state; answers with the new version */
};

/* What a session asks. Slices are copied. */
struct twin_request {
    enum twin_action action;
    struct command_target target;
    uint64_t owner, tag; /* the asker's own, as in the answer: a session's id, and what it likes */
    struct slice note;   /* likewise, at most LIMIT_TWIN_NOTE_BYTES: IoT Hub's $rid */
    /* TWIN_REPORT */
    struct slice patch;       /* twin_parse() has taken it (registry/twin.h) */
    int64_t expected_version; /* of the reported state; 0: whatever it is */
    struct slice identity;    /* key of a QoS 2 identity, stored in the same unit; empty: none */
};

/* Slices are valid during the call. */
struct twin_answer {
    uint64_t owner, tag;
    /* 0; DG_ERR_UNAVAILABLE, DG_ERR_TIMEOUT: PostgreSQL is needed (the twin is not known here) and
     * does not answer; DG_ERR_BUSY: too much waits; DG_ERR_STATE_SIZE; DG_ERR_PRECONDITION: the
     * version is another one; DG_ERR_NOT_FOUND: the device is gone; DG_ERR_STORAGE_FULL;
     * DG_ERR_NO_MEMORY; DG_ERR_SHUTTING_DOWN. */
    int err;
    int64_t version;       /* of the reported state, after TWIN_REPORT */
    struct slice why;      /* more than the error's text, or empty */
    struct slice document; /* TWIN_GET */
    struct slice note;
};

enum twin_shape { TWIN_WHOLE, TWIN_CHANGES };

/* Who is told of a device's desired state: a session (owner) of the calling worker. */
struct twin_listener {
    int64_t device_key;
    uint64_t owner;
    enum twin_shape shape;
    struct slice
        child; /* its name, when the session's device is a gateway for it; empty: its own */
};
