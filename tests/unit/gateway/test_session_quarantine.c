/* Payloads that are not as the tenant's rules ask: where they go and what the device hears. */
#include "session_recorder.h"

#include "gateway/session/tenants.h"

TestSuite(session_quarantine, .fini = check_leaks);

static const char rules[] =
    "{\"quarantine\": [{\"pattern\": \"plant/#\", \"require\": \"json\", \"max_bytes\": 20},"
    " {\"pattern\": \"text/+\", \"require\": \"utf8\"}]}";

static void set_rules(struct recorder *r, const char *text) {
    struct registry_policy *policy;
    char detail[256] = "";
    int err = registry_policy_parse(slice_make(NULL, 0), slice_from_string(text), 9,
                                    REGISTRY_POLICY_STRICT, &policy, detail, sizeof(detail));
    cr_assert_eq(err, 0, "%s", detail);
    tenant_update(&r->shared, 7, policy);
    registry_policy_release(policy);
}

static struct recorder *connected_under_rules(enum mqtt_version version) {
    struct recorder *r = connected(version);
    set_rules(r, rules);
    return r;
}

static const struct recorded_event *last_event(const struct recorder *r) {
    return &r->events[r->event_count - 1];
}

Test(session_quarantine, which_rule_holds) {
    static const struct {
        const char *topic, *payload;
        bool quarantined;
    } cases[] = {
        {"plant/1/t", "{\"c\":21.5}", false},
        {"plant", "{}", false},
        {"plant/1/t", "{\"c\":21.5", true},
        {"plant", "", true},
        {"plant/1/t", "{\"much\":\"too much of it\"}", true},
        {"plants/1", "anything \xFF", false},
        {"text/a", "gr\xC3\xBC\xC3\x9F", false},
        {"text/a", "gr\xFC\xDF", true},
        {"text/a/b", "gr\xFC\xDF", false},
        {"$dg/events/plant/1", "not JSON", false}, /* the pattern is held against the topic */
    };
    EACH_VERSION(version) {
        struct recorder *r = connected_under_rules(version);
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            feed_publish(r, 0, false, 0, cases[i].topic, cases[i].payload);
            cr_assert_eq(last_event(r)->quarantined, cases[i].quarantined, "%s %s", cases[i].topic,
                         cases[i].payload);
        }
        cr_assert_eq(r->close_count, 0);
        recorder_free(r);
    }
}

/* In the flight recorder it is no refusal. */
Test(session_quarantine, it_is_recorded) {
    EACH_VERSION(version) {
        struct flight_entry found[4];
        struct recorder *r = connected_under_rules(version);
        cr_assert_eq(flight_create(&r->shared.flight), 0);
        struct flight *flight = r->shared.flight;
        feed_publish(r, 1, false, 1, "plant/a", "{}");
        feed_publish(r, 1, false, 2, "plant/a", "{");
        complete_all(r, 1);
        cr_assert_eq(flight_find(flight, 42, found, 4), 1);
        cr_expect_eq(found[0].kind, FLIGHT_QUARANTINED);
        cr_expect_eq(found[0].reason_code, 0x99);
        cr_expect(memmem(found[0].text, sizeof(found[0].text), "JSON", 4));
        cr_expect_eq(r->session.published, 2);
        cr_expect_eq(r->session.refused, 0);
        recorder_free(r);
        flight_free(flight);
    }
}

/* The rule sees the topic without the sequence; what is quarantined is stored. */
Test(session_quarantine, a_producer_sequence_is_stored_there_too) {
    EACH_VERSION(version) {
        for (uint8_t qos = 1; qos <= 2; qos++) {
            struct recorder *r = connected_under_rules(version);
            feed_publish(r, qos, false, 1, "text/a/$seq/p:1:1", "\xFF");
            cr_assert(last_event(r)->quarantined);
            session_append_done(&r->session, last_event(r)->tag, 0);
            cr_assert(version == MQTT_VERSION_5 ? r->sent[4] == 0x99 : r->sent_size == 4);
            forget_sent(r);
            unsigned events = r->event_count;
            feed_publish(r, qos, false, 2, "text/a/$seq/p:1:1", "\xFF");
            cr_assert_eq(r->event_count, events);
            cr_assert_sent(r, qos == 1 ? 0x40 : 0x50, 2, 0, 2);
            recorder_free(r);
        }
    }
}

