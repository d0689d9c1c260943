/* `duragate bench`: runs the load generator and reports rate, latency, CPU and memory. */
#include "cli/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/err.h"
#include "gateway/mqtt/packet.h"

enum {
    EVENTS_MAX = 256,
    OUTPUT_SIZE = 65536,
    CONNECTING_MAX = 64, /* handshakes at once */
    CONNECT_TIMEOUT_S = 120,
    SETTLE_MS = 500,
};

/* ---- histogram
 * ------------------------------------------------------------------------------------ */

void histogram_add(struct histogram *h, uint64_t ns) {
    size_t slot = ns;
    if (ns >= HISTOGRAM_STEPS) {
        unsigned power = 63u - (unsigned)__builtin_clzll(ns / HISTOGRAM_STEPS);
        slot = (power + 1) * HISTOGRAM_STEPS + (ns >> power) - HISTOGRAM_STEPS;
    }
    if (slot >= HISTOGRAM_STEPS * HISTOGRAM_POWERS)
        slot = HISTOGRAM_STEPS * HISTOGRAM_POWERS - 1;
    h->count[slot]++;
    h->total++;
}

static uint64_t slot_value(size_t slot) {
    if (slot < HISTOGRAM_STEPS)
        return slot;
    return (slot % HISTOGRAM_STEPS + HISTOGRAM_STEPS) << (slot / HISTOGRAM_STEPS - 1);
}

uint64_t histogram_quantile(const struct histogram *h, double quantile) {
    uint64_t wanted = (uint64_t)(quantile * (double)h->total), seen = 0;
    for (size_t slot = 0; slot < HISTOGRAM_STEPS * HISTOGRAM_POWERS; slot++) {
        seen += h->count[slot];
        if (seen > wanted)
            return slot_value(slot);
    }
    return 0;
}

/* ---- the measured process
 * ------------------------------------------------------------------------- */

/* User and system time of a process with all its threads, µs; -1 when it cannot be read. */
static int64_t process_cpu_us(int64_t pid) {
    char path[64], line[1024];
    snprintf(path, sizeof(path), "/proc/%lld/stat", (long long)pid);
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    bool read = fgets(line, sizeof(line), file) != NULL;
    fclose(file);
    char *after_name = read ? strrchr(line, ')') : NULL;
    unsigned long user, system;
    if (!after_name || sscanf(after_name + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                              &user, &system) != 2)
        return -1;
    return (int64_t)(user + system) * 1000000 / sysconf(_SC_CLK_TCK);
}

static int64_t process_rss_bytes(int64_t pid) {
    char path[64];
    long long pages, resident;
    snprintf(path, sizeof(path), "/proc/%lld/statm", (long long)pid);
    FILE *file = fopen(path, "re");
    bool read = file && fscanf(file, "%lld %lld", &pages, &resident) == 2;
    if (file)
        fclose(file);
    return read ? resident * sysconf(_SC_PAGESIZE) : -1;
}

/* ---- running
 * -------------------------------------------------------------------------------------- */

static void handle_events(struct bench *bench, int timeout_ms) {
    struct epoll_event events[EVENTS_MAX];
    int count = epoll_wait(bench->epoll, events, EVENTS_MAX, timeout_ms);
    uint64_t now_ns = clock_monotonic_ns();
    for (int i = 0; i < count; i++)
        bench_connection_ready(events[i].data.ptr, events[i].events, now_ns);
}

