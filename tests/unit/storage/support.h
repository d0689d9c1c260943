/*
 * A store in a temporary directory and one appender, for tests. Single-threaded use: the caller
 * plays the worker and drains the mailbox.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "../gateway/leaks.h"
#include "storage/local/state.h"
#include "storage/stream.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

enum { TEST_JOURNAL_BYTES = 5 * 1024 * 1024, TEST_ACK_MAX = 1 << 20 };

struct test_store {
    char directory[256];
    struct stream_options options;
    struct stream *stream;
    struct mailbox mailbox;
    struct stream_appender *appender;
    uint64_t acked;   /* tickets that came back with 0 */
    uint64_t refused; /* ... with an error */
    int last_err;
    int64_t last_offset;
    unsigned ready;
    stream_done_fn *done; /* instead of counting, if set */
    char error[STREAM_ERROR_SIZE];
};

/* A fresh directory; default options: small journal and segments, no retention. */
void test_store_init(struct test_store *store);

/* Opens the store; 0 or the error of stream_open(), text in store->error. */
int test_store_open(struct test_store *store);
void test_store_close(struct test_store *store);

/* Removes the directory. */
void test_store_remove(struct test_store *store);

/* Waits until nothing is pending. */
void test_store_settle(struct test_store *store);

/* One record whose key is "k<number>" and whose value tells number and padding. */
int test_append(struct test_store *store, uint64_t stream_id, uint32_t partition, uint64_t number,
                uint32_t padding, int64_t timestamp_ms);

/* The same with a ticket owner. */
int test_append_for(struct test_store *store, uint64_t stream_id, uint32_t partition,
                    uint64_t number, uint32_t padding, int64_t timestamp_ms, uint64_t owner);

/* One mutation; settle to see it. */
int test_mutate(struct test_store *store, uint8_t name_space, struct slice key, struct slice value);
int test_forget(struct test_store *store, uint8_t name_space, struct slice key);
/* At most size bytes of the value, *ret_size is all of it. DG_ERR_NOT_FOUND. */
int test_get(struct state_map *map, uint8_t name_space, struct slice key, uint8_t *ret_value,
             size_t size, size_t *ret_size);

/* A worker's turn: handles the mail that is there, hands over what is open. */
void test_store_turn(struct test_store *store);

/* Reads [from, durable end) and checks that offsets are without gaps, times do not decrease, CRCs
 * hold, and values are those of test_append() with number == offset + shift. Returns how many
 * records were read, or -1 and prints why. */
int64_t test_read_all(struct test_store *store, uint64_t stream_id, uint32_t partition,
                      int64_t from, int64_t shift);

/* The same and settled, record by record: each is a batch and a journal group of its own. */
void test_append_each(struct test_store *store, uint64_t stream_id, uint32_t partition,
                      uint64_t from, uint64_t to, uint32_t padding);

/* What a crash now would leave, in a directory of its own. */
void test_store_copy(const struct test_store *store, struct test_store *ret_copy);

/* ---- files of a store; name is relative to its directory ---------------------------------------
 */

/* "<stream>/<partition>/<base>.log" */
const char *test_segment_name(uint64_t stream_id, uint32_t partition, int64_t base_offset);

/* -1: there is none. */
int64_t test_file_size(const struct test_store *store, const char *name);
void test_file_read(const struct test_store *store, const char *name, int64_t position,
                    void *ret_data, size_t size);
void test_file_write(const struct test_store *store, const char *name, int64_t position,
                     const void *data, size_t size);
void test_file_flip(const struct test_store *store, const char *name, int64_t position);
void test_file_resize(const struct test_store *store, const char *name, int64_t size);
void test_file_remove(const struct test_store *store, const char *name);

/* Of the names and bytes of all files but the lock. */
uint32_t test_store_digest(const struct test_store *store);

/* Runs life in a process of its own and returns its exit code; 128 and more: killed. */
int test_exit_code(void (*life)(void *context), void *context);
