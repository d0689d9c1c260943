/* Cost of one PUBLISH on its way in: decoding and event building. Prints ns per call. */
#include <stdio.h>

#include "common/clock.h"
#include "gateway/event/event.h"
#include "gateway/mqtt/packet.h"

enum { ROUNDS = 5, CALLS = 2000000, PAYLOAD_BYTES = 256 };

static uint8_t packet[1024];
static struct event_scratch scratch;

static const char PROPERTIES[] = "\x26\0\x04site\0\x06munich\x26\0\x04unit\0\x01"
                                 "C";

static struct slice write_body(enum mqtt_version version, struct slice properties) {
    static const uint8_t payload[PAYLOAD_BYTES];
    struct writer w = writer_make(packet, sizeof packet);
    mqtt_write_publish(&w, version, false, 1, false, slice_from_string("plant/7/line/3/temp1"), 7,
                       properties, slice_make(payload, sizeof payload));
    size_t header_size = 0;
    int size = mqtt_packet_frame(packet, writer_size(&w), sizeof packet, &header_size);
    return slice_make(packet + header_size, (size_t)size - header_size);
}

static struct device_event event_of(const struct mqtt_publish *publish) {
    return (struct device_event){.type = EVENT_TELEMETRY,
                                 .protocol = "mqtt5",
                                 .qos = 1,
                                 .subject = publish->topic,
                                 .user_properties = publish->properties.raw,
                                 .user_property_count = publish->properties.user_count,
                                 .payload = publish->payload,
                                 .received_ms = 1795525323456};
}

static double decode_ns(enum mqtt_version version, struct slice body,
                        struct mqtt_publish *publish) {
    struct mqtt_fault fault;
    uint64_t start = clock_monotonic_ns();
    for (unsigned i = 0; i < CALLS; i++) {
        if (mqtt_publish_decode(version, packet[0], body, publish, &fault) < 0)
            return -1;
        __asm__ volatile("" : : "r"(publish) : "memory");
    }
    return (double)(clock_monotonic_ns() - start) / CALLS;
}

static double build_ns(const struct mqtt_publish *publish) {
    struct event_source source = {.tenant = slice_from_string("acme"),
                                  .device = slice_from_string("boiler-000042")};
    struct event_counter counter = {.prefix = "gw1-65f0c2a1-0-", .prefix_size = 15};
    struct stream_record record;
    struct device_event event = event_of(publish);
    uint64_t start = clock_monotonic_ns();
    for (unsigned i = 0; i < CALLS; i++) {
        if (event_build(&event, &source, &counter, &scratch, &record) < 0)
            return -1;
        __asm__ volatile("" : : "r"(&record) : "memory");
    }
    return (double)(clock_monotonic_ns() - start) / CALLS;
}

/* The best of some rounds: what the code costs, not what the machine does beside it. */
static void measure(const char *name, enum mqtt_version version, struct slice properties) {
    double decode = 1e9, build = 1e9;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct mqtt_publish publish = {0};
        struct slice body = write_body(version, properties);
        double ns = decode_ns(version, body, &publish);
        decode = ns < decode ? ns : decode;
        ns = build_ns(&publish);
        build = ns < build ? ns : build;
    }
    printf("%-28s decode %6.1f ns   event %6.1f ns\n", name, decode, build);
}

int main(void) {
    struct slice none = slice_make(NULL, 0);
    measure("MQTT 3.1.1", MQTT_VERSION_3_1_1, none);
    measure("MQTT 5", MQTT_VERSION_5, none);
    measure("MQTT 5, 2 user properties", MQTT_VERSION_5,
            slice_make(PROPERTIES, sizeof PROPERTIES - 1));
    return 0;
}
