/*
 * A store in a temporary directory and one appender, for tests. Single-threaded use: the caller
 * plays the worker and drains the mailbox.
 */
#pragma once

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/stream.h"

enum { TEST_JOURNAL_BYTES = 8 * 1024 * 1024, TEST_ACK_MAX = 1 << 20 };

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

/* A worker's turn: handles the mail that is there, hands over what is open. */
void test_store_turn(struct test_store *store);

/* Reads [from, durable end) and checks that offsets are without gaps, times do not decrease, CRCs
 * hold, and values are those of test_append() with number == offset + shift. Returns how many
 * records were read, or -1 and prints why. */
int64_t test_read_all(struct test_store *store, uint64_t stream_id, uint32_t partition,
                      int64_t from, int64_t shift);
