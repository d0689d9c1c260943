#include "gateway/session/quota_ledger.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/limits.h"
#include "common/metrics_series.h"

/* Entries without users that are looked at for each one that is taken: more go than come. */
enum { SWEEP_STEPS = 2, KEY_BYTES = 1 + sizeof(int64_t) + LIMIT_GROUP_NAME_BYTES };

struct quota_ledger {
    pthread_mutex_t lock; /* of everything here */
    unsigned references;
    struct quota_entry *entries;
    struct quota_entry *tenants;
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

static void forget_tenant(struct quota_ledger *ledger, const struct quota_entry *entry) {
    struct quota_entry **at = &ledger->tenants;
    while (*at != entry)
        at = &(*at)->tenant->next;
    *at = entry->tenant->next;
}

static void drop(struct quota_ledger *ledger, struct quota_entry *entry) {
    if (entry->tenant)
        forget_tenant(ledger, entry);
    idle_remove(ledger, entry);
    HASH_DEL(ledger->entries, entry);
    free(entry->tenant);
    free(entry);
}

/* Everything that was counted of a tenant. */
static uint64_t total(const struct quota_tenant *tenant) {
    uint64_t sum = tenant->connections_refused;
    for (unsigned kind = 0; kind < QUOTA_KINDS; kind++)
        for (unsigned outcome = 0; outcome < QUOTA_OUTCOMES; outcome++)
            sum += tenant->outcomes[kind][outcome];
    return sum;
}

static bool is_settled(const struct quota_entry *entry, uint64_t now_ns) {
    if (entry->tenant && total(entry->tenant) > 0)
        return false;
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

static size_t write_key(uint8_t *key, enum quota_kind kind, int64_t number, struct slice name) {
    dg_assert(name.size <= LIMIT_GROUP_NAME_BYTES);
    key[0] = (uint8_t)kind;
    memcpy(key + 1, &number, sizeof(number));
    if (name.size > 0)
        memcpy(key + 1 + sizeof(number), name.data, name.size);
    return 1 + sizeof(number) + name.size;
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
    if (!entry)
        return NULL;
    HASH_ADD_KEYPTR(hh, ledger->entries, entry->key, key_size, entry);
    if (entry->tenant) {
        entry->tenant->next = ledger->tenants;
        ledger->tenants = entry;
    }
    return entry;
}

struct quota_entry *quota_ledger_take(struct quota_ledger *ledger, enum quota_kind kind,
                                      int64_t key, struct slice name, uint64_t now_ns) {
    uint8_t bytes[KEY_BYTES];
    size_t size = write_key(bytes, kind, key, name);
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

/* ---- metrics ---- */

static void add_tenant(struct metric_page *page, struct slice name,
                       const struct quota_tenant *tenant) {
    static const char *const kinds[QUOTA_KINDS] = {"device", "group", "tenant"};
    static const char *const outcomes[QUOTA_OUTCOMES] = {"waited", "refused", "dropped"};
    char labels[METRIC_LABELS_SIZE] = "";
    metric_label_append(labels, "tenant", name);
    size_t size = strlen(labels);
    (void)!metric_page_add(page, METRIC_QUOTA_CONNECTIONS_REFUSED, labels,
                           (int64_t)tenant->connections_refused);
    for (unsigned kind = 0; kind < QUOTA_KINDS; kind++)
        for (unsigned outcome = 0; outcome < QUOTA_OUTCOMES; outcome++) {
            if (tenant->outcomes[kind][outcome] == 0)
                continue;
            labels[size] = '\0';
            metric_label_append(labels, "quota", slice_from_string(kinds[kind]));
            metric_label_append(labels, "outcome", slice_from_string(outcomes[outcome]));
            (void)!metric_page_add(page, METRIC_QUOTA_PUBLISHES, labels,
                                   (int64_t)tenant->outcomes[kind][outcome]);
        }
}

static void add_up(struct quota_tenant *sum, const struct quota_tenant *tenant) {
    sum->connections_refused += tenant->connections_refused;
    for (unsigned kind = 0; kind < QUOTA_KINDS; kind++)
        for (unsigned outcome = 0; outcome < QUOTA_OUTCOMES; outcome++)
            sum->outcomes[kind][outcome] += tenant->outcomes[kind][outcome];
}

/* Without memory something is missing this time. */
static void add_all(struct metric_page *page, struct quota_ledger *ledger) {
    struct quota_tenant other = {0};
    unsigned shown = 0;
    for (struct quota_entry *entry = ledger->tenants; entry; entry = entry->tenant->next) {
        const size_t name_at = 1 + sizeof(int64_t);
        if (total(entry->tenant) == 0)
            continue;
        if (++shown <= LIMIT_METRIC_TENANTS)
            add_tenant(page, slice_make(entry->key + name_at, entry->key_size - name_at),
                       entry->tenant);
        else
            add_up(&other, entry->tenant);
    }
    if (shown > LIMIT_METRIC_TENANTS)
        add_tenant(page, slice_from_string("other"), &other);
}

void quota_ledger_publish(struct quota_ledger *ledger) {
    struct metric_page *page = metric_page_new();
    if (!page)
        return;
    pthread_mutex_lock(&ledger->lock);
    add_all(page, ledger);
    pthread_mutex_unlock(&ledger->lock);
    metric_page_publish(METRIC_PUBLISHER_QUOTAS, page);
}
