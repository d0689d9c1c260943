/* librdkafka as a driver: commands and output are described in ../clients.py. */
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TIMEOUT_MS = 20000, ERROR_TEXT_SIZE = 512 };

static const char *topic;
static rd_kafka_topic_partition_list_t *assigned; /* of a member */

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("error ", stdout);
    vprintf(format, arguments);
    va_end(arguments);
    puts("");
    fflush(stdout);
    _Exit(1); /* destroying a client that cannot log in takes long */
}

static void check(rd_kafka_resp_err_t err, const char *call) {
    if (err)
        fail("%s: %s", call, rd_kafka_err2str(err));
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value) {
    char text[ERROR_TEXT_SIZE];
    if (rd_kafka_conf_set(conf, name, value, text, sizeof(text)) != RD_KAFKA_CONF_OK)
        fail("%s: %s", name, text);
}

static void on_error(rd_kafka_t *client, int err, const char *reason, void *opaque) {
    (void)client, (void)opaque;
    if (err == RD_KAFKA_RESP_ERR__AUTHENTICATION)
        fail("%s: %s", rd_kafka_err2str(err), reason);
    fprintf(stderr, "%s: %s\n", rd_kafka_err2str(err), reason);
}

static rd_kafka_conf_t *make_conf(void) {
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    const char *authority = getenv("DG_CA_FILE");
    set(conf, "bootstrap.servers", getenv("DG_BOOTSTRAP"));
    set(conf, "security.protocol", *authority ? "SASL_SSL" : "SASL_PLAINTEXT");
    if (*authority)
        set(conf, "ssl.ca.location", authority);
    set(conf, "sasl.mechanisms", getenv("DG_MECHANISM"));
    set(conf, "sasl.username", getenv("DG_USER"));
    set(conf, "sasl.password", getenv("DG_PASSWORD"));
    set(conf, "auto.offset.reset", "earliest");
    rd_kafka_conf_set_error_cb(conf, on_error);
    return conf;
}

static rd_kafka_t *make_client(rd_kafka_type_t type, rd_kafka_conf_t *conf) {
    char text[ERROR_TEXT_SIZE];
    rd_kafka_t *client = rd_kafka_new(type, conf, text, sizeof(text));
    if (!client)
        fail("%s", text);
    if (type == RD_KAFKA_CONSUMER)
        check(rd_kafka_poll_set_consumer(client), "poll_set_consumer");
    return client;
}

static rd_kafka_t *make_consumer(const char *group) {
    rd_kafka_conf_t *conf = make_conf();
    set(conf, "group.id", group);
    return make_client(RD_KAFKA_CONSUMER, conf);
}

/* In short steps: a refused login is told between them, while the call itself would go on waiting.
 */
static const struct rd_kafka_metadata *take_metadata(rd_kafka_t *client) {
    enum { STEP_MS = 500 };
    const struct rd_kafka_metadata *metadata = NULL;
    rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR__TIMED_OUT;
    for (int left_ms = TIMEOUT_MS; err && left_ms > 0; left_ms -= STEP_MS) {
        err = rd_kafka_metadata(client, 1, NULL, &metadata, STEP_MS);
        rd_kafka_poll(client, 0);
    }
    check(err, "metadata");
    return metadata;
}

static int count_partitions(rd_kafka_t *client) {
    const struct rd_kafka_metadata *metadata = take_metadata(client);
    int count = 0;
    for (int t = 0; t < metadata->topic_cnt; t++)
        if (strcmp(metadata->topics[t].topic, topic) == 0)
            count = metadata->topics[t].partition_cnt;
    rd_kafka_metadata_destroy(metadata);
    return count;
}

static rd_kafka_topic_partition_list_t *all_partitions(rd_kafka_t *client, int64_t offset) {
    int count = count_partitions(client);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(count);
    for (int p = 0; p < count; p++)
        rd_kafka_topic_partition_list_add(list, topic, p)->offset = offset;
    return list;
}

static void print_header(const rd_kafka_headers_t *headers, const char *name) {
    const void *value = "";
    size_t size = 0;
    rd_kafka_header_get_last(headers, name, &value, &size);
    printf(" %.*s", (int)size, (const char *)value);
}

