/* Producer sequences: what is known of one, and what a start reads back. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/session/producers.h"
#include "leaks.h"

TestSuite(producers, .fini = check_leaks);

enum { NOW_MS = 1000000000, DEVICE = 42 };

/* ---- a store: the last value of each key ---- */

enum { ENTRIES = 512, UNITS = 64 };

struct entry {
    uint8_t key[PRODUCER_KEY_BYTES], value[PRODUCER_VALUE_BYTES];
    size_t key_size, value_size;
};

static struct entry entries[ENTRIES];
static unsigned entry_count;

static void apply(const struct stream_mutation *m) {
    unsigned at = 0;
    while (at < entry_count && (entries[at].key_size != m->key.size ||
                                memcmp(entries[at].key, m->key.data, m->key.size) != 0))
        at++;
    if (m->is_delete && at < entry_count)
        entries[at] = entries[--entry_count];
    if (m->is_delete)
        return;
    entry_count += at == entry_count;
    cr_assert_lt(entry_count, ENTRIES);
    entries[at].key_size = m->key.size;
    entries[at].value_size = m->value.size;
    memcpy(entries[at].key, m->key.data, m->key.size);
    memcpy(entries[at].value, m->value.data, m->value.size);
}

static struct producer *restored(int32_t stream_epoch) {
    struct producer *list = NULL;
    for (unsigned i = 0; i < entry_count; i++)
        cr_assert_eq(producers_restore(&list, slice_make(entries[i].key, entries[i].key_size),
                                       slice_make(entries[i].value, entries[i].value_size),
                                       stream_epoch),
                     0);
    return list;
}

/* ---- a device ---- */

static const struct producers_context context = {
    .device_key = DEVICE, .stream_epoch = 3, .wall_ms = NOW_MS};

static struct producer_sequence sequence_of(const char *text) {
    struct producer_sequence sequence;
    cr_assert_eq(producer_sequence_parse(slice_from_string(text), &sequence), 0, "%s", text);
    return sequence;
}

static int judge(const struct producer *list, const char *text) {
    struct producer_sequence sequence = sequence_of(text);
    return producers_judge(list, &sequence, NOW_MS);
}

struct unit {
    struct producers_change change;
};

static void begin_at(struct producer **list, const char *text, struct unit *unit, int64_t wall_ms) {
    struct producer_sequence sequence = sequence_of(text);
    struct producers_context at = context;
    at.wall_ms = wall_ms;
    cr_assert_eq(producers_judge(*list, &sequence, wall_ms), PRODUCERS_NEW, "%s", text);
    cr_assert_eq(producers_prepare(list, &sequence, &at, &unit->change), 0);
    producers_submit(&unit->change, &sequence, wall_ms);
}

static void begin(struct producer **list, const char *text, struct unit *unit) {
    begin_at(list, text, unit, NOW_MS);
}

static void end(struct producer **list, struct unit *unit, int err) {
    for (unsigned i = 0; err == 0 && i < unit->change.count; i++)
        apply(&unit->change.mutations[i]);
    producers_settle(list, unit->change.ticket, err);
}

static void store_at(struct producer **list, const char *text, int64_t wall_ms) {
    struct unit unit;
    begin_at(list, text, &unit, wall_ms);
    end(list, &unit, 0);
}

static void store(struct producer **list, const char *text) {
    store_at(list, text, NOW_MS);
}

/* ---- tests ---- */

Test(producers, texts) {
    struct producer_sequence sequence = sequence_of("press-7.a_B:4294967295:18446744073709551615");
    cr_assert(slice_equals_string(sequence.producer, "press-7.a_B"));
    cr_assert_eq(sequence.epoch, UINT32_MAX);
    cr_assert_eq(sequence.sequence, UINT64_MAX);
    sequence = sequence_of("0123456789012345678901234567890a:0:1");
    cr_assert_eq(sequence.producer.size, 32);
    static const char *const bad[] = {"",
                                      ":",
                                      "::",
                                      "p",
                                      "p:1",
                                      "p:1:",
                                      "p::1",
                                      ":1:1",
                                      "p:1:0",
                                      "p:01:1",
                                      "p:1:01",
                                      "p:1:1:1",
                                      "p:1:-1",
                                      "p:+1:1",
                                      "p: 1:1",
                                      "p:1:1 ",
                                      "p:4294967296:1",
                                      "p:1:18446744073709551616",
                                      "p:1:99999999999999999999999",
                                      "p/q:1:1",
                                      "p q:1:1",
                                      "p\xc3\xa9:1:1",
                                      "0123456789012345678901234567890ab:0:1"};
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_eq(producer_sequence_parse(slice_from_string(bad[i]), &sequence), DG_ERR_SEQUENCE,
                     "%s", bad[i]);
    cr_assert_eq(sequence.producer.size, 32, "untouched");
}

