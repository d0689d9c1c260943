/*
 * `duragate tail`: prints events through the Kafka endpoint with librdkafka, as any consumer would:
 * no group, every partition assigned by hand.
 */
#include <jansson.h>
#include <librdkafka/rdkafka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/printable.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/utf8.h"

enum {
    TIMEOUT_MS = 10000,
    POLL_MS = 200,
    CONNECT_STEP_MS = 250,
    /* A name may have several addresses, and the gateway listens on one: librdkafka tries the next
     * after a pause. */
    OTHER_ADDRESSES_MS = 1000,
    REASON_SIZE = 512,
};

struct tail {
    struct cli_run *run;
    rd_kafka_t *client;
    rd_kafka_topic_partition_list_t *assigned;
    char topic[256];
    const char *device; /* NULL: all */
    int64_t left;       /* events to print; -1: no limit */
    int at_end;         /* partitions whose end was reached */
    int code;           /* what the process ends with */
    bool is_connected;
    char broker[300];
    const char *user;
    /* librdkafka's last word on the connection; 0: none yet. */
    rd_kafka_resp_err_t failure;
    int64_t failed_ms; /* when the first one came */
    char reason[REASON_SIZE];
};

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number) {
    interrupted = number;
}

/* ---- connecting
 * ----------------------------------------------------------------------------------- */

static bool set_property(struct cli_run *run, rd_kafka_conf_t *conf, const char *name,
                         const char *value) {
    char error[256];
    if (rd_kafka_conf_set(conf, name, value, error, sizeof(error)) == RD_KAFKA_CONF_OK)
        return true;
    cli_fail(run, 0, "%s", error);
    return false;
}

static void ignore_log(const rd_kafka_t *client, int level, const char *facility,
                       const char *text) {
}

/* Called within rd_kafka_poll. Trouble after the first connection is told and waited out. */
static void on_error(rd_kafka_t *client, int error, const char *reason, void *context) {
    struct tail *tail = context;
    if (error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN ||
        tail->failure == RD_KAFKA_RESP_ERR__AUTHENTICATION)
        return;
    if (tail->failure == RD_KAFKA_RESP_ERR_NO_ERROR)
        tail->failed_ms = clock_monotonic_ms();
    tail->failure = error;
    printable_copy(reason, sizeof(tail->reason), tail->reason, sizeof(tail->reason));
    if (tail->is_connected && error != RD_KAFKA_RESP_ERR__AUTHENTICATION)
        fprintf(stderr, "duragate tail: %s\n", tail->reason);
}

/* "sasl_plaintext://host:9092/bootstrap: SASL authentication error: TEXT (after 3ms in state ...)"
 */
static void fail_login(struct tail *tail) {
    static const char before[] = "authentication error: ";
    const char *text = strstr(tail->reason, before);
    text = text ? text + strlen(before) : tail->reason;
    const char *after = strstr(text, " (after ");
    tail->code = cli_fail(tail->run, DG_EXIT_NOPERM, "%s refuses the user '%s': %.*s", tail->broker,
                          tail->user, after ? (int)(after - text) : (int)strlen(text), text);
}

/* True, with a message, when waiting longer makes no sense. */
static bool has_given_up(struct tail *tail, int64_t waited_ms) {
    rd_kafka_resp_err_t failure = tail->failure;
    bool is_final = failure == RD_KAFKA_RESP_ERR__RESOLVE || failure == RD_KAFKA_RESP_ERR__SSL ||
                    (failure && clock_monotonic_ms() - tail->failed_ms >= OTHER_ADDRESSES_MS);
    if (failure == RD_KAFKA_RESP_ERR__AUTHENTICATION) {
        fail_login(tail);
        return true;
    }
    if (!is_final && waited_ms < TIMEOUT_MS)
        return false;
    tail->code =
        cli_fail(tail->run, DG_EXIT_UNAVAILABLE, "cannot reach %s: is the gateway running? (%s)",
                 tail->broker, failure ? tail->reason : "no answer");
    return true;
}

/* Metadata of the topic, once there is a connection; NULL after a message. An answer that takes
 * long is asked for again with more time. */
