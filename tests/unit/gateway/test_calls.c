/* Method calls between two workers that are no threads: mail is delivered by hand. The device's
 * session is played by a function that keeps what it is given. */
#include <criterion/criterion.h>
#include <event2/event.h>
#include <stdlib.h>

#include "common/metrics.h"
#include "gateway/command/calls.h"
#include "gateway/session/claims.h"
#include "leaks.h"

TestSuite(calls, .fini = check_leaks);

enum { WORKERS = 2, HOLDER_OWNER = 9, GIVEN_MAX = 8 };

static struct worker fakes[WORKERS], *workers[WORKERS];
static struct claim *held;
static struct outbox_message *given[GIVEN_MAX];
static unsigned given_count, given_worker, answer_count, wanted_asked;
static int deliver_err;
static struct call_answer last;
static unsigned last_status;
static uint64_t last_owner;

static int deliver(struct worker *worker, uint64_t owner, struct outbox_message *message) {
    cr_assert_eq(owner, HOLDER_OWNER);
    given_worker = worker->index;
    if (deliver_err < 0)
        return deliver_err;
    cr_assert_lt(given_count, GIVEN_MAX);
    given[given_count++] = message;
    return 0;
}

static void on_answered(struct worker *worker, uint64_t owner, const struct call_answer *answer) {
    answer_count++;
    last = *answer;
    last_status = answer->reply ? answer->reply->status : 0;
    last_owner = owner;
}

static void on_settled(void *context, uint64_t owner, struct claim *claim, int err) {
    held = claim;
}
static void on_evict(void *context, uint64_t owner, const struct in6_addr *peer_address,
                     uint16_t peer_port) {
}
static void on_expired(void *context, struct claim *claim) {
}

