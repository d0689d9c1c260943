/*
 * Publishes numbered messages of QoS 1 or 2 from several devices with libmosquitto and writes a
 * line "<device> <number>" to standard output for each one that the gateway acknowledged. Survives
 * the gateway's death: libmosquitto reconnects and sends again what was not acknowledged.
 *
 *     acked_publisher PORT SECONDS QOS USER KEY [USER KEY ...]
 *
 * With QoS 2 the sessions outlive their connections. QOS "sequence" is 1 with a producer sequence
 * in the topic. Ends after SECONDS of publishing, once everything is acknowledged (or 30 s later,
 * exit code 2).
 */
#include <mosquitto.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { DEVICES_MAX = 64, MIDS = 65536, WINDOW = 32, WAIT_SECONDS = 30 };

struct device {
    struct mosquitto *client;
    const char *user;
    pthread_mutex_t lock;
    unsigned in_flight;
    uint64_t next, acked;
    uint64_t number_of_mid[MIDS];
};

static struct device devices[DEVICES_MAX];
static int qos;
static bool with_sequence;

static void on_publish(struct mosquitto *client, void *context, int mid) {
    struct device *device = context;
    pthread_mutex_lock(&device->lock);
    uint64_t number = device->number_of_mid[mid];
    device->in_flight--;
    device->acked++;
    pthread_mutex_unlock(&device->lock);
    printf("%s %llu\n", device->user, (unsigned long long)number);
}

static bool device_start(struct device *device, int port, char *user, char *key) {
    device->user = user;
    device->next = 1;
    pthread_mutex_init(&device->lock, NULL);
    device->client = mosquitto_new(user, qos != 2, device);
    if (!device->client)
        return false;
    mosquitto_username_pw_set(device->client, user, key);
    mosquitto_publish_callback_set(device->client, on_publish);
    mosquitto_reconnect_delay_set(device->client, 1, 1, false);
    mosquitto_max_inflight_messages_set(device->client, WINDOW);
    return mosquitto_connect(device->client, "127.0.0.1", port, 30) == MOSQ_ERR_SUCCESS &&
           mosquitto_loop_start(device->client) == MOSQ_ERR_SUCCESS;
}

/* Fills the device's window; the number is remembered before its acknowledgement can arrive.
 * Without a connection libmosquitto says so, yet has taken the message and sends it after
 * reconnecting. */
static void device_publish(struct device *device) {
    pthread_mutex_lock(&device->lock);
    while (device->in_flight < WINDOW) {
        char payload[64], topic[64] = "load";
        unsigned long long number = device->next;
        int mid, size = snprintf(payload, sizeof(payload), "%llu", number);
        if (with_sequence)
            snprintf(topic, sizeof(topic), "load/$seq/flash:1:%llu", number);
        int err = mosquitto_publish(device->client, &mid, topic, size, payload, qos, false);
        if (err != MOSQ_ERR_SUCCESS && err != MOSQ_ERR_NO_CONN)
            break;
        device->number_of_mid[mid] = device->next++;
        device->in_flight++;
    }
    pthread_mutex_unlock(&device->lock);
}

static unsigned total_in_flight(unsigned count) {
    unsigned total = 0;
    for (unsigned i = 0; i < count; i++) {
        pthread_mutex_lock(&devices[i].lock);
        total += devices[i].in_flight;
        pthread_mutex_unlock(&devices[i].lock);
    }
    return total;
}

int main(int argc, char **argv) {
    if (argc < 6 || (argc - 4) % 2 != 0 || (argc - 4) / 2 > DEVICES_MAX)
        return 64;
    mosquitto_lib_init();
    with_sequence = strcmp(argv[3], "sequence") == 0;
    qos = with_sequence ? 1 : atoi(argv[3]);
    unsigned count = (unsigned)(argc - 4) / 2;
    for (unsigned i = 0; i < count; i++)
        if (!device_start(&devices[i], atoi(argv[1]), argv[4 + 2 * i], argv[5 + 2 * i]))
            return 69;
    time_t end = time(NULL) + atoi(argv[2]);
    while (time(NULL) < end) {
        for (unsigned i = 0; i < count; i++)
            device_publish(&devices[i]);
        usleep(1000);
    }
    for (int waited = 0; total_in_flight(count) > 0 && waited < WAIT_SECONDS * 100; waited++)
        usleep(10000);
    unsigned left = total_in_flight(count);
    for (unsigned i = 0; left > 0 && i < count; i++)
        fprintf(stderr, "%s: %llu published, %llu acknowledged, %u in flight\n", devices[i].user,
                (unsigned long long)devices[i].next - 1, (unsigned long long)devices[i].acked,
                devices[i].in_flight);
    for (unsigned i = 0; i < count; i++) {
        mosquitto_disconnect(devices[i].client);
        mosquitto_loop_stop(devices[i].client, false);
    }
    fflush(stdout);
    return left == 0 ? 0 : 2;
}
