/* DescribeConfigs and DescribeCluster: what tools see of topics and of the gateway, and that
 * nothing of another tenant's is among it. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/unit/gateway/kafka_support.h"

TestSuite(kafka_describe, .fini = loopback_check_leaks);

enum { TOPIC = 2, BROKER = 4, LOGGER = 8 };

static struct kafka_server server;
static struct kafka_client client;

/* ---- DescribeConfigs, version 3 ---- */

struct entry {
    char name[64], value[64], synonym[64];
    uint8_t source, type;
    bool has_documentation;
};
struct described {
    int16_t error;
    unsigned count;
    struct entry entries[32];
};

static void take_text(struct reader *r, char *ret_text) {
    uint16_t size = reader_u16(r);
    struct slice text = reader_slice(r, size == 0xffff ? 0 : size);
    snprintf(ret_text, 64, "%.*s", (int)text.size, (const char *)text.data);
}

static void take_entry(struct reader *r, struct entry *entry) {
    take_text(r, entry->name);
    take_text(r, entry->value);
    cr_assert_eq(reader_u8(r), 1); /* read-only */
    entry->source = reader_u8(r);
    cr_assert_eq(reader_u8(r), 0); /* not a secret */
    entry->synonym[0] = '\0';
    for (uint32_t count = reader_u32(r); count > 0; count--) {
        char value[64];
        take_text(r, entry->synonym);
        take_text(r, value);
        cr_assert_str_eq(value, entry->value);
        cr_assert_eq(reader_u8(r), entry->source);
    }
    entry->type = reader_u8(r);
    uint16_t size = reader_u16(r);
    entry->has_documentation = size != 0xffff;
    reader_take(r, entry->has_documentation ? size : 0);
}

static void take_described(struct reader *r, struct described *ret) {
    char text[64];
    cr_assert_eq(reader_u32(r), 0);
    cr_assert_eq(reader_u32(r), 1);
    ret->error = (int16_t)reader_u16(r);
    take_text(r, text);
    cr_assert_eq(text[0] != '\0', ret->error != 0, "%s", text);
    reader_u8(r);
    take_text(r, text);
    ret->count = reader_u32(r);
    cr_assert_leq(ret->count, 32);
    for (unsigned i = 0; i < ret->count; i++)
        take_entry(r, &ret->entries[i]);
    cr_assert(!r->failed && reader_left(r) == 0);
}

/* keys NULL: all. */
static struct described describe(struct kafka_client *c, int type, const char *name,
                                 const char *const *keys, bool with_more) {
    struct described described;
    unsigned count = 0;
    while (keys && keys[count])
        count++;
    kafka_begin(c, KAFKA_DESCRIBE_CONFIGS, 3);
    writer_u32(&c->request, 1);
    writer_u8(&c->request, (uint8_t)type);
    kafka_put_text(c, name);
    writer_u32(&c->request, keys ? count : UINT32_MAX);
    for (unsigned i = 0; i < count; i++)
        kafka_put_text(c, keys[i]);
    writer_u8(&c->request, with_more);
    writer_u8(&c->request, with_more);
    kafka_call_server(c);
    take_described(&c->answer, &described);
    return described;
}

static const struct entry *find_entry(const struct described *described, const char *name) {
    for (unsigned i = 0; i < described->count; i++)
        if (strcmp(described->entries[i].name, name) == 0)
            return &described->entries[i];
    return NULL;
}

Test(kafka_describe, a_topic) {
    static const struct {
        const char *name, *value, *synonym;
        uint8_t source, type;
    } expected[] = {
        {"cleanup.policy", "delete", "log.cleanup.policy", 5, 7},
        {"retention.ms", "3600000", "log.retention.ms", 4, 5},
        {"retention.bytes", "-1", "log.retention.bytes", 4, 5}, /* 0: no limit */
        {"segment.bytes", "134217728", "log.segment.bytes", 4, 3},
        {"max.message.bytes", "1048576", "message.max.bytes", 5, 3},
        {"compression.type", "producer", "compression.type", 5, 2},
    };
    static const char *const overrides[] = {"security.allow_plaintext_passwords=true",
                                            "storage.retention_time=1h", NULL};
    kafka_server_start(&server, overrides);
    kafka_enter(&client, &server, "reader");
    struct described more = describe(&client, TOPIC, "acme.events", NULL, true);
    struct described plain = describe(&client, TOPIC, "acme.events", NULL, false);
    cr_assert_eq(more.error, 0);
    cr_assert_eq(plain.count, more.count);
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        const struct entry *entry = find_entry(&more, expected[i].name);
        cr_assert(entry, "%s", expected[i].name);
        cr_expect_str_eq(entry->value, expected[i].value);
        cr_expect_str_eq(entry->synonym, expected[i].synonym);
        cr_expect(entry->source == expected[i].source && entry->type == expected[i].type, "%s",
                  entry->name);
        cr_expect(entry->has_documentation);
        entry = find_entry(&plain, expected[i].name);
        cr_expect(entry && !entry->synonym[0] && !entry->has_documentation);
    }
    cr_expect_null(find_entry(&more, "broker.id"));
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

