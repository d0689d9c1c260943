/* The Kafka endpoint on a real worker, the real stream and sockets; what stands behind it and the
 * client are kafka_support.c. */
#include <criterion/criterion.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "storage/record.h"
#include "tests/unit/gateway/kafka_support.h"

TestSuite(kafka, .fini = loopback_check_leaks);

enum { CLOSED = -1000, MIB = 1 << 20 };

static struct kafka_server server;
static struct kafka_client client, other;

static uint64_t now_ms(void) {
    return clock_monotonic_ns() / 1000000;
}

static bool ends(struct kafka_client *c) {
    return client_at_end(&c->client);
}

/* ---- before login ---- */

static void check_offered(struct reader *r, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        const struct kafka_api *api = kafka_api_find((int16_t)reader_u16(r));
        cr_assert(api);
        cr_assert_eq((int16_t)reader_u16(r), api->first);
        cr_assert_eq((int16_t)reader_u16(r), api->last);
    }
}

Test(kafka, api_versions) {
    kafka_server_start(&server, NULL);
    kafka_connect(&client, &server);
    kafka_begin(&client, KAFKA_API_VERSIONS, 0);
    kafka_call_server(&client);
    cr_assert_eq(reader_u16(&client.answer), 0);
    check_offered(&client.answer, reader_u32(&client.answer));
    cr_assert_eq(reader_left(&client.answer), 0);

    kafka_begin(&client, KAFKA_API_VERSIONS, 99); /* of the future: answered as version 0 */
    writer_string(&client.request, "whatever it is");
    client.version = 0;
    kafka_call_server(&client);
    cr_assert_eq(reader_u16(&client.answer), KAFKA_ERROR_UNSUPPORTED_VERSION);
    check_offered(&client.answer, reader_u32(&client.answer));
    cr_assert_eq(reader_left(&client.answer), 0);
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

Test(kafka, logins) {
    static const struct {
        const char *user, *secret;
        int error;
        bool goes_on;
    } cases[] = {
        {"reader", "secret", 0, true},
        {"auditor", "secret", 0, true},
        {"platform", "secret", 0, true},
        {"reader", "wrong", KAFKA_ERROR_SASL_FAILED, false},
        {"nobody", "secret", KAFKA_ERROR_SASL_FAILED, false},
        {"", "", KAFKA_ERROR_SASL_FAILED, false},
        {"operator", "secret", KAFKA_ERROR_SASL_FAILED, false}, /* no role that reads */
        {"down", "secret", CLOSED, false}, /* not final: the client shall come again */
        {"no-memory", "secret", CLOSED, false},
    };
    kafka_server_start(&server, NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        kafka_connect(&client, &server);
        uint64_t start_ms = now_ms();
        cr_assert_eq(kafka_login(&client, cases[i].user, cases[i].secret), cases[i].error, "%s",
                     cases[i].user);
        if (cases[i].goes_on) {
            kafka_begin(&client, KAFKA_METADATA, 1);
            writer_u32(&client.request, 0);
            kafka_call_server(&client);
        } else {
            cr_assert(ends(&client));
            cr_assert_geq(now_ms() - start_ms, 80); /* guessing takes time */
        }
        kafka_disconnect(&client);
    }
    kafka_server_stop(&server);
}

Test(kafka, passwords_in_plain_text_need_the_switch) {
    static const char *const none[] = {NULL};
    kafka_server_start(&server, none);
    kafka_connect(&client, &server);
    cr_assert_eq(kafka_login(&client, "reader", "secret"), KAFKA_ERROR_SASL_FAILED);
    cr_assert(ends(&client));
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

Test(kafka, what_closes_a_connection) {
    static const struct {
        const char *what;
        bool logged_in;
        const char *bytes;
        size_t size;
    } cases[] = {
#define ROW(what, logged_in, bytes) {what, logged_in, bytes, sizeof(bytes) - 1}
        ROW("metadata before login", false, "\0\0\0\x0e\0\x03\0\x01\0\0\0\x01\xff\xff\0\0\0\0"),
        ROW("SASL without a handshake", false,
            "\0\0\0\x11\0\x24\0\0\0\0\0\x01\xff\xff\0\0\0\x03\0u\0"),
        ROW("a long request before login", false, "\0\0\x40\x01"),
        ROW("a negative length", false, "\xff\xff\xff\xff"),
        ROW("HTTP", false, "GET / HTTP/1.1\r\n\r\n"),
        ROW("no room for a header", false, "\0\0\0\x04\0\x12\0\0"),
        ROW("an API that is not offered", true, "\0\0\0\x0a\0\x13\0\0\0\0\0\x01\xff\xff"),
        ROW("a version that is not offered", true, "\0\0\0\x0a\0\x01\0\x03\0\0\0\x01\xff\xff"),
        ROW("a negative version", true, "\0\0\0\x0a\0\x12\xff\xff\0\0\0\x01\xff\xff"),
        ROW("a request over the limit", true, "\0\x10\0\x01"),
        ROW("a body cut short", true, "\0\0\0\x0c\0\x03\0\x01\0\0\0\x01\xff\xff\0\0"),
        ROW("Produce that wants no answer", true,
            "\0\0\0\x16\0\0\0\x03\0\0\0\x01\xff\xff\xff\xff\0\0\0\0\0\x01\0\0\0\0"),
#undef ROW
    };
    kafka_server_start(&server, NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        kafka_connect(&client, &server);
        if (cases[i].logged_in)
            cr_assert_eq(kafka_login(&client, "reader", "secret"), 0);
        cr_assert(client_send(&client.client, cases[i].bytes, cases[i].size));
        cr_assert(ends(&client), "%s", cases[i].what);
        kafka_disconnect(&client);
    }
    kafka_server_stop(&server);
}

Test(kafka, other_mechanisms_and_old_handshakes) {
    kafka_server_start(&server, NULL);
    kafka_connect(&client, &server);
    static const struct {
        const char *mechanism;
        int version, error;
    } cases[] = {{"SCRAM-SHA-512", 1, KAFKA_ERROR_UNSUPPORTED_MECHANISM},
                 {"PLAIN", 1, 0},
                 {"SCRAM-SHA-256", 1, 0},
                 {"SCRAM-SHA-256", 1, 0},
                 {"PLAIN", 1, 0}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        kafka_begin(&client, KAFKA_SASL_HANDSHAKE, cases[i].version);
        kafka_put_text(&client, cases[i].mechanism);
        kafka_call_server(&client);
        cr_assert_eq(reader_u16(&client.answer), cases[i].error);
        cr_assert_eq(reader_u32(&client.answer), 2);
        cr_assert(
            slice_equals_string(reader_slice(&client.answer, reader_u16(&client.answer)), "PLAIN"));
        cr_assert(slice_equals_string(reader_slice(&client.answer, reader_u16(&client.answer)),
                                      "SCRAM-SHA-256"));
    }
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

/* kafka-python 2.0: handshake version 0, then a token without a header. */
Test(kafka, raw_tokens) {
    static const struct {
        const char *token;
        size_t size;
        bool right;
    } cases[] = {{"reader\0reader\0secret", 20, true},
                 {"\0reader\0wrong", 13, false},
                 {"other\0reader\0secret", 19, false},
                 {"reader", 6, false},
                 {"", 0, false}};
    kafka_server_start(&server, NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t answer[4] = {1, 1, 1, 1}, length[4] = {0, 0, 0, (uint8_t)cases[i].size};
        kafka_connect(&client, &server);
        kafka_begin(&client, KAFKA_SASL_HANDSHAKE, 0);
        kafka_put_text(&client, "PLAIN");
        kafka_call_server(&client);
        cr_assert_eq(reader_u16(&client.answer), 0);
        cr_assert(client_send(&client.client, length, 4));
        cr_assert(client_send(&client.client, cases[i].token, cases[i].size));
        cr_assert_eq(client_read(&client.client, answer, 4), cases[i].right ? 4 : 0);
        if (cases[i].right) {
            cr_assert_arr_eq(answer, "\0\0\0\0", 4);
            kafka_begin(&client, KAFKA_METADATA, 1);
            writer_u32(&client.request, 0);
            kafka_call_server(&client);
        }
        kafka_disconnect(&client);
    }
    kafka_server_stop(&server);
}

/* ---- SCRAM ---- */

static void send_token(const char *token, bool raw) {
    if (raw) {
        uint8_t length[4] = {0, 0, (uint8_t)(strlen(token) >> 8), (uint8_t)strlen(token)};
        cr_assert(client_send(&client.client, length, 4));
        cr_assert(client_send(&client.client, token, strlen(token)));
        return;
    }
    kafka_begin(&client, KAFKA_SASL_AUTHENTICATE, 1);
    writer_u32(&client.request, (uint32_t)strlen(token));
    writer_string(&client.request, token);
    kafka_send(&client);
}

/* The server's token; the error code, or CLOSED. */
static int take_token(char *ret_token, bool raw) {
    uint8_t length[4];
    ret_token[0] = '\0';
    if (raw) {
        if (client_read(&client.client, length, 4) != 4)
            return CLOSED;
        cr_assert_eq(client_read(&client.client, ret_token, length[3]), length[3]);
        ret_token[length[3]] = '\0';
        return 0;
    }
    if (!kafka_receive(&client))
        return CLOSED;
    int16_t error = (int16_t)reader_u16(&client.answer);
    uint16_t text = reader_u16(&client.answer);
    reader_take(&client.answer, text == 0xffff ? 0 : text);
    struct slice token = reader_slice(&client.answer, reader_u32(&client.answer));
    snprintf(ret_token, 256, "%.*s", (int)token.size, (const char *)token.data);
    return error;
}

/* ClientSignature and the rest of RFC 5802 from the other side. */
static void prove(const char *secret, const char *bare, const char *challenge, char *ret_final) {
    char nonce[128], salt_text[64], auth[512], without[256], proof_text[64];
    uint8_t salt[SCRAM_SALT_SIZE], proof[32], mac[32], salted[32], stored[32];
    cr_assert_eq(sscanf(challenge, "r=%127[^,],s=%63[^,],i=4096", nonce, salt_text), 2);
    cr_assert_eq(credential_base64_decode(slice_from_string(salt_text), salt, sizeof(salt)),
                 SCRAM_SALT_SIZE);
    PKCS5_PBKDF2_HMAC(secret, (int)strlen(secret), salt, sizeof(salt), 4096, EVP_sha256(), 32,
                      salted);
    HMAC(EVP_sha256(), salted, 32, (const uint8_t *)"Client Key", 10, proof, NULL);
    SHA256(proof, 32, stored);
    snprintf(without, sizeof(without), "c=biws,r=%s", nonce);
    snprintf(auth, sizeof(auth), "%s,%s,%s", bare, challenge, without);
    HMAC(EVP_sha256(), stored, 32, (const uint8_t *)auth, strlen(auth), mac, NULL);
    for (unsigned i = 0; i < 32; i++)
        proof[i] ^= mac[i];
    credential_base64_encode(proof, 32, proof_text);
    sprintf(ret_final, "%s,p=%s", without, proof_text);
}

static int log_in_with_scram(const char *user, const char *secret, bool raw, char *ret_challenge) {
    char bare[64], first[80], final[384], token[256];
    kafka_begin(&client, KAFKA_SASL_HANDSHAKE, raw ? 0 : 1);
    kafka_put_text(&client, "SCRAM-SHA-256");
    kafka_call_server(&client);
    cr_assert_eq(reader_u16(&client.answer), 0);
    snprintf(bare, sizeof(bare), "n=%s,r=theirs", user);
    snprintf(first, sizeof(first), "n,,%s", bare);
    send_token(first, raw);
    cr_assert_eq(take_token(ret_challenge, raw), 0);
    prove(secret, bare, ret_challenge, final);
    send_token(final, raw);
    int error = take_token(token, raw);
    cr_assert_eq(strncmp(token, "v=", 2) == 0, error == 0);
    return error;
}

/* In plain text off loopback, where PLAIN is refused. */
Test(kafka, scram_logins) {
    static const char *const none[] = {NULL};
    static const struct {
        const char *user, *secret;
        bool raw;
        int error;
    } cases[] = {
        {"reader", "secret", false, 0},
        {"platform", "secret", false, 0},
        {"reader", "secret", true, 0},
        {"reader", "wrong", false, KAFKA_ERROR_SASL_FAILED},
        {"reader", "wrong", true, CLOSED},
        {"nobody", "secret", false, KAFKA_ERROR_SASL_FAILED},
        {"operator", "secret", false, KAFKA_ERROR_SASL_FAILED},
        {"down", "secret", false, CLOSED},
    };
    kafka_server_start(&server, none);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char challenge[256];
        kafka_connect(&client, &server);
        cr_expect_eq(log_in_with_scram(cases[i].user, cases[i].secret, cases[i].raw, challenge),
                     cases[i].error, "%s %s", cases[i].user, cases[i].secret);
        if (cases[i].error == 0) {
            kafka_begin(&client, KAFKA_METADATA, 1);
            writer_u32(&client.request, 0);
            kafka_call_server(&client);
        } else {
            cr_expect(ends(&client));
        }
        kafka_disconnect(&client);
    }
    kafka_server_stop(&server);
}

/* Who asks for a name twice gets the same salt, whether there is such a key or not; another nonce
 * each time. */
Test(kafka, scram_says_nothing_of_names) {
    static const char *const users[] = {"reader", "nobody"};
    char challenges[2][2][256], salts[2][2][64];
    kafka_server_start(&server, NULL);
    for (unsigned i = 0; i < 4; i++) {
        kafka_connect(&client, &server);
        log_in_with_scram(users[i / 2], "wrong", false, challenges[i / 2][i % 2]);
        cr_assert_eq(sscanf(challenges[i / 2][i % 2], "r=%*[^,],s=%63[^,],", salts[i / 2][i % 2]),
                     1);
        kafka_disconnect(&client);
    }
    for (unsigned i = 0; i < 2; i++) {
        cr_expect_str_eq(salts[i][0], salts[i][1]);
        cr_expect_str_neq(challenges[i][0], challenges[i][1]);
    }
    cr_expect_str_neq(salts[0][0], salts[1][0]);
    kafka_server_stop(&server);
}

Test(kafka, scram_messages_that_are_none) {
    static const char *const firsts[] = {"", "n", "p=tls-unique,,n=reader,r=x", "\1reader\1secret"};
    kafka_server_start(&server, NULL);
    for (size_t i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
        char token[256];
        kafka_connect(&client, &server);
        kafka_begin(&client, KAFKA_SASL_HANDSHAKE, 1);
        kafka_put_text(&client, "SCRAM-SHA-256");
        kafka_call_server(&client);
        send_token(firsts[i], false);
        cr_expect_eq(take_token(token, false), KAFKA_ERROR_SASL_FAILED);
        cr_expect(ends(&client));
        kafka_disconnect(&client);
    }
    kafka_server_stop(&server);
}

/* ---- offsets ---- */

static void check_offset(struct kafka_client *c, const char *topic, int32_t partition,
                         int64_t asked_ms, int16_t error, int64_t timestamp, int64_t offset) {
    int64_t found_ms, found;
    kafka_begin_list_offsets(c, topic, partition, asked_ms);
    kafka_call_server(c);
    cr_assert_eq(kafka_take_list_offsets(c, partition, &found_ms, &found), error);
    cr_assert_eq(found_ms, timestamp, "%s %d at %ld: %ld", topic, partition, asked_ms, found_ms);
    cr_assert_eq(found, offset, "%s %d at %ld: %ld", topic, partition, asked_ms, found);
}

Test(kafka, list_offsets) {
    kafka_server_start(&server, NULL);
    kafka_server_append(&server, STREAM_EVENTS, 1, 10, 20, 1000);
    kafka_server_append(&server, STREAM_EVENTS, 1, 10, 20, 2000);
    kafka_enter(&client, &server, "reader");
    check_offset(&client, "acme.events", 1, -1, 0, -1, 20);
    check_offset(&client, "acme.events", 1, -2, 0, -1, 0);
    check_offset(&client, "acme.events", 1, -3, 0, 2009, 19);
    check_offset(&client, "acme.events", 1, 0, 0, 1000, 0);
    check_offset(&client, "acme.events", 1, 1005, 0, 1005, 5); /* the record, not its batch */
    check_offset(&client, "acme.events", 1, 1010, 0, 2000, 10);
    check_offset(&client, "acme.events", 1, 9999, 0, -1, -1);
    check_offset(&client, "acme.events", 1, -4, KAFKA_ERROR_INVALID_REQUEST, -1, -1);
    check_offset(&client, "acme.events", 2, -1, 0, -1, 0); /* nothing there yet */
    check_offset(&client, "acme.events", 2, -3, 0, -1, -1);
    check_offset(&client, "acme.events", 4, -1, KAFKA_ERROR_UNKNOWN_TOPIC, -1, -1);
    check_offset(&client, "acme.events", -1, -1, KAFKA_ERROR_UNKNOWN_TOPIC, -1, -1);
    check_offset(&client, "beta.events", 0, -1, KAFKA_ERROR_NOT_AUTHORIZED, -1, -1);
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

/* ---- what is refused ---- */

Test(kafka, writing_is_refused) {
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    kafka_begin(&client, KAFKA_PRODUCE, 3);
    writer_u16(&client.request, 0xffff);
    writer_u16(&client.request, 1);
    writer_u32(&client.request, 1000);
    writer_u32(&client.request, 1);
    kafka_put_text(&client, "acme.events");
    writer_u32(&client.request, 1);
    writer_u32(&client.request, 2);
    writer_u32(&client.request, 5);
    writer_string(&client.request, "batch");
    kafka_call_server(&client);
    struct reader *r = &client.answer;
    reader_u32(r);
    reader_take(r, reader_u16(r));
    cr_assert(reader_u32(r) == 1 && reader_u32(r) == 2);
    cr_assert_eq(reader_u16(r), KAFKA_ERROR_NOT_AUTHORIZED);
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

/* ---- Fetch ---- */

static void fetch(struct kafka_client *c, int32_t max_wait_ms, int32_t min_bytes, int32_t max_bytes,
                  const struct kafka_asked *asked, unsigned count, struct kafka_fetched *ret) {
    kafka_begin_fetch(c, "acme.events", max_wait_ms, min_bytes, max_bytes, asked, count);
    kafka_call_server(c);
    kafka_take_fetch(c, ret, count);
}

/* The records are whole batches with right checksums; how many records, and the first offset. */
static unsigned count_records(struct slice bytes, int64_t *ret_first) {
    struct reader r = reader_make(bytes.data, bytes.size);
    unsigned count = 0;
    while (reader_left(&r) > 0) {
        struct record_batch batch;
        cr_assert_eq(record_batch_read(&r, true, &batch), 0);
        if (count == 0 && ret_first)
            *ret_first = batch.base_offset;
        count += batch.record_count;
    }
    return count;
}

Test(kafka, fetch_whole_batches) {
    kafka_server_start(&server, NULL);
    for (unsigned i = 0; i < 5; i++)
        kafka_server_append(&server, STREAM_EVENTS, 1, 10, 100, 1000);
    kafka_enter(&client, &server, "reader");
    struct kafka_fetched got[3];
    int64_t first;

    /* All there is, from several runs of the stream. */
    fetch(&client, 0, 1, MIB, (struct kafka_asked[]){{1, 0, MIB}}, 1, got);
    cr_assert(got[0].error == 0 && got[0].high_watermark == 50 && got[0].log_start == 0);
    cr_assert(count_records(got[0].records, &first) == 50 && first == 0);
    size_t batch_size = got[0].records.size / 5;

    /* An offset within a batch: that batch from its beginning. */
    fetch(&client, 0, 1, MIB, (struct kafka_asked[]){{1, 47, MIB}}, 1, got);
    cr_assert(count_records(got[0].records, &first) == 10 && first == 40);

    /* One whole batch though the limits are smaller; two and a half are two. */
    fetch(&client, 0, 1, 1, (struct kafka_asked[]){{1, 0, 1}}, 1, got);
    cr_assert_eq(count_records(got[0].records, NULL), 10);
    fetch(&client, 0, 1, MIB, (struct kafka_asked[]){{1, 0, (int32_t)(batch_size * 5 / 2)}}, 1,
          got);
    cr_assert_eq(count_records(got[0].records, NULL), 20);

    /* The end is empty, behind it and before the beginning is an error that names both ends. */
    fetch(&client, 0, 1, MIB, (struct kafka_asked[]){{1, 50, MIB}}, 1, got);
    cr_assert(got[0].error == 0 && got[0].records.size == 0);
    for (unsigned i = 0; i < 2; i++) {
        fetch(&client, 0, 1, MIB, (struct kafka_asked[]){{1, i == 0 ? 51 : -1, MIB}}, 1, got);
        cr_assert(got[0].error == KAFKA_ERROR_OFFSET_OUT_OF_RANGE && got[0].high_watermark == 50 &&
                  got[0].log_start == 0 && got[0].records.size == 0);
    }

    /* An unknown partition does not spoil the others, nor wait. */
    fetch(&client, 5000, MIB, MIB, (struct kafka_asked[]){{4, 0, MIB}, {1, 0, MIB}}, 2, got);
    cr_assert(got[0].error == KAFKA_ERROR_UNKNOWN_TOPIC && got[0].high_watermark == -1);
    cr_assert_eq(count_records(got[1].records, NULL), 50);
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

Test(kafka, fetch_of_a_foreign_topic) {
    kafka_server_start(&server, NULL);
    kafka_server_append(&server, STREAM_EVENTS, 0, 1, 10, 1000);
    kafka_server_append(&server, STREAM_AUDIT, 0, 1, 10, 1000);
    kafka_enter(&client, &server, "beta-reader");
    kafka_enter(&other, &server, "reader");
    struct kafka_client *clients[] = {&client, &other};
    const char *const topics[] = {"acme.events", "acme.audit"};
    for (unsigned i = 0; i < 2; i++) {
        struct kafka_fetched got;
        kafka_begin_fetch(clients[i], topics[i], 5000, 1, MIB, (struct kafka_asked[]){{0, 0, MIB}},
                          1);
        kafka_call_server(clients[i]);
        kafka_take_fetch(clients[i], &got, 1);
        cr_assert(got.error == KAFKA_ERROR_NOT_AUTHORIZED && got.records.size == 0);
        kafka_disconnect(clients[i]);
    }
    kafka_server_stop(&server);
}

Test(kafka, long_poll_ends_with_data_or_time) {
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    struct kafka_asked asked[] = {{0, 0, MIB}, {1, 0, MIB}};
    struct kafka_fetched got[2];

    uint64_t start_ms = now_ms();
    fetch(&client, 300, 1, MIB, asked, 2, got);
    uint64_t took_ms = now_ms() - start_ms;
    cr_assert(got[0].records.size == 0 && got[1].records.size == 0);
    cr_assert(took_ms >= 290 && took_ms < 800, "%lu ms", took_ms);

    start_ms = now_ms();
    kafka_begin_fetch(&client, "acme.events", 20000, 1, MIB, asked, 2);
    kafka_send(&client);
    usleep(50000);
    kafka_server_append(&server, STREAM_EVENTS, 1, 3, 10, 1000);
    cr_assert(kafka_receive(&client));
    kafka_take_fetch(&client, got, 2);
    cr_assert_eq(count_records(got[1].records, NULL), 3);
    cr_assert_lt(now_ms() - start_ms, 5000);

    /* Fewer than min_bytes wait on; those that come meanwhile count. */
    start_ms = now_ms();
    kafka_begin_fetch(&client, "acme.events", 20000, 5000, MIB, asked, 2);
    kafka_send(&client);
    for (unsigned i = 0; i < 6; i++)
        kafka_server_append(&server, STREAM_EVENTS, 0, 1, 1000, 1000);
    cr_assert(kafka_receive(&client));
    kafka_take_fetch(&client, got, 2);
    cr_assert_geq(got[0].records.size + got[1].records.size, 5000);
    cr_assert_lt(now_ms() - start_ms, 5000);
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

Test(kafka, nothing_to_wait_for_still_ends) {
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    kafka_begin_fetch(&client, "acme.events", 100, 1, MIB, NULL, 0);
    kafka_call_server(&client);
    kafka_take_fetch(&client, NULL, 0);
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

/* Requests behind a waiting Fetch are answered after it, in order. */
Test(kafka, pipelined_requests_keep_their_order) {
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    int32_t first = client.correlation_id + 1;
    kafka_begin_fetch(&client, "acme.events", 200, 1, MIB, (struct kafka_asked[]){{0, 0, MIB}}, 1);
    kafka_send(&client);
    for (unsigned i = 0; i < 20; i++) {
        kafka_begin(&client, i % 2 ? KAFKA_METADATA : KAFKA_API_VERSIONS, i % 2 ? 1 : 0);
        if (i % 2)
            writer_u32(&client.request, UINT32_MAX);
        kafka_send(&client);
    }
    for (int32_t i = 0; i < 21; i++) {
        cr_assert(kafka_receive(&client));
        struct reader r = reader_make(client.answer_bytes, 4);
        cr_assert_eq((int32_t)reader_u32(&r), first + i);
    }
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

Test(kafka, many_waiters_all_wake) {
    enum { WAITERS = 40 };
    kafka_server_start(&server, NULL);
    struct kafka_client *waiters = calloc(WAITERS, sizeof(*waiters));
    for (unsigned i = 0; i < WAITERS; i++) {
        kafka_enter(&waiters[i], &server, "reader");
        kafka_begin_fetch(&waiters[i], "acme.events", 20000, 1, MIB,
                          (struct kafka_asked[]){{0, 0, MIB}, {(int32_t)(i % 3) + 1, 0, MIB}}, 2);
        kafka_send(&waiters[i]);
    }
    kafka_disconnect(&waiters[7]); /* one that waits goes away */
    kafka_server_append(&server, STREAM_EVENTS, 0, 1, 10, 1000);
    for (unsigned i = 0; i < WAITERS; i++) {
        struct kafka_fetched got[2];
        if (i == 7)
            continue;
        cr_assert(kafka_receive(&waiters[i]), "%u", i);
        kafka_take_fetch(&waiters[i], got, 2);
        cr_assert_eq(count_records(got[0].records, NULL), 1);
        kafka_disconnect(&waiters[i]);
    }
    free(waiters);
    kafka_server_stop(&server);
}

Test(kafka, fetch_sessions_are_declined) {
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    kafka_begin(&client, KAFKA_FETCH, 7);
    writer_bytes(&client.request, "\xff\xff\xff\xff\0\0\0\x64\0\0\0\x01\0\x10\0\0\0", 17);
    writer_u32(&client.request, 77); /* a session that never was */
    writer_u32(&client.request, 1);
    writer_u32(&client.request, 0);
    writer_u32(&client.request, 0);
    kafka_call_server(&client);
    reader_u32(&client.answer);
    cr_assert_eq(reader_u16(&client.answer), KAFKA_ERROR_FETCH_SESSION_NOT_FOUND);
    cr_assert_eq(reader_u32(&client.answer), 0);
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

/* Far more than memory keeps: most of it comes from segment files, warmed where it is cold. */
Test(kafka, everything_comes_once_and_in_order) {
    enum { BATCHES = 60, RECORDS = 10, SIZE = 40000 };
    kafka_server_start(&server, NULL);
    for (unsigned i = 0; i < BATCHES; i++)
        kafka_server_append(&server, STREAM_EVENTS, 2, RECORDS, SIZE, 1000);
    kafka_enter(&client, &server, "reader");
    int64_t next = 0;
    unsigned answers = 0;
    while (next < BATCHES * RECORDS) {
        struct kafka_fetched got;
        int64_t first;
        cr_assert_lt(++answers, 1000);
        fetch(&client, 5000, 1, 50 * MIB, (struct kafka_asked[]){{2, next, 3 * MIB}}, 1, &got);
        cr_assert_eq(got.error, 0);
        unsigned count = count_records(got.records, &first);
        cr_assert(count > 0 && first == next);
        next += count;
    }
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

/* Of a consumer that asks and does not read, at most one answer is in memory. */
Test(kafka, a_consumer_that_does_not_read) {
    enum { ASKED = 50 };
    kafka_server_start(&server, NULL);
    for (unsigned i = 0; i < 8; i++)
        kafka_server_append(&server, STREAM_EVENTS, 0, 10, 50000, 1000);
    kafka_enter(&client, &server, "reader");
    int64_t before = metric_read(METRIC_KAFKA_FETCHED_BYTES);
    for (unsigned i = 0; i < ASKED; i++) {
        kafka_begin_fetch(&client, "acme.events", 1000, 1, 50 * MIB,
                          (struct kafka_asked[]){{0, 0, 2 * MIB}}, 1);
        kafka_send(&client);
    }
    usleep(200000);
    cr_assert_leq(metric_read(METRIC_KAFKA_FETCHED_BYTES) - before, 4 * MIB);
    for (unsigned i = 0; i < ASKED; i++) {
        struct kafka_fetched got;
        cr_assert(kafka_receive(&client));
        kafka_take_fetch(&client, &got, 1);
        cr_assert_gt(count_records(got.records, NULL), 0);
    }
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

/* ---- the end ---- */

static void end_concerned(struct worker *worker, void *context) {
    kafka_revoke(worker, context);
}

Test(kafka, revocations) {
    static const struct {
        struct registry_revocation revocation;
        bool ends;
    } cases[] = {
        {{.tenant_key = 1, .err = DG_ERR_DISABLED}, true},
        {{.tenant_key = 2, .err = DG_ERR_DISABLED}, false},
        {{.tenant_key = 1, .credential_key = 11, .err = DG_ERR_ADMINISTRATIVE}, true},
        {{.tenant_key = 1, .credential_key = 12, .err = DG_ERR_ADMINISTRATIVE}, false},
        {{.tenant_key = 1, .device_key = 5, .err = DG_ERR_DISABLED}, false},
        {{.tenant_key = 1, .err = DG_ERR_DISABLED, .kept_count = 1, .kept = {11}}, false},
    };
    kafka_server_start(&server, NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct registry_revocation revocation = cases[i].revocation;
        kafka_enter(&client, &server, "reader");
        kafka_begin_fetch(&client, "acme.events", 200, 1, MIB, (struct kafka_asked[]){{0, 0, MIB}},
                          1); /* also while it waits */
        kafka_send(&client);
        usleep(20000);
        loopback_run(server.loopback.workers[0], end_concerned, &revocation);
        cr_assert_eq(kafka_receive(&client), !cases[i].ends, "case %zu", i);
        kafka_disconnect(&client);
    }
    kafka_server_stop(&server);
}

Test(kafka, a_login_ends_when_it_is_no_longer_valid) {
    kafka_server_start(&server, NULL);
    kafka_table.valid_until_ms = clock_wall_ms() + 400;
    kafka_enter(&client, &server, "reader");
    uint64_t start_ms = now_ms();
    cr_assert(ends(&client));
    cr_assert_lt(now_ms() - start_ms, 3000);
    kafka_disconnect(&client);
    kafka_server_stop(&server);
}

Test(kafka, idle_and_half_made_connections_end) {
    static const char *const overrides[] = {"security.allow_plaintext_passwords=true",
                                            "kafka.idle_timeout=1s", "mqtt.connect_timeout=1s",
                                            NULL};
    kafka_server_start(&server, overrides);
    kafka_enter(&client, &server, "reader");
    kafka_connect(&other, &server);
    uint64_t start_ms = now_ms();
    for (unsigned i = 0; i < 6; i++) { /* versions may be asked, but that is no login */
        kafka_begin(&other, KAFKA_API_VERSIONS, 0);
        kafka_send(&other);
        usleep(250000);
    }
    while (kafka_receive(&other))
        continue;
    cr_assert(ends(&client));
    cr_assert_lt(now_ms() - start_ms, 4000);
    kafka_disconnect(&client);
    kafka_disconnect(&other);
    kafka_server_stop(&server);
}

Test(kafka, stopping_with_waiting_consumers) {
    kafka_server_start(&server, NULL);
    kafka_enter(&client, &server, "reader");
    kafka_begin_fetch(&client, "acme.events", 20000, 1, MIB, (struct kafka_asked[]){{0, 0, MIB}},
                      1);
    kafka_send(&client);
    usleep(20000);
    kafka_server_stop(&server);
    cr_assert(!kafka_receive(&client));
    kafka_disconnect(&client);
}
