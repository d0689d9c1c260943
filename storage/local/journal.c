/*
 * The journal is one file of fixed size, zero-filled when it is made, used as a ring. An LSN counts
 * bytes and never wraps; the group at LSN l begins at file position l mod size. A group:
 *
 *     struct format_group | unit ... | zeros up to the next block of 4 KiB
 *     unit: struct format_unit | record batch | mutations
 *
 * It begins on a block and never wraps: one that does not fit before the end of the ring begins at
 * the next multiple of the size.
 *
 * Valid: magic, version and store secret agree, the LSN is the expected one, previous_crc is the
 * CRC of the group before, lengths are within bounds, the CRC over header and payload agrees. The
 * secret is random per store, so no payload can look like a group.
 *
 * Recovery (recovery.c): read valid groups from the checkpoint's LSN on. At the first invalid one:
 * if any block of the ring holds a valid group with a greater LSN, acknowledged data is damaged and
 * the store is refused; else it is the torn last group, of which nothing was acknowledged, and it
 * is cleared. At most one written but unsynced group exists, so nothing else can be torn.
 */
#include "storage/local/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/crc32c.h"
#include "common/sys.h"
#include "storage/local/segment.h"
#include "storage/record.h"

static const char GROUP_MAGIC[8] = {'D', 'G', 'G', 'R', 'O', 'U', 'P', '1'};

static uint64_t round_up(uint64_t value, uint64_t step) {
    return (value + step - 1) / step * step;
}

/* ---- file ---------------------------------------------------------------------------------------
 */

static int fill_with_zeros(int fd, uint64_t size_bytes) {
    enum { STEP = 1024 * 1024 };
    uint8_t *zeros = calloc(1, STEP);
    if (!zeros)
        return ENOMEM;
    int error = sys.fallocate(fd, 0, 0, (off_t)size_bytes) != 0 && errno != EOPNOTSUPP ? errno : 0;
    for (uint64_t at = 0; at < size_bytes && error == 0; at += STEP)
        error = file_write(fd, zeros, size_bytes - at < STEP ? size_bytes - at : STEP, (off_t)at);
    if (error == 0 && sys.fsync(fd) != 0)
        error = errno;
    free(zeros);
    return error;
}

int journal_create(const char *directory, uint64_t size_bytes) {
    char path[STORE_PATH_SIZE];
    snprintf(path, sizeof(path), "%s/journal", directory);
    int fd = file_open(path, O_RDWR | O_CREAT | O_TRUNC);
    if (fd < 0)
        return errno;
    int error = fill_with_zeros(fd, size_bytes);
    file_close(fd);
    return error ? error : file_sync_directory(directory);
}

static int open_file(struct journal *journal) {
    journal->fd = file_open(journal->path, O_RDWR | O_DIRECT | O_DSYNC);
    journal->direct = journal->fd >= 0;
    if (journal->fd < 0 && errno == EINVAL)
        journal->fd = file_open(journal->path, O_RDWR);
    if (journal->fd < 0)
        return DG_ERR_IO;
    /* What an earlier process left in the page cache is not what is on disk until this succeeds. */
    struct stat status;
    if (sys.fsync(journal->fd) != 0 || sys.fstat(journal->fd, &status) != 0)
        return DG_ERR_IO;
    sys.fadvise(journal->fd, 0, 0, POSIX_FADV_DONTNEED);
    return (uint64_t)status.st_size == journal->size_bytes ? 0 : DG_ERR_CORRUPT;
}

static int prepare(struct journal *journal, const char *directory, uint64_t size_bytes,
                   const uint8_t *secret) {
    *journal = (struct journal){.fd = -1, .size_bytes = size_bytes};
    snprintf(journal->path, sizeof(journal->path), "%s/journal", directory);
    memcpy(journal->secret, secret, FORMAT_SECRET_SIZE);
    journal->buffer = aligned_alloc(FORMAT_BLOCK, LIMIT_GROUP_BYTES);
    if (!journal->buffer)
        return DG_ERR_NO_MEMORY;
    memset(journal->buffer, 0, LIMIT_GROUP_BYTES);
    return 0;
}

