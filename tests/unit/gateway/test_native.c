/* Native topic names, filters and user names. */
#include <criterion/criterion.h>

#include "gateway/dialect/native.h"

#define REFUSED DG_ERR_NOT_AUTHORIZED

Test(native, topics) {
    const struct {
        const char *topic;
        int err;
        enum native_topic_kind kind;
        const char *subject;
    } rows[] = {
        {"a", 0, NATIVE_TELEMETRY, "a"},
        {"/", 0, NATIVE_TELEMETRY, "/"},
        {"a/$dg/events/x", 0, NATIVE_TELEMETRY, "a/$dg/events/x"},
        {"$dg/events/door/open", 0, NATIVE_EVENT, "door/open"},
        {"$dg/replies/12/200", 0, NATIVE_REPLY, NULL},
        {"$dg/state/reported", 0, NATIVE_STATE_REPORTED, NULL},
        {"$dg/via/dev2/a/b", 0, NATIVE_VIA, NULL},
        {"", DG_ERR_TOPIC_NAME, 0, NULL},
        {"$", REFUSED, 0, NULL},
        {"$dg", REFUSED, 0, NULL},
        {"$dg/", REFUSED, 0, NULL},
        {"$dg/events", REFUSED, 0, NULL},
        {"$dg/events/", REFUSED, 0, NULL},
        {"$dg/replies/12", REFUSED, 0, NULL},
        {"$dg/replies//200", REFUSED, 0, NULL},
        {"$dg/replies/12/", REFUSED, 0, NULL},
        {"$dg/replies/12/200/x", REFUSED, 0, NULL},
        {"$dg/state", REFUSED, 0, NULL},
        {"$dg/state/reported/x", REFUSED, 0, NULL},
        {"$dg/state/desired", REFUSED, 0, NULL},
        {"$dg/via/dev2", REFUSED, 0, NULL},
        {"$dg/via//a", REFUSED, 0, NULL},
        {"$dg/commands/1/x", REFUSED, 0, NULL},
        {"$SYS/broker", REFUSED, 0, NULL},
        {"$DG/events/x", REFUSED, 0, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        enum native_topic_kind kind = NATIVE_VIA;
        struct slice subject = slice_make(NULL, 0);
        int err = native_classify_topic(slice_from_string(rows[i].topic), &kind, &subject);
        cr_expect_eq(err, rows[i].err, "%s", rows[i].topic);
        if (err < 0)
            cr_expect(kind == NATIVE_VIA && subject.data == NULL, "%s: output", rows[i].topic);
        else
            cr_expect_eq(kind, rows[i].kind, "%s", rows[i].topic);
        if (rows[i].subject)
            cr_expect(slice_equals_string(subject, rows[i].subject), "%s", rows[i].topic);
    }
}

Test(native, filters) {
    const struct {
        const char *filter;
        int err;
    } rows[] = {
        {"$dg/commands/#", 0},
        {"$dg/state/desired", 0},
        {"$dg/via/dev2/commands/#", 0},
        {"$dg/via/dev2/state/desired", 0},
        {"$dg/via/+/commands/#", REFUSED},
        {"$dg/via//commands/#", REFUSED},
        {"$dg/via/dev2", REFUSED},
        {"$dg/commands", REFUSED},
        {"$dg/commands/x", REFUSED},
        {"$dg/commands/+", DG_ERR_WILDCARD},
        {"$dg/#", DG_ERR_WILDCARD},
        {"$dg/via/dev2/#", DG_ERR_WILDCARD},
        {"#", DG_ERR_WILDCARD},
        {"a/+", DG_ERR_WILDCARD},
        {"a", REFUSED},
        {"", REFUSED},
        {"$share/g/$dg/commands/#", DG_ERR_SHARED_SUBSCRIPTION},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        cr_expect_eq(native_check_filter(slice_from_string(rows[i].filter)), rows[i].err, "%s",
                     rows[i].filter);
}

Test(native, status_of_a_reply) {
    static const struct {
        const char *text;
        unsigned status; /* 0: refused */
    } rows[] = {
        {"200", 200}, {"999", 999}, {"099", 0}, {"20", 0},
        {"2000", 0},  {"2/0", 0},   {"20x", 0}, {"", 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        unsigned status = 0;
        int err = native_read_status(slice_from_string(rows[i].text), &status);
        cr_expect_eq(err, rows[i].status ? 0 : DG_ERR_TOPIC_NAME, "%s", rows[i].text);
        cr_expect_eq(status, rows[i].status);
    }
}

Test(native, parts_of_a_command) {
    struct slice id, name;
    cr_assert(native_split_command(slice_from_string("$dg/commands/a1/lamp/on"), &id, &name));
    cr_expect(slice_equals_string(id, "a1") && slice_equals_string(name, "lamp/on"));
    cr_expect(native_split_command(slice_from_string("$dg/commands/a1/"), &id, &name));
    cr_expect_eq(name.size, 0);
    cr_expect_not(native_split_command(slice_from_string("$dg/commands/a1"), &id, &name));
    cr_expect_not(native_split_command(slice_from_string("$dg/commands//x"), &id, &name));
    cr_expect_not(native_split_command(slice_from_string("$dg/state/desired"), &id, &name));
}

Test(native, what_a_filter_takes) {
    const struct {
        const char *filter, *topic;
        bool takes;
    } rows[] = {
        {"$dg/commands/#", "$dg/commands/1/x", true},
        {"$dg/commands/#", "$dg/command", false},
        {"$dg/commands/#", "$dg/via/d/commands/1/x", false},
        {"$dg/via/d/commands/#", "$dg/via/d/commands/1/x", true},
        {"$dg/via/d/commands/#", "$dg/via/e/commands/1/x", false},
        {"$dg/state/desired", "$dg/state/desired", true},
        {"$dg/state/desired", "$dg/state/desired/x", false},
        {"$dg/state/desired", "$dg/commands/1/x", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        cr_expect_eq(native_filter_takes(slice_from_string(rows[i].filter),
                                         slice_from_string(rows[i].topic)),
                     rows[i].takes, "%s %s", rows[i].filter, rows[i].topic);
}

Test(native, user_names) {
    const struct {
        const char *user_name;
        const char *device, *tenant; /* NULL: refused */
    } rows[] = {
        {"dev1@acme", "dev1", "acme"},
        {"dev1", "dev1", "default"},
        {"a@b@acme", "a@b", "acme"},
        {"@acme", NULL, NULL},
        {"dev1@", NULL, NULL},
        {"@", NULL, NULL},
        {"", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct slice device, tenant;
        int err = native_split_user_name(slice_from_string(rows[i].user_name), &device, &tenant);
        cr_expect_eq(err, rows[i].device ? 0 : DG_ERR_BAD_CREDENTIALS, "%s", rows[i].user_name);
        if (err == 0)
            cr_expect(slice_equals_string(device, rows[i].device) &&
                          slice_equals_string(tenant, rows[i].tenant),
                      "%s", rows[i].user_name);
    }
}
