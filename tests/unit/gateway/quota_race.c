/* Workers take leases of one quota, and come and go in one ledger, at the same time. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/session/quota_meter.h"

enum { WORKERS = 4, ROUNDS = 200000, PER_SECOND = 200000 };

static struct quota_ledger *ledger;
static _Atomic uint64_t clock_ns = 10000000000;
static _Atomic uint64_t used;

static void *work(void *context) {
    struct quota_ledger *mine = quota_ledger_share(ledger);
    struct slice none = slice_make(NULL, 0);
    uint64_t here = 0;
    for (unsigned round = 0; round < 4; round++) {
        uint64_t now_ns = atomic_load(&clock_ns);
        struct quota_entry *entry = quota_ledger_take(mine, QUOTA_TENANT, 1, none, now_ns);
        struct quota_entry *device =
            quota_ledger_take(mine, QUOTA_DEVICE, 1 + rand() % 3, none, now_ns);
        if (!entry || !device)
            abort();
        struct quota_meter meter = {.entry = entry, .per_second = {PER_SECOND, 0}};
        for (unsigned i = 0; i < ROUNDS; i++) {
            enum quota_unit unit;
            now_ns = atomic_fetch_add(&clock_ns, 1000);
            if (quota_meter_wait(&meter, now_ns, &unit) > 0)
                continue;
            quota_meter_charge(&meter, (const uint64_t[QUOTA_UNITS]){1, 0}, true, now_ns);
            here++;
        }
        quota_ledger_leave(mine, device);
        quota_ledger_leave(mine, entry);
        quota_ledger_publish(mine);
    }
    atomic_fetch_add(&used, here);
    quota_ledger_release(mine);
    return NULL;
}

int main(void) {
    pthread_t threads[WORKERS];
    uint64_t begin_ns = clock_ns;
    ledger = quota_ledger_create();
    if (!ledger)
        return 1;
    for (unsigned i = 0; i < WORKERS; i++)
        if (pthread_create(&threads[i], NULL, work, NULL) != 0)
            return 1;
    for (unsigned i = 0; i < WORKERS; i++)
        pthread_join(threads[i], NULL);
    quota_ledger_release(ledger);
    /* The rate, a second's worth, and leases and rounds of each worker that overlap. */
    uint64_t passed_ns = clock_ns - begin_ns;
    uint64_t most = passed_ns / (1000000000 / PER_SECOND) + PER_SECOND + WORKERS * 4 * 1000;
    printf("used %llu of %llu\n", (unsigned long long)used, (unsigned long long)most);
    return used > most;
}
