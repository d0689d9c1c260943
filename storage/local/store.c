/*
 * <directory>/format is struct format_store: magic, version, CRC, the store's random secret and the
 * journal's size. Valid: all of them agree. A directory without it is a new store if it is empty or
 * holds only what an interrupted creation leaves; anything else is refused, so that a wrong path
 * never becomes a store. Creation: journal, the directory's own name, checkpoint, and last the
 * format file, each synced.
 */
#include "storage/local/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/vfs.h>

#include "common/clock.h"
#include "common/crc32c.h"
#include "common/random.h"
#include "storage/local/file.h"
#include "storage/local/journal.h"

static const char STORE_MAGIC[8] = {'D', 'G', 'S', 'T', 'O', 'R', 'E', '1'};
static const char CHECKPOINT_MAGIC[8] = {'D', 'G', 'C', 'H', 'E', 'C', 'K', '1'};

/* File systems whose sync is not a promise about this machine's disk. */
static const struct {
    unsigned long type;
    const char *name;
} network_types[] = {
    {NFS_SUPER_MAGIC, "NFS"}, {0xff534d42, "CIFS"},     {0xfe534d42, "SMB2"},
    {SMB_SUPER_MAGIC, "SMB"}, {0x65735546, "FUSE"},     {V9FS_MAGIC, "9P"},
    {0x00c36400, "CephFS"},   {AFS_SUPER_MAGIC, "AFS"}, {CODA_SUPER_MAGIC, "Coda"},
    {0x0bd00bd0, "Lustre"},
};

static const char *network_name(int fd) {
    struct statfs status;
    if (fstatfs(fd, &status) != 0)
        return NULL;
    for (size_t i = 0; i < sizeof(network_types) / sizeof(network_types[0]); i++)
        if ((unsigned long)status.f_type == network_types[i].type)
            return network_types[i].name;
    return NULL;
}

static uint32_t store_crc(const struct format_store *store) {
    struct format_store copy = *store;
    copy.crc = 0;
    return crc32c_update(0, &copy, sizeof(copy));
}

int store_read_format(const char *directory, struct format_store *ret_store) {
    char path[STORE_PATH_SIZE];
    uint8_t *data;
    size_t size;
    struct format_store store = {0};
    snprintf(path, sizeof(path), "%s/format", directory);
    int err = file_load(path, 65536, &data, &size);
    if (err < 0)
        return err;
    if (size >= sizeof(store))
        memcpy(&store, data, sizeof(store));
    free(data);
    if (memcmp(store.magic, STORE_MAGIC, sizeof(store.magic)) != 0)
        return DG_ERR_CORRUPT;
    ret_store->version = store.version;
    if (store.version != FORMAT_VERSION && store.version != FORMAT_VERSION_EPOCHS)
        return DG_ERR_UNSUPPORTED_VERSION;
    if (size != sizeof(store) || store_crc(&store) != store.crc)
        return DG_ERR_CORRUPT;
    *ret_store = store;
    return 0;
}

int store_write_format(const char *directory, struct format_store *store) {
    memcpy(store->magic, STORE_MAGIC, sizeof(store->magic));
    store->crc = store_crc(store);
    return file_replace(directory, "format", store, sizeof(*store));
}

/* ---- creation -----------------------------------------------------------------------------------
 */

