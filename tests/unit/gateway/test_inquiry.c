/* Inquiries between workers that are no threads: mail is delivered by hand. */
#include <criterion/criterion.h>

#include "gateway/session/claims.h"
#include "gateway/session/inquiry.h"
#include "leaks.h"

TestSuite(inquiry, .fini = check_leaks);

enum { WORKERS = 3, DEVICE = 42, CLAIMED = -7 };

static struct fake {
    struct worker worker;
    struct flight *flight;
    bool has_device;
    unsigned asked;
} fakes[WORKERS];
static struct worker *workers[WORKERS];
static struct inquiry *answer;
static unsigned answer_worker;

static void on_inquiry(void *context, struct inquiry *inquiry) {
    struct fake *fake = context;
    fake->asked++;
    cr_assert_eq(inquiry->device_key, DEVICE);
    if (fake->has_device) {
        inquiry->is_connected = true;
        inquiry->connection.worker = fake->worker.index;
    }
    inquiry_read_flight(inquiry, fake->flight);
}

static void on_answered(struct worker *worker, struct inquiry *inquiry) {
    cr_assert_null(answer);
    answer = inquiry;
    answer_worker = worker->index;
}

static void begin(void) {
    memset(fakes, 0, sizeof(fakes));
    answer = NULL;
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = &fakes[i].worker;
        workers[i]->index = i;
        cr_assert_eq(mailbox_init(&workers[i]->mailbox, workers[i]), 0);
        cr_assert_eq(flight_create(&fakes[i].flight), 0);
        struct claims_receiver receiver = {.context = &fakes[i], .answer = on_inquiry};
        cr_assert_eq(claims_set_receiver(workers[i], &receiver), 0);
        cr_assert_eq(claims_worker_start(workers[i], workers, WORKERS), 0);
    }
}

static void deliver_all(void) {
    unsigned count;
    do {
        count = 0;
        for (unsigned i = 0; i < WORKERS; i++)
            count += mailbox_drain(&workers[i]->mailbox);
    } while (count > 0);
}

static void end(void) {
    deliver_all();
    for (unsigned i = 0; i < WORKERS; i++) {
        claims_worker_free(workers[i]);
        flight_free(fakes[i].flight);
        mailbox_free(&workers[i]->mailbox);
    }
}

static void ask(unsigned worker, unsigned wanted) {
    struct inquiry *inquiry = inquiry_new(wanted);
    cr_assert_not_null(inquiry);
    inquiry->device_key = DEVICE;
    inquiry->claimed_key = CLAIMED;
    inquiry->since_ms = 100;
    inquiry->answered = on_answered;
    inquiry_send(workers[worker], inquiry);
}

static void record(unsigned worker, int64_t key, int64_t at_ms) {
    flight_record(fakes[worker].flight,
                  &(struct flight_note){.at_ms = at_ms,
                                        .key = key,
                                        .kind = at_ms % 2 ? FLIGHT_CONNECTED : FLIGHT_LOST});
}

Test(inquiry, every_worker_is_asked_once) {
    for (unsigned asker = 0; asker < WORKERS; asker++)
        for (unsigned holder = 0; holder < WORKERS; holder++) {
            begin();
            fakes[holder].has_device = true;
            ask(asker, 1);
            cr_expect_null(answer, "never at once");
            deliver_all();
            cr_assert_not_null(answer);
            cr_expect_eq(answer_worker, asker);
            cr_expect(answer->is_connected);
            cr_expect_eq(answer->connection.worker, holder);
            for (unsigned i = 0; i < WORKERS; i++)
                cr_expect_eq(fakes[i].asked, 1);
            inquiry_free(answer);
            end();
        }
}

Test(inquiry, entries_of_all_workers_and_both_keys) {
    begin();
    record(0, DEVICE, 205);
    record(1, DEVICE, 203);
    record(2, DEVICE, 201);
    record(1, CLAIMED, 204);
    record(2, CLAIMED, 99); /* before the device was made */
    record(2, DEVICE + 1, 300);
    record(0, CLAIMED - 1, 300);
    ask(1, 10);
    deliver_all();
    cr_assert_eq(answer->entry_count, 4);
    static const int64_t wanted[] = {205, 204, 203, 201};
    for (unsigned i = 0; i < 4; i++)
        cr_expect_eq(answer->entries[i].at_ms, wanted[i]);
    inquiry_free(answer);
    answer = NULL;
    ask(2, 2);
    deliver_all();
    cr_assert_eq(answer->entry_count, 2);
    cr_expect_eq(answer->entries[1].at_ms, 204);
    inquiry_free(answer);
    end();
}

/* A worker's part goes while a question is on its way: it is freed there (the suite's end looks).
 */
Test(inquiry, the_gateway_ends_meanwhile) {
    begin();
    ask(0, 5);
    claims_worker_free(workers[0]);
    end();
    begin();
    ask(0, 5);
    mailbox_drain(&workers[0]->mailbox);
    claims_worker_free(workers[1]);
    end();
    cr_expect_null(answer);
}

/* No devices connect to this one: nothing is known, and that is said. */
Test(inquiry, a_worker_without_claims) {
    struct worker alone = {0};
    cr_assert_eq(mailbox_init(&alone.mailbox, &alone), 0);
    workers[0] = &alone;
    answer = NULL;
    ask(0, 5);
    mailbox_drain(&alone.mailbox);
    cr_assert_not_null(answer);
    cr_expect(!answer->is_connected);
    inquiry_free(answer);
    mailbox_free(&alone.mailbox);
}
