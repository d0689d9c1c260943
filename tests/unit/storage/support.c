#include "support.h"

#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

static bool check_bytes(struct check *check, const uint8_t *bytes, size_t size, int64_t from) {
    struct reader r = reader_make(bytes, size);
    while (reader_left(&r) > 0) {
        struct record_batch batch;
        struct record record;
        if (record_batch_read(&r, true, &batch) < 0) {
            fprintf(stderr, "bad batch at offset %" PRId64 "\n", check->next_offset);
            return false;
        }
        struct reader records = reader_make(batch.records.data, batch.records.size);
        for (uint32_t i = 0; i < batch.record_count; i++) {
            if (record_read(&batch, &records, &record) < 0)
                return false;
            if (record.offset < from)
                continue;
            if (!check_record(check, &record))
                return false;
            check->count++;
        }
    }
    return true;
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
