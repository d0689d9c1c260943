/*
 * From a back end's POST to the device that receives the command: devices with a subscription to
 * $dg/commands/# and back ends with connections of their own, all in this process, so that there is
 * one clock.
 *
 *     command_bench MQTT-PORT HTTP-PORT TENANT API-KEY DEVICES COUNT COMMANDS CONNECTIONS PAUSE-MS
 *
 * DEVICES: a file with lines of user (device@tenant) and key, of which the first COUNT connect.
 * COMMANDS are posted to them in turn, over so many connections at a time; each waits for its
 * answer (202: committed in PostgreSQL), then PAUSE-MS. Devices acknowledge (QoS 1) and reply (QoS
 * 0). Prints one JSON line.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/writer.h"

enum { NAME_SIZE = 192, BACK_ENDS_MAX = 256, BUFFER_SIZE = 4096, IDLE_MS = 10000 };

struct device {
    int fd;
    char name[NAME_SIZE];
    uint8_t kept[BUFFER_SIZE]; /* of a packet that has come in part */
    size_t kept_size;
};

struct back_end {
    int fd;
    char answer[BUFFER_SIZE];
    size_t answer_size;
    uint64_t next_ns; /* when it posts again */
    bool is_waiting;
};

static struct device *devices;
static struct back_end back_ends[BACK_ENDS_MAX];
static uint64_t *posted_ns, *accepted_ns, *received_ns;
static unsigned device_count, command_count, back_end_count, pause_ms;
static const char *tenant, *api_key;
static atomic_uint received_count;
static atomic_bool is_over;

