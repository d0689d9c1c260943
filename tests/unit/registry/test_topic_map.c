/* Topic maps: patterns that are taken and refused, what topics mean, filters and topics out. */
#include <criterion/criterion.h>

#include "registry/topic_map.h"

static const char *why;

static struct slice text(const char *string) {
    return string ? slice_from_string(string) : slice_make(NULL, 0);
}

static int add(struct topic_map *map, const char *pattern, const char *kind) {
    why = "";
    return topic_map_add(map, text(pattern), text(kind), &why);
}

static int set_out(struct topic_map *map, enum topic_map_out out, const char *topic) {
    why = "";
    return topic_map_set_out(map, out, text(topic), &why);
}

Test(topic_map, patterns_that_are_refused) {
    static const struct {
        const char *pattern, *kind, *says;
    } cases[] = {
        {"", "event", "empty"},
        {"a/b", "alarm", "kind must be"},
        {"$dg/events/#", "telemetry", "$"},
        {"$SYS", "event", "$"},
        {"a/#/b", "event", "last"},
        {"a/b#", "event", "whole level"},
        {"a/+b", "event", "whole level"},
        {"a/{device}x", "event", "whole level"},
        {"a/{thing}", "event", "whole level"},
        {"a/{device}/{device}", "event", "twice"},
        {"a/{id}", "event", "{device}"},
        {"a/{id}", "reply", "{status}"},
        {"a/{id}/{status}/{name}", "reply", "{status}"},
        {"a/{device}", "via", "/#"},
        {"a/#", "via", "{device}"},
        {"a/{device}/{id}/#", "via", "{device}"},
        {"1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17", "event", "levels"},
    };
    struct topic_map *map = topic_map_new();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_expect_eq(add(map, cases[i].pattern, cases[i].kind), DG_ERR_INVALID, "%s",
                     cases[i].pattern);
        cr_expect(strstr(why, cases[i].says), "%s: %s", cases[i].pattern, why);
    }
    char longest[LIMIT_MQTT_TOPIC_BYTES + 2] = "";
    memset(longest, 'x', LIMIT_MQTT_TOPIC_BYTES + 1);
    cr_assert_eq(add(map, longest, "event"), DG_ERR_INVALID);
    cr_assert_eq(add(map, longest + 1, "event"), 0);
    cr_assert_eq(topic_map_add(map, slice_make("a\0b", 3), text("event"), &why), DG_ERR_INVALID);
    cr_assert_eq(add(map, "1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16", "event"), 0);
    for (unsigned i = 2; i < LIMIT_TOPIC_PATTERNS; i++)
        cr_assert_eq(add(map, "a", "event"), 0);
    cr_assert_eq(add(map, "a", "event"), DG_ERR_INVALID);
    cr_assert(strstr(why, "too many"));
    topic_map_free(map);
    topic_map_free(NULL);
}

