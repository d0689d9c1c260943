#include "tests/perf/kafka_client.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/reader.h"
#include "common/writer.h"

enum {
    ANSWER_BYTES = 16 << 20,
    PARTITION_BYTES = 1 << 20,
    BUFFER_SIZE = 1 << 20,
    BATCH_HEADER_SIZE = 61,
    OUT_OF_RANGE = 1, /* Kafka's error code */
    API_FETCH = 1,
    API_LIST_OFFSETS = 2,
    API_HANDSHAKE = 17,
    API_AUTHENTICATE = 36,
};

void kafka_client_die(const char *what) {
    perror(what);
    exit(1);
}

static void send_all(int fd, const void *data, size_t size) {
    const uint8_t *at = data;
    for (ssize_t sent; size > 0; at += sent, size -= (size_t)sent)
        if ((sent = send(fd, at, size, MSG_NOSIGNAL)) <= 0)
            kafka_client_die("send");
}

int kafka_client_connect(const char *host_port) {
    char host[64];
    snprintf(host, sizeof(host), "%s", host_port);
    char *colon = strrchr(host, ':');
    if (!colon)
        kafka_client_die("HOST:PORT");
    *colon = '\0';
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    inet_pton(AF_INET, host, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        kafka_client_die(host_port);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

/* ---- answers ---- */

/* The next size bytes, all of them in the buffer; an answer that ends before is a mistake. */
static struct reader take(struct kafka_client *c, size_t size) {
    if (c->end - c->start < size) {
        memmove(c->buffer, c->buffer + c->start, c->end - c->start);
        c->end -= c->start;
        c->start = 0;
    }
    while (c->end - c->start < size) {
        size_t room = BUFFER_SIZE - c->end;
        ssize_t got = recv(c->fd, c->buffer + c->end, room < c->left ? room : c->left, 0);
        if (got <= 0)
            kafka_client_die("recv");
        c->end += (size_t)got;
        c->left -= (uint64_t)got;
    }
    struct reader r = reader_make(c->buffer + c->start, size);
    c->start += size;
    return r;
}

static void skip(struct kafka_client *c, size_t size) {
    while (size > 0) {
        size_t piece = c->end - c->start;
        piece = piece == 0 ? 1 : piece < size ? piece : size; /* 1: to receive more */
        take(c, piece);
        size -= piece;
    }
}

static void skip_rest(struct kafka_client *c) {
    skip(c, c->left + c->end - c->start);
}

/* ---- requests ---- */

static struct writer begin(struct kafka_client *c, uint16_t api, uint16_t version) {
    struct writer w = writer_make(c->request, sizeof(c->request));
    writer_u32(&w, 0);
    writer_u16(&w, api);
    writer_u16(&w, version);
    writer_u32(&w, 1);
    writer_u16(&w, 0xffff);
    return w;
}

static void write_text(struct writer *w, const char *text) {
    writer_u16(w, (uint16_t)strlen(text));
    writer_string(w, text);
}

/* Sends what was written behind the 4 bytes of the size; the answer begins behind its size. */
static void call(struct kafka_client *c, struct writer *w) {
    size_t size = writer_size(w);
    uint32_t length = htonl((uint32_t)size - 4);
    memcpy(c->request, &length, 4);
    send_all(c->fd, c->request, size);
    c->start = c->end = 0;
    c->left = 4;
    struct reader r = take(c, 4);
    c->left = reader_u32(&r);
    c->bytes += c->left;
}

static void login(struct kafka_client *c, const char *user, const char *password) {
    struct writer w = begin(c, API_HANDSHAKE, 1);
    write_text(&w, "PLAIN");
    call(c, &w);
    skip_rest(c);
    w = begin(c, API_AUTHENTICATE, 0);
    writer_u32(&w, (uint32_t)(strlen(user) + strlen(password) + 2));
    writer_u8(&w, 0);
    writer_string(&w, user);
    writer_u8(&w, 0);
    writer_string(&w, password);
    call(c, &w);
    struct reader r = take(c, 6);
    reader_u32(&r);
    if (reader_u16(&r) != 0) {
        fprintf(stderr, "login refused\n");
        exit(1);
    }
    skip_rest(c);
}

struct kafka_client *kafka_client_open(const char *host_port, const char *user,
                                       const char *password, const char *topic,
                                       unsigned partition_count) {
    struct kafka_client *c = calloc(1, sizeof(*c));
    if (!c || partition_count < 1 || partition_count > KAFKA_CLIENT_PARTITIONS_MAX ||
        !(c->buffer = malloc(BUFFER_SIZE)))
        kafka_client_die("kafka client");
    c->fd = kafka_client_connect(host_port);
    c->topic = topic;
    c->partition_count = partition_count;
    login(c, user, password);
    return c;
}

void kafka_client_close(struct kafka_client *client) {
    close(client->fd);
    free(client->buffer);
    free(client);
}

void kafka_client_go_to_end(struct kafka_client *c) {
    struct writer w = begin(c, API_LIST_OFFSETS, 1);
    writer_u32(&w, UINT32_MAX);
    writer_u32(&w, 1);
    write_text(&w, c->topic);
    writer_u32(&w, c->partition_count);
    for (unsigned i = 0; i < c->partition_count; i++) {
        writer_u32(&w, i);
        writer_u64(&w, UINT64_MAX); /* -1: the end */
    }
    call(c, &w);
    struct reader r = take(c, 4 + 4 + 2);
    reader_take(&r, 8);
    take(c, reader_u16(&r));
    r = take(c, 4);
    for (uint32_t count = reader_u32(&r); count > 0; count--) {
        r = take(c, 4 + 2 + 8 + 8);
        uint32_t partition = reader_u32(&r);
        uint16_t error = reader_u16(&r);
        reader_take(&r, 8);
        if (error != 0 || partition >= c->partition_count)
            kafka_client_die("ListOffsets");
        c->offsets[partition] = (int64_t)reader_u64(&r);
    }
}

/* ---- fetching ---- */

static void write_fetch(const struct kafka_client *c, struct writer *w, unsigned wait_ms) {
    writer_u32(w, UINT32_MAX);
    writer_u32(w, wait_ms);
    writer_u32(w, 1);
    writer_u32(w, ANSWER_BYTES);
    writer_u8(w, 0);
    writer_u32(w, 1);
    write_text(w, c->topic);
    writer_u32(w, c->partition_count);
    for (unsigned i = 0; i < c->partition_count; i++) {
        writer_u32(w, i);
        writer_u64(w, (uint64_t)c->offsets[i]);
        writer_u64(w, UINT64_MAX);
        writer_u32(w, PARTITION_BYTES);
    }
}

static void read_body(struct kafka_client *c, size_t size) {
    if (!c->visit || size > BUFFER_SIZE) {
        skip(c, size);
        return;
    }
    struct reader body = take(c, size);
    c->visit(c->context, reader_take(&body, size), size);
}

/* Reads over a partition's batches; answers the offset behind the last. */
static int64_t read_batches(struct kafka_client *c, size_t size, int64_t offset) {
    while (size >= BATCH_HEADER_SIZE) {
        struct reader header = take(c, BATCH_HEADER_SIZE);
        size -= BATCH_HEADER_SIZE;
        int64_t base = (int64_t)reader_u64(&header);
        size_t rest = 12 + (size_t)reader_u32(&header) - BATCH_HEADER_SIZE;
        if (rest > size)
            break; /* the last one may be cut off */
        reader_take(&header, 11);
        offset = base + reader_u32(&header) + 1;
        reader_take(&header, 30);
        c->records += reader_u32(&header);
        read_body(c, rest);
        size -= rest;
    }
    skip(c, size);
    return offset;
}

static bool read_partition(struct kafka_client *c) {
    struct reader r = take(c, 4 + 2 + 3 * 8 + 4);
    uint32_t partition = reader_u32(&r);
    uint16_t error = reader_u16(&r);
    reader_take(&r, 16);
    int64_t log_start = (int64_t)reader_u64(&r);
    if (error > OUT_OF_RANGE || partition >= c->partition_count || reader_u32(&r) != UINT32_MAX) {
        fprintf(stderr, "partition %u refused with error %u\n", partition, error);
        exit(1);
    }
    if (error == OUT_OF_RANGE)
        c->offsets[partition] = log_start;
    r = take(c, 4);
    uint32_t size = reader_u32(&r);
    if (size == 0 || size == UINT32_MAX)
        return error == OUT_OF_RANGE;
    c->offsets[partition] = read_batches(c, size, c->offsets[partition]);
    return true;
}

bool kafka_client_fetch(struct kafka_client *c, unsigned wait_ms) {
    bool any = false;
    struct writer w = begin(c, API_FETCH, 5);
    write_fetch(c, &w, wait_ms);
    call(c, &w);
    struct reader r = take(c, 4 + 4 + 4 + 2);
    reader_take(&r, 12);
    take(c, reader_u16(&r));
    r = take(c, 4);
    for (uint32_t count = reader_u32(&r); count > 0; count--)
        any |= read_partition(c);
    return any;
}
