/*
 * The states of a command. None is ever ahead of what happened:
 *
 *   queued -> sent -> delivered -> completed | rejected
 *
 * sent: the device's connection was given it. delivered: the device has acknowledged it (QoS 1, 2).
 * completed, rejected: it has replied; what wants no reply is completed by its acknowledgement, and
 * over QoS 0, which has none, ends at sent. abandoned: the device has given it back; it waits as if
 * queued. expired, dead_lettered (too many deliveries without an acknowledgement, or none that is
 * possible), cancelled: it will not be delivered (again); what was sent may have been carried out.
 */
#pragma once

#include <stdbool.h>

#include "common/slice.h"
#include "gateway/event/event.h"

/* COMMAND_STATE(id, name, rank, is_final). A wait for a state is over at a higher rank too. */
#define COMMAND_STATES(COMMAND_STATE)                      \
    COMMAND_STATE(QUEUED, "queued", 0, false)              \
    COMMAND_STATE(SENT, "sent", 1, false)                  \
    COMMAND_STATE(DELIVERED, "delivered", 2, false)        \
    COMMAND_STATE(COMPLETED, "completed", 3, true)         \
    COMMAND_STATE(REJECTED, "rejected", 3, true)           \
    COMMAND_STATE(ABANDONED, "abandoned", 0, false)        \
    COMMAND_STATE(EXPIRED, "expired", 3, true)             \
    COMMAND_STATE(DEAD_LETTERED, "dead_lettered", 3, true) \
    COMMAND_STATE(CANCELLED, "cancelled", 3, true)

/* For people, behind a colon: " queued sent ..." */
#define COMMAND_STATE_NAME(id, name, rank, is_final) " " name
#define COMMAND_STATE_NAMES COMMAND_STATES(COMMAND_STATE_NAME)

enum command_state {
#define COMMAND_STATE(id, ...) COMMAND_##id,
    COMMAND_STATES(COMMAND_STATE)
#undef COMMAND_STATE
        COMMAND_STATE_COUNT
};

struct command_state_row {
    const char *name;
    unsigned rank;
    bool is_final;
    enum event_type event_type;
};

extern const struct command_state_row command_states[COMMAND_STATE_COUNT];

/* COMMAND_STATE_COUNT: there is none of this name. */
enum command_state command_state_find(struct slice name);
