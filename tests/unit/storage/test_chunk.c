/* The pool of batch memory: sizes, references, what it keeps. */
#include <criterion/criterion.h>
#include <signal.h>

#include "storage/local/chunk.h"
#include "support.h"

TestSuite(chunk, .fini = check_leaks);

Test(chunk, comes_in_a_few_sizes) {
    static const struct {
        uint32_t size, capacity;
    } cases[] = {
        {0, 1024},
        {1, 1024},
        {1024, 1024},
        {1025, 2048},
        {2048, 2048},
        {2049, 4096},
        {4096, 4096},
        {4097, 16384},
        {16384, 16384},
        {16385, 65536},
        {65536, 65536},
        {65537, 262144},
        {262144, 262144},
        {262145, LIMIT_UNIT_BYTES},
        {LIMIT_UNIT_BYTES, LIMIT_UNIT_BYTES},
    };
    struct chunk_pool pool;
    chunk_pool_init(&pool);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct chunk *chunk = chunk_take(&pool, cases[i].size);
        cr_assert_not_null(chunk);
        cr_expect_eq(chunk->capacity, cases[i].capacity, "%u", cases[i].size);
        memset(chunk->data, 0xa5, chunk->capacity);
        chunk_release(chunk);
    }
    chunk_pool_free(&pool);
}

Test(chunk, larger_than_a_unit_is_a_broken_invariant, .signal = SIGABRT) {
    struct chunk_pool pool;
    chunk_pool_init(&pool);
    chunk_take(&pool, LIMIT_UNIT_BYTES + 1);
}

Test(chunk, goes_back_with_its_last_reference_and_comes_again_clean) {
    struct chunk_pool pool;
    chunk_pool_init(&pool);
    struct chunk *chunk = chunk_take(&pool, 100);
    chunk_reference(chunk);
    chunk_release(chunk);
    cr_expect_eq(pool.free_bytes, 0);
    chunk->size_bytes = 77;
    chunk->segment = (struct segment *)chunk;
    chunk->hold.release(&chunk->hold); /* as a reader lets go */
    cr_expect_eq(pool.free_bytes, 1024);
    struct chunk *other = chunk_take(&pool, 5000);
    cr_expect_neq(other, chunk, "another size");
    struct chunk *again = chunk_take(&pool, 1);
    cr_expect_eq(again, chunk);
    cr_expect(again->segment == NULL && again->size_bytes == 0 && again->next == NULL);
    cr_expect_eq(pool.free_bytes, 0);
    chunk_release(other);
    chunk_release(again);
    chunk_release(NULL);
    chunk_pool_free(&pool);
}

Test(chunk, a_reference_too_many_given_back_is_a_broken_invariant, .signal = SIGABRT) {
    struct chunk_pool pool;
    chunk_pool_init(&pool);
    struct chunk *chunk = chunk_take(&pool, 100);
    chunk_release(chunk);
    chunk_release(chunk);
}

Test(chunk, the_pool_keeps_no_more_than_its_limit) {
    enum { COUNT = LIMIT_CHUNK_POOL_FREE_BYTES / LIMIT_UNIT_BYTES + 3 };
    static struct chunk *chunks[COUNT];
    struct chunk_pool pool;
    chunk_pool_init(&pool);
    for (unsigned i = 0; i < COUNT; i++)
        cr_assert_not_null(chunks[i] = chunk_take(&pool, LIMIT_UNIT_BYTES));
    for (unsigned i = 0; i < COUNT; i++)
        chunk_release(chunks[i]);
    cr_expect_eq(pool.free_bytes, LIMIT_CHUNK_POOL_FREE_BYTES);
    unsigned kept = 0;
    for (struct chunk *chunk = pool.free[CHUNK_CLASS_COUNT - 1]; chunk; chunk = chunk->next)
        kept++;
    cr_expect_eq(kept, COUNT - 3);
    chunk_pool_free(&pool);
}
