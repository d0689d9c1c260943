/* The ledger of what API keys use: connections, and debts that outlive them. */
#include <criterion/criterion.h>

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

/* Coming anew is no way out of what one owes; nor does an account stay that owes nothing. */
Test(kafka_ledger, debts_stay) {
    struct kafka_ledger *ledger = kafka_ledger_create();
    struct kafka_account *account, *other;
    cr_assert_eq(kafka_ledger_enter(ledger, KEY, 0, SECOND, &account), 0);
    cr_expect_eq(bucket_charge(&account->fetched_bytes, 3000, 1000, SECOND), 2 * SECOND);
    kafka_ledger_leave(ledger, account);
    cr_assert_eq(kafka_ledger_enter(ledger, OTHER, 0, 2 * SECOND, &other), 0); /* sweeps */
    cr_assert_eq(kafka_ledger_enter(ledger, KEY, 0, 2 * SECOND, &account), 0);
    cr_expect_eq(bucket_charge(&account->fetched_bytes, 0, 1000, 2 * SECOND), SECOND);
    kafka_ledger_leave(ledger, account);
    kafka_ledger_leave(ledger, other);
    kafka_ledger_release(ledger);
}
