/*
 * The composition root: the only file that sees every part. `duragate serve` is put together here;
 * every other command is cli/'s.
 *
 * Threads: the main thread accepts connections, hears signals and watches files; N workers do the
 * rest (loop/worker.h). Stopping drains: listeners close, devices' acknowledgements leave, workers
 * end, then the stream writes its last checkpoint.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "cli/cli.h"
#include "common/assert.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/log.h"
#include "common/metrics.h"
#include "gateway/command/calls.h"
#include "gateway/command/commands.h"
#include "gateway/command/relay.h"
#include "gateway/command/transitions.h"
#include "gateway/command/twins.h"
#include "gateway/http/http.h"
#include "gateway/kafka/endpoint.h"
#include "gateway/kafka/group_store.h"
#include "gateway/loop/worker.h"
#include "gateway/mqtt/endpoint.h"
#include "gateway/session/claims.h"
#include "gateway/session/kept.h"
#include "gateway/transport/connection.h"
#include "gateway/transport/listener.h"
#include "gateway/transport/tls.h"
#include "provisioning/provisioning.h"
#include "registry/migrate.h"
#include "registry/registry.h"
#include "storage/stream.h"

enum { WATCH_INTERVAL_S = 2, DRAIN_CHECK_MS = 20, WATCHED_FILES = 5 };

/* Differs after each change, also when a file with old times took the place of another. */
struct watched_file {
    struct timespec changed;
    dev_t device;
    ino_t inode;
};

/* Everything `serve` owns, in the order it is made; destroyed in the opposite order. */
struct server {
    const struct cli_serve *arguments;
    struct config *config;
    struct stream *stream;
    struct registry *registry;
    struct tls_files *tls;
    struct worker *workers[LIMIT_WORKERS];
    unsigned worker_count;
    struct twins_options twins;
    struct event_base *base;
    struct listener_set *listeners;
    struct event *signal_events[3];
    struct event *watch_timer;
    struct event *drain_timer;
    struct event *drain_limit;
    struct watched_file watched[WATCHED_FILES];
    bool wrote_pid_file;
    struct commands_options commands;
    atomic_bool draining;
    atomic_uint drained_workers;
};

/* The value is one of the key's choices: config_load() has checked it. */
static enum compression compression_of(const struct config *config) {
    enum compression codec = COMPRESSION_NONE;
    int err = compression_by_name(config->storage_compression, &codec);
    dg_assert(err == 0);
    return codec;
}

static void config_to_stream_options(const struct config *config, struct stream_options *ret) {
    *ret = (struct stream_options){
        .directory = config->storage_directory,
        .journal_size_bytes = config->storage_journal_size,
        .segment_size_bytes = config->storage_segment_size,
        .segment_age_ms = config->storage_segment_age,
        .retention_bytes = config->storage_retention_bytes,
        .retention_ms = config->storage_retention_time,
        .reserve_bytes = config->storage_reserve,
        .compression = compression_of(config),
    };
}

static int config_apply_log(const struct config *config) {
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    for (unsigned level = 0; level < 4; level++) {
        if (strcmp(config->server_log_level, levels[level]) != 0)
            continue;
        bool json = strcmp(config->server_log_format, "json") == 0;
        if (!json && strcmp(config->server_log_format, "text") != 0)
            return DG_ERR_INVALID;
        log_configure((enum log_level)level, json ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT);
        return 0;
    }
    return DG_ERR_INVALID;
}

static int server_load_config(const struct cli_serve *arguments, struct config **ret_config,
                              char *ret_error) {
    struct config *config;
    int err = config_load(arguments->config_path, arguments->environment, arguments->overrides,
                          &config, ret_error);
    if (err < 0)
        return err;
    if (config_apply_log(config) < 0) {
        snprintf(ret_error, CONFIG_ERROR_SIZE,
                 "server.log_level is debug, info, warn or error; server.log_format text or json");
        config_free(config);
        return DG_ERR_INVALID;
    }
    *ret_config = config;
    return 0;
}

