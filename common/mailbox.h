/*
 * Messages between threads: many senders, one receiver, first in first out per sender.
 *
 * A message is any object that embeds a struct mail. Posting hands the object over; the receiver's
 * handler owns it from then on. The receiver sleeps in its own loop and watches mailbox_fd(), which
 * is readable after the mailbox went from empty to non-empty. No lock is held while a handler runs.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

struct mail {
    struct mail *next;
    /* Called on the receiving thread; receiver is what mailbox_init() was given. */
    void (*deliver)(struct mail *mail, void *receiver);
};

struct mailbox {
    _Atomic(struct mail *) newest;
    int event_fd;
    void *receiver;
};

/* Any thread before use. 0, or DG_ERR_IO when no descriptor is left. */
int mailbox_init(struct mailbox *mailbox, void *receiver);

/* Receiver's thread, after the last post. Undelivered mail is the owner's to free. */
void mailbox_free(struct mailbox *mailbox);

/* Any thread. Never fails, never blocks. */
void mailbox_post(struct mailbox *mailbox, struct mail *mail);

/* Receiver's thread: delivers all that is there now; returns how many. Clears the descriptor. */
unsigned mailbox_drain(struct mailbox *mailbox);

static inline int mailbox_fd(const struct mailbox *mailbox) {
    return mailbox->event_fd;
}
