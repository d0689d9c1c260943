/* Metadata: which topics a principal sees, by name and by id, and that none of another tenant's is
 * among them. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/gateway/kafka_support.h"

TestSuite(kafka_metadata, .fini = loopback_check_leaks);

static struct kafka_server server;
static struct kafka_client client;

/* ---- what there is ---- */

struct listed {
    char name[64];
    int16_t error;
    uint32_t partitions;
};

/* Metadata version 1 of the named topics (NULL: all). */
static unsigned list_topics(struct kafka_client *c, const char *const *names,
                            struct listed *ret_listed) {
    unsigned count = 0;
    kafka_begin(c, KAFKA_METADATA, 1);
    while (names && names[count])
        count++;
    writer_u32(&c->request, names ? count : UINT32_MAX);
    for (unsigned i = 0; i < count; i++)
        kafka_put_text(c, names[i]);
    kafka_call_server(c);
    struct reader *r = &c->answer;
    cr_assert_eq(reader_u32(r), 1); /* one broker */
    reader_u32(r);
    cr_assert(slice_equals_string(reader_slice(r, reader_u16(r)), "localhost"));
    cr_assert_eq(reader_u32(r), 9092);
    cr_assert_eq(reader_u16(r), 0xffff); /* no rack */
    reader_u32(r);
    count = reader_u32(r);
    cr_assert_leq(count, 16);
    for (unsigned i = 0; i < count; i++) {
        ret_listed[i].error = (int16_t)reader_u16(r);
        struct slice name = reader_slice(r, reader_u16(r));
        snprintf(ret_listed[i].name, 64, "%.*s", (int)name.size, (const char *)name.data);
        reader_u8(r);
        ret_listed[i].partitions = reader_u32(r);
        reader_take(r, ret_listed[i].partitions * (2 + 4 + 4 + 8 + 8));
    }
    cr_assert(!r->failed && reader_left(r) == 0);
    return count;
}

Test(kafka_metadata, each_principal_sees_its_topics) {
    static const struct {
        const char *user, *topics;
    } cases[] = {
        {"reader", "acme.events acme.commands acme.quarantine "},
        {"auditor", "acme.audit "},
        {"beta-reader", "beta.events beta.commands beta.quarantine "},
        {"platform", "acme.events acme.commands acme.audit acme.quarantine "
                     "beta.events beta.commands beta.audit beta.quarantine "},
    };
    kafka_server_start(&server, NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct listed listed[16];
        char all[256] = "";
        kafka_enter(&client, &server, cases[i].user);
        unsigned count = list_topics(&client, NULL, listed);
        for (unsigned t = 0; t < count; t++) {
            cr_assert(listed[t].error == 0 && listed[t].partitions == KAFKA_TEST_PARTITIONS);
            strncat(all, listed[t].name, sizeof(all) - strlen(all) - 2);
            strcat(all, " ");
        }
        cr_assert_str_eq(all, cases[i].topics);
        kafka_disconnect(&client);
    }
    kafka_server_stop(&server);
}

static void check_errors(const char *user, const char *const *names, const int16_t *errors) {
    struct listed listed[16];
    kafka_enter(&client, &server, user);
    unsigned count = list_topics(&client, names, listed);
    for (unsigned i = 0; names[i]; i++) {
        cr_assert(i < count && strcmp(listed[i].name, names[i]) == 0);
        cr_assert_eq(listed[i].error, errors[i], "%s asks for %s: %d", user, names[i],
                     listed[i].error);
        cr_assert_eq(listed[i].partitions, errors[i] ? 0 : KAFKA_TEST_PARTITIONS);
    }
    kafka_disconnect(&client);
}

Test(kafka_metadata, nothing_crosses_a_tenant_boundary) {
    static const char *const names[] = {"acme.events", "beta.events", "nobody.events", "acme.audit",
                                        "acme.nope",   "events",      ".events",       "",
                                        NULL};
    static const int16_t reader[] = {0, 29, 29, 29, 3, 3, 29, 3};
    static const int16_t platform[] = {0, 0, 3, 0, 3, 3, 3, 3};
    static const int16_t nothing_known[] = {5, 5, 5, 5, 3, 3, 5, 3};
    kafka_server_start(&server, NULL);
    check_errors("reader", names, reader);
    check_errors("platform", names, platform);
    kafka_table.tenants_unavailable = true;
    check_errors("reader", names, reader); /* its tenant is known from the login */
    check_errors("platform", names, nothing_known);
    kafka_server_stop(&server);
}

static void ask_by_id(struct kafka_client *c, const uint8_t *id, int16_t error, const char *name) {
    kafka_begin(c, KAFKA_METADATA, 12);
    writer_u8(&c->request, 2);
    writer_bytes(&c->request, id, KAFKA_UUID_SIZE);
    writer_u8(&c->request, 0);
    writer_bytes(&c->request, "\0\0\0\0", 4);
    kafka_call_server(c);
    struct reader *r = &c->answer;
    reader_take(r, 4 + 1 + 4);
    reader_take(r, reader_u8(r) - 1u);
    reader_take(r, 4 + 1 + 1);
    reader_take(r, reader_u8(r) - 1u);
    reader_u32(r);
    cr_assert_eq(reader_u8(r), 2);
    cr_assert_eq((int16_t)reader_u16(r), error);
    uint8_t size = reader_u8(r);
    cr_assert(slice_equals_string(reader_slice(r, size ? size - 1u : 0), name));
    cr_assert_arr_eq(reader_take(r, KAFKA_UUID_SIZE), id, KAFKA_UUID_SIZE);
}