static bool connect_all(struct bench *bench) {
    unsigned opened = 0, count = (unsigned)bench->options.connections;
    uint64_t start_ns = clock_monotonic_ns(), shown_ns = start_ns;
    while (bench->ready + bench->failed < count) {
        while (opened < count && opened - bench->ready - bench->failed < CONNECTING_MAX)
            bench_connection_open(bench, opened++);
        handle_events(bench, 100);
        uint64_t now_ns = clock_monotonic_ns();
        if (now_ns - start_ns > CONNECT_TIMEOUT_S * 1000000000ull)
            break;
        if (now_ns - shown_ns > 2000000000) {
            shown_ns = now_ns;
            fprintf(stderr, "connected %llu of %u\n", (unsigned long long)bench->ready, count);
        }
    }
    if (bench->ready == count)
        return true;
    cli_fail(bench->options.run, 0, "%llu of %u connected; %s", (unsigned long long)bench->ready,
             count, bench->failure[0] ? bench->failure : "time-out");
    return false;
}

/* Without a rate the acknowledgements drive; with one, a pass over the connections each 200 µs. */
static void run_for(struct bench *bench, int64_t duration_ms) {
    uint64_t end_ns = clock_monotonic_ns() + (uint64_t)duration_ms * 1000000;
    uint64_t now_ns;
    while ((now_ns = clock_monotonic_ns()) < end_ns && bench->ready > 0) {
        bool paced = bench->interval_ns || bench->options.qos == 0;
        handle_events(bench, paced ? 0 : 50);
        if (!paced)
            continue;
        for (int64_t i = 0; i < bench->options.connections; i++)
            bench_connection_publish(&bench->connections[i], now_ns);
        if (bench->interval_ns)
            usleep(100);
    }
}

static void begin_publishing(struct bench *bench) {
    uint64_t now_ns = clock_monotonic_ns();
    int64_t count = bench->options.connections;
    if (bench->options.rate > 0)
        bench->interval_ns = (uint64_t)count * 1000000000ull / (uint64_t)bench->options.rate;
    bench->publishing = true;
    for (int64_t i = 0; i < count; i++) {
        struct bench_connection *c = &bench->connections[i];
        c->due_ns = now_ns + bench->interval_ns * (uint64_t)i / (uint64_t)count;
        bench_connection_publish(c, now_ns);
    }
}

static bool encode_packet(struct bench *bench) {
    const struct bench_options *options = &bench->options;
    size_t size = (size_t)options->size_bytes + 64;
    uint8_t *payload = malloc((size_t)options->size_bytes + 1);
    bench->packet = malloc(size);
    if (!bench->packet || !payload)
        return false;
    memset(payload, 'x', (size_t)options->size_bytes);
    struct writer w = writer_make(bench->packet, size);
    enum mqtt_version version = options->mqtt5 ? MQTT_VERSION_5 : MQTT_VERSION_3_1_1;
    mqtt_write_publish(&w, version, false, (uint8_t)options->qos, false,
                       slice_from_string("bench/telemetry"), options->qos ? 1 : 0,
                       slice_make(NULL, 0), slice_make(payload, (size_t)options->size_bytes));
    free(payload);
    bench->packet_size = (uint32_t)writer_size(&w);
    bench->packet_id_at = bench->packet_size - (uint32_t)options->size_bytes - 2 - options->mqtt5;
    bench->out_capacity =
        bench->packet_size * 2 > OUTPUT_SIZE ? bench->packet_size * 2 : OUTPUT_SIZE;
    return !w.failed;
}

/* ---- reports
 * -------------------------------------------------------------------------------------- */

struct bench_result {
    double seconds;
    int64_t cpu_us, own_cpu_us, rss_bytes; /* cpu and rss: -1 when not measured */
};

static int64_t own_cpu_us(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000ll + usage.ru_utime.tv_usec +
           usage.ru_stime.tv_usec;
}

