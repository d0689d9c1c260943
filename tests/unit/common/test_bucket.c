/* A quota per second: a second's worth at once, then the rate. */
#include <criterion/criterion.h>

#include "common/bucket.h"
#include "common/limits.h"

#define SECOND 1000000000ull

Test(bucket, a_bucket_holds_a_second) {
    struct bucket bucket = {0};
    uint64_t now = 100 * SECOND;
    for (unsigned i = 0; i < 10; i++)
        cr_assert_eq(bucket_charge(&bucket, 1, 10, now), 0, "%u", i);
    cr_expect_eq(bucket_charge(&bucket, 0, 10, now), 0);
    cr_expect_eq(bucket_charge(&bucket, 1, 10, now), SECOND / 10);
    cr_expect_eq(bucket_charge(&bucket, 0, 10, now), SECOND / 10); /* a look changes nothing */
    cr_expect_eq(bucket_charge(&bucket, 0, 10, now + SECOND / 20), SECOND / 20);
    cr_expect_eq(bucket_charge(&bucket, 0, 10, now + SECOND / 10), 0);
    cr_expect_eq(bucket_charge(&bucket, 20, 10, now + 2 * SECOND), SECOND);
}

/* Whatever pattern: what passes in the long run is the rate and one second's worth. */
Test(bucket, the_rate_holds) {
    struct bucket bucket = {0};
    uint64_t now = 5 * SECOND, taken = 0;
    for (unsigned i = 0; i < 100000; i++, now += SECOND / 1000) /* 100 seconds */
        if (bucket_charge(&bucket, 0, 1000, now) == 0) {
            uint64_t amount = 1 + i * 7919 % 50;
            bucket_charge(&bucket, amount, 1000, now);
            taken += amount;
        }
    cr_expect(taken >= 100 * 1000 && taken <= 101 * 1000 + 100, "%lu", taken);
}

Test(bucket, quotas_that_are_none_and_debts_that_are_forgiven) {
    struct bucket bucket = {0};
    uint64_t now = SECOND;
    cr_expect_eq(bucket_charge(&bucket, 1ull << 33, 0, now), 0);
    cr_expect_eq(bucket_charge(&bucket, 1, 1, now), 0);
    cr_expect_eq(bucket_charge(&bucket, 1ull << 33, 1, now), LIMIT_BUCKET_DEBT_MS * 1000000ull);
    cr_expect_eq(bucket_charge(&bucket, 1ull << 33, 1, now), LIMIT_BUCKET_DEBT_MS * 1000000ull);
}

Test(bucket, forgiving_leaves_a_second) {
    struct bucket bucket = {0};
    uint64_t now = 5 * SECOND;
    bucket_charge(&bucket, 30, 1, now);
    bucket_forgive(&bucket, now);
    cr_expect_eq(bucket_charge(&bucket, 0, 1, now), 0);
    cr_expect_eq(bucket_charge(&bucket, 1, 1000, now), SECOND / 1000);
    cr_expect(!bucket_is_settled(&bucket, now + SECOND));
    cr_expect(bucket_is_settled(&bucket, now + 2 * SECOND));
}
