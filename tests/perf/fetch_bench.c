/*
 * How fast warm record batches leave the gateway: a Kafka client that fetches every partition of a
 * topic from the beginning, again and again, and throws the bytes away; beside it, in the same run,
 * what loopback sendfile itself can do. Both receive into the same small buffer.
 *
 *     fetch_bench HOST-PORT USER PASSWORD TOPIC PARTITIONS SECONDS [PID]
 *     fetch_bench --floor FILE SECONDS
 *
 * Prints one JSON line. Fetch v5, 1 MiB per partition, one request at a time, as a consumer does.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/reader.h"
#include "common/writer.h"

enum {
    ANSWER_BYTES = 16 << 20,
    PARTITION_BYTES = 1 << 20,
    BUFFER_SIZE = 1 << 20,
    BATCH_HEADER_SIZE = 61,
    TURN_BYTES = 256 << 10,
    PARTITIONS_MAX = 256,
    OUT_OF_RANGE = 1 /* Kafka's error code */
};

static uint8_t request[65536], buffer[BUFFER_SIZE];
static int64_t offsets[PARTITIONS_MAX];
static uint64_t received;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void send_all(int fd, const void *data, size_t size) {
    const uint8_t *at = data;
    for (ssize_t sent; size > 0; at += sent, size -= (size_t)sent)
        if ((sent = send(fd, at, size, MSG_NOSIGNAL)) <= 0)
            die("send");
}

/* An answer as it comes in. */
struct answer {
    int fd;
    uint64_t left;     /* not received */
    size_t start, end; /* in buffer: received and not read */
};

/* The next size bytes, all of them in the buffer; an answer that ends before is a mistake. */
static struct reader answer_take(struct answer *answer, size_t size) {
    if (answer->end - answer->start < size) {
        memmove(buffer, buffer + answer->start, answer->end - answer->start);
        answer->end -= answer->start;
        answer->start = 0;
    }
    while (answer->end - answer->start < size) {
        size_t room = BUFFER_SIZE - answer->end;
        ssize_t got =
            recv(answer->fd, buffer + answer->end, room < answer->left ? room : answer->left, 0);
        if (got <= 0)
            die("recv");
        answer->end += (size_t)got;
        answer->left -= (uint64_t)got;
    }
    struct reader r = reader_make(buffer + answer->start, size);
    answer->start += size;
    return r;
}

static void answer_skip(struct answer *answer, size_t size) {
    while (size > 0) {
        size_t piece = answer->end - answer->start;
        piece = piece == 0 ? 1 : piece < size ? piece : size; /* 1: to receive more */
        answer_take(answer, piece);
        size -= piece;
    }
}

static size_t answer_size(const struct answer *answer) {
    return answer->left + answer->end - answer->start;
}

/* Sends what was written behind the 4 bytes of the size; the answer begins behind its size. */
static struct answer call(int fd, struct writer *w) {
    size_t size = writer_size(w);
    uint32_t length = htonl((uint32_t)size - 4);
    memcpy(request, &length, 4);
    send_all(fd, request, size);
    struct answer answer = {.fd = fd, .left = 4};
    struct reader r = answer_take(&answer, 4);
    answer.left = reader_u32(&r);
    return answer;
}