Test(kafka_describe, the_broker_and_named_keys) {
    static const char *const keys[] = {"log.retention.ms", "no.such.key", "broker.id", NULL};
    static const char *const none[] = {NULL};
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "auditor");
    struct described all = describe(&client, BROKER, "1", NULL, false);
    cr_assert_eq(all.error, 0);
    cr_expect(find_entry(&all, "auto.create.topics.enable"));
    cr_expect_null(find_entry(&all, "retention.ms"));
    struct described some = describe(&client, BROKER, "1", keys, false);
    cr_assert(some.error == 0 && some.count == 2);
    cr_expect_str_eq(find_entry(&some, "broker.id")->value, "1");
    cr_expect_str_eq(find_entry(&some, "log.retention.ms")->value, "604800000");
    cr_expect_eq(describe(&client, BROKER, "1", none, false).count, 0);
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

Test(kafka_describe, what_there_is_not_for_this_key) {
    static const struct {
        const char *user;
        int type;
        const char *name;
        int16_t error;
    } cases[] = {
        {"reader", TOPIC, "beta.events", KAFKA_ERROR_NOT_AUTHORIZED},
        {"reader", TOPIC, "nobody.events", KAFKA_ERROR_NOT_AUTHORIZED},
        {"reader", TOPIC, "acme.audit", KAFKA_ERROR_NOT_AUTHORIZED},
        {"auditor", TOPIC, "acme.events", KAFKA_ERROR_NOT_AUTHORIZED},
        {"auditor", TOPIC, "acme.audit", 0},
        {"platform", TOPIC, "beta.audit", 0},
        {"platform", TOPIC, "nobody.events", KAFKA_ERROR_UNKNOWN_TOPIC},
        {"reader", TOPIC, "", KAFKA_ERROR_UNKNOWN_TOPIC},
        {"reader", BROKER, "2", KAFKA_ERROR_INVALID_REQUEST},
        {"reader", BROKER, "", KAFKA_ERROR_INVALID_REQUEST},
        {"reader", LOGGER, "1", KAFKA_ERROR_INVALID_REQUEST},
    };
    kafka_server_start(&server, NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        kafka_enter(&client, &server, cases[i].user);
        struct described d = describe(&client, cases[i].type, cases[i].name, NULL, true);
        cr_expect_eq(d.error, cases[i].error, "%s %s: %d", cases[i].user, cases[i].name, d.error);
        cr_expect_eq(d.count > 0, d.error == 0);
        kafka_disconnect(&client);
    }
    kafka_server_stop(&server);
}

Test(kafka_describe, hostile_requests) {
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    const char *keys[LIMIT_KAFKA_DESCRIBED_KEYS + 2] = {NULL};
    for (unsigned i = 0; i < LIMIT_KAFKA_DESCRIBED_KEYS + 1; i++)
        keys[i] = "k";
    cr_expect_eq(describe(&client, TOPIC, "acme.events", keys, false).error,
                 KAFKA_ERROR_INVALID_REQUEST);
    kafka_begin(&client, KAFKA_DESCRIBE_CONFIGS, 1);
    writer_u32(&client.request, LIMIT_KAFKA_DESCRIBED_CONFIGS + 1);
    for (unsigned i = 0; i < LIMIT_KAFKA_DESCRIBED_CONFIGS + 1; i++) {
        writer_u8(&client.request, TOPIC);
        kafka_put_text(&client, "acme.events");
        writer_u32(&client.request, UINT32_MAX);
    }
    writer_u8(&client.request, 0);
    kafka_send(&client);
    cr_expect(client_at_end(&client.client));
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

/* ---- DescribeCluster ---- */

static int16_t describe_cluster(struct kafka_client *c, int version, uint8_t endpoint_type,
                                unsigned *ret_brokers) {
    kafka_begin(c, KAFKA_DESCRIBE_CLUSTER, version);
    writer_u8(&c->request, 0);
    if (version >= 1)
        writer_u8(&c->request, endpoint_type);
    writer_u8(&c->request, 0);
    kafka_call_server(c);
    struct reader *r = &c->answer;
    cr_assert_eq(reader_u32(r), 0);
    int16_t error = (int16_t)reader_u16(r);
    uint8_t size = reader_u8(r);
    cr_assert_eq(size > 1, error != 0);
    reader_take(r, size > 1 ? size - 1u : 0);
    if (version >= 1)
        cr_assert_eq(reader_u8(r), 1);
    cr_assert(slice_equals_string(reader_slice(r, reader_u8(r) - 1u), "duragate"));
    cr_assert_eq(reader_u32(r), 1);
    *ret_brokers = reader_u8(r) - 1u;
    for (unsigned i = 0; i < *ret_brokers; i++) {
        cr_assert_eq(reader_u32(r), 1);
        cr_assert(slice_equals_string(reader_slice(r, reader_u8(r) - 1u), "localhost"));
        cr_assert_eq(reader_u32(r), 9092);
        cr_assert_eq(reader_u16(r), 0); /* no rack, no tags */
    }
    cr_assert_eq((int32_t)reader_u32(r), INT32_MIN);
    cr_assert_eq(reader_u8(r), 0);
    cr_assert(!r->failed && reader_left(r) == 0);
    return error;
}

Test(kafka_describe, the_cluster) {
    static const struct {
        int version;
        uint8_t endpoint_type;
        int16_t error;
        unsigned brokers;
    } cases[] = {{0, 0, 0, 1},
                 {1, 1, 0, 1},
                 {1, 2, KAFKA_ERROR_UNSUPPORTED_ENDPOINT, 0},
                 {1, 0, KAFKA_ERROR_UNSUPPORTED_ENDPOINT, 0}};
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        unsigned brokers;
        cr_expect_eq(describe_cluster(&client, cases[i].version, cases[i].endpoint_type, &brokers),
                     cases[i].error);
        cr_expect_eq(brokers, cases[i].brokers);
    }
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}
