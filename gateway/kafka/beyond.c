/* Collected first, compared afterwards: while state is visited the stream asks for nothing else. */
#include "gateway/kafka/beyond.h"

#include <stdlib.h>

#include "common/log.h"
#include "common/metrics.h"
#include "gateway/kafka/group_store.h"

struct place {
    uint64_t stream_id;
    uint32_t partition;
    int64_t offset;
};

struct places {
    struct place *items;
    size_t count, capacity;
};

static void collect(void *context, struct slice key, struct slice value) {
    struct places *places = context;
    struct group_offset offset;
    struct slice group;
    int64_t tenant_key;
    if (group_store_decode(key, value, &tenant_key, &group, &offset) < 0 ||
        offset.stream_id == GROUP_STAMP_STREAM)
        return;
    if (places->count == places->capacity) {
        size_t capacity = places->capacity ? places->capacity * 2 : 64;
        struct place *items = realloc(places->items, capacity * sizeof(*items));
        if (!items)
            return; /* some are not told of */
        places->items = items;
        places->capacity = capacity;
    }
    places->items[places->count++] =
        (struct place){offset.stream_id, offset.partition, offset.offset};
}

uint64_t kafka_find_offsets_beyond(struct stream *stream) {
    struct places places = {0};
    uint64_t count = 0;
    stream_visit_state(stream, STREAM_STATE_CONSUMER, collect, &places);
    for (size_t i = 0; i < places.count; i++) {
        struct stream_offsets offsets;
        stream_offsets(stream, places.items[i].stream_id, places.items[i].partition, &offsets);
        count += places.items[i].offset > offsets.durable_end;
    }
    free(places.items);
    metric_set(METRIC_KAFKA_OFFSETS_BEYOND, (int64_t)count);
    if (count > 0)
        LOG_WARN("kafka.offsets_beyond_end", log_int("count", (int64_t)count),
                 log_int("epoch", stream_epoch(stream)),
                 log_text("effect", "their consumers have read what the stream does not hold any "
                                    "more, and go on as auto.offset.reset says"));
    return count;
}
