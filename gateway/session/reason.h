/* Which reason code says an error in which packet: MQTT 5 allows each code in some packets only
 * (MQTT5 2.4). Pure. */
#pragma once

#include <stdint.h>

#include "gateway/mqtt/packet.h"

/* The reason code of err in a CONNACK, PUBACK, SUBACK or DISCONNECT of MQTT 5: the error table's if
 * the packet may carry it, else the nearest that it may. Always 0x80 or above. */
uint8_t session_reason(int err, enum mqtt_type packet);
