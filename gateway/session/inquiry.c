#include "gateway/session/inquiry.h"

#include <stdlib.h>

#include "common/assert.h"
#include "gateway/session/claims.h"

struct inquiry *inquiry_new(unsigned wanted) {
    dg_assert(wanted <= LIMIT_RECENT_ENTRIES);
    struct inquiry *inquiry = calloc(1, sizeof(*inquiry) + wanted * sizeof(inquiry->entries[0]));
    if (inquiry)
        inquiry->wanted = wanted;
    return inquiry;
}

void inquiry_free(struct inquiry *inquiry) {
    free(inquiry->others);
    free(inquiry);
}

/* ---- travelling ---- */

static void pass_on(struct worker *worker, struct inquiry *inquiry);

/* A worker whose part is gone: the gateway ends, and nobody waits any more. */
static void arrive(struct mail *mail, void *receiver) {
    struct inquiry *inquiry = (struct inquiry *)(void *)mail;
    const struct claims_receiver *who = claims_receiver_of(receiver);
    if (!who) {
        inquiry_free(inquiry);
        return;
    }
    if (who->answer)
        who->answer(who->context, inquiry);
    pass_on(receiver, inquiry);
}

static void come_home(struct mail *mail, void *receiver) {
    struct inquiry *inquiry = (struct inquiry *)(void *)mail;
    inquiry->answered(receiver, inquiry);
}

static void pass_on(struct worker *worker, struct inquiry *inquiry) {
    struct worker *to = claims_peer(worker, inquiry->next++);
    inquiry->mail.deliver = to ? arrive : come_home;
    if (!to)
        to = inquiry->asker == worker->index ? worker : claims_peer(worker, inquiry->asker);
    mailbox_post(&to->mailbox, &inquiry->mail);
}

void inquiry_send(struct worker *worker, struct inquiry *inquiry) {
    inquiry->asker = (uint16_t)worker->index;
    pass_on(worker, inquiry);
}

/* ---- answering ---- */

static void add(struct inquiry *inquiry, const struct flight_entry *entries, unsigned count) {
    inquiry->entry_count =
        flight_merge(inquiry->entries, inquiry->entry_count, inquiry->wanted, entries, count);
}

void inquiry_read_flight(struct inquiry *inquiry, const struct flight *flight) {
    struct flight_entry entries[LIMIT_RECENT_ENTRIES];
    add(inquiry, entries, flight_find(flight, inquiry->device_key, entries, inquiry->wanted));
    unsigned count = flight_find(flight, inquiry->claimed_key, entries, inquiry->wanted);
    while (count > 0 && entries[count - 1].at_ms < inquiry->since_ms)
        count--;
    add(inquiry, entries, count);
}
