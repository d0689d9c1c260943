/* Reading only; what is damaged is told by where the good part ends. */
#include "storage/local/examine.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/sys.h"
#include "storage/local/scan.h"

/* ---- one segment --------------------------------------------------------------------------------
 */

struct walk {
    const struct examination *examination;
    int64_t next_offset;
    uint64_t good_bytes; /* up to the first damage */
    bool is_damaged;
};

static const char *walk_batch(void *context, const struct record_batch *batch) {
    struct walk *walk = context;
    if (walk->is_damaged)
        return NULL;
    if (batch->base_offset != walk->next_offset)
        return "the batch does not follow the one before";
    walk->next_offset = batch->base_offset + batch->last_offset_delta + 1;
    walk->good_bytes += batch->size_bytes;
    return NULL;
}

static void walk_damage(void *context, uint64_t position, const char *what) {
    ((struct walk *)context)->is_damaged = true;
}

static void walk_progress(void *context, uint64_t read_bytes) {
    const struct examination *examination = ((struct walk *)context)->examination;
    if (examination->progress)
        examination->progress(examination->context, read_bytes);
}

static void segment_name(const struct examination *examination, const struct format_partition *row,
                         int64_t base, char *ret_path) {
    snprintf(ret_path, STORE_PATH_SIZE, "%s/%" PRIu64 "/%" PRIu32 "/%020" PRId64 ".log",
             examination->directory, row->stream_id, row->partition, base);
}

static struct walk walk_segment(const struct examination *examination,
                                const struct format_partition *row, int64_t base,
                                const struct scan_range *range) {
    char path[STORE_PATH_SIZE];
    struct walk walk = {.examination = examination, .next_offset = base};
    const struct scan_visitor visitor = {
        .batch = walk_batch, .damage = walk_damage, .progress = walk_progress, .context = &walk};
    segment_name(examination, row, base, path);
    scan_segment(path, range, &visitor);
    return walk;
}

/* ---- a partition --------------------------------------------------------------------------------
 */

/* Complete segments: behind the last one that is damaged, or that the next does not follow, the
 * partition is whole. */
static void examine_complete(const struct examination *examination,
                             const struct format_partition *row,
                             struct partition_finding *finding) {
    static const struct scan_range whole = {.limit_bytes = UINT64_MAX};
    for (uint32_t i = 0; i < finding->count; i++) {
        int64_t base = finding->bases[i];
        int64_t next = i + 1 < finding->count ? finding->bases[i + 1] : row->segment_base;
        if (base >= row->segment_base || next <= row->log_start)
            continue;
        struct walk walk = walk_segment(examination, row, base, &whole);
        if (walk.is_damaged || walk.next_offset != next)
            finding->log_start = next;
    }
    int64_t first = finding->count > 0 ? finding->bases[0] : row->segment_base;
    if (first > finding->log_start)
        finding->log_start = first;
}

static bool read_file(const struct examination *examination, const struct format_partition *row,
                      uint32_t position, uint32_t size, uint8_t *ret_bytes) {
    char path[STORE_PATH_SIZE];
    segment_name(examination, row, row->segment_base, path);
    int fd = file_open(path, O_RDONLY);
    bool good = fd >= 0 && file_read(fd, ret_bytes, size, position) == (ssize_t)size;
    file_close(fd);
    return good;
}

/* The bytes before the position in its block, as the scan has seen them. */
static bool read_block(const struct examination *examination,
                       const struct draft_partition *partition, uint32_t position,
                       uint8_t *ret_block) {
    const struct format_partition *row = &partition->row;
    uint32_t size = position % FORMAT_BLOCK, start = position - size;
    if (start == row->segment_position - format_last_block_bytes(row)) {
        memcpy(ret_block, partition->last_block, size);
        return true;
    }
    return size == 0 || read_file(examination, row, start, size, ret_block);
}

static int examine_newest(const struct examination *examination,
                          const struct draft_partition *partition,
                          struct partition_finding *finding) {
    const struct format_partition *row = &partition->row;
    struct scan_range range = {.limit_bytes = row->segment_position,
                               .last_block = partition->last_block};
    bool is_there = finding->count > 0 && finding->bases[finding->count - 1] == row->segment_base;
    finding->newest_is_missing = !is_there;
    struct walk walk = {.next_offset = row->segment_base};
    if (is_there)
        walk = walk_segment(examination, row, row->segment_base, &range);
    finding->is_cut = !is_there || walk.is_damaged || walk.good_bytes != row->segment_position;
    if (finding->is_cut) {
        finding->end = (struct draft_end){.segment_base = row->segment_base,
                                          .segment_created_ms = row->segment_created_ms,
                                          .segment_position = (uint32_t)walk.good_bytes,
                                          .next_offset = walk.next_offset};
        return read_block(examination, partition, finding->end.segment_position, finding->block)
                   ? 0
                   : DG_ERR_IO;
    }
    uint8_t found[FORMAT_BLOCK];
    uint32_t size = format_last_block_bytes(row);
    finding->is_torn =
        size > 0 && (!read_file(examination, row, row->segment_position - size, size, found) ||
                     memcmp(found, partition->last_block, size) != 0);
    return 0;
}

