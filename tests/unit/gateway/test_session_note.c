/* What a session tells the flight recorder, and counts. */
#include "session_recorder.h"

TestSuite(session_note, .fini = check_leaks);

enum { DEVICE_KEY = 42 };

static struct flight *flight;
static struct flight_entry found[16];

static struct recorder *observed(struct recorder *r) {
    cr_assert_eq(flight_create(&flight), 0);
    r->shared.flight = flight;
    return r;
}

static void finish(struct recorder *r) {
    recorder_free(r);
    flight_free(flight);
}

static int64_t claimed(void) {
    return flight_claimed_key(slice_from_string("acme"), slice_from_string("dev1"));
}

/* The newest entry of the key is of this kind. */
static void expect_newest(int64_t key, enum flight_kind kind, int err, const char *detail) {
    cr_assert_gt(flight_find(flight, key, found, 16), 0);
    cr_expect_eq(found[0].kind, kind, "%s", flight_kinds[found[0].kind].name);
    cr_expect_eq(found[0].err, err);
    cr_expect(slice_equals_string(flight_detail(&found[0]), detail), "%.*s", found[0].detail_size,
              (const char *)flight_detail(&found[0]).data);
}

static void expect_counts(const struct recorder *r, unsigned published, unsigned refused,
                          unsigned dropped) {
    cr_expect_eq(r->session.published, published);
    cr_expect_eq(r->session.refused, refused);
    cr_expect_eq(r->session.dropped, dropped);
}

Test(session_note, connected_and_how_it_ended) {
    static const struct {
        int err;
        enum flight_kind kind;
    } cases[] = {
        {DG_ERR_CLOSED, FLIGHT_LOST},           {DG_ERR_TLS, FLIGHT_LOST},
        {DG_ERR_KEEP_ALIVE, FLIGHT_KEEP_ALIVE}, {DG_ERR_SHUTTING_DOWN, FLIGHT_ENDED},
        {DG_ERR_DISABLED, FLIGHT_ENDED},
    };
    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct recorder *r = observed(recorder_create());
        feed_connect(r, MQTT_VERSION_5);
        log_in(r);
        session_claim_done(&r->session, 0, NULL, true);
        expect_newest(DEVICE_KEY, FLIGHT_CONNECTED, 0, "client-1");
        cr_expect(slice_equals_string(flight_peer(&found[0]), "192.0.2.7:5123"));
        session_stop(&r->session, cases[i].err, NULL);
        session_stop(&r->session, DG_ERR_INTERNAL, "it is over already");
        expect_newest(DEVICE_KEY, cases[i].kind, cases[i].err, "");
        cr_expect_eq(found[0].reason_code, dg_err_row(cases[i].err)->mqtt5_reason);
        cr_expect_eq(flight_find(flight, claimed(), found, 16), 0);
        finish(r);
    }
}

Test(session_note, disconnected_by_the_device_or_by_a_newer_connection) {
    static const uint8_t goodbye[] = {0xE0, 1, 0x04};
    struct recorder *r = observed(connected(MQTT_VERSION_5));
    feed(r, goodbye, sizeof(goodbye));
    expect_newest(DEVICE_KEY, FLIGHT_DISCONNECTED, 0, "");
    cr_expect_eq(found[0].reason_code, 4);
    finish(r);
    r = observed(connected(MQTT_VERSION_5));
    session_evict(&r->session, "192.0.2.9:1");
    expect_newest(DEVICE_KEY, FLIGHT_TAKEN_OVER, DG_ERR_TAKEN_OVER, "192.0.2.9:1");
    cr_expect_eq(flight_find(flight, DEVICE_KEY, found, 16), 1);
    finish(r);
}

Test(session_note, refused_login_is_of_the_claimed_name) {
    struct recorder *r = observed(recorder_create());
    feed_connect(r, MQTT_VERSION_5);
    r->shared.claimed_key = claimed(); /* as the endpoint does */
    session_login_done(&r->session, DG_ERR_BAD_CREDENTIALS, NULL);
    r->shared.claimed_key = 0;
    expect_newest(claimed(), FLIGHT_LOGIN_REFUSED, DG_ERR_BAD_CREDENTIALS, "");
    cr_expect_eq(flight_find(flight, DEVICE_KEY, found, 16), 0);
    finish(r);
}

Test(session_note, refused_connect_is_of_the_claimed_name) {
    struct recorder *r = observed(recorder_create());
    r->session.flags &= ~(uint32_t)SESSION_PASSWORDS_ALLOWED;
    feed_connect(r, MQTT_VERSION_3_1_1);
    expect_newest(claimed(), FLIGHT_CONNECT_REFUSED, DG_ERR_NOT_AUTHORIZED,
                  "passwords are refused over plain text: use TLS");
    cr_expect_eq(r->shared.claimed_key, 0);
    finish(r);
}

Test(session_note, who_leaves_before_a_login_is_no_entry) {
    int64_t lost = metric_read(METRIC_DISCONNECTS_LOST);
    int64_t other = metric_read(METRIC_CONNECTS_REFUSED_OTHER);
    struct recorder *r = observed(recorder_create());
    session_unlinked(&r->session, DG_ERR_CLOSED);
    cr_expect_eq(metric_read(METRIC_DISCONNECTS_LOST), lost);
    cr_expect_eq(metric_read(METRIC_CONNECTS_REFUSED_OTHER), other);
    finish(r);
}