Test(kafka_metadata, topics_by_id) {
    uint8_t id[KAFKA_UUID_SIZE] = "duragate";
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    id[15] = (uint8_t)registry_stream(ACME_STREAM, STREAM_COMMANDS);
    ask_by_id(&client, id, 0, "acme.commands");
    id[15] = (uint8_t)registry_stream(BETA_STREAM, STREAM_EVENTS);
    ask_by_id(&client, id, KAFKA_ERROR_UNKNOWN_TOPIC_ID, "");
    id[15] = (uint8_t)registry_stream(ACME_STREAM, 7);
    ask_by_id(&client, id, KAFKA_ERROR_UNKNOWN_TOPIC_ID, "");
    memset(id, 0, sizeof(id));
    ask_by_id(&client, id, KAFKA_ERROR_UNKNOWN_TOPIC_ID, "");
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

/* ---- change and size ---- */

/* An answer larger than the worker's buffer and than other protocols may have unsent. */
Test(kafka_metadata, topics_of_very_many_tenants) {
    enum { TENANTS = 5000 };
    kafka_server_start(&server, NULL);
    kafka_table.tenant_count = TENANTS;
    kafka_enter(&client, &server, "platform");
    kafka_begin(&client, KAFKA_METADATA, 1);
    writer_u32(&client.request, UINT32_MAX);
    kafka_call_server(&client);
    struct reader *r = &client.answer;
    reader_take(r, 4 + 4 + 2 + strlen("localhost") + 4 + 2 + 4);
    cr_expect_eq(reader_u32(r), TENANTS * 4);
    cr_expect_gt(reader_left(r), 2 * LIMIT_OUTPUT_BYTES);
    kafka_disconnect(&client);
    kafka_table.tenant_count = 0;
    kafka_server_stop(&server);
}

/* A tenant that was deleted and made anew under the same name is another one: its topics are not
 * for those who logged in before. */
Test(kafka_metadata, a_tenant_made_anew_is_another_one) {
    static const char *const names[] = {"acme.events", NULL};
    struct listed listed[16];
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    kafka_table.acme_is_new = true;
    for (unsigned i = 0; i < 50; i++) { /* what was asked for a moment ago stands */
        cr_assert_eq(list_topics(&client, names, listed), 1);
        if (listed[0].error != 0)
            break;
        usleep(100000);
    }
    cr_expect_eq(listed[0].error, KAFKA_ERROR_NOT_AUTHORIZED);
    kafka_disconnect(&client);
    kafka_table.acme_is_new = false;
    kafka_server_stop(&server);
}

/* ---- partitions that were added while connected ---- */

enum { NEW_PARTITION = KAFKA_TEST_PARTITIONS };

static int try_list_offsets(void) {
    int64_t ms, offset;
    kafka_begin_list_offsets(&client, "acme.events", NEW_PARTITION, -1);
    kafka_call_server(&client);
    return kafka_take_list_offsets(&client, NEW_PARTITION, &ms, &offset);
}

static int try_fetch(void) {
    struct kafka_asked asked = {.partition = NEW_PARTITION, .max_bytes = 1024};
    struct kafka_fetched fetched;
    kafka_begin_fetch(&client, "acme.events", 0, 1, 1024, &asked, 1);
    kafka_call_server(&client);
    kafka_take_fetch(&client, &fetched, 1);
    return fetched.error;
}

static int try_epoch(void) {
    kafka_begin(&client, KAFKA_OFFSET_FOR_LEADER_EPOCH, 2);
    writer_u32(&client.request, 1);
    kafka_put_text(&client, "acme.events");
    writer_u32(&client.request, 1);
    writer_u32(&client.request, NEW_PARTITION);
    writer_u32(&client.request, UINT32_MAX);
    writer_u32(&client.request, 0);
    kafka_call_server(&client);
    reader_take(&client.answer, 4 + 4 + 2 + strlen("acme.events") + 4);
    return reader_u16(&client.answer);
}

static int try_commit(void) {
    kafka_begin(&client, KAFKA_OFFSET_COMMIT, 2);
    kafka_put_text(&client, "g");
    writer_u32(&client.request, UINT32_MAX);
    kafka_put_text(&client, "");
    writer_u64(&client.request, UINT64_MAX);
    writer_u32(&client.request, 1);
    kafka_put_text(&client, "acme.events");
    writer_u32(&client.request, 1);
    writer_u32(&client.request, NEW_PARTITION);
    writer_u64(&client.request, 0);
    kafka_put_text(&client, "");
    kafka_call_server(&client);
    reader_take(&client.answer, 4 + 2 + strlen("acme.events") + 4 + 4);
    return reader_u16(&client.answer);
}

/* Many clients have a connection for their group that never asks for metadata. */
Test(kafka_metadata, who_never_asks_learns_of_new_partitions) {
    static int (*const tries[])(void) = {try_list_offsets, try_fetch, try_epoch, try_commit};
    kafka_server_start(&server, NULL);
    for (size_t i = 0; i < sizeof(tries) / sizeof(tries[0]); i++) {
        int error = 0;
        kafka_table.more_partitions = 0;
        kafka_enter(&client, &server, "reader");
        cr_expect_eq(tries[i](), KAFKA_ERROR_UNKNOWN_TOPIC, "%zu", i);
        kafka_table.more_partitions = 1;
        for (unsigned wait = 0; wait < 50; wait++) { /* what was asked for a moment ago stands */
            if ((error = tries[i]()) == 0)
                break;
            usleep(100000);
        }
        cr_expect_eq(error, 0, "%zu: %d", i, error);
        kafka_disconnect(&client);
    }
    kafka_server_stop(&server);
}
