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
#include "storage/local/format.h"

/* Small ones, which come and go with each QoS 2 message, are kept to be used again. */
enum {
    SLOTS_FIRST = 64,
    ENTRY_STEP = 32, /* room of an entry is a multiple */
    POOLED_BYTES_MAX = STATE_POOLS * ENTRY_STEP,
    POOLED_MAX = 16384, /* of each size */
};

struct state_entry {
    union {
        uint64_t lsn;
        struct state_entry *next_free;
    };
    uint32_t value_bytes;
    uint32_t key_bytes; /* the namespace's byte and the key */
    uint32_t room;      /* of bytes */
    uint8_t bytes[];    /* key, then value */
};

void state_map_init(struct state_map *map) {
    *map = (struct state_map){.bytes_max = LIMIT_STATE_BYTES};
    pthread_mutex_init(&map->mutex, NULL);
}

/* ---- entries ---- */

static struct slice entry_key(const struct state_entry *entry) {
    return slice_make(entry->bytes, entry->key_bytes);
}

static struct slice entry_value(const struct state_entry *entry) {
    return slice_make(entry->bytes + entry->key_bytes, entry->value_bytes);
}

static uint64_t entry_bytes(const struct state_entry *entry) {
    return sizeof(struct format_state) + entry->key_bytes - 1 + entry->value_bytes;
}

static struct state_entry *entry_new(struct state_map *map, size_t size) {
    size_t room = (size + ENTRY_STEP - 1) / ENTRY_STEP * ENTRY_STEP;
    struct state_pool *pool = room <= POOLED_BYTES_MAX ? &map->pools[room / ENTRY_STEP - 1] : NULL;
    struct state_entry *entry = pool ? pool->first : NULL;
    if (entry) {
        pool->first = entry->next_free;
        pool->count--;
        return entry;
    }
    entry = malloc(sizeof(*entry) + room);
    if (entry)
        entry->room = (uint32_t)room;
    return entry;
}

static void entry_free(struct state_map *map, struct state_entry *entry) {
    struct state_pool *pool =
        entry->room <= POOLED_BYTES_MAX ? &map->pools[entry->room / ENTRY_STEP - 1] : NULL;
    if (!pool || pool->count >= POOLED_MAX) {
        free(entry);
        return;
    }
    entry->next_free = pool->first;
    pool->first = entry;
    pool->count++;
}

void state_map_free(struct state_map *map) {
    for (uint32_t i = 0; i < map->capacity; i++)
        free(map->slots[i].entry);
    free(map->slots);
    for (unsigned i = 0; i < STATE_POOLS; i++)
        for (struct state_entry *entry = map->pools[i].first, *next; entry; entry = next) {
            next = entry->next_free;
            free(entry);
        }
    pthread_mutex_destroy(&map->mutex);
}

/* ---- slots: open addressing ---- */

/* The key's slot, or the free one where it would go. There is always a free one. */
static struct state_slot *find_slot(const struct state_map *map, struct slice key, uint32_t hash) {
    uint32_t mask = map->capacity - 1, at = hash & mask;
    for (; map->slots[at].entry; at = (at + 1) & mask)
        if (map->slots[at].hash == hash && slice_equals(entry_key(map->slots[at].entry), key))
            break;
    return &map->slots[at];
}

/* At most two thirds full. */
static int reserve_slot(struct state_map *map) {
    if ((uint64_t)(map->count + 1) * 3 <= (uint64_t)map->capacity * 2)
        return 0;
    uint32_t capacity = map->capacity ? map->capacity * 2 : SLOTS_FIRST;
    struct state_slot *slots = calloc(capacity, sizeof(*slots));
    if (!slots)
        return DG_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < map->capacity; i++) {
        uint32_t at = map->slots[i].hash & (capacity - 1);
        if (!map->slots[i].entry)
            continue;
        while (slots[at].entry)
            at = (at + 1) & (capacity - 1);
        slots[at] = map->slots[i];
    }
    free(map->slots);
    map->slots = slots;
    map->capacity = capacity;
    return 0;
}

/* Closes the gap: every later entry of the run that may stand in the hole moves back. */
static void clear_slot(struct state_map *map, struct state_slot *slot) {
    uint32_t mask = map->capacity - 1, hole = (uint32_t)(slot - map->slots);
    for (uint32_t at = (hole + 1) & mask; map->slots[at].entry; at = (at + 1) & mask) {
        uint32_t home = map->slots[at].hash & mask;
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            map->slots[hole] = map->slots[at];
            hole = at;
        }
    }
    map->slots[hole].entry = NULL;
}