Test(producers, what_is_stored_is_known) {
    struct producer *list = NULL;
    cr_assert_eq(judge(list, "p:1:1"), PRODUCERS_NEW);
    store(&list, "p:1:1");
    cr_assert_eq(judge(list, "p:1:1"), PRODUCERS_STORED);
    cr_assert_eq(judge(list, "p:1:2"), PRODUCERS_NEW);
    cr_assert_eq(judge(list, "q:1:1"), PRODUCERS_NEW);
    store(&list, "p:1:5"); /* gaps are filled later */
    cr_assert_eq(judge(list, "p:1:4"), PRODUCERS_NEW);
    store(&list, "p:1:4");
    cr_assert_eq(judge(list, "p:1:4"), PRODUCERS_STORED);
    cr_assert_eq(judge(list, "p:1:3"), PRODUCERS_NEW);
    producers_free(list);
}

Test(producers, what_is_on_its_way_is_waited_for) {
    struct producer *list = NULL;
    struct unit unit;
    begin(&list, "p:1:7", &unit);
    cr_assert_eq(judge(list, "p:1:7"), PRODUCERS_WAIT);
    cr_assert_eq(judge(list, "p:1:8"), PRODUCERS_NEW);
    cr_assert_eq(judge(list, "p:2:7"), PRODUCERS_NEW);
    end(&list, &unit, 0);
    cr_assert_eq(judge(list, "p:1:7"), PRODUCERS_STORED);
    producers_free(list);
}

Test(producers, what_was_refused_is_new_again) {
    struct producer *list = NULL;
    struct unit one, two;
    begin(&list, "p:1:1", &one);
    end(&list, &one, DG_ERR_STORAGE_FULL);
    cr_assert_null(list, "nothing is known of it");
    begin(&list, "p:1:1", &one);
    begin(&list, "p:1:2", &two);
    end(&list, &one, DG_ERR_STORAGE_FULL); /* refused before the one behind it is stored */
    end(&list, &two, 0);
    cr_assert_eq(judge(list, "p:1:1"), PRODUCERS_NEW);
    struct producer *again = restored(3);
    cr_assert_eq(judge(again, "p:1:1"), PRODUCERS_NEW, "nor does the disk say that it is stored");
    cr_assert_eq(judge(again, "p:1:2"), PRODUCERS_STORED);
    producers_free(again);
    store(&list, "p:1:1");
    cr_assert_eq(judge(list, "p:1:1"), PRODUCERS_STORED);
    producers_free(list);
}

Test(producers, a_refused_highest_moves_nothing) {
    struct producer *list = NULL;
    struct unit unit;
    store(&list, "p:1:1");
    begin(&list, "p:1:1000", &unit);
    end(&list, &unit, DG_ERR_STORAGE_FULL);
    cr_assert_eq(judge(list, "p:1:2"), PRODUCERS_NEW);
    producers_free(list);
}

Test(producers, below_the_window_nothing_is_known) {
    struct producer *list = NULL;
    store(&list, "p:1:1000");
    cr_assert_eq(judge(list, "p:1:873"), PRODUCERS_NEW);
    cr_assert_eq(judge(list, "p:1:872"), DG_ERR_SEQUENCE_WINDOW);
    store(&list, "p:1:873");
    cr_assert_eq(judge(list, "p:1:873"), PRODUCERS_STORED);
    store(&list, "p:1:1001");
    cr_assert_eq(judge(list, "p:1:873"), DG_ERR_SEQUENCE_WINDOW);
    cr_assert_eq(judge(list, "p:1:1000"), PRODUCERS_STORED);
    store(&list, "p:1:18446744073709551615");
    cr_assert_eq(judge(list, "p:1:1001"), DG_ERR_SEQUENCE_WINDOW);
    cr_assert_eq(judge(list, "p:1:18446744073709551615"), PRODUCERS_STORED);
    producers_free(list);
}

