/*
 * Verification and dump of a store at rest. The formats and their rules are those of journal.c,
 * checkpoint.c and segment.c; what recovery would do is followed without changing anything: the
 * newest segment counts up to the checkpoint's length, its last block is the checkpoint's, what
 * comes after is in the journal.
 */
#include "storage/verify.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "storage/local/checkpoint.h"
#include "storage/local/journal.h"
#include "storage/local/partition.h"
#include "storage/local/scan.h"
#include "storage/local/store.h"

struct verify_partition {
    UT_hash_handle hh;
    struct partition_key key;
    struct storage_partition_report report;
    int64_t next_offset;
    uint64_t discard_lsn;
};

struct verify {
    const char *directory;
    int lock_fd;
    struct format_store store;
    struct checkpoint checkpoint;
    struct journal journal;
    struct verify_partition *partitions;
    const struct storage_report *report; /* NULL: dump */
    const struct storage_dump_filter *filter;
    storage_record_fn *visit;
    void *context;
    uint64_t visited;
    bool damaged;
};

static void damage(struct verify *verify, const char *path, uint64_t position, const char *what) {
    verify->damaged = true;
    if (verify->report)
        verify->report->damage(verify->report->context, path, position, what);
}

static struct verify_partition *partition_entry(struct verify *verify, uint64_t stream_id,
                                                uint32_t number) {
    struct partition_key key = {.stream_id = stream_id, .number = number};
    struct verify_partition *entry;
    HASH_FIND(hh, verify->partitions, &key, sizeof(key), entry);
    if (entry || !(entry = calloc(1, sizeof(*entry))))
        return entry;
    entry->key = key;
    entry->report.stream_id = stream_id;
    entry->report.partition = number;
    HASH_ADD(hh, verify->partitions, key, sizeof(key), entry);
    return entry;
}

/* ---- dumping ------------------------------------------------------------------------------------
 */

static bool wants_partition(const struct storage_dump_filter *filter,
                            const struct partition_key *key) {
    return (!filter->has_stream || filter->stream_id == key->stream_id) &&
           (!filter->has_partition || filter->partition == key->number);
}

static bool dump_is_done(const struct verify *verify) {
    return verify->filter && verify->filter->limit > 0 && verify->visited >= verify->filter->limit;
}

static void dump_records(struct verify *verify, const struct verify_partition *partition,
                         const struct record_batch *batch, struct slice bytes) {
    struct reader records = reader_make(bytes.data, bytes.size);
    for (uint32_t i = 0; i < batch->record_count && !dump_is_done(verify); i++) {
        struct record record;
        if (record_read(batch, &records, &record) < 0) {
            verify->damaged = true;
            return;
        }
        if (record.offset < partition->report.log_start)
            continue;
        verify->visited++;
        verify->visit(verify->context, partition->key.stream_id, partition->key.number, &record);
    }
}

static void dump_batch(struct verify *verify, const struct verify_partition *partition,
                       const struct record_batch *batch) {
    struct slice records;
    uint8_t *owned;
    if (!verify->visit || !wants_partition(verify->filter, &partition->key))
        return;
    if (record_batch_expand(batch, &records, &owned) < 0) {
        verify->damaged = true;
        return;
    }
    dump_records(verify, partition, batch, records);
    free(owned);
}

/* ---- segments -----------------------------------------------------------------------------------
 */

struct segment_visit {
    struct verify *verify;
    struct verify_partition *partition;
    const char *path;
    bool after_damage; /* just told: that records are missing behind it is no news */
};

/* One batch of a segment. NULL or what is wrong with it. */
static const char *visit_batch(void *context, const struct record_batch *batch) {
    struct segment_visit *visit = context;
    struct verify_partition *partition = visit->partition;
    bool follows = batch->base_offset == partition->next_offset ||
                   (visit->after_damage && batch->base_offset > partition->next_offset);
    bool repeats = batch->base_offset < partition->next_offset;
    visit->after_damage = false;
    if (!repeats) {
        partition->next_offset = batch->base_offset + batch->last_offset_delta + 1;
        partition->report.batch_count++;
        partition->report.record_count += batch->record_count;
        dump_batch(visit->verify, partition, batch);
    }
    return follows ? NULL : "the batch does not follow the one before";
}

static void visit_damage(void *context, uint64_t position, const char *what) {
    struct segment_visit *visit = context;
    visit->after_damage = true;
    damage(visit->verify, visit->path, position, what);
}

static void visit_progress(void *context, uint64_t read_bytes) {
    const struct verify *verify = ((struct segment_visit *)context)->verify;
    if (verify->report && verify->report->progress)
        verify->report->progress(verify->report->context, read_bytes);
}