static void print_record(const rd_kafka_message_t *message) {
    rd_kafka_headers_t *headers = NULL;
    check(rd_kafka_message_headers(message, &headers), "headers");
    printf("record %" PRId32 " %" PRId64 " %" PRId64 " %.*s", message->partition, message->offset,
           rd_kafka_message_timestamp(message, NULL), (int)message->key_len,
           (const char *)message->key);
    print_header(headers, "ce_id");
    print_header(headers, "ce_type");
    fputs(message->len ? " " : " -", stdout);
    for (size_t i = 0; i < message->len; i++)
        printf("%02x", ((const uint8_t *)message->payload)[i]);
    puts("");
    fflush(stdout);
}

/* Prints a record if one comes within the time. Returns whether one did. */
static bool poll_record(rd_kafka_t *client, int timeout_ms) {
    rd_kafka_message_t *message = rd_kafka_consumer_poll(client, timeout_ms);
    if (!message)
        return false;
    if (message->err && message->err != RD_KAFKA_RESP_ERR__TRANSPORT)
        fail("poll: %s", rd_kafka_message_errstr(message));
    bool is_record = !message->err;
    if (is_record)
        print_record(message);
    rd_kafka_message_destroy(message);
    return is_record;
}

static void print_topics(char **arguments) {
    (void)arguments;
    rd_kafka_t *client = make_consumer("none");
    const struct rd_kafka_metadata *metadata = take_metadata(client);
    for (int t = 0; t < metadata->topic_cnt; t++)
        printf("topic %s %d\n", metadata->topics[t].topic, metadata->topics[t].partition_cnt);
    rd_kafka_metadata_destroy(metadata);
    rd_kafka_destroy(client);
}

static void read_all(char **arguments) {
    (void)arguments;
    rd_kafka_t *client = make_consumer("none");
    rd_kafka_topic_partition_list_t *list = all_partitions(client, RD_KAFKA_OFFSET_BEGINNING);
    int64_t left = 0;
    for (int p = 0; p < list->cnt; p++) {
        int64_t low, high;
        check(rd_kafka_query_watermark_offsets(client, topic, p, &low, &high, TIMEOUT_MS),
              "watermarks");
        left += high - low;
    }
    check(rd_kafka_assign(client, list), "assign");
    while (left > 0)
        left -= poll_record(client, 1000);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_consumer_close(client);
    rd_kafka_destroy(client);
}

static void seek_to(char **arguments) {
    rd_kafka_t *client = make_consumer("none");
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, atoi(arguments[0]))->offset =
        atoll(arguments[1]);
    check(rd_kafka_assign(client, list), "assign");
    for (int left = atoi(arguments[2]); left > 0;)
        left -= poll_record(client, 1000);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_consumer_close(client);
    rd_kafka_destroy(client);
}

static void print_times(char **arguments) {
    rd_kafka_t *client = make_consumer("none");
    rd_kafka_topic_partition_list_t *list = all_partitions(client, atoll(arguments[0]));
    check(rd_kafka_offsets_for_times(client, list, TIMEOUT_MS), "offsets_for_times");
    for (int p = 0; p < list->cnt; p++)
        printf("time %" PRId32 " %" PRId64 "\n", list->elems[p].partition, list->elems[p].offset);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_destroy(client);
}

static void print_assigned(void) {
    printf("assigned ");
    for (int p = 0; p < assigned->cnt; p++)
        printf("%s%" PRId32, p ? "," : "", assigned->elems[p].partition);
    puts("");
    fflush(stdout);
}

static void on_rebalance(rd_kafka_t *client, rd_kafka_resp_err_t err,
                         rd_kafka_topic_partition_list_t *change, void *opaque) {
    (void)opaque;
    bool gains = err == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
    bool cooperative = strcmp(rd_kafka_rebalance_protocol(client), "COOPERATIVE") == 0;
    for (int p = 0; p < change->cnt; p++) {
        if (gains)
            rd_kafka_topic_partition_list_add(assigned, topic, change->elems[p].partition);
        else
            rd_kafka_topic_partition_list_del(assigned, topic, change->elems[p].partition);
    }
    print_assigned();
    if (cooperative)
        rd_kafka_error_destroy(gains ? rd_kafka_incremental_assign(client, change)
                                     : rd_kafka_incremental_unassign(client, change));
    else
        check(rd_kafka_assign(client, gains ? change : NULL), "assign");
}

