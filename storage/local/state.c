/*
 * The state map. On disk a mutation is struct format_mutation, key, value; a state entry of the
 * checkpoint is the same with the LSN before it. Recovery: entries of the checkpoint first, then
 * the mutations of the journal from the checkpoint's LSN on, each taken unless the entry is newer.
 */
#include "storage/local/state.h"

#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/hash.h"
#include "common/limits.h"

#include <uthash.h>

#include "storage/local/format.h"

struct state_entry {
    UT_hash_handle hh;
    uint64_t lsn;
    uint8_t *value;
    uint32_t value_bytes;
    uint32_t key_bytes; /* of key below: the namespace's byte and the key */
    uint8_t key[];
};

void state_map_init(struct state_map *map) {
    *map = (struct state_map){.bytes_max = LIMIT_STATE_BYTES};
    pthread_mutex_init(&map->mutex, NULL);
}

static uint64_t entry_bytes(const struct state_entry *entry) {
    return sizeof(struct format_state) + entry->key_bytes - 1 + entry->value_bytes;
}

static void entry_free(struct state_map *map, struct state_entry *entry) {
    map->bytes -= entry_bytes(entry);
    map->count--;
    HASH_DEL(map->entries, entry);
    free(entry->value);
    free(entry);
}

void state_map_free(struct state_map *map) {
    struct state_entry *entry, *next;
    HASH_ITER(hh, map->entries, entry, next) {
        entry_free(map, entry);
    }
    pthread_mutex_destroy(&map->mutex);
}

enum { ENTRY_KEY_MAX = 1 + LIMIT_MUTATION_KEY_BYTES };

static struct state_entry *entry_find(struct state_map *map, uint8_t name_space, struct slice key) {
    uint8_t full[ENTRY_KEY_MAX];
    struct state_entry *entry;
    dg_assert(key.size <= LIMIT_MUTATION_KEY_BYTES);
    full[0] = name_space;
    memcpy(full + 1, key.data, key.size);
    HASH_FIND(hh, map->entries, full, key.size + 1, entry);
    return entry;
}

static struct state_entry *entry_add(struct state_map *map, uint8_t name_space, struct slice key) {
    struct state_entry *entry = calloc(1, sizeof(*entry) + key.size + 1);
    if (!entry)
        return NULL;
    entry->key_bytes = (uint32_t)key.size + 1;
    entry->key[0] = name_space;
    memcpy(entry->key + 1, key.data, key.size);
    HASH_ADD_KEYPTR(hh, map->entries, entry->key, entry->key_bytes, entry);
    map->bytes += entry_bytes(entry);
    map->count++;
    return entry;
}

static int apply_locked(struct state_map *map, uint64_t lsn,
                        const struct stream_mutation *mutation) {
    struct state_entry *entry = entry_find(map, mutation->name_space, mutation->key);
    if (entry && entry->lsn > lsn)
        return 0;
    if (mutation->is_delete) {
        if (entry)
            entry_free(map, entry);
        return 0;
    }
    uint8_t *value = malloc(mutation->value.size + 1);
    if (!value)
        return DG_ERR_NO_MEMORY;
    if (!entry && !(entry = entry_add(map, mutation->name_space, mutation->key))) {
        free(value);
        return DG_ERR_NO_MEMORY;
    }
    if (mutation->value.size > 0)
        memcpy(value, mutation->value.data, mutation->value.size);
    map->bytes -= entry->value_bytes;
    free(entry->value);
    entry->value = value;
    entry->value_bytes = (uint32_t)mutation->value.size;
    map->bytes += entry->value_bytes;
    entry->lsn = lsn;
    return 0;
}

/* The map is changed by this thread only, so it may look without the mutex. */
bool state_has_room(const struct state_map *map, const uint8_t *mutations, uint32_t size) {
    if (size == 0 || map->bytes < map->bytes_max)
        return true;
    struct reader r = reader_make(mutations, size);
    struct stream_mutation mutation;
    bool adds = false;
    while (!adds && reader_left(&r) > 0 && mutation_read(&r, &mutation) == 0)
        adds = !mutation.is_delete && mutation.name_space != STATE_LOG_START;
    return !adds;
}

int state_apply(struct state_map *map, uint64_t lsn, const struct stream_mutation *mutation) {
    pthread_mutex_lock(&map->mutex);
    int err = apply_locked(map, lsn, mutation);
    pthread_mutex_unlock(&map->mutex);
    return err;
}

void state_visit(struct state_map *map, uint8_t name_space, stream_state_fn *visit, void *context) {
    struct state_entry *entry, *next;
    pthread_mutex_lock(&map->mutex);
    HASH_ITER(hh, map->entries, entry, next) {
        if (entry->key[0] == name_space)
            visit(context, slice_make(entry->key + 1, entry->key_bytes - 1),
                  slice_make(entry->value, entry->value_bytes));
    }
    pthread_mutex_unlock(&map->mutex);
}

void state_write(struct state_map *map, struct writer *w) {
    struct state_entry *entry, *next;
    HASH_ITER(hh, map->entries, entry, next) {
        writer_bytes(w, &entry->lsn, sizeof(entry->lsn));
        mutation_write(w, &(struct stream_mutation){
                              .name_space = entry->key[0],
                              .key = slice_make(entry->key + 1, entry->key_bytes - 1),
                              .value = slice_make(entry->value, entry->value_bytes),
                          });
    }
}

int mutation_read(struct reader *r, struct stream_mutation *ret_mutation) {
    struct format_mutation header = {0};
    const uint8_t *at = reader_take(r, sizeof(header));
    if (at)
        memcpy(&header, at, sizeof(header));
    struct stream_mutation mutation = {
        .name_space = header.name_space,
        .is_delete = header.is_delete != 0,
        .key = reader_slice(r, header.key_bytes),
        .value = reader_slice(r, header.value_bytes),
    };
    if (r->failed || header.key_bytes > LIMIT_MUTATION_KEY_BYTES ||
        header.value_bytes > LIMIT_MUTATION_VALUE_BYTES) {
        r->failed = true;
        return DG_ERR_MALFORMED;
    }
    *ret_mutation = mutation;
    return 0;
}

uint32_t mutation_size(const struct stream_mutation *mutation) {
    return (uint32_t)(sizeof(struct format_mutation) + mutation->key.size + mutation->value.size);
}

void mutation_write(struct writer *w, const struct stream_mutation *mutation) {
    struct format_mutation header = {
        .name_space = mutation->name_space,
        .is_delete = mutation->is_delete,
        .key_bytes = (uint16_t)mutation->key.size,
        .value_bytes = (uint32_t)mutation->value.size,
    };
    writer_bytes(w, &header, sizeof(header));
    writer_slice(w, mutation->key);
    writer_slice(w, mutation->value);
}