static void verify_segment(struct verify *verify, struct verify_partition *partition, int64_t base,
                           const struct format_partition *row) {
    char path[STORE_PATH_SIZE];
    snprintf(path, sizeof(path), "%s/%" PRIu64 "/%" PRIu32 "/%020" PRId64 ".log", verify->directory,
             row->stream_id, row->partition, base);
    struct segment_visit visit = {.verify = verify, .partition = partition, .path = path};
    const struct scan_visitor visitor = {visit_batch, visit_damage, visit_progress, &visit};
    bool newest = base == row->segment_base;
    struct scan_range range = {
        .limit_bytes = newest ? row->segment_position : UINT64_MAX,
        .last_block = newest ? verify->checkpoint.last_block : NULL,
    };
    if (partition->report.segment_count > 0 && base != partition->next_offset)
        damage(verify, path, 0, "the segment does not follow the one before");
    partition->next_offset = base;
    partition->report.size_bytes += scan_segment(path, &range, &visitor);
    partition->report.segment_count++;
}

static int verify_partition_files(struct verify *verify, const struct format_partition *row) {
    struct verify_partition *partition = partition_entry(verify, row->stream_id, row->partition);
    int64_t *bases;
    uint32_t count;
    if (!partition)
        return DG_ERR_NO_MEMORY;
    partition->report.log_start = row->log_start;
    partition->discard_lsn = row->discard_lsn;
    char path[STORE_PATH_SIZE];
    snprintf(path, sizeof(path), "%s/%" PRIu64 "/%" PRIu32, verify->directory, row->stream_id,
             row->partition);
    bool wanted = !verify->filter || wants_partition(verify->filter, &partition->key);
    if (wanted && scan_directory(path, &bases, &count) < 0) {
        damage(verify, path, 0, "the directory cannot be read");
    } else if (wanted) {
        if (count > 0 && bases[0] > row->log_start)
            damage(verify, path, 0, "the log start is in no segment");
        for (uint32_t i = 0; i < count && !dump_is_done(verify); i++)
            if (bases[i] <= row->segment_base)
                verify_segment(verify, partition, bases[i], row);
        free(bases);
        if (!dump_is_done(verify) && partition->next_offset != row->next_offset)
            damage(verify, path, 0, "the segments do not end where the checkpoint says");
    }
    partition->next_offset = row->next_offset;
    return 0;
}

/* ---- journal ------------------------------------------------------------------------------------
 */

static void verify_log_start(struct verify *verify, const struct stream_mutation *mutation) {
    struct log_start_key key = {0};
    int64_t start;
    if (mutation->name_space != STATE_LOG_START || mutation->key.size != LOG_START_KEY_SIZE ||
        mutation->value.size != sizeof(start))
        return;
    memcpy(&key, mutation->key.data, LOG_START_KEY_SIZE);
    memcpy(&start, mutation->value.data, sizeof(start));
    struct verify_partition *partition = partition_entry(verify, key.stream_id, key.partition);
    if (partition && start > partition->report.log_start)
        partition->report.log_start = start;
}

static const char *verify_unit(struct verify *verify, struct reader *r, uint64_t lsn) {
    struct format_unit unit = {0};
    const uint8_t *at = reader_take(r, sizeof(unit));
    if (at)
        memcpy(&unit, at, sizeof(unit));
    struct slice bytes = reader_slice(r, unit.batch_bytes);
    struct slice mutations = reader_slice(r, unit.mutation_bytes);
    if (r->failed)
        return "a unit of the group is cut off";
    struct reader m = reader_make(mutations.data, mutations.size);
    struct stream_mutation mutation;
    for (uint32_t i = 0; i < unit.mutation_count && mutation_read(&m, &mutation) == 0; i++)
        verify_log_start(verify, &mutation);
    if (m.failed)
        return "a mutation of the group is malformed";
    if (bytes.size == 0)
        return NULL;
    struct verify_partition *partition = partition_entry(verify, unit.stream_id, unit.partition);
    if (partition && lsn < partition->discard_lsn)
        return NULL;
    struct reader b = reader_make(bytes.data, bytes.size);
    struct record_batch batch;
    if (!partition || record_batch_read(&b, true, &batch) < 0)
        return "a batch of the group is not valid";
    if (batch.base_offset != partition->next_offset)
        return "a batch of the group does not follow the one before";
    partition->next_offset += batch.last_offset_delta + 1;
    partition->report.journal_record_count += batch.record_count;
    dump_batch(verify, partition, &batch);
    return NULL;
}

static void verify_group(struct verify *verify, const struct journal_group *group) {
    struct reader r = reader_make(group->payload.data, group->payload.size);
    const char *what = NULL;
    for (uint32_t i = 0; i < group->unit_count && !what; i++)
        what = verify_unit(verify, &r, group->lsn);
    if (what)
        damage(verify, verify->journal.path, group->lsn % verify->journal.size_bytes, what);
}

