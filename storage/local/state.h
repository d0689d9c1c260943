/*
 * State beside the records: absolute values under (namespace, key), changed by mutations in journal
 * units and kept in the checkpoint. The newer LSN wins, so replay is idempotent. The map is written
 * by the committer (recovery before it starts) and read from any thread.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/reader.h"
#include "common/writer.h"
#include "storage/stream.h"

/* Beside enum stream_namespace, and STATE_EPOCH of epoch.h: stream id u64, partition u32 -> offset
 * i64; lives in the partition. */
enum { STATE_LOG_START = 1 };

/* Key of STATE_LOG_START, without the padding. */
struct log_start_key {
    uint64_t stream_id;
    uint32_t partition;
};
enum { LOG_START_KEY_SIZE = 12 };

struct state_entry;

struct state_slot {
    struct state_entry *entry; /* NULL: free */
    uint32_t hash;
};

/* Entries of one size that are not used now. */
enum { STATE_POOLS = 8 };
struct state_pool {
    struct state_entry *first;
    uint32_t count;
};

struct state_map {
    pthread_mutex_t mutex;
    struct state_slot *slots;
    uint32_t capacity; /* of them: 0 or a power of two */
    struct state_pool pools[STATE_POOLS];
    uint64_t bytes; /* of a snapshot */
    uint64_t bytes_max;
    uint32_t count;
};

void state_map_init(struct state_map *map);
void state_map_free(struct state_map *map);

/* May these mutations be stored? Beyond bytes_max only what does not add to the state. Committer.
 */
bool state_has_room(const struct state_map *map, const uint8_t *mutations, uint32_t size);

/* DG_ERR_NO_MEMORY. */
DG_NODISCARD int state_apply(struct state_map *map, uint64_t lsn,
                             const struct stream_mutation *mutation);

void state_visit(struct state_map *map, uint8_t name_space, stream_state_fn *visit, void *context);

/* As stream_find_state(). */
DG_NODISCARD int state_find(struct state_map *map, uint8_t name_space, struct slice key,
                            void *ret_value, size_t room);

/* Writes every entry as struct format_state + key + value; the writer has room for map->bytes. */
void state_write(struct state_map *map, struct writer *w);

/* One struct format_mutation + key + value. The reader fails, DG_ERR_MALFORMED, on bad input. */
DG_NODISCARD int mutation_read(struct reader *r, struct stream_mutation *ret_mutation);
uint32_t mutation_size(const struct stream_mutation *mutation);
void mutation_write(struct writer *w, const struct stream_mutation *mutation);
