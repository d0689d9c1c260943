/* Cost of finding out what a topic means: natively and with topic maps. Prints ns per call. */
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "gateway/dialect/topics.h"

enum { ROUNDS = 5, CALLS = 2000000 };

static double classify_ns(const struct topic_map *map, struct slice topic) {
    struct topic_meaning meaning;
    uint64_t start = clock_monotonic_ns();
    for (unsigned i = 0; i < CALLS; i++) {
        if (topic_classify(map, topic, &meaning) < 0)
            return -1;
        __asm__ volatile("" : : "r"(&meaning) : "memory");
    }
    return (double)(clock_monotonic_ns() - start) / CALLS;
}

/* The best of some rounds: what the code costs, not what the machine does beside it. */
static void measure(const char *name, const struct topic_map *map, const char *topic) {
    double best = 1e9;
    for (unsigned i = 0; i < ROUNDS; i++) {
        double ns = classify_ns(map, slice_from_string(topic));
        best = ns < best ? ns : best;
    }
    printf("%-44s %6.1f ns\n", name, best);
}

static struct topic_map *make_map(unsigned count, const char *format) {
    struct topic_map *map = topic_map_new();
    for (unsigned i = 0; map && i < count; i++) {
        char pattern[64];
        const char *why;
        snprintf(pattern, sizeof pattern, format, i);
        if (topic_map_add(map, slice_from_string(pattern), slice_from_string("event"), &why) < 0)
            abort();
    }
    return map;
}

int main(void) {
    struct topic_map *one = make_map(1, "plant/%u/+/+/alarm");
    struct topic_map *apart = make_map(LIMIT_TOPIC_PATTERNS, "plan%u/+/+/alarm");
    struct topic_map *alike = make_map(LIMIT_TOPIC_PATTERNS, "plant/+/line/+/%u");
    measure("no map", NULL, "plant/7/line/3/temp1");
    measure("1 pattern", one, "plant/7/line/3/temp1");
    measure("64 patterns that differ at once, none takes", apart, "plant/7/line/3/temp1");
    measure("64 patterns that differ at the end, the last", alike, "plant/7/line/3/63");
    measure("64 patterns that differ at the end, none", alike, "plant/7/line/3/temp1");
    measure("$dg/via/<device>/, no map", NULL, "$dg/via/meter-17/line/3/temp1");
    topic_map_free(one);
    topic_map_free(apart);
    topic_map_free(alike);
    return 0;
}
