/*
 * A Kafka client for measuring: blocking, one request at a time, reads record batches and throws
 * them away. Every failure ends the program. One thread at a time for each client.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { KAFKA_CLIENT_PARTITIONS_MAX = 1024 };

struct kafka_client {
    int fd;
    uint8_t request[65536], *buffer;
    uint64_t left;     /* of the answer: not received */
    size_t start, end; /* of the answer in the buffer: received and not read */
    const char *topic;
    unsigned partition_count;
    int64_t offsets[KAFKA_CLIENT_PARTITIONS_MAX]; /* to be fetched next */
    uint64_t bytes, records;                      /* received since it was opened */
    /* If set: each batch behind its header that has come in as a whole. */
    void (*visit)(void *context, const uint8_t *records, size_t size);
    void *context;
};

/* Connects and logs in with SASL PLAIN; reads from the beginning. */
struct kafka_client *kafka_client_open(const char *host_port, const char *user,
                                       const char *password, const char *topic,
                                       unsigned partition_count);
void kafka_client_close(struct kafka_client *client);

/* From now on what comes after the present end. */
void kafka_client_go_to_end(struct kafka_client *client);

/* One Fetch (v5, 1 MiB per partition, 16 MiB in all), which waits for the first byte. False when
 * there was nothing. */
bool kafka_client_fetch(struct kafka_client *client, unsigned wait_ms);

/* For programs that measure. */
_Noreturn void kafka_client_die(const char *what);
int kafka_client_connect(const char *host_port);
