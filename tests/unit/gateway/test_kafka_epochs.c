/* Leader epochs on the wire: where one ended, and who asks with another one than ours. */
#include <criterion/criterion.h>

#include "tests/unit/gateway/kafka_support.h"

TestSuite(kafka_epochs, .fini = loopback_check_leaks);

static struct kafka_server server;
static struct kafka_client client;

struct epoch_case {
    int32_t current, asked;
    int16_t error;
    int32_t epoch;
    int64_t end;
};

static void check_epochs(const struct epoch_case *cases, size_t count) {
    kafka_server_start(&server, NULL);
    kafka_server_append(&server, STREAM_EVENTS, 0, 5, 20, 1000);
    kafka_enter(&client, &server, "reader");
    for (size_t i = 0; i < count; i++) {
        kafka_begin(&client, KAFKA_OFFSET_FOR_LEADER_EPOCH, 3);
        writer_u32(&client.request, 0xffffffff);
        writer_u32(&client.request, 1);
        kafka_put_text(&client, "acme.events");
        writer_u32(&client.request, 1);
        writer_u32(&client.request, 0);
        writer_u32(&client.request, (uint32_t)cases[i].current);
        writer_u32(&client.request, (uint32_t)cases[i].asked);
        kafka_call_server(&client);
        struct reader *r = &client.answer;
        reader_take(r, 4 + 4);
        reader_take(r, reader_u16(r));
        reader_u32(r);
        cr_assert_eq((int16_t)reader_u16(r), cases[i].error);
        reader_u32(r);
        cr_assert_eq((int32_t)reader_u32(r), cases[i].epoch);
        cr_assert_eq((int64_t)reader_u64(r), cases[i].end);
    }
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

Test(kafka_epochs, leader_epochs) {
    static const struct epoch_case cases[] = {{-1, 0, 0, 0, 5},
                                              {0, 0, 0, 0, 5},
                                              {0, 3, 0, -1, -1},
                                              {1, 0, 75, -1, -1},
                                              {-2, 0, 74, -1, -1}};
    check_epochs(cases, sizeof(cases) / sizeof(cases[0]));
}

/* The records were written in epoch 4: of the ones before it nothing is there. */
Test(kafka_epochs, leader_epochs_after_a_restore) {
    static const struct epoch_case cases[] = {
        {-1, 0, 0, 0, 0},   {4, 4, 0, 4, 5},    {4, 3, 0, 3, 0},    {4, 5, 0, -1, -1},
        {3, 4, 74, -1, -1}, {0, 0, 74, -1, -1}, {5, 4, 75, -1, -1}, {-1, -1, 0, -1, -1},
    };
    kafka_first_epoch = 4;
    check_epochs(cases, sizeof(cases) / sizeof(cases[0]));
    kafka_first_epoch = 0;
}

/* Versions in which a client cannot say which epoch it knows. */
Test(kafka_epochs, older_versions_know_no_epoch) {
    kafka_first_epoch = 4;
    kafka_server_start(&server, NULL);
    kafka_first_epoch = 0;
    kafka_server_append(&server, STREAM_EVENTS, 0, 5, 20, 1000);
    kafka_enter(&client, &server, "reader");
    struct reader *r = &client.answer;
    kafka_begin(&client, KAFKA_LIST_OFFSETS, 2);
    writer_u32(&client.request, 0xffffffff);
    writer_u8(&client.request, 0);
    writer_u32(&client.request, 1);
    kafka_put_text(&client, "acme.events");
    writer_u32(&client.request, 1);
    writer_u32(&client.request, 0);
    writer_u64(&client.request, UINT64_MAX);
    kafka_call_server(&client);
    reader_take(r, 4 + 4);
    reader_take(r, reader_u16(r));
    reader_take(r, 4 + 4);
    cr_expect_eq(reader_u16(r), 0);
    kafka_begin(&client, KAFKA_FETCH, 8);
    static const uint32_t before[] = {0xffffffff, 0, 1, 1 << 20};
    for (unsigned i = 0; i < 4; i++)
        writer_u32(&client.request, before[i]);
    writer_u8(&client.request, 0);
    writer_u32(&client.request, 0);
    writer_u32(&client.request, 0xffffffff);
    writer_u32(&client.request, 1);
    kafka_put_text(&client, "acme.events");
    writer_u32(&client.request, 1);
    writer_u32(&client.request, 0);
    writer_u64(&client.request, 0);
    writer_u64(&client.request, 0);
    writer_u32(&client.request, 1 << 20);
    writer_u32(&client.request, 0);
    kafka_call_server(&client);
    reader_take(r, 4 + 2 + 4 + 4);
    reader_take(r, reader_u16(r));
    reader_take(r, 4 + 4);
    cr_expect_eq(reader_u16(r), 0);
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}