Test(session_note, protocol_error_with_its_clause) {
    static const uint8_t nonsense[] = {0xF3, 0};
    EACH_VERSION(version) {
        struct recorder *r = observed(connected(version));
        feed(r, nonsense, sizeof(nonsense));
        cr_assert_gt(flight_find(flight, DEVICE_KEY, found, 16), 0);
        cr_expect_eq(found[0].kind, FLIGHT_PROTOCOL_ERROR);
        cr_expect(slice_starts_with(flight_detail(&found[0]), "MQTT"), "%.95s", found[0].text);
        finish(r);
    }
}

static void fail_newest(struct recorder *r) {
    session_append_done(&r->session, r->events[r->event_count - 1].tag, DG_ERR_STORAGE_FULL);
}

Test(session_note, refused_publishes) {
    struct recorder *r = observed(connected(MQTT_VERSION_5));
    feed_publish(r, 1, false, 1, "t", "taken in");
    complete_all(r, r->event_count - 1);
    cr_expect_eq(flight_find(flight, DEVICE_KEY, found, 16), 0, "what works is no entry");
    feed_publish(r, 1, false, 2, "$not/allowed", "x");
    expect_newest(DEVICE_KEY, FLIGHT_PUBLISH_REFUSED, DG_ERR_NOT_AUTHORIZED, "$not/allowed");
    expect_counts(r, 1, 1, 0);
    feed_publish(r, 1, false, 3, "t", "no room");
    fail_newest(r);
    expect_newest(DEVICE_KEY, FLIGHT_PUBLISH_REFUSED, DG_ERR_STORAGE_FULL, "");
    feed_publish(r, 0, false, 0, "t", "no room");
    fail_newest(r);
    expect_newest(DEVICE_KEY, FLIGHT_DROPPED, DG_ERR_STORAGE_FULL, "");
    expect_counts(r, 3, 2, 1);
    r->session.refused = UINT16_MAX;
    feed_publish(r, 0, false, 0, "$not/allowed", "x");
    expect_newest(DEVICE_KEY, FLIGHT_ENDED, DG_ERR_NOT_AUTHORIZED, "");
    cr_expect_eq(found[1].kind, FLIGHT_PUBLISH_REFUSED);
    expect_counts(r, 3, UINT16_MAX, 1);
    finish(r);
}

Test(session_note, withheld) {
    struct recorder *r = observed(connected(MQTT_VERSION_3_1_1));
    int64_t dropped = metric_read(METRIC_MQTT_QOS0_DROPPED);
    feed_publish(r, 1, false, 1, "t", "no room");
    fail_newest(r);
    expect_newest(DEVICE_KEY, FLIGHT_WITHHELD, DG_ERR_STORAGE_FULL, "");
    feed_publish(r, 0, false, 0, "t", "no room either");
    expect_newest(DEVICE_KEY, FLIGHT_DROPPED, DG_ERR_STORAGE_FULL, "");
    expect_counts(r, 1, 1, 1);
    cr_expect_eq(metric_read(METRIC_MQTT_QOS0_DROPPED), dropped + 1, "once");
    finish(r);
}

/* Also when the packet is offered again, since what it changed had to reach the disk first. */
Test(session_note, subscriptions_are_told_once) {
    const struct mqtt_subscription commands = {.filter = slice_from_string("$dg/commands/#")};
    const struct mqtt_subscription others = {.filter = slice_from_string("others/#")};
    uint8_t bytes[256];
    struct writer w = writer_make(bytes, sizeof(bytes));
    struct recorder *r = observed(recorder_create());
    mqtt_write_connect(&w, MQTT_VERSION_3_1_1, false, 60, slice_from_string("client-1"),
                       slice_from_string("dev1@acme"), slice_from_string("secret"));
    feed(r, bytes, writer_size(&w));
    log_in(r);
    session_claim_done(&r->session, 0, NULL, true);
    session_append_done(&r->session, r->mutations[0].tag, 0);
    cr_assert_eq(r->session.state, SESSION_CONNECTED);
    w = writer_make(bytes, sizeof(bytes));
    mqtt_write_subscribe(&w, MQTT_VERSION_3_1_1, 1, &commands, 1);
    cr_assert_eq(session_receive(&r->session, bytes, writer_size(&w)), 0, "it waits for the disk");
    cr_expect_eq(flight_find(flight, DEVICE_KEY, found, 16), 1);
    session_append_done(&r->session, r->mutations[1].tag, 0);
    feed(r, bytes, writer_size(&w));
    expect_newest(DEVICE_KEY, FLIGHT_SUBSCRIBED, 0, "$dg/commands/#");
    cr_expect_eq(found[0].count, 1);
    w = writer_make(bytes, sizeof(bytes));
    mqtt_write_subscribe(&w, MQTT_VERSION_3_1_1, 1, &others, 1);
    feed(r, bytes, writer_size(&w));
    cr_assert_gt(flight_find(flight, DEVICE_KEY, found, 16), 0);
    cr_expect_eq(found[0].kind, FLIGHT_SUBSCRIBE_REFUSED);
    cr_expect(slice_equals_string(flight_detail(&found[0]), "others/#"));
    finish(r);
}
