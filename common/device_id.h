/*
 * The two alphabets of device ids (DESIGN: names on the wire). IoT Hub's is the wider one; a device
 * whose id is not native is reached by that dialect only. Pure.
 */
#pragma once

#include <stdbool.h>

#include "common/slice.h"

/* 1 to 128 of A-Z a-z 0-9 . _ : - */
bool device_id_is_native(struct slice id);
/* ... and of + % # * ? ! ( ) , = @ $ ' */
bool device_id_is_hub(struct slice id);
