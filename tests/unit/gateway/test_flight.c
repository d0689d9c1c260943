/* The flight recorder: order, keys, what is overwritten, what is counted instead of told again. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "common/limits.h"
#include "gateway/session/flight.h"
#include "leaks.h"

TestSuite(flight, .fini = check_leaks);

enum { ROOM = 64 };

static struct flight *flight;
static struct flight_entry found[ROOM];

static void begin(void) {
    cr_assert_eq(flight_create(&flight), 0);
}

static void record_from(int64_t key, enum flight_kind kind, int err, int64_t at_ms,
                        const char *peer, const char *detail) {
    flight_record(flight, &(struct flight_note){.at_ms = at_ms,
                                                .key = key,
                                                .kind = kind,
                                                .err = err,
                                                .peer = slice_from_string(peer),
                                                .detail = slice_from_string(detail)});
}

/* Of kinds by turns: none repeats the one before. */
static void record(int64_t key, int64_t at_ms) {
    record_from(key, at_ms % 2 ? FLIGHT_CONNECTED : FLIGHT_LOST, 0, at_ms, "192.0.2.1:1", "");
}

static unsigned find(int64_t key) {
    return flight_find(flight, key, found, ROOM);
}

Test(flight, newest_first_and_only_of_the_key) {
    begin();
    for (int64_t at = 1; at <= 30; at++)
        record(at % 3 + 1, at);
    for (int64_t key = 1; key <= 3; key++) {
        cr_assert_eq(find(key), 10);
        for (unsigned i = 0; i < 10; i++) {
            cr_expect_eq(found[i].key, key);
            cr_expect_eq(found[i].at_ms % 3 + 1, key);
            cr_expect(i == 0 || found[i].at_ms < found[i - 1].at_ms);
        }
    }
    cr_expect_eq(find(4), 0);
    cr_expect_eq(find(0), 0);
    cr_assert_eq(flight_find(flight, 1, found, 2), 2);
    cr_expect_eq(found[0].at_ms, 30);
    flight_free(flight);
}

Test(flight, oldest_is_overwritten) {
    begin();
    record(1, 1);
    record(1, 2);
    for (int64_t at = 3; at < LIMIT_FLIGHT_ENTRIES + 2; at++)
        record(at + 100, at);
    cr_assert_eq(find(1), 1, "the first is overwritten, the second just not");
    cr_expect_eq(found[0].at_ms, 2);
    record(2, LIMIT_FLIGHT_ENTRIES + 2);
    cr_expect_eq(find(1), 0);
    for (int64_t at = 0; at < 3 * LIMIT_FLIGHT_ENTRIES; at++)
        record(at % 7 + 1, at);
    for (int64_t key = 1; key <= 7; key++)
        cr_expect_eq(find(key), ROOM);
    cr_expect_eq(find(150), 0);
    flight_free(flight);
}

/* What was written over an entry of the key is of the same key: a stale link would lead there. */
Test(flight, a_link_to_what_was_overwritten_ends) {
    enum { PERIOD = LIMIT_FLIGHT_ENTRIES / 32 };
    begin();
    for (int64_t at = 1; at <= 3 * LIMIT_FLIGHT_ENTRIES; at++)
        record_from(at % PERIOD == 0 ? 1 : at + 100,
                    at / PERIOD % 2 ? FLIGHT_LOST : FLIGHT_CONNECTED, 0, at, "", "");
    cr_assert_eq(find(1), 32);
    for (unsigned i = 1; i < 32; i++)
        cr_expect_lt(found[i].at_ms, found[i - 1].at_ms);
    flight_free(flight);
}

Test(flight, strangers_push_out_no_device) {
    begin();
    record(1, 1);
    for (int64_t at = 0; at < 2 * LIMIT_FLIGHT_ENTRIES; at++)
        record(-1 - at, at);
    cr_expect_eq(find(1), 1);
    cr_expect_eq(find(-1), 0, "but each other");
    cr_expect_eq(find(-2 * LIMIT_FLIGHT_ENTRIES), 1);
    flight_free(flight);
}

