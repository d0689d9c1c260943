/* Quotas of devices, groups and tenants: waiting, refusing, who comes first. */
#include "gateway/session/share.h"
#include "session_recorder.h"

TestSuite(admission, .fini = check_leaks);

#define SECOND 1000000000ull

static struct registry_policy *policy_of(const char *quota, const char *policy, int64_t version) {
    struct registry_policy *made;
    char detail[256] = "";
    cr_assert_eq(registry_policy_parse(slice_from_string(quota), slice_from_string(policy), version,
                                       REGISTRY_POLICY_STRICT, &made, detail, sizeof(detail)),
                 0, "%s", detail);
    return made;
}

static struct recorder *with_policy(enum mqtt_version version, const char *quota,
                                    const char *policy, const char *group) {
    struct recorder *r = recorder_create();
    struct registry_identity identity = identity_of("dev1");
    strcpy(identity.group, group);
    identity.policy = policy_of(quota, policy, 1);
    feed_connect(r, version);
    session_login_done(&r->session, 0, &identity);
    registry_policy_release(identity.policy);
    session_claim_done(&r->session, 0, NULL, true);
    forget_sent(r);
    return r;
}

static void change_policy(struct recorder *r, const char *quota, const char *policy,
                          int64_t version) {
    struct registry_policy *made = policy_of(quota, policy, version);
    tenant_update(&r->shared, 7, made);
    registry_policy_release(made);
    session_update_quotas(&r->session, admission_group(r->session.admission));
}

static unsigned published(const struct recorder *r) {
    return r->event_count - 1; /* the first says that it is connected */
}

/* What the endpoint does: bytes that were not taken are offered again when the session resumes. */
static void publish_n(struct recorder *r, uint8_t qos, unsigned first, unsigned count) {
    for (unsigned id = first; id < first + count; id++)
        feed_publish(r, qos, false, (uint16_t)id, "t", "x");
}

static void pass_deadline(struct recorder *r) {
    uint64_t now_ms = r->shared.now_ns / 1000000;
    cr_assert_gt(r->deadline_ms, now_ms);
    advance(r, r->deadline_ms - now_ms);
    uint64_t next = session_deadline(&r->session);
    if (next > 0)
        r->deadline_ms = next;
}

/* ---- one device ---- */

Test(admission, without_quota_there_is_nothing) {
    struct recorder *r = connected(MQTT_VERSION_5);
    cr_assert_null(r->session.admission);
    recorder_free(r);
    r = with_policy(MQTT_VERSION_5, "{\"connections\": 5}", "{\"groups\": {\"g\": {}}}", "");
    cr_assert_null(r->session.admission);
    recorder_free(r);
}

Test(admission, a_device_waits_and_nothing_is_lost) {
    EACH_VERSION(version) {
        struct recorder *r =
            with_policy(version, "{}", "{\"device_quota\": {\"messages_per_second\": 2}}", "");
        publish_n(r, 1, 1, 3); /* a second's worth, and the one that exceeds it */
        cr_assert_eq(published(r), 3);
        cr_assert_eq(r->pause_count, 1);
        feed_publish(r, 1, false, 4, "t", "x");
        cr_assert_eq(published(r), 3);
        cr_assert_eq(r->pause_count, 2);
        complete_all(r, 0);
        pass_deadline(r);
        cr_assert_eq(r->resume_count, 2);
        feed_publish(r, 1, false, 4, "t", "x");
        cr_assert_eq(published(r), 4);
        cr_assert_eq(r->close_count, 0);
        recorder_free(r);
    }
}

Test(admission, what_would_wait_for_too_long_is_refused_with_the_quota_named) {
    struct recorder *r =
        with_policy(MQTT_VERSION_5, "{}", "{\"device_quota\": {\"bytes_per_second\": 10}}", "");
    char large[301];
    memset(large, 'x', 300);
    large[300] = '\0';
    feed_publish(r, 1, false, 1, "t", large); /* larger than a second's worth: let through */
    feed_publish(r, 1, false, 2, "t", "x");
    cr_assert_eq(published(r), 1);
    complete_all(r, 0);
    static const char text[] = "over the device's quota of 10 bytes per second";
    cr_assert_eq(r->sent[4], 0x40);
    cr_assert_eq(r->sent[8], 0x97);
    cr_assert_neq(memmem(r->sent, r->sent_size, text, sizeof(text) - 1), NULL);
    cr_assert_eq(r->close_count, 0);
    forget_sent(r);
    int64_t dropped = metric_read(METRIC_MQTT_QOS0_DROPPED);
    feed_publish(r, 0, false, 0, "t", "x");
    cr_assert_eq(metric_read(METRIC_MQTT_QOS0_DROPPED), dropped + 1);
    cr_assert_eq(r->sent_size, 0);
    recorder_free(r);
}

