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
};

/* The bytes at position, at least one whole batch unless the file ends before. */
static int fill(struct scan *scan, uint64_t position) {
    if (position >= scan->from && position + LIMIT_UNIT_BYTES <= scan->from + scan->size)
        return 0;
    uint64_t left = scan->limit - position;
    ssize_t count =
        file_read(scan->fd, scan->buffer, left < SCAN_BYTES ? left : SCAN_BYTES, (off_t)position);
    if (count < 0)
        return DG_ERR_IO;
    scan->from = position;
    scan->size = (size_t)count;
    return 0;
}

static int scan_batches(struct scan *scan, scan_batch_fn *visit, void *context,
                        struct scan_result *result) {
    while (result->position < scan->limit) {
        if (fill(scan, result->position) < 0) {
            result->what = "read error";
            return DG_ERR_IO;
        }
        size_t at = result->position - scan->from;
        struct reader r = reader_make(scan->buffer + at, scan->size - at);
        struct record_batch batch;
        if (record_batch_read(&r, true, &batch) < 0) {
            result->what = "the batch is not valid";
            return DG_ERR_CORRUPT;
        }
        if ((result->what = visit(context, &batch)))
            return DG_ERR_CORRUPT;
        result->position += batch.size_bytes;
    }
    return 0;
}

int scan_segment(const char *path, uint64_t limit_bytes, scan_batch_fn *visit, void *context,
                 struct scan_result *ret_result) {
    struct scan scan = {.fd = file_open(path, O_RDONLY), .buffer = malloc(SCAN_BYTES)};
    struct stat status;
    *ret_result = (struct scan_result){.what = "cannot be read"};
    int err = scan.buffer ? 0 : DG_ERR_NO_MEMORY;
    if (err == 0 && (scan.fd < 0 || sys.fstat(scan.fd, &status) != 0))
        err = DG_ERR_IO;
    if (err == 0) {
        scan.limit = limit_bytes == UINT64_MAX ? (uint64_t)status.st_size : limit_bytes;
        err = scan_batches(&scan, visit, context, ret_result);
    }
    file_close(scan.fd);
    free(scan.buffer);
    return err;
}
