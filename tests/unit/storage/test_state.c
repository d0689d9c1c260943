/* The state map: absolute values, the newer LSN wins; mutations on the wire. */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "storage/local/format.h"
#include "storage/local/state.h"
#include "support.h"

TestSuite(state, .fini = check_leaks);

static struct stream_mutation mutation(uint8_t name_space, const char *key, const char *value) {
    return (struct stream_mutation){
        .name_space = name_space,
        .is_delete = value == NULL,
        .key = slice_from_string(key),
        .value = slice_from_string(value ? value : ""),
    };
}

/* NULL value: delete. */
static void apply(struct state_map *map, uint64_t lsn, const char *key, const char *value) {
    struct stream_mutation change = mutation(STREAM_STATE_CONSUMER, key, value);
    cr_assert_eq(state_apply(map, lsn, &change), 0);
}

/* NULL: there is none. */
static void expect_value(struct state_map *map, uint8_t name_space, const char *key,
                         const char *value) {
    uint8_t bytes[64];
    size_t size = 0;
    int err = test_get(map, name_space, slice_from_string(key), bytes, sizeof(bytes), &size);
    cr_expect_eq(err, value ? 0 : DG_ERR_NOT_FOUND, "%s", key);
    if (value && err == 0)
        cr_expect(slice_equals_string(slice_make(bytes, size), value), "%s", key);
}

Test(state, one_entry_is_found) {
    struct state_map map;
    char value[4] = "....";
    state_map_init(&map);
    cr_expect_eq(state_find(&map, STREAM_STATE_CONSUMER, slice_from_string("key"), value, 4),
                 DG_ERR_NOT_FOUND);
    apply(&map, 100, "key", "abcdef");
    cr_expect_eq(state_find(&map, STREAM_STATE_CONSUMER, slice_from_string("key"), value, 3), 6);
    cr_expect_eq(memcmp(value, "abc.", 4), 0, "no more than there is room for");
    cr_expect_eq(state_find(&map, STREAM_STATE_QOS2, slice_from_string("key"), value, 4),
                 DG_ERR_NOT_FOUND);
    cr_expect_eq(state_find(&map, STREAM_STATE_CONSUMER, slice_from_string("ke"), value, 4),
                 DG_ERR_NOT_FOUND);
    state_map_free(&map);
}

Test(state, the_newer_lsn_wins) {
    static const struct {
        uint64_t lsn;
        const char *value;
        const char *then;
    } steps[] = {
        {100, "a", "a"},
        {200, "b", "b"},
        {150, "old", "b"},
        {200, "same group", "same group"},
        {199, NULL, "same group"}, /* an older delete */
        {300, "", ""},
        {400, NULL, NULL},
        {400, "again", "again"},
        {500, NULL, NULL},
        {600, NULL, NULL},
    };
    struct state_map map;
    state_map_init(&map);
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        apply(&map, steps[i].lsn, "key", steps[i].value);
        expect_value(&map, STREAM_STATE_CONSUMER, "key", steps[i].then);
    }
    cr_expect(map.count == 0 && map.bytes == 0);
    state_map_free(&map);
}

Test(state, namespaces_and_keys_do_not_meet) {
    struct state_map map;
    state_map_init(&map);
    struct stream_mutation qos2 = mutation(STREAM_STATE_QOS2, "key", "one");
    struct stream_mutation session = mutation(STREAM_STATE_SESSION, "key", "two");
    cr_assert_eq(state_apply(&map, 1, &qos2), 0);
    cr_assert_eq(state_apply(&map, 1, &session), 0);
    apply(&map, 1, "ke", "three");
    expect_value(&map, STREAM_STATE_QOS2, "key", "one");
    expect_value(&map, STREAM_STATE_SESSION, "key", "two");
    expect_value(&map, STREAM_STATE_CONSUMER, "key", NULL);
    expect_value(&map, STREAM_STATE_CONSUMER, "ke", "three");
    state_map_free(&map);
}

Test(state, get_copies_no_more_than_fits) {
    struct state_map map;
    static uint8_t long_key[LIMIT_MUTATION_KEY_BYTES + 1];
    state_map_init(&map);
    apply(&map, 1, "key", "value");
    uint8_t bytes[4] = {0, 0, 0, 0xee};
    size_t size = 0;
    cr_expect_eq(test_get(&map, STREAM_STATE_CONSUMER, slice_from_string("key"), bytes, 3, &size),
                 0);
    cr_expect_eq(size, 5);
    cr_expect(memcmp(bytes, "val\xee", 4) == 0);
    cr_expect_eq(test_get(&map, STREAM_STATE_CONSUMER, slice_make(long_key, sizeof(long_key)),
                          bytes, 3, &size),
                 DG_ERR_NOT_FOUND);
    state_map_free(&map);
}