Test(flight, the_same_again_is_counted) {
    static const struct {
        int64_t key;
        enum flight_kind kind;
        int err;
        const char *peer;
        bool is_repeat;
    } cases[] = {
        {1, FLIGHT_PUBLISH_REFUSED, DG_ERR_NOT_AUTHORIZED, "192.0.2.1:8", true},
        {2, FLIGHT_PUBLISH_REFUSED, DG_ERR_NOT_AUTHORIZED, "192.0.2.1:7", false},
        {1, FLIGHT_WILL_REFUSED, DG_ERR_NOT_AUTHORIZED, "192.0.2.1:7", false},
        {1, FLIGHT_PUBLISH_REFUSED, DG_ERR_TOPIC_NAME, "192.0.2.1:7", false},
        {1, FLIGHT_PUBLISH_REFUSED, DG_ERR_NOT_AUTHORIZED, "192.0.2.2:7", false},
        {1, FLIGHT_PUBLISH_REFUSED, DG_ERR_NOT_AUTHORIZED, "", false},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        begin();
        record_from(1, FLIGHT_PUBLISH_REFUSED, DG_ERR_NOT_AUTHORIZED, 5, "192.0.2.1:7", "old");
        record_from(3, FLIGHT_CONNECTED, 0, 6, "192.0.2.1:7", "another device, in between");
        record_from(cases[i].key, cases[i].kind, cases[i].err, 9, cases[i].peer, "new");
        cr_assert_eq(find(cases[i].key), cases[i].is_repeat || cases[i].key == 2 ? 1 : 2, "%u", i);
        cr_expect_eq(found[0].count, cases[i].is_repeat ? 2 : 1, "%u", i);
        cr_expect_eq(found[0].at_ms, 9);
        cr_expect(slice_equals_string(flight_detail(&found[0]), "new"));
        cr_expect(slice_equals_string(flight_peer(&found[0]), cases[i].peer));
        flight_free(flight);
    }
}

/* Where the detail is what it is about. */
Test(flight, another_detail_is_another_entry) {
    begin();
    record_from(1, FLIGHT_SUBSCRIBED, 0, 1, "192.0.2.1:7", "$dg/commands/#");
    record_from(1, FLIGHT_SUBSCRIBED, 0, 2, "192.0.2.1:7", "$dg/state/desired");
    record_from(1, FLIGHT_SUBSCRIBED, 0, 3, "192.0.2.1:7", "$dg/state/desired");
    cr_assert_eq(find(1), 2);
    cr_expect_eq(found[0].count, 2);
    cr_expect(slice_equals_string(flight_detail(&found[1]), "$dg/commands/#"));
    flight_free(flight);
}

Test(flight, text_is_cut) {
    char detail[2000];
    memset(detail, 'd', sizeof(detail) - 1);
    detail[sizeof(detail) - 1] = '\0';
    begin();
    record_from(1, FLIGHT_LOST, DG_ERR_CLOSED, 1, "[2001:db8::1]:7", detail);
    record_from(2, FLIGHT_LOST, DG_ERR_CLOSED, 1, detail, detail);
    cr_assert_eq(find(1), 1);
    cr_expect(slice_equals_string(flight_peer(found), "[2001:db8::1]:7"));
    cr_expect_eq(flight_detail(found).size, FLIGHT_TEXT_BYTES - strlen("[2001:db8::1]:7"));
    cr_assert_eq(find(2), 1);
    cr_expect_eq(flight_peer(found).size, FLIGHT_TEXT_BYTES);
    cr_expect_eq(flight_detail(found).size, 0);
    flight_free(flight);
}

/* Each pair of names that are not the same device has keys of its own, all of them below 0. */
Test(flight, keys_of_claimed_names) {
    static const char *const names[][2] = {
        {"acme", "dev1"}, {"acme", "dev2"}, {"acm", "edev1"}, {"", "acme@dev1"}, {"b", "dev1"}};
    for (unsigned i = 0; i < 5; i++)
        for (unsigned j = 0; j < 5; j++) {
            int64_t a =
                flight_claimed_key(slice_from_string(names[i][0]), slice_from_string(names[i][1]));
            int64_t b =
                flight_claimed_key(slice_from_string(names[j][0]), slice_from_string(names[j][1]));
            cr_expect_lt(a, 0);
            cr_expect_eq(a == b, i == j, "%u %u", i, j);
        }
    char longer[LIMIT_DEVICE_ID_BYTES + 1] = {0};
    struct slice acme = slice_from_string("acme");
    cr_expect_eq(flight_claimed_key(acme, slice_make(longer, sizeof(longer))), 0);
    cr_expect_lt(flight_claimed_key(acme, slice_make(longer, sizeof(longer) - 1)), 0);
    cr_expect_eq(flight_claimed_key(acme, slice_make(NULL, 0)), 0);
}