static void report_load(const struct bench *bench, const struct bench_result *r) {
    const struct histogram *h = &bench->latency;
    double messages = (double)bench->acknowledged, rate = messages / r->seconds;
    double cpu = r->cpu_us >= 0 && messages > 0 ? (double)r->cpu_us / messages : -1;
    double own = messages > 0 ? (double)r->own_cpu_us / messages : -1;
    double p50 = (double)histogram_quantile(h, 0.5) / 1000;
    double p99 = (double)histogram_quantile(h, 0.99) / 1000;
    double p999 = (double)histogram_quantile(h, 0.999) / 1000;
    if (cli_has(bench->options.run, CLI_JSON)) {
        printf("{\"messages\":%llu,\"seconds\":%.3f,\"messages_per_second\":%.0f,\"p50_us\":%.0f,"
               "\"p99_us\":%.0f,\"p999_us\":%.0f,\"server_cpu_us_per_message\":%.3f,"
               "\"client_cpu_us_per_message\":%.3f,\"server_rss_bytes\":%lld,\"failed\":%llu}\n",
               (unsigned long long)bench->acknowledged, r->seconds, rate, p50, p99, p999, cpu, own,
               (long long)r->rss_bytes, (unsigned long long)bench->failed);
        return;
    }
    printf("messages             %llu in %.1f s\n", (unsigned long long)bench->acknowledged,
           r->seconds);
    printf("rate                 %.0f per second\n", rate);
    if (h->total > 0)
        printf("acknowledged after   p50 %.0f µs, p99 %.0f µs, p99.9 %.0f µs\n", p50, p99, p999);
    if (cpu >= 0)
        printf("server CPU           %.3f µs per message\n", cpu);
    printf("this program's CPU   %.3f µs per message\n", own);
    if (r->rss_bytes >= 0)
        printf("server memory        %.1f MiB resident\n", (double)r->rss_bytes / 1048576);
    if (bench->failed)
        printf("failed connections   %llu: %s\n", (unsigned long long)bench->failed,
               bench->failure);
}

static int run_load(struct bench *bench) {
    const struct bench_options *options = &bench->options;
    if (!connect_all(bench))
        return DG_EXIT_UNAVAILABLE;
    begin_publishing(bench);
    run_for(bench, options->warmup_ms);
    int64_t server_us = process_cpu_us(options->server_pid), own_us = own_cpu_us();
    uint64_t start_ns = clock_monotonic_ns();
    bench->measuring = true;
    run_for(bench, options->duration_ms);
    bench->measuring = false;
    struct bench_result result = {.seconds = (double)(clock_monotonic_ns() - start_ns) / 1e9,
                                  .own_cpu_us = own_cpu_us() - own_us,
                                  .cpu_us = -1};
    if (server_us >= 0)
        result.cpu_us = process_cpu_us(options->server_pid) - server_us;
    result.rss_bytes = process_rss_bytes(options->server_pid);
    report_load(bench, &result);
    return bench->failed ? DG_EXIT_FAILURE : DG_EXIT_OK;
}

static int run_idle(struct bench *bench) {
    const struct bench_options *options = &bench->options;
    int64_t rss = process_rss_bytes(options->server_pid);
    int64_t cpu_us = process_cpu_us(options->server_pid);
    uint64_t start_ns = clock_monotonic_ns();
    if (!connect_all(bench))
        return DG_EXIT_UNAVAILABLE;
    double seconds = (double)(clock_monotonic_ns() - start_ns) / 1e9;
    int64_t hold_ms = cli_has(options->run, CLI_DURATION) ? options->duration_ms : SETTLE_MS;
    usleep((useconds_t)(hold_ms * 1000));
    double count = (double)options->connections;
    double memory = (double)(process_rss_bytes(options->server_pid) - rss) / count;
    double cpu = (double)(process_cpu_us(options->server_pid) - cpu_us) / count;
    if (options->server_pid <= 0)
        memory = cpu = -1;
    if (cli_has(options->run, CLI_JSON))
        printf("{\"connections\":%lld,\"connects_per_second\":%.0f,\"server_bytes_per_connection\":"
               "%.0f,\"server_cpu_us_per_connect\":%.1f}\n",
               (long long)options->connections, count / seconds, memory, cpu);
    else
        printf("connections          %lld\nconnects             %.0f per second\n"
               "server memory        %.0f B per idle connection\n"
               "server CPU           %.1f µs per connect\n",
               (long long)options->connections, count / seconds, memory, cpu);
    return DG_EXIT_OK;
}

