#include "gateway/session/quota_ledger.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/limits.h"

/* Entries without users that are looked at for each one that is taken: more go than come. */
enum { SWEEP_STEPS = 2, KEY_BYTES = 1 + sizeof(int64_t) + LIMIT_GROUP_NAME_BYTES };

struct quota_ledger {
    pthread_mutex_t lock; /* of everything here */
    unsigned references;
    struct quota_entry *entries;
    struct quota_entry *oldest, *newest; /* without users, in the order in which they were left */
    unsigned idle_count;
};

struct quota_ledger *quota_ledger_create(void) {
    struct quota_ledger *ledger = calloc(1, sizeof(*ledger));
    if (!ledger)
        return NULL;
    pthread_mutex_init(&ledger->lock, NULL);
    ledger->references = 1;
    return ledger;
}

struct quota_ledger *quota_ledger_share(struct quota_ledger *ledger) {
    pthread_mutex_lock(&ledger->lock);
    ledger->references++;
    pthread_mutex_unlock(&ledger->lock);
    return ledger;
}

/* ---- entries without users ---- */

static void idle_remove(struct quota_ledger *ledger, struct quota_entry *entry) {
    *(entry->older ? &entry->older->newer : &ledger->oldest) = entry->newer;
    *(entry->newer ? &entry->newer->older : &ledger->newest) = entry->older;
    entry->older = entry->newer = NULL;
    entry->is_idle = false;
    ledger->idle_count--;
}

static void idle_add(struct quota_ledger *ledger, struct quota_entry *entry) {
    entry->older = ledger->newest;
    *(ledger->newest ? &ledger->newest->newer : &ledger->oldest) = entry;
    ledger->newest = entry;
    entry->is_idle = true;
    ledger->idle_count++;
}

static void drop(struct quota_ledger *ledger, struct quota_entry *entry) {
    idle_remove(ledger, entry);
    HASH_DEL(ledger->entries, entry);
    free(entry->tenant);
    free(entry);
}

static bool is_settled(const struct quota_entry *entry, uint64_t now_ns) {
    return bucket_is_settled(&entry->units[QUOTA_MESSAGES], now_ns) &&
           bucket_is_settled(&entry->units[QUOTA_BYTES], now_ns);
}

/* Who owes something is looked at again in its turn. */
static void sweep(struct quota_ledger *ledger, uint64_t now_ns) {
    for (unsigned i = 0; i < SWEEP_STEPS && ledger->oldest; i++) {
        struct quota_entry *entry = ledger->oldest;
        if (ledger->idle_count > LIMIT_QUOTA_IDLE_ENTRIES || is_settled(entry, now_ns)) {
            drop(ledger, entry);
            continue;
        }
        idle_remove(ledger, entry);
        idle_add(ledger, entry);
    }
}

void quota_ledger_release(struct quota_ledger *ledger) {
    if (!ledger)
        return;
    pthread_mutex_lock(&ledger->lock);
    bool is_last = --ledger->references == 0;
    pthread_mutex_unlock(&ledger->lock);
    if (!is_last)
        return;
    while (ledger->oldest)
        drop(ledger, ledger->oldest);
    dg_assert(!ledger->entries);
    pthread_mutex_destroy(&ledger->lock);
    free(ledger);
}

/* ---- entries ---- */

static size_t write_key(uint8_t *key, enum quota_kind kind, int64_t number, struct slice group) {
    dg_assert(group.size <= LIMIT_GROUP_NAME_BYTES);
    key[0] = (uint8_t)kind;
    memcpy(key + 1, &number, sizeof(number));
    if (group.size > 0)
        memcpy(key + 1 + sizeof(number), group.data, group.size);
    return 1 + sizeof(number) + group.size;
}

static struct quota_entry *make(const uint8_t *key, size_t key_size) {
    struct quota_entry *entry = calloc(1, sizeof(*entry) + key_size);
    if (!entry)
        return NULL;
    entry->key_size = (uint8_t)key_size;
    memcpy(entry->key, key, key_size);
    if (key[0] != QUOTA_TENANT)
        return entry;
    entry->tenant = calloc(1, sizeof(*entry->tenant));
    if (entry->tenant)
        return entry;
    free(entry);
    return NULL;
}

static struct quota_entry *find_or_make(struct quota_ledger *ledger, const uint8_t *key,
                                        size_t key_size, uint64_t now_ns) {
    struct quota_entry *entry;
    HASH_FIND(hh, ledger->entries, key, key_size, entry);
    if (entry)
        return entry;
    sweep(ledger, now_ns);
    entry = make(key, key_size);
    if (entry)
        HASH_ADD_KEYPTR(hh, ledger->entries, entry->key, key_size, entry);
    return entry;
}

struct quota_entry *quota_ledger_take(struct quota_ledger *ledger, enum quota_kind kind,
                                      int64_t key, struct slice group, uint64_t now_ns) {
    uint8_t bytes[KEY_BYTES];
    size_t size = write_key(bytes, kind, key, group);
    pthread_mutex_lock(&ledger->lock);
    struct quota_entry *entry = find_or_make(ledger, bytes, size, now_ns);
    if (entry) {
        if (entry->is_idle)
            idle_remove(ledger, entry);
        entry->users++;
    }
    pthread_mutex_unlock(&ledger->lock);
    return entry;
}

void quota_ledger_leave(struct quota_ledger *ledger, struct quota_entry *entry) {
    if (!entry)
        return;
    pthread_mutex_lock(&ledger->lock);
    dg_assert(entry->users > 0);
    if (--entry->users == 0)
        idle_add(ledger, entry);
    pthread_mutex_unlock(&ledger->lock);
}