Test(topic_map, topics) {
    enum { NONE = -1 };
    static const struct {
        const char *topic;
        bool is_behind;
        int kind;
        const char *rest, *device, *id, *status;
    } cases[] = {
        {"legacy/7/alarm", false, TOPIC_MAP_EVENT, NULL, NULL, NULL, NULL},
        {"legacy//alarm", false, TOPIC_MAP_EVENT, NULL, NULL, NULL, NULL},
        {"legacy/7/alarms", false, NONE, NULL, NULL, NULL, NULL},
        {"legacy/7/alarm/x", false, NONE, NULL, NULL, NULL, NULL},
        {"nodes/s1/up/a/b", false, TOPIC_MAP_VIA, "a/b", "s1", NULL, NULL},
        {"nodes/s1/up/$dg/events/x", false, TOPIC_MAP_VIA, "$dg/events/x", "s1", NULL, NULL},
        {"nodes/s1/up", false, NONE, NULL, NULL, NULL, NULL},
        {"nodes/s1/up/", false, NONE, NULL, NULL, NULL, NULL},
        {"nodes//up/a", false, NONE, NULL, NULL, NULL, NULL},
        {"nodes/s1/up/a", true, NONE, NULL, NULL, NULL, NULL},
        {"nodes/s1/alarm", false, TOPIC_MAP_EVENT, NULL, "s1", NULL, NULL},
        {"done/12/200", false, TOPIC_MAP_REPLY, NULL, NULL, "12", "200"},
        {"done/12/200", true, TOPIC_MAP_REPLY, NULL, NULL, "12", "200"},
        {"done/12/", false, NONE, NULL, NULL, NULL, NULL},
        {"state", false, TOPIC_MAP_STATE_REPORTED, NULL, NULL, NULL, NULL},
        {"bulk", false, TOPIC_MAP_TELEMETRY, "", NULL, NULL, NULL},
        {"bulk/x/y", false, TOPIC_MAP_TELEMETRY, "x/y", NULL, NULL, NULL},
        {"bulk/first", false, TOPIC_MAP_TELEMETRY, "first", NULL, NULL, NULL}, /* first match */
        {"", false, NONE, NULL, NULL, NULL, NULL},
        {"/", false, NONE, NULL, NULL, NULL, NULL},
        {"all/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16", false, TOPIC_MAP_EVENT, NULL, NULL, NULL,
         NULL},
        {"all/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17", false, NONE, NULL, NULL, NULL, NULL},
    };
    struct topic_map *map = topic_map_new();
    cr_assert_eq(add(map, "legacy/+/alarm", "event"), 0);
    cr_assert_eq(add(map, "nodes/{device}/up/#", "via"), 0);
    cr_assert_eq(add(map, "nodes/{device}/alarm", "event"), 0);
    cr_assert_eq(add(map, "done/{id}/{status}", "reply"), 0);
    cr_assert_eq(add(map, "state", "state_reported"), 0);
    cr_assert_eq(add(map, "bulk/#", "telemetry"), 0);
    cr_assert_eq(add(map, "bulk/first", "event"), 0);
    cr_assert_eq(add(map, "all/#", "event"), 0);
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct topic_match match;
        bool found = topic_map_find(map, text(cases[i].topic), cases[i].is_behind, &match);
        cr_assert_eq(found, cases[i].kind != NONE, "%s", cases[i].topic);
        if (!found)
            continue;
        cr_expect_eq((int)match.kind, cases[i].kind, "%s", cases[i].topic);
        cr_expect(!cases[i].rest || slice_equals_string(match.rest, cases[i].rest), "%s",
                  cases[i].topic);
        cr_expect(slice_equals(match.names[TOPIC_NAME_DEVICE], text(cases[i].device)), "%s",
                  cases[i].topic);
        cr_expect(slice_equals(match.names[TOPIC_NAME_ID], text(cases[i].id)), "%s",
                  cases[i].topic);
        cr_expect(slice_equals(match.names[TOPIC_NAME_STATUS], text(cases[i].status)), "%s",
                  cases[i].topic);
    }
    topic_map_free(map);
}

Test(topic_map, everything_but_control_topics) {
    struct topic_map *map = topic_map_new();
    struct topic_match match;
    cr_assert_eq(add(map, "#", "event"), 0);
    cr_assert(topic_map_find(map, text("a/b"), false, &match));
    cr_assert(!topic_map_find(map, text("$dg/state/reported"), false, &match));
    topic_map_free(map);
}

Test(topic_map, topics_out_that_are_refused) {
    static const struct {
        enum topic_map_out out;
        const char *topic, *says;
    } cases[] = {
        {TOPIC_OUT_COMMAND, "cmd/{name}", "{id}"},
        {TOPIC_OUT_COMMAND, "cmd/{id}/{device}", "{id}"},
        {TOPIC_OUT_COMMAND, "cmd/{id}/#", "no #"},
        {TOPIC_OUT_COMMAND, "cmd/{id}/+", "no +"},
        {TOPIC_OUT_COMMAND, "{id}/cmd", "first level"},
        {TOPIC_OUT_COMMAND, "/{id}", "first level"},
        {TOPIC_OUT_COMMAND, "$dg/x/{id}", "$"},
        {TOPIC_OUT_STATE_DESIRED, "x/{id}", "no names"},
        {TOPIC_OUT_VIA_COMMAND, "cmd/{id}", "{device}"},
        {TOPIC_OUT_VIA_STATE_DESIRED, "cmd", "{device}"},
    };
    struct topic_map *map = topic_map_new();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_expect_eq(set_out(map, cases[i].out, cases[i].topic), DG_ERR_INVALID, "%s",
                     cases[i].topic);
        cr_expect(strstr(why, cases[i].says), "%s: %s", cases[i].topic, why);
    }
    topic_map_free(map);
}

