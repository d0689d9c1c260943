/*
 * How long after the device has its acknowledgement a consumer that waits has the event: devices
 * publish numbered QoS 1 messages at a steady rate, one Kafka client reads at the end of the topic,
 * all in this process, so that there is one clock.
 *
 *     latency_bench MQTT-PORT KAFKA-HOST-PORT USER PASSWORD TOPIC PARTITIONS DEVICES SECONDS RATE
 *
 * DEVICES: a file with lines of user and key; the first 16 are taken. Prints one JSON line. Where
 * the consumer was first, the time counts as 0.
 */
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/writer.h"
#include "tests/perf/kafka_client.h"

enum { DEVICES = 16, MESSAGES_MAX = 4000000, PACKET_IDS = 65536, MARK_SIZE = 9, WARM_UP_S = 1 };

static const char MARK[] = "duragate:"; /* behind it the number, eight digits */

struct message {
    uint64_t sent_ns, acked_ns, received_ns;
};

struct device {
    int fd;
    uint16_t packet_id;
    uint32_t number_of_id[PACKET_IDS];
    uint8_t kept[4]; /* of an acknowledgement that has come in part */
    size_t kept_size;
};

static struct device devices[DEVICES];
static struct message messages[MESSAGES_MAX];
static atomic_bool stopped;
static atomic_uint acked_count;

static void write_field(struct writer *w, const void *data, size_t size) {
    writer_u16(w, (uint16_t)size);
    writer_bytes(w, data, size);
}

/* A packet is its first byte, the length in one or two bytes, the body. */
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
        kafka_client_die("send");
}

static void connect_device(struct device *device, const char *host_port, const char *user,
                           const char *key) {
    uint8_t bytes[768], answer[4];
    struct writer w = writer_make(bytes, sizeof(bytes));
    write_field(&w, "MQTT", 4);
    writer_bytes(&w, "\x04\xc2\x00\x3c", 4); /* 3.1.1; user, password, clean session; 60 s */
    write_field(&w, user, strlen(user));
    write_field(&w, user, strlen(user));
    write_field(&w, key, strlen(key));
    device->fd = kafka_client_connect(host_port);
    send_packet(device->fd, 0x10, &w);
    if (recv(device->fd, answer, 4, MSG_WAITALL) != 4 || answer[3] != 0)
        kafka_client_die("CONNECT refused");
}

static void connect_devices(const char *port, const char *path) {
    char host_port[64], user[300], key[300];
    FILE *file = fopen(path, "re");
    snprintf(host_port, sizeof(host_port), "127.0.0.1:%s", port);
    for (unsigned i = 0; i < DEVICES; i++) {
        if (!file || fscanf(file, "%299s %299s", user, key) != 2)
            kafka_client_die(path);
        connect_device(&devices[i], host_port, user, key);
    }
    fclose(file);
}

static void publish(uint32_t number) {
    static const char filler[256 - MARK_SIZE - 8];
    uint8_t bytes[512];
    char digits[16];
    struct device *device = &devices[number % DEVICES];
    struct writer w = writer_make(bytes, sizeof(bytes));
    device->packet_id = device->packet_id == UINT16_MAX ? 1 : device->packet_id + 1;
    device->number_of_id[device->packet_id] = number;
    snprintf(digits, sizeof(digits), "%08u", number);
    write_field(&w, "latency", 7);
    writer_u16(&w, device->packet_id);
    writer_bytes(&w, MARK, MARK_SIZE);
    writer_bytes(&w, digits, 8);
    writer_bytes(&w, filler, sizeof(filler));
    messages[number].sent_ns = clock_monotonic_ns();
    send_packet(device->fd, 0x32, &w);
}

static void take_acks(struct device *device) {
    uint8_t bytes[4096];
    memcpy(bytes, device->kept, device->kept_size);
    ssize_t got = recv(device->fd, bytes + device->kept_size, sizeof(bytes) - 4, 0);
    if (got <= 0)
        kafka_client_die("the gateway closed a device's connection");
    uint64_t now_ns = clock_monotonic_ns();
    size_t size = device->kept_size + (size_t)got, at = 0;
    for (; size - at >= 4; at += 4) {
        messages[device->number_of_id[bytes[at + 2] << 8 | bytes[at + 3]]].acked_ns = now_ns;
        atomic_fetch_add(&acked_count, 1);
    }
    device->kept_size = size - at;
    memcpy(device->kept, bytes + at, size - at);
}

