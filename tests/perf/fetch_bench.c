/*
 * How fast warm record batches leave the gateway: Kafka clients that fetch every partition of a
 * topic from the beginning, again and again, and throw the bytes away; beside it, in the same run,
 * what loopback sendfile itself can do. Both receive into the same small buffer.
 *
 *     fetch_bench HOST-PORT USER PASSWORD TOPIC PARTITIONS SECONDS [PID [READERS [tail]]]
 *     fetch_bench --floor FILE SECONDS
 *
 * Prints one JSON line. tail: only what comes in meanwhile, as consumers that keep up do.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/perf/kafka_client.h"

enum { BUFFER_SIZE = 1 << 20, TURN_BYTES = 256 << 10, READERS_MAX = 1024, WAIT_MS = 100 };

static uint8_t buffer[BUFFER_SIZE];
static uint64_t received;

struct reading {
    pthread_t thread;
    struct kafka_client *client;
    uint64_t end_ns;
    bool tail;
};

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

static void *read_on(void *context) {
    struct reading *reading = context;
    while (clock_monotonic_ns() < reading->end_ns)
        if (!kafka_client_fetch(reading->client, WAIT_MS) && !reading->tail)
            memset(reading->client->offsets, 0, sizeof(reading->client->offsets));
    return NULL;
}

static int run_gateway(char **argv, int pid, unsigned count, bool tail) {
    static struct reading readings[READERS_MAX];
    uint64_t records = 0;
    for (unsigned i = 0; i < count; i++) {
        struct kafka_client *client =
            kafka_client_open(argv[0], argv[1], argv[2], argv[3], (unsigned)atoi(argv[4]));
        if (tail)
            kafka_client_go_to_end(client);
        client->bytes = 0;
        readings[i] = (struct reading){.client = client, .tail = tail};
    }
    uint64_t start_ns = clock_monotonic_ns();
    int64_t ticks = pid ? cpu_ticks(pid) : 0;
    for (unsigned i = 0; i < count; i++) {
        readings[i].end_ns = start_ns + strtoull(argv[5], NULL, 10) * 1000000000;
        if (pthread_create(&readings[i].thread, NULL, read_on, &readings[i]) != 0)
            kafka_client_die("pthread_create");
    }
    for (unsigned i = 0; i < count; i++) {
        pthread_join(readings[i].thread, NULL);
        received += readings[i].client->bytes;
        records += readings[i].client->records;
    }
    double seconds = (double)(clock_monotonic_ns() - start_ns) / 1e9;
    double cpu_seconds = pid ? (double)(cpu_ticks(pid) - ticks) / (double)sysconf(_SC_CLK_TCK) : 0;
    for (unsigned i = 0; i < count; i++)
        kafka_client_close(readings[i].client);
    printf("{\"bytes_per_second\":%.0f,\"records\":%llu,\"server_cpu_seconds\":%.3f,"
           "\"server_cpu_seconds_per_gb\":%.3f}\n",
           (double)received / seconds, (unsigned long long)records, cpu_seconds,
           cpu_seconds / ((double)received / 1e9));
    return 0;
}

static void serve_file(int listener, const char *path) {
    int to = accept(listener, NULL, NULL), from = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (to < 0 || from < 0 || fstat(from, &status) != 0)
        kafka_client_die(path);
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
        kafka_client_die("listen");
    pid_t child = fork();
    if (child == 0)
        serve_file(listener, path);
    char host_port[64];
    snprintf(host_port, sizeof(host_port), "127.0.0.1:%d", ntohs(address.sin_port));
    int fd = kafka_client_connect(host_port);
    uint64_t start_ns = clock_monotonic_ns(), now_ns,
             length_ns = strtoull(seconds_text, NULL, 10) * 1000000000;
    do {
        ssize_t got = recv(fd, buffer, BUFFER_SIZE, 0);
        if (got <= 0)
            kafka_client_die("recv");
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
    unsigned readers = argc > 8 ? (unsigned)atoi(argv[8]) : 1;
    if (argc < 7 || argc > 10 || readers < 1 || readers > READERS_MAX)
        return 64;
    return run_gateway(argv + 1, argc > 7 ? atoi(argv[7]) : 0, readers, argc == 10);
}