static struct topic_map *map_out(void) {
    struct topic_map *map = topic_map_new();
    cr_assert_eq(set_out(map, TOPIC_OUT_COMMAND, "cmd/{id}/{name}"), 0);
    cr_assert_eq(set_out(map, TOPIC_OUT_STATE_DESIRED, "a"), 0);
    cr_assert_eq(set_out(map, TOPIC_OUT_STATE_DESIRED, "config/wanted"), 0); /* replaces */
    cr_assert_eq(set_out(map, TOPIC_OUT_VIA_COMMAND, "nodes/{device}/{id}"), 0);
    return map;
}

Test(topic_map, filters) {
    static const struct {
        const char *filter;
        int out; /* -1: none */
        const char *device;
    } cases[] = {
        {"cmd/+/+", TOPIC_OUT_COMMAND, NULL},
        {"cmd/#", TOPIC_OUT_COMMAND, NULL},
        {"cmd/+/#", TOPIC_OUT_COMMAND, NULL},
        {"cmd/+/+/#", TOPIC_OUT_COMMAND, NULL}, /* the parent level too */
        {"cmd/+/+/+/#", -1, NULL},
        {"cmd/+", -1, NULL},
        {"cmd/+/reboot", -1, NULL},
        {"+/+/+", -1, NULL},
        {"#", -1, NULL},
        {"a", -1, NULL},
        {"config/wanted", TOPIC_OUT_STATE_DESIRED, NULL},
        {"config/+", TOPIC_OUT_STATE_DESIRED, NULL},
        {"config/#", TOPIC_OUT_STATE_DESIRED, NULL},
        {"config", -1, NULL},
        {"nodes/s1/+", TOPIC_OUT_VIA_COMMAND, "s1"},
        {"nodes/s1/#", TOPIC_OUT_VIA_COMMAND, "s1"},
        {"nodes/+/+", -1, NULL},
        {"nodes/#", -1, NULL},
        {"nodes//+", -1, NULL},
        {"", -1, NULL},
        {"cmd/+/+/4/5/6/7/8/9/10/11/12/13/14/15/16/17", -1, NULL},
    };
    struct topic_map *map = map_out();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        enum topic_map_out out;
        struct slice device;
        bool takes = topic_map_takes_filter(map, text(cases[i].filter), &out, &device);
        cr_expect_eq(takes ? (int)out : -1, cases[i].out, "%s", cases[i].filter);
        cr_expect(!takes || slice_equals(device, text(cases[i].device)), "%s", cases[i].filter);
    }
    topic_map_free(map);
}

Test(topic_map, topics_out) {
    struct topic_map *map = map_out();
    const struct slice names[TOPIC_NAME_COUNT] = {[TOPIC_NAME_DEVICE] = text("s1"),
                                                  [TOPIC_NAME_ID] = text("7"),
                                                  [TOPIC_NAME_NAME] = text("reboot")};
    static const char *const expected[] = {
        [TOPIC_OUT_COMMAND] = "cmd/7/reboot",
        [TOPIC_OUT_STATE_DESIRED] = "config/wanted",
        [TOPIC_OUT_VIA_COMMAND] = "nodes/s1/7",
    };
    for (unsigned out = 0; out < 3; out++) {
        char bytes[64];
        struct writer w = writer_make(bytes, sizeof(bytes));
        cr_assert(topic_map_write(map, (enum topic_map_out)out, names, &w));
        cr_expect(slice_equals_string(slice_make(bytes, writer_size(&w)), expected[out]));
    }
    struct writer none = writer_make(NULL, 0);
    cr_assert(!topic_map_write(map, TOPIC_OUT_VIA_STATE_DESIRED, names, &none));
    topic_map_free(map);
}