/* As the checkpoint does. */
Test(state, what_is_written_gives_the_same_map) {
    struct state_map map, copy;
    char key[32], value[64];
    state_map_init(&map);
    state_map_init(&copy);
    for (uint64_t i = 0; i < 200; i++) {
        snprintf(key, sizeof(key), "key %llu", (unsigned long long)i % 150);
        snprintf(value, sizeof(value), "%0*llu", (int)(i % 40) + 1, (unsigned long long)i);
        apply(&map, i, key, i % 7 == 3 ? NULL : value);
    }
    uint8_t *bytes = malloc(map.bytes);
    struct writer w = writer_make(bytes, map.bytes);
    state_write(&map, &w);
    cr_assert(!w.failed && writer_size(&w) == map.bytes);
    struct reader r = reader_make(bytes, map.bytes);
    for (uint32_t i = 0; i < map.count; i++) {
        uint64_t lsn;
        struct stream_mutation change;
        memcpy(&lsn, reader_take(&r, sizeof(lsn)), sizeof(lsn));
        cr_assert_eq(mutation_read(&r, &change), 0);
        cr_assert_eq(state_apply(&copy, lsn, &change), 0);
    }
    cr_expect_eq(reader_left(&r), 0);
    cr_expect(copy.count == map.count && copy.bytes == map.bytes);
    for (uint64_t i = 0; i < 150; i++) {
        uint64_t last = i < 50 ? i + 150 : i;
        snprintf(key, sizeof(key), "key %llu", (unsigned long long)i);
        snprintf(value, sizeof(value), "%0*llu", (int)(last % 40) + 1, (unsigned long long)last);
        expect_value(&copy, STREAM_STATE_CONSUMER, key, last % 7 == 3 ? NULL : value);
    }
    free(bytes);
    state_map_free(&map);
    state_map_free(&copy);
}

Test(state, mutations_round_trip_and_cut_ones_are_refused) {
    static const struct {
        const char *key, *value;
    } cases[] = {{"key", "value"}, {"", ""}, {"key", NULL}, {"k", ""}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct stream_mutation in = mutation(STREAM_STATE_SESSION, cases[i].key, cases[i].value),
                               out;
        uint8_t bytes[64];
        struct writer w = writer_make(bytes, sizeof(bytes));
        mutation_write(&w, &in);
        cr_assert_eq(writer_size(&w), mutation_size(&in));
        struct reader r = reader_make(bytes, writer_size(&w));
        cr_assert_eq(mutation_read(&r, &out), 0);
        cr_expect(out.name_space == in.name_space && out.is_delete == in.is_delete);
        cr_expect(slice_equals(out.key, in.key) && slice_equals(out.value, in.value));
        for (size_t cut = 0; cut < writer_size(&w); cut++) {
            r = reader_make(bytes, cut);
            cr_expect_eq(mutation_read(&r, &out), DG_ERR_MALFORMED);
            cr_expect(r.failed);
        }
    }
}

Test(state, mutations_beyond_the_limits_are_refused) {
    static const struct {
        uint32_t key_bytes, value_bytes;
        int err;
    } cases[] = {
        {LIMIT_MUTATION_KEY_BYTES, LIMIT_MUTATION_VALUE_BYTES, 0},
        {LIMIT_MUTATION_KEY_BYTES + 1, 0, DG_ERR_MALFORMED},
        {0, LIMIT_MUTATION_VALUE_BYTES + 1, DG_ERR_MALFORMED},
    };
    static uint8_t bytes[256 * 1024];
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct format_mutation header = {.key_bytes = (uint16_t)cases[i].key_bytes,
                                         .value_bytes = cases[i].value_bytes};
        struct stream_mutation out;
        memcpy(bytes, &header, sizeof(header));
        struct reader r = reader_make(bytes, sizeof(bytes));
        cr_expect_eq(mutation_read(&r, &out), cases[i].err, "case %zu", i);
    }
}

/* Many keys that come, change their size and go: always what a plain table says. */
Test(state, many_keys) {
    enum { KEYS = 500, STEPS = 20000, SIZE_MAX_ = 600 };
    static char expected[KEYS][SIZE_MAX_ + 1];
    static bool there[KEYS];
    struct state_map map;
    state_map_init(&map);
    uint32_t chance = 1, count = 0;
    for (uint64_t step = 1; step <= STEPS; step++) {
        char key[16];
        chance = chance * 1664525u + 1013904223u;
        unsigned index = (chance >> 8) % KEYS, size = (chance >> 20) % SIZE_MAX_;
        snprintf(key, sizeof(key), "k%u", index);
        bool deletes = chance >> 31;
        count += (uint32_t)!deletes - (uint32_t)there[index];
        there[index] = !deletes;
        memset(expected[index], 'a' + (int)(step % 26), size);
        expected[index][size] = '\0';
        apply(&map, step, key, deletes ? NULL : expected[index]);
        cr_assert_eq(map.count, count);
    }
    for (unsigned index = 0; index < KEYS; index++) {
        char key[16];
        uint8_t bytes[SIZE_MAX_];
        size_t size = 0;
        snprintf(key, sizeof(key), "k%u", index);
        int err = test_get(&map, STREAM_STATE_CONSUMER, slice_from_string(key), bytes,
                           sizeof(bytes), &size);
        cr_assert_eq(err, there[index] ? 0 : DG_ERR_NOT_FOUND, "%s", key);
        cr_assert(err < 0 || slice_equals_string(slice_make(bytes, size), expected[index]));
    }
    state_map_free(&map);
}