static const struct rd_kafka_metadata *fetch_metadata(struct tail *tail) {
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_topic_t *topic = rd_kafka_topic_new(tail->client, tail->topic, NULL);
    int64_t begun_ms = clock_monotonic_ms();
    int step_ms = CONNECT_STEP_MS;
    rd_kafka_resp_err_t error;
    do {
        error = rd_kafka_metadata(tail->client, 0, topic, &metadata, step_ms);
        rd_kafka_poll(tail->client, 0);
        if (error == RD_KAFKA_RESP_ERR__TIMED_OUT)
            step_ms *= 2;
    } while ((error == RD_KAFKA_RESP_ERR__TRANSPORT || error == RD_KAFKA_RESP_ERR__TIMED_OUT) &&
             !interrupted && !has_given_up(tail, clock_monotonic_ms() - begun_ms));
    rd_kafka_topic_destroy(topic);
    if (error == RD_KAFKA_RESP_ERR_NO_ERROR)
        tail->is_connected = true;
    else if (error != RD_KAFKA_RESP_ERR__TRANSPORT && error != RD_KAFKA_RESP_ERR__TIMED_OUT)
        cli_fail(tail->run, 0, "%s: %s", tail->topic, rd_kafka_err2str(error));
    return error == RD_KAFKA_RESP_ERR_NO_ERROR ? metadata : NULL;
}

static bool choose_broker(struct tail *tail) {
    struct cli_run *run = tail->run;
    bool tls = cli_has(run, CLI_KAFKA_TLS);
    const char *port = tls ? cli_setting(run, CLI_OPTION_COUNT, "DURAGATE_KAFKAS_PORT", "9093")
                           : cli_setting(run, CLI_OPTION_COUNT, "DURAGATE_KAFKA_PORT", "9092");
    const char *host =
        tls ? cli_setting(run, CLI_OPTION_COUNT, "DURAGATE_HOST", "localhost") : "localhost";
    if (run->option[CLI_BROKER])
        snprintf(tail->broker, sizeof(tail->broker), "%s", run->option[CLI_BROKER]);
    else
        snprintf(tail->broker, sizeof(tail->broker), "%s:%s", host, port);
    tail->user = cli_setting(run, CLI_USER, "DURAGATE_KAFKA_USER", NULL);
    if (tail->user && cli_setting(run, CLI_OPTION_COUNT, "DURAGATE_KAFKA_PASSWORD", NULL))
        return true;
    cli_fail(run, 0, "set DURAGATE_KAFKA_USER and DURAGATE_KAFKA_PASSWORD, or give --env FILE");
    return false;
}

static rd_kafka_t *connect_client(struct tail *tail) {
    struct cli_run *run = tail->run;
    const char *properties[][2] = {
        {"bootstrap.servers", tail->broker},
        {"security.protocol", cli_has(run, CLI_KAFKA_TLS) ? "SASL_SSL" : "SASL_PLAINTEXT"},
        {"sasl.mechanisms", "PLAIN"},
        {"sasl.username", tail->user},
        {"sasl.password", cli_setting(run, CLI_OPTION_COUNT, "DURAGATE_KAFKA_PASSWORD", "")},
        {"group.id", "duragate-tail"}, /* librdkafka wants one; no group is joined */
        {"enable.auto.commit", "false"},
        {"enable.partition.eof", "true"},
        {"auto.offset.reset", "earliest"},
        {"fetch.wait.max.ms", "1000"},
        {"ssl.ca.location", cli_setting(run, CLI_CA_FILE, "DURAGATE_CA_FILE", "")},
    };
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_opaque(conf, tail);
    rd_kafka_conf_set_log_cb(conf, ignore_log);
    rd_kafka_conf_set_error_cb(conf, on_error);
    for (unsigned i = 0; i < sizeof(properties) / sizeof(properties[0]); i++) {
        if (properties[i][1][0] && !set_property(run, conf, properties[i][0], properties[i][1])) {
            rd_kafka_conf_destroy(conf);
            return NULL;
        }
    }
    char error[256];
    rd_kafka_t *client = rd_kafka_new(RD_KAFKA_CONSUMER, conf, error, sizeof(error));
    if (!client) {
        cli_fail(run, 0, "%s", error);
        rd_kafka_conf_destroy(conf);
    }
    return client;
}

/* ---- where to begin
 * ------------------------------------------------------------------------------- */

/* All partitions of the topic, from the gateway's metadata. */
static bool list_partitions(struct tail *tail) {
    const struct rd_kafka_metadata *metadata = fetch_metadata(tail);
    if (!metadata)
        return false;
    if (metadata->topics[0].err != RD_KAFKA_RESP_ERR_NO_ERROR) {
        cli_fail(tail->run, 0, "%s: %s", tail->topic, rd_kafka_err2str(metadata->topics[0].err));
        rd_kafka_metadata_destroy(metadata);
        return false;
    }
    tail->assigned = rd_kafka_topic_partition_list_new(metadata->topics[0].partition_cnt);
    for (int i = 0; i < metadata->topics[0].partition_cnt; i++)
        rd_kafka_topic_partition_list_add(tail->assigned, tail->topic,
                                          metadata->topics[0].partitions[i].id);
    rd_kafka_metadata_destroy(metadata);
    return true;
}

