/*
 * The deadlines of one worker's connections: a wheel of 100 ms slots, linked through the
 * connections themselves. A deadline beyond one revolution is looked at once per revolution; one
 * that moved later stays where it is and is put back when its slot comes up, so moving a deadline
 * later costs a store. One thread.
 */
#pragma once

#include <stdint.h>

struct connection;

enum { WHEEL_SLOT_MS = 100, WHEEL_SLOTS = 1024 };

struct wheel {
    struct connection *slots[WHEEL_SLOTS];
    uint64_t tick; /* the slot handled last, in units of WHEEL_SLOT_MS */
    unsigned count;
};

/* Sets, moves or (0) removes the connection's deadline, monotonic ms. */
void wheel_set(struct wheel *wheel, struct connection *c, uint64_t deadline_ms, uint64_t now_ms);

/* Takes every connection whose deadline has passed off the wheel and calls expired for it, which
 * may set deadlines of any connection anew. */
void wheel_advance(struct wheel *wheel, uint64_t now_ms, void (*expired)(struct connection *c));