int journal_open(struct journal *journal, const char *directory, uint64_t size_bytes,
                 const uint8_t *secret) {
    int err = prepare(journal, directory, size_bytes, secret);
    return err < 0 ? err : open_file(journal);
}

int journal_open_for_reading(struct journal *journal, const char *directory, uint64_t size_bytes,
                             const uint8_t *secret) {
    int err = prepare(journal, directory, size_bytes, secret);
    if (err < 0)
        return err;
    journal->fd = file_open(journal->path, O_RDONLY);
    struct stat status;
    if (journal->fd < 0 || sys.fstat(journal->fd, &status) != 0)
        return DG_ERR_IO;
    return (uint64_t)status.st_size == size_bytes ? 0 : DG_ERR_CORRUPT;
}

void journal_close(struct journal *journal) {
    file_close(journal->fd);
    free(journal->buffer);
    journal->buffer = NULL;
    journal->fd = -1;
}

/* ---- writing: committer -------------------------------------------------------------------------
 */

uint32_t journal_group_max(const struct journal *journal) {
    uint64_t quarter = journal->size_bytes / 4 / FORMAT_BLOCK * FORMAT_BLOCK;
    return quarter < LIMIT_GROUP_BYTES ? (uint32_t)quarter : LIMIT_GROUP_BYTES;
}

/* Where a group of so many bytes would begin. */
static uint64_t lsn_for(const struct journal *journal, uint64_t lsn, uint32_t bytes) {
    uint64_t position = lsn % journal->size_bytes;
    return position + bytes > journal->size_bytes ? round_up(lsn, journal->size_bytes) : lsn;
}

bool journal_has_room(const struct journal *journal, uint32_t bytes) {
    uint64_t end = lsn_for(journal, journal->head_lsn, bytes) + bytes;
    uint64_t tail = atomic_load_explicit(&journal->tail_lsn, memory_order_acquire);
    return end - tail <= journal->size_bytes;
}

void journal_begin(struct journal *journal) {
    journal->filled_bytes = sizeof(struct format_group);
    journal->unit_count = 0;
    journal->payload_crc = 0;
}

static void put(struct journal *journal, const void *data, uint32_t size) {
    memcpy(journal->buffer + journal->filled_bytes, data, size);
    journal->filled_bytes += size;
}

static void put_covered(struct journal *journal, const void *data, uint32_t size) {
    journal->payload_crc = crc32c_update(journal->payload_crc, data, size);
    put(journal, data, size);
}

/* The body was read once for the batch's CRC and is not read again: CRCs of parts combine. */
static void put_batch(struct journal *journal, const struct batch *batch) {
    uint32_t body = batch->size_bytes - RECORD_BATCH_HEADER_SIZE;
    put_covered(journal, batch->chunk->data, RECORD_BATCH_HEADER_SIZE);
    journal->payload_crc = crc32c_combine(journal->payload_crc, batch->body_crc, body);
    put(journal, batch->chunk->data + RECORD_BATCH_HEADER_SIZE, body);
}

bool journal_fits(const struct journal *journal, const struct unit *unit) {
    return journal->filled_bytes + unit_bytes(unit) <= journal_group_max(journal);
}

void journal_add(struct journal *journal, const struct unit *unit) {
    bool has_batch = unit->batch.record_count > 0;
    const struct segment *segment = unit_segment(unit);
    dg_assert(journal_fits(journal, unit));
    struct format_unit header = {
        .stream_id = unit->stream_id,
        .partition = unit->partition_number,
        .batch_bytes = has_batch ? unit->batch.size_bytes : 0,
        .segment_base = segment ? segment->base_offset : -1,
        .segment_position = has_batch ? unit->position : 0,
        .record_count = unit->batch.record_count,
        .mutation_count = unit->mutation_count,
        .mutation_bytes = unit->mutation_bytes,
        .segment_created_ms = segment ? segment->created_ms : 0,
    };
    put_covered(journal, &header, sizeof(header));
    if (has_batch)
        put_batch(journal, &unit->batch);
    if (unit->mutation_bytes > 0)
        put_covered(journal, unit->mutations, unit->mutation_bytes);
    journal->unit_count++;
}