Test(admission, mqtt3_is_not_answered_and_ends) {
    struct recorder *r =
        with_policy(MQTT_VERSION_3_1_1, "{}", "{\"device_quota\": {\"bytes_per_second\": 1}}", "");
    feed_publish(r, 1, false, 1, "t", "twenty bytes or more of it");
    feed_publish(r, 1, false, 2, "t", "x");
    complete_all(r, 0);
    cr_assert_sent(r, 0x40, 2, 0, 1);
    forget_sent(r);
    feed(r, "\xC0\0", 2);
    cr_assert_sent(r, 0xD0, 0);
    advance(r, LIMIT_MQTT_WITHHELD_MS);
    cr_assert_eq(session_deadline(&r->session), 0);
    cr_assert_eq(r->end.err, DG_ERR_QUOTA);
    recorder_free(r);
}

Test(admission, a_changed_policy_applies_at_once) {
    static const char slow[] = "{\"device_quota\": {\"messages_per_second\": 1}}";
    struct recorder *r = connected(MQTT_VERSION_5);
    change_policy(r, "{}", slow, 1);
    publish_n(r, 0, 0, 5);
    cr_assert_eq(published(r), 2);
    unsigned resumed = r->resume_count;
    change_policy(r, "{}", "{\"device_quota\": {\"messages_per_second\": 1000}}", 2);
    cr_assert_eq(r->resume_count, resumed + 1);
    publish_n(r, 0, 0, 1);
    cr_assert_eq(published(r), 3);
    change_policy(r, "{}", "{}", 3);
    cr_assert_null(r->session.admission);
    publish_n(r, 0, 0, 2000);
    cr_assert_eq(published(r), 2003);
    recorder_free(r);
}

Test(admission, a_group_has_quotas_of_its_own) {
    static const char policy[] =
        "{\"device_quota\": {\"messages_per_second\": 1}, \"groups\":"
        " {\"fast\": {\"device_quota\": {\"messages_per_second\": 100}},"
        "  \"free\": {\"device_quota\": {}}, \"few\": {\"quota\": {\"messages_per_second\": 3}}}}";
    static const struct {
        const char *group;
        unsigned count;
    } cases[] = {{"", 2}, {"fast", 101}, {"free", 200}, {"few", 2}, {"unknown", 2}};
    struct recorder *r = with_policy(MQTT_VERSION_5, "{}", policy, "");
    for (unsigned i = 0; i < 5; i++) {
        advance(r, 20000);
        unsigned before = published(r);
        session_update_quotas(&r->session, slice_from_string(cases[i].group));
        publish_n(r, 0, 0, 200);
        cr_expect_eq(published(r) - before, cases[i].count, "%s: %u", cases[i].group,
                     published(r) - before);
    }
    recorder_free(r);
}

Test(admission, coming_anew_is_no_way_out) {
    struct recorder *r =
        with_policy(MQTT_VERSION_5, "{}", "{\"device_quota\": {\"messages_per_second\": 2}}", "");
    struct session_shared first = {0};
    session_shared_join(&first, &r->shared);
    publish_n(r, 0, 0, 9);
    cr_assert_eq(published(r), 3);
    recorder_free(r);
    r = recorder_create();
    session_shared_join(&r->shared, &first);
    struct registry_identity identity = identity_of("dev1");
    identity.policy = policy_of("{}", "{\"device_quota\": {\"messages_per_second\": 2}}", 1);
    feed_connect(r, MQTT_VERSION_5);
    session_login_done(&r->session, 0, &identity);
    registry_policy_release(identity.policy);
    session_claim_done(&r->session, 0, NULL, true);
    publish_n(r, 0, 0, 1);
    cr_assert_eq(published(r), 0);
    quota_ledger_release(first.quotas);
    recorder_free(r);
}

/* ---- connections ---- */

