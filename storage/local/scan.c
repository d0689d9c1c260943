/* Walking segment directories and files; the format is described in segment.c. */
#include "storage/local/scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "common/limits.h"
#include "common/sys.h"
#include "storage/local/file.h"
#include "storage/local/format.h"

/* "<20 digits>.log" or -1. */
static int64_t parse_name(const char *name) {
    char *end;
    if (strlen(name) != 24 || strcmp(name + 20, ".log") != 0 || name[0] < '0' || name[0] > '9')
        return -1;
    errno = 0;
    long long base = strtoll(name, &end, 10);
    return errno == 0 && end == name + 20 ? base : -1;
}

int scan_directory(const char *path, int64_t **ret_bases, uint32_t *ret_count) {
    struct dirent **entries = NULL;
    int count = scandir(path, &entries, NULL, alphasort);
    if (count < 0)
        return DG_ERR_IO;
    int64_t *bases = calloc((size_t)count + 1, sizeof(*bases));
    uint32_t found = 0;
    for (int i = 0; i < count; i++) {
        int64_t base = parse_name(entries[i]->d_name);
        if (bases && base >= 0)
            bases[found++] = base;
        free(entries[i]);
    }
    free(entries);
    if (!bases)
        return DG_ERR_NO_MEMORY;
    *ret_bases = bases;
    *ret_count = found;
    return 0;
}

enum { SCAN_BYTES = 2 * LIMIT_UNIT_BYTES };

struct scan {
    int fd;
    uint8_t *buffer; /* SCAN_BYTES */
    uint64_t from;   /* file position of the buffer */
    size_t size;
    uint64_t limit;
    uint64_t file_limit;       /* read from the file up to here */
    const uint8_t *last_block; /* ... and from here behind it */
    const struct scan_visitor *visitor;
};

/* The bytes at position, at least one whole batch unless the file ends before. */
static int fill(struct scan *scan, uint64_t position) {
    uint64_t end = scan->from + scan->size;
    if (position >= scan->from && (position + LIMIT_UNIT_BYTES <= end || end >= scan->limit))
        return 0;
    uint64_t until = position + SCAN_BYTES < scan->limit ? position + SCAN_BYTES : scan->limit;
    uint64_t in_file = until < scan->file_limit ? until : scan->file_limit;
    size_t wanted = in_file > position ? in_file - position : 0;
    ssize_t count = wanted > 0 ? file_read(scan->fd, scan->buffer, wanted, (off_t)position) : 0;
    if (count < 0)
        return DG_ERR_IO;
    scan->from = position;
    scan->size = (size_t)count;
    if (scan->size == wanted && until > in_file) {
        uint64_t start = position > in_file ? position : in_file;
        memcpy(scan->buffer + wanted, scan->last_block + (start - scan->file_limit), until - start);
        scan->size += until - start;
    }
    if (scan->visitor->progress)
        scan->visitor->progress(scan->visitor->context, scan->size);
    return 0;
}

/* DG_ERR_IO, DG_ERR_CORRUPT: no valid batch begins there. */
static int batch_at(struct scan *scan, uint64_t position, struct record_batch *ret_batch) {
    if (fill(scan, position) < 0)
        return DG_ERR_IO;
    uint64_t at = position - scan->from;
    if (at + RECORD_BATCH_HEADER_SIZE > scan->size || scan->buffer[at + 16] != RECORD_MAGIC)
        return DG_ERR_CORRUPT;
    struct reader r = reader_make(scan->buffer + at, scan->size - at);
    return record_batch_read(&r, true, ret_batch) < 0 ? DG_ERR_CORRUPT : 0;
}

/* Where the next valid batch begins behind a damaged one, or the end. A payload can hold bytes that
 * look like a batch: so the damaged one's own length is believed first. */
static uint64_t find_next(struct scan *scan, uint64_t position) {
    struct record_batch batch;
    const uint8_t *header = scan->buffer + (position - scan->from);
    if (position - scan->from + RECORD_BATCH_HEADER_SIZE <= scan->size) {
        struct reader r = reader_make(header + 8, 4);
        uint64_t next = position + 12 + reader_u32(&r);
        if (next < scan->limit && batch_at(scan, next, &batch) == 0)
            return next;
    }
    int err = DG_ERR_CORRUPT;
    while (err == DG_ERR_CORRUPT && ++position + RECORD_BATCH_HEADER_SIZE < scan->limit)
        err = batch_at(scan, position, &batch);
    return err == 0 ? position : scan->limit;
}

static uint64_t scan_batches(struct scan *scan) {
    const struct scan_visitor *visitor = scan->visitor;
    uint64_t position = 0;
    while (position < scan->limit) {
        struct record_batch batch;
        int err = batch_at(scan, position, &batch);
        const char *what = err == DG_ERR_IO ? "read error"
                           : err < 0        ? "the batch is not valid"
                                            : visitor->batch(visitor->context, &batch);
        if (what)
            visitor->damage(visitor->context, position, what);
        if (err == DG_ERR_IO)
            break;
        position = err < 0 ? find_next(scan, position) : position + batch.size_bytes;
    }
    return position;
}

static void set_limits(struct scan *scan, uint64_t file_bytes, const struct scan_range *range) {
    bool is_whole = file_bytes >= range->limit_bytes;
    scan->limit = scan->file_limit = is_whole ? range->limit_bytes : file_bytes;
    if (is_whole && range->last_block) {
        scan->file_limit -= scan->limit % FORMAT_BLOCK;
        scan->last_block = range->last_block;
    }
}

uint64_t scan_segment(const char *path, const struct scan_range *range,
                      const struct scan_visitor *visitor) {
    struct scan scan = {
        .fd = file_open(path, O_RDONLY), .buffer = malloc(SCAN_BYTES), .visitor = visitor};
    struct stat status;
    uint64_t position = 0;
    if (!scan.buffer || scan.fd < 0 || sys.fstat(scan.fd, &status) != 0) {
        visitor->damage(visitor->context, 0, "cannot be read");
    } else {
        set_limits(&scan, (uint64_t)status.st_size, range);
        position = scan_batches(&scan);
    }
    file_close(scan.fd);
    free(scan.buffer);
    return position;
}