Test(producers, epochs) {
    struct producer *list = NULL;
    struct unit old, young;
    store(&list, "p:4:10");
    cr_assert_eq(judge(list, "p:3:11"), DG_ERR_PRODUCER_EPOCH);
    cr_assert_eq(judge(list, "p:5:10"), PRODUCERS_NEW);
    begin(&list, "p:4:11", &old);
    begin(&list, "p:5:1", &young);
    end(&list, &young, 0);
    end(&list, &old, 0); /* of an epoch that is over: no trace */
    cr_assert_eq(judge(list, "p:4:11"), DG_ERR_PRODUCER_EPOCH);
    cr_assert_eq(judge(list, "p:5:1"), PRODUCERS_STORED);
    cr_assert_eq(judge(list, "p:5:11"), PRODUCERS_NEW);
    struct producer *again = restored(3);
    cr_assert_eq(judge(again, "p:4:11"), DG_ERR_PRODUCER_EPOCH);
    cr_assert_eq(judge(again, "p:5:1"), PRODUCERS_STORED);
    cr_assert_eq(judge(again, "p:5:2"), PRODUCERS_NEW);
    producers_free(again);
    begin(&list, "p:6:1", &young); /* refused: the earlier epoch is still the producer's */
    end(&list, &young, DG_ERR_STORAGE_FULL);
    cr_assert_eq(judge(list, "p:5:2"), PRODUCERS_NEW);
    producers_free(list);
}

Test(producers, so_many_on_the_way_and_no_more) {
    struct producer *list = NULL;
    static struct unit units[LIMIT_PRODUCER_SLOTS];
    char text[32];
    for (unsigned i = 0; i < LIMIT_PRODUCER_SLOTS; i++) {
        snprintf(text, sizeof(text), "p:1:%u", i + 1);
        begin(&list, text, &units[i]);
    }
    cr_assert_eq(judge(list, "p:1:1000"), PRODUCERS_WAIT);
    end(&list, &units[7], 0);
    cr_assert_eq(judge(list, "p:1:1000"), PRODUCERS_NEW);
    for (unsigned i = 0; i < LIMIT_PRODUCER_SLOTS; i++)
        if (i != 7)
            end(&list, &units[i], i % 3 == 0 ? DG_ERR_STORAGE_FULL : 0);
    struct producer *again = restored(3);
    for (unsigned i = 0; i < LIMIT_PRODUCER_SLOTS; i++) {
        snprintf(text, sizeof(text), "p:1:%u", i + 1);
        int expected = i != 7 && i % 3 == 0 ? PRODUCERS_NEW : PRODUCERS_STORED;
        cr_assert_eq(judge(list, text), expected, "%s", text);
        cr_assert_eq(judge(again, text), expected, "%s after a start", text);
    }
    producers_free(list);
    producers_free(again);
}

/* Whatever is on the way, stored or refused, in whatever order: memory and disk never differ from
 * what happened. */
