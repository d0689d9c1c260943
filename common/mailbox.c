/*
 * A stack that senders push with one compare-and-exchange and the receiver takes whole with one
 * exchange, then turns around. The sender that finds it empty rings the event descriptor; the
 * receiver clears the descriptor before it takes the stack, so a push after the take rings again
 * and no wake-up is lost (at worst one is spurious).
 */
#include "common/mailbox.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/assert.h"
#include "common/err.h"

int mailbox_init(struct mailbox *mailbox, void *receiver) {
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0)
        return DG_ERR_IO;
    atomic_init(&mailbox->newest, NULL);
    mailbox->event_fd = fd;
    mailbox->receiver = receiver;
    return 0;
}

void mailbox_free(struct mailbox *mailbox) {
    close(mailbox->event_fd);
    mailbox->event_fd = -1;
}

static void ring(struct mailbox *mailbox) {
    uint64_t one = 1;
    ssize_t written;
    do
        written = write(mailbox->event_fd, &one, sizeof(one));
    while (written < 0 && errno == EINTR);
    /* EAGAIN: the counter is full, so the descriptor is readable already. */
    dg_assert(written == sizeof(one) || errno == EAGAIN);
}

static struct mail *reverse(struct mail *mail) {
    struct mail *reversed = NULL;
    while (mail) {
        struct mail *next = mail->next;
        mail->next = reversed;
        reversed = mail;
        mail = next;
    }
    return reversed;
}

void mailbox_post(struct mailbox *mailbox, struct mail *mail) {
    struct mail *top = atomic_load_explicit(&mailbox->newest, memory_order_relaxed);
    do
        mail->next = top;
    while (!atomic_compare_exchange_weak_explicit(&mailbox->newest, &top, mail,
                                                  memory_order_release, memory_order_relaxed));
    if (top == NULL)
        ring(mailbox);
}

unsigned mailbox_drain(struct mailbox *mailbox) {
    uint64_t rings;
    while (read(mailbox->event_fd, &rings, sizeof(rings)) < 0 && errno == EINTR)
        ;
    struct mail *mail =
        reverse(atomic_exchange_explicit(&mailbox->newest, NULL, memory_order_acquire));
    unsigned count = 0;
    while (mail) {
        struct mail *next = mail->next; /* the handler may free the mail */
        mail->deliver(mail, mailbox->receiver);
        mail = next;
        count++;
    }
    return count;
}
