/*
 * Devices behind gateway devices, as one worker remembers them: who they are and which gateways may
 * speak for them. What is known comes from the registry and goes when the registry tells of a
 * change of the device, so that the next publish for it is looked up again; that a device may not
 * be spoken for is believed for LIMIT_CHILD_REFUSED_MS only. Those not used for the longest time
 * give way. One worker's thread; pure.
 */
#pragma once

#include "common/err.h"
#include "common/hash.h"
#include "common/slice.h"
#include "gateway/session/device_map.h"
#include "registry/registry.h"

#include <uthash.h>

struct child {
    struct child *newer, *older;
    UT_hash_handle hh;
    uint64_t asked_ms;  /* monotonic */
    int64_t device_key; /* 0: there is no such device, or nobody knows */
    uint32_t partition;
    int err;                                /* what the registry answered */
    char group[LIMIT_GROUP_NAME_BYTES + 1]; /* "": none */
    char *via;                              /* owned; NULL without a device */
    uint8_t name_size;
    /* the hash key: the tenant, then the name */
    int64_t tenant_key;
    char name[];
};

struct children {
    struct child *by_name;
    struct device_map by_key; /* device key -> struct child * */
    struct child *newest, *oldest;
    uint32_t count;
};

enum { CHILD_UNKNOWN = 1 };

/* Whether this gateway may speak for this child: 0 and the child, valid until anything of the table
 * changes; CHILD_UNKNOWN: the registry is to be asked. DG_ERR_VIA: it may not. DG_ERR_UNAVAILABLE:
 * the registry was asked a moment ago and could not say. */
DG_NODISCARD int children_may(struct children *children, int64_t tenant_key, struct slice gateway,
                              struct slice name, uint64_t now_ms, const struct child **ret_child);

/* What the registry answered; answer->via is taken over. DG_ERR_NO_MEMORY. */
DG_NODISCARD int children_store(struct children *children, struct registry_child_query *answer,
                                uint64_t now_ms);

/* The device has changed, if it is one of them. */
void children_forget(struct children *children, int64_t device_key);
void children_free(struct children *children);