static bool begin_at_time(struct tail *tail, int64_t wall_ms) {
    for (int i = 0; i < tail->assigned->cnt; i++)
        tail->assigned->elems[i].offset = wall_ms;
    rd_kafka_resp_err_t error =
        rd_kafka_offsets_for_times(tail->client, tail->assigned, TIMEOUT_MS);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR) {
        cli_fail(tail->run, 0, "%s", rd_kafka_err2str(error));
        return false;
    }
    for (int i = 0; i < tail->assigned->cnt; i++)
        if (tail->assigned->elems[i].offset < 0)
            tail->assigned->elems[i].offset = RD_KAFKA_OFFSET_END;
    return true;
}

/* Behind the end there is nothing to begin at, and librdkafka would begin at the beginning. */
static bool is_within(struct tail *tail, int32_t partition, int64_t offset) {
    int64_t log_start, end;
    rd_kafka_resp_err_t error = rd_kafka_query_watermark_offsets(
        tail->client, tail->topic, partition, &log_start, &end, TIMEOUT_MS);
    if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
        cli_fail(tail->run, 0, "%s", rd_kafka_err2str(error));
    else if (offset > end)
        tail->code = cli_fail(tail->run, DG_EXIT_USAGE, "partition %d ends at %lld", partition,
                              (long long)end);
    return error == RD_KAFKA_RESP_ERR_NO_ERROR && offset <= end;
}

static bool begin_at_offset(struct tail *tail, int32_t partition, int64_t offset) {
    bool found = false;
    for (int i = tail->assigned->cnt - 1; i >= 0; i--) {
        tail->assigned->elems[i].offset = offset;
        if (tail->assigned->elems[i].partition == partition)
            found = true;
        else
            rd_kafka_topic_partition_list_del_by_idx(tail->assigned, i);
    }
    if (!found)
        tail->code =
            cli_fail(tail->run, DG_EXIT_USAGE, "%s has no partition %d", tail->topic, partition);
    return found && is_within(tail, partition, offset);
}

static bool choose_begin(struct tail *tail) {
    const char *from = tail->run->option[CLI_FROM] ? tail->run->option[CLI_FROM] : "end";
    int64_t wall_ms;
    int partition, used = 0;
    long long offset;
    bool beginning = strcmp(from, "beginning") == 0;
    if (beginning || strcmp(from, "end") == 0) {
        for (int i = 0; i < tail->assigned->cnt; i++)
            tail->assigned->elems[i].offset =
                beginning ? RD_KAFKA_OFFSET_BEGINNING : RD_KAFKA_OFFSET_END;
        return true;
    }
    if (clock_parse_rfc3339(from, strlen(from), &wall_ms) == 0)
        return begin_at_time(tail, wall_ms);
    if (sscanf(from, "%d:%lld%n", &partition, &offset, &used) == 2 && offset >= 0 &&
        from[used] == '\0')
        return begin_at_offset(tail, partition, offset);
    tail->code =
        cli_fail(tail->run, DG_EXIT_USAGE,
                 "--from is '%s'; it takes beginning, end, a time such as 2026-11-24T12:00:00Z, or "
                 "PARTITION:OFFSET",
                 from);
    return false;
}

/* ---- printing
 * ------------------------------------------------------------------------------------- */

static json_t *bytes_as_json(const void *data, size_t size) {
    if (!data)
        return json_null();
    json_t *text = utf8_is_valid(data, size) ? json_stringn(data, size) : NULL;
    if (text)
        return text;
    char *hex = malloc(size * 2 + 1);
    if (!hex)
        return json_null();
    for (size_t i = 0; i < size; i++)
        sprintf(hex + 2 * i, "%02x", ((const unsigned char *)data)[i]);
    text = json_pack("{s:s#}", "hex", hex, (int)(size * 2));
    free(hex);
    return text;
}

