/* The MQTT packet codec: a row per rule, valid and invalid bytes for every packet type. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "gateway/mqtt/packet_fault.h"
#include "gateway/mqtt/packet_properties.h"

#define V3 MQTT_VERSION_3_1_1
#define V5 MQTT_VERSION_5

/* Bytes are hexadecimal with text in quotes: "0003 'a/b'". */
static size_t bytes_of(const char *text, uint8_t *ret_bytes) {
    size_t size = 0;
    for (const char *at = text; *at; at++) {
        if (*at == ' ')
            continue;
        if (*at == '\'') {
            for (at++; *at != '\''; at++)
                ret_bytes[size++] = (uint8_t)*at;
            continue;
        }
        unsigned byte;
        cr_assert_eq(sscanf(at, "%2x", &byte), 1, "bad test bytes: %s", text);
        ret_bytes[size++] = (uint8_t)byte;
        at++;
    }
    return size;
}

struct row {
    enum mqtt_version version;
    const char *packet; /* first byte, then the body */
    int err;
    const char *clause;
};

static int decode(const struct row *row, struct mqtt_packet *packet, struct mqtt_fault *fault) {
    static uint8_t bytes[4096];
    size_t size = bytes_of(row->packet, bytes);
    return mqtt_packet_decode(row->version, bytes[0], slice_make(bytes + 1, size - 1), packet,
                              fault);
}

static const struct row valid_rows[] = {
    /* CONNECT */
    {V3, "10 0004'MQTT' 04 02 003c 0000", 0, NULL},
    {V3, "10 0004'MQTT' 04 00 003c 0002'ab'", 0, NULL},
    {V3, "10 0004'MQTT' 04 ee 000a 0001'c' 0003'w/t' 0002'xx' 0001'u' 0001'p'", 0, NULL},
    {V5, "10 0004'MQTT' 05 02 003c 00 0000", 0, NULL},
    {V5, "10 0004'MQTT' 05 42 003c 00 0000 0003'pwd'", 0, NULL}, /* password alone: MQTT5 3.1.2.9 */
    {V5, "10 0004'MQTT' 05 2e 0000 00 0000 05 18 00000001 0001't' 0000", 0, NULL},
    {V5, "10 0004'MQTT' 05 02 0000 14 11 ffffffff 21 0001 22 0000 27 00000001 17 00 19 01 0000", 0,
     NULL},
    {V5, "10 0004'MQTT' 05 02 0000 0c 15 0003'abc' 16 0003 000102 0000", 0, NULL},
    /* PUBLISH */
    {V3, "30 0001't'", 0, NULL},
    {V3, "3d 0001't' 0001 'payload'", 0, NULL},
    {V3, "32 0001't' ffff", 0, NULL},
    {V5, "30 0001't' 00", 0, NULL},
    {V5, "30 0000 03 23 0001 'x'", 0, NULL},
    {V5, "34 0002 c3a9 0007 00", 0, NULL},
    {V5, "30 0001't' 18 01 01 02 00000005 03 0001'j' 08 0001'r' 09 0001 00 26 0000 0000", 0, NULL},
    {V5, "30 0001't' 0e 26 0001'a' 0001'b' 26 0001'a' 0001'c' ", 0, NULL},
    /* acknowledgements */
    {V3, "40 0001", 0, NULL},
    {V3, "62 0001", 0, NULL},
    {V5, "40 0001", 0, NULL},
    {V5, "40 0001 10", 0, NULL},
    {V5, "50 0001 97 00", 0, NULL},
    {V5, "62 0001 92 05 1f 0002'no'", 0, NULL},
    {V5, "70 ffff 00 05 26 0000 0000", 0, NULL},
    /* SUBSCRIBE, UNSUBSCRIBE */
    {V3, "82 0001 0001'#' 02", 0, NULL},
    {V3, "82 0001 0003'+/a' 00 0003'a/#' 01", 0, NULL},
    {V3, "82 0001 0007'$share/' 00", 0, NULL}, /* an ordinary filter in 3.1.1 */
    {V5, "82 0001 00 0001'+' 2e", 0, NULL},
    {V5, "82 0001 02 0b 01 000a'$share/g/t' 02", 0, NULL},
    {V5, "82 0001 05 0b ffffff7f 0001't' 00", 0, NULL},
    {V3, "a2 0001 0001'a' 0001'b'", 0, NULL},
    {V5, "a2 0001 05 26 0000 0000 0001'a'", 0, NULL},
    /* the rest */
    {V3, "c0", 0, NULL},
    {V5, "c0", 0, NULL},
    {V3, "e0", 0, NULL},
    {V5, "e0", 0, NULL},
    {V5, "e0 04", 0, NULL},
    {V5, "e0 00 05 11 00000000", 0, NULL},
    {V5, "f0 18 04 15 0001'm'", 0, NULL},
};

#define MALFORMED DG_ERR_MALFORMED
#define PROTOCOL DG_ERR_PROTOCOL

