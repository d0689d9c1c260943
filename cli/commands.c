/* The table of commands. */
#include "cli/command.h"

#include <stddef.h>

#define OPTIONS(...)                            \
    (const enum cli_option[]) {                 \
        __VA_ARGS__, CLI_HELP, CLI_OPTION_COUNT \
    }
#define API CLI_ENV, CLI_URL, CLI_API_KEY, CLI_CA_FILE, CLI_JSON
#define SERVER CLI_CONFIG, CLI_SET

const struct cli_command cli_commands[] = {
    {NULL, "serve", "", "run the gateway",
     "SIGTERM stops it after acknowledgements have left; SIGHUP, or a changed file, reloads the\n"
     "configuration and the certificates.",
     serve_run, OPTIONS(SERVER)},
    {NULL, "check-config", "", "check a configuration, or print it or its reference", NULL,
     check_config_run, OPTIONS(SERVER, CLI_PRINT, CLI_REFERENCE)},
    {NULL, "migrate", "", "bring the PostgreSQL schema up to date", NULL, migrate_run,
     OPTIONS(SERVER)},
    {"admin", "create-key", "KEY_ID", "make an API key straight in PostgreSQL",
     "The way in for the first administrator. Prints the bearer key, which is shown only here.",
     admin_create_key_run, OPTIONS(SERVER, CLI_ROLE, CLI_TENANT, CLI_REPLACE)},
    {"tenant", "list", "", "list tenants", NULL, resource_list_run, OPTIONS(API)},
    {"tenant", "show", "TENANT", "show one tenant", NULL, resource_show_run, OPTIONS(API)},
    {"tenant", "create", "TENANT", "create a tenant", NULL, resource_create_run,
     OPTIONS(API, CLI_DATA)},
    {"tenant", "update", "TENANT", "change members of a tenant (JSON merge patch)", NULL,
     resource_update_run, OPTIONS(API, CLI_DATA)},
    {"tenant", "delete", "TENANT", "delete a tenant with all its devices", NULL,
     resource_delete_run, OPTIONS(API)},
    {"device", "list", "", "list devices", NULL, resource_list_run, OPTIONS(API, CLI_TENANT)},
    {"device", "show", "DEVICE", "show one device", NULL, resource_show_run,
     OPTIONS(API, CLI_TENANT)},
    {"device", "create", "DEVICE", "create a device", NULL, resource_create_run,
     OPTIONS(API, CLI_TENANT, CLI_DATA)},
    {"device", "update", "DEVICE", "change members of a device (JSON merge patch)", NULL,
     resource_update_run, OPTIONS(API, CLI_TENANT, CLI_DATA)},
    {"device", "delete", "DEVICE", "delete a device", NULL, resource_delete_run,
     OPTIONS(API, CLI_TENANT)},
    {"device", "enable", "DEVICE", "let a device connect", NULL, resource_enable_run,
     OPTIONS(API, CLI_TENANT)},
    {"device", "disable", "DEVICE", "end a device's connection and refuse it", NULL,
     resource_enable_run, OPTIONS(API, CLI_TENANT)},
    {"device", "why", "DEVICE", "how a device is connected, what happened to it lately, what to do",
     "Newest first. The gateway remembers a fixed number of such lines for all devices together,\n"
     "until it stops; a login that failed is among them, with the address it came from.",
     device_why_run, OPTIONS(API, CLI_TENANT, CLI_LIMIT)},
    {"device", "call", "DEVICE METHOD", "call a connected device and print its answer",
     "Exits with 0 when the device's status is 2xx. The key needs the role commander or admin.",
     device_call_run, OPTIONS(API, CLI_TENANT, CLI_PAYLOAD, CLI_TIMEOUT, CLI_CONNECT_TIMEOUT)},
    {"device", "simulate", "", "be a device that publishes temperatures and answers",
     "A call or a command is answered with status 200 and its own payload.", device_simulate_run,
     OPTIONS(CLI_ENV, CLI_HOST, CLI_PORT, CLI_TLS, CLI_CA_FILE, CLI_TENANT, CLI_DEVICE,
             CLI_INTERVAL, CLI_COUNT)},
    {"command", "send", "DEVICE NAME", "queue a command for a device, connected or not",
     "Exits with 0 when it is queued; with --wait when it has come so far, and not to a bad end\n"
     "(rejected, expired, dead_lettered, cancelled). What is not there in time goes on. The key\n"
     "needs the role commander or admin.",
     command_send_run,
     OPTIONS(API, CLI_TENANT, CLI_PAYLOAD, CLI_WAIT, CLI_WAIT_TIMEOUT, CLI_TTL, CLI_NO_REPLY,
             CLI_PROPERTY, CLI_IDEMPOTENCY_KEY)},
    {"command", "list", "DEVICE", "list the commands of a device, the oldest first", NULL,
     resource_list_run, OPTIONS(API, CLI_TENANT, CLI_STATE)},
    {"command", "show", "DEVICE COMMAND", "show one command with its payload and its reply", NULL,
     resource_show_run, OPTIONS(API, CLI_TENANT)},
    {"command", "watch", "[DEVICE]", "print what becomes of commands, as it happens",
     "Follows <tenant>.commands as a Kafka consumer (like tail); changes of state of devices are\n"
     "in it, too. The secret is read from DURAGATE_KAFKA_PASSWORD.",
     command_watch_run,
     OPTIONS(CLI_ENV, CLI_BROKER, CLI_USER, CLI_KAFKA_TLS, CLI_CA_FILE, CLI_TENANT, CLI_FROM,
             CLI_NO_FOLLOW, CLI_COUNT, CLI_JSON)},
    {"command", "cancel", "DEVICE COMMAND", "cancel a command that is not being delivered", NULL,
     resource_delete_run, OPTIONS(API, CLI_TENANT)},
    {"twin", "show", "DEVICE", "show desired and reported state and tags of a device", NULL,
     resource_show_run, OPTIONS(API, CLI_TENANT)},
    {"twin", "update", "DEVICE", "change desired state or tags of a device (JSON merge patch)",
     "--data '{\"desired\":{\"interval_s\":60},\"tags\":{\"floor\":\"2\"}}'; null removes a name.\n"
     "The key needs the role commander (desired), operator (tags) or admin.",
     resource_update_run, OPTIONS(API, CLI_TENANT, CLI_DATA)},
    {"credential", "list", "DEVICE", "list the credentials of a device", NULL, resource_list_run,
     OPTIONS(API, CLI_TENANT)},
    {"credential", "show", "DEVICE NAME", "show one credential, without its secret", NULL,
     resource_show_run, OPTIONS(API, CLI_TENANT)},
    {"credential", "create", "DEVICE", "add a credential; a generated secret is shown only here",
     NULL, credential_create_run,
     OPTIONS(API, CLI_TENANT, CLI_KIND, CLI_NAME, CLI_PASSWORD, CLI_CERTIFICATE, CLI_NOT_AFTER)},
    {"credential", "delete", "DEVICE NAME", "remove a credential and end connections made with it",
     NULL, resource_delete_run, OPTIONS(API, CLI_TENANT)},
    {"stream", "topics", "", "list the streams of a tenant, which are its Kafka topics", NULL,
     stream_topics_run, OPTIONS(API, CLI_TENANT)},
    {"stream", "partitions", "STREAM", "list the partitions of a stream and their offsets", NULL,
     stream_partitions_run, OPTIONS(API, CLI_TENANT)},
    {"stream", "groups", "", "list consumer groups", NULL, stream_groups_run,
     OPTIONS(API, CLI_TENANT)},
    {"stream", "group", "GROUP", "show a consumer group: members, offsets, lag", NULL,
     stream_group_run, OPTIONS(API, CLI_TENANT)},
    {"stream", "lag", "[GROUP]", "how far consumer groups, or the partitions of one, are behind",
     "lag: records written and not committed; lag_seconds: what was written so long ago was read,\n"
     "counted since the gateway started. log_start_distance: records between the oldest kept\n"
     "and the committed one; when it nears 0 retention is about to overtake the group, below 0 so\n"
     "many records were removed unread. -: nothing is left to read there, or nothing committed. "
     "The\n"
     "list of all groups may be some seconds old.",
     stream_lag_run, OPTIONS(API, CLI_TENANT)},
    {"stream", "reset", "GROUP", "set the committed offsets of a consumer group",
     "The group's consumers must be stopped. All partitions of the stream are set, unless\n"
     "--partition names one.",
     stream_reset_run, OPTIONS(API, CLI_TENANT, CLI_TO, CLI_TOPIC, CLI_PARTITION, CLI_DRY_RUN)},
    {"stream", "delete-group", "GROUP", "forget a consumer group and its offsets",
     "The group's consumers must be stopped.", stream_delete_group_run, OPTIONS(API, CLI_TENANT)},
    {"storage", "verify", "DIRECTORY", "check a stopped or copied store, changing nothing", NULL,
     storage_verify_run, OPTIONS(CLI_JSON)},
    {"storage", "dump", "DIRECTORY", "print the records of a stopped or copied store", NULL,
     storage_dump_run, OPTIONS(CLI_JSON, CLI_PARTITION, CLI_LIMIT)},
    {"storage", "repair", "DIRECTORY", "say what would make a stopped store whole, and do it",
     "Without --apply nothing is changed. What loses acknowledged events is done only with\n"
     "--accept-loss; the lines that say so begin with LOSS.",
     storage_repair_run, OPTIONS(CLI_JSON, CLI_APPLY, CLI_ACCEPT_LOSS)},
    {NULL, "backup", "DIRECTORY",
     "back up the stream and the registry, also while the gateway runs",
     "Runs on the gateway's machine, as its user. Makes DIRECTORY/<time>, whole or not at all; "
     "what\n"
     "has not changed since the backup before is linked to it. Keep the master key file as well.",
     backup_run, OPTIONS(SERVER, CLI_NO_REGISTRY, CLI_KEEP, CLI_MIB_PER_SECOND, CLI_JSON)},
    {NULL, "restore", "BACKUP", "make stream and registry from a backup",
     "The gateway is stopped, its storage.directory empty, and the database of registry.conninfo\n"
     "empty. The stream begins a new epoch. One half alone: --no-registry or --registry-only.",
     restore_run, OPTIONS(SERVER, CLI_NO_REGISTRY, CLI_REGISTRY_ONLY)},
    {NULL, "tail", "", "print events as they arrive, or from any point of the stream",
     "The secret is read from DURAGATE_KAFKA_PASSWORD (in the environment or the --env file).",
     tail_run,
     OPTIONS(CLI_ENV, CLI_BROKER, CLI_USER, CLI_KAFKA_TLS, CLI_CA_FILE, CLI_TENANT, CLI_TOPIC,
             CLI_ONLY_DEVICE, CLI_FROM, CLI_NO_FOLLOW, CLI_COUNT, CLI_JSON)},
    {NULL, "bench", "", "load a gateway with many devices and measure it",
     "Makes devices of its own through the API (and keeps them for the next run), unless\n"
     "--devices-file or --anonymous is given.",
     bench_run,
     OPTIONS(API, CLI_HOST, CLI_PORT, CLI_TLS, CLI_TENANT, CLI_CONNECTIONS, CLI_DURATION,
             CLI_WARMUP, CLI_QOS, CLI_SIZE, CLI_WINDOW, CLI_RATE, CLI_IDLE, CLI_SERVER_PID,
             CLI_MQTT5, CLI_ANONYMOUS, CLI_DEVICES)},
    {NULL, "healthcheck", "", "ask /readyz; exit 0 when the gateway is ready", NULL,
     healthcheck_run, OPTIONS(CLI_ENV, CLI_URL, CLI_CA_FILE)},
    {NULL, "completion", "SHELL", "print shell completion (bash)",
     "Load it with: . <(duragate completion bash)", completion_run,
     (const enum cli_option[]){CLI_HELP, CLI_OPTION_COUNT}},
    {NULL, "version", "", "print the version", NULL, version_run, OPTIONS(CLI_JSON)},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL},
};