/* ---- health ---- */

static void add_why(struct buffer *why, const char *text) {
    if (buffer_size(why) > 0)
        (void)!buffer_append(why, "; ", 2, LIMIT_HTTP_BODY_BYTES);
    (void)!buffer_append(why, text, strlen(text), LIMIT_HTTP_BODY_BYTES);
}

/* provisioning_health.ready: any worker. */
static bool server_is_ready(void *context, struct buffer *why) {
    struct server *server = context;
    bool ready = true;
    const char *registry_why = "";
    if (!registry_is_up(server->registry, &registry_why)) {
        add_why(why, registry_why);
        ready = false;
    }
    struct stream_health health;
    stream_health(server->stream, &health);
    if (health.storage_full) {
        add_why(why, "no room left to store events");
        ready = false;
    }
    if (atomic_load(&server->draining)) {
        add_why(why, "stopping");
        ready = false;
    }
    return ready;
}

/* ---- workers ---- */

/* On each worker's thread. The message belongs to this worker alone and is freed here. */
static void deliver_revocation(struct mail *mail, void *receiver) {
    struct worker *worker = receiver;
    struct registry_revocation *revocation = (struct registry_revocation *)(void *)mail;
    mqtt_revoke(worker, revocation);
    kafka_revoke(worker, revocation);
    free(revocation);
}

static void deliver_notice(struct mail *mail, void *receiver) {
    struct registry_notice *notice = (struct registry_notice *)(void *)mail;
    if (notice->channel == REGISTRY_CHANNEL_TWINS)
        twins_notice(receiver, notice->text);
    else
        commands_notice(receiver, notice->text);
    free(notice);
}

static void deliver_update(struct mail *mail, void *receiver) {
    struct registry_update *update = (struct registry_update *)(void *)mail;
    mqtt_update(receiver, update);
    registry_update_free(update);
}

static int server_create_worker(struct server *server, unsigned index) {
    struct worker *worker;
    int err = worker_create(index, server->config, &worker);
    if (err < 0)
        return err;
    server->workers[index] = worker;
    struct provisioning_options options = {
        .health = {.context = server, .ready = server_is_ready},
    };
    /* The order of the turn hooks: events go to the stream before acknowledgements to sockets. */
    if ((err = mqtt_worker_start(worker, server->stream, server->registry)) < 0 ||
        (err = transitions_worker_start(worker, server->stream, server->registry)) < 0 ||
        (err = kafka_worker_start(worker, server->stream, server->registry)) < 0 ||
        (err = http_worker_start(worker)) < 0 ||
        (err = provisioning_worker_start(worker, server->registry, server->stream, &options)) < 0 ||
        (err = connection_pool_create(worker)) < 0)
        return err;
    if (server->tls && (err = tls_install(worker, server->tls)) < 0)
        return err;
    return registry_listen(server->registry, &worker->mailbox,
                           &(struct registry_receiver){.revoked = deliver_revocation,
                                                       .updated = deliver_update,
                                                       .noticed = deliver_notice});
}

static unsigned default_worker_count(const struct config *config) {
    if (config->server_workers > 0)
        return (unsigned)config->server_workers;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (processors <= 2)
        return 1;
    return processors - 1 > LIMIT_WORKERS ? LIMIT_WORKERS : (unsigned)processors - 1;
}

/* PostgreSQL says all that the process before left. */
static void restored(struct worker *worker) {
    twins_restored(worker);
    commands_restored(worker);
}