_Noreturn static void die(const char *what) {
    fprintf(stderr, "command_bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int connect_to(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(port)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0)
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

/* ---- devices ---- */

static void write_field(struct writer *w, const char *text) {
    writer_u16(w, (uint16_t)strlen(text));
    writer_string(w, text);
}

/* The length takes two bytes at most. */
static void send_packet(int fd, uint8_t first, const struct writer *body) {
    uint8_t packet[1024];
    size_t size = writer_size(body);
    struct writer w = writer_make(packet, sizeof(packet));
    writer_u8(&w, first);
    if (size > 127)
        writer_u8(&w, (uint8_t)(size | 128));
    writer_u8(&w, (uint8_t)(size > 127 ? size >> 7 : size));
    writer_bytes(&w, body->start, size);
    if (w.failed || send(fd, packet, writer_size(&w), MSG_NOSIGNAL) != (ssize_t)writer_size(&w))
        die("send to the gateway");
}

static void expect(int fd, uint8_t first, size_t size) {
    uint8_t answer[8];
    if (recv(fd, answer, size, MSG_WAITALL) != (ssize_t)size || answer[0] != first ||
        answer[size - 1] > 2)
        die("refused by the gateway");
}

static void connect_device(struct device *device, const char *port, const char *user,
                           const char *key) {
    uint8_t bytes[768];
    struct writer w = writer_make(bytes, sizeof(bytes));
    snprintf(device->name, sizeof(device->name), "%.*s", (int)strcspn(user, "@"), user);
    write_field(&w, "MQTT");
    writer_bytes(&w, "\x04\xc2\x00\x00", 4); /* 3.1.1; user, password, clean session */
    write_field(&w, device->name);
    write_field(&w, user);
    write_field(&w, key);
    device->fd = connect_to(port);
    send_packet(device->fd, 0x10, &w);
    expect(device->fd, 0x20, 4);
    w = writer_make(bytes, sizeof(bytes));
    writer_u16(&w, 1);
    write_field(&w, "$dg/commands/#");
    writer_u8(&w, 1);
    send_packet(device->fd, 0x82, &w);
    expect(device->fd, 0x90, 5);
}

static void reply(const struct device *device, const uint8_t *id, size_t id_size) {
    uint8_t bytes[128];
    char topic[64];
    struct writer w = writer_make(bytes, sizeof(bytes));
    snprintf(topic, sizeof(topic), "$dg/replies/%.*s/200", (int)id_size, (const char *)id);
    write_field(&w, topic);
    send_packet(device->fd, 0x30, &w);
}

/* A PUBLISH of QoS 1: topic, packet identifier, payload {"n":12}. */
static void take_command(const struct device *device, const uint8_t *body, size_t size) {
    static const char prefix[] = "$dg/commands/";
    size_t topic_size = (size_t)body[0] << 8 | body[1];
    const uint8_t *id = body + 2 + strlen(prefix);
    const uint8_t *end = memchr(id, '/', topic_size - strlen(prefix));
    const char *payload = (const char *)body + 2 + topic_size + 2;
    char text[64] = "";
    memcpy(text, payload, (size_t)((const char *)body + size - payload) % sizeof(text));
    unsigned n = (unsigned)strtoul(text + 5, NULL, 10);
    if (n >= command_count || !end)
        die("not one of our commands");
    if (received_ns[n] == 0)
        atomic_fetch_add(&received_count, 1);
    received_ns[n] = clock_monotonic_ns();
    uint8_t id_bytes[2] = {body[2 + topic_size], body[3 + topic_size]};
    struct writer w = writer_make(id_bytes, sizeof(id_bytes));
    w.at += 2;
    send_packet(device->fd, 0x40, &w);
    reply(device, id, (size_t)(end - id));
}

/* Returns how much was used. */
static size_t take_packet(const struct device *device, const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    size_t head = data[1] & 128 ? 3 : 2;
    if (size < head)
        return 0;
    size_t body = head == 3 ? (size_t)(data[1] & 127) | (size_t)data[2] << 7 : data[1];
    if (size < head + body)
        return 0;
    if (data[0] >> 4 == 3)
        take_command(device, data + head, body);
    return head + body;
}

static void read_device(struct device *device) {
    ssize_t got = recv(device->fd, device->kept + device->kept_size,
                       sizeof(device->kept) - device->kept_size, 0);
    if (got <= 0)
        die("the gateway has closed a device's connection");
    device->kept_size += (size_t)got;
    size_t at = 0, used;
    while ((used = take_packet(device, device->kept + at, device->kept_size - at)) > 0)
        at += used;
    memmove(device->kept, device->kept + at, device->kept_size - at);
    device->kept_size -= at;
}

static void *run_devices(void *context) {
    int epoll = *(int *)context;
    struct epoll_event events[256];
    while (!atomic_load(&is_over)) {
        int count = epoll_wait(epoll, events, 256, 100);
        for (int i = 0; i < count; i++)
            read_device(events[i].data.ptr);
    }
    return NULL;
}

static int connect_devices(const char *port, const char *path) {
    char user[NAME_SIZE], key[256];
    FILE *file = fopen(path, "re");
    int epoll = epoll_create1(0);
    if (!file || epoll < 0)
        die(path);
    for (unsigned i = 0; i < device_count; i++) {
        if (fscanf(file, "%191s %255s", user, key) != 2)
            die("the file has too few devices");
        connect_device(&devices[i], port, user, key);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &devices[i]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, devices[i].fd, &event);
    }
    fclose(file);
    return epoll;
}

/* ---- back ends ---- */

static void post(struct back_end *back_end, unsigned n) {
    char body[128], request[1024];
    int body_size = snprintf(body, sizeof(body), "{\"name\":\"set\",\"payload\":{\"n\":%u}}", n);
    int size = snprintf(request, sizeof(request),
                        "POST /v1/tenants/%s/devices/%s/commands HTTP/1.1\r\nHost: localhost\r\n"
                        "Authorization: Bearer %s\r\nContent-Type: application/json\r\n"
                        "Content-Length: %d\r\n\r\n%s",
                        tenant, devices[n % device_count].name, api_key, body_size, body);
    posted_ns[n] = clock_monotonic_ns();
    if (send(back_end->fd, request, (size_t)size, MSG_NOSIGNAL) != size)
        die("send to the API");
    back_end->is_waiting = true;
    back_end->answer_size = 0;
}

/* Whether the answer is whole. */
static bool read_answer(struct back_end *back_end) {
    ssize_t got = recv(back_end->fd, back_end->answer + back_end->answer_size,
                       sizeof(back_end->answer) - 1 - back_end->answer_size, 0);
    if (got <= 0)
        die("the gateway has closed a back end's connection");
    back_end->answer_size += (size_t)got;
    back_end->answer[back_end->answer_size] = '\0';
    const char *end = strstr(back_end->answer, "\r\n\r\n");
    const char *length = strcasestr(back_end->answer, "content-length: ");
    if (!end || !length ||
        back_end->answer_size <
            (size_t)(end + 4 - back_end->answer) + strtoul(length + 16, NULL, 10))
        return false;
    if (strncmp(back_end->answer, "HTTP/1.1 202", 12) != 0) {
        fprintf(stderr, "command_bench: %s\n", back_end->answer);
        exit(1);
    }
    return true;
}

static void post_all(void) {
    unsigned next = 0, done = 0;
    static unsigned posted[BACK_ENDS_MAX];
    while (done < command_count) {
        struct pollfd polled[BACK_ENDS_MAX];
        uint64_t now_ns = clock_monotonic_ns();
        for (unsigned i = 0; i < back_end_count; i++) {
            struct back_end *back_end = &back_ends[i];
            if (!back_end->is_waiting && next < command_count && back_end->next_ns <= now_ns)
                post(back_end, posted[i] = next++);
            polled[i] = (struct pollfd){.fd = back_end->fd, .events = POLLIN};
        }
        if (poll(polled, back_end_count, pause_ms > 0 ? 1 : 100) < 0)
            die("poll");
        for (unsigned i = 0; i < back_end_count; i++) {
            if (!polled[i].revents || !read_answer(&back_ends[i]))
                continue;
            accepted_ns[posted[i]] = clock_monotonic_ns();
            back_ends[i].is_waiting = false;
            back_ends[i].next_ns = clock_monotonic_ns() + pause_ms * 1000000ull;
            done++;
        }
    }
}

/* ---- figures ---- */

static int compare(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static double quantile_us(const uint64_t *end_ns, double part) {
    uint64_t *times = calloc(command_count, sizeof(*times));
    for (unsigned i = 0; i < command_count; i++)
        times[i] = end_ns[i] > posted_ns[i] ? end_ns[i] - posted_ns[i] : 0;
    qsort(times, command_count, sizeof(*times), compare);
    double value = (double)times[(unsigned)((command_count - 1) * part)] / 1000;
    free(times);
    return value;
}

static uint64_t last(const uint64_t *times) {
    uint64_t most = 0;
    for (unsigned i = 0; i < command_count; i++)
        most = times[i] > most ? times[i] : most;
    return most;
}

static void wait_for_devices(void) {
    unsigned seen = 0;
    for (int idle_ms = 0; atomic_load(&received_count) < command_count && idle_ms < IDLE_MS;
         idle_ms++) {
        usleep(1000);
        if (atomic_load(&received_count) != seen)
            idle_ms = 0;
        seen = atomic_load(&received_count);
    }
}

int main(int argument_count, char **arguments) {
    if (argument_count != 10) {
        fprintf(stderr, "usage: command_bench MQTT-PORT HTTP-PORT TENANT API-KEY DEVICES COUNT "
                        "COMMANDS CONNECTIONS PAUSE-MS\n");
        return 64;
    }
    tenant = arguments[3];
    api_key = arguments[4];
    device_count = (unsigned)atoi(arguments[6]);
    command_count = (unsigned)atoi(arguments[7]);
    back_end_count = (unsigned)atoi(arguments[8]) % (BACK_ENDS_MAX + 1);
    pause_ms = (unsigned)atoi(arguments[9]);
    devices = calloc(device_count, sizeof(*devices));
    posted_ns = calloc(command_count, sizeof(*posted_ns));
    accepted_ns = calloc(command_count, sizeof(*accepted_ns));
    received_ns = calloc(command_count, sizeof(*received_ns));
    if (!devices || !posted_ns || !accepted_ns || !received_ns)
        die("memory");
    int epoll = connect_devices(arguments[1], arguments[5]);
    for (unsigned i = 0; i < back_end_count; i++)
        back_ends[i].fd = connect_to(arguments[2]);
    pthread_t thread;
    pthread_create(&thread, NULL, run_devices, &epoll);
    post_all();
    wait_for_devices();
    atomic_store(&is_over, true);
    pthread_join(thread, NULL);
    printf("{\"commands\": %u, \"received\": %u, \"accepted_s\": %.3f, \"received_s\": %.3f, "
           "\"accepted_p50_us\": %.0f, \"accepted_p99_us\": %.0f, \"received_p50_us\": %.0f, "
           "\"received_p99_us\": %.0f}\n",
           command_count, atomic_load(&received_count),
           (double)(last(accepted_ns) - posted_ns[0]) / 1e9,
           (double)(last(received_ns) - posted_ns[0]) / 1e9, quantile_us(accepted_ns, 0.5),
           quantile_us(accepted_ns, 0.99), quantile_us(received_ns, 0.5),
           quantile_us(received_ns, 0.99));
    return atomic_load(&received_count) == command_count ? 0 : 1;
}
