/* Claims between two workers that are no threads: mail is delivered by hand, in any order wanted.
 */
#include <criterion/criterion.h>

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

static void begin(void) {
    memset(fakes, 0, sizeof(fakes));
    for (unsigned i = 0; i < WORKERS; i++) {
        struct fake *fake = &fakes[i];
        workers[i] = &fake->worker;
        fake->worker.index = i;
        cr_assert_eq(mailbox_init(&fake->worker.mailbox, &fake->worker), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        struct claims_receiver receiver = {on_settled, on_evict, &fakes[i]};
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
