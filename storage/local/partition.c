/* Partitions: assigning places to batches and publishing what is durable. Formats: segment.c. */
#include "storage/local/partition.h"

#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "storage/local/engine.h"
#include "storage/local/watch.h"

void partition_map_init(struct partition_map *map) {
    *map = (struct partition_map){.used_max = LIMIT_PARTITIONS};
    pthread_rwlock_init(&map->lock, NULL);
}

static void partition_free(struct partition *partition) {
    tail_free(&partition->tail);
    if (partition->write_segment && !partition->write_segment->listed)
        segment_free(partition->write_segment);
    for (uint32_t i = 0; i < partition->segment_count; i++)
        segment_free(partition->segments[i]);
    free(partition->segments);
    free(partition->last_block);
    pthread_mutex_destroy(&partition->mutex);
    free(partition);
}

void partition_map_free(struct partition_map *map) {
    struct partition *partition, *next;
    HASH_ITER(hh, map->partitions, partition, next) {
        HASH_DEL(map->partitions, partition);
        partition_free(partition);
    }
    pthread_rwlock_destroy(&map->lock);
}

struct partition *partition_find(struct partition_map *map, uint64_t stream_id, uint32_t number) {
    struct partition_key key = {.stream_id = stream_id, .number = number};
    struct partition *partition;
    pthread_rwlock_rdlock(&map->lock);
    HASH_FIND(hh, map->partitions, &key, sizeof(key), partition);
    pthread_rwlock_unlock(&map->lock);
    return partition;
}

struct partition **partition_map_list(struct partition_map *map, unsigned *ret_count) {
    struct partition *partition, *next;
    unsigned count = 0;
    pthread_rwlock_rdlock(&map->lock);
    struct partition **list =
        calloc((size_t)HASH_COUNT(map->partitions) + 1, sizeof(struct partition *));
    HASH_ITER(hh, map->partitions, partition, next) {
        if (list)
            list[count++] = partition;
    }
    pthread_rwlock_unlock(&map->lock);
    *ret_count = count;
    return list;
}

static struct partition *partition_create(uint64_t stream_id, uint32_t number) {
    struct partition *partition = calloc(1, sizeof(*partition));
    if (!partition)
        return NULL;
    partition->key = (struct partition_key){.stream_id = stream_id, .number = number};
    partition->last_ms = INT64_MIN;
    partition->applied.last_ms = INT64_MIN;
    partition->applied.segment_base = -1;
    partition->last_block_base = -1;
    pthread_mutex_init(&partition->mutex, NULL);
    return partition;
}

struct partition *partition_obtain(struct partition_map *map, uint64_t stream_id, uint32_t number) {
    struct partition *partition = partition_find(map, stream_id, number);
    if (partition)
        return partition;
    struct partition *created = partition_create(stream_id, number);
    if (!created)
        return NULL;
    pthread_rwlock_wrlock(&map->lock);
    HASH_FIND(hh, map->partitions, &created->key, sizeof(created->key), partition);
    if (!partition) {
        HASH_ADD(hh, map->partitions, key, sizeof(created->key), created);
        partition = created;
        created = NULL;
    }
    pthread_rwlock_unlock(&map->lock);
    if (created)
        partition_free(created);
    return partition;
}

/* ---- assigning: committer -----------------------------------------------------------------------
 */

static bool must_roll(const struct partition *partition, const struct stream *stream,
                      uint32_t batch_bytes, uint64_t now_ms) {
    const struct segment *segment = partition->write_segment;
    if (!segment)
        return true;
    if (partition->write_position == 0)
        return false;
    uint64_t size_max = atomic_load_explicit(&stream->segment_size_bytes, memory_order_relaxed);
    uint64_t age_max_ms = atomic_load_explicit(&stream->segment_age_ms, memory_order_relaxed);
    return (uint64_t)partition->write_position + batch_bytes > size_max ||
           (now_ms > segment->created_ms && now_ms - segment->created_ms > age_max_ms);
}

static int roll(struct partition *partition, struct stream *stream, uint64_t now_ms) {
    bool is_first = !partition->write_segment;
    if (is_first && stream->partitions.used_count >= stream->partitions.used_max)
        return DG_ERR_STORAGE_FULL;
    struct segment *segment = segment_create(&stream->files, partition->key.stream_id,
                                             partition->key.number, partition->next_offset, now_ms);
    if (!segment)
        return DG_ERR_NO_MEMORY;
    int err = segment_create_file(segment);
    if (err < 0) {
        segment_free(segment);
        return err;
    }
    partition->write_segment = segment;
    partition->write_position = 0;
    stream->partitions.used_count += is_first;
    return 0;
}

int partition_assign(struct partition *partition, struct stream *stream, struct unit *unit,
                     uint64_t now_ms) {
    uint32_t bytes = unit->batch.size_bytes;
    int err = must_roll(partition, stream, bytes, now_ms) ? roll(partition, stream, now_ms) : 0;
    if (err < 0)
        return err;
    uint64_t size_max = atomic_load_explicit(&stream->segment_size_bytes, memory_order_relaxed);
    uint64_t allocated = partition->write_segment->allocated_bytes;
    err = segment_reserve(partition->write_segment, (uint64_t)partition->write_position + bytes,
                          size_max);
    if (err < 0)
        return err;
    if (partition->write_segment->allocated_bytes > allocated)
        stream_set_full(stream, false);
    pthread_mutex_lock(&partition->mutex);
    bool has_room = tail_promise(&partition->tail);
    pthread_mutex_unlock(&partition->mutex);
    if (!has_room)
        return DG_ERR_NO_MEMORY;
    batch_place(&unit->batch, partition->next_offset, partition->last_ms, stream->epochs.current);
    unit->base_offset = partition->next_offset;
    unit_fill_offsets(unit);
    unit->segment = partition->write_segment;
    unit->position = partition->write_position;
    partition->next_offset += unit->batch.record_count;
    partition->last_ms = unit->batch.max_ms;
    partition->write_position += bytes;
    return 0;
}

