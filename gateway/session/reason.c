#include "gateway/session/reason.h"

#include "common/err.h"

enum {
    C = 1 << MQTT_CONNACK,
    P = 1 << MQTT_PUBACK,
    S = 1 << MQTT_SUBACK,
    D = 1 << MQTT_DISCONNECT,
};

/* MQTT5 3.2.2.2, 3.4.2.1, 3.9.3, 3.14.2.1. instead: what is said where the code is not allowed. */
static const struct reason_row {
    uint8_t reason;
    uint16_t packets;
    uint8_t instead;
} reason_rows[] = {
    {0x81, C | D, 0x80},
    {0x82, C | D, 0x83},
    {0x83, C | P | S | D, 0x80},
    {0x84, C, 0x80},
    {0x85, C, 0x80},
    {0x86, C, 0x87},
    {0x87, C | P | S | D, 0x80},
    {0x88, C, 0x89},
    {0x89, C | D, 0x80},
    {0x8A, C, 0x98},
    {0x8B, D, 0x88},
    {0x8C, C, 0x82},
    {0x8D, D, 0x80},
    {0x8E, D, 0x89},
    {0x8F, S | D, 0x80},
    {0x90, C | P | D, 0x80},
    {0x91, P | S, 0x82},
    {0x93, D, 0x80},
    {0x94, D, 0x82},
    {0x95, C | D, 0x83},
    {0x96, D, 0x97},
    {0x97, C | P | S | D, 0x80},
    {0x98, D, 0x87},
    {0x99, C | P | D, 0x80},
    {0x9B, C | D, 0x83},
    {0x9E, S | D, 0x80},
    {0x9F, C | D, 0x97},
    {0xA1, S | D, 0x80},
    {0xA2, S | D, 0x80},
};

static const struct reason_row *row_of(uint8_t reason) {
    for (unsigned i = 0; i < sizeof(reason_rows) / sizeof(reason_rows[0]); i++)
        if (reason_rows[i].reason == reason)
            return &reason_rows[i];
    return NULL;
}

static bool is_allowed(uint8_t reason, enum mqtt_type packet) {
    const struct reason_row *row = row_of(reason);
    return row && (row->packets & 1 << packet);
}

uint8_t session_reason(int err, enum mqtt_type packet) {
    uint8_t reason = dg_err_row(err)->mqtt5_reason;
    if (is_allowed(reason, packet))
        return reason;
    const struct reason_row *row = row_of(reason);
    return row && is_allowed(row->instead, packet) ? row->instead : 0x80;
}
