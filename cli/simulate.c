/*
 * `duragate device simulate`: one device on one connection, by libmosquitto: publishes a
 * temperature at an interval, QoS 1, says when each event is durable, and answers calls and
 * commands with what they carry.
 */
#include <math.h>
#include <mosquitto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/printable.h"
#include "common/clock.h"
#include "common/err.h"

enum { KEEP_ALIVE_S = 30, DRAIN_STEPS = 500, STEP_US = 10000, FAILURES_MAX = 3, REPLIES = 64 };

struct simulation {
    struct cli_run *run;
    struct mosquitto *client;
    int64_t interval_ms, left;
    long published, acknowledged;
    int refused; /* CONNACK code */
    bool connected;
    const char *user, *host, *port;
    unsigned failures; /* connections lost before the first one succeeded */
    bool was_connected;
    int replies[REPLIES]; /* message ids of the last replies: they are no events */
    unsigned reply_count;
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number) {
    interrupted = number;
}

/* The return codes of MQTT 3.1.1, 3.2.2.3, and what to do about them. */
static const struct {
    const char *text;
    int exit_code;
} refusals[] = {
    {"connected", DG_EXIT_OK},
    {"the protocol version is not accepted", DG_EXIT_UNAVAILABLE},
    {"the client identifier is refused", DG_EXIT_NOPERM},
    {"the gateway cannot take it now: busy, or a quota; `duragate device why` says which",
     DG_EXIT_UNAVAILABLE},
    {"no such device, or a wrong key; see DURAGATE_DEVICE_KEY", DG_EXIT_NOPERM},
    {"the device may not connect; it is disabled, or this port takes no keys in plain text",
     DG_EXIT_NOPERM},
};
enum { REFUSAL_COUNT = sizeof(refusals) / sizeof(refusals[0]) };

static void on_connect(struct mosquitto *client, void *context, int code) {
    struct simulation *simulation = context;
    simulation->connected = code == 0;
    simulation->was_connected |= code == 0;
    simulation->refused = code;
    if (code == 0) {
        puts("connected");
        fflush(stdout);
        mosquitto_subscribe(client, NULL, "$dg/commands/#", 1);
    } else {
        cli_fail(simulation->run, 0, "%s was refused by %s:%s: %s", simulation->user,
                 simulation->host, simulation->port,
                 code > 0 && code < REFUSAL_COUNT ? refusals[code].text
                                                  : mosquitto_connack_string(code));
    }
}

/* $dg/commands/<id>/<name> */
static void on_message(struct mosquitto *client, void *context,
                       const struct mosquitto_message *message) {
    struct simulation *simulation = context;
    char id[32], name[128], topic[64];
    if (sscanf(message->topic, "$dg/commands/%31[^/]/%127s", id, name) != 2)
        return;
    snprintf(topic, sizeof(topic), "$dg/replies/%s/200", id);
    int *mid = &simulation->replies[simulation->reply_count++ % REPLIES];
    mosquitto_publish(client, mid, topic, message->payloadlen, message->payload, 1, false);
    fputs("called: ", stdout);
    printable_write(stdout, name, strlen(name));
    putchar('\n');
    fflush(stdout);
}

static bool is_reply(const struct simulation *simulation, int mid) {
    for (unsigned i = 0; i < REPLIES; i++)
        if (simulation->replies[i] == mid)
            return true;
    return false;
}

static void on_disconnect(struct mosquitto *client, void *context, int code) {
    struct simulation *simulation = context;
    simulation->connected = false;
    if (code == 0 || simulation->refused)
        return;
    cli_fail(simulation->run, 0, "%s:%s: connection lost, trying again", simulation->host,
             simulation->port);
    if (!simulation->was_connected && ++simulation->failures == FAILURES_MAX)
        cli_fail(simulation->run, 0, "is that the gateway's MQTT port%s?",
                 cli_has(simulation->run, CLI_TLS) ? " for TLS" : ", and without TLS");
}

static void on_publish(struct mosquitto *client, void *context, int mid) {
    struct simulation *simulation = context;
    if (is_reply(simulation, mid))
        return;
    simulation->acknowledged++;
    printf("event %d is durable\n", mid);
    fflush(stdout);
}