static const struct row invalid_rows[] = {
    /* type and flags */
    {V5, "00", MALFORMED, "MQTT5 2.1.2"},
    {V3, "f0", MALFORMED, "MQTT3 2.2.1"},
    {V5, "20 00 00 00", PROTOCOL, "MQTT5 2.1.2"},
    {V5, "90 0001 00 00", PROTOCOL, "MQTT5 2.1.2"},
    {V5, "b0 0001 00 00", PROTOCOL, "MQTT5 2.1.2"},
    {V3, "d0", PROTOCOL, "MQTT3 2.2.1"},
    {V5, "11 0004'MQTT' 05 02 003c 00 0000", MALFORMED, "MQTT5 2.1.3-1"},
    {V5, "42 0001", MALFORMED, "MQTT5 2.1.3-1"},
    {V5, "51 0001", MALFORMED, "MQTT5 2.1.3-1"},
    {V3, "60 0001", MALFORMED, "MQTT3 2.2.2-2"},
    {V5, "63 0001", MALFORMED, "MQTT5 2.1.3-1"},
    {V5, "78 0001", MALFORMED, "MQTT5 2.1.3-1"},
    {V3, "80 0001 0001'#' 02", MALFORMED, "MQTT3 2.2.2-2"},
    {V5, "a0 0001 00 0001'#'", MALFORMED, "MQTT5 2.1.3-1"},
    {V5, "c1", MALFORMED, "MQTT5 2.1.3-1"},
    {V5, "e1", MALFORMED, "MQTT5 2.1.3-1"},
    {V5, "f8 18 04 15 0001'm'", MALFORMED, "MQTT5 2.1.3-1"},
    /* CONNECT */
    {V5, "10", MALFORMED, "MQTT5 1.2"},
    {V5, "10 0004'MQ'", MALFORMED, "MQTT5 1.2"},
    {V5, "10 0004'MQTT'", MALFORMED, "MQTT5 1.2"},
    {V5, "10 0004'MQTX' 05 02 003c 00 0000", DG_ERR_UNSUPPORTED_VERSION, "MQTT5 3.1.2-1"},
    {V5, "10 0006'MQIsdp' 03 02 003c 0000", DG_ERR_UNSUPPORTED_VERSION, "MQTT5 3.1.2-1"},
    {V5, "10 0004'MQTT' 03 02 003c 0000", DG_ERR_UNSUPPORTED_VERSION, "MQTT5 3.1.2-2"},
    {V5, "10 0004'MQTT' 84 02 003c 0000", DG_ERR_UNSUPPORTED_VERSION, "MQTT5 3.1.2-2"},
    {V5, "10 0004'MQTT' 06 02 003c 0000", DG_ERR_UNSUPPORTED_VERSION, "MQTT5 3.1.2-2"},
    {V5, "10 0004'MQTT' 05 03 003c 00 0000", MALFORMED, "MQTT5 3.1.2-3"},
    {V5, "10 0004'MQTT' 04 03 003c 0000", MALFORMED, "MQTT3 3.1.2-3"},
    {V5, "10 0004'MQTT' 05 0a 003c 00 0000", MALFORMED, "MQTT5 3.1.2-11"},
    {V5, "10 0004'MQTT' 04 12 003c 0000", MALFORMED, "MQTT3 3.1.2-13"},
    {V5, "10 0004'MQTT' 05 1e 003c 00 0000 00 0001't' 0000", MALFORMED, "MQTT5 3.1.2-12"},
    {V5, "10 0004'MQTT' 04 1e 003c 0000 0001't' 0000", MALFORMED, "MQTT3 3.1.2-14"},
    {V5, "10 0004'MQTT' 05 22 003c 00 0000", MALFORMED, "MQTT5 3.1.2-13"},
    {V5, "10 0004'MQTT' 04 22 003c 0000", MALFORMED, "MQTT3 3.1.2-15"},
    {V5, "10 0004'MQTT' 04 42 003c 0000 0001'p'", MALFORMED, "MQTT3 3.1.2-22"},
    {V5, "10 0004'MQTT' 04 82 003c 0000", MALFORMED, "MQTT3 4.8.0-1"}, /* no user name */
    {V5, "10 0004'MQTT' 04 02 003c 0000 00", MALFORMED, "MQTT3 4.8.0-1"},
    {V5, "10 0004'MQTT' 05 02 003c 00 0000 00", MALFORMED, "MQTT5 1.2"},
    {V5, "10 0004'MQTT' 05 02 003c 00 0002 61ff", MALFORMED, "MQTT5 1.5.4-1"},
    {V5, "10 0004'MQTT' 05 02 003c 00 0002 6100", MALFORMED, "MQTT5 1.5.4-2"},
    {V5, "10 0004'MQTT' 04 02 003c 0003 eda080", MALFORMED, "MQTT3 1.5.3-1"},
    {V5, "10 0004'MQTT' 04 02 003c 0001 00", MALFORMED, "MQTT3 1.5.3-2"},
    {V5, "10 0004'MQTT' 05 06 003c 00 0000 00 0000 0000", PROTOCOL, "MQTT5 4.7.3-1"},
    {V5, "10 0004'MQTT' 05 06 003c 00 0000 00 0001'#' 0000", PROTOCOL, "MQTT5 4.7.0-1"},
    {V5, "10 0004'MQTT' 04 06 003c 0000 0003'a/+' 0000", PROTOCOL, "MQTT3 4.7.1-1"},
    {V5, "10 0004'MQTT' 05 82 003c 00 0000 0001 ff", MALFORMED, "MQTT5 1.5.4-1"},
    {V5, "10 0004'MQTT' 05 02 003c 04 16 0001 00 0000", PROTOCOL, "MQTT5 3.1.2.11.10"},
    {V5, "10 0004'MQTT' 05 02 003c 03 21 0000 0000", PROTOCOL, "MQTT5 3.1.2.11.3"},
    {V5, "10 0004'MQTT' 05 02 003c 05 27 00000000 0000", PROTOCOL, "MQTT5 3.1.2.11.4"},
    {V5, "10 0004'MQTT' 05 02 003c 02 19 02 0000", PROTOCOL, "MQTT5 3.1.2.11.6"},
    {V5, "10 0004'MQTT' 05 02 003c 02 17 02 0000", PROTOCOL, "MQTT5 3.1.2.11.7"},
    {V5, "10 0004'MQTT' 05 02 003c 06 21 0001 21 0001 0000", PROTOCOL, "MQTT5 3.1.2.11.3"},
    {V5, "10 0004'MQTT' 05 02 003c 05 18 00000001 0000", MALFORMED, "MQTT5 2.2.2.2"},
    {V5, "10 0004'MQTT' 05 02 003c 02 24 01 0000", MALFORMED, "MQTT5 2.2.2.2"},
    {V5, "10 0004'MQTT' 05 02 003c 02 04 00 0000", MALFORMED, "MQTT5 2.2.2.2"},
    {V5, "10 0004'MQTT' 05 02 003c 02 80 01 0000", MALFORMED, "MQTT5 2.2.2.2"},
    {V5, "10 0004'MQTT' 05 02 003c 02 21 00", MALFORMED, "MQTT5 2.2.2.2"},
    {V5, "10 0004'MQTT' 05 02 003c 7f 0000", MALFORMED, "MQTT5 2.2.2.1"},
    {V5, "10 0004'MQTT' 05 02 003c 8000 0000", MALFORMED, "MQTT5 2.2.2.1"},
    /* PUBLISH */
    {V3, "36 0001't' 0001", MALFORMED, "MQTT3 3.3.1-4"},
    {V5, "36 0001't' 0001 00", MALFORMED, "MQTT5 3.3.1-4"},
    {V3, "38 0001't'", MALFORMED, "MQTT3 3.3.1-2"},
    {V5, "38 0001't' 00", MALFORMED, "MQTT5 3.3.1-2"},
    {V3, "30", MALFORMED, "MQTT3 4.8.0-1"},
    {V3, "30 0002't'", MALFORMED, "MQTT3 4.8.0-1"},
    {V3, "30 0000", PROTOCOL, "MQTT3 4.7.3-1"},
    {V5, "30 0000 00", PROTOCOL, "MQTT5 3.3.2.1"},
    {V3, "30 0001'#'", PROTOCOL, "MQTT3 3.3.2-2"},
    {V5, "30 0003'a/+' 00", PROTOCOL, "MQTT5 3.3.2-2"},
    {V5, "30 000a'abcdefgh/#' 00", PROTOCOL, "MQTT5 3.3.2-2"},
    {V5, "30 0004 61c3a92b 00", PROTOCOL, "MQTT5 3.3.2-2"},
    {V5, "30 0001 00 00", MALFORMED, "MQTT5 1.5.4-2"},
    {V3, "30 0008 6162630065666768", MALFORMED, "MQTT3 1.5.3-2"},
    {V5, "30 0002 c0af 00", MALFORMED, "MQTT5 1.5.4-1"},
    {V3, "32 0001't' 0000", PROTOCOL, "MQTT3 2.3.1-1"},
    {V5, "34 0001't' 0000 00", PROTOCOL, "MQTT5 2.2.1-3"},
    {V5, "32 0001't' 00", MALFORMED, "MQTT5 1.2"},
    {V5, "30 0001't'", MALFORMED, "MQTT5 2.2.2.1"},
    {V5, "30 0001't' 05 01", MALFORMED, "MQTT5 2.2.2.1"},
    {V5, "30 0001't' 03 23 0000", DG_ERR_TOPIC_ALIAS, "MQTT5 3.3.2.3.4"},
    {V5, "30 0001't' 06 23 0001 23 0001", PROTOCOL, "MQTT5 3.3.2.3.4"},
    {V5, "30 0001't' 02 01 02", PROTOCOL, "MQTT5 3.3.2.3.2"},
    {V5, "30 0001't' 04 01 00 01 00", PROTOCOL, "MQTT5 3.3.2.3.2"},
    {V5, "30 0001't' 0a 02 00000001 02 00000001", PROTOCOL, "MQTT5 3.3.2.3.3"},
    {V5, "30 0001't' 04 08 0001'#'", PROTOCOL, "MQTT5 3.3.2.3.5"},
    {V5, "30 0001't' 03 08 0000", PROTOCOL, "MQTT5 3.3.2.3.5"},
    {V5, "30 0001't' 04 03 0001 ff", MALFORMED, "MQTT5 1.5.4-1"},
    {V5, "30 0001't' 02 0b 01", PROTOCOL, "MQTT5 3.3.4-6"},
    {V5, "30 0001't' 05 11 00000001", MALFORMED, "MQTT5 2.2.2.2"},
    {V5, "30 0001't' 06 26 0001'a' 0002", MALFORMED, "MQTT5 1.2"},
    /* acknowledgements */
    {V3, "40 00", MALFORMED, "MQTT3 3.4.1"},
    {V3, "40 0001 00", MALFORMED, "MQTT3 3.4.1"},
    {V5, "40", MALFORMED, "MQTT5 3.4.2"},
    {V5, "40 0000", PROTOCOL, "MQTT5 2.2.1-3"},
    {V5, "40 0001 01", PROTOCOL, "MQTT5 3.4.2-1"},
    {V5, "50 0001 92", PROTOCOL, "MQTT5 3.4.2-1"},
    {V5, "62 0001 10", PROTOCOL, "MQTT5 3.6.2-1"},
    {V5, "70 0001 80", PROTOCOL, "MQTT5 3.6.2-1"},
    {V5, "40 0001 00 00 00", MALFORMED, "MQTT5 1.2"},
    {V5, "40 0001 00 03 1f 0000 00", MALFORMED, "MQTT5 1.2"},
    {V5, "40 0001 00 06 1f 0000 1f 0000", PROTOCOL, "MQTT5 3.4.2.2.2"},
    {V5, "40 0001 00 02 01 00", MALFORMED, "MQTT5 2.2.2.2"},
    /* SUBSCRIBE, UNSUBSCRIBE */
    {V3, "82 0000 0001'#' 02", PROTOCOL, "MQTT3 2.3.1-1"},
    {V3, "82 0001", PROTOCOL, "MQTT3 3.8.3-3"},
    {V5, "82 0001 00", PROTOCOL, "MQTT5 3.8.3-2"},
    {V5, "82 0001", MALFORMED, "MQTT5 2.2.2.1"},
    {V3, "82 0001 0001'#'", MALFORMED, "MQTT3 4.8.0-1"},
    {V3, "82 0001 0000 00", PROTOCOL, "MQTT3 4.7.3-1"},
    {V3, "82 0001 0001'#' 03", MALFORMED, "MQTT3 3.8.3-4"},
    {V3, "82 0001 0001'#' 04", MALFORMED, "MQTT3 3.8.3-4"},
    {V5, "82 0001 00 0001'#' 03", PROTOCOL, "MQTT5 3.8.3.1"},
    {V5, "82 0001 00 0001'#' 30", PROTOCOL, "MQTT5 3.8.3.1"},
    {V5, "82 0001 00 0001'#' 40", MALFORMED, "MQTT5 3.8.3-5"},
    {V5, "82 0001 00 0001'#' 80", MALFORMED, "MQTT5 3.8.3-5"},
    {V5, "82 0001 00 0003'#/a' 00", PROTOCOL, "MQTT5 4.7.1-1"},
    {V3, "82 0001 0002'a#' 00", PROTOCOL, "MQTT3 4.7.1-2"},
    {V5, "82 0001 00 0002'a+' 00", PROTOCOL, "MQTT5 4.7.1-2"},
    {V3, "82 0001 0004'+a/b' 00", PROTOCOL, "MQTT3 4.7.1-3"},
    {V5, "82 0001 00 0001 ff 00", MALFORMED, "MQTT5 1.5.4-1"},
    {V5, "82 0001 00 0007'$share/' 00", PROTOCOL, "MQTT5 4.8.2-1"},
    {V5, "82 0001 00 0008'$share/g' 00", PROTOCOL, "MQTT5 4.8.2-1"},
    {V5, "82 0001 00 0009'$share//t' 00", PROTOCOL, "MQTT5 4.8.2-1"},
    {V5, "82 0001 00 0009'$share/g/' 00", PROTOCOL, "MQTT5 4.8.2-1"},
    {V5, "82 0001 00 000a'$share/+/t' 00", PROTOCOL, "MQTT5 4.8.2-2"},
    {V5, "82 0001 00 000a'$share/g/t' 04", PROTOCOL, "MQTT5 3.8.3-4"},
    {V5, "82 0001 02 0b 00 0001't' 00", PROTOCOL, "MQTT5 3.8.2.1.2"},
    {V5, "82 0001 04 0b 01 0b 01 0001't' 00", PROTOCOL, "MQTT5 3.8.2.1.2"},
    {V5, "82 0001 06 0b 8080808001 0001't' 00", MALFORMED, "MQTT5 2.2.2.2"},
    {V5, "82 0001 03 0b 8100 0001't' 00", MALFORMED, "MQTT5 2.2.2.2"}, /* 1.5.5-1 */
    {V3, "a2 0001", PROTOCOL, "MQTT3 3.10.3-2"},
    {V5, "a2 0001 00", PROTOCOL, "MQTT5 3.10.3-2"},
    {V5, "a2 0001 02 0b 01 0001'a'", MALFORMED, "MQTT5 2.2.2.2"},
    {V5, "a2 0001 00 0000", PROTOCOL, "MQTT5 4.7.3-1"},
    {V5, "a2 0001 00 0002'a'", MALFORMED, "MQTT5 1.2"},
    /* the rest */
    {V5, "c0 00", MALFORMED, "MQTT5 3.12.1"},
    {V3, "e0 00", MALFORMED, "MQTT3 3.14.1"},
    {V5, "e0 8d", PROTOCOL, "MQTT5 3.14.2-1"},
    {V5, "e0 00 00 00", MALFORMED, "MQTT5 1.2"},
    {V5, "e0 00 02 01 00", MALFORMED, "MQTT5 2.2.2.2"},
    {V5, "f0", PROTOCOL, "MQTT5 3.15.2-1"},
    {V5, "f0 18", MALFORMED, "MQTT5 1.2"},
    {V5, "f0 00 04 15 0001'm'", PROTOCOL, "MQTT5 3.15.2-1"},
    {V5, "f0 18 00", PROTOCOL, "MQTT5 3.15.2.2.2"},
    {V5, "f0 19 08 15 0001'm' 15 0001'm'", PROTOCOL, "MQTT5 3.1.2.11.9"},
};