static uint32_t group_crc(const struct format_group *header, uint32_t payload_crc) {
    struct format_group copy = *header;
    copy.crc = 0;
    uint32_t crc = crc32c_update(0, &copy, sizeof(copy));
    return crc32c_combine(crc, payload_crc, header->payload_bytes);
}

static uint64_t finish_header(struct journal *journal, uint32_t bytes, uint64_t wall_ms) {
    struct format_group header = {
        .version = FORMAT_VERSION,
        .lsn = lsn_for(journal, journal->head_lsn, bytes),
        .payload_bytes = journal->filled_bytes - (uint32_t)sizeof(header),
        .unit_count = journal->unit_count,
        .previous_crc = journal->previous_crc,
        .wall_ms = wall_ms,
    };
    memcpy(header.magic, GROUP_MAGIC, sizeof(header.magic));
    memcpy(header.secret, journal->secret, sizeof(header.secret));
    header.crc = group_crc(&header, journal->payload_crc);
    journal->previous_crc = header.crc;
    memcpy(journal->buffer, &header, sizeof(header));
    return header.lsn;
}

uint64_t journal_write(struct journal *journal, uint64_t wall_ms) {
    uint32_t bytes = journal_group_bytes(journal);
    dg_assert(journal->unit_count > 0 && journal_has_room(journal, bytes));
    memset(journal->buffer + journal->filled_bytes, 0, bytes - journal->filled_bytes);
    uint64_t lsn = finish_header(journal, bytes, wall_ms);
    off_t position = (off_t)(lsn % journal->size_bytes);
    int error = file_write(journal->fd, journal->buffer, bytes, position);
    if (error)
        storage_die("pwrite", journal->path, error);
    if (!journal->direct && (error = file_sync_data(journal->fd)))
        storage_die("fdatasync", journal->path, error);
    journal->head_lsn = lsn + bytes;
    return lsn;
}

/* ---- recovery -----------------------------------------------------------------------------------
 */

static bool header_is_ours(const struct journal *journal, const struct format_group *header) {
    return memcmp(header->magic, GROUP_MAGIC, sizeof(header->magic)) == 0 &&
           header->version == FORMAT_VERSION &&
           memcmp(header->secret, journal->secret, FORMAT_SECRET_SIZE) == 0 &&
           header->lsn % FORMAT_BLOCK == 0 &&
           header->payload_bytes <= LIMIT_GROUP_BYTES - sizeof(*header) &&
           header->lsn % journal->size_bytes + sizeof(*header) + header->payload_bytes <=
               journal->size_bytes;
}

/* Reads the group at a file position into the buffer and checks it whole. */
static int read_group(struct journal *journal, uint64_t position, struct format_group *ret_header) {
    if (file_read(journal->fd, journal->buffer, FORMAT_BLOCK, (off_t)position) != FORMAT_BLOCK)
        return DG_ERR_IO;
    struct format_group header;
    memcpy(&header, journal->buffer, sizeof(header));
    if (!header_is_ours(journal, &header) || header.lsn % journal->size_bytes != position)
        return DG_ERR_NOT_FOUND;
    uint64_t bytes = round_up(sizeof(header) + header.payload_bytes, FORMAT_BLOCK);
    if (file_read(journal->fd, journal->buffer, bytes, (off_t)position) != (ssize_t)bytes)
        return DG_ERR_IO;
    uint32_t payload_crc = crc32c_update(0, journal->buffer + sizeof(header), header.payload_bytes);
    if (group_crc(&header, payload_crc) != header.crc)
        return DG_ERR_NOT_FOUND;
    *ret_header = header;
    return 0;
}

