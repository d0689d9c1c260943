/* The table of MQTT 5 properties (MQTT5 2.2.2.2), open to tests. Private to the codec. */
#pragma once

#include "gateway/mqtt/packet.h"

enum mqtt_property_type {
    PROPERTY_BYTE,
    PROPERTY_U16,
    PROPERTY_U32,
    PROPERTY_VARINT,
    PROPERTY_TEXT,
    PROPERTY_BINARY,
    PROPERTY_PAIR,
};

/* What a value must be beyond its type. */
enum mqtt_property_rule { RULE_ANY, RULE_BOOLEAN, RULE_NOT_ZERO, RULE_ALIAS, RULE_TOPIC };

struct mqtt_property_row {
    const char *name;
    uint8_t id;
    uint8_t type;     /* enum mqtt_property_type */
    uint8_t rule;     /* enum mqtt_property_rule */
    uint16_t offset;  /* in struct mqtt_properties; 0: a client's packet never carries it */
    uint16_t packets; /* 1 << enum mqtt_type; bit 0 is the will */
    uint16_t repeats; /* packets in which it may come more than once */
    const char *clause;
    const char *foreign, *twice, *value; /* words for each way to get it wrong */
};

enum { MQTT_PROPERTY_ID_MAX = 0x2A };

extern const struct mqtt_property_row mqtt_property_rows[MQTT_PROPERTY_COUNT];