Test(admission, connections_of_a_tenant) {
    EACH_VERSION(version) {
        struct recorder *r = with_policy(version, "{\"connections\": 1}", "{}", "");
        cr_assert_eq(r->session.state, SESSION_CONNECTED);
        struct quota_entry *tenant =
            quota_ledger_take(r->shared.quotas, QUOTA_TENANT, 7, slice_from_string("acme"), 0);
        cr_assert_eq(tenant->tenant->connections, 1);
        session_stop(&r->session, 0, NULL);
        cr_assert_eq(tenant->tenant->connections, 0);
        struct session_shared shared = {0};
        session_shared_join(&shared, &r->shared);
        recorder_free(r);

        tenant->tenant->connections = 1; /* another worker's */
        r = recorder_create();
        session_shared_join(&r->shared, &shared);
        struct registry_identity identity = identity_of("dev1");
        identity.policy = policy_of("{\"connections\": 1}", "{}", 1);
        feed_connect(r, version);
        session_login_done(&r->session, 0, &identity);
        registry_policy_release(identity.policy);
        session_claim_done(&r->session, 0, kept_new(5), true);
        cr_assert_eq(r->end.err, DG_ERR_QUOTA);
        cr_assert_eq(r->sent[3], version == MQTT_VERSION_5 ? 0x97 : 3);
        static const char text[] = "over the tenant's quota of 1 connections";
        cr_assert_eq(memmem(r->sent, r->sent_size, text, sizeof(text) - 1) != NULL,
                     version == MQTT_VERSION_5);
        cr_assert_eq(tenant->tenant->connections, 1);
        cr_assert_not_null(r->kept, "the session that there was stays");
        quota_ledger_leave(shared.quotas, tenant);
        quota_ledger_release(shared.quotas);
        recorder_free(r);
    }
}

/* ---- several ---- */

enum { CROWD = 10 };

/* Sessions of one worker and tenant, each with its own device. */
struct crowd {
    struct recorder *host; /* whose shared part they have */
    struct session sessions[CROWD];
};

static void crowd_open(struct crowd *crowd, const char *quota) {
    crowd->host = recorder_create();
    struct registry_policy *policy = policy_of(quota, "{}", 1);
    for (unsigned i = 0; i < CROWD; i++) {
        struct session *session = &crowd->sessions[i];
        struct registry_identity identity = identity_of("dev");
        identity.device_key = 100 + i;
        identity.policy = policy;
        session_init(session, &crowd->host->shared, 10 + i, true);
        session->version = MQTT_VERSION_5;
        session->tenant = tenant_take(&crowd->host->shared, &identity);
        session->state = SESSION_CONNECTED;
        session->device_key = 100 + i;
        session->device_size = 3;
        session->names = (uint8_t *)strdup("dev");
        cr_assert_eq(admission_set(&session->admission, session, 100 + i, slice_from_string("")),
                     0);
    }
    registry_policy_release(policy);
}

static void crowd_close(struct crowd *crowd) {
    for (unsigned i = 0; i < CROWD; i++) {
        struct session *session = &crowd->sessions[i];
        session->state = SESSION_CLOSED;
        session->flags = SESSION_FINISHED;
        session->tenant->outstanding -= session->outstanding;
        session->outstanding = 0;
        session_free(session);
    }
    recorder_free(crowd->host);
}

/* One tries to send as much as it can. */
static unsigned flood(struct session *session, unsigned most, size_t size) {
    unsigned sent = 0;
    while (sent < most && !(session->flags & SESSION_PAUSED)) {
        int err = admission_ask(session->admission, LIMIT_QUOTA_WAIT_MS);
        if (err == DG_ERR_PRESSURE)
            session->flags |= SESSION_PAUSED_QUOTA;
        if (err < 0)
            break;
        admission_charge(session->admission, size);
        sent++;
    }
    return sent;
}

