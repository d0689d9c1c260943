/* The sparse index: what is left out, what is found. */
#include <criterion/criterion.h>
#include <signal.h>

#include "storage/local/index.h"
#include "support.h"

TestSuite(index, .fini = check_leaks);

Test(index, takes_about_one_batch_per_step) {
    struct index index = {0};
    enum { BATCH_BYTES = 5000, COUNT = 1000 };
    for (uint32_t i = 0; i < COUNT; i++)
        index_add(&index, i * 3, i * 10, i * BATCH_BYTES);
    uint32_t per_step = (INDEX_STEP_BYTES + BATCH_BYTES - 1) / BATCH_BYTES;
    cr_expect_eq(index.count, (COUNT + per_step - 1) / per_step);
    for (uint32_t i = 0; i < index.count; i++) {
        uint32_t batch = i * per_step;
        cr_expect_eq(index.entries[i].position, batch * BATCH_BYTES);
        cr_expect_eq(index.entries[i].offset, batch * 3);
        cr_expect_eq(index.entries[i].first_ms, batch * 10);
    }
    index_free(&index);
    cr_expect(index.entries == NULL && index.count == 0);
}

Test(index, positions_that_go_back_are_a_broken_invariant, .signal = SIGABRT) {
    struct index index = {0};
    index_add(&index, 10, 1, INDEX_STEP_BYTES);
    index_add(&index, 11, 1, 0);
}

enum { STEP = INDEX_STEP_BYTES };

/* Two entries of one time: many records may come in one millisecond. */
static struct index make_index(void) {
    struct index index = {0};
    index_add(&index, 100, 1000, 0);
    index_add(&index, 200, 2000, STEP);
    index_add(&index, 300, 2000, 2 * STEP);
    index_add(&index, 400, 3000, 3 * STEP);
    return index;
}

static void expect_entry(const struct index_entry *entry, int64_t offset, const char *by,
                         int64_t wanted) {
    cr_expect_eq(entry ? entry->offset : -1, offset, "%s %lld", by, (long long)wanted);
}

Test(index, finds_the_last_at_or_before) {
    static const struct {
        int64_t wanted, offset;
    } by_offset[] = {{0, -1},    {99, -1},   {100, 100}, {101, 100}, {199, 100},
                     {200, 200}, {399, 300}, {400, 400}, {9999, 400}},
      by_time[] = {{0, -1},     {1000, -1},  {1001, 100}, {2000, 100},
                   {2001, 300}, {3000, 300}, {3001, 400}, {INT64_MAX, 400}},
      by_position[] = {{0, 100},         {STEP - 1, 100},     {STEP, 200},
                       {2 * STEP, 300},  {3 * STEP - 1, 300}, {3 * STEP, 400},
                       {UINT32_MAX, 400}};
    struct index index = make_index();
    for (size_t i = 0; i < COUNT_OF(by_offset); i++)
        expect_entry(index_find_offset(&index, by_offset[i].wanted), by_offset[i].offset, "offset",
                     by_offset[i].wanted);
    for (size_t i = 0; i < COUNT_OF(by_time); i++) /* strictly before */
        expect_entry(index_find_time(&index, by_time[i].wanted), by_time[i].offset, "time",
                     by_time[i].wanted);
    for (size_t i = 0; i < COUNT_OF(by_position); i++)
        expect_entry(index_find_position(&index, (uint32_t)by_position[i].wanted),
                     by_position[i].offset, "position", by_position[i].wanted);
    index_free(&index);
    cr_expect_null(index_find_offset(&index, 100));
    cr_expect_null(index_find_time(&index, INT64_MAX));
    cr_expect_null(index_find_position(&index, 0));
}

/* What a restart has left behind, in two steps, before what was appended since. */
Test(index, the_rebuilt_part_comes_in_front) {
    struct index found = make_index(), index = {.from = 8 * STEP}, more = {0};
    index_add(&index, 900, 9000, 8 * STEP);
    index_add(&index, 950, 9500, 9 * STEP);
    cr_expect_eq(index.from_offset, 900);
    cr_expect_eq(index_covered_offset(&index, 100), 100);
    cr_assert(index_cover(&index, &found, 4 * STEP, 500, 900));
    index_free(&found);
    cr_assert_eq(index.count, 6);
    cr_expect_eq(index.from, 8 * STEP);
    cr_expect_eq(index_covered_offset(&index, 100), 500);
    index_add(&more, 500, 5000, 4 * STEP);
    cr_assert(index_cover(&index, &more, 8 * STEP, 900, 900));
    index_free(&more);
    static const int64_t offsets[] = {100, 200, 300, 400, 500, 900, 950};
    cr_assert_eq(index.count, COUNT_OF(offsets));
    for (uint32_t i = 0; i < index.count; i++)
        cr_expect_eq(index.entries[i].offset, offsets[i]);
    cr_expect_eq(index.from, 0);
    index_free(&index);
}

/* They touch, but not with the same offset: records are missing there. */
Test(index, parts_that_do_not_fit_stay_apart) {
    struct index found = make_index(), index = {.from = 4 * STEP};
    index_add(&index, 600, 5000, 4 * STEP);
    cr_assert(index_cover(&index, &found, 4 * STEP, 500, 600));
    cr_expect_eq(index.from, 4 * STEP);
    cr_expect_eq(index.covered, 4 * STEP);
    index_free(&found);
    index_free(&index);
}