static void begin(void) {
    given_count = answer_count = 0;
    deliver_err = 0;
    held = NULL;
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = &fakes[i];
        fakes[i] = (struct worker){.index = i, .base = event_base_new()};
        worker_refresh_time(workers[i]);
        cr_assert_eq(mailbox_init(&fakes[i].mailbox, workers[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        struct claims_receiver receiver = {on_settled, on_evict, on_expired, NULL};
        cr_assert_eq(claims_set_receiver(workers[i], &receiver), 0);
        cr_assert_eq(claims_worker_start(workers[i], workers, WORKERS), 0);
        cr_assert_eq(calls_worker_start(workers[i], workers, WORKERS, deliver), 0);
    }
}

static void deliver_all(void) {
    while (mailbox_drain(&fakes[0].mailbox) + mailbox_drain(&fakes[1].mailbox) > 0)
        ;
}

static void end(void) {
    if (held)
        claims_release(workers[held->worker], held);
    deliver_all();
    for (unsigned i = 0; i < WORKERS; i++) {
        calls_worker_free(workers[i]);
        claims_worker_free(workers[i]);
    }
    deliver_all(); /* what comes back to nobody */
    for (unsigned i = 0; i < WORKERS; i++) {
        mailbox_free(&fakes[i].mailbox);
        event_base_free(fakes[i].base);
    }
}

static int64_t device_at_home(unsigned worker) {
    int64_t key = 1;
    while (claims_home(key, WORKERS) != worker)
        key++;
    return key;
}

static void hold(unsigned worker, int64_t device) {
    static const struct in6_addr any_address;
    cr_assert_eq(claims_ask(workers[worker], device, HOLDER_OWNER, &any_address, 1), 0);
    deliver_all();
    cr_assert_not_null(held);
}

static int call(unsigned worker, int64_t device, uint32_t connect_ms, uint32_t response_ms) {
    struct call_request request = {.tenant_key = 7,
                                   .device_key = device,
                                   .name = slice_from_string("reboot"),
                                   .payload = slice_from_string("{}"),
                                   .content_type = slice_from_string("application/json"),
                                   .connect_timeout_ms = connect_ms,
                                   .response_timeout_ms = response_ms,
                                   .owner = 5,
                                   .answered = on_answered};
    return calls_begin(workers[worker], &request);
}

static void give_back(struct outbox_message *message, enum outbox_outcome outcome, int err) {
    message->outcome = (uint8_t)outcome;
    message->err = (int8_t)err;
    message->finished(message);
}

static void reply(struct outbox_message *message, unsigned status) {
    message->reply = calloc(1, sizeof(*message->reply));
    message->reply->status = status;
    give_back(message, OUTBOX_REPLIED, 0);
}

/* The loop turns until a timer has had its effect. */
static void run_until(const unsigned *count, unsigned wanted) {
    while (*count < wanted) {
        event_base_loop(fakes[0].base, EVLOOP_ONCE);
        deliver_all();
    }
}

Test(calls, every_way) {
    for (unsigned asker = 0; asker < WORKERS; asker++)
        for (unsigned home = 0; home < WORKERS; home++)
            for (unsigned holder = 0; holder < WORKERS; holder++) {
                begin();
                int64_t device = device_at_home(home);
                hold(holder, device);
                cr_assert_eq(call(asker, device, 0, 1000), 0);
                deliver_all();
                cr_assert_eq(given_count, 1);
                cr_assert_eq(given_worker, holder);
                cr_assert_eq(given[0]->expires_ms, fakes[asker].now_ns / 1000000 + 1000);
                cr_assert_eq(strlen(given[0]->reply_id), OUTBOX_REPLY_ID_BYTES);
                reply(given[0], 204);
                cr_assert_eq(answer_count, 0, "never from within");
                deliver_all();
                cr_assert(answer_count == 1 && last.err == 0 && last_status == 204);
                cr_assert_eq(last_owner, 5);
                end();
            }
}

Test(calls, what_becomes_of_them) {
    static const int errs[] = {DG_ERR_NOT_CONNECTED, DG_ERR_NOT_FOUND, DG_ERR_LIMIT};
    begin();
    int64_t device = device_at_home(0);
    cr_assert_eq(call(1, device, 0, 1000), 0);
    deliver_all();
    cr_assert(answer_count == 1 && last.err == DG_ERR_NOT_CONNECTED);
    hold(0, device);
    for (unsigned i = 0; i < 3; i++) {
        deliver_err = errs[i];
        cr_assert_eq(call(1, device, 0, 1000), 0);
        deliver_all();
        cr_assert(answer_count == 2 + i && last.err == errs[i]);
    }
    deliver_err = 0;
    cr_assert_eq(call(1, device, 0, 1000), 0);
    deliver_all();
    given[0]->reason = 0x99;
    give_back(given[0], OUTBOX_REFUSED, DG_ERR_DEVICE_REFUSED);
    deliver_all();
    cr_assert(answer_count == 5 && last.err == DG_ERR_DEVICE_REFUSED && last.reason == 0x99);
    end();
}

Test(calls, no_answer_in_time_and_one_that_comes_late) {
    begin();
    int64_t device = device_at_home(1);
    hold(1, device);
    cr_assert_eq(call(0, device, 0, 1), 0);
    deliver_all();
    run_until(&answer_count, 1);
    cr_assert_eq(last.err, DG_ERR_TIMEOUT);
    reply(given[0], 200);
    deliver_all();
    cr_assert_eq(answer_count, 1);
    end();
}

Test(calls, a_device_that_connects_later) {
    begin();
    int64_t device = device_at_home(1);
    cr_assert_eq(call(0, device, 60000, 60000), 0);
    deliver_all();
    hold(1, device);
    deliver_err = DG_ERR_NOT_FOUND; /* not subscribed yet */
    given_worker = UINT32_MAX;
    while (given_worker == UINT32_MAX) {
        event_base_loop(fakes[0].base, EVLOOP_ONCE);
        deliver_all();
    }
    cr_assert_eq(answer_count, 0);
    deliver_err = 0;
    run_until(&given_count, 1);
    reply(given[0], 200);
    deliver_all();
    cr_assert(answer_count == 1 && last.err == 0);
    end();
}

Test(calls, limit_of_a_tenant) {
    begin();
    deliver_err = 0;
    int64_t device = device_at_home(1);
    for (unsigned i = 0; i < LIMIT_CALLS_OF_TENANT; i++)
        cr_assert_eq(call(0, device, 60000, 60000), 0);
    cr_assert_eq(call(0, device, 60000, 60000), DG_ERR_LIMIT);
    cr_assert_eq(call(1, device, 0, 60000), 0, "another worker's");
    deliver_all(); /* they wait for the device, and end with the worker */
    cr_assert_eq(answer_count, 1);
    end();
}

static bool is_wanted(struct worker *worker, uint64_t owner) {
    wanted_asked++;
    return false;
}

/* A caller that has gone is not called for when the device comes. */
Test(calls, caller_that_goes_while_the_device_is_away) {
    begin();
    int64_t device = device_at_home(1);
    struct call_request request = {.tenant_key = 7,
                                   .device_key = device,
                                   .name = slice_from_string("reboot"),
                                   .connect_timeout_ms = 60000,
                                   .response_timeout_ms = 60000,
                                   .owner = 5,
                                   .is_wanted = is_wanted,
                                   .answered = on_answered};
    wanted_asked = 0;
    for (unsigned i = 0; i < LIMIT_CALLS_OF_TENANT; i++)
        cr_assert_eq(calls_begin(workers[0], &request), 0);
    deliver_all();
    run_until(&wanted_asked, LIMIT_CALLS_OF_TENANT);
    hold(0, device);
    cr_assert_eq(call(0, device, 0, 60000), 0, "there is room again");
    deliver_all();
    cr_assert_eq(given_count, 1);
    reply(given[0], 200);
    deliver_all();
    cr_assert(answer_count == 1 && last.err == 0);
    end();
}

/* What is on its way when the workers end is freed by whoever gets it. */
Test(calls, the_end) {
    begin();
    int64_t device = device_at_home(1);
    hold(0, device);
    cr_assert_eq(call(0, device, 0, 60000), 0); /* on its way to the home */
    cr_assert_eq(call(1, device, 0, 60000), 0); /* on its way to the holder */
    calls_worker_free(workers[0]);
    calls_worker_free(workers[1]);
    deliver_all();
    cr_assert_eq(given_count, 0);
    end();
    begin();
    hold(0, device);
    cr_assert_eq(call(0, device, 0, 60000), 0);
    deliver_all();
    calls_worker_free(workers[0]);
    give_back(given[0], OUTBOX_DROPPED, DG_ERR_CLOSED);
    end();
}
