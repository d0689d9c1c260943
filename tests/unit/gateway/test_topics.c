/* What topics and filters mean, natively and with a topic map. */
#include <criterion/criterion.h>

#include "gateway/dialect/topics.h"

struct topic_case {
    const char *topic;
    int err;
    enum native_topic_kind kind;
    const char *subject, *device, *id, *status;
};

static struct slice text(const char *string) {
    return string ? slice_from_string(string) : slice_make(NULL, 0);
}

static void check(const struct topic_map *map, const struct topic_case *c) {
    struct topic_meaning meaning = {.kind = NATIVE_VIA};
    int err = topic_classify(map, text(c->topic), &meaning);
    cr_expect_eq(err, c->err, "%s", c->topic);
    if (err < 0) {
        cr_expect(meaning.kind == NATIVE_VIA && meaning.subject.data == NULL, "%s", c->topic);
        return;
    }
    cr_expect_eq(meaning.kind, c->kind, "%s", c->topic);
    cr_expect(!c->subject || slice_equals_string(meaning.subject, c->subject), "%s", c->topic);
    cr_expect(slice_equals(meaning.device, text(c->device)), "%s", c->topic);
    cr_expect(!c->id || slice_equals_string(meaning.id, c->id), "%s", c->topic);
    cr_expect(!c->status || slice_equals_string(meaning.status, c->status), "%s", c->topic);
}

Test(topics, natively) {
    static const struct topic_case cases[] = {
        {"a/b", 0, NATIVE_TELEMETRY, "a/b", NULL, NULL, NULL},
        {"$dg/replies/12/200", 0, NATIVE_REPLY, NULL, NULL, "12", "200"},
        {"$dg/via/s1/a/b", 0, NATIVE_TELEMETRY, "a/b", "s1", NULL, NULL},
        {"$dg/via/s1/events/x", 0, NATIVE_TELEMETRY, "events/x", "s1", NULL, NULL},
        {"$dg/via/s1/$dg/events/x", 0, NATIVE_EVENT, "x", "s1", NULL, NULL},
        {"$dg/via/s1/$dg/state/reported", 0, NATIVE_STATE_REPORTED, NULL, "s1", NULL, NULL},
        {"$dg/via/s1/$dg/replies/12/200", 0, NATIVE_REPLY, NULL, "s1", "12", "200"},
        {"$dg/via/s1/$dg/via/s2/a", DG_ERR_NOT_AUTHORIZED, 0, NULL, NULL, NULL, NULL},
        {"$dg/via/s1/$SYS/x", DG_ERR_NOT_AUTHORIZED, 0, NULL, NULL, NULL, NULL},
        {"$dg/via/s1", DG_ERR_NOT_AUTHORIZED, 0, NULL, NULL, NULL, NULL},
        {"", DG_ERR_TOPIC_NAME, 0, NULL, NULL, NULL, NULL},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check(NULL, &cases[i]);
}

static struct topic_map *make_map(void) {
    static const char *const patterns[][2] = {
        {"up/{device}/#", "via"},
        {"alarm/{device}", "event"},
        {"done/{device}/{id}/{status}", "reply"},
        {"done/{id}/{status}", "reply"},
        {"shadow", "state_reported"},
        {"#", "telemetry"},
    };
    struct topic_map *map = topic_map_new();
    const char *why;
    for (unsigned i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
        cr_assert_eq(topic_map_add(map, text(patterns[i][0]), text(patterns[i][1]), &why), 0);
    cr_assert_eq(topic_map_set_out(map, TOPIC_OUT_COMMAND, text("cmd/{id}"), &why), 0);
    cr_assert_eq(topic_map_set_out(map, TOPIC_OUT_VIA_COMMAND, text("cmd/{device}/{id}"), &why), 0);
    return map;
}

Test(topics, with_a_map) {
    static const struct topic_case cases[] = {
        {"a/b", 0, NATIVE_TELEMETRY, "a/b", NULL, NULL, NULL},
        {"up/s1/a/b", 0, NATIVE_TELEMETRY, "a/b", "s1", NULL, NULL},
        {"up/s1/shadow", 0, NATIVE_STATE_REPORTED, NULL, "s1", NULL, NULL},
        {"up/s1/up/s2/a", 0, NATIVE_TELEMETRY, "up/s2/a", "s1", NULL, NULL},
        {"up/s1/$dg/via/s2/a", DG_ERR_NOT_AUTHORIZED, 0, NULL, NULL, NULL, NULL},
        {"up/s1/$dg/events/x", 0, NATIVE_EVENT, "x", "s1", NULL, NULL},
        {"up/s1", 0, NATIVE_TELEMETRY, "up/s1", NULL, NULL, NULL},
        {"alarm/s1", 0, NATIVE_EVENT, "alarm/s1", "s1", NULL, NULL},
        {"done/12/200", 0, NATIVE_REPLY, NULL, NULL, "12", "200"},
        {"done/s1/12/200", 0, NATIVE_REPLY, NULL, "s1", "12", "200"},
        {"$dg/events/x", 0, NATIVE_EVENT, "x", NULL, NULL, NULL},
        {"$SYS/x", DG_ERR_NOT_AUTHORIZED, 0, NULL, NULL, NULL, NULL},
    };
    struct topic_map *map = make_map();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        check(map, &cases[i]);
    topic_map_free(map);
}

Test(topics, filters) {
    static const struct {
        const char *filter;
        bool has_map;
        int err;
        const char *device;
    } cases[] = {
        {"$dg/commands/#", false, 0, NULL},
        {"$dg/via/s1/state/desired", false, 0, "s1"},
        {"cmd/+", false, DG_ERR_WILDCARD, NULL},
        {"$dg/commands/#", true, 0, NULL},
        {"$dg/via/s1/commands/#", true, 0, "s1"},
        {"cmd/+", true, 0, NULL},
        {"cmd/s1/+", true, 0, "s1"},
        {"cmd/+/+", true, DG_ERR_WILDCARD, NULL},
        {"cmd", true, DG_ERR_NOT_AUTHORIZED, NULL},
    };
    struct topic_map *map = make_map();
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct slice device = text(NULL);
        int err = topic_check_filter(cases[i].has_map ? map : NULL, text(cases[i].filter), &device);
        cr_expect_eq(err, cases[i].err, "%s", cases[i].filter);
        cr_expect(slice_equals(device, text(cases[i].device)), "%s", cases[i].filter);
    }
    topic_map_free(map);
}
