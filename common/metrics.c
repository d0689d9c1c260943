/*
 * Counters and histograms live in one shard per thread, in thread-local storage; only its thread
 * writes it, so an addition is a plain load and store. A shard joins the list at its thread's first
 * use and leaves it when the thread ends, its sums going to `retired`. Gauges are process-wide
 * atomics: they change rarely, and a set must replace what others added.
 */
#include "common/metrics.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "common/assert.h"
#include "common/metrics_internal.h"

const struct metric_row metric_rows[METRIC_COUNT] = {
#define METRIC(id, kind, name, labels, help) \
    [METRIC_##id] = {METRIC_KIND_##kind, name, labels, help},
#include "common/metrics_table.h"
#undef METRIC
};

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define MICROSECONDS(n) ((n)*1000ull)
#define MILLISECONDS(n) ((n)*1000000ull)
#define SECONDS(n) ((n)*1000000000ull)

static const uint64_t bounds_seconds[] = {
    MICROSECONDS(10),  MICROSECONDS(20), MICROSECONDS(50),  MICROSECONDS(100), MICROSECONDS(200),
    MICROSECONDS(500), MILLISECONDS(1),  MILLISECONDS(2),   MILLISECONDS(5),   MILLISECONDS(10),
    MILLISECONDS(20),  MILLISECONDS(50), MILLISECONDS(100), MILLISECONDS(200), MILLISECONDS(500),
    SECONDS(1),        SECONDS(2),       SECONDS(5),        SECONDS(10),
};
static const uint64_t bounds_bytes[] = {256,    1024,    4096,    16384,   65536,
                                        262144, 1048576, 4194304, 16777216};
static const uint64_t bounds_count[] = {1,   2,    5,    10,   20,    50,    100,   200,
                                        500, 1000, 2000, 5000, 10000, 20000, 50000, 100000};

_Static_assert(COUNT_OF(bounds_seconds) < METRIC_BUCKETS, "room for +Inf");

static const struct metric_scale scales[] = {
    [METRIC_KIND_HISTOGRAM_SECONDS] = {bounds_seconds, COUNT_OF(bounds_seconds), 1e9},
    [METRIC_KIND_HISTOGRAM_BYTES] = {bounds_bytes, COUNT_OF(bounds_bytes), 1},
    [METRIC_KIND_HISTOGRAM_COUNT] = {bounds_count, COUNT_OF(bounds_count), 1},
};

const struct metric_scale *metric_scale(enum metric_id id) {
    enum metric_kind kind = metric_rows[id].kind;
    return kind >= METRIC_KIND_HISTOGRAM_SECONDS ? &scales[kind] : NULL;
}

struct shard {
    struct shard *next;
    bool listed; /* by its own thread only */
    _Atomic int64_t sums[METRIC_COUNT];
    _Atomic int64_t buckets[METRIC_COUNT][METRIC_BUCKETS];
};

static _Thread_local struct shard own_shard;
static struct shard retired;
static _Atomic int64_t gauges[METRIC_COUNT];

static pthread_mutex_t list_lock = PTHREAD_MUTEX_INITIALIZER;
static struct shard *list; /* by list_lock, as is `retired` */
static pthread_key_t thread_end;

static int64_t load(const _Atomic int64_t *value) {
    return atomic_load_explicit(value, memory_order_relaxed);
}

/* For values that only the calling thread writes (or that list_lock guards). */
static void add_owned(_Atomic int64_t *value, int64_t amount) {
    atomic_store_explicit(value, load(value) + amount, memory_order_relaxed);
}

static void fold_shard(struct shard *into, const struct shard *from) {
    for (unsigned id = 0; id < METRIC_COUNT; id++) {
        add_owned(&into->sums[id], load(&from->sums[id]));
        for (unsigned i = 0; i < METRIC_BUCKETS; i++)
            add_owned(&into->buckets[id][i], load(&from->buckets[id][i]));
    }
}

static void unlist_shard(void *argument) {
    struct shard *shard = argument;
    pthread_mutex_lock(&list_lock);
    fold_shard(&retired, shard);
    struct shard **at = &list;
    while (*at != shard)
        at = &(*at)->next;
    *at = shard->next;
    pthread_mutex_unlock(&list_lock);
    /* A later destructor of this thread may count again and lists an empty shard then. */
    *shard = (struct shard){0};
}

__attribute__((constructor)) static void make_thread_end(void) {
    int failed = pthread_key_create(&thread_end, unlist_shard);
    dg_assert(failed == 0);
}

static void list_shard(struct shard *shard) {
    pthread_setspecific(thread_end, shard);
    pthread_mutex_lock(&list_lock);
    shard->next = list;
    list = shard;
    pthread_mutex_unlock(&list_lock);
    shard->listed = true;
}

static inline struct shard *listed_shard(void) {
    if (__builtin_expect(!own_shard.listed, 0))
        list_shard(&own_shard);
    return &own_shard;
}

void metric_add(enum metric_id id, int64_t amount) {
    if (metric_rows[id].kind == METRIC_KIND_GAUGE)
        atomic_fetch_add_explicit(&gauges[id], amount, memory_order_relaxed);
    else
        add_owned(&listed_shard()->sums[id], amount);
}

void metric_set(enum metric_id id, int64_t value) {
    dg_assert(metric_rows[id].kind == METRIC_KIND_GAUGE);
    atomic_store_explicit(&gauges[id], value, memory_order_relaxed);
}

void metric_observe(enum metric_id id, uint64_t value, uint64_t times) {
    const struct metric_scale *scale = metric_scale(id);
    dg_assert(scale != NULL);
    unsigned bucket = 0;
    while (bucket < scale->bound_count && value > scale->bounds[bucket])
        bucket++;
    struct shard *shard = listed_shard();
    add_owned(&shard->buckets[id][bucket], (int64_t)times);
    add_owned(&shard->sums[id], (int64_t)(value * times));
}

static void add_reading(struct metric_reading *reading, const struct shard *shard,
                        enum metric_id id) {
    reading->sum += load(&shard->sums[id]);
    for (unsigned i = 0; i < METRIC_BUCKETS; i++)
        reading->buckets[i] += load(&shard->buckets[id][i]);
}

struct metric_reading metric_read_all(enum metric_id id) {
    struct metric_reading reading = {0};
    if (metric_rows[id].kind == METRIC_KIND_GAUGE) {
        reading.sum = load(&gauges[id]);
        return reading;
    }
    pthread_mutex_lock(&list_lock);
    add_reading(&reading, &retired, id);
    for (const struct shard *shard = list; shard; shard = shard->next)
        add_reading(&reading, shard, id);
    pthread_mutex_unlock(&list_lock);
    return reading;
}

int64_t metric_read(enum metric_id id) {
    struct metric_reading reading = metric_read_all(id);
    if (metric_scale(id) == NULL)
        return reading.sum;
    int64_t count = 0;
    for (unsigned i = 0; i < METRIC_BUCKETS; i++)
        count += reading.buckets[i];
    return count;
}