/* Without a key, and without a recorder, it is counted all the same. */
Test(flight, metrics) {
    int64_t refused = metric_read(METRIC_CONNECTS_REFUSED_CREDENTIALS);
    int64_t throttled = metric_read(METRIC_CONNECTS_REFUSED_THROTTLED);
    int64_t other = metric_read(METRIC_CONNECTS_REFUSED_OTHER);
    int64_t lost = metric_read(METRIC_DISCONNECTS_LOST);
    flight = NULL;
    record_from(0, FLIGHT_LOGIN_REFUSED, DG_ERR_BAD_CREDENTIALS, 1, "", "");
    record_from(1, FLIGHT_LOGIN_REFUSED, DG_ERR_ATTEMPTS, 1, "", "");
    record_from(0, FLIGHT_CONNECT_REFUSED, DG_ERR_TOPIC_NAME, 1, "", "");
    record_from(0, FLIGHT_LOST, DG_ERR_CLOSED, 1, "", "");
    record_from(0, FLIGHT_CONNECTED, 0, 1, "", "");
    cr_expect_eq(metric_read(METRIC_CONNECTS_REFUSED_CREDENTIALS), refused + 1);
    cr_expect_eq(metric_read(METRIC_CONNECTS_REFUSED_THROTTLED), throttled + 1);
    cr_expect_eq(metric_read(METRIC_CONNECTS_REFUSED_OTHER), other + 1);
    cr_expect_eq(metric_read(METRIC_DISCONNECTS_LOST), lost + 1);
}

Test(flight, every_kind_has_words) {
    for (unsigned kind = 0; kind < FLIGHT_KIND_COUNT; kind++) {
        cr_expect(flight_kinds[kind].name[0] && flight_kinds[kind].words[0]);
        for (unsigned other = 0; other < kind; other++)
            cr_expect_str_neq(flight_kinds[kind].name, flight_kinds[other].name);
        for (int err = 0; err >= DG_ERR_IN_USE; err--)
            (void)flight_advice(kind, err); /* ends */
    }
    cr_expect_null(flight_advice(FLIGHT_CONNECTED, 0));
    cr_expect(strstr(flight_advice(FLIGHT_KEEP_ALIVE, DG_ERR_KEEP_ALIVE), "keep-alive"));
    cr_expect_str_neq(flight_advice(FLIGHT_PUBLISH_REFUSED, DG_ERR_NOT_AUTHORIZED),
                      flight_advice(FLIGHT_LOGIN_REFUSED, DG_ERR_NOT_AUTHORIZED));
}

Test(flight, in_words) {
    static const struct {
        enum flight_kind kind;
        int err;
        const char *wanted;
    } cases[] = {
        {FLIGHT_CONNECTED, 0, "connected"},
        {FLIGHT_TAKEN_OVER, DG_ERR_TAKEN_OVER, "taken over by a newer connection"},
        {FLIGHT_PUBLISH_REFUSED, DG_ERR_NOT_AUTHORIZED, "publish refused: not authorized"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[64];
        flight_print(&(struct flight_entry){.kind = cases[i].kind, .err = (int8_t)cases[i].err},
                     text, sizeof(text));
        cr_expect_str_eq(text, cases[i].wanted);
    }
}

Test(flight, merging) {
    static const struct {
        const char *into, *from; /* times, a digit each, newest first */
        unsigned room;
        const char *wanted;
    } cases[] = {
        {"", "", 4, ""},           {"", "321", 4, "321"},    {"321", "", 4, "321"},
        {"531", "42", 5, "54321"}, {"531", "42", 4, "5432"}, {"531", "42", 3, "543"},
        {"9", "888", 2, "98"},     {"88", "88", 8, "8888"},  {"4", "9", 1, "9"},
        {"98", "21", 2, "98"},     {"21", "98", 3, "982"},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct flight_entry into[8] = {0}, from[8] = {0};
        unsigned count = (unsigned)strlen(cases[i].into);
        for (unsigned k = 0; k < count; k++)
            into[k].at_ms = cases[i].into[k];
        for (unsigned k = 0; cases[i].from[k]; k++)
            from[k].at_ms = cases[i].from[k];
        count = flight_merge(into, count, cases[i].room, from, (unsigned)strlen(cases[i].from));
        cr_assert_eq(count, strlen(cases[i].wanted), "%u", i);
        for (unsigned k = 0; k < count; k++)
            cr_expect_eq(into[k].at_ms, cases[i].wanted[k], "%u", i);
    }
}
