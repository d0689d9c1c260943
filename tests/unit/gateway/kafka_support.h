/*
 * For tests of the Kafka endpoint: one real worker, the real embedded stream in a temporary
 * directory, a registry that is a table, and a client that writes requests and reads answers field
 * by field.
 *
 * API keys (secret "secret"): reader, auditor and operator of tenant acme, reader of beta,
 * "platform" (administrator of everything), "down" (the registry does not answer). Both tenants
 * have 4 partitions.
 */
#pragma once

#include "common/reader.h"
#include "common/writer.h"
#include "gateway/kafka/endpoint.h"
#include "gateway/kafka/messages.h"
#include "tests/unit/gateway/loopback.h"

enum { ACME_STREAM = 3, BETA_STREAM = 9, KAFKA_TEST_PARTITIONS = 4 };

/* What the registry's table says beside its rows; set before the login it is for. */
extern struct kafka_table {
    int64_t valid_until_ms; /* of every login */
    bool tenants_unavailable;
    bool acme_is_new;         /* deleted and made anew: another key and other streams */
    unsigned tenant_count;    /* so many in all; 0: the two */
    unsigned more_partitions; /* of acme, for who asks for tenants */
} kafka_table;
extern int32_t kafka_first_epoch; /* of a server that starts: as a restore leaves it */

struct kafka_server {
    struct loopback loopback;
    struct stream *stream;
    struct stream_appender *appender;
    char directory[256];
    unsigned pending; /* appended, not yet durable; worker's thread */
};

/* Parts of a worker that a test has beside the endpoint's; none at first. */
extern struct kafka_beside {
    int (*start)(struct worker *worker, struct stream *stream);
    void (*free)(struct worker *worker);
} kafka_beside;

/* overrides: as of loopback_start(); NULL: passwords are allowed on the socket pairs, which are
 * plain text and not loopback. */
void kafka_server_start(struct kafka_server *server, const char *const *overrides);
void kafka_server_stop(struct kafka_server *server);

/* Appends `count` records of `size` bytes to acme's stream of this kind and waits until they are
 * durable; one batch, if they are few. Their timestamps are first_ms, first_ms + 1, ... */
void kafka_server_append(struct kafka_server *server, enum stream_kind kind, uint32_t partition,
                         unsigned count, size_t size, int64_t first_ms);

extern const struct connection_listener kafka_test_listener; /* plain text */

/* A request in the making and the answer to it. */
struct kafka_client {
    struct client client;
    struct writer request;
    struct reader answer;
    int api, version;
    int32_t correlation_id; /* of the last request */
    uint8_t request_bytes[65536];
    uint8_t *answer_bytes; /* freed by the next call */
};

void kafka_connect(struct kafka_client *c, struct kafka_server *server);
void kafka_disconnect(struct kafka_client *c);
/* Handshake and PLAIN; the error code, or -1000 when the connection ended. */
int kafka_login(struct kafka_client *c, const char *user, const char *secret);
/* Connects and logs in; fails the test otherwise. */
void kafka_enter(struct kafka_client *c, struct kafka_server *server, const char *user);

/* Begins a request: its header, flexible where the version is. The body follows with writer_*() and
 * kafka_put_text(). */
void kafka_begin(struct kafka_client *c, int api, int version);
void kafka_put_text(struct kafka_client *c, const char *text);
/* Sends what was begun without reading an answer. */
void kafka_send(struct kafka_client *c);
/* Reads the next answer up to its body; false when the connection ended. */
bool kafka_receive(struct kafka_client *c);
/* Both; fails the test when the connection ended. */
void kafka_call_server(struct kafka_client *c);

/* A Fetch (version 11) of partitions of one topic. */
struct kafka_asked {
    int32_t partition;
    int64_t offset;
    int32_t max_bytes;
};
void kafka_begin_fetch(struct kafka_client *c, const char *topic, int32_t max_wait_ms,
                       int32_t min_bytes, int32_t max_bytes, const struct kafka_asked *asked,
                       unsigned count);
struct kafka_fetched {
    int32_t partition;
    int16_t error;
    int64_t high_watermark, log_start;
    struct slice records;
};
/* The partitions of a Fetch answer of that version; fails the test unless there are `count`. */
void kafka_take_fetch(struct kafka_client *c, struct kafka_fetched *ret_fetched, unsigned count);

/* A ListOffsets (version 5) of one partition, and its answer: the error code. */
void kafka_begin_list_offsets(struct kafka_client *c, const char *topic, int32_t partition,
                              int64_t asked_ms);
int16_t kafka_take_list_offsets(struct kafka_client *c, int32_t partition, int64_t *ret_ms,
                                int64_t *ret_offset);
