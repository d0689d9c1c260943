/*
 * What the storage path costs by itself: one worker's thread appends 256-byte events with realistic
 * headers over 16 partitions. Not a test; run it on an idle machine:
 *
 *     storage_bench <directory> flood|rate <events> [partitions [events per second [stream]]]
 *
 * The directory is empty, or a store with a journal of the default size; then the log grows.
 * flood: as fast as storage takes them. rate: that many a second, each turn what is due. Prints CPU
 * time of the whole process per event (worker, committer, placer, kernel work on their behalf) and
 * the time from append to ticket.
 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "common/murmur2.h"
#include "storage/record.h"
#include "storage/stream.h"

enum { EVENT_BYTES = 256, TURN_EVENTS = 200, BUCKETS = 1 << 20, WARM_UP_EVENTS = 10000 };

struct bench {
    struct mailbox mailbox;
    struct stream_appender *appender;
    uint64_t stream_id;
    uint64_t acked;
    uint32_t *latencies_us; /* histogram: one bucket a microsecond */
};

static void on_done(void *context, const struct stream_ticket *ticket, int err, int64_t offset) {
    struct bench *bench = context;
    uint64_t us = (clock_monotonic_ns() - ticket->tag) / 1000;
    bench->latencies_us[us < BUCKETS ? us : BUCKETS - 1]++;
    bench->acked++;
}

static void on_ready(void *context) {
}