Test(packet, valid) {
    for (size_t i = 0; i < sizeof valid_rows / sizeof valid_rows[0]; i++) {
        const struct row *row = &valid_rows[i];
        struct mqtt_packet packet;
        struct mqtt_fault fault = {0};
        int err = decode(row, &packet, &fault);
        cr_expect_eq(err, 0, "%s: %d %s %s", row->packet, err, fault.clause, fault.text);
        cr_expect_null(fault.clause);
        if (err == 0)
            cr_expect_eq((unsigned)packet.type, strtoul(row->packet, NULL, 16) >> 4);
    }
}

Test(packet, invalid) {
    for (size_t i = 0; i < sizeof invalid_rows / sizeof invalid_rows[0]; i++) {
        const struct row *row = &invalid_rows[i];
        struct mqtt_packet packet, before;
        memset(&packet, 0x5a, sizeof packet);
        memset(&before, 0x5a, sizeof before);
        struct mqtt_fault fault = {"none", "none"};
        int err = decode(row, &packet, &fault);
        cr_expect_eq(err, row->err, "%s: %d, not %d (%s)", row->packet, err, row->err, fault.text);
        cr_expect_str_eq(fault.clause, row->clause, "%s: %s %s", row->packet, fault.clause,
                         fault.text);
        cr_expect_eq(memcmp(&packet, &before, sizeof packet), 0, "%s: output", row->packet);
    }
}

