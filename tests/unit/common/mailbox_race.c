/*
 * Many senders against one receiver that sleeps in poll(): nothing lost, nothing twice, in order
 * per sender, no wake-up missed. A plain program, so that it runs under ThreadSanitizer.
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/mailbox.h"
#include "common/metrics.h"

enum { SENDERS = 4, LETTERS = 30000, WAIT_MS = 20000 };

struct letter {
    struct mail mail;
    unsigned sender;
    unsigned number;
};

static struct mailbox box;
static unsigned expected[SENDERS];
static unsigned delivered;

static void fail(const char *what) {
    fprintf(stderr, "mailbox_race: %s\n", what);
    exit(1);
}

static void deliver(struct mail *mail, void *receiver) {
    struct letter *letter = (struct letter *)mail;
    if (receiver != &box || letter->number != expected[letter->sender]++)
        fail("out of order");
    delivered++;
    metric_add(METRIC_EVENTS_STORED, 1);
    free(letter);
}

static struct letter *write_letter(unsigned sender, unsigned number) {
    struct letter *letter = malloc(sizeof(*letter));
    if (letter == NULL)
        fail("out of memory");
    *letter = (struct letter){{.deliver = deliver}, sender, number};
    return letter;
}

static void *send_letters(void *argument) {
    unsigned sender = *(unsigned *)argument;
    for (unsigned number = 0; number < LETTERS; number++) {
        metric_add(METRIC_EVENTS_REFUSED, 1);
        mailbox_post(&box, &write_letter(sender, number)->mail);
        if (number % 64 == 0)
            sched_yield(); /* lets the receiver fall asleep, so that wake-ups are tried */
    }
    return NULL;
}

int main(void) {
    pthread_t threads[SENDERS];
    unsigned senders[SENDERS];
    if (mailbox_init(&box, &box))
        fail("no descriptor");
    for (unsigned i = 0; i < SENDERS; i++) {
        senders[i] = i;
        if (pthread_create(&threads[i], NULL, send_letters, &senders[i]))
            fail("no thread");
    }
    while (delivered < SENDERS * LETTERS) {
        struct pollfd p = {.fd = mailbox_fd(&box), .events = POLLIN};
        if (poll(&p, 1, WAIT_MS) != 1)
            fail("a wake-up was lost");
        mailbox_drain(&box);
        metric_read(METRIC_EVENTS_REFUSED); /* a reader beside writing threads */
    }
    for (unsigned i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    if (mailbox_drain(&box) != 0 || metric_read(METRIC_EVENTS_STORED) != SENDERS * LETTERS)
        fail("too many");
    mailbox_free(&box);
    return 0;
}
