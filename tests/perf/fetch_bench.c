/*
 * How fast warm record batches leave the gateway: a Kafka client that fetches every partition of a
 * topic from the beginning, again and again, and throws the bytes away; beside it, in the same run,
 * what loopback sendfile itself can do.
 *
 *     fetch_bench HOST-PORT USER PASSWORD TOPIC PARTITIONS SECONDS [PID]   gateway: bytes per
 * second fetch_bench --floor FILE SECONDS                                     sendfile of FILE
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
    BUFFER_SIZE = 4 << 20,
    PARTITION_BYTES = 1 << 20,
    TURN_BYTES = 256 << 10,
    PARTITIONS_MAX = 256,
    OUT_OF_RANGE = 1 /* Kafka's error code */
};

static uint8_t request[65536], *response;
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

static void receive_all(int fd, void *data, size_t size) {
    uint8_t *at = data;
    for (ssize_t got; size > 0; at += got, size -= (size_t)got)
        if ((got = recv(fd, at, size, MSG_WAITALL)) <= 0)
            die("recv");
}

/* Sends what was written behind the 4 bytes of the size; reads the answer into response. */
static size_t call(int fd, struct writer *w) {
    size_t size = writer_size(w);
    uint32_t length = htonl((uint32_t)size - 4);
    memcpy(request, &length, 4);
    send_all(fd, request, size);
    receive_all(fd, &length, 4);
    size = ntohl(length);
    if (size > BUFFER_SIZE * 8)
        die("answer too large");
    receive_all(fd, response, size);
    return size;
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
    call(fd, &w);
    w = begin(36, 0);
    writer_u32(&w, (uint32_t)(strlen(user) + strlen(password) + 2));
    writer_u8(&w, 0);
    writer_string(&w, user);
    writer_u8(&w, 0);
    writer_string(&w, password);
    size_t size = call(fd, &w);
    if (size < 6 || response[4] || response[5]) {
        fprintf(stderr, "login refused\n");
        exit(1);
    }
}

static void write_fetch(struct writer *w, const char *topic, int partitions) {
    writer_u32(w, 0xffffffff);
    writer_u32(w, 100);
    writer_u32(w, 1);
    writer_u32(w, BUFFER_SIZE * 4);
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

/* The offset behind the last whole batch: base offset and last offset delta of its header. */
static int64_t next_offset(struct slice records, int64_t offset) {
    struct reader r = reader_make(records.data, records.size);
    while (reader_left(&r) >= 61) {
        struct reader header = r;
        int64_t base = (int64_t)reader_u64(&header);
        uint32_t length = reader_u32(&header);
        reader_take(&header, 11);
        offset = base + reader_u32(&header) + 1;
        if (reader_left(&r) < 12ull + length)
            break;
        reader_take(&r, 12 + length);
    }
    return offset;
}

static bool take_fetch(size_t size) {
    struct reader r = reader_make(response, size);
    bool any = false;
    reader_take(&r, 4 + 4 + 4);
    reader_take(&r, reader_u16(&r));
    uint32_t count = reader_u32(&r);
    for (uint32_t i = 0; i < count && !r.failed; i++) {
        uint32_t partition = reader_u32(&r);
        uint16_t error = reader_u16(&r);
        if (error > OUT_OF_RANGE || partition >= PARTITIONS_MAX) {
            fprintf(stderr, "partition %u refused with error %u\n", partition, error);
            exit(1);
        }
        reader_take(&r, 16);
        int64_t log_start = (int64_t)reader_u64(&r);
        if (error == OUT_OF_RANGE) {
            any = true;
            offsets[partition] = log_start;
        }
        uint32_t aborted = reader_u32(&r);
        reader_take(&r, aborted == 0xffffffff ? 0 : aborted * 16);
        uint32_t bytes = reader_u32(&r);
        struct slice records = reader_slice(&r, bytes == 0xffffffff ? 0 : bytes);
        if (records.size == 0)
            continue;
        any = true;
        offsets[partition] = next_offset(records, offsets[partition]);
    }
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
        size_t size = call(fd, &w);
        received += size;
        if (!take_fetch(size))
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
        receive_all(fd, response, PARTITION_BYTES);
        received += PARTITION_BYTES;
        now_ns = clock_monotonic_ns();
    } while (now_ns - start_ns < length_ns);
    close(fd);
    waitpid(child, NULL, 0);
    printf("{\"bytes_per_second\":%.0f}\n", (double)received / ((double)(now_ns - start_ns) / 1e9));
    return 0;
}

int main(int argc, char **argv) {
    response = malloc((size_t)BUFFER_SIZE * 8);
    if (!response)
        die("malloc");
    if (argc == 4 && strcmp(argv[1], "--floor") == 0)
        return run_floor(argv[2], argv[3]);
    if (argc != 7 && argc != 8)
        return 64;
    return run_gateway(argv + 1, argc == 8 ? atoi(argv[7]) : 0);
}
