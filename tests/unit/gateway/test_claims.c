/* Claims between two workers that are no threads: mail is delivered by hand, in any order wanted.
 */
#include <criterion/criterion.h>

#include "common/metrics.h"
#include "gateway/session/claims.h"
#include "gateway/session/device_map.h"
#include "gateway/session/inflight.h"
#include "leaks.h"

TestSuite(claims, .fini = check_leaks);

enum { WORKERS = 2, OWNERS = 8 };

struct fake {
    struct worker worker;
    struct claim *held[OWNERS];
    int settled_err[OWNERS];
    unsigned settled_count[OWNERS];
    unsigned evicted_count[OWNERS];
    uint16_t evicted_by_port;
    bool release_at_once;
    struct claim *expired;
};

static struct fake fakes[WORKERS];
static struct worker *workers[WORKERS];
static const struct in6_addr any_address;

static void on_settled(void *context, uint64_t owner, struct claim *claim, int err) {
    struct fake *fake = context;
    cr_assert_eq(claim == NULL, err < 0);
    fake->settled_count[owner]++;
    fake->settled_err[owner] = err;
    fake->held[owner] = claim;
}

static void let_go(struct fake *fake, uint64_t owner) {
    struct claim *claim = fake->held[owner];
    cr_assert_not_null(claim);
    fake->held[owner] = NULL;
    claims_release(&fake->worker, claim);
}

static void on_evict(void *context, uint64_t owner, const struct in6_addr *peer_address,
                     uint16_t peer_port) {
    struct fake *fake = context;
    fake->evicted_count[owner]++;
    fake->evicted_by_port = peer_port;
    if (fake->release_at_once && fake->held[owner])
        let_go(fake, owner);
}

static void on_expired(void *context, struct claim *claim) {
    struct fake *fake = context;
    cr_assert_null(fake->expired);
    fake->expired = claim;
}