/* MQTT 5 hears of it when it is durable, in its turn; 3.1.1 has no word for it. */
Test(session_quarantine, answer_of_qos1) {
    EACH_VERSION(version) {
        struct recorder *r = connected_under_rules(version);
        feed_publish(r, 1, false, 1, "plant/a", "{}");
        feed_publish(r, 1, false, 2, "plant/a", "{");
        session_append_done(&r->session, r->events[2].tag, 0);
        cr_assert_eq(r->sent_size, 0);
        session_append_done(&r->session, r->events[1].tag, 0);
        if (version == MQTT_VERSION_3_1_1) {
            cr_assert_sent(r, 0x40, 2, 0, 1, 0x40, 2, 0, 2);
        } else {
            cr_assert_eq(r->sent[4], 0x40);
            cr_assert_eq(r->sent[7], 2);
            cr_assert_eq(r->sent[8], 0x99);
            cr_assert(memmem(r->sent, r->sent_size, "is not JSON", 11));
        }
        cr_assert_eq(r->close_count, 0);
        cr_assert(!(r->session.flags & SESSION_WITHHOLDING));
        recorder_free(r);
    }
}

/* Without room it is refused like any other event. */
Test(session_quarantine, not_stored) {
    struct recorder *r = connected_under_rules(MQTT_VERSION_5);
    feed_publish(r, 1, false, 2, "plant/a", "{");
    session_append_done(&r->session, r->events[1].tag, DG_ERR_STORAGE_FULL);
    cr_assert_eq(r->sent[4], 0x97);
    recorder_free(r);
}

/* PUBREC 0x99 ends the exchange: the identifier is free and nothing stays on the disk. */
Test(session_quarantine, qos2) {
    struct recorder *r = connected_under_rules(MQTT_VERSION_5);
    feed_publish(r, 2, false, 5, "plant/a", "{");
    cr_assert_eq(identities_count(r->session.kept->identities), 1);
    session_append_done(&r->session, r->events[1].tag, 0);
    cr_assert_eq(r->sent[0], 0x50);
    cr_assert_eq(r->sent[4], 0x99);
    cr_assert_eq(identities_count(r->session.kept->identities), 0);
    forget_sent(r);
    feed_publish(r, 2, false, 5, "plant/a", "{}");
    cr_assert_eq(r->event_count, 3);
    recorder_free(r);
    r = connected_under_rules(MQTT_VERSION_3_1_1);
    feed_publish(r, 2, false, 5, "plant/a", "{");
    session_append_done(&r->session, r->events[1].tag, 0);
    cr_assert_eq(identities_count(r->session.kept->identities), 1);
    cr_assert_sent(r, 0x50, 2, 0, 5);
    recorder_free(r);
}

Test(session_quarantine, rules_change) {
    struct recorder *r = connected_under_rules(MQTT_VERSION_5);
    feed_publish(r, 0, false, 0, "plant/a", "{");
    cr_assert(last_event(r)->quarantined);
    struct registry_policy *none, *older;
    char detail[64];
    cr_assert_eq(registry_policy_parse((struct slice){0}, (struct slice){0}, 10,
                                       REGISTRY_POLICY_STRICT, &none, detail, sizeof(detail)),
                 0);
    cr_assert_eq(registry_policy_parse((struct slice){0}, slice_from_string(rules), 8,
                                       REGISTRY_POLICY_STRICT, &older, detail, sizeof(detail)),
                 0);
    tenant_update(&r->shared, 7, none);
    tenant_update(&r->shared, 7, older);
    tenant_update(&r->shared, 8, older);
    registry_policy_release(none);
    registry_policy_release(older);
    feed_publish(r, 0, false, 0, "plant/a", "{");
    cr_assert(!last_event(r)->quarantined);
    recorder_free(r);
}