static void publish_temperature(struct simulation *simulation) {
    char payload[64];
    double celsius = 21.5 + 3.0 * sin((double)clock_wall_ms() / 60000.0);
    int size = snprintf(payload, sizeof(payload), "{\"celsius\":%.2f}", celsius), mid;
    if (mosquitto_publish(simulation->client, &mid, "temperature", size, payload, 1, false) == 0) {
        simulation->published++;
        if (simulation->left > 0)
            simulation->left--;
    }
}

static bool connect_device(struct simulation *simulation) {
    struct cli_run *run = simulation->run;
    bool tls = cli_has(run, CLI_TLS);
    const char *host = cli_setting(run, CLI_HOST, "DURAGATE_HOST", "localhost");
    const char *port = cli_setting(
        run, CLI_PORT, tls ? "DURAGATE_MQTTS_PORT" : "DURAGATE_MQTT_PORT", tls ? "8883" : "1883");
    const char *ca_file = cli_setting(run, CLI_CA_FILE, "DURAGATE_CA_FILE", NULL);
    if (tls &&
        (!ca_file || mosquitto_tls_set(simulation->client, ca_file, NULL, NULL, NULL, NULL))) {
        cli_fail(run, 0, "--tls needs a readable --ca-file");
        return false;
    }
    simulation->host = host;
    simulation->port = port;
    int err = mosquitto_connect(simulation->client, host, atoi(port), KEEP_ALIVE_S);
    if (err != MOSQ_ERR_SUCCESS)
        cli_fail(run, 0, "%s:%s: %s", host, port, mosquitto_strerror(err));
    return err == MOSQ_ERR_SUCCESS && mosquitto_loop_start(simulation->client) == 0;
}

static void simulate(struct simulation *simulation) {
    while (!interrupted && !simulation->refused && simulation->left != 0 &&
           simulation->failures < FAILURES_MAX) {
        if (simulation->connected)
            publish_temperature(simulation);
        struct timespec pause = {.tv_sec = simulation->interval_ms / 1000,
                                 .tv_nsec = simulation->interval_ms % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    for (int i = 0; i < DRAIN_STEPS && simulation->acknowledged < simulation->published; i++)
        usleep(STEP_US);
}

int device_simulate_run(struct cli_run *run) {
    struct simulation simulation = {.run = run};
    const char *device = cli_setting(run, CLI_DEVICE, "DURAGATE_DEVICE", NULL);
    const char *key = cli_setting(run, CLI_OPTION_COUNT, "DURAGATE_DEVICE_KEY", NULL);
    if (!device || !key)
        return cli_fail(run, DG_EXIT_USAGE,
                        "set DURAGATE_DEVICE and DURAGATE_DEVICE_KEY, or give --env FILE");
    if (!cli_number(run, CLI_COUNT, 1, INT64_MAX, -1, &simulation.left) ||
        !cli_duration_ms(run, CLI_INTERVAL, 1000, &simulation.interval_ms))
        return DG_EXIT_USAGE;
    char user[256];
    snprintf(user, sizeof(user), "%s@%s", device,
             cli_setting(run, CLI_TENANT, "DURAGATE_TENANT", "default"));
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    mosquitto_lib_init();
    simulation.client = mosquitto_new(device, true, &simulation);
    if (!simulation.client)
        return cli_fail(run, DG_EXIT_FAILURE, "out of memory");
    mosquitto_username_pw_set(simulation.client, user, key);
    mosquitto_connect_callback_set(simulation.client, on_connect);
    mosquitto_disconnect_callback_set(simulation.client, on_disconnect);
    mosquitto_publish_callback_set(simulation.client, on_publish);
    mosquitto_message_callback_set(simulation.client, on_message);
    int code = DG_EXIT_UNAVAILABLE;
    simulation.user = user;
    if (connect_device(&simulation)) {
        simulate(&simulation);
        int refused = simulation.refused;
        code = refused ? (refused > 0 && refused < REFUSAL_COUNT ? refusals[refused].exit_code
                                                                 : DG_EXIT_NOPERM)
               : simulation.failures >= FAILURES_MAX            ? DG_EXIT_UNAVAILABLE
               : simulation.acknowledged < simulation.published ? DG_EXIT_FAILURE
                                                                : DG_EXIT_OK;
        mosquitto_disconnect(simulation.client);
        mosquitto_loop_stop(simulation.client, false);
    }
    mosquitto_destroy(simulation.client);
    mosquitto_lib_cleanup();
    printf("%ld published, %ld acknowledged\n", simulation.published, simulation.acknowledged);
    return code;
}
