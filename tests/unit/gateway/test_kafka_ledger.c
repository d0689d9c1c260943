/* The ledger of what API keys use: connections, and buckets that hold a second's worth. */
#include <criterion/criterion.h>

#include "common/limits.h"
#include "gateway/kafka/ledger.h"
#include "tests/unit/gateway/leaks.h"

TestSuite(kafka_ledger, .fini = check_leaks);

#define SECOND 1000000000ull
enum { KEY = 7, OTHER = 8 };

Test(kafka_ledger, connections_of_one_key) {
    struct kafka_ledger *ledger = kafka_ledger_create(), *shared = kafka_ledger_share(ledger);
    struct kafka_account *first, *second, *none = NULL, *other;
    cr_assert_eq(kafka_ledger_enter(ledger, KEY, 2, 0, &first), 0);
    cr_assert_eq(kafka_ledger_enter(shared, KEY, 2, 0, &second), 0);
    cr_expect_eq(first, second);
    cr_expect_eq(kafka_ledger_enter(ledger, KEY, 2, 0, &none), DG_ERR_LIMIT);
    cr_expect_null(none);
    cr_expect_eq(kafka_ledger_enter(ledger, OTHER, 2, 0, &other), 0);
    cr_expect_neq(first, other);
    kafka_ledger_leave(ledger, first);
    cr_expect_eq(kafka_ledger_enter(ledger, KEY, 2, 0, &first), 0);
    cr_expect_eq(kafka_ledger_enter(ledger, KEY, 0, 0, &none), 0); /* no limit */
    kafka_ledger_leave(ledger, none);
    kafka_ledger_leave(ledger, first);
    kafka_ledger_leave(ledger, second);
    kafka_ledger_leave(ledger, other);
    kafka_ledger_release(ledger);
    kafka_ledger_release(shared);
    kafka_ledger_release(NULL);
}

Test(kafka_ledger, a_bucket_holds_a_second) {
    struct kafka_bucket bucket = {0};
    uint64_t now = 100 * SECOND;
    for (unsigned i = 0; i < 10; i++)
        cr_assert_eq(kafka_bucket_charge(&bucket, 1, 10, now), 0, "%u", i);
    cr_expect_eq(kafka_bucket_charge(&bucket, 0, 10, now), 0);
    cr_expect_eq(kafka_bucket_charge(&bucket, 1, 10, now), 100);
    cr_expect_eq(kafka_bucket_charge(&bucket, 0, 10, now), 100); /* a look changes nothing */
    cr_expect_eq(kafka_bucket_charge(&bucket, 0, 10, now + SECOND / 20), 50);
    cr_expect_eq(kafka_bucket_charge(&bucket, 0, 10, now + SECOND / 10), 0);
    cr_expect_eq(kafka_bucket_charge(&bucket, 20, 10, now + 2 * SECOND), 1000);
}

/* Whatever pattern: what passes in the long run is the rate and one second's worth. */
Test(kafka_ledger, the_rate_holds) {
    struct kafka_bucket bucket = {0};
    uint64_t now = 5 * SECOND, taken = 0;
    for (unsigned i = 0; i < 100000; i++, now += SECOND / 1000) /* 100 seconds */
        if (kafka_bucket_charge(&bucket, 0, 1000, now) == 0) {
            uint64_t amount = 1 + i * 7919 % 50;
            kafka_bucket_charge(&bucket, amount, 1000, now);
            taken += amount;
        }
    cr_expect(taken >= 100 * 1000 && taken <= 101 * 1000 + 100, "%lu", taken);
}

Test(kafka_ledger, quotas_that_are_none_and_debts_that_are_forgiven) {
    struct kafka_bucket bucket = {0};
    uint64_t now = SECOND;
    cr_expect_eq(kafka_bucket_charge(&bucket, 1ull << 33, 0, now), 0);
    cr_expect_eq(kafka_bucket_charge(&bucket, 1, 1, now), 0);
    cr_expect_eq(kafka_bucket_charge(&bucket, 1ull << 33, 1, now), LIMIT_KAFKA_DEBT_MS);
    cr_expect_eq(kafka_bucket_charge(&bucket, 1ull << 33, 1, now), LIMIT_KAFKA_DEBT_MS);
}

/* Coming anew is no way out of what one owes; nor does an account stay that owes nothing. */
Test(kafka_ledger, debts_stay) {
    struct kafka_ledger *ledger = kafka_ledger_create();
    struct kafka_account *account, *other;
    cr_assert_eq(kafka_ledger_enter(ledger, KEY, 0, SECOND, &account), 0);
    cr_expect_eq(kafka_bucket_charge(&account->fetched_bytes, 3000, 1000, SECOND), 2000);
    kafka_ledger_leave(ledger, account);
    cr_assert_eq(kafka_ledger_enter(ledger, OTHER, 0, 2 * SECOND, &other), 0); /* sweeps */
    cr_assert_eq(kafka_ledger_enter(ledger, KEY, 0, 2 * SECOND, &account), 0);
    cr_expect_eq(kafka_bucket_charge(&account->fetched_bytes, 0, 1000, 2 * SECOND), 1000);
    kafka_ledger_leave(ledger, account);
    kafka_ledger_leave(ledger, other);
    kafka_ledger_release(ledger);
}