static int server_create_workers(struct server *server) {
    server->commands = (struct commands_options){.workers = server->workers,
                                                 .stream = server->stream,
                                                 .registry = server->registry,
                                                 .deliver = mqtt_deliver,
                                                 .recall = mqtt_recall,
                                                 .replied = mqtt_reply_done};
    server->twins = (struct twins_options){.workers = server->workers,
                                           .registry = server->registry,
                                           .deliver = mqtt_deliver,
                                           .answered = mqtt_twin_answered};
    server->worker_count = default_worker_count(server->config);
    server->commands.worker_count = server->twins.worker_count = server->worker_count;
    for (unsigned index = 0; index < server->worker_count; index++) {
        int err = server_create_worker(server, index);
        if (err < 0)
            return err;
    }
    for (unsigned index = 0; index < server->worker_count; index++) {
        struct worker *worker = server->workers[index];
        mqtt_worker_join(worker, server->workers[0]);
        int err = claims_worker_start(worker, server->workers, server->worker_count);
        if (err == 0)
            err = kafka_groups_start(worker, server->workers, server->worker_count);
        if (err == 0)
            err = calls_worker_start(worker, server->workers, server->worker_count, mqtt_deliver);
        if (err == 0)
            err = commands_worker_start(worker, &server->commands);
        if (err == 0)
            err = twins_worker_start(worker, &server->twins);
        if (err < 0)
            return err;
    }
    int err = mqtt_restore_sessions(server->stream, server->workers, server->worker_count,
                                    clock_wall_ms());
    if (err == 0)
        err = mqtt_restore_producers(server->stream, server->workers, server->worker_count);
    if (err == 0)
        err = transitions_restore(server->stream, server->workers, server->worker_count, restored);
    if (err < 0)
        return err;
    for (unsigned index = 0; index < server->worker_count; index++) {
        err = worker_start(server->workers[index]);
        if (err < 0)
            return err;
    }
    return 0;
}

/* ---- listeners ---- */

static const struct http_websocket device_websockets[] = {
    {.path = "/mqtt", .subprotocol = "mqtt", .protocol = &mqtt_protocol},
    {.path = "/$iothub/websocket", .subprotocol = "mqtt", .protocol = &mqtt_protocol},
    {.path = NULL},
};
static const struct http_route *const device_tables[] = {provisioning_device_routes, NULL};
static const struct http_route *const management_tables[] = {provisioning_routes,
                                                             provisioning_operations_routes, NULL};
static const struct http_routes device_routes = {.tables = device_tables,
                                                 .websockets = device_websockets};
static const struct http_routes management_routes = {.tables = management_tables};

/* One row per kind of listener: where its addresses stand and what speaks there. */
static struct listener_row {
    struct connection_listener kind;
    size_t addresses; /* offset of the configuration's string */
} listener_rows[] = {
    {{.name = "mqtt", .protocol = &mqtt_protocol, .is_paced = true},
     offsetof(struct config, mqtt_bind)},
    {{.name = "mqtts", .protocol = &mqtt_protocol, .tls = true, .is_paced = true},
     offsetof(struct config, mqtt_tls_bind)},
    {{.name = "kafka", .protocol = &kafka_protocol}, offsetof(struct config, kafka_bind)},
    {{.name = "kafkas", .protocol = &kafka_protocol, .tls = true},
     offsetof(struct config, kafka_tls_bind)},
    {{.name = "https", .protocol = &http_protocol, .tls = true, .context = &device_routes},
     offsetof(struct config, https_bind)},
    {{.name = "management", .protocol = &http_protocol, .context = &management_routes},
     offsetof(struct config, management_bind)},
    {{.name = "management-tls",
      .protocol = &http_protocol,
      .tls = true,
      .context = &management_routes},
     offsetof(struct config, management_tls_bind)},
};
enum { LISTENER_ROW_COUNT = sizeof(listener_rows) / sizeof(listener_rows[0]) };

static const char *row_addresses(const struct config *config, const struct listener_row *row) {
    return *(char *const *)(const void *)((const char *)config + row->addresses);
}