static struct writer begin(uint16_t api, uint16_t version) {
    struct writer w = writer_make(request, sizeof(request));
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

static void login(int fd, const char *user, const char *password) {
    struct writer w = begin(17, 1);
    write_text(&w, "PLAIN");
    struct answer answer = call(fd, &w);
    answer_skip(&answer, answer_size(&answer));
    w = begin(36, 0);
    writer_u32(&w, (uint32_t)(strlen(user) + strlen(password) + 2));
    writer_u8(&w, 0);
    writer_string(&w, user);
    writer_u8(&w, 0);
    writer_string(&w, password);
    answer = call(fd, &w);
    struct reader r = answer_take(&answer, 6);
    reader_u32(&r);
    if (reader_u16(&r) != 0) {
        fprintf(stderr, "login refused\n");
        exit(1);
    }
    answer_skip(&answer, answer_size(&answer));
}

static void write_fetch(struct writer *w, const char *topic, int partitions) {
    writer_u32(w, 0xffffffff);
    writer_u32(w, 100);
    writer_u32(w, 1);
    writer_u32(w, ANSWER_BYTES);
    writer_u8(w, 0);
    writer_u32(w, 1);
    write_text(w, topic);
    writer_u32(w, (uint32_t)partitions);
    for (int i = 0; i < partitions; i++) {
        writer_u32(w, (uint32_t)i);
        writer_u64(w, (uint64_t)offsets[i]);
        writer_u64(w, UINT64_MAX);
        writer_u32(w, PARTITION_BYTES);
    }
}

/* Reads over a partition's batches; answers the offset behind the last. */
static int64_t skip_records(struct answer *answer, size_t size, int64_t offset) {
    while (size >= BATCH_HEADER_SIZE) {
        struct reader header = answer_take(answer, BATCH_HEADER_SIZE);
        int64_t base = (int64_t)reader_u64(&header);
        size_t rest = 12 + (size_t)reader_u32(&header) - BATCH_HEADER_SIZE;
        reader_take(&header, 11);
        offset = base + reader_u32(&header) + 1;
        answer_skip(answer, rest);
        size -= BATCH_HEADER_SIZE + rest;
    }
    answer_skip(answer, size);
    return offset;
}

static bool take_partition(struct answer *answer) {
    struct reader r = answer_take(answer, 4 + 2 + 3 * 8 + 4);
    uint32_t partition = reader_u32(&r);
    uint16_t error = reader_u16(&r);
    reader_take(&r, 16);
    int64_t log_start = (int64_t)reader_u64(&r);
    if (error > OUT_OF_RANGE || partition >= PARTITIONS_MAX || reader_u32(&r) != UINT32_MAX) {
        fprintf(stderr, "partition %u refused with error %u\n", partition, error);
        exit(1);
    }
    if (error == OUT_OF_RANGE)
        offsets[partition] = log_start;
    r = answer_take(answer, 4);
    uint32_t size = reader_u32(&r);
    if (size == 0 || size == UINT32_MAX)
        return error == OUT_OF_RANGE;
    offsets[partition] = skip_records(answer, size, offsets[partition]);
    return true;
}

/* False when no partition had anything: the end. */
static bool take_fetch(struct answer *answer) {
    bool any = false;
    struct reader r = answer_take(answer, 4 + 4 + 4 + 2);
    reader_take(&r, 12);
    answer_take(answer, reader_u16(&r));
    r = answer_take(answer, 4);
    for (uint32_t count = reader_u32(&r); count > 0; count--)
        any |= take_partition(answer);
    return any;
}

static int64_t cpu_ticks(int pid) {
    char path[64], line[1024];
    unsigned long user = 0, kernel = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    FILE *file = fopen(path, "re");
    if (!file || !fgets(line, sizeof(line), file))
        return 0;
    fclose(file);
    sscanf(strrchr(line, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
           &kernel);
    return (int64_t)(user + kernel);
}

static int connect_to(const char *host_port) {
    char host[64];
    snprintf(host, sizeof(host), "%s", host_port);
    char *colon = strrchr(host, ':');
    if (!colon)
        die("HOST:PORT");
    *colon = '\0';
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    inet_pton(AF_INET, host, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        die(host_port);
    return fd;
}

static int run_gateway(char **argv, int pid) {
    int partitions = atoi(argv[4]), fd = connect_to(argv[0]);
    if (partitions < 1 || partitions > PARTITIONS_MAX)
        return 64;
    login(fd, argv[1], argv[2]);
    uint64_t start_ns = clock_monotonic_ns(), now_ns,
             length_ns = strtoull(argv[5], NULL, 10) * 1000000000;
    int64_t ticks = pid ? cpu_ticks(pid) : 0;
    do {
        struct writer w = begin(1, 5);
        write_fetch(&w, argv[3], partitions);
        struct answer answer = call(fd, &w);
        received += answer.left;
        if (!take_fetch(&answer))
            memset(offsets, 0, sizeof(offsets));
        now_ns = clock_monotonic_ns();
    } while (now_ns - start_ns < length_ns);
    double seconds = (double)(now_ns - start_ns) / 1e9;
    ticks = pid ? cpu_ticks(pid) - ticks : 0;
    printf("{\"bytes_per_second\":%.0f,\"server_cpu_seconds_per_gb\":%.3f}\n",
           (double)received / seconds,
           (double)ticks / (double)sysconf(_SC_CLK_TCK) / ((double)received / 1e9));
    return 0;
}

static void serve_file(int listener, const char *path) {
    int to = accept(listener, NULL, NULL), from = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (to < 0 || from < 0 || fstat(from, &status) != 0)
        die(path);
    for (;;) {
        off_t at = 0;
        while (at < status.st_size)
            if (sendfile(to, from, &at, TURN_BYTES) <= 0)
                exit(0);
    }
}

static int run_floor(const char *path, const char *seconds_text) {
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    if (bind(listener, (struct sockaddr *)&address, size) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) != 0)
        die("listen");
    pid_t child = fork();
    if (child == 0)
        serve_file(listener, path);
    char host_port[64];
    snprintf(host_port, sizeof(host_port), "127.0.0.1:%d", ntohs(address.sin_port));
    int fd = connect_to(host_port);
    uint64_t start_ns = clock_monotonic_ns(), now_ns,
             length_ns = strtoull(seconds_text, NULL, 10) * 1000000000;
    do {
        ssize_t got = recv(fd, buffer, BUFFER_SIZE, 0);
        if (got <= 0)
            die("recv");
        received += (uint64_t)got;
        now_ns = clock_monotonic_ns();
    } while (now_ns - start_ns < length_ns);
    close(fd);
    waitpid(child, NULL, 0);
    printf("{\"bytes_per_second\":%.0f}\n", (double)received / ((double)(now_ns - start_ns) / 1e9));
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "--floor") == 0)
        return run_floor(argv[2], argv[3]);
    if (argc != 7 && argc != 8)
        return 64;
    return run_gateway(argv + 1, argc == 8 ? atoi(argv[7]) : 0);
}
