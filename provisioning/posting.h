/*
 * A POST of a command, from its body to its answer; call->state of command_post(). commands.c
 * creates the command, command_wait.c waits for what it becomes. Worker's thread.
 */
#pragma once

#include <event2/event_struct.h>

#include "gateway/command/commands.h"
#include "provisioning/call.h"
#include "provisioning/command_draft.h"

struct posting {
    struct command_draft draft;
    struct slice idempotency_key; /* points into the request's head; empty: none */
    struct command_target target;
    unsigned attempts;
    int64_t command_key; /* 0: not created yet */

    bool waits, is_watched;
    bool must_match; /* the command was there: is it what this POST asks for? */
    enum command_state wanted;
    uint32_t timeout_ms;
    uint64_t deadline_ms; /* monotonic */
    unsigned pause_ms;    /* until the next look */
    struct event timer;   /* assigned with command_key */
};

/* The POST that this is, or NULL. */
struct posting *posting_of(struct provisioning_call *call);
/* It has been created, or was there (must_match): answers, now or when it has come to the state
 * that is waited for, or the time is over. */
void posting_wait(struct provisioning_call *call);
void posting_end_wait(struct posting *posting);
