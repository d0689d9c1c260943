/* Budgets of failed passwords: who is refused, who is not, and when again. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "registry/attempts.h"

static const uint8_t four[16] = {[10] = 0xFF, 0xFF, 192, 0, 2, 1};
static const uint8_t four_next[16] = {[10] = 0xFF, 0xFF, 192, 0, 2, 2};
static const uint8_t six[16] = {0x20, 1, 0xD, 0xB8, [15] = 1};
static const uint8_t six_same[16] = {0x20, 1, 0xD, 0xB8, [14] = 9, 7};
static const uint8_t six_other[16] = {0x20, 1, 0xD, 0xB8, 0, 0, 0, 1, [15] = 1};

static struct attempts *make(void) {
    struct attempts *attempts = calloc(1, sizeof(*attempts));
    cr_assert(attempts);
    return attempts;
}

/* How many of count attempts in one moment are let through; names: how many devices they name. */
static unsigned flood(struct attempts *attempts, const uint8_t *peer, const char *prefix,
                      unsigned names, unsigned count, uint64_t now_ms) {
    unsigned passed = 0;
    for (unsigned i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof(name), "%s%u", prefix, i % names);
        passed += attempts_take(attempts, peer, "acme", name, now_ms) != ATTEMPTS_REFUSED;
    }
    return passed;
}

Test(attempts, one_source_has_a_budget) {
    struct attempts *a = make();
    unsigned most = LIMIT_ATTEMPTS_OF_SOURCE + LIMIT_ATTEMPTS_OF_RESERVE;
    cr_expect_eq(flood(a, four, "x", 1000, 1000, 5000), most);
    cr_expect_eq(flood(a, four_next, "y", 1000, 1000, 5000), most, "another address is another");
    cr_expect_eq(flood(a, six, "z", 1000, 1000, 5000), most);
    cr_expect_eq(flood(a, six_same, "v", 1000, 1000, 5000), 0, "a /64 is one source");
    cr_expect_eq(flood(a, six_other, "w", 1000, 1000, 5000), most);
    unsigned later = flood(a, four, "u", 1000, 1000, 5000 + 2 * LIMIT_ATTEMPTS_OF_SOURCE_MS);
    cr_expect_eq(later, 4, "time gives back: two, and two of the reserve; not %u", later);
    cr_expect_eq(flood(a, four, "t", 1000, 1000, 5000 + 3600000), most);
    free(a);
}

Test(attempts, a_device_that_did_not_fail_behind_the_same_address) {
    struct attempts *a = make();
    flood(a, four, "x", 7, 1000, 5000);
    cr_expect_eq(attempts_take(a, four, "acme", "x0", 5000), ATTEMPTS_REFUSED);
    cr_expect_eq(attempts_take(a, four, "acme", "honest", 5000), ATTEMPTS_CLEAN);
    attempts_give_back(a, four, "acme", "honest", 5000);
    free(a);
}

/* Who floods a device's name cannot keep the device out, unless they share an address. */
Test(attempts, a_device_that_others_fail_for) {
    struct attempts *a = make();
    unsigned passed = flood(a, four, "x", 1, 1000, 5000);
    cr_expect_eq(passed, LIMIT_ATTEMPTS_OF_DEVICE);
    cr_expect_eq(attempts_take(a, four, "acme", "x0", 5000), ATTEMPTS_REFUSED);
    cr_expect_eq(attempts_take(a, four_next, "acme", "x0", 5000), ATTEMPTS_CLEAN);
    cr_expect_eq(attempts_take(a, four_next, "acme", "x0", 5000), ATTEMPTS_REFUSED);
    cr_expect_eq(attempts_take(a, six, "beta", "x0", 5000), ATTEMPTS_CLEAN, "of another tenant");
    free(a);
}

Test(attempts, what_did_not_fail_costs_nothing) {
    struct attempts *a = make();
    for (unsigned i = 0; i < 1000; i++) {
        cr_assert_eq(attempts_take(a, four, "acme", "good", 5000), ATTEMPTS_CLEAN, "%u", i);
        attempts_give_back(a, four, "acme", "good", 5000);
    }
    cr_expect_eq(attempts_take(a, four, "acme", "bad", 5000), ATTEMPTS_CLEAN);
    cr_expect_eq(attempts_take(a, four, "acme", "bad", 5000), ATTEMPTS_FAILING);
    free(a);
}

/* More sources and names than there are buckets: nobody is refused for what others did. */
Test(attempts, a_full_table) {
    struct attempts *a = make();
    unsigned refused = 0;
    for (unsigned i = 0; i < 3 * LIMIT_ATTEMPTS_BUCKETS; i++) {
        uint8_t peer[16] = {[10] = 0xFF,       0xFF,      10, (uint8_t)(i >> 16),
                            (uint8_t)(i >> 8), (uint8_t)i};
        char name[32];
        snprintf(name, sizeof(name), "d%u", i);
        refused += attempts_take(a, peer, "acme", name, 5000) == ATTEMPTS_REFUSED;
    }
    cr_expect_eq(refused, 0, "%u", refused);
    free(a);
}
