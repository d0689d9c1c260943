#include "gateway/kafka/ledger.h"

#include <pthread.h>
#include <stdlib.h>

#include "common/assert.h"

struct kafka_ledger {
    pthread_mutex_t lock; /* of everything here */
    unsigned references;
    struct kafka_account *accounts;
};

struct kafka_ledger *kafka_ledger_create(void) {
    struct kafka_ledger *ledger = calloc(1, sizeof(*ledger));
    if (!ledger)
        return NULL;
    pthread_mutex_init(&ledger->lock, NULL);
    ledger->references = 1;
    return ledger;
}

struct kafka_ledger *kafka_ledger_share(struct kafka_ledger *ledger) {
    pthread_mutex_lock(&ledger->lock);
    ledger->references++;
    pthread_mutex_unlock(&ledger->lock);
    return ledger;
}

/* Accounts without connections that owe nothing. One that does stays: coming anew is no way out. */
static void drop_settled(struct kafka_ledger *ledger, uint64_t now_ns) {
    struct kafka_account *account, *next;
    HASH_ITER(hh, ledger->accounts, account, next) {
        if (account->connections > 0 || !bucket_is_settled(&account->requests, now_ns) ||
            !bucket_is_settled(&account->fetched_bytes, now_ns))
            continue;
        HASH_DEL(ledger->accounts, account);
        free(account);
    }
}

void kafka_ledger_release(struct kafka_ledger *ledger) {
    if (!ledger)
        return;
    pthread_mutex_lock(&ledger->lock);
    bool is_last = --ledger->references == 0;
    pthread_mutex_unlock(&ledger->lock);
    if (!is_last)
        return;
    drop_settled(ledger, UINT64_MAX);
    dg_assert(!ledger->accounts);
    pthread_mutex_destroy(&ledger->lock);
    free(ledger);
}

static struct kafka_account *find_or_make(struct kafka_ledger *ledger, int64_t credential_key,
                                          uint64_t now_ns) {
    struct kafka_account *account;
    HASH_FIND(hh, ledger->accounts, &credential_key, sizeof(credential_key), account);
    if (account)
        return account;
    drop_settled(ledger, now_ns);
    if (!(account = calloc(1, sizeof(*account))))
        return NULL;
    account->credential_key = credential_key;
    HASH_ADD(hh, ledger->accounts, credential_key, sizeof(account->credential_key), account);
    return account;
}

int kafka_ledger_enter(struct kafka_ledger *ledger, int64_t credential_key,
                       uint64_t connections_max, uint64_t now_ns,
                       struct kafka_account **ret_account) {
    pthread_mutex_lock(&ledger->lock);
    struct kafka_account *account = find_or_make(ledger, credential_key, now_ns);
    int err = !account                                                         ? DG_ERR_NO_MEMORY
              : connections_max > 0 && account->connections >= connections_max ? DG_ERR_LIMIT
                                                                               : 0;
    if (err == 0) {
        account->connections++;
        *ret_account = account;
    }
    pthread_mutex_unlock(&ledger->lock);
    return err;
}

void kafka_ledger_leave(struct kafka_ledger *ledger, struct kafka_account *account) {
    pthread_mutex_lock(&ledger->lock);
    dg_assert(account->connections > 0);
    account->connections--;
    pthread_mutex_unlock(&ledger->lock);
}
