#include "support.h"

#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/crc32c.h"
#include "storage/record.h"

void test_store_init(struct test_store *store) {
    memset(store, 0, sizeof(*store));
    const char *root = getenv("TMPDIR");
    snprintf(store->directory, sizeof(store->directory), "%s/duragate-storage-XXXXXX",
             root ? root : "/tmp");
    if (!mkdtemp(store->directory))
        abort();
    store->options = (struct stream_options){
        .directory = store->directory,
        .journal_size_bytes = TEST_JOURNAL_BYTES,
        .segment_size_bytes = 4 * 1024 * 1024,
        .segment_age_ms = 3600 * 1000,
    };
}

static void on_done(void *context, const struct stream_ticket *ticket, int err, int64_t offset) {
    struct test_store *store = context;
    if (store->done) {
        store->done(context, ticket, err, offset);
        return;
    }
    store->last_err = err;
    if (err == 0) {
        store->acked++;
        store->last_offset = offset;
    } else {
        store->refused++;
    }
}

static void on_ready(void *context) {
    struct test_store *store = context;
    store->ready++;
}

int test_store_open(struct test_store *store) {
    int err = stream_open(&store->options, &store->stream, store->error);
    if (err < 0)
        return err;
    if (mailbox_init(&store->mailbox, store) < 0 ||
        stream_appender_create(store->stream, &store->mailbox, on_done, on_ready, store,
                               &store->appender) < 0)
        abort();
    return 0;
}

void test_store_close(struct test_store *store) {
    test_store_settle(store);
    stream_appender_free(store->appender);
    stream_close(store->stream);
    mailbox_drain(&store->mailbox); /* a mail to the appender may still have been on its way */
    mailbox_free(&store->mailbox);
    store->stream = NULL;
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *walk) {
    return remove(path);
}