static bool may_be_left_over(const char *name) {
    static const char *const names[] = {".",
                                        "..",
                                        "lock",
                                        "journal",
                                        "checkpoint",
                                        "lost+found",
                                        "checkpoint.new",
                                        "format.new",
                                        "checkpoint.wanted"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static int check_is_empty(const char *directory, char *ret_error) {
    DIR *entries = opendir(directory);
    if (!entries)
        return DG_ERR_IO;
    int err = 0;
    struct dirent *entry;
    while (err == 0 && (entry = readdir(entries)))
        if (!may_be_left_over(entry->d_name)) {
            snprintf(ret_error, STREAM_ERROR_SIZE,
                     "%.300s is not empty (%.64s) and has no format file: not a store", directory,
                     entry->d_name);
            err = DG_ERR_INVALID;
        }
    closedir(entries);
    return err;
}

/* An empty checkpoint at LSN 0. */
static int write_first_checkpoint(const char *directory, const uint8_t *secret) {
    uint8_t data[sizeof(struct format_checkpoint) + 4];
    struct format_checkpoint header = {
        .version = FORMAT_VERSION,
        .total_bytes = sizeof(data),
        .wall_ms = (uint64_t)clock_wall_ms(),
    };
    memcpy(header.magic, CHECKPOINT_MAGIC, sizeof(header.magic));
    memcpy(header.secret, secret, FORMAT_SECRET_SIZE);
    memcpy(data, &header, sizeof(header));
    uint32_t crc = crc32c_update(0, data, sizeof(header));
    memcpy(data + sizeof(header), &crc, sizeof(crc));
    return file_replace(directory, "checkpoint", data, sizeof(data));
}

/* A parent that may not be read belongs to someone else, who made the directory. */
int store_sync_name(const char *directory) {
    char path[STORE_PATH_SIZE];
    snprintf(path, sizeof(path), "%s/..", directory);
    int error = file_sync_directory(path);
    return error == EACCES ? 0 : error;
}

static int create_store(const struct stream_options *options, char *ret_error) {
    int err = check_is_empty(options->directory, ret_error);
    if (err < 0)
        return err;
    struct format_store store = {
        .version = FORMAT_VERSION,
        .journal_size_bytes = options->journal_size_bytes / FORMAT_BLOCK * FORMAT_BLOCK,
        .created_ms = (uint64_t)clock_wall_ms(),
    };
    random_bytes(store.secret, sizeof(store.secret));
    int error = journal_create(options->directory, store.journal_size_bytes);
    if (error == 0)
        error = store_sync_name(options->directory);
    if (error == 0)
        error = write_first_checkpoint(options->directory, store.secret);
    if (error == 0)
        error = store_write_format(options->directory, &store);
    if (error == 0)
        return 0;
    snprintf(ret_error, STREAM_ERROR_SIZE, "cannot create a store in %.300s: %s",
             options->directory, strerror(error));
    return errno_is_no_room(error) ? DG_ERR_STORAGE_FULL : DG_ERR_IO;
}

/* ---- opening ------------------------------------------------------------------------------------
 */

int store_lock(const char *directory, int *ret_fd, char *ret_error) {
    char path[STORE_PATH_SIZE];
    bool created;
    int error = file_make_directory(directory, &created);
    snprintf(path, sizeof(path), "%s/lock", directory);
    int fd = error ? -1 : file_open(path, O_RDWR | O_CREAT);
    if (fd < 0) {
        snprintf(ret_error, STREAM_ERROR_SIZE, "cannot use %.300s: %s", directory,
                 strerror(error ? error : errno));
        return DG_ERR_IO;
    }
    const char *network = network_name(fd);
    int err = 0;
    if (network) {
        snprintf(ret_error, STREAM_ERROR_SIZE,
                 "%.300s is on a network or user-space file system (%s); a store needs a local one",
                 directory, network);
        err = DG_ERR_INVALID;
    } else if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        snprintf(ret_error, STREAM_ERROR_SIZE, "%.300s is in use by another process", directory);
        err = DG_ERR_BUSY;
    }
    if (err < 0)
        file_close(fd);
    else
        *ret_fd = fd;
    return err;
}

static int check_format(const struct stream_options *options, int err,
                        const struct format_store *store, char *ret_error) {
    if (err == DG_ERR_UNSUPPORTED_VERSION)
        snprintf(ret_error, STREAM_ERROR_SIZE,
                 "%.300s is a store of format %u; this version reads formats %u and %u and nothing "
                 "else: start the release that wrote it, or restore a backup from before",
                 options->directory, store->version, FORMAT_VERSION, FORMAT_VERSION_EPOCHS);
    else if (err < 0)
        snprintf(ret_error, STREAM_ERROR_SIZE, "%.300s/format: %s", options->directory,
                 dg_err_text(err));
    else if (store->journal_size_bytes !=
             options->journal_size_bytes / FORMAT_BLOCK * FORMAT_BLOCK) {
        snprintf(ret_error, STREAM_ERROR_SIZE,
                 "the store's journal has %llu bytes; storage.journal_size can only be chosen when "
                 "a store is made",
                 (unsigned long long)store->journal_size_bytes);
        err = DG_ERR_INVALID;
    }
    return err;
}

int store_open(const struct stream_options *options, int *ret_lock_fd,
               struct format_store *ret_store, char *ret_error) {
    int fd;
    int err = store_lock(options->directory, &fd, ret_error);
    if (err < 0)
        return err;
    struct format_store store = {0};
    err = store_read_format(options->directory, &store);
    if (err == DG_ERR_NOT_FOUND) {
        err = create_store(options, ret_error);
        if (err == 0)
            err = store_read_format(options->directory, &store);
    } else {
        err = check_format(options, err, &store, ret_error);
    }
    if (err < 0) {
        file_close(fd);
        return err;
    }
    *ret_lock_fd = fd;
    *ret_store = store;
    return 0;
}