static uint64_t percentile(const struct bench *bench, double share) {
    uint64_t wanted = (uint64_t)(share * (double)bench->acked), seen = 0;
    for (uint32_t us = 0; us < BUCKETS; us++)
        if ((seen += bench->latencies_us[us]) > wanted)
            return us;
    return BUCKETS;
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static size_t write_headers(uint8_t *bytes, size_t size) {
    static const char *const headers[][2] = {
        {"ce_specversion", "1.0"},
        {"ce_id", "gw1-65f0c2a1-0-1234567"},
        {"ce_source", "/tenants/acme/devices/dev00012345"},
        {"ce_type", "duragate.telemetry.v1"},
        {"ce_subject", "plant/7/line/3/temperature"},
        {"ce_time", "2026-11-24T13:02:03.456Z"},
        {"content-type", "application/octet-stream"},
        {"ce_protocol", "mqtt3.1.1"},
        {"ce_qos", "1"},
    };
    struct writer w = writer_make(bytes, size);
    for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
        record_write_header(&w, slice_from_string(headers[i][0]), slice_from_string(headers[i][1]));
    return writer_size(&w);
}

static int append(struct bench *bench, uint64_t number, uint32_t partitions, uint64_t now_ns,
                  int64_t now_ms) {
    static uint8_t value[EVENT_BYTES];
    uint8_t headers[512];
    static size_t header_bytes;
    static uint8_t template[512];
    if (header_bytes == 0)
        header_bytes = write_headers(template, sizeof(template));
    memcpy(headers, template, header_bytes);
    struct iovec part = {.iov_base = headers, .iov_len = header_bytes};
    char key[16];
    memcpy(key, "dev00000000", 11);
    memcpy(key + 3, &number, 3);
    struct stream_record record = {
        .timestamp_ms = now_ms,
        .key = slice_make(key, 11),
        .value = slice_make(value, sizeof(value)),
        .headers = &part,
        .header_parts = 1,
        .header_count = 9,
    };
    return stream_append(bench->appender, bench->stream_id,
                         (uint32_t)(number * 2654435761u >> 7) % partitions, &record,
                         (struct stream_ticket){.owner = 1, .tag = now_ns});
}

static void drain(struct bench *bench, int timeout_ms) {
    struct pollfd wait = {.fd = mailbox_fd(&bench->mailbox), .events = POLLIN};
    if (poll(&wait, 1, timeout_ms) > 0)
        mailbox_drain(&bench->mailbox);
}

static void flood(struct bench *bench, uint64_t count, uint32_t partitions) {
    uint64_t sent = 0;
    while (bench->acked < count) {
        uint64_t now_ns = clock_monotonic_ns();
        int64_t now_ms = clock_wall_ms();
        int err = 0;
        for (unsigned i = 0; i < TURN_EVENTS && sent < count && err == 0; i++)
            if ((err = append(bench, sent, partitions, now_ns, now_ms)) == 0)
                sent++;
        stream_appender_turn(bench->appender);
        drain(bench, err < 0 || sent == count ? 100 : 0);
    }
}

static void steady(struct bench *bench, uint64_t count, uint32_t partitions, uint64_t rate) {
    uint64_t started_ns = clock_monotonic_ns(), sent = 0;
    while (bench->acked < count) {
        uint64_t now_ns = clock_monotonic_ns();
        int64_t now_ms = clock_wall_ms();
        uint64_t due = (now_ns - started_ns) * rate / 1000000000u + 1;
        while (sent < due && sent < count && append(bench, sent, partitions, now_ns, now_ms) == 0)
            sent++;
        stream_appender_turn(bench->appender);
        struct pollfd wait = {.fd = mailbox_fd(&bench->mailbox), .events = POLLIN};
        uint64_t next_ns = started_ns + sent * 1000000000u / rate;
        now_ns = clock_monotonic_ns();
        uint64_t left_ns = next_ns > now_ns ? next_ns - now_ns : 0;
        struct timespec left = {.tv_sec = (time_t)(left_ns / 1000000000u),
                                .tv_nsec = (long)(left_ns % 1000000000u)};
        if (sent == count)
            left.tv_sec = 1;
        if (ppoll(&wait, 1, &left, NULL) > 0)
            mailbox_drain(&bench->mailbox);
    }
}

static void report(const struct bench *bench, double cpu_s, double wall_s) {
    double count = (double)bench->acked;
    printf("%.0f events, %.0f/s, %.3f us CPU per event, p50 %" PRIu64 " us, p99 %" PRIu64
           " us, max %" PRIu64 " us\n",
           count, count / wall_s, cpu_s * 1e6 / count, percentile(bench, 0.5),
           percentile(bench, 0.99), percentile(bench, 0.9999));
}

int main(int argument_count, char **arguments) {
    if (argument_count < 4) {
        fprintf(stderr,
                "usage: storage_bench DIRECTORY flood|rate EVENTS [PARTITIONS [RATE [STREAM]]]\n");
        return 64;
    }
    struct stream_options options = {
        .directory = arguments[1],
        .journal_size_bytes = 256 * 1024 * 1024,
        .segment_size_bytes = 128 * 1024 * 1024,
        .segment_age_ms = 86400000,
    };
    uint64_t count = strtoull(arguments[3], NULL, 10);
    uint32_t partitions = argument_count > 4 ? (uint32_t)atoi(arguments[4]) : 16;
    uint64_t rate = argument_count > 5 ? strtoull(arguments[5], NULL, 10) : 2000;
    struct stream *stream;
    struct bench bench = {.latencies_us = calloc(BUCKETS, sizeof(uint32_t)),
                          .stream_id = argument_count > 6 ? strtoull(arguments[6], NULL, 10) : 1};
    char error[STREAM_ERROR_SIZE] = "";
    if (stream_open(&options, &stream, error) < 0 || mailbox_init(&bench.mailbox, &bench) < 0 ||
        stream_appender_create(stream, &bench.mailbox, on_done, on_ready, &bench, &bench.appender) <
            0) {
        fprintf(stderr, "storage_bench: %s\n", error);
        return 1;
    }
    flood(&bench, WARM_UP_EVENTS + 4 * partitions,
          partitions); /* every partition has its segment */
    bench.acked = 0;
    memset(bench.latencies_us, 0, BUCKETS * sizeof(uint32_t));
    double cpu_s = cpu_seconds();
    uint64_t started_ns = clock_monotonic_ns();
    if (strcmp(arguments[2], "flood") == 0)
        flood(&bench, count, partitions);
    else
        steady(&bench, count, partitions, rate);
    report(&bench, cpu_seconds() - cpu_s, (double)(clock_monotonic_ns() - started_ns) / 1e9);
    stream_appender_free(bench.appender);
    stream_close(stream);
    mailbox_drain(&bench.mailbox);
    mailbox_free(&bench.mailbox);
    free(bench.latencies_us);
    return 0;
}