int journal_read(struct journal *journal, uint64_t lsn, uint32_t previous_crc,
                 struct journal_group *ret_group) {
    struct format_group header;
    int err = read_group(journal, lsn % journal->size_bytes, &header);
    if (err == 0 && (header.lsn != lsn || header.previous_crc != previous_crc))
        err = DG_ERR_NOT_FOUND;
    uint64_t wrapped = round_up(lsn, journal->size_bytes);
    if (err == DG_ERR_NOT_FOUND && wrapped != lsn) {
        err = read_group(journal, 0, &header);
        if (err == 0 && (header.lsn != wrapped || header.previous_crc != previous_crc))
            err = DG_ERR_NOT_FOUND;
    }
    if (err < 0)
        return err;
    *ret_group = (struct journal_group){
        .lsn = header.lsn,
        .next_lsn = header.lsn + round_up(sizeof(header) + header.payload_bytes, FORMAT_BLOCK),
        .crc = header.crc,
        .unit_count = header.unit_count,
        .wall_ms = header.wall_ms,
        .payload = slice_make(journal->buffer + sizeof(header), header.payload_bytes),
    };
    return 0;
}

/* Positions of blocks that look like a later group are checked one by one after their chunk. */
static int scan_chunk(struct journal *journal, uint8_t *chunk, uint64_t at, size_t size,
                      uint64_t lsn, uint64_t *ret_lsn) {
    for (size_t block = 0; block + FORMAT_BLOCK <= size; block += FORMAT_BLOCK) {
        struct format_group header;
        memcpy(&header, chunk + block, sizeof(header));
        if (!header_is_ours(journal, &header) || header.lsn < lsn)
            continue;
        int err = read_group(journal, at + block, &header);
        if (err == DG_ERR_NOT_FOUND)
            continue;
        if (err == 0)
            *ret_lsn = header.lsn;
        return err;
    }
    return DG_ERR_NOT_FOUND;
}

int journal_find_later(struct journal *journal, uint64_t lsn, uint64_t *ret_lsn) {
    enum { STEP = 1024 * 1024 };
    uint8_t *chunk = aligned_alloc(FORMAT_BLOCK, STEP);
    int err = chunk ? DG_ERR_NOT_FOUND : DG_ERR_NO_MEMORY;
    for (uint64_t at = 0; at < journal->size_bytes && err == DG_ERR_NOT_FOUND; at += STEP) {
        ssize_t size = file_read(journal->fd, chunk, STEP, (off_t)at);
        err = size < 0 ? DG_ERR_IO : scan_chunk(journal, chunk, at, (size_t)size, lsn, ret_lsn);
    }
    free(chunk);
    return err;
}

/* Zeros over [from, to), which does not wrap. */
static int clear(struct journal *journal, uint64_t from, uint64_t to) {
    return from < to ? file_write(journal->fd, journal->buffer, to - from,
                                  (off_t)(from % journal->size_bytes))
                     : 0;
}

static uint64_t smaller(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

/* A group never reaches into what is not free, so neither does this. */
int journal_clear_after(struct journal *journal, uint64_t lsn) {
    uint64_t bytes = journal_group_max(journal);
    uint64_t free_end = atomic_load(&journal->tail_lsn) + journal->size_bytes;
    uint64_t ring_end = round_up(lsn + 1, journal->size_bytes);
    memset(journal->buffer, 0, bytes);
    int error = clear(journal, lsn, smaller(smaller(lsn + bytes, ring_end), free_end));
    if (error == 0 && lsn + bytes > ring_end) /* it may have begun at the ring's start instead */
        error = clear(journal, ring_end, smaller(ring_end + bytes, free_end));
    if (error == 0 && !journal->direct)
        error = file_sync_data(journal->fd);
    return error;
}
