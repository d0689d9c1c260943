/* Histories by partition; their form in a checkpoint stands in the header, little-endian. */
#include "storage/local/epoch.h"

#include <stdlib.h>
#include <string.h>

#include "common/assert.h"

static const char CURRENT_KEY[] = "epoch";
enum { CURRENT_KEY_SIZE = sizeof(CURRENT_KEY) - 1 };

struct epoch_history {
    UT_hash_handle hh;
    struct partition_key key;
    uint32_t count;
    struct epoch_entry entries[EPOCH_HISTORY_MAX];
};

void epoch_table_free(struct epoch_table *table) {
    struct epoch_history *history, *next;
    HASH_ITER(hh, table->histories, history, next) {
        HASH_DEL(table->histories, history);
        free(history);
    }
}

static struct epoch_history *find(const struct epoch_table *table,
                                  const struct partition_key *key) {
    struct epoch_history *history;
    HASH_FIND(hh, table->histories, key, sizeof(*key), history);
    return history;
}

static struct epoch_history *obtain(struct epoch_table *table, const struct partition_key *key) {
    struct epoch_history *history = find(table, key);
    if (history || !(history = calloc(1, sizeof(*history))))
        return history;
    history->key = *key;
    HASH_ADD(hh, table->histories, key, sizeof(*key), history);
    return history;
}

static void add(struct epoch_history *history, struct epoch_entry entry) {
    if (history->count == EPOCH_HISTORY_MAX)
        memmove(history->entries, history->entries + 1,
                --history->count * sizeof(history->entries[0]));
    history->entries[history->count++] = entry;
}

/* ---- as it is stored ----------------------------------------------------------------------------
 */

static struct epoch_entry read_entry(const uint8_t *at) {
    uint32_t epoch;
    struct epoch_entry entry;
    memcpy(&epoch, at, sizeof(epoch));
    memcpy(&entry.first_offset, at + sizeof(epoch), sizeof(entry.first_offset));
    entry.epoch = (int32_t)epoch;
    return entry;
}

/* Epochs rise, offsets never go back. */
static bool is_valid(struct slice value) {
    struct epoch_entry before = {.epoch = -1};
    for (size_t at = 0; at < value.size; at += EPOCH_ENTRY_SIZE) {
        struct epoch_entry entry = read_entry(value.data + at);
        if (entry.epoch <= before.epoch || entry.first_offset < before.first_offset)
            return false;
        before = entry;
    }
    return value.size > 0;
}

int epoch_table_load(struct epoch_table *table, struct slice key, struct slice value) {
    if (key.size == CURRENT_KEY_SIZE && memcmp(key.data, CURRENT_KEY, CURRENT_KEY_SIZE) == 0) {
        uint32_t epoch;
        if (value.size != sizeof(epoch))
            return DG_ERR_CORRUPT;
        memcpy(&epoch, value.data, sizeof(epoch));
        table->current = (int32_t)epoch;
        return table->current < 0 ? DG_ERR_CORRUPT : 0;
    }
    struct partition_key place = {0};
    if (key.size != EPOCH_KEY_SIZE || value.size % EPOCH_ENTRY_SIZE != 0 ||
        value.size > (size_t)EPOCH_HISTORY_MAX * EPOCH_ENTRY_SIZE || !is_valid(value))
        return DG_ERR_CORRUPT;
    memcpy(&place, key.data, EPOCH_KEY_SIZE);
    struct epoch_history *history = obtain(table, &place);
    if (!history)
        return DG_ERR_NO_MEMORY;
    history->count = 0;
    for (size_t at = 0; at < value.size; at += EPOCH_ENTRY_SIZE)
        add(history, read_entry(value.data + at));
    return 0;
}

static void visit_history(const struct epoch_history *history, stream_state_fn *visit,
                          void *context) {
    uint8_t value[EPOCH_HISTORY_MAX * EPOCH_ENTRY_SIZE], *at = value;
    for (uint32_t i = 0; i < history->count; i++) {
        uint32_t epoch = (uint32_t)history->entries[i].epoch;
        memcpy(at, &epoch, sizeof(epoch));
        memcpy(at + sizeof(epoch), &history->entries[i].first_offset, sizeof(int64_t));
        at += EPOCH_ENTRY_SIZE;
    }
    visit(context, slice_make(&history->key, EPOCH_KEY_SIZE),
          slice_make(value, (size_t)(at - value)));
}

void epoch_table_visit(const struct epoch_table *table, stream_state_fn *visit, void *context) {
    const struct epoch_history *history, *next;
    uint32_t current = (uint32_t)table->current;
    if (current > 0)
        visit(context, slice_make(CURRENT_KEY, CURRENT_KEY_SIZE),
              slice_make(&current, sizeof(current)));
    HASH_ITER(hh, table->histories, history, next) {
        visit_history(history, visit, context);
    }
}

/* ---- what it says -------------------------------------------------------------------------------
 */

int epoch_table_raise(struct epoch_table *table, const struct partition_key *key, int32_t epoch,
                      int64_t next_offset) {
    dg_assert(epoch > table->current);
    struct epoch_history *history = obtain(table, key);
    if (!history)
        return DG_ERR_NO_MEMORY;
    if (history->count == 0 && table->current > 0)
        add(history, (struct epoch_entry){.epoch = table->current});
    /* what was cut off takes the epochs with it that had begun there */
    while (history->count > 0 && history->entries[history->count - 1].first_offset > next_offset)
        history->count--;
    add(history, (struct epoch_entry){.epoch = epoch, .first_offset = next_offset});
    return 0;
}

void epoch_table_end(const struct epoch_table *table, const struct partition_key *key,
                     int32_t epoch, int32_t *ret_epoch, int64_t *ret_end) {
    dg_assert(epoch >= 0 && epoch < table->current);
    const struct epoch_history *history = find(table, key);
    *ret_epoch = epoch; /* none of it is here: it ended where the partition begins */
    *ret_end = 0;
    uint32_t later = 0;
    while (history && later < history->count && history->entries[later].epoch <= epoch)
        later++;
    if (!history || later == history->count)
        return;
    *ret_epoch = later > 0 ? history->entries[later - 1].epoch : 0;
    *ret_end = history->entries[later].first_offset;
}