/* ---- changing ---- */

enum { ENTRY_KEY_MAX = 1 + LIMIT_MUTATION_KEY_BYTES };

static void remove_entry(struct state_map *map, struct state_slot *slot) {
    map->bytes -= entry_bytes(slot->entry);
    map->count--;
    entry_free(map, slot->entry);
    clear_slot(map, slot);
}

/* Puts an entry with this value into the slot, which is the key's. */
static int set_entry(struct state_map *map, struct state_slot *slot, uint32_t hash, uint64_t lsn,
                     struct slice key, struct slice value) {
    struct state_entry *old = slot->entry, *entry = old;
    if (!old || key.size + value.size > old->room)
        entry = entry_new(map, key.size + value.size);
    if (!entry)
        return DG_ERR_NO_MEMORY;
    if (old)
        map->bytes -= entry_bytes(old);
    else
        map->count++;
    if (old && entry != old)
        entry_free(map, old);
    entry->lsn = lsn;
    entry->key_bytes = (uint32_t)key.size;
    entry->value_bytes = (uint32_t)value.size;
    memcpy(entry->bytes, key.data, key.size);
    if (value.size > 0)
        memcpy(entry->bytes + key.size, value.data, value.size);
    map->bytes += entry_bytes(entry);
    *slot = (struct state_slot){entry, hash};
    return 0;
}

/* With the namespace's byte in front. */
static struct slice full_key(uint8_t name_space, struct slice key, uint8_t bytes[ENTRY_KEY_MAX]) {
    dg_assert(key.size <= LIMIT_MUTATION_KEY_BYTES);
    bytes[0] = name_space;
    memcpy(bytes + 1, key.data, key.size);
    return slice_make(bytes, key.size + 1);
}

static int apply_locked(struct state_map *map, uint64_t lsn,
                        const struct stream_mutation *mutation) {
    uint8_t bytes[ENTRY_KEY_MAX];
    struct slice key = full_key(mutation->name_space, mutation->key, bytes);
    uint32_t hash = (uint32_t)hash_bytes(key.data, key.size);
    if (reserve_slot(map) < 0)
        return DG_ERR_NO_MEMORY;
    struct state_slot *slot = find_slot(map, key, hash);
    if (slot->entry && slot->entry->lsn > lsn)
        return 0;
    if (!mutation->is_delete)
        return set_entry(map, slot, hash, lsn, key, mutation->value);
    if (slot->entry)
        remove_entry(map, slot);
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
    pthread_mutex_lock(&map->mutex);
    for (uint32_t i = 0; i < map->capacity; i++) {
        const struct state_entry *entry = map->slots[i].entry;
        if (entry && entry->bytes[0] == name_space)
            visit(context, slice_skip(entry_key(entry), 1), entry_value(entry));
    }
    pthread_mutex_unlock(&map->mutex);
}

int state_find(struct state_map *map, uint8_t name_space, struct slice key, void *ret_value,
               size_t room) {
    uint8_t bytes[ENTRY_KEY_MAX];
    struct slice full = full_key(name_space, key, bytes);
    uint32_t hash = (uint32_t)hash_bytes(full.data, full.size);
    int size = DG_ERR_NOT_FOUND;
    pthread_mutex_lock(&map->mutex);
    const struct state_entry *entry = map->capacity > 0 ? find_slot(map, full, hash)->entry : NULL;
    if (entry) {
        struct slice value = entry_value(entry);
        size = (int)value.size;
        memcpy(ret_value, value.data, value.size < room ? value.size : room);
    }
    pthread_mutex_unlock(&map->mutex);
    return size;
}

void state_write(struct state_map *map, struct writer *w) {
    for (uint32_t i = 0; i < map->capacity; i++) {
        const struct state_entry *entry = map->slots[i].entry;
        if (!entry)
            continue;
        writer_bytes(w, &entry->lsn, sizeof(entry->lsn));
        mutation_write(w, &(struct stream_mutation){
                              .name_space = entry->bytes[0],
                              .key = slice_skip(entry_key(entry), 1),
                              .value = entry_value(entry),
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