static bool input_ended(void) {
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return poll(&input, 1, 0) > 0;
}

static void be_member(char **arguments) {
    rd_kafka_conf_t *conf = make_conf();
    set(conf, "group.id", arguments[0]);
    if (arguments[1])
        set(conf, "group.instance.id", arguments[1]);
    set(conf, "session.timeout.ms", getenv("DG_SESSION_MS"));
    set(conf, "heartbeat.interval.ms", "300");
    if (*getenv("DG_STRATEGY"))
        set(conf, "partition.assignment.strategy", getenv("DG_STRATEGY"));
    rd_kafka_conf_set_rebalance_cb(conf, on_rebalance);
    rd_kafka_t *client = make_client(RD_KAFKA_CONSUMER, conf);
    assigned = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, RD_KAFKA_PARTITION_UA);
    check(rd_kafka_subscribe(client, list), "subscribe");
    rd_kafka_topic_partition_list_destroy(list);
    while (!input_ended())
        poll_record(client, 100);
    check(rd_kafka_consumer_close(client), "close");
    rd_kafka_destroy(client);
    rd_kafka_topic_partition_list_destroy(assigned);
}

static void on_delivery(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque) {
    (void)client, (void)opaque;
    if (message->err)
        printf("refused %d %s\n", message->err, rd_kafka_err2str(message->err));
    else
        puts("produced");
}

static void produce(char **arguments) {
    (void)arguments;
    rd_kafka_conf_t *conf = make_conf();
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_t *client = make_client(RD_KAFKA_PRODUCER, conf);
    char value[] = "x";
    check(rd_kafka_producev(client, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(0),
                            RD_KAFKA_V_VALUE(value, 1), RD_KAFKA_V_END),
          "produce");
    check(rd_kafka_flush(client, TIMEOUT_MS), "flush");
    rd_kafka_destroy(client);
}

struct admin {
    rd_kafka_t *client;
    rd_kafka_queue_t *queue;
};

static struct admin open_admin(void) {
    struct admin admin = {.client = make_client(RD_KAFKA_PRODUCER, make_conf())};
    admin.queue = rd_kafka_queue_new(admin.client);
    return admin;
}

static rd_kafka_event_t *take_answer(const struct admin *admin) {
    rd_kafka_event_t *event = rd_kafka_queue_poll(admin->queue, TIMEOUT_MS);
    if (!event)
        fail("no answer");
    if (rd_kafka_event_error(event))
        fail("%s", rd_kafka_event_error_string(event));
    return event;
}

static void close_admin(struct admin *admin, rd_kafka_event_t *event) {
    rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(admin->queue);
    rd_kafka_destroy(admin->client);
}

static void list_groups(char **arguments) {
    (void)arguments;
    struct admin admin = open_admin();
    rd_kafka_ListConsumerGroups(admin.client, NULL, admin.queue);
    rd_kafka_event_t *event = take_answer(&admin);
    size_t count;
    const rd_kafka_ConsumerGroupListing_t **groups = rd_kafka_ListConsumerGroups_result_valid(
        rd_kafka_event_ListConsumerGroups_result(event), &count);
    for (size_t i = 0; i < count; i++)
        printf("group %s %s\n", rd_kafka_ConsumerGroupListing_group_id(groups[i]),
               rd_kafka_consumer_group_state_name(rd_kafka_ConsumerGroupListing_state(groups[i])));
    close_admin(&admin, event);
}

static void print_member(const rd_kafka_MemberDescription_t *member) {
    const char *instance = rd_kafka_MemberDescription_group_instance_id(member);
    const rd_kafka_topic_partition_list_t *list =
        rd_kafka_MemberAssignment_partitions(rd_kafka_MemberDescription_assignment(member));
    printf("member %s %s ", rd_kafka_MemberDescription_consumer_id(member),
           instance ? instance : "-");
    for (int p = 0; p < list->cnt; p++)
        printf("%s%" PRId32, p ? "," : "", list->elems[p].partition);
    puts("");
}

