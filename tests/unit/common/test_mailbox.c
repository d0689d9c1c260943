#include <criterion/criterion.h>
#include <poll.h>
#include <stdint.h>

#include "common/mailbox.h"

enum { LETTERS = 10 };

struct letter {
    struct mail mail;
    int number;
};

struct reader_of_letters {
    struct mailbox box;
    int numbers[64];
    unsigned count;
    struct letter *reply; /* posted from inside a handler when set */
};

static void deliver(struct mail *mail, void *receiver) {
    struct reader_of_letters *r = receiver;
    struct letter *letter = (struct letter *)mail;
    r->numbers[r->count++] = letter->number;
    mail->next = (struct mail *)(uintptr_t)8; /* the receiver owns it: the mailbox must not look */
    if (r->reply) {
        struct letter *reply = r->reply;
        r->reply = NULL;
        mailbox_post(&r->box, &reply->mail);
    }
}

static bool is_readable(const struct mailbox *box) {
    struct pollfd p = {.fd = mailbox_fd(box), .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

static void start(struct reader_of_letters *r, struct letter *letters) {
    *r = (struct reader_of_letters){0};
    cr_assert_eq(mailbox_init(&r->box, r), 0);
    for (int i = 0; i < LETTERS; i++)
        letters[i] = (struct letter){.mail = {.deliver = deliver}, .number = i};
}

Test(mailbox, delivers_in_order_and_clears_the_descriptor) {
    struct reader_of_letters r;
    struct letter letters[LETTERS];
    start(&r, letters);
    cr_expect_not(is_readable(&r.box));
    cr_expect_eq(mailbox_drain(&r.box), 0);
    mailbox_post(&r.box, &letters[0].mail);
    cr_expect(is_readable(&r.box));
    mailbox_post(&r.box, &letters[1].mail);
    mailbox_post(&r.box, &letters[2].mail);
    cr_expect_eq(mailbox_drain(&r.box), 3);
    for (int i = 0; i < 3; i++)
        cr_expect_eq(r.numbers[i], i);
    cr_expect_not(is_readable(&r.box));
    mailbox_free(&r.box);
}

Test(mailbox, a_post_from_a_handler_waits_for_the_next_drain) {
    struct reader_of_letters r;
    struct letter letters[LETTERS];
    start(&r, letters);
    r.reply = &letters[9];
    mailbox_post(&r.box, &letters[0].mail);
    cr_expect_eq(mailbox_drain(&r.box), 1);
    cr_expect(is_readable(&r.box));
    cr_expect_eq(mailbox_drain(&r.box), 1);
    cr_expect_eq(r.numbers[1], 9);
    mailbox_free(&r.box);
}
