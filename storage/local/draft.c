/* The layout is checkpoint.c's; what is not changed is copied as it lies. */
#include "storage/local/draft.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/crc32c.h"
#include "common/limits.h"
#include "storage/local/file.h"

static int load_partitions(struct draft *draft) {
    struct checkpoint *loaded = &draft->loaded;
    uint32_t count = loaded->header.partition_count;
    draft->partitions = calloc((size_t)count + 1, sizeof(*draft->partitions));
    if (!draft->partitions)
        return DG_ERR_NO_MEMORY;
    for (uint32_t i = 0; i < count; i++) {
        struct draft_partition *partition = &draft->partitions[i];
        int err = checkpoint_next_partition(loaded, &partition->row);
        if (err < 0)
            return err;
        partition->last_block = loaded->last_block;
        draft->partition_count++;
    }
    return 0;
}

static int load_epochs(struct draft *draft) {
    struct checkpoint walk = draft->loaded;
    struct stream_mutation mutation;
    uint64_t lsn;
    int err;
    while ((err = checkpoint_next_state(&walk, &lsn, &mutation)) == 0) {
        if (mutation.name_space == STATE_EPOCH &&
            (err = epoch_table_load(&draft->epochs, mutation.key, mutation.value)) < 0)
            return err;
    }
    return err == DG_ERR_NOT_FOUND ? 0 : err;
}

int draft_load(const char *directory, const uint8_t *secret, struct draft *ret_draft) {
    struct draft draft = {0};
    int err = checkpoint_load(directory, secret, &draft.loaded);
    if (err < 0)
        return err;
    err = load_partitions(&draft);
    if (err == 0)
        err = load_epochs(&draft);
    if (err < 0) {
        draft_free(&draft);
        return err;
    }
    *ret_draft = draft;
    return 0;
}

void draft_free(struct draft *draft) {
    for (uint32_t i = 0; i < draft->partition_count; i++)
        free(draft->partitions[i].own_block);
    free(draft->partitions);
    draft->partitions = NULL;
    draft->partition_count = 0;
    epoch_table_free(&draft->epochs);
    checkpoint_free(&draft->loaded);
}

int draft_raise_epoch(struct draft *draft, int32_t epoch) {
    for (uint32_t i = 0; i < draft->partition_count; i++) {
        const struct format_partition *row = &draft->partitions[i].row;
        struct partition_key key = {.stream_id = row->stream_id, .number = row->partition};
        int err = epoch_table_raise(&draft->epochs, &key, epoch, row->next_offset);
        if (err < 0)
            return err;
    }
    draft->epochs.current = epoch;
    return 0;
}

int draft_cut(struct draft_partition *partition, const struct draft_end *end, const uint8_t *block,
              uint64_t discard_lsn) {
    uint8_t *own = malloc(FORMAT_BLOCK);
    if (!own)
        return DG_ERR_NO_MEMORY;
    struct format_partition *row = &partition->row;
    row->segment_base = end->segment_base;
    row->segment_created_ms = end->segment_created_ms;
    row->segment_position = end->segment_position;
    row->next_offset = end->next_offset;
    row->discard_lsn = discard_lsn;
    if (row->log_start > row->next_offset)
        row->log_start = row->next_offset;
    memcpy(own, block, format_last_block_bytes(row));
    free(partition->own_block);
    partition->last_block = partition->own_block = own;
    return 0;
}

/* ---- writing ------------------------------------------------------------------------------------
 */

struct encoding {
    struct writer w;
    uint64_t lsn;
    uint32_t count;
    size_t bytes; /* while counting */
};

static void count_epoch(void *context, struct slice key, struct slice value) {
    struct encoding *encoding = context;
    encoding->bytes += sizeof(struct format_state) + key.size + value.size;
}

static void write_state(struct encoding *encoding, uint64_t lsn,
                        const struct stream_mutation *mutation) {
    writer_bytes(&encoding->w, &lsn, sizeof(lsn));
    mutation_write(&encoding->w, mutation);
    encoding->count++;
}

static void write_epoch(void *context, struct slice key, struct slice value) {
    struct encoding *encoding = context;
    struct stream_mutation mutation = {.name_space = STATE_EPOCH, .key = key, .value = value};
    write_state(encoding, encoding->lsn, &mutation);
}

static void write_partitions(const struct draft *draft, struct writer *w) {
    for (uint32_t i = 0; i < draft->partition_count; i++)
        writer_bytes(w, &draft->partitions[i].row, sizeof(struct format_partition));
    for (uint32_t i = 0; i < draft->partition_count; i++)
        writer_bytes(w, draft->partitions[i].last_block,
                     format_last_block_bytes(&draft->partitions[i].row));
}

static void write_states(const struct draft *draft, struct encoding *encoding) {
    struct checkpoint walk = draft->loaded;
    struct stream_mutation mutation;
    uint64_t lsn;
    while (checkpoint_next_state(&walk, &lsn, &mutation) == 0)
        if (mutation.name_space != STATE_EPOCH)
            write_state(encoding, lsn, &mutation);
    epoch_table_visit(&draft->epochs, write_epoch, encoding);
}

static size_t size_bound(const struct draft *draft) {
    struct encoding counted = {0};
    epoch_table_visit(&draft->epochs, count_epoch, &counted);
    return draft->loaded.size_bytes + counted.bytes + (size_t)draft->partition_count * FORMAT_BLOCK;
}

int draft_save(const struct draft *draft, const char *directory, const uint8_t *secret) {
    size_t bound = size_bound(draft);
    uint8_t *data = malloc(bound);
    if (!data)
        return ENOMEM;
    struct format_checkpoint header = draft->loaded.header;
    struct encoding encoding = {.w = writer_make(data, bound), .lsn = header.lsn};
    struct writer *w = &encoding.w;
    writer_reserve(w, sizeof(header));
    write_partitions(draft, w);
    write_states(draft, &encoding);
    memcpy(header.secret, secret, FORMAT_SECRET_SIZE);
    header.state_count = encoding.count;
    header.total_bytes = writer_size(w) + sizeof(uint32_t);
    memcpy(data, &header, sizeof(header));
    uint32_t crc = crc32c_update(0, data, writer_size(w));
    writer_bytes(w, &crc, sizeof(crc));
    dg_assert(!w->failed);
    int error = writer_size(w) > LIMIT_CHECKPOINT_BYTES
                    ? EFBIG
                    : file_replace(directory, "checkpoint", data, writer_size(w));
    free(data);
    return error;
}