static void describe_group(char **arguments) {
    struct admin admin = open_admin();
    const char *group = arguments[0];
    rd_kafka_DescribeConsumerGroups(admin.client, &group, 1, NULL, admin.queue);
    rd_kafka_event_t *event = take_answer(&admin);
    size_t count;
    const rd_kafka_ConsumerGroupDescription_t **groups =
        rd_kafka_DescribeConsumerGroups_result_groups(
            rd_kafka_event_DescribeConsumerGroups_result(event), &count);
    if (rd_kafka_ConsumerGroupDescription_error(groups[0]))
        fail("%s", rd_kafka_error_string(rd_kafka_ConsumerGroupDescription_error(groups[0])));
    printf("group %s %s\n", rd_kafka_ConsumerGroupDescription_group_id(groups[0]),
           rd_kafka_consumer_group_state_name(rd_kafka_ConsumerGroupDescription_state(groups[0])));
    for (size_t i = 0; i < rd_kafka_ConsumerGroupDescription_member_count(groups[0]); i++)
        print_member(rd_kafka_ConsumerGroupDescription_member(groups[0], i));
    close_admin(&admin, event);
}

/* Fails when the group or one of its partitions has an error. */
static void check_group(const rd_kafka_group_result_t *group) {
    if (rd_kafka_group_result_error(group))
        fail("%s", rd_kafka_error_string(rd_kafka_group_result_error(group)));
    const rd_kafka_topic_partition_list_t *list = rd_kafka_group_result_partitions(group);
    for (int p = 0; list && p < list->cnt; p++)
        check(list->elems[p].err, "partition");
}

static void reset_group(char **arguments) {
    struct admin admin = open_admin();
    rd_kafka_topic_partition_list_t *list = all_partitions(admin.client, atoll(arguments[1]));
    rd_kafka_AlterConsumerGroupOffsets_t *alter =
        rd_kafka_AlterConsumerGroupOffsets_new(arguments[0], list);
    rd_kafka_AlterConsumerGroupOffsets(admin.client, &alter, 1, NULL, admin.queue);
    rd_kafka_event_t *event = take_answer(&admin);
    size_t count;
    check_group(rd_kafka_AlterConsumerGroupOffsets_result_groups(
        rd_kafka_event_AlterConsumerGroupOffsets_result(event), &count)[0]);
    rd_kafka_AlterConsumerGroupOffsets_destroy(alter);
    rd_kafka_topic_partition_list_destroy(list);
    close_admin(&admin, event);
}

static void delete_group(char **arguments) {
    struct admin admin = open_admin();
    rd_kafka_DeleteGroup_t *group = rd_kafka_DeleteGroup_new(arguments[0]);
    rd_kafka_DeleteGroups(admin.client, &group, 1, NULL, admin.queue);
    rd_kafka_event_t *event = take_answer(&admin);
    size_t count;
    check_group(
        rd_kafka_DeleteGroups_result_groups(rd_kafka_event_DeleteGroups_result(event), &count)[0]);
    rd_kafka_DeleteGroup_destroy(group);
    close_admin(&admin, event);
}

static const struct {
    const char *name;
    int arguments_min;
    void (*run)(char **arguments);
} commands[] = {
    {"topics", 0, print_topics}, {"read", 0, read_all},           {"seek", 3, seek_to},
    {"times", 1, print_times},   {"member", 1, be_member},        {"produce", 0, produce},
    {"groups", 0, list_groups},  {"describe", 1, describe_group}, {"reset", 2, reset_group},
    {"delete", 1, delete_group},
};

int main(int count, char **arguments) {
    topic = getenv("DG_TOPIC");
    for (size_t i = 0; count > 1 && i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(arguments[1], commands[i].name) == 0 && count - 2 >= commands[i].arguments_min) {
            commands[i].run(arguments + 2);
            return 0;
        }
    }
    fail("no such command");
}