Test(producers, against_a_plain_array) {
    enum { NUMBERS = 100, STEPS = 20000 };
    static struct unit units[LIMIT_PRODUCER_SLOTS];
    static unsigned number_of[LIMIT_PRODUCER_SLOTS]; /* 0: the unit is free */
    static bool stored[NUMBERS + 1];
    struct producer *list = NULL;
    unsigned seed = 11;
    for (unsigned step = 0; step < STEPS; step++) {
        seed = seed * 1664525u + 1013904223u;
        unsigned at = (seed >> 8) % LIMIT_PRODUCER_SLOTS, number = 1 + (seed >> 16) % NUMBERS;
        char text[32];
        snprintf(text, sizeof(text), "p:1:%u", number);
        if (number_of[at] != 0) {
            int err = seed >> 30 == 0 ? DG_ERR_STORAGE_FULL : 0;
            end(&list, &units[at], err);
            stored[number_of[at]] |= err == 0;
            number_of[at] = 0;
        } else if (judge(list, text) == PRODUCERS_NEW) {
            cr_assert(!stored[number]);
            begin(&list, text, &units[at]);
            number_of[at] = number;
        }
        if (step % 100 == 0) {
            struct producer *again = restored(3);
            for (unsigned i = 1; i <= NUMBERS; i++) {
                snprintf(text, sizeof(text), "p:1:%u", i);
                cr_assert_eq(judge(again, text) == PRODUCERS_STORED, stored[i]);
            }
            producers_free(again);
        }
        if (step % 1000 == 999) { /* the next round of numbers */
            for (unsigned i = 0; i < LIMIT_PRODUCER_SLOTS; i++)
                if (number_of[i] != 0)
                    end(&list, &units[i], DG_ERR_STORAGE_FULL);
            producers_free(list);
            list = NULL;
            entry_count = 0;
            memset(stored, 0, sizeof(stored));
            memset(number_of, 0, sizeof(number_of));
        }
    }
    producers_free(list);
}

static const int64_t later_ms = NOW_MS + LIMIT_PRODUCER_YIELD_MS;

static void store_four(struct producer **list) {
    for (unsigned i = 0; i < LIMIT_PRODUCERS_PER_DEVICE; i++) {
        char text[] = "p0:1:1";
        text[1] = (char)('0' + i);
        store_at(list, text, NOW_MS + i);
    }
}

static int judge_later(const struct producer *list, const char *text) {
    struct producer_sequence sequence = sequence_of(text);
    return producers_judge(list, &sequence, later_ms);
}

Test(producers, a_fifth_waits_for_the_one_unused_for_a_day) {
    struct producer *list = NULL;
    struct unit unit, other;
    store_four(&list);
    cr_assert_eq(judge(list, "fifth:1:1"), DG_ERR_PRODUCERS);
    begin_at(&list, "fifth:1:1", &unit, later_ms);
    cr_assert_eq(judge_later(list, "sixth:1:1"), PRODUCERS_WAIT);
    cr_assert_eq(judge_later(list, "p0:1:2"), PRODUCERS_WAIT, "it may be on its way out");
    end(&list, &unit, DG_ERR_STORAGE_FULL); /* nobody went for nobody */
    cr_assert_eq(judge_later(list, "p0:1:1"), PRODUCERS_STORED);
    begin_at(&list, "fifth:1:1", &unit, later_ms);
    begin_at(&list, "fifth:1:2", &other, later_ms);
    end(&list, &other, 0);
    cr_assert_eq(judge_later(list, "p0:1:1"), PRODUCERS_STORED, "still");
    end(&list, &unit, 0);
    struct producer *again = restored(3);
    for (unsigned i = 0; i < 2; i++) {
        const struct producer *each = i == 0 ? list : again;
        cr_assert_eq(judge_later(each, "p1:1:1"), PRODUCERS_STORED);
        cr_assert_eq(judge_later(each, "fifth:1:1"), PRODUCERS_STORED);
        cr_assert_eq(judge_later(each, "fifth:1:2"), PRODUCERS_STORED);
        cr_assert_eq(judge_later(each, "p0:1:1"), DG_ERR_PRODUCERS);
    }
    producers_free(list);
    producers_free(again);
}

Test(producers, pressure_leaves_nothing_behind) {
    struct producer *list = NULL;
    struct producers_change change;
    struct producer_sequence sequence = sequence_of("fifth:1:1");
    struct producers_context later = context;
    later.wall_ms = later_ms;
    store_four(&list);
    cr_assert_eq(producers_prepare(&list, &sequence, &later, &change), 0);
    producers_cancel(&list);
    cr_assert_eq(judge(list, "p0:1:1"), PRODUCERS_STORED);
    cr_assert_eq(judge(list, "fifth:1:1"), DG_ERR_PRODUCERS);
    producers_free(list);
}

/* Deletes one after the other, as the home does. */
static unsigned forget_all(struct producer **list, int64_t wall_ms, int err) {
    struct producers_context at = context;
    struct producers_change change;
    unsigned count = 0;
    at.wall_ms = wall_ms;
    for (; producers_has_forgotten(*list, wall_ms) && count < 32; count++) {
        producers_forget(*list, &at, &change);
        for (unsigned i = 0; err == 0 && i < change.count; i++)
            apply(&change.mutations[i]);
        producers_forgotten(list, err);
    }
    return count;
}