static int server_listen(struct server *server, char *ret_error) {
    int err = listener_set_create(server->base, server->workers, server->worker_count,
                                  &server->listeners);
    if (err == 0)
        listener_set_pace(server->listeners, (uint64_t)server->config->mqtt_connect_rate);
    for (unsigned i = 0; err == 0 && i < LISTENER_ROW_COUNT; i++) {
        struct listener_row *row = &listener_rows[i];
        const char *addresses = row_addresses(server->config, row);
        if (row->kind.tls && addresses[0] && !server->tls) {
            snprintf(ret_error, CONFIG_ERROR_SIZE,
                     "the %s listener needs TLS: set tls.certificate_file and tls.key_file",
                     row->kind.name);
            return DG_ERR_INVALID;
        }
        err = listener_set_bind(server->listeners, addresses, &row->kind, ret_error);
    }
    return err;
}

/* ---- reload ---- */

static void look_at_files(const struct server *server, struct watched_file *ret_files) {
    const struct config *config = server->config;
    const char *paths[WATCHED_FILES] = {server->arguments->config_path,
                                        config->tls_certificate_file, config->tls_key_file,
                                        config->tls_rsa_certificate_file, config->tls_rsa_key_file};
    memset(ret_files, 0, WATCHED_FILES * sizeof(*ret_files));
    for (unsigned i = 0; i < WATCHED_FILES; i++) {
        struct stat status;
        if (!paths[i] || !paths[i][0] || stat(paths[i], &status) != 0)
            continue;
        ret_files[i].changed = status.st_ctim;
        ret_files[i].device = status.st_dev;
        ret_files[i].inode = status.st_ino;
    }
}

/* The workers take up a configuration one by one; the last to do so frees the one before. */
struct succession {
    struct config *before;
    const struct config *after;
    atomic_uint workers_left;
    struct succession_mail {
        struct mail mail;
        struct succession *succession;
    } mails[LIMIT_WORKERS];
};

static void deliver_succession(struct mail *mail, void *receiver) {
    struct worker *worker = receiver;
    struct succession *succession = ((struct succession_mail *)(void *)mail)->succession;
    worker->config = succession->after;
    mqtt_worker_reconfigure(worker);
    if (atomic_fetch_sub(&succession->workers_left, 1) > 1)
        return;
    config_free(succession->before);
    free(succession);
}

static void server_replace_config(struct server *server, struct config *config,
                                  struct succession *succession) {
    succession->before = server->config;
    succession->after = server->config = config;
    atomic_init(&succession->workers_left, server->worker_count);
    for (unsigned i = 0; i < server->worker_count; i++) {
        succession->mails[i] =
            (struct succession_mail){.mail.deliver = deliver_succession, .succession = succession};
        mailbox_post(&server->workers[i]->mailbox, &succession->mails[i].mail);
    }
    struct stream_options options;
    config_to_stream_options(config, &options);
    stream_reconfigure(server->stream, &options);
    listener_set_pace(server->listeners, (uint64_t)config->mqtt_connect_rate);
    if (registry_reconfigure(server->registry, config->registry_query_timeout) < 0)
        LOG_ERROR("reload.incomplete", log_text("key", "registry.query_timeout"),
                  log_text("why", dg_err_text(DG_ERR_NO_MEMORY)));
}

static int server_replace_tls(struct server *server, struct tls_files *tls) {
    int err = 0;
    for (unsigned i = 0; err == 0 && i < server->worker_count; i++)
        err = tls_install(server->workers[i], tls);
    tls_release(server->tls);
    server->tls = tls;
    metric_set(METRIC_CERTIFICATE_EXPIRY, tls_expiry(tls));
    return err;
}

static int reload_checked(struct server *server, char *error) {
    struct config *config;
    int err = server_load_config(server->arguments, &config, error);
    if (err < 0)
        return err;
    const char *key;
    struct tls_files *tls = NULL;
    struct succession *succession = malloc(sizeof(*succession));
    if (!config_is_reloadable(server->config, config, &key)) {
        snprintf(error, CONFIG_ERROR_SIZE, "%s changes only with a restart", key);
        err = DG_ERR_INVALID;
    } else {
        err = succession ? tls_load(config, &tls, error) : DG_ERR_NO_MEMORY;
    }
    if (err < 0) {
        free(succession);
        config_free(config);
        config_apply_log(server->config);
        return err;
    }
    server_replace_config(server, config, succession);
    return tls ? server_replace_tls(server, tls) : 0;
}