void test_store_remove(struct test_store *store) {
    nftw(store->directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void test_store_settle(struct test_store *store) {
    stream_appender_turn(store->appender);
    while (stream_appender_pending(store->appender) > 0) {
        struct pollfd wait = {.fd = mailbox_fd(&store->mailbox), .events = POLLIN};
        poll(&wait, 1, 1000);
        mailbox_drain(&store->mailbox);
        stream_appender_turn(store->appender);
    }
}

void test_store_turn(struct test_store *store) {
    mailbox_drain(&store->mailbox);
    stream_appender_turn(store->appender);
}

int test_append(struct test_store *store, uint64_t stream_id, uint32_t partition, uint64_t number,
                uint32_t padding, int64_t timestamp_ms) {
    return test_append_for(store, stream_id, partition, number, padding, timestamp_ms, 1);
}

int test_append_for(struct test_store *store, uint64_t stream_id, uint32_t partition,
                    uint64_t number, uint32_t padding, int64_t timestamp_ms, uint64_t owner) {
    static uint8_t value[1024 * 1024];
    char key[32];
    uint8_t header[64];
    struct writer w = writer_make(header, sizeof(header));
    record_write_header(&w, slice_from_string("ce_type"), slice_from_string("test"));
    struct iovec part = {.iov_base = header, .iov_len = writer_size(&w)};
    memcpy(value, &number, 8);
    memcpy(value + 8, &padding, 4);
    memset(value + 12, (int)(number & 0xff), padding);
    snprintf(key, sizeof(key), "k%" PRIu64, number);
    struct stream_record record = {
        .timestamp_ms = timestamp_ms,
        .key = slice_from_string(key),
        .value = slice_make(value, 12 + padding),
        .headers = &part,
        .header_parts = 1,
        .header_count = 1,
    };
    return stream_append(store->appender, stream_id, partition, &record,
                         (struct stream_ticket){.owner = owner, .tag = number});
}

struct check {
    int64_t next_offset;
    int64_t last_ms;
    int64_t shift;
    int64_t count;
};

static bool check_record(struct check *check, const struct record *record) {
    uint64_t number = 0;
    uint32_t padding = 0;
    char key[32];
    if (record->value.size < 12)
        return false;
    memcpy(&number, record->value.data, 8);
    memcpy(&padding, record->value.data + 8, 4);
    snprintf(key, sizeof(key), "k%" PRIu64, number);
    bool good = record->offset == check->next_offset && record->timestamp_ms >= check->last_ms &&
                number == (uint64_t)(record->offset + check->shift) &&
                record->value.size == 12 + padding && slice_equals_string(record->key, key) &&
                record->header_count == 1;
    for (uint32_t i = 0; good && i < padding; i++)
        good = record->value.data[12 + i] == (uint8_t)number;
    if (!good)
        fprintf(stderr, "record at %" PRId64 " (expected %" PRId64 ") holds %" PRIu64 "\n",
                record->offset, check->next_offset, number);
    check->next_offset++;
    check->last_ms = record->timestamp_ms;
    return good;
}

static bool check_records(struct check *check, const struct record_batch *batch, struct slice bytes,
                          int64_t from) {
    struct reader records = reader_make(bytes.data, bytes.size);
    for (uint32_t i = 0; i < batch->record_count; i++) {
        struct record record;
        if (record_read(batch, &records, &record) < 0)
            return false;
        if (record.offset < from)
            continue;
        if (!check_record(check, &record))
            return false;
        check->count++;
    }
    return true;
}

static bool check_bytes(struct check *check, const uint8_t *bytes, size_t size, int64_t from) {
    struct reader r = reader_make(bytes, size);
    bool good = true;
    while (good && reader_left(&r) > 0) {
        struct record_batch batch;
        struct slice records;
        uint8_t *owned;
        if (record_batch_read(&r, true, &batch) < 0 ||
            record_batch_expand(&batch, &records, &owned) < 0) {
            fprintf(stderr, "bad batch at offset %" PRId64 "\n", check->next_offset);
            return false;
        }
        good = check_records(check, &batch, records, from);
        free(owned);
    }
    return good;
}

static bool check_extent(struct check *check, const struct stream_extent *extent, int64_t from) {
    if (extent->memory)
        return check_bytes(check, extent->memory, extent->size_bytes, from);
    uint8_t *bytes = malloc(extent->size_bytes);
    bool good = pread(extent->fd, bytes, extent->size_bytes, (off_t)extent->position) ==
                    (ssize_t)extent->size_bytes &&
                check_bytes(check, bytes, extent->size_bytes, from);
    free(bytes);
    return good;
}

int64_t test_read_all(struct test_store *store, uint64_t stream_id, uint32_t partition,
                      int64_t from, int64_t shift) {
    struct check check = {.next_offset = from, .last_ms = INT64_MIN, .shift = shift};
    for (;;) {
        struct stream_extent extent;
        int err = stream_read(store->stream, stream_id, partition, check.next_offset, 256 * 1024,
                              NULL, &extent);
        if (err < 0) {
            fprintf(stderr, "read at %" PRId64 ": %s\n", check.next_offset, dg_err_text(err));
            return -1;
        }
        if (extent.size_bytes == 0)
            return check.count;
        bool good = check_extent(&check, &extent, from) && check.next_offset == extent.next_offset;
        stream_extent_release(&extent);
        if (!good)
            return -1;
    }
}

void test_append_each(struct test_store *store, uint64_t stream_id, uint32_t partition,
                      uint64_t from, uint64_t to, uint32_t padding) {
    for (uint64_t number = from; number < to; number++) {
        if (test_append(store, stream_id, partition, number, padding, (int64_t)(1000 + number)) < 0)
            abort();
        test_store_settle(store);
    }
}

/* ---- files --------------------------------------------------------------------------------------
 */

const char *test_segment_name(uint64_t stream_id, uint32_t partition, int64_t base_offset) {
    static char name[128];
    snprintf(name, sizeof(name), "%" PRIu64 "/%" PRIu32 "/%020" PRId64 ".log", stream_id, partition,
             base_offset);
    return name;
}

static int open_in(const struct test_store *store, const char *name, int flags) {
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", store->directory, name);
    return open(path, flags | O_CLOEXEC, 0640);
}

static int must_open(const struct test_store *store, const char *name, int flags) {
    int fd = open_in(store, name, flags);
    if (fd < 0) {
        perror(name);
        abort();
    }
    return fd;
}

int64_t test_file_size(const struct test_store *store, const char *name) {
    struct stat status;
    int fd = open_in(store, name, O_RDONLY);
    if (fd < 0 || fstat(fd, &status) != 0)
        return -1;
    close(fd);
    return status.st_size;
}

void test_file_read(const struct test_store *store, const char *name, int64_t position,
                    void *ret_data, size_t size) {
    int fd = must_open(store, name, O_RDONLY);
    if (pread(fd, ret_data, size, position) != (ssize_t)size)
        abort();
    close(fd);
}

void test_file_write(const struct test_store *store, const char *name, int64_t position,
                     const void *data, size_t size) {
    int fd = must_open(store, name, O_WRONLY | O_CREAT);
    if (pwrite(fd, data, size, position) != (ssize_t)size)
        abort();
    close(fd);
}

void test_file_flip(const struct test_store *store, const char *name, int64_t position) {
    uint8_t byte;
    test_file_read(store, name, position, &byte, 1);
    byte ^= 0x40;
    test_file_write(store, name, position, &byte, 1);
}

void test_file_resize(const struct test_store *store, const char *name, int64_t size) {
    int fd = must_open(store, name, O_WRONLY);
    if (ftruncate(fd, size) != 0)
        abort();
    close(fd);
}

void test_file_remove(const struct test_store *store, const char *name) {
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", store->directory, name);
    if (unlink(path) != 0)
        abort();
}

/* ---- whole directories --------------------------------------------------------------------------
 */

/* nftw() passes no context on. */
static struct {
    size_t root_size;
    const char *to;
    uint32_t digest;
} walked;

static int copy_entry(const char *path, const struct stat *status, int kind, struct FTW *walk) {
    char to[1024];
    snprintf(to, sizeof(to), "%s%s", walked.to, path + walked.root_size);
    if (kind == FTW_D)
        return walk->level > 0 ? mkdir(to, 0750) : 0;
    int in = open(path, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    ssize_t count = 1;
    while (in >= 0 && out >= 0 && count > 0)
        count = copy_file_range(in, NULL, out, NULL, 1 << 30, 0);
    close(in);
    close(out);
    return count == 0 ? 0 : -1;
}

void test_store_copy(const struct test_store *store, struct test_store *ret_copy) {
    test_store_init(ret_copy);
    const char *directory = ret_copy->options.directory;
    ret_copy->options = store->options;
    ret_copy->options.directory = directory;
    walked.root_size = strlen(store->directory);
    walked.to = ret_copy->directory;
    if (nftw(store->directory, copy_entry, 16, FTW_PHYS) != 0)
        abort();
}

static int digest_entry(const char *path, const struct stat *status, int kind, struct FTW *walk) {
    const char *name = path + walked.root_size;
    if (strcmp(name, "/lock") == 0)
        return 0;
    uint32_t crc = crc32c_update(0, name, strlen(name));
    int fd = kind == FTW_F ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    uint8_t *bytes = malloc((size_t)status->st_size + 1);
    if (fd >= 0 && read(fd, bytes, (size_t)status->st_size) == status->st_size)
        crc = crc32c_update(crc, bytes, (size_t)status->st_size);
    free(bytes);
    if (fd >= 0)
        close(fd);
    walked.digest += crc; /* in any order */
    return 0;
}

uint32_t test_store_digest(const struct test_store *store) {
    walked.root_size = strlen(store->directory);
    walked.digest = 0;
    nftw(store->directory, digest_entry, 16, FTW_PHYS);
    return walked.digest;
}

int test_exit_code(void (*life)(void *context), void *context) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        life(context);
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child)
        abort();
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- state --------------------------------------------------------------------------------------
 */

int test_mutate(struct test_store *store, uint8_t name_space, struct slice key,
                struct slice value) {
    struct stream_mutation mutation = {.name_space = name_space, .key = key, .value = value};
    return stream_mutate(store->appender, &mutation, 1, (struct stream_ticket){0});
}

int test_forget(struct test_store *store, uint8_t name_space, struct slice key) {
    struct stream_mutation mutation = {.name_space = name_space, .is_delete = true, .key = key};
    return stream_mutate(store->appender, &mutation, 1, (struct stream_ticket){0});
}

struct wanted_state {
    struct slice key;
    uint8_t *value;
    size_t room, size;
    bool found;
};

static void take_if_wanted(void *context, struct slice key, struct slice value) {
    struct wanted_state *wanted = context;
    if (!slice_equals(key, wanted->key))
        return;
    wanted->found = true;
    wanted->size = value.size;
    if (value.size > 0)
        memcpy(wanted->value, value.data, value.size < wanted->room ? value.size : wanted->room);
}

int test_get(struct state_map *map, uint8_t name_space, struct slice key, uint8_t *ret_value,
             size_t size, size_t *ret_size) {
    struct wanted_state wanted = {.key = key, .value = ret_value, .room = size};
    state_visit(map, name_space, take_if_wanted, &wanted);
    if (wanted.found)
        *ret_size = wanted.size;
    return wanted.found ? 0 : DG_ERR_NOT_FOUND;
}