static void print_json(const rd_kafka_message_t *message, const rd_kafka_headers_t *headers) {
    json_t *all = json_object();
    const char *name;
    const void *value;
    size_t size;
    for (size_t i = 0; headers && rd_kafka_header_get_all(headers, i, &name, &value, &size) == 0;
         i++)
        json_object_set_new(all, name, bytes_as_json(value, size));
    json_t *line = json_pack("{s:i, s:I, s:I, s:o, s:o, s:o}", "partition", message->partition,
                             "offset", (json_int_t)message->offset, "timestamp_ms",
                             (json_int_t)rd_kafka_message_timestamp(message, NULL), "key",
                             bytes_as_json(message->key, message->key_len), "headers", all, "value",
                             bytes_as_json(message->payload, message->len));
    json_dumpf(line, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(line);
}

static const char *header_text(const rd_kafka_headers_t *headers, const char *name,
                               size_t *ret_size) {
    const void *value;
    size_t size;
    if (!headers || rd_kafka_header_get_last(headers, name, &value, &size) != 0) {
        *ret_size = 1;
        return "-";
    }
    *ret_size = size;
    return value;
}

static void print_pretty(const rd_kafka_message_t *message, const rd_kafka_headers_t *headers) {
    size_t type_size, subject_size;
    const char *type = header_text(headers, "ce_type", &type_size);
    const char *subject = header_text(headers, "ce_subject", &subject_size);
    char time[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(rd_kafka_message_timestamp(message, NULL), time);
    printf("%.*s %d:%lld ", (int)sizeof(time), time, message->partition,
           (long long)message->offset);
    printable_write(stdout, message->key, message->key_len);
    putchar(' ');
    printable_write(stdout, type, type_size);
    putchar(' ');
    printable_write(stdout, subject, subject_size);
    putchar(' ');
    if (utf8_is_valid(message->payload, message->len))
        printable_write(stdout, message->payload, message->len);
    else
        printf("(%zu bytes)", message->len);
    putchar('\n');
}

static void print_message(struct tail *tail, const rd_kafka_message_t *message) {
    if (tail->device && (message->key_len != strlen(tail->device) ||
                         memcmp(message->key, tail->device, message->key_len) != 0))
        return;
    rd_kafka_headers_t *headers = NULL;
    rd_kafka_message_headers(message, &headers);
    if (cli_has(tail->run, CLI_JSON))
        print_json(message, headers);
    else
        print_pretty(message, headers);
    fflush(stdout);
    if (tail->left > 0)
        tail->left--;
}

/* librdkafka looks for its group's coordinator although no group is joined; and it reconnects. */
static bool is_passing(rd_kafka_resp_err_t error) {
    return error == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED ||
           error == RD_KAFKA_RESP_ERR__TRANSPORT || error == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN ||
           error == RD_KAFKA_RESP_ERR__AUTHENTICATION; /* on_error has it */
}

/* True while there is more to do. */
static bool tail_step(struct tail *tail) {
    rd_kafka_message_t *message = rd_kafka_consumer_poll(tail->client, POLL_MS);
    bool more = true;
    if (message && message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        more = ++tail->at_end < tail->assigned->cnt || !cli_has(tail->run, CLI_NO_FOLLOW);
    } else if (message && message->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
        print_message(tail, message);
    } else if (message && !is_passing(message->err)) {
        tail->code = cli_fail(tail->run, DG_EXIT_FAILURE, "%s", rd_kafka_message_errstr(message));
        more = false;
    }
    if (tail->failure == RD_KAFKA_RESP_ERR__AUTHENTICATION) {
        fail_login(tail);
        more = false;
    }
    if (message)
        rd_kafka_message_destroy(message);
    return more && tail->left != 0 && !interrupted && !ferror(stdout);
}

int tail_run(struct cli_run *run) {
    struct tail tail = {
        .run = run, .device = run->option[CLI_ONLY_DEVICE], .code = DG_EXIT_FAILURE};
    const char *tenant = cli_setting(run, CLI_TENANT, "DURAGATE_TENANT", "default");
    const char *topic = cli_setting(run, CLI_TOPIC, "DURAGATE_TOPIC", NULL);
    if (topic && !(cli_has(run, CLI_TENANT) && !cli_has(run, CLI_TOPIC)))
        snprintf(tail.topic, sizeof(tail.topic), "%s", topic);
    else
        snprintf(tail.topic, sizeof(tail.topic), "%s.events", tenant);
    if (!cli_number(run, CLI_COUNT, 1, INT64_MAX, -1, &tail.left))
        return DG_EXIT_USAGE;
    signal(SIGINT, on_interrupt);
    signal(SIGTERM, on_interrupt);
    if (!choose_broker(&tail) || !(tail.client = connect_client(&tail)))
        return DG_EXIT_USAGE;
    if (list_partitions(&tail) && choose_begin(&tail)) {
        tail.code = DG_EXIT_OK;
        rd_kafka_poll_set_consumer(tail.client);
        rd_kafka_assign(tail.client, tail.assigned);
        while (tail_step(&tail))
            ;
    }
    if (tail.assigned)
        rd_kafka_topic_partition_list_destroy(tail.assigned);
    rd_kafka_consumer_close(tail.client);
    rd_kafka_destroy(tail.client);
    return tail.code;
}