static void server_reload(struct server *server) {
    char error[CONFIG_ERROR_SIZE] = "";
    look_at_files(server, server->watched);
    if (reload_checked(server, error) < 0) {
        metric_add(METRIC_CONFIG_RELOADS_FAILED, 1);
        LOG_ERROR("reload.refused", log_text("why", error),
                  log_text("effect", "the configuration in use stays"));
        return;
    }
    metric_add(METRIC_CONFIG_RELOADS, 1);
    LOG_INFO("reload.done");
}

static void on_watch_timer(evutil_socket_t fd, short what, void *context) {
    struct server *server = context;
    struct watched_file now[WATCHED_FILES];
    look_at_files(server, now);
    if (memcmp(now, server->watched, sizeof(now)) != 0)
        server_reload(server);
}

/* ---- stopping ---- */

struct drain_mail {
    struct mail mail;
    struct server *server;
};

/* On the worker's thread: asked again every DRAIN_CHECK_MS until it has nothing in flight. */
static void deliver_drain(struct mail *mail, void *receiver) {
    struct drain_mail *drain = (struct drain_mail *)(void *)mail;
    struct worker *worker = receiver;
    mqtt_worker_drain(worker);
    if (mqtt_worker_idle(worker))
        atomic_fetch_or(&drain->server->drained_workers, 1u << worker->index % 32);
    free(drain);
}

static void on_drain_timer(evutil_socket_t fd, short what, void *context) {
    struct server *server = context;
    unsigned count = server->worker_count < 32 ? server->worker_count : 32;
    unsigned all = count == 32 ? UINT32_MAX : (1u << count) - 1;
    if ((atomic_load(&server->drained_workers) & all) == all) {
        event_base_loopbreak(server->base);
        return;
    }
    for (unsigned i = 0; i < server->worker_count; i++) {
        struct drain_mail *drain = malloc(sizeof(*drain));
        if (!drain)
            continue;
        *drain = (struct drain_mail){.mail.deliver = deliver_drain, .server = server};
        mailbox_post(&server->workers[i]->mailbox, &drain->mail);
    }
    event_add(server->drain_timer, &(struct timeval){.tv_usec = DRAIN_CHECK_MS * 1000});
}

static void on_drain_limit(evutil_socket_t fd, short what, void *context) {
    struct server *server = context;
    LOG_WARN("stop.drain_timeout",
             log_int("after_ms", (int64_t)server->config->server_drain_timeout));
    event_base_loopbreak(server->base);
}

static void server_stop(struct server *server, int signal_number) {
    if (atomic_exchange(&server->draining, true)) {
        event_base_loopbreak(server->base);
        return;
    }
    LOG_INFO("stop.draining", log_int("signal", signal_number));
    sd_notify(0, "STOPPING=1");
    listener_set_close(server->listeners);
    uint64_t limit_ms = server->config->server_drain_timeout;
    struct timeval limit = {.tv_sec = (time_t)(limit_ms / 1000),
                            .tv_usec = (suseconds_t)(limit_ms % 1000 * 1000)};
    evtimer_add(server->drain_limit, &limit);
    on_drain_timer(-1, 0, server);
}

static void on_signal(evutil_socket_t signal_number, short what, void *context) {
    if (signal_number == SIGHUP)
        server_reload(context);
    else
        server_stop(context, (int)signal_number);
}

/* ---- start and end ---- */

