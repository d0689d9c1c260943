/* The devices that the load generator connects as: from a file, or made through the API. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/api.h"
#include "cli/bench.h"
#include "common/clock.h"

enum { LINE_SIZE = 1024, PROGRESS_EVERY_NS = 2000000000 };

static bool read_devices(FILE *file, struct bench_device *devices, int64_t count) {
    char user[LINE_SIZE], key[LINE_SIZE];
    for (int64_t i = 0; i < count; i++) {
        if (fscanf(file, "%1023s %1023s", user, key) != 2)
            return false;
        devices[i] = (struct bench_device){.user = strdup(user), .key = strdup(key)};
    }
    return true;
}

/* PUT the device, renew its credential "bench", return the key. NULL with a message. */
static char *provision_one(struct cli_run *run, const char *tenant, const char *device) {
    char path[512], credentials[600], credential[640], *key = NULL;
    struct api_answer answer;
    snprintf(path, sizeof(path), "/v1/tenants/%s/devices/%s", tenant, device);
    snprintf(credentials, sizeof(credentials), "%s/credentials", path);
    api_call(run, "PUT", path, "{}", &answer);
    bool made = answer.status == 200 || answer.status == 201;
    if (!made)
        api_fail(run, &answer);
    api_answer_free(&answer);
    if (!made)
        return NULL;
    snprintf(credential, sizeof(credential), "%s/bench", credentials);
    api_call(run, "DELETE", credential, NULL, &answer);
    api_answer_free(&answer);
    api_call(run, "POST", credentials, "{\"name\":\"bench\",\"kind\":\"key\"}", &answer);
    json_t *object = answer.status == 201 ? json_loads(answer.body, 0, NULL) : NULL;
    const char *text = json_string_value(json_object_get(object, "key"));
    if (text)
        key = strdup(text);
    else
        api_fail(run, &answer);
    json_decref(object);
    api_answer_free(&answer);
    return key;
}

static bool provision_devices(const struct bench_options *options, struct bench_device *devices,
                              FILE *file) {
    const char *tenant = cli_setting(options->run, CLI_TENANT, "DURAGATE_TENANT", "default");
    uint64_t shown_ns = clock_monotonic_ns();
    for (int64_t i = 0; i < options->connections; i++) {
        char device[64], user[256];
        snprintf(device, sizeof(device), "bench-%lld", (long long)i);
        snprintf(user, sizeof(user), "%s@%s", device, tenant);
        char *key = provision_one(options->run, tenant, device);
        if (!key)
            return false;
        devices[i] = (struct bench_device){.user = strdup(user), .key = key};
        if (file)
            fprintf(file, "%s %s\n", user, key);
        if (clock_monotonic_ns() - shown_ns > PROGRESS_EVERY_NS) {
            shown_ns = clock_monotonic_ns();
            fprintf(stderr, "provisioned %lld of %lld devices\n", (long long)i + 1,
                    (long long)options->connections);
        }
    }
    return true;
}

struct bench_device *bench_devices_load(const struct bench_options *options) {
    const char *path = options->run->option[CLI_DEVICES];
    struct bench_device *devices = calloc((size_t)options->connections, sizeof(*devices));
    if (!devices)
        return NULL;
    FILE *file = path ? fopen(path, "re") : NULL;
    bool loaded = file && read_devices(file, devices, options->connections);
    if (file)
        fclose(file);
    if (loaded)
        return devices;
    mode_t mask = umask(077);
    file = path ? fopen(path, "we") : NULL;
    umask(mask);
    if (path && !file)
        cli_fail(options->run, 0, "cannot write %s: %s", path, strerror(errno));
    else
        loaded = provision_devices(options, devices, file);
    if (file)
        fclose(file);
    return loaded ? devices : NULL;
}
