/*
 * A tenant's topic map: for firmware with fixed topics, what a topic that a device publishes means,
 * and on which topics it is told what the gateway has for it. Part of the tenant's policy:
 *
 *   {"in":  [{"pattern": "legacy/+/alarm", "kind": "event"},
 *            {"pattern": "nodes/{device}/up/#", "kind": "via"},
 *            {"pattern": "done/{id}/{status}", "kind": "reply"}],
 *    "out": {"command": "cmd/{id}/{name}", "state_desired": "config"}}
 *
 * A pattern is an MQTT filter (MQTT5 4.7) in which a level may also have a name. The first pattern
 * that takes a topic decides; a topic that none takes means what it means natively. Topics that
 * begin with '$' never come here, so a map cannot hide them.
 *
 * {device} names a device behind the one that publishes, with any kind; of kind via, what '#'
 * stands for is a topic of that device's. {id} and {status} belong to replies.
 *
 * Pure. A map is changed by the one who makes it only; then any thread may use it.
 */
#pragma once

#include <stdbool.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/slice.h"
#include "common/writer.h"

enum topic_map_kind {
    TOPIC_MAP_TELEMETRY,
    TOPIC_MAP_EVENT,
    TOPIC_MAP_REPLY,
    TOPIC_MAP_STATE_REPORTED,
    TOPIC_MAP_VIA,
    TOPIC_MAP_KIND_COUNT
};

enum topic_map_out {
    TOPIC_OUT_COMMAND,
    TOPIC_OUT_STATE_DESIRED,
    TOPIC_OUT_VIA_COMMAND, /* of a device behind a gateway */
    TOPIC_OUT_VIA_STATE_DESIRED,
    TOPIC_OUT_COUNT
};

enum topic_map_name {
    TOPIC_NAME_DEVICE,
    TOPIC_NAME_ID,
    TOPIC_NAME_STATUS,
    TOPIC_NAME_NAME, /* of a command */
    TOPIC_NAME_COUNT
};

struct topic_match {
    enum topic_map_kind kind;
    struct slice rest;                    /* what '#' stands for */
    struct slice names[TOPIC_NAME_COUNT]; /* empty: not in the pattern; else not empty */
};

struct topic_map;

/* NULL: out of memory. */
struct topic_map *topic_map_new(void);
void topic_map_free(struct topic_map *map);

/* What a member of "out" is called; NULL terminates them. */
extern const char *const topic_map_out_names[TOPIC_OUT_COUNT + 1];

/* Behind those that are there. DG_ERR_INVALID, with static words; DG_ERR_NO_MEMORY. */
DG_NODISCARD int topic_map_add(struct topic_map *map, struct slice pattern, struct slice kind,
                               const char **ret_why);
/* As topic_map_add(). */
DG_NODISCARD int topic_map_set_out(struct topic_map *map, enum topic_map_out out, struct slice text,
                                   const char **ret_why);

/* What a topic means; false: the map says nothing. is_behind: it is a topic of a device behind a
 * gateway already, so patterns with {device} do not count. */
bool topic_map_find(const struct topic_map *map, struct slice topic, bool is_behind,
                    struct topic_match *ret_match);

/* Whether a device may subscribe to this filter: it takes every topic of one of "out", begins with
 * its first level, and names the device behind it where there is one (else ret_device is empty). */
bool topic_map_takes_filter(const struct topic_map *map, struct slice filter,
                            enum topic_map_out *ret_out, struct slice *ret_device);

/* The topic to deliver on; false: the map has none. names: those the text has a place for. */
bool topic_map_write(const struct topic_map *map, enum topic_map_out out,
                     const struct slice names[TOPIC_NAME_COUNT], struct writer *w);