static int server_create_events(struct server *server) {
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    for (unsigned i = 0; i < 3; i++) {
        server->signal_events[i] = evsignal_new(server->base, signals[i], on_signal, server);
        if (!server->signal_events[i] || evsignal_add(server->signal_events[i], NULL) != 0)
            return DG_ERR_NO_MEMORY;
    }
    server->watch_timer = event_new(server->base, -1, EV_PERSIST, on_watch_timer, server);
    server->drain_timer = evtimer_new(server->base, on_drain_timer, server);
    server->drain_limit = evtimer_new(server->base, on_drain_limit, server);
    if (!server->watch_timer || !server->drain_timer || !server->drain_limit)
        return DG_ERR_NO_MEMORY;
    event_add(server->watch_timer, &(struct timeval){.tv_sec = WATCH_INTERVAL_S});
    return 0;
}

static void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int write_pid_file(struct server *server, char *ret_error) {
    const char *path = server->config->server_pid_file;
    if (!path[0])
        return 0;
    char temporary[4200];
    snprintf(temporary, sizeof(temporary), "%s.new", path);
    FILE *file = fopen(temporary, "we");
    bool written = file && fprintf(file, "%d\n", (int)getpid()) > 0;
    if ((file && fclose(file) != 0) || !written || rename(temporary, path) != 0) {
        snprintf(ret_error, CONFIG_ERROR_SIZE, "server.pid_file: cannot write %s: %s", path,
                 strerror(errno));
        return DG_ERR_IO;
    }
    server->wrote_pid_file = true;
    return 0;
}

static void raise_to(int64_t *highest, int64_t number) {
    if (number > *highest)
        *highest = number;
}

static void see_partition(void *context, uint64_t stream_id, uint32_t partition,
                          const struct stream_offsets *offsets) {
    struct registry_floor *floor = context;
    raise_to(&floor->stream_id, (int64_t)(stream_id / STREAM_KINDS));
}

static void see_committed_offset(void *context, struct slice key, struct slice value) {
    struct registry_floor *floor = context;
    struct group_offset offset;
    struct slice group;
    int64_t tenant_key;
    if (group_store_decode(key, value, &tenant_key, &group, &offset) < 0)
        return;
    raise_to(&floor->tenant_key, tenant_key);
    raise_to(&floor->stream_id, (int64_t)(offset.stream_id / STREAM_KINDS));
}

static void see_session(void *context, struct slice key, struct slice value) {
    struct registry_floor *floor = context;
    int64_t device_key;
    struct session_kept *kept;
    if (kept_decode(key, value, &device_key, &kept) < 0)
        return;
    raise_to(&floor->device_key, device_key);
    kept_free(kept);
}

static void see_projection(void *context, struct slice key, struct slice value) {
    struct registry_floor *floor = context;
    raise_to(&floor->device_key, transitions_device_key(key));
}

static int server_open_stream(struct server *server, char *ret_error) {
    struct stream_options options;
    struct registry_floor floor = {0};
    config_to_stream_options(server->config, &options);
    int err = stream_open(&options, &server->stream, ret_error);
    if (err < 0)
        return err;
    stream_visit_partitions(server->stream, see_partition, &floor);
    stream_visit_state(server->stream, STREAM_STATE_CONSUMER, see_committed_offset, &floor);
    stream_visit_state(server->stream, STREAM_STATE_SESSION, see_session, &floor);
    stream_visit_state(server->stream, STREAM_STATE_PROJECTION, see_projection, &floor);
    registry_set_floor(server->registry, &floor);
    return 0;
}

static int server_open_parts(struct server *server, char *ret_error) {
    const struct config *config = server->config;
    if (config->registry_auto_migrate) {
        int err = registry_migrate(config->registry_conninfo, config->registry_password, NULL, NULL,
                                   ret_error);
        if (err < 0)
            return err;
    }
    struct registry_options registry_options = {
        .conninfo = config->registry_conninfo,
        .password = config->registry_password,
        .query_timeout_ms = config->registry_query_timeout,
        .cache_devices_max = (uint64_t)config->registry_cache_devices,
        .master_key_file = config->security_master_key_file,
    };
    int err = tls_load(config, &server->tls, ret_error);
    if (err < 0)
        return err;
    if (server->tls)
        metric_set(METRIC_CERTIFICATE_EXPIRY, tls_expiry(server->tls));
    err = registry_open(&registry_options, &server->registry, ret_error);
    if (err ==
        0) /* before the stream, which a newer release may make unreadable for an older one */
        err = registry_check_schema(server->registry, registry_options.query_timeout_ms, ret_error);
    return err == 0 ? server_open_stream(server, ret_error) : err;
}