static void begin(void) {
    memset(fakes, 0, sizeof(fakes));
    for (unsigned i = 0; i < WORKERS; i++) {
        struct fake *fake = &fakes[i];
        workers[i] = &fake->worker;
        fake->worker.index = i;
        cr_assert_eq(mailbox_init(&fake->worker.mailbox, &fake->worker), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        struct claims_receiver receiver = {on_settled, on_evict, on_expired, &fakes[i]};
        cr_assert_eq(claims_set_receiver(workers[i], &receiver), 0);
        cr_assert_eq(claims_worker_start(workers[i], workers, WORKERS), 0);
    }
}

static void deliver_all(void) {
    while (mailbox_drain(&workers[0]->mailbox) + mailbox_drain(&workers[1]->mailbox) > 0)
        ;
}

static void end(void) {
    for (unsigned i = 0; i < WORKERS; i++)
        for (unsigned owner = 0; owner < OWNERS; owner++)
            if (fakes[i].held[owner])
                let_go(&fakes[i], owner);
    deliver_all();
    for (unsigned i = 0; i < WORKERS; i++) {
        claims_worker_free(workers[i]);
        mailbox_free(&workers[i]->mailbox);
    }
}

static int64_t device_at_home(unsigned worker) {
    int64_t key = 1;
    while (claims_home(key, WORKERS) != worker)
        key++;
    return key;
}

static void ask(unsigned worker, int64_t device, uint64_t owner) {
    cr_assert_eq(claims_ask(workers[worker], device, owner, &any_address, (uint16_t)(1000 + owner)),
                 0);
}

Test(claims, free_device_is_granted) {
    for (unsigned home = 0; home < WORKERS; home++)
        for (unsigned asker = 0; asker < WORKERS; asker++) {
            begin();
            ask(asker, device_at_home(home), 3);
            if (asker == home)
                cr_assert_eq(fakes[asker].settled_count[3], 1, "direct");
            deliver_all();
            cr_assert_eq(fakes[asker].settled_count[3], 1);
            cr_assert_eq(fakes[asker].settled_err[3], 0);
            let_go(&fakes[asker], 3);
            deliver_all();
            ask(1 - asker, device_at_home(home), 4);
            deliver_all();
            cr_assert_eq(fakes[1 - asker].settled_count[4], 1);
            end();
        }
}

Test(claims, who_holds_a_device_is_known_at_its_home) {
    begin();
    unsigned worker;
    uint64_t owner;
    int64_t device = device_at_home(0);
    cr_assert(!claims_find(workers[0], device, &worker, &owner));
    ask(1, device, 3);
    deliver_all();
    cr_assert(claims_find(workers[0], device, &worker, &owner));
    cr_assert(worker == 1 && owner == 3);
    ask(0, device, 4);
    deliver_all();
    let_go(&fakes[1], 3);
    deliver_all();
    cr_assert(claims_find(workers[0], device, &worker, &owner));
    cr_assert(worker == 0 && owner == 4);
    let_go(&fakes[0], 4);
    deliver_all();
    cr_assert(!claims_find(workers[0], device, &worker, &owner));
    struct session_kept *kept = kept_new(1);
    kept->disconnected_ms = 1;
    cr_assert_eq(claims_install(workers[0], device, kept), 0);
    cr_assert(!claims_find(workers[0], device, &worker, &owner), "a session without connection");
    end();
}

Test(claims, take_over_waits_for_the_release) {
    for (unsigned home = 0; home < WORKERS; home++)
        for (unsigned old = 0; old < WORKERS; old++)
            for (unsigned newer = 0; newer < WORKERS; newer++) {
                begin();
                int64_t device = device_at_home(home);
                ask(old, device, 1);
                deliver_all();
                ask(newer, device, 2);
                deliver_all();
                cr_assert_eq(fakes[old].evicted_count[1], 1);
                cr_assert_eq(fakes[old].evicted_by_port, 1002);
                cr_assert_eq(fakes[newer].settled_count[2], 0);
                let_go(&fakes[old], 1);
                deliver_all();
                cr_assert_eq(fakes[newer].settled_count[2], 1);
                cr_assert_eq(fakes[newer].settled_err[2], 0);
                end();
            }
}

Test(claims, release_within_the_eviction) {
    for (unsigned old = 0; old < WORKERS; old++) {
        begin();
        fakes[old].release_at_once = true;
        int64_t device = device_at_home(0);
        ask(old, device, 1);
        deliver_all();
        ask(0, device, 2);
        deliver_all();
        cr_assert_eq(fakes[0].settled_count[2], 1);
        cr_assert_eq(fakes[0].settled_err[2], 0);
        end();
    }
}

Test(claims, newest_of_those_who_wait) {
    begin();
    int64_t device = device_at_home(1);
    ask(0, device, 1);
    deliver_all();
    ask(0, device, 2);
    ask(1, device, 3);
    deliver_all();
    cr_assert_eq(fakes[0].evicted_count[1], 1);
    cr_assert_eq(fakes[0].settled_count[2] + fakes[1].settled_count[3], 1);
    let_go(&fakes[0], 1);
    deliver_all();
    cr_assert_eq(fakes[0].settled_count[2] + fakes[1].settled_count[3], 2);
    cr_assert_eq(
        (fakes[0].settled_err[2] == DG_ERR_BUSY) + (fakes[1].settled_err[3] == DG_ERR_BUSY), 1);
    end();
}

Test(claims, late_release_does_not_drop_the_newer_holder) {
    begin();
    int64_t device = device_at_home(1);
    ask(0, device, 1);
    deliver_all();
    struct claim late = *fakes[0].held[1];
    ask(1, device, 2);
    deliver_all();
    let_go(&fakes[0], 1);
    deliver_all();
    cr_assert_eq(fakes[1].settled_count[2], 1);
    struct claim *again = malloc(sizeof(*again));
    *again = late;
    claims_release(workers[0], again);
    deliver_all();
    ask(0, device, 3);
    deliver_all();
    cr_assert_eq(fakes[0].settled_count[3], 0, "worker 1 still holds it");
    cr_assert_eq(fakes[1].evicted_count[2], 1);
    let_go(&fakes[1], 2);
    deliver_all();
    cr_assert_eq(fakes[0].settled_count[3], 1);
    end();
}

/* ---- sessions without a connection ---- */

static struct session_kept *kept_until(int64_t end_ms) {
    struct session_kept *kept = kept_new(1);
    kept->expiry_s = 10;
    kept->disconnected_ms = end_ms - 10000;
    return kept;
}

Test(claims, session_goes_with_the_claim_and_comes_back) {
    for (unsigned home = 0; home < WORKERS; home++)
        for (unsigned old = 0; old < WORKERS; old++)
            for (unsigned newer = 0; newer < WORKERS; newer++) {
                begin();
                int64_t before = metric_read(METRIC_SESSIONS_KEPT);
                int64_t device = device_at_home(home);
                struct session_kept *kept = kept_until(50000);
                cr_assert_eq(claims_install(workers[home], device, kept), 0);
                cr_assert_eq(metric_read(METRIC_SESSIONS_KEPT), before + 1);
                ask(old, device, 1);
                deliver_all();
                cr_assert_eq(fakes[old].held[1]->kept, kept);
                cr_assert(fakes[old].held[1]->may_keep);
                cr_assert_eq(metric_read(METRIC_SESSIONS_KEPT), before);
                ask(newer, device, 2);
                deliver_all();
                let_go(&fakes[old], 1);
                deliver_all();
                cr_assert_eq(fakes[newer].held[2]->kept, kept);
                let_go(&fakes[newer], 2);
                deliver_all();
                cr_assert_eq(metric_read(METRIC_SESSIONS_KEPT), before + 1);
                ask(newer, device, 3);
                deliver_all();
                cr_assert_eq(fakes[newer].held[3]->kept, kept);
                kept_free(kept);
                fakes[newer].held[3]->kept = NULL;
                end();
                cr_assert_eq(metric_read(METRIC_SESSIONS_KEPT), before);
            }
}

static struct producer *producers_used_at(int64_t wall_ms) {
    struct producer *list = NULL;
    struct producer_sequence sequence;
    struct producers_change change;
    const struct producers_context at = {.device_key = 1, .wall_ms = wall_ms};
    cr_assert_eq(producer_sequence_parse(slice_from_string("p:1:1"), &sequence), 0);
    cr_assert_eq(producers_prepare(&list, &sequence, &at, &change), 0);
    producers_submit(&change, &sequence, wall_ms);
    producers_settle(&list, change.ticket, 0);
    return list;
}

Test(claims, producers_go_with_the_claim_and_come_back_without_a_session) {
    for (unsigned both = 0; both < 2; both++) {
        begin();
        int64_t device = device_at_home(1);
        struct producer *producers = producers_used_at(1);
        cr_assert_eq(claims_install_producers(workers[1], device, producers), 0);
        if (both)
            cr_assert_eq(claims_install(workers[1], device, kept_until(50000)), 0);
        for (uint64_t owner = 1; owner <= 4; owner++) {
            ask(owner % 2, device, owner);
            deliver_all();
            if (owner > 1)
                let_go(&fakes[(owner - 1) % 2], owner - 1);
            deliver_all();
            cr_assert_eq(fakes[owner % 2].held[owner]->producers, producers);
            cr_assert_eq(fakes[owner % 2].held[owner]->kept != NULL, both);
        }
        end();
    }
}

static void sweep_all(unsigned worker, int64_t wall_ms) {
    for (unsigned i = 0; i < LIMIT_SESSION_SWEEP_CALLS; i++)
        claims_sweep(workers[worker], wall_ms);
}

Test(claims, session_whose_time_is_over_is_given_to_the_home) {
    begin();
    int64_t device = device_at_home(1);
    cr_assert_eq(claims_install(workers[1], device, kept_until(50000)), 0);
    sweep_all(1, 49999);
    cr_assert_null(fakes[1].expired);
    sweep_all(1, 50000);
    struct claim *claim = fakes[1].expired;
    cr_assert(claim && claim->kept && claim->device_key == device);
    sweep_all(1, 60000); /* once */
    ask(0, device, 1);
    deliver_all();
    cr_assert_eq(fakes[0].settled_count[1], 0, "waits until it is deleted");
    kept_free(claim->kept);
    claim->kept = NULL;
    claims_release(workers[1], claim);
    deliver_all();
    cr_assert_eq(fakes[0].settled_count[1], 1);
    cr_assert_null(fakes[0].held[1]->kept);
    end();
}

Test(claims, forgotten_producers_are_given_to_the_home) {
    begin();
    int64_t device = device_at_home(1), end_ms = 1000 + LIMIT_PRODUCER_IDLE_MS;
    cr_assert_eq(claims_install_producers(workers[1], device, producers_used_at(1000)), 0);
    cr_assert_eq(claims_install(workers[1], device, kept_until(2 * end_ms)), 0);
    sweep_all(1, end_ms - 1);
    cr_assert_null(fakes[1].expired);
    sweep_all(1, end_ms);
    struct claim *claim = fakes[1].expired;
    cr_assert(claim && claim->producers && claim->kept);
    producers_free(claim->producers);
    claim->producers = NULL;
    claims_release(workers[1], claim);
    fakes[1].expired = NULL;
    sweep_all(1, end_ms);
    cr_assert_null(fakes[1].expired);
    end();
}

Test(claims, every_kept_session_is_looked_at) {
    begin();
    for (int64_t device = 1; device <= 500; device++)
        if (claims_home(device, WORKERS) == 0)
            cr_assert_eq(claims_install(workers[0], device, kept_until(device)), 0);
    for (int64_t device = 1; device <= 500; device++) {
        sweep_all(0, device);
        if (claims_home(device, WORKERS) == 0)
            cr_assert(fakes[0].expired && fakes[0].expired->device_key == device);
        if (!fakes[0].expired)
            continue;
        struct claim *claim = fakes[0].expired;
        fakes[0].expired = NULL;
        kept_free(claim->kept);
        claim->kept = NULL;
        claims_release(workers[0], claim);
    }
    end();
}

/* ---- wills ---- */

static struct session_kept *kept_with_will(int64_t due_ms) {
    struct will_content content = {.topic = slice_from_string("t"),
                                   .payload = slice_from_string("gone")};
    struct session_kept *kept = kept_until(INT32_MAX);
    cr_assert_eq(will_create(&content, &kept->will), 0);
    kept->will->due.at_ms = due_ms;
    return kept;
}

static void install_will(int64_t device, int64_t due_ms) {
    struct session_kept *kept = kept_with_will(due_ms);
    cr_assert_eq(claims_install(workers[0], device, kept), 0);
}

Test(claims, wills_are_offered_when_they_are_due) {
    begin();
    int64_t waiting = metric_read(METRIC_WILLS_WAITING), devices = 0;
    for (int64_t device = 1; device <= 200; device++) {
        if (claims_home(device, WORKERS) != 0)
            continue;
        install_will(device, 1000 - device);
        devices++;
    }
    cr_assert_eq(metric_read(METRIC_WILLS_WAITING), waiting + devices);
    for (int64_t wall_ms = 800; wall_ms < 1000; wall_ms++) {
        const struct session_will *will = claims_next_will(workers[0], wall_ms);
        if (claims_home(1000 - wall_ms, WORKERS) != 0) {
            cr_assert_null(will);
            continue;
        }
        cr_assert(will && will->device_key == 1000 - wall_ms && will->due.at_ms == wall_ms);
        cr_assert_null(claims_next_will(workers[0], wall_ms), "once");
        struct claim *claim = claims_take_will(workers[0], 1000 - wall_ms, wall_ms);
        cr_assert(claim && claim->kept->will == will);
        cr_assert_null(claims_take_will(workers[0], 1000 - wall_ms, wall_ms), "it is held");
        claims_release(workers[0], claim);
        cr_assert_eq(claims_next_will(workers[0], wall_ms), will, "released with it: again");
        claim = claims_take_will(workers[0], 1000 - wall_ms, wall_ms);
        free(claim->kept->will);
        claim->kept->will = NULL;
        claims_release(workers[0], claim);
        cr_assert_null(claims_next_will(workers[0], wall_ms));
    }
    cr_assert_eq(metric_read(METRIC_WILLS_WAITING), waiting);
    end();
}

Test(claims, will_goes_with_its_session) {
    for (unsigned offered = 0; offered < 2; offered++) {
        begin();
        int64_t device = device_at_home(0);
        install_will(device, 100);
        if (offered)
            cr_assert_not_null(claims_next_will(workers[0], 100));
        ask(1, device, 1);
        deliver_all();
        cr_assert_null(claims_next_will(workers[0], 1000));
        cr_assert_null(claims_take_will(workers[0], device, 100));
        fakes[1].held[1]->kept->will->due.at_ms = 200; /* another one, since */
        let_go(&fakes[1], 1);
        deliver_all();
        cr_assert_null(claims_take_will(workers[0], device, 100));
        cr_assert_null(claims_next_will(workers[0], 199));
        cr_assert_not_null(claims_next_will(workers[0], 200));
        end();
    }
}

Test(claims, session_with_a_will_ends_together_with_it) {
    begin();
    int64_t device = device_at_home(0);
    struct session_kept *kept = kept_with_will(500);
    kept->expiry_s = 0;
    cr_assert_eq(claims_install(workers[0], device, kept), 0);
    sweep_all(0, INT32_MAX);
    cr_assert_null(fakes[0].expired);
    end();
}

Test(claims, too_many_bytes_of_wills_are_due_at_once) {
    begin();
    static uint8_t much[16000];
    struct will_content content = {.topic = slice_from_string("t"),
                                   .payload = slice_make(much, sizeof(much))};
    uint64_t bytes = 0;
    for (int64_t device = 1; bytes <= LIMIT_WILLS_BYTES; device++) {
        if (claims_home(device, WORKERS) != 0)
            continue;
        cr_assert_null(claims_next_will(workers[0], INT32_MAX));
        struct session_kept *kept = kept_until(INT32_MAX);
        kept->disconnected_ms = 7;
        cr_assert_eq(will_create(&content, &kept->will), 0);
        kept->will->due.at_ms = INT64_MAX;
        bytes += kept->will->size_bytes;
        cr_assert_eq(claims_install(workers[0], device, kept), 0);
    }
    const struct session_will *will = claims_next_will(workers[0], 7);
    cr_assert_not_null(will);
    struct claim *claim = claims_take_will(workers[0], will->device_key, 7);
    claim->kept->will->due.at_ms = INT64_MAX;
    claim->kept->will->was_deferred = true; /* or it would be tried again and again */
    claims_release(workers[0], claim);
    cr_assert_null(claims_next_will(workers[0], INT32_MAX));
    end();
}

Test(claims, who_was_evicted_is_told_to_who_comes_after) {
    for (unsigned home = 0; home < WORKERS; home++) {
        begin();
        int64_t device = device_at_home(home);
        ask(0, device, 1);
        deliver_all();
        fakes[0].held[1]->takeover = malloc(1); /* nobody is waiting: it is dropped */
        let_go(&fakes[0], 1);
        deliver_all();
        ask(0, device, 1);
        deliver_all();
        cr_assert_null(fakes[0].held[1]->takeover);
        ask(1, device, 2);
        deliver_all();
        struct session_takeover *takeover = malloc(1);
        fakes[0].held[1]->takeover = takeover;
        let_go(&fakes[0], 1);
        deliver_all();
        cr_assert_eq(fakes[1].held[2]->takeover, takeover);
        end();
    }
}

/* ---- the containers ---- */

Test(claims, device_map_against_a_plain_array) {
    enum { KEYS = 3000 };
    static uint64_t model[KEYS + 1];
    struct device_map map = {0};
    unsigned seed = 1;
    for (unsigned step = 0; step < 100000; step++) {
        seed = seed * 1664525u + 1013904223u;
        int64_t key = 1 + (seed >> 8) % KEYS;
        if (seed & 0x80) {
            cr_assert_eq(device_map_reserve(&map), 0);
            device_map_set(&map, key, step + 1);
            model[key] = step + 1;
        } else {
            device_map_remove(&map, key);
            model[key] = 0;
        }
    }
    unsigned count = 0;
    for (int64_t key = 1; key <= KEYS; key++) {
        uint64_t value = 0;
        cr_assert_eq(device_map_get(&map, key, &value), model[key] != 0);
        cr_assert_eq(value, model[key]);
        count += model[key] != 0;
    }
    cr_assert_eq(map.count, count);
    device_map_free(&map);
}

Test(claims, inflight_finds_what_waits_and_nothing_else) {
    static bool waits[65536];
    static uint16_t order[65536];
    struct inflight_pool pool = {0};
    struct inflight *table = NULL;
    unsigned head = 0, tail = 0, odd = 0, seed = 7;
    for (unsigned step = 0; step < 200000; step++) {
        seed = seed * 1664525u + 1013904223u;
        uint16_t id = (uint16_t)(seed >> 9);
        cr_assert_eq(inflight_find(table, id) != NULL, waits[id]);
        bool push = step < 100000 ? seed >> 28 < 9 : seed >> 28 < 7;
        if (push && !waits[id]) {
            cr_assert_eq(inflight_reserve(&pool, &table), 0);
            cr_assert_eq(inflight_push(table, id, id & 1, 0), tail);
            waits[id] = true;
            order[tail++ % 65536] = id;
            odd += id & 1;
        } else if (inflight_count(table) > 0) {
            inflight_complete(table, head, 0);
            cr_assert_eq(inflight_oldest_done(table)->packet_id, order[head % 65536]);
            odd -= order[head % 65536] & 1;
            waits[order[head++ % 65536]] = false;
            inflight_drop_oldest(table);
        }
        cr_assert_eq(inflight_exactly_once_count(table), odd);
    }
    inflight_release(&pool, &table);
    inflight_pool_free(&pool);
}
