#include "gateway/transport/wheel.h"

#include "gateway/transport/connection.h"

static void unlink_connection(struct wheel *wheel, struct connection *c) {
    *c->wheel_link = c->wheel_next;
    if (c->wheel_next)
        c->wheel_next->wheel_link = c->wheel_link;
    c->wheel_next = NULL;
    c->wheel_link = NULL;
    wheel->count--;
}

/* The slot after the one in which the deadline falls: never early, at most 100 ms late. */
static void link_connection(struct wheel *wheel, struct connection *c) {
    uint64_t tick = c->deadline_ms / WHEEL_SLOT_MS + 1;
    if (tick <= wheel->tick)
        tick = wheel->tick + 1;
    if (tick >= wheel->tick + WHEEL_SLOTS)
        tick = wheel->tick + WHEEL_SLOTS - 1;
    struct connection **slot = &wheel->slots[tick % WHEEL_SLOTS];
    c->wheel_next = *slot;
    c->wheel_link = slot;
    if (*slot)
        (*slot)->wheel_link = &c->wheel_next;
    *slot = c;
    wheel->count++;
}

void wheel_set(struct wheel *wheel, struct connection *c, uint64_t deadline_ms, uint64_t now_ms) {
    bool linked = c->wheel_link != NULL;
    bool stays = linked && deadline_ms != 0 && deadline_ms >= c->deadline_ms;
    c->deadline_ms = deadline_ms;
    if (stays)
        return;
    if (linked)
        unlink_connection(wheel, c);
    if (deadline_ms == 0)
        return;
    if (wheel->count == 0)
        wheel->tick = now_ms / WHEEL_SLOT_MS; /* nobody advanced it while it was empty */
    link_connection(wheel, c);
}

static void handle_slot(struct wheel *wheel, uint64_t now_ms,
                        void (*expired)(struct connection *c)) {
    struct connection **slot = &wheel->slots[wheel->tick % WHEEL_SLOTS];
    struct connection *list = *slot;
    *slot = NULL;
    if (list)
        list->wheel_link = &list;
    while (list) {
        struct connection *c = list;
        unlink_connection(wheel, c); /* from the local list: the handler may unlink others too */
        if (c->deadline_ms > now_ms) {
            link_connection(wheel, c);
            continue;
        }
        c->deadline_ms = 0;
        expired(c);
    }
}

void wheel_advance(struct wheel *wheel, uint64_t now_ms, void (*expired)(struct connection *c)) {
    uint64_t until = now_ms / WHEEL_SLOT_MS;
    if (until > wheel->tick + WHEEL_SLOTS)
        wheel->tick = until - WHEEL_SLOTS; /* after a long sleep one revolution sees every slot */
    while (wheel->tick < until && wheel->count > 0) {
        wheel->tick++;
        handle_slot(wheel, now_ms, expired);
    }
    if (wheel->tick < until)
        wheel->tick = until;
}