/* ---- options
 * -------------------------------------------------------------------------------------- */

static int64_t find_server_pid(struct cli_run *run) {
    if (cli_has(run, CLI_SERVER_PID))
        return atoll(run->option[CLI_SERVER_PID]);
    const char *path = cli_setting(run, CLI_OPTION_COUNT, "DURAGATE_PID_FILE", NULL);
    FILE *file = path ? fopen(path, "re") : NULL;
    long long pid = -1;
    if (file && fscanf(file, "%lld", &pid) != 1)
        pid = -1;
    if (file)
        fclose(file);
    return pid;
}

static bool read_options(struct cli_run *run, struct bench_options *o) {
    o->run = run;
    o->tls = cli_has(run, CLI_TLS);
    o->mqtt5 = cli_has(run, CLI_MQTT5);
    o->idle = cli_has(run, CLI_IDLE);
    o->host = cli_setting(run, CLI_HOST, "DURAGATE_HOST", "localhost");
    o->port = cli_setting(run, CLI_PORT, o->tls ? "DURAGATE_MQTTS_PORT" : "DURAGATE_MQTT_PORT",
                          o->tls ? "8883" : "1883");
    o->ca_file = cli_setting(run, CLI_CA_FILE, "DURAGATE_CA_FILE", NULL);
    o->server_pid = find_server_pid(run);
    return cli_number(run, CLI_CONNECTIONS, 1, 1000000, 100, &o->connections) &&
           cli_number(run, CLI_QOS, 0, 2, 1, &o->qos) &&
           cli_number(run, CLI_SIZE, 0, LIMIT_EVENT_PAYLOAD_BYTES, 256, &o->size_bytes) &&
           cli_number(run, CLI_WINDOW, 1, 65535, 32, &o->window) &&
           cli_number(run, CLI_RATE, 1, 100000000, 0, &o->rate) &&
           cli_duration_ms(run, CLI_DURATION, 10000, &o->duration_ms) &&
           cli_duration_ms(run, CLI_WARMUP, 2000, &o->warmup_ms);
}

static bool prepare_tls(struct bench *bench) {
    if (!bench->options.tls)
        return true;
    bench->tls = SSL_CTX_new(TLS_client_method());
    if (!bench->tls || !bench->options.ca_file ||
        SSL_CTX_load_verify_locations(bench->tls, bench->options.ca_file, NULL) != 1) {
        cli_fail(bench->options.run, 0, "--tls needs a readable --ca-file");
        return false;
    }
    SSL_CTX_set_verify(bench->tls, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(bench->tls, SSL_MODE_ENABLE_PARTIAL_WRITE |
                                     SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                     SSL_MODE_RELEASE_BUFFERS);
    return true;
}

int bench_run(struct cli_run *run) {
    static struct bench bench;
    if (!read_options(run, &bench.options))
        return DG_EXIT_USAGE;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    size_t count = (size_t)bench.options.connections;
    bench.connections = calloc(count, sizeof(*bench.connections));
    bench.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!bench.connections || bench.epoll < 0 || !encode_packet(&bench))
        return cli_fail(run, DG_EXIT_FAILURE, "out of memory");
    if (!prepare_tls(&bench))
        return DG_EXIT_USAGE;
    if (!cli_has(run, CLI_ANONYMOUS) && !(bench.devices = bench_devices_load(&bench.options)))
        return DG_EXIT_UNAVAILABLE;
    int code = bench.options.idle ? run_idle(&bench) : run_load(&bench);
    for (size_t i = 0; i < count; i++)
        if (bench.connections[i].bench && bench.connections[i].fd >= 0)
            bench_connection_close(&bench.connections[i]);
    return code;
}