/* Every valid packet cut short anywhere is refused or valid, never read past its end. */
Test(packet, truncated) {
    for (size_t i = 0; i < sizeof valid_rows / sizeof valid_rows[0]; i++) {
        uint8_t bytes[256];
        size_t size = bytes_of(valid_rows[i].packet, bytes);
        for (size_t cut = 1; cut < size; cut++) {
            uint8_t *exact = malloc(cut); /* so that the sanitizer sees an over-read */
            memcpy(exact, bytes, cut);
            struct mqtt_packet packet;
            struct mqtt_fault fault;
            (void)!mqtt_packet_decode(valid_rows[i].version, exact[0],
                                      slice_make(exact + 1, cut - 1), &packet, &fault);
            free(exact);
        }
    }
}

Test(packet, connect_fields) {
    struct row row = {V3,
                      "10 0004'MQTT' 05 f6 000a 05 11 00000007 0002'id' "
                      "0f 18 00000003 01 01 26 0001'k' 0002'vv' 0003'w/t' 0002 00ff 0004'name' "
                      "0003'key'",
                      0, NULL};
    struct mqtt_packet packet;
    struct mqtt_fault fault;
    cr_assert_eq(decode(&row, &packet, &fault), 0);
    const struct mqtt_connect *c = &packet.connect;
    cr_expect(c->version == V5 && c->clean_start && c->keep_alive_s == 10);
    cr_expect(slice_equals_string(c->client_id, "id"));
    cr_expect(c->properties.session_expiry_s == 7 && c->properties.user_count == 0);
    cr_expect(mqtt_has(&c->properties, MQTT_PROPERTY_SESSION_EXPIRY));
    cr_expect(!mqtt_has(&c->properties, MQTT_PROPERTY_RECEIVE_MAXIMUM));
    cr_expect(c->has_will && c->will_qos == 2 && c->will_retain);
    cr_expect(slice_equals_string(c->will_topic, "w/t") && c->will_payload.size == 2);
    cr_expect(c->will_properties.will_delay_s == 3 && c->will_properties.payload_format == 1);
    cr_expect(c->has_user_name && slice_equals_string(c->user_name, "name"));
    cr_expect(c->has_password && slice_equals_string(c->password, "key"));
    struct slice cursor = c->will_properties.raw, key, value;
    cr_expect(mqtt_user_property_next(&cursor, &key, &value));
    cr_expect(slice_equals_string(key, "k") && slice_equals_string(value, "vv"));
    cr_expect_not(mqtt_user_property_next(&cursor, &key, &value));
}

