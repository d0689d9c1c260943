/* A device as the gateway's own events of it need it: whose stream, which partition, which names.
 */
#pragma once

#include <stdint.h>

#include "common/limits.h"

struct command_target {
    int64_t tenant_key, stream_id, device_key;
    uint32_t partition;
    char tenant[LIMIT_TENANT_BYTES + 1];
    char device[LIMIT_DEVICE_ID_BYTES + 1];
};