static void *read_acks(void *context) {
    struct pollfd fds[DEVICES];
    for (unsigned i = 0; i < DEVICES; i++)
        fds[i] = (struct pollfd){.fd = devices[i].fd, .events = POLLIN};
    while (!atomic_load(&stopped))
        if (poll(fds, DEVICES, 100) > 0)
            for (unsigned i = 0; i < DEVICES; i++)
                if (fds[i].revents)
                    take_acks(&devices[i]);
    return NULL;
}

static void find_messages(void *context, const uint8_t *records, size_t size) {
    uint64_t now_ns = clock_monotonic_ns();
    const uint8_t *at = records, *end = records + size;
    while ((at = memmem(at, (size_t)(end - at), MARK, MARK_SIZE)) && end - at >= MARK_SIZE + 8) {
        char digits[9] = {0};
        memcpy(digits, at + MARK_SIZE, 8);
        unsigned long number = strtoul(digits, NULL, 10);
        if (number < MESSAGES_MAX)
            messages[number].received_ns = now_ns;
        at += MARK_SIZE;
    }
}

static void *consume(void *context) {
    struct kafka_client *client = context;
    while (!atomic_load(&stopped))
        kafka_client_fetch(client, 500);
    return NULL;
}

static void publish_steadily(uint32_t count, uint64_t rate) {
    uint64_t start_ns = clock_monotonic_ns();
    for (uint32_t sent = 0; sent < count; sent++) {
        uint64_t due_ns = start_ns + sent * 1000000000ull / rate;
        struct timespec due = {.tv_sec = (time_t)(due_ns / 1000000000u),
                               .tv_nsec = (long)(due_ns % 1000000000u)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
        publish(sent);
    }
}

static int compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void print_quantiles(const char *name, uint64_t *times_ns, size_t count, const char *end) {
    qsort(times_ns, count, sizeof(*times_ns), compare);
    printf("\"%s_p50_us\":%.1f,\"%s_p99_us\":%.1f%s", name, (double)times_ns[count / 2] / 1e3, name,
           (double)times_ns[count * 99 / 100] / 1e3, end);
}

static int report(uint32_t count, uint64_t rate) {
    static uint64_t acks[MESSAGES_MAX], reads[MESSAGES_MAX];
    size_t measured = 0;
    for (uint32_t i = (uint32_t)rate * WARM_UP_S; i < count; i++) {
        const struct message *m = &messages[i];
        if (m->acked_ns == 0 || m->received_ns == 0) {
            fprintf(stderr, "message %u was %s\n", i,
                    m->acked_ns ? "not read" : "not acknowledged");
            return 1;
        }
        acks[measured] = m->acked_ns - m->sent_ns;
        reads[measured++] = m->received_ns > m->acked_ns ? m->received_ns - m->acked_ns : 0;
    }
    printf("{\"messages\":%zu,", measured);
    print_quantiles("ack", acks, measured, ",");
    print_quantiles("read_after_ack", reads, measured, "}\n");
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 10)
        return 64;
    uint64_t rate = strtoull(argv[9], NULL, 10), wanted = (strtoull(argv[8], NULL, 10) + 1) * rate;
    uint32_t count = wanted < MESSAGES_MAX ? (uint32_t)wanted : MESSAGES_MAX;
    pthread_t acks, consumer;
    connect_devices(argv[1], argv[7]);
    struct kafka_client *client =
        kafka_client_open(argv[2], argv[3], argv[4], argv[5], (unsigned)atoi(argv[6]));
    kafka_client_go_to_end(client);
    client->visit = find_messages;
    if (pthread_create(&acks, NULL, read_acks, NULL) != 0 ||
        pthread_create(&consumer, NULL, consume, client) != 0)
        kafka_client_die("pthread_create");
    publish_steadily(count, rate);
    for (unsigned i = 0; i < 100 && atomic_load(&acked_count) < count; i++)
        usleep(100000);
    sleep(1); /* what the consumer still has to get */
    atomic_store(&stopped, true);
    pthread_join(acks, NULL);
    pthread_join(consumer, NULL);
    return report(count, rate);
}