Test(packet, limits) {
    static uint8_t bytes[70000];
    struct mqtt_packet packet;
    struct mqtt_fault fault;
    struct mqtt_subscription filters[LIMIT_MQTT_SUBSCRIPTIONS + 1];
    for (unsigned i = 0; i <= LIMIT_MQTT_SUBSCRIPTIONS; i++)
        filters[i] = (struct mqtt_subscription){.filter = slice_from_string("f"), .options = 1};
    for (unsigned extra = 0; extra <= 1; extra++) {
        struct writer w = writer_make(bytes, sizeof bytes);
        mqtt_write_subscribe(&w, V5, 1, filters, LIMIT_MQTT_SUBSCRIPTIONS + extra);
        int err = mqtt_packet_decode(V5, bytes[0], slice_make(bytes + 2, writer_size(&w) - 2),
                                     &packet, &fault);
        cr_expect_eq(err, extra ? DG_ERR_LIMIT : 0);
    }
    for (unsigned extra = 0; extra <= 1; extra++) {
        struct writer w = writer_make(bytes, sizeof bytes);
        writer_string(&w, "0");
        writer_bytes(&w, "\0\1t", 3);
        writer_uvarint(&w, 5 * (LIMIT_MQTT_PROPERTIES + extra));
        for (unsigned i = 0; i < LIMIT_MQTT_PROPERTIES + extra; i++)
            writer_bytes(&w, "\x26\0\0\0\0", 5);
        int err = mqtt_packet_decode(V5, bytes[0], slice_make(bytes + 1, writer_size(&w) - 1),
                                     &packet, &fault);
        cr_expect_eq(err, extra ? DG_ERR_LIMIT : 0);
    }
    const struct {
        size_t id, user, password;
        int err;
    } rows[] = {
        {LIMIT_CLIENT_ID_BYTES, LIMIT_USER_NAME_BYTES, LIMIT_PASSWORD_BYTES, 0},
        {LIMIT_CLIENT_ID_BYTES + 1, 1, 1, DG_ERR_CLIENT_ID},
        {1, LIMIT_USER_NAME_BYTES + 1, 1, DG_ERR_BAD_CREDENTIALS},
        {1, 1, LIMIT_PASSWORD_BYTES + 1, DG_ERR_BAD_CREDENTIALS},
    };
    static uint8_t text[LIMIT_PASSWORD_BYTES + 1];
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct writer w = writer_make(bytes, sizeof bytes);
        mqtt_write_connect(&w, V5, true, 0, slice_make(text, rows[i].id),
                           slice_make(text, rows[i].user), slice_make(text, rows[i].password));
        size_t header_size;
        int size = mqtt_packet_frame(bytes, writer_size(&w), sizeof bytes, &header_size);
        cr_assert_eq((size_t)size, writer_size(&w));
        struct slice body = slice_make(bytes + header_size, (size_t)size - header_size);
        cr_expect_eq(mqtt_packet_decode(V3, bytes[0], body, &packet, &fault), rows[i].err);
    }
}