int examine_partition(const struct examination *examination,
                      const struct draft_partition *partition,
                      struct partition_finding *ret_finding) {
    char path[STORE_PATH_SIZE];
    const struct format_partition *row = &partition->row;
    struct partition_finding finding = {.log_start = row->log_start};
    snprintf(path, sizeof(path), "%s/%" PRIu64 "/%" PRIu32, examination->directory, row->stream_id,
             row->partition);
    int err = scan_directory(path, &finding.bases, &finding.count);
    if (err < 0 && !(err == DG_ERR_IO && errno == ENOENT))
        return err;
    while (finding.count > 0 && finding.bases[finding.count - 1] > row->segment_base)
        finding.count--; /* of a roll that was not committed: the next start's affair */
    examine_complete(examination, row, &finding);
    err = examine_newest(examination, partition, &finding);
    if (err < 0)
        partition_finding_free(&finding);
    else
        *ret_finding = finding;
    return err;
}

void partition_finding_free(struct partition_finding *finding) {
    free(finding->bases);
    finding->bases = NULL;
}

/* ---- the journal --------------------------------------------------------------------------------
 */

static struct partition_end *end_of(struct journal_finding *finding, uint64_t stream_id,
                                    uint32_t number) {
    struct partition_key key = {.stream_id = stream_id, .number = number};
    struct partition_end *end;
    HASH_FIND(hh, finding->ends, &key, sizeof(key), end);
    if (end || !(end = calloc(1, sizeof(*end))))
        return end;
    end->key = key;
    HASH_ADD(hh, finding->ends, key, sizeof(key), end);
    return end;
}

static int follow_unit(struct journal_finding *finding, struct reader *r, uint64_t lsn) {
    struct format_unit unit = {0};
    const uint8_t *at = reader_take(r, sizeof(unit));
    if (at)
        memcpy(&unit, at, sizeof(unit));
    reader_take(r, unit.batch_bytes);
    reader_take(r, unit.mutation_bytes);
    if (r->failed)
        return DG_ERR_CORRUPT;
    if (unit.batch_bytes == 0)
        return 0;
    struct partition_end *end = end_of(finding, unit.stream_id, unit.partition);
    if (!end)
        return DG_ERR_NO_MEMORY;
    if (lsn >= end->discard_lsn)
        end->next_offset += unit.record_count;
    return 0;
}

static int load_ends(const struct draft *draft, struct journal_finding *finding) {
    for (uint32_t i = 0; i < draft->partition_count; i++) {
        const struct format_partition *row = &draft->partitions[i].row;
        struct partition_end *end = end_of(finding, row->stream_id, row->partition);
        if (!end)
            return DG_ERR_NO_MEMORY;
        end->next_offset = row->next_offset;
        end->discard_lsn = row->discard_lsn;
    }
    return 0;
}

int examine_journal(struct journal *journal, const struct draft *draft,
                    struct journal_finding *ret_finding) {
    struct journal_finding finding = {.end_lsn = draft->loaded.header.lsn};
    uint32_t crc = draft->loaded.header.previous_crc;
    struct journal_group group;
    int err = load_ends(draft, &finding);
    while (err == 0 && (err = journal_read(journal, finding.end_lsn, crc, &group)) == 0) {
        struct reader r = reader_make(group.payload.data, group.payload.size);
        for (uint32_t i = 0; err == 0 && i < group.unit_count; i++)
            err = follow_unit(&finding, &r, group.lsn);
        finding.end_lsn = group.next_lsn;
        crc = group.crc;
    }
    uint64_t later;
    if (err == DG_ERR_NOT_FOUND &&
        (err = journal_find_later(journal, finding.end_lsn, &later)) == 0)
        finding.later_lsn = later;
    if (err < 0 && err != DG_ERR_NOT_FOUND) {
        journal_finding_free(&finding);
        return err;
    }
    *ret_finding = finding;
    return 0;
}

void journal_finding_free(struct journal_finding *finding) {
    struct partition_end *end, *next;
    HASH_ITER(hh, finding->ends, end, next) {
        HASH_DEL(finding->ends, end);
        free(end);
    }
}