/* All flood but one, which sends now and then; the quota goes round. */
Test(admission, devices_of_a_tenant_share_its_quota_fairly) {
    struct crowd crowd;
    crowd_open(&crowd, "{\"messages_per_second\": 1000}");
    unsigned sent[CROWD] = {0}, all = 0;
    for (unsigned ms = 0; ms < 20000; ms++) {
        for (unsigned i = 0; i < CROWD; i++)
            sent[i] += flood(&crowd.sessions[i],
                             i == 0 && ms % 100 != 0 ? 0
                             : i == 0                ? 1
                                                     : 1000,
                             1);
        admission_turn(&crowd.host->shared);
        advance(crowd.host, 1);
    }
    for (unsigned i = 0; i < CROWD; i++)
        all += sent[i];
    cr_expect(all >= 20 * 1000 && all <= 21 * 1000 + 10, "%u", all);
    cr_expect_geq(sent[0], 190, "%u", sent[0]);
    for (unsigned i = 2; i < CROWD; i++)
        cr_expect(sent[i] > 1500 && sent[i] < 3500, "%u: %u", i, sent[i]);
    crowd_close(&crowd);
}

Test(admission, who_waits_for_too_long_gives_up) {
    struct crowd crowd;
    crowd_open(&crowd, "{\"messages_per_second\": 1}");
    for (unsigned i = 0; i < CROWD; i++)
        flood(&crowd.sessions[i], 2, 1);
    struct session *last = &crowd.sessions[CROWD - 1];
    cr_assert_neq(last->flags & SESSION_PAUSED_QUOTA, 0);
    cr_assert_eq(last->admission->until_ms, START_MS + LIMIT_QUOTA_WAIT_MS);
    admission_expire(last->admission);
    cr_assert_eq(last->flags & SESSION_PAUSED_QUOTA, 0);
    cr_assert_eq(admission_ask(last->admission, LIMIT_QUOTA_WAIT_MS), DG_ERR_QUOTA);
    cr_assert_eq(admission_ask(last->admission, LIMIT_QUOTA_WAIT_MS), DG_ERR_PRESSURE);
    char text[ADMISSION_TEXT_SIZE];
    admission_format(last->admission, text);
    cr_assert_str_eq(text, "over the tenant's quota of 1 messages per second");
    crowd_close(&crowd);
}

/* ---- shares ---- */

enum { PAYLOAD = 1000, PUBLISH_CODE = 2, PUBLISH_UNITS = 1 << PUBLISH_CODE };

/* One publish of QoS 0, larger than the least share; whether it was taken. */
static bool publish_one(struct session *session) {
    uint8_t bytes[2048], payload[PAYLOAD] = {0};
    struct writer w = writer_make(bytes, sizeof(bytes));
    mqtt_write_publish(&w, session->version, false, 0, false, slice_from_string("t"), 0,
                       slice_make(NULL, 0), slice_make(payload, sizeof(payload)));
    size_t used = session_receive(session, bytes, writer_size(&w));
    cr_assert_neq(session->state, SESSION_CLOSED, "%s", dg_err_text(recorder_of(session)->end.err));
    return used > 0;
}

static unsigned publish_until_paused(struct session *session) {
    unsigned count = 0;
    while (publish_one(session))
        count++;
    return count;
}

/* The oldest of the session's publishes are durable. */
static void arrive(struct session *session, unsigned count) {
    for (unsigned i = 0; i < count; i++)
        session_append_done(session, (uint64_t)PUBLISH_CODE << 52 | 3ull << 48, 0);
}

Test(admission, a_connection_has_its_share_in_flight_while_others_publish) {
    struct crowd crowd;
    crowd_open(&crowd, "{}");
    struct session *noisy = &crowd.sessions[0];
    const unsigned share = LIMIT_SESSION_SHARE_BYTES / 256 / PUBLISH_UNITS;
    for (unsigned i = 0; i < 2 * share; i++)
        cr_assert(publish_one(noisy), "alone it has no limit");
    cr_assert(publish_one(&crowd.sessions[1]));
    cr_assert_eq(publish_until_paused(noisy), 0);
    unsigned resumed = crowd.host->resume_count;
    arrive(noisy, share);
    cr_assert_eq(crowd.host->resume_count, resumed);
    arrive(noisy, share / 2 + 1);
    cr_assert_eq(crowd.host->resume_count, resumed + 1);
    cr_assert_eq(publish_until_paused(noisy), share / 2 + 1);
    advance(crowd.host, 1000); /* nobody else has published for a second */
    arrive(noisy, share);
    for (unsigned i = 0; i < 2 * share; i++)
        cr_assert(publish_one(noisy));
    crowd_close(&crowd);
}