static int verify_journal(struct verify *verify) {
    uint64_t lsn = verify->checkpoint.header.lsn;
    uint32_t crc = verify->checkpoint.header.previous_crc;
    struct storage_journal_report report = {.size_bytes = verify->journal.size_bytes,
                                            .checkpoint_lsn = lsn};
    struct journal_group group;
    int err;
    while ((err = journal_read(&verify->journal, lsn, crc, &group)) == 0) {
        verify_group(verify, &group);
        lsn = group.next_lsn;
        crc = group.crc;
        report.group_count++;
    }
    uint64_t later;
    if (err == DG_ERR_NOT_FOUND)
        err = journal_find_later(&verify->journal, lsn, &later);
    if (err == 0)
        damage(verify, verify->journal.path, lsn % verify->journal.size_bytes,
               "the group is not valid, but a later one is");
    report.end_lsn = lsn;
    if (verify->report)
        verify->report->journal(verify->report->context, &report);
    return err == DG_ERR_NOT_FOUND ? 0 : err;
}

/* ---- the whole ----------------------------------------------------------------------------------
 */

static int fail(const struct verify *verify, int err, const char *file, char *ret_error) {
    snprintf(ret_error, STORAGE_ERROR_SIZE, "%.300s/%s: %s", verify->directory, file,
             dg_err_text(err));
    return err;
}

/* A gateway that has the store open changes it meanwhile, and none may begin to. */
static int take_lock(struct verify *verify, char *ret_error) {
    char path[STORE_PATH_SIZE];
    snprintf(path, sizeof(path), "%s/lock", verify->directory);
    verify->lock_fd = file_open(path, O_RDONLY);
    if (verify->lock_fd < 0 || flock(verify->lock_fd, LOCK_SH | LOCK_NB) == 0)
        return 0; /* a copy need not have the file */
    snprintf(ret_error, STORAGE_ERROR_SIZE, "%.300s is in use by another process",
             verify->directory);
    return DG_ERR_BUSY;
}

static int run(struct verify *verify, char *ret_error) {
    int err = take_lock(verify, ret_error);
    if (err < 0)
        return err;
    err = store_read_format(verify->directory, &verify->store);
    if (err < 0)
        return fail(verify, err, "format", ret_error);
    err = checkpoint_load(verify->directory, verify->store.secret, &verify->checkpoint);
    if (err < 0)
        return fail(verify, err, "checkpoint", ret_error);
    err = journal_open_for_reading(&verify->journal, verify->directory,
                                   verify->store.journal_size_bytes, verify->store.secret);
    if (err < 0)
        return fail(verify, err, "journal", ret_error);
    struct format_partition row;
    while (err == 0 && checkpoint_next_partition(&verify->checkpoint, &row) == 0)
        err = verify_partition_files(verify, &row);
    if (err == 0 && !dump_is_done(verify))
        err = verify_journal(verify);
    return err < 0 ? fail(verify, err, "journal", ret_error) : verify->damaged ? DG_ERR_CORRUPT : 0;
}

static int compare_entries(struct verify_partition *a, struct verify_partition *b) {
    if (a->key.stream_id != b->key.stream_id)
        return a->key.stream_id < b->key.stream_id ? -1 : 1;
    return a->key.number < b->key.number ? -1 : a->key.number > b->key.number;
}

static void finish(struct verify *verify) {
    struct verify_partition *partition, *next;
    HASH_SORT(verify->partitions, compare_entries);
    HASH_ITER(hh, verify->partitions, partition, next) {
        partition->report.end = partition->next_offset;
        if (verify->report)
            verify->report->partition(verify->report->context, &partition->report);
        HASH_DEL(verify->partitions, partition);
        free(partition);
    }
    checkpoint_free(&verify->checkpoint);
    journal_close(&verify->journal);
    file_close(verify->lock_fd);
}

int storage_verify(const char *directory, const struct storage_report *report, char *ret_error) {
    struct verify verify = {
        .directory = directory, .report = report, .lock_fd = -1, .journal.fd = -1};
    ret_error[0] = '\0';
    int err = run(&verify, ret_error);
    finish(&verify);
    return err;
}

int storage_dump(const char *directory, const struct storage_dump_filter *filter,
                 storage_record_fn *visit, void *context, char *ret_error) {
    struct verify verify = {.directory = directory,
                            .filter = filter,
                            .visit = visit,
                            .context = context,
                            .lock_fd = -1,
                            .journal.fd = -1};
    ret_error[0] = '\0';
    int err = run(&verify, ret_error);
    finish(&verify);
    return err;
}