Test(packet, frame) {
    const struct {
        const char *bytes;
        uint32_t max;
        int result;
        size_t header_size;
        bool minimal;
    } rows[] = {
        {"", 100, 0, 0, true},
        {"30", 100, 0, 0, true},
        {"c0 00", 100, 2, 2, true},
        {"c0 00 c0", 100, 2, 2, true},
        {"30 03 0001", 100, 0, 0, true},
        {"30 03 0001 74", 100, 5, 2, true},
        {"30 03 0001 74", 4, DG_ERR_TOO_LARGE, 0, true},
        {"30 80", 100, 0, 0, true},
        {"30 8000", 100, 3, 3, false},
        {"30 838000 0001 74", 100, 7, 4, false},
        {"30 80808000", 100, 5, 5, false},
        {"30 ffffff7f", 100, DG_ERR_TOO_LARGE, 0, true}, /* before the body is there */
        {"30 ffffff7f", UINT32_MAX, 0, 0, true},
        {"30 ffffff", 100, 0, 0, true},
        {"30 80808080", 100, DG_ERR_MALFORMED, 0, true},
        {"30 ffffffff7f", 100, DG_ERR_MALFORMED, 0, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t bytes[16];
        size_t size = bytes_of(rows[i].bytes, bytes), header_size = 0;
        int result = mqtt_packet_frame(bytes, size, rows[i].max, &header_size);
        cr_expect_eq(result, rows[i].result, "%s: %d", rows[i].bytes, result);
        cr_expect_eq(header_size, rows[i].header_size, "%s", rows[i].bytes);
        if (result > 0)
            cr_expect_eq(mqtt_header_is_minimal((size_t)result, header_size), rows[i].minimal);
    }
}

/* The table against MQTT5 2.2.2.2, written down a second time from its text. */
Test(packet, property_table) {
    static const uint8_t ids[] = {1,  2,  3,  8,  9,  11, 17, 18, 19, 21, 22, 23, 24, 25,
                                  26, 28, 31, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42};
    cr_assert_eq(sizeof ids, MQTT_PROPERTY_COUNT);
    for (unsigned i = 0; i < MQTT_PROPERTY_COUNT; i++) {
        const struct mqtt_property_row *row = &mqtt_property_rows[i];
        cr_expect_eq(row->id, ids[i], "%s", row->name);
        cr_expect(row->clause && row->foreign && row->twice && row->value && row->packets);
        cr_expect_eq(row->repeats & ~row->packets, 0, "%s", row->name);
        /* what no client may send has no place in the struct, and everything else has */
        unsigned server_only = 1u << MQTT_CONNACK | 1u << MQTT_SUBACK | 1u << MQTT_UNSUBACK;
        bool sent = row->packets & ~server_only;
        cr_expect_eq(sent, row->offset != 0 || row->type == PROPERTY_PAIR, "%s", row->name);
    }
    cr_expect_eq(mqtt_property_rows[MQTT_PROPERTY_USER].packets,
                 0xffff & ~(1u << MQTT_PINGREQ | 1u << MQTT_PINGRESP));
}

/* Every property in every packet that a client sends: taken exactly where its row says so. */
Test(packet, property_matrix) {
    static const char *const values[] = {[PROPERTY_BYTE] = "01",
                                         [PROPERTY_U16] = "0001",
                                         [PROPERTY_U32] = "00000001",
                                         [PROPERTY_VARINT] = "01",
                                         [PROPERTY_TEXT] = "0001'm'",
                                         [PROPERTY_BINARY] = "0001 00",
                                         [PROPERTY_PAIR] = "0001'k' 0001'v'"};
    static const struct {
        unsigned packet;
        const char *before, *after;
    } packets[] = {
        {MQTT_CONNECT, "10 0004'MQTT' 05 02 0000", "0000"},
        {0, "10 0004'MQTT' 05 06 0000 00 0000", "0001't' 0000"},
        {MQTT_PUBLISH, "30 0001't'", ""},
        {MQTT_PUBACK, "40 0001 00", ""},
        {MQTT_PUBREC, "50 0001 00", ""},
        {MQTT_PUBREL, "62 0001 00", ""},
        {MQTT_PUBCOMP, "70 0001 00", ""},
        {MQTT_SUBSCRIBE, "82 0001", "0001't' 00"},
        {MQTT_UNSUBSCRIBE, "a2 0001", "0001't'"},
        {MQTT_DISCONNECT, "e0 00", ""},
        {MQTT_AUTH, "f0 18", ""},
    };
    for (size_t p = 0; p < sizeof packets / sizeof packets[0]; p++)
        for (unsigned i = 0; i < MQTT_PROPERTY_COUNT; i++)
            for (unsigned times = 1; times <= 2; times++) {
                const struct mqtt_property_row *row = &mqtt_property_rows[i];
                uint8_t scratch[64];
                char once[64], all[256];
                snprintf(once, sizeof once, "%02x %s", row->id, values[row->type]);
                size_t size = times * bytes_of(once, scratch);
                snprintf(all, sizeof all, "%s %02zx %s %s %s", packets[p].before, size, once,
                         times == 2 ? once : "", packets[p].after);
                struct row test = {V5, all, 0, NULL};
                struct mqtt_packet packet;
                struct mqtt_fault fault = {0};
                int err = decode(&test, &packet, &fault);
                bool allowed = row->packets >> packets[p].packet & 1;
                bool repeats = row->repeats >> packets[p].packet & 1;
                if (!allowed)
                    cr_expect(err == MALFORMED && !strcmp(fault.clause, "MQTT5 2.2.2.2"), "%s",
                              all);
                else if (times == 2 && !repeats)
                    cr_expect(err == PROTOCOL && fault.text == row->twice, "%s", all);
                else if (err < 0) /* rules about other properties, not about this one */
                    cr_expect(fault.text != row->twice && fault.text != row->foreign, "%s", all);
            }
}

static void expect_written(const struct writer *w, const char *expected) {
    uint8_t bytes[512];
    size_t size = bytes_of(expected, bytes);
    cr_expect_not(w->failed);
    cr_expect(writer_size(w) == size && memcmp(w->start, bytes, size) == 0, "%s", expected);
}

Test(packet, written) {
    uint8_t room[512];
    struct slice none = slice_make(NULL, 0), text = slice_from_string("no");
    struct mqtt_connack plain = {.session_present = true,
                                 .maximum_qos = -1,
                                 .wildcard_available = true,
                                 .subscription_id_available = true,
                                 .shared_available = true,
                                 .retain_available = true};
    struct mqtt_connack full = {.reason = 0x87,
                                .has_session_expiry = true,
                                .session_expiry_s = 9,
                                .receive_maximum = 10,
                                .maximum_qos = 1,
                                .maximum_packet_size = 11,
                                .assigned_client_id = slice_from_string("id"),
                                .topic_alias_maximum = 12,
                                .reason_string = text,
                                .server_reference = slice_from_string("b"),
                                .server_keep_alive_s = 13};
#define WRITES(expected, call)                            \
    do {                                                  \
        struct writer w = writer_make(room, sizeof room); \
        call;                                             \
        expect_written(&w, expected);                     \
    } while (0)
    WRITES("20 02 01 00", mqtt_write_connack(&w, V3, &plain));
    WRITES("20 03 01 00 00", mqtt_write_connack(&w, V5, &plain));
    WRITES("20 2e 00 87 2b 11 00000009 21 000a 24 01 25 00 27 0000000b 12 0002'id' 22 000c "
           "1c 0001'b' 1f 0002'no' 28 00 29 00 2a 00 13 000d",
           mqtt_write_connack(&w, V5, &full));
    WRITES("40 02 0102", mqtt_write_ack(&w, V5, MQTT_PUBACK, 0x102, 0, none));
    WRITES("40 02 0102", mqtt_write_ack(&w, V3, MQTT_PUBACK, 0x102, 0x97, text));
    WRITES("62 02 0001", mqtt_write_ack(&w, V3, MQTT_PUBREL, 1, 0, none));
    WRITES("50 03 0001 97", mqtt_write_ack(&w, V5, MQTT_PUBREC, 1, 0x97, none));
    WRITES("70 09 0001 92 05 1f 0002'no'", mqtt_write_ack(&w, V5, MQTT_PUBCOMP, 1, 0x92, text));
    WRITES("40 0f 0102 00 0b 26 0002'no' 0004'yes!'", {
        uint8_t section[16];
        struct writer properties = writer_make(section, sizeof section);
        mqtt_write_user_property(&properties, text, slice_from_string("yes!"));
        mqtt_write_ack_properties(&w, MQTT_PUBACK, 0x102, 0,
                                  slice_make(section, writer_size(&properties)));
    });
    const uint8_t reasons[] = {1, 0x87};
    WRITES("90 04 0001 01 87", mqtt_write_suback(&w, V3, MQTT_SUBACK, 1, reasons, 2, text));
    WRITES("90 05 0001 00 01 87", mqtt_write_suback(&w, V5, MQTT_SUBACK, 1, reasons, 2, none));
    WRITES("90 0a 0001 05 1f 0002'no' 01 87",
           mqtt_write_suback(&w, V5, MQTT_SUBACK, 1, reasons, 2, text));
    WRITES("b0 02 0001", mqtt_write_suback(&w, V3, MQTT_UNSUBACK, 1, reasons, 2, none));
    WRITES("b0 05 0001 00 01 87", mqtt_write_suback(&w, V5, MQTT_UNSUBACK, 1, reasons, 2, none));
    WRITES("d0 00", mqtt_write_pingresp(&w));
    WRITES("e0 00", mqtt_write_disconnect(&w, 0, none, none));
    WRITES("e0 01 8e", mqtt_write_disconnect(&w, 0x8e, none, none));
    WRITES("e0 07 8e 05 1f 0002'no'", mqtt_write_disconnect(&w, 0x8e, text, none));
    WRITES("e0 07 9c 05 1c 0002'no'", mqtt_write_disconnect(&w, 0x9c, none, text));
    WRITES("e0 0b 9c 09 1c 0001'b' 1f 0002'no'",
           mqtt_write_disconnect(&w, 0x9c, text, slice_from_string("b")));
    WRITES("3b 07 0002'no' 0009 'x'",
           mqtt_write_publish(&w, V3, true, 1, true, text, 9, none, slice_from_string("x")));
    WRITES("30 08 0002'no' 02 01 01 'x'",
           mqtt_write_publish(&w, V5, false, 0, false, text, 9, slice_make("\1\1", 2),
                              slice_from_string("x")));
    WRITES("10 0e 0004'MQTT' 04 02 003c 0002'no'",
           mqtt_write_connect(&w, V3, true, 60, text, none, none));
}

Test(packet, properties_written) {
    uint8_t room[128];
    struct slice pairs = slice_make("\x01\x01\x26\0\1k\0\1v", 9);
    struct mqtt_properties p = {
        .present = 1u << MQTT_PROPERTY_PAYLOAD_FORMAT | 1u << MQTT_PROPERTY_MESSAGE_EXPIRY |
                   1u << MQTT_PROPERTY_CONTENT_TYPE | 1u << MQTT_PROPERTY_CORRELATION_DATA |
                   1u << MQTT_PROPERTY_SUBSCRIPTION_ID | 1u << MQTT_PROPERTY_TOPIC_ALIAS |
                   1u << MQTT_PROPERTY_USER,
        .payload_format = 1,
        .message_expiry_s = 9,
        .content_type = slice_from_string("j"),
        .correlation_data = slice_make("\0", 1),
        .subscription_id = 300,
        .topic_alias = 2,
        .raw = pairs,
    };
    struct writer w = writer_make(room, sizeof room);
    mqtt_write_properties(&w, &p);
    expect_written(&w, "01 01 02 00000009 03 0001'j' 09 0001 00 0b ac02 23 0002 26 0001'k'0001'v'");
    for (size_t size = 0; size < writer_size(&w); size++) {
        struct writer narrow = writer_make(room, size);
        mqtt_write_properties(&narrow, &p);
        cr_expect(narrow.failed);
    }
}

/* A writer without room fails and never writes past its end. */
Test(packet, writers_without_room) {
    uint8_t text[3000] = {0}, room[64];
    memset(text, 'a', sizeof text);
    struct slice big = slice_make(text, sizeof text), none = slice_make(NULL, 0);
    struct mqtt_connack connack = {.maximum_qos = -1, .reason_string = big};
    struct writer w = writer_make(room, sizeof room);
    mqtt_write_connack(&w, V5, &connack);
    cr_expect(w.failed);
    w = writer_make(room, sizeof room);
    mqtt_write_ack(&w, V5, MQTT_PUBACK, 1, 0x97, big);
    cr_expect(w.failed);
    w = writer_make(room, sizeof room);
    mqtt_write_disconnect(&w, 0x97, big, none);
    cr_expect(w.failed);
    static uint8_t huge[UINT16_MAX + 1], much[2 * UINT16_MAX];
    w = writer_make(much, sizeof much);
    mqtt_write_publish(&w, V3, false, 0, false, slice_make(huge, sizeof huge), 0, none, none);
    cr_expect(w.failed);
}

Test(packet, topics) {
    char deep[64] = "", longest[LIMIT_MQTT_TOPIC_BYTES + 2];
    for (unsigned i = 0; i < LIMIT_MQTT_TOPIC_LEVELS; i++)
        deep[i] = '/';
    memset(longest, 'a', sizeof longest);
    longest[LIMIT_MQTT_TOPIC_BYTES + 1] = 0;
    const struct {
        const char *topic;
        bool name, filter;
    } rows[] = {
        {"", false, false},
        {"a", true, true},
        {"/", true, true},
        {"a/b c/d", true, true},
        {"\xc3\xa9/long enough to be two words", true, true},
        {"+", false, true},
        {"#", false, true},
        {"a/+/b/#", false, true},
        {"/+", false, true},
        {"abcdefgh+", false, false},
        {"a/b#", false, false},
        {"a/#/b", false, false},
        {"a/+b", false, false},
        {"++", false, false},
        {"\xff", false, false},
        {"abcdefg\xff", false, false},
        {deep, false, false},
        {deep + 1, true, true},
        {longest, false, false},
        {longest + 1, true, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct slice topic = slice_from_string(rows[i].topic);
        cr_expect_eq(mqtt_topic_name_is_valid(topic), rows[i].name, "%s", rows[i].topic);
        cr_expect_eq(mqtt_topic_filter_is_valid(topic), rows[i].filter, "%s", rows[i].topic);
    }
    cr_expect_not(mqtt_topic_name_is_valid(slice_make("a\0b", 3)));
    cr_expect_not(mqtt_topic_filter_is_valid(slice_make("abcdefgh\0", 9)));
}

Test(topic, matches) {
    static const struct {
        const char *filter, *topic;
        bool matches;
    } rows[] = {
        {"a/b", "a/b", true},    {"a/b", "a/c", false},    {"a/b", "a/b/c", false},
        {"a/b/c", "a/b", false}, {"+", "a", true},         {"+", "a/b", false},
        {"+/+", "/a", true},     {"+/+", "a/", true},      {"a/+", "a", false},
        {"a/+", "a/", true},     {"#", "a/b/c", true},     {"a/#", "a", true},
        {"a/#", "a/b/c", true},  {"a/#", "ab", false},     {"+/b/#", "a/b/c", true},
        {"/#", "/", true},       {"/#", "a", false},       {"#", "$dg/x", false},
        {"+/x", "$dg/x", false}, {"$dg/+", "$dg/x", true}, {"a//b", "a//b", true},
        {"a/+/b", "a//b", true}, {"a", "A", false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_expect_eq(
            mqtt_topic_matches(slice_from_string(rows[i].filter), slice_from_string(rows[i].topic)),
            rows[i].matches, "%s %s", rows[i].filter, rows[i].topic);
}