Test(admission, a_tenant_has_its_share_in_flight_while_others_publish) {
    struct crowd crowd;
    crowd_open(&crowd, "{}");
    struct session_shared *shared = &crowd.host->shared;
    const unsigned share = LIMIT_TENANT_SHARE_BYTES / 256;
    shared->last_tenant = 8; /* has published a moment ago */
    unsigned sent = 0;
    for (unsigned i = 0; i < CROWD; i++)
        sent += publish_until_paused(&crowd.sessions[i]);
    cr_assert(sent * PUBLISH_UNITS >= share && sent * PUBLISH_UNITS < share + PUBLISH_UNITS);
    struct session *next = &crowd.sessions[0], *last = &crowd.sessions[1];
    cr_assert_eq(shared->waited->first->session, next, "in the order in which they came");
    cr_assert_eq(shared->waited->first->behind->session, last);
    admission_turn(shared);
    cr_assert_neq(next->flags & SESSION_PAUSED_QUOTA, 0, "there is no room");

    arrive(&crowd.sessions[0], 3);
    admission_turn(shared); /* for one of them */
    cr_assert_eq(next->flags & SESSION_PAUSED_QUOTA, 0);
    cr_assert_neq(last->flags & SESSION_PAUSED_QUOTA, 0);
    cr_assert(!publish_one(&crowd.sessions[5]), "nobody overtakes who waits");
    cr_assert_eq(publish_until_paused(next), 3);
    arrive(&crowd.sessions[0], 2);
    admission_turn(shared);
    cr_assert_eq(last->flags & SESSION_PAUSED_QUOTA, 0);
    cr_assert_eq(publish_until_paused(last), 2);
    crowd_close(&crowd);
}

/* ---- leases ---- */

Test(admission, leases_are_paid_for_and_used_up) {
    struct quota_entry *entry = calloc(1, sizeof(*entry));
    struct quota_meter meters[3] = {{0}};
    uint64_t now_ns = 10 * SECOND, used = 0;
    enum quota_unit unit;
    for (unsigned i = 0; i < 3; i++)
        meters[i] = (struct quota_meter){.entry = entry, .per_second = {10000, 0}};
    for (unsigned ms = 0; ms < 10000; ms++, now_ns += SECOND / 1000)
        for (unsigned i = 0; i < 100; i++) {
            struct quota_meter *meter = &meters[i % 3];
            if (quota_meter_wait(meter, now_ns, &unit) > 0)
                continue;
            quota_meter_charge(meter, (const uint64_t[QUOTA_UNITS]){1, 100}, true, now_ns);
            used++;
            cr_assert_leq(meter->leased[0], 50);
        }
    cr_expect(used >= 10 * 10000 && used <= 11 * 10000 + 150, "%lu", used);
    free(entry);
}

Test(admission, a_ledger_forgets_who_owes_nothing) {
    struct quota_ledger *ledger = quota_ledger_create();
    struct slice none = slice_make(NULL, 0);
    struct quota_entry *owes = quota_ledger_take(ledger, QUOTA_DEVICE, 1, none, SECOND);
    struct quota_entry *other = quota_ledger_take(ledger, QUOTA_TENANT, 1, none, SECOND);
    cr_assert_neq(owes, other);
    bucket_charge(&owes->units[QUOTA_BYTES], 3000, 1000, SECOND);
    quota_ledger_leave(ledger, owes);
    quota_ledger_leave(ledger, other);
    other = quota_ledger_take(ledger, QUOTA_GROUP, 1, slice_from_string("g"), 2 * SECOND);
    cr_expect_eq(quota_ledger_take(ledger, QUOTA_DEVICE, 1, none, 2 * SECOND), owes);
    cr_expect_gt(bucket_charge(&owes->units[QUOTA_BYTES], 0, 1000, 2 * SECOND), 0);
    quota_ledger_leave(ledger, owes);
    quota_ledger_leave(ledger, other);
    other = quota_ledger_take(ledger, QUOTA_DEVICE, 2, none, 9 * SECOND); /* sweeps */
    owes = quota_ledger_take(ledger, QUOTA_DEVICE, 1, none, 9 * SECOND);
    cr_expect_eq(owes->units[QUOTA_BYTES].due_ns, 0);
    quota_ledger_leave(ledger, owes);
    quota_ledger_leave(ledger, other);
    quota_ledger_release(ledger);
}