static int server_start(struct server *server, char *ret_error) {
    int err = server_load_config(server->arguments, &server->config, ret_error);
    if (err < 0)
        return err;
    server->base = event_base_new();
    if (!server->base)
        return DG_ERR_NO_MEMORY;
    if ((err = server_open_parts(server, ret_error)) < 0 ||
        (err = server_create_workers(server)) < 0 || (err = server_create_events(server)) < 0 ||
        (err = server_listen(server, ret_error)) < 0 ||
        (err = write_pid_file(server, ret_error)) < 0)
        return err;
    look_at_files(server, server->watched);
    metric_set(METRIC_START_TIME, clock_wall_ms() / 1000);
    return 0;
}

static void server_free_events(struct server *server) {
    for (unsigned i = 0; i < 3; i++)
        if (server->signal_events[i])
            event_free(server->signal_events[i]);
    if (server->watch_timer)
        event_free(server->watch_timer);
    if (server->drain_timer)
        event_free(server->drain_timer);
    if (server->drain_limit)
        event_free(server->drain_limit);
}

/* Workers have ended; registry and stream still answer what a worker's parts wait for. */
static void free_worker_parts(struct worker *worker) {
    commands_worker_free(worker);
    mqtt_worker_free(worker);
    provisioning_worker_free(worker);
    kafka_worker_free(worker);
    calls_worker_free(worker);
    twins_worker_free(worker);
    relay_worker_free(worker);
    transitions_worker_free(worker);
}

static void server_free_workers(struct server *server) {
    unsigned count = 0;
    while (count < server->worker_count && server->workers[count])
        free_worker_parts(server->workers[count++]);
    for (unsigned i = 0; i < count; i++)
        mailbox_drain(&server->workers[i]->mailbox); /* what workers sent each other to the last */
    for (unsigned i = 0; i < count; i++)
        worker_free(server->workers[i]);
}

static void server_end(struct server *server) {
    if (server->listeners)
        listener_set_free(server->listeners);
    for (unsigned i = 0; i < server->worker_count && server->workers[i]; i++)
        worker_stop(server->workers[i]);
    for (unsigned i = 0; i < server->worker_count && server->workers[i]; i++)
        worker_join(server->workers[i]);
    if (server->registry)
        registry_close(server->registry);
    server_free_workers(server);
    if (server->stream)
        stream_close(server->stream);
    tls_release(server->tls);
    server_free_events(server);
    if (server->base)
        event_base_free(server->base);
    if (server->wrote_pid_file)
        unlink(server->config->server_pid_file);
    config_free(server->config);
}

static int serve(const struct cli_serve *arguments) {
    static struct server server;
    server.arguments = arguments;
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_DUMPABLE, 0); /* keys are in memory */
    umask(077);
    raise_descriptor_limit();
    char error[CONFIG_ERROR_SIZE] = "";
    int err = server_start(&server, error);
    if (err < 0) {
        LOG_ERROR("start.failed", log_text("why", error[0] ? error : dg_err_text(err)));
        server_end(&server);
        return err == DG_ERR_INVALID ? DG_EXIT_CONFIG : DG_EXIT_UNAVAILABLE;
    }
    LOG_INFO("started", log_text("version", DURAGATE_VERSION), log_int("pid", getpid()),
             log_int("workers", server.worker_count),
             log_text("storage", server.config->storage_directory));
    sd_notify(0, "READY=1");
    event_base_dispatch(server.base);
    LOG_INFO("stopping");
    server_end(&server);
    return DG_EXIT_OK;
}

int main(int argument_count, char **arguments) {
    return cli_main(argument_count, arguments, serve);
}
