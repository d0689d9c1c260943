/*
 * What the topics and filters of a device mean: by its tenant's topic map where that says so, else
 * natively. A topic may be that of a device behind the one that publishes
 * ($dg/via/<device>/<topic>, or a pattern with {device}); then the topic behind the name is read as
 * if that device had published it: "$dg/via/s1/$dg/events/door" is its event "door". No gateway is
 * behind another one. Pure.
 */
#pragma once

#include "gateway/dialect/native.h"
#include "registry/topic_map.h"

struct topic_meaning {
    enum native_topic_kind kind; /* never NATIVE_VIA */
    struct slice subject;        /* what becomes ce_subject */
    struct slice device;         /* behind the one that publishes; empty: none */
    struct slice topic;          /* as the device whose it is would have published it */
    struct slice id, status;     /* of NATIVE_REPLY only */
};

/* map NULL: none. DG_ERR_NOT_AUTHORIZED, DG_ERR_TOPIC_NAME: as native_classify_topic(). */
DG_NODISCARD int topic_classify(const struct topic_map *map, struct slice topic,
                                struct topic_meaning *ret_meaning);

/* Whether a device may subscribe: as native_check_filter(), or what the map's topics out allow.
 * ret_device: behind it; empty: none. */
DG_NODISCARD int topic_check_filter(const struct topic_map *map, struct slice filter,
                                    struct slice *ret_device);

/* What a native topic of ours is, and the names in it; false: none that a map has others for. */
bool topic_split_out(struct slice topic, enum topic_map_out *ret_out,
                     struct slice ret_names[TOPIC_NAME_COUNT]);