int partition_assign_log_start(struct partition *partition, struct stream *stream,
                               struct unit *unit, uint64_t now_ms) {
    if (unit->log_start != partition->next_offset || partition->write_position == 0)
        return 0;
    int err = roll(partition, stream, now_ms);
    if (err == 0)
        unit->segment = partition->write_segment;
    return err;
}

/* ---- publishing ---------------------------------------------------------------------------------
 */

bool partition_list_segment(struct partition *partition, struct segment *segment) {
    if (partition->segment_count == partition->segment_capacity) {
        uint32_t capacity = partition->segment_capacity ? partition->segment_capacity * 2 : 4;
        struct segment **segments =
            realloc(partition->segments, capacity * sizeof(struct segment *));
        if (!segments)
            return false;
        partition->segments = segments;
        partition->segment_capacity = capacity;
    }
    dg_assert(partition->segment_count == 0 ||
              partition->segments[partition->segment_count - 1]->base_offset <
                  segment->base_offset);
    partition->segments[partition->segment_count++] = segment;
    segment->listed = true;
    return true;
}

static void list_new_segment(struct partition *partition, struct segment *segment,
                             uint64_t now_ms) {
    if (partition->segment_count > 0) {
        struct segment *before = partition->segments[partition->segment_count - 1];
        before->sealed = true;
        before->sealed_ms = now_ms;
    }
    dg_assert(partition_list_segment(partition, segment)); /* the group is durable: no way back */
}

static void join_tail(struct partition *partition, struct unit *unit) {
    struct chunk *chunk = unit->batch.chunk; /* changes hands */
    unit->batch.chunk = NULL;
    chunk->segment = unit->segment;
    chunk->position = unit->position;
    chunk->size_bytes = unit->batch.size_bytes;
    chunk->base_offset = unit->base_offset;
    chunk->next_offset = unit->base_offset + unit->batch.record_count;
    chunk->partition = partition;
    tail_add(&partition->tail, chunk);
}

uint64_t partition_apply(struct partition *partition, struct unit *unit, uint64_t now_ms) {
    struct segment *segment = unit->segment;
    uint32_t bytes = unit->batch.size_bytes;
    int64_t next_offset = unit->base_offset + unit->batch.record_count;
    partition->applied = (struct partition_applied){
        .next_offset = next_offset,
        .last_ms = unit->batch.max_ms,
        .segment_base = segment->base_offset,
        .segment_bytes = unit->position + bytes,
        .segment_created_ms = segment->created_ms,
    };
    pthread_mutex_lock(&partition->mutex);
    if (!segment->listed)
        list_new_segment(partition, segment, now_ms);
    index_add(&segment->index, unit->base_offset, batch_first_ms(&unit->batch), unit->position);
    dg_assert(segment->end_bytes == unit->position);
    segment->end_bytes += bytes;
    segment->sealed_ms = now_ms;
    join_tail(partition, unit);
    atomic_fetch_add_explicit(&partition->size_bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&partition->appended_bytes, bytes, memory_order_relaxed);
    partition->last_durable_ms = unit->batch.max_ms;
    atomic_store_explicit(&partition->exists, true, memory_order_release);
    atomic_store_explicit(&partition->durable_end, next_offset, memory_order_release);
    watch_fire_all(partition);
    uint64_t unplaced_bytes = partition->tail.unplaced_bytes;
    pthread_mutex_unlock(&partition->mutex);
    return unplaced_bytes;
}

void partition_apply_roll(struct partition *partition, struct segment *segment, uint64_t now_ms) {
    partition->applied.segment_base = segment->base_offset;
    partition->applied.segment_bytes = 0;
    partition->applied.segment_created_ms = segment->created_ms;
    pthread_mutex_lock(&partition->mutex);
    list_new_segment(partition, segment, now_ms);
    pthread_mutex_unlock(&partition->mutex);
}

struct segment *partition_segment_at(const struct partition *partition, int64_t offset) {
    uint32_t low = 0, high = partition->segment_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (partition->segments[middle]->base_offset <= offset)
            low = middle + 1;
        else
            high = middle;
    }
    return low > 0 ? partition->segments[low - 1] : NULL;
}

/* ---- the last block -----------------------------------------------------------------------------
 */

bool partition_keep_last_block(struct partition *partition, int64_t base, uint32_t end,
                               const uint8_t *block) {
    uint32_t size = end % FORMAT_BLOCK;
    pthread_mutex_lock(&partition->mutex);
    uint8_t *kept = size > 0 ? realloc(partition->last_block, size) : NULL;
    if (kept) {
        memcpy(kept, block, size);
        partition->last_block = kept;
    }
    partition->last_block_base = kept ? base : -1;
    partition->last_block_end = end;
    pthread_mutex_unlock(&partition->mutex);
    return kept || size == 0;
}

bool partition_copy_last_block(struct partition *partition, int64_t base, uint32_t end,
                               uint8_t *ret_block) {
    pthread_mutex_lock(&partition->mutex);
    bool is_kept = partition->last_block_base == base && partition->last_block_end >= end &&
                   partition->last_block_end / FORMAT_BLOCK == end / FORMAT_BLOCK;
    if (is_kept && end % FORMAT_BLOCK > 0)
        memcpy(ret_block, partition->last_block, end % FORMAT_BLOCK);
    pthread_mutex_unlock(&partition->mutex);
    return is_kept;
}