Test(producers, unused_ones_are_forgotten) {
    struct producer *list = NULL;
    struct unit one, two;
    store_at(&list, "old:1:1", NOW_MS);
    begin_at(&list, "old:1:2", &one, NOW_MS);
    begin_at(&list, "old:1:3", &two, NOW_MS); /* a second slot */
    end(&list, &two, 0);
    end(&list, &one, 0);
    store_at(&list, "young:1:1", NOW_MS + 1);
    cr_assert(!producers_has_forgotten(list, NOW_MS + LIMIT_PRODUCER_IDLE_MS - 1));
    cr_assert(producers_has_forgotten(list, NOW_MS + LIMIT_PRODUCER_IDLE_MS));
    cr_assert_eq(forget_all(&list, NOW_MS + LIMIT_PRODUCER_IDLE_MS, DG_ERR_STORAGE_FULL), 32);
    cr_assert_eq(judge(list, "old:1:1"), PRODUCERS_STORED);
    cr_assert_eq(forget_all(&list, NOW_MS + LIMIT_PRODUCER_IDLE_MS, 0), 1);
    cr_assert_eq(judge(list, "old:1:1"), PRODUCERS_NEW);
    cr_assert_eq(entry_count, 1);
    cr_assert_eq(forget_all(&list, NOW_MS + LIMIT_PRODUCER_IDLE_MS + 1, 0), 1);
    cr_assert_null(list);
    cr_assert_eq(entry_count, 0);
}

/* The events that they speak of may be gone. */
Test(producers, another_epoch_of_the_stream_knows_nothing) {
    struct producer *list = NULL;
    store(&list, "p:9:1");
    producers_free(list);
    list = restored(4);
    cr_assert_eq(judge(list, "p:1:1"), PRODUCERS_NEW);
    cr_assert(producers_has_forgotten(list, NOW_MS));
    cr_assert_eq(forget_all(&list, NOW_MS, 0), 1);
    cr_assert_eq(entry_count, 0);
}

Test(producers, what_is_too_much_is_forgotten) {
    struct producer *list = NULL;
    for (unsigned i = 0; i < 20; i++) {
        struct producer *other = NULL;
        char text[32];
        snprintf(text, sizeof(text), "p%u:1:1", i);
        store_at(&other, text, NOW_MS + i);
        producers_free(other);
    }
    for (unsigned i = 0; i < entry_count; i++)
        cr_assert_eq(producers_restore(&list, slice_make(entries[i].key, entries[i].key_size),
                                       slice_make(entries[i].value, entries[i].value_size), 3),
                     i < 16 ? 0 : DG_ERR_LIMIT);
    cr_assert_eq(forget_all(&list, NOW_MS + 20, 0), 12);
    cr_assert_eq(judge(list, "p12:1:1"), PRODUCERS_STORED);
    producers_free(list);
}

Test(producers, damaged_entries) {
    struct producer *list = NULL;
    int64_t device_key;
    store(&list, "p:1:1");
    producers_free(list);
    list = NULL;
    struct entry good = entries[0];
    for (unsigned what = 0; what < 6; what++) {
        struct entry e = good;
        if (what == 0)
            e.value[0] = 9; /* the layout of a later release */
        if (what == 1)
            e.value_size--;
        if (what == 2)
            memset(e.key, 0, 8);
        if (what == 3)
            e.key[8] = LIMIT_PRODUCER_SLOTS;
        if (what == 4)
            e.key_size--; /* no producer */
        if (what == 5)
            memset(e.value + 9, 0, 8); /* no sequence */
        cr_assert_eq(producers_restore(&list, slice_make(e.key, e.key_size),
                                       slice_make(e.value, e.value_size), 3),
                     DG_ERR_MALFORMED, "%u", what);
    }
    cr_assert_null(list);
    cr_assert_eq(producers_key_device(slice_make(good.key, good.key_size), &device_key), 0);
    cr_assert_eq(device_key, DEVICE);
}
