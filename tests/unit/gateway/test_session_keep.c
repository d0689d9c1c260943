/* Sessions that outlive their connection, and their layout on the disk. */
#include "session_recorder.h"

TestSuite(session_keep, .fini = check_leaks);

enum { HOUR_S = 3600, NO_EXPIRY = 0 };
static const struct slice nothing;

static void feed_connect_keeping(struct recorder *r, enum mqtt_version version, bool clean,
                                 uint32_t expiry_s) {
    uint8_t body[128], bytes[160];
    struct writer w = writer_make(body, sizeof(body));
    writer_bytes(&w, "\0\4MQTT", 6);
    writer_u8(&w, (uint8_t)version);
    writer_u8(&w, clean ? 0xC2 : 0xC0);
    writer_u16(&w, 60);
    if (version == MQTT_VERSION_5) {
        writer_u8(&w, 5);
        writer_u8(&w, 0x11);
        writer_u32(&w, expiry_s);
    }
    writer_bytes(&w, "\0\1c\0\11dev1@acme\0\1x", 17);
    struct writer packet = writer_make(bytes, sizeof(bytes));
    writer_u8(&packet, 0x10);
    writer_u8(&packet, (uint8_t)writer_size(&w));
    writer_bytes(&packet, body, writer_size(&w));
    cr_assert(!w.failed && !packet.failed);
    feed(r, bytes, writer_size(&packet));
}

/* As far as the claim. The configured maximum is a day. */
static struct recorder *claimed(enum mqtt_version version, bool clean, uint32_t expiry_s,
                                struct session_kept *kept) {
    struct recorder *r = recorder_create();
    r->config->mqtt_max_session_expiry = 86400000;
    r->shared.next_epoch = 500;
    r->shared.stream_epoch = 6;
    feed_connect_keeping(r, version, clean, expiry_s);
    log_in(r);
    session_claim_done(&r->session, 0, kept, true);
    return r;
}

static struct recorder *durable(enum mqtt_version version, struct session_kept *kept) {
    struct recorder *r = claimed(version, false, HOUR_S, kept);
    session_append_done(&r->session, r->mutations[0].tag, 0);
    cr_assert_eq(r->session.state, SESSION_CONNECTED);
    forget_sent(r);
    return r;
}

/* The device's session, disconnected an hour ago, with message 7 not released. */
static struct session_kept *kept_session(const struct recorder *r, uint32_t expiry_s) {
    struct session_kept *kept = kept_new(77);
    kept->expiry_s = expiry_s;
    kept->disconnected_ms = (r ? r->shared.wall_ms : 1700000000000) - HOUR_S * 1000;
    cr_assert_eq(identities_reserve(&kept->identities), 0);
    identities_set(kept->identities, 7, IDENTITY_STORED);
    cr_assert_not_null(kept_subscribe(kept, slice_from_string("$dg/commands/#"), 1));
    return kept;
}

/* What a recorded mutation says. */
static struct session_kept *written(const struct recorded_mutation *mutation) {
    struct session_kept *kept;
    int64_t device_key;
    cr_assert_eq(mutation->name_space, STREAM_STATE_SESSION);
    cr_assert(!mutation->is_delete);
    cr_assert_eq(kept_decode(slice_make(mutation->key, mutation->key_size),
                             slice_make(mutation->value, mutation->value_size), &device_key, &kept),
                 0);
    cr_assert_eq(device_key, 42);
    return kept;
}

static struct recorded_mutation *last(struct recorder *r) {
    cr_assert_gt(r->mutation_count, 0);
    return &r->mutations[r->mutation_count - 1];
}

static void close_and_settle(struct recorder *r) {
    session_unlinked(&r->session, DG_ERR_CLOSED);
    while (r->session.outstanding > 0)
        session_append_done(&r->session, TAG_OF_NOTHING, 0);
    cr_assert_eq(r->release_count, 1);
}

/* ---- CONNECT ---- */

Test(session_keep, a_new_session_is_on_the_disk_before_connack) {
    EACH_VERSION(version) {
        struct recorder *r = claimed(version, false, HOUR_S, NULL);
        cr_assert_eq(r->sent_size, 0);
        cr_assert_eq(r->mutation_count, 1);
        struct session_kept *kept = written(&r->mutations[0]);
        cr_assert_eq(kept->epoch, 500);
        cr_assert_eq(kept->stream_epoch, 6);
        cr_assert_eq(kept->disconnected_ms, 0);
        cr_assert_eq(kept->expiry_s, version == MQTT_VERSION_5 ? HOUR_S : 86400);
        kept_free(kept);
        session_append_done(&r->session, r->mutations[0].tag, 0);
        cr_assert(r->sent[0] == 0x20 && r->sent[2] == 0 && r->sent[3] == 0);
        recorder_free(r);
    }
}

Test(session_keep, what_ends_with_its_connection_writes_nothing) {
    EACH_VERSION(version) {
        struct recorder *r = claimed(version, true, NO_EXPIRY, NULL);
        cr_assert_eq(r->session.state, SESSION_CONNECTED);
        feed_publish(r, 2, false, 1, "t", "x");
        session_append_done(&r->session, r->events[1].tag, 0);
        close_and_settle(r);
        cr_assert_eq(r->mutation_count, 0);
        cr_assert_null(r->kept);
        recorder_free(r);
    }
}

Test(session_keep, goes_on_with_the_session_whatever_the_client_id) {
    EACH_VERSION(version) {
        struct recorder *r = claimed(version, false, HOUR_S, kept_session(NULL, 2 * HOUR_S));
        cr_assert_eq(r->sent_size, 0);
        struct session_kept *kept = written(&r->mutations[0]);
        cr_assert_eq(kept->epoch, 77);
        cr_assert_eq(kept->disconnected_ms, 0);
        cr_assert_not_null(kept->subscriptions);
        kept_free(kept);
        session_append_done(&r->session, r->mutations[0].tag, 0);
        cr_assert(r->sent[0] == 0x20 && r->sent[2] == 1 && r->sent[3] == 0);
        forget_sent(r);
        unsigned events = r->event_count;
        feed_publish(r, 2, true, 7, "t", "x");
        cr_assert_sent(r, 0x50, 2, 0, 7);
        cr_assert_eq(r->event_count, events);
        cr_assert_eq(r->discard_count, 0);
        recorder_free(r);
    }
}

Test(session_keep, clean_start_and_time_end_the_session) {
    EACH_VERSION(version) {
        for (unsigned clean = 0; clean < 2; clean++) {
            uint32_t kept_s = clean ? 2 * HOUR_S : HOUR_S; /* over to the second */
            struct recorder *r = claimed(version, clean, HOUR_S, kept_session(NULL, kept_s));
            bool lives_on = !clean || version == MQTT_VERSION_5;
            cr_assert_eq(r->mutation_count, 1);
            cr_assert_eq(r->mutations[0].is_delete, !lives_on);
            cr_assert(r->sent_size == 0 && r->discard_count == 0);
            session_append_done(&r->session, r->mutations[0].tag, 0);
            cr_assert(r->sent[0] == 0x20 && r->sent[2] == 0 && r->sent[3] == 0);
            cr_assert_eq(r->discard_count, 1);
            forget_sent(r);
            feed_publish(r, 2, true, 7, "t", "x"); /* nobody knows it any more */
            cr_assert_eq(r->events[r->event_count - 1].qos, 2);
            recorder_free(r);
        }
    }
}

Test(session_keep, resumed_and_to_end_with_the_connection) {
    struct recorder *r = claimed(MQTT_VERSION_5, false, NO_EXPIRY, kept_session(NULL, 2 * HOUR_S));
    session_append_done(&r->session, r->mutations[0].tag, 0);
    cr_assert(r->sent[0] == 0x20 && r->sent[2] == 1 && r->sent[3] == 0);
    close_and_settle(r);
    cr_assert(last(r)->is_delete);
    cr_assert_eq(r->discard_count, 1);
    cr_assert_null(r->kept);
    recorder_free(r);
}

Test(session_keep, the_maximum_is_told) {
    static const uint8_t property[] = {0x11, 0, 1, 0x51, 0x80};
    struct recorder *r = claimed(MQTT_VERSION_5, true, UINT32_MAX, NULL);
    session_append_done(&r->session, r->mutations[0].tag, 0);
    cr_assert_not_null(memmem(r->sent, r->sent_size, property, sizeof(property)));
    recorder_free(r);

    r = recorder_create();
    r->config->mqtt_max_session_expiry = 86400000;
    feed_connect_keeping(r, MQTT_VERSION_5, true, HOUR_S);
    log_in(r);
    session_claim_done(&r->session, 0, NULL, false); /* no room */
    static const uint8_t zero[] = {0x11, 0, 0, 0, 0};
    cr_assert_not_null(memmem(r->sent, r->sent_size, zero, sizeof(zero)));
    cr_assert_eq(r->mutation_count, 0);
    recorder_free(r);
}

Test(session_keep, no_room_on_the_disk_leaves_the_former_session_as_it_was) {
    for (unsigned clean = 0; clean < 2; clean++) {
        struct recorder *r = claimed(MQTT_VERSION_5, clean, HOUR_S, kept_session(NULL, 2 * HOUR_S));
        session_append_done(&r->session, r->mutations[0].tag, DG_ERR_STORAGE_FULL);
        cr_assert(r->sent[0] == 0x20 && r->sent[3] == 0x97);
        cr_assert_eq(r->release_count, 1);
        cr_assert_eq(r->mutation_count, 1);
        cr_assert_eq(r->discard_count, 0);
        cr_assert(r->kept && r->kept->epoch == 77 && r->kept->disconnected_ms != 0);
        recorder_free(r);
    }
}

Test(session_keep, gone_before_it_was_connected) {
    /* before the claim, under pressure, before the disk answers */
    for (unsigned when = 0; when < 3; when++) {
        struct recorder *r = recorder_create();
        feed_connect_keeping(r, MQTT_VERSION_5, true, HOUR_S);
        log_in(r);
        if (when == 0)
            session_unlinked(&r->session, DG_ERR_CLOSED);
        r->append_err = when == 1 ? DG_ERR_PRESSURE : 0;
        session_claim_done(&r->session, 0, kept_session(r, 2 * HOUR_S), true);
        if (when > 0)
            session_unlinked(&r->session, DG_ERR_CLOSED);
        r->append_err = 0;
        if (when == 1)
            session_ready(&r->session);
        if (when == 2)
            session_append_done(&r->session, r->mutations[0].tag, 0);
        while (r->session.outstanding > 0)
            session_append_done(&r->session, TAG_OF_NOTHING, 0);
        cr_assert_eq(r->release_count, 1);
        cr_assert(r->kept && r->kept->disconnected_ms != 0);
        cr_assert_eq(r->kept->epoch == 77, when < 2, "%u", when);
        cr_assert_eq(r->discard_count, when == 2);
        recorder_free(r);
    }
}

/* ---- QoS 2 ---- */

Test(session_keep, identity_is_written_with_the_event_and_deleted_before_pubcomp) {
    EACH_VERSION(version) {
        struct recorder *r = durable(version, NULL);
        unsigned events = r->event_count;
        feed_publish(r, 2, false, 0x0102, "t", "x");
        const struct recorded_mutation *put = last(r);
        cr_assert(put->name_space == STREAM_STATE_QOS2 && !put->is_delete && put->takes_offset);
        cr_assert_eq(put->with_event, (int)events);
        static const uint8_t key[] = {0, 0, 0, 0, 0, 0, 0, 42, 0, 0, 0, 0, 0, 0, 1, 0xF4, 1, 2};
        cr_assert(put->key_size == sizeof(key) && memcmp(put->key, key, sizeof(key)) == 0);
        session_append_done(&r->session, r->events[events].tag, 0);
        cr_assert_sent(r, 0x50, 2, 1, 2);
        forget_sent(r);
        static const uint8_t pubrel[] = {0x62, 2, 1, 2};
        feed(r, pubrel, sizeof(pubrel));
        const struct recorded_mutation *removal = last(r);
        cr_assert(removal->name_space == STREAM_STATE_QOS2 && removal->is_delete);
        cr_assert(removal->with_event < 0 && memcmp(removal->key, key, sizeof(key)) == 0);
        unsigned mutations = r->mutation_count;
        feed(r, pubrel, sizeof(pubrel)); /* joins */
        cr_assert_eq(r->mutation_count, mutations);
        cr_assert_eq(r->sent_size, 0);
        session_append_done(&r->session, removal->tag, 0);
        cr_assert_sent(r, 0x70, 2, 1, 2);
        cr_assert_null(r->session.kept->identities);
        recorder_free(r);
    }
}

/* The receive maximum is of one connection, and PUBCOMP of what an earlier one left counts for this
 * one, too (MQTT5 4.9); 8 are allowed. */
Test(session_keep, what_an_earlier_connection_left_takes_no_window) {
    for (unsigned released = 0; released <= 1; released++) {
        struct recorder *r = durable(MQTT_VERSION_5, kept_session(NULL, 2 * HOUR_S));
        cr_assert(r->session.flags & SESSION_RESUMED);
        for (uint16_t id = 11; id <= 18; id++)
            feed_publish(r, 2, false, id, "t", "x");
        cr_assert_eq(r->close_count, 0);
        if (released) {
            feed(r, "\x62\2\0\7", 4);
            session_append_done(&r->session, last(r)->tag, 0);
            feed_publish(r, 2, false, 19, "t", "x");
            cr_assert_eq(r->close_count, 0);
        }
        feed_publish(r, 2, false, 20, "t", "x");
        cr_assert_eq(r->end.err, DG_ERR_RECEIVE_MAXIMUM);
        recorder_free(r);
    }
}

/* However often a device connects anew, what it does not release has an end. */
Test(session_keep, unreleased_messages_have_an_end) {
    struct session_kept *kept = kept_session(NULL, 2 * HOUR_S);
    for (uint16_t id = 1; id <= LIMIT_MQTT_UNRELEASED + 8; id++) {
        cr_assert_eq(identities_reserve(&kept->identities), 0);
        identities_set(kept->identities, id, IDENTITY_STORED);
    }
    struct recorder *r = durable(MQTT_VERSION_5, kept);
    feed_publish(r, 2, false, LIMIT_MQTT_UNRELEASED + 9, "t", "x");
    cr_assert_eq(r->end.err, DG_ERR_RECEIVE_MAXIMUM);
    recorder_free(r);
}

Test(session_keep, publish_before_pubcomp_is_in_use) {
    struct recorder *r = durable(MQTT_VERSION_5, kept_session(NULL, 2 * HOUR_S));
    static const uint8_t pubrel[] = {0x62, 2, 0, 7};
    feed(r, pubrel, sizeof(pubrel));
    feed_publish(r, 2, false, 7, "t", "x");
    cr_assert_eq(r->end.err, DG_ERR_PACKET_ID_IN_USE);
    recorder_free(r);
}

Test(session_keep, what_becomes_durable_after_the_connection_is_kept) {
    struct recorder *r = durable(MQTT_VERSION_3_1_1, kept_session(NULL, 2 * HOUR_S));
    static const uint8_t pubrel[] = {0x62, 2, 0, 7};
    unsigned from = r->event_count;
    feed_publish(r, 2, false, 1, "t", "x");
    feed_publish(r, 2, false, 2, "t", "x");
    feed(r, pubrel, sizeof(pubrel));
    uint64_t released = last(r)->tag;
    session_unlinked(&r->session, DG_ERR_CLOSED);
    session_append_done(&r->session, r->events[from].tag, 0);
    session_append_done(&r->session, r->events[from + 1].tag, DG_ERR_STORAGE_FULL);
    session_append_done(&r->session, released, 0);
    while (r->session.outstanding > 0)
        session_append_done(&r->session, TAG_OF_NOTHING, 0);
    cr_assert_not_null(r->kept);
    cr_assert_eq(identities_get(r->kept->identities, 1), IDENTITY_STORED);
    cr_assert_eq(identities_get(r->kept->identities, 2), IDENTITY_UNKNOWN);
    cr_assert_eq(identities_get(r->kept->identities, 7), IDENTITY_UNKNOWN);
    recorder_free(r);
}

Test(session_keep, release_that_was_refused) {
    struct recorder *r = durable(MQTT_VERSION_5, kept_session(NULL, 2 * HOUR_S));
    static const uint8_t pubrel[] = {0x62, 2, 0, 7};
    r->append_err = DG_ERR_PRESSURE;
    cr_assert_eq(session_receive(&r->session, pubrel, sizeof(pubrel)), 0);
    cr_assert_eq(session_receive(&r->session, pubrel, sizeof(pubrel)), 0);
    r->append_err = 0;
    session_ready(&r->session);
    cr_assert_eq(session_receive(&r->session, pubrel, sizeof(pubrel)), sizeof(pubrel));
    session_append_done(&r->session, last(r)->tag, DG_ERR_STORAGE_FULL);
    cr_assert_eq(r->end.err, DG_ERR_STORAGE_FULL);
    cr_assert(r->sent[0] == 0xE0, "no PUBCOMP");
    while (r->session.outstanding > 0)
        session_append_done(&r->session, TAG_OF_NOTHING, 0);
    cr_assert_eq(identities_get(r->kept->identities, 7), IDENTITY_STORED);
    recorder_free(r);
}

/* ---- SUBSCRIBE ---- */

static const uint8_t subscribe3[] = {0x82, 22,  0,   9,   0,   17,  '$', 'd', 'g', '/', 's', 't',
                                     'a',  't', 'e', '/', 'd', 'e', 's', 'i', 'r', 'e', 'd', 1};
static const uint8_t unsubscribe3[] = {0xA2, 21,  0,   9,   0,   17,  '$', 'd', 'g', '/', 's', 't',
                                       'a',  't', 'e', '/', 'd', 'e', 's', 'i', 'r', 'e', 'd'};

/* Feeds until the packet is dealt with, under pressure first, with the disk's answer in between. */
static void feed_change(struct recorder *r, const uint8_t *bytes, size_t size) {
    forget_sent(r);
    unsigned before = r->mutation_count;
    r->append_err = DG_ERR_PRESSURE;
    cr_assert_eq(session_receive(&r->session, bytes, size), 0);
    r->append_err = 0;
    session_ready(&r->session);
    cr_assert_eq(session_receive(&r->session, bytes, size), 0);
    cr_assert_eq(r->mutation_count, before + 1);
    cr_assert_eq(session_receive(&r->session, bytes, size), 0, "waits");
    cr_assert_eq(r->sent_size, 0);
    session_append_done(&r->session, last(r)->tag, 0);
    cr_assert_eq(session_receive(&r->session, bytes, size), size);
    cr_assert_eq(r->mutation_count, before + 1);
}

Test(session_keep, subscriptions_are_on_the_disk_before_the_answer) {
    struct recorder *r = durable(MQTT_VERSION_3_1_1, NULL);
    feed_change(r, subscribe3, sizeof(subscribe3));
    cr_assert_sent(r, 0x90, 3, 0, 9, 1);
    struct session_kept *kept = written(last(r));
    cr_assert(kept->subscriptions && !kept->subscriptions->next);
    cr_assert_eq(kept->subscriptions->qos, 1);
    kept_free(kept);
    forget_sent(r);
    unsigned mutations = r->mutation_count;
    feed(r, subscribe3, sizeof(subscribe3)); /* nothing new */
    cr_assert_sent(r, 0x90, 3, 0, 9, 1);
    cr_assert_eq(r->mutation_count, mutations);
    feed_change(r, unsubscribe3, sizeof(unsubscribe3));
    cr_assert_sent(r, 0xB0, 2, 0, 9);
    kept = written(last(r));
    cr_assert_null(kept->subscriptions);
    kept_free(kept);
    cr_assert_null(r->session.kept->subscriptions);
    recorder_free(r);
}

/* As two packets would (MQTT5 3.8.4-5); the packet that is offered again must not change it again.
 */
Test(session_keep, a_filter_given_twice_is_written_once) {
    uint8_t twice[2 + 2 + 2 * 20] = {0x82, sizeof(twice) - 2, 0, 9};
    memcpy(twice + 4, subscribe3 + 4, 20);
    memcpy(twice + 24, subscribe3 + 4, 20);
    twice[23] = 0;
    struct recorder *r = durable(MQTT_VERSION_3_1_1, NULL);
    feed_change(r, twice, sizeof(twice));
    cr_assert_sent(r, 0x90, 4, 0, 9, 0, 1);
    struct session_kept *kept = written(last(r));
    cr_assert(kept->subscriptions && !kept->subscriptions->next);
    cr_assert_eq(kept->subscriptions->qos, 1);
    kept_free(kept);
    recorder_free(r);
}

/* What was being removed when the connection ended comes with no later one. */
Test(session_keep, a_removal_whose_answer_did_not_leave) {
    struct recorder *r = durable(MQTT_VERSION_3_1_1, NULL);
    feed_change(r, subscribe3, sizeof(subscribe3));
    cr_assert_eq(session_receive(&r->session, unsubscribe3, sizeof(unsubscribe3)), 0);
    session_unlinked(&r->session, DG_ERR_CLOSED);
    session_append_done(&r->session, last(r)->tag, 0);
    close_and_settle(r);
    cr_assert_null(r->kept->subscriptions);
    recorder_free(r);
}

Test(session_keep, subscription_without_room_on_the_disk) {
    struct recorder *r = durable(MQTT_VERSION_3_1_1, NULL);
    cr_assert_eq(session_receive(&r->session, subscribe3, sizeof(subscribe3)), 0);
    session_append_done(&r->session, last(r)->tag, DG_ERR_STORAGE_FULL);
    cr_assert_eq(r->end.err, DG_ERR_STORAGE_FULL);
    cr_assert_eq(r->sent_size, 0);
    recorder_free(r);
}

/* ---- the end ---- */

Test(session_keep, since_when_it_is_disconnected_is_written) {
    EACH_VERSION(version) {
        struct recorder *r = durable(version, NULL);
        advance(r, 5000);
        close_and_settle(r);
        struct session_kept *kept = written(last(r));
        cr_assert_eq(kept->disconnected_ms, r->shared.wall_ms);
        cr_assert_eq(kept->epoch, 500);
        kept_free(kept);
        cr_assert(r->kept && r->kept->epoch == 500);
        cr_assert(!kept_is_over(r->kept, r->shared.wall_ms + 3599999));
        recorder_free(r);
    }
}

Test(session_keep, disconnect_changes_the_expiry) {
    static const uint8_t minute[] = {0xE0, 7, 0, 5, 0x11, 0, 0, 0, 60};
    static const uint8_t never[] = {0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0};
    struct recorder *r = durable(MQTT_VERSION_5, NULL);
    feed(r, minute, sizeof(minute));
    close_and_settle(r);
    struct session_kept *kept = written(last(r));
    cr_assert_eq(kept->expiry_s, 60);
    kept_free(kept);
    recorder_free(r);

    r = durable(MQTT_VERSION_5, NULL);
    feed(r, never, sizeof(never));
    close_and_settle(r);
    cr_assert(last(r)->is_delete);
    cr_assert_null(r->kept);
    cr_assert_eq(r->discard_count, 1);
    recorder_free(r);

    r = claimed(MQTT_VERSION_5, true, NO_EXPIRY, NULL);
    feed(r, minute, sizeof(minute));
    cr_assert_eq(r->end.err, DG_ERR_PROTOCOL); /* MQTT5 3.14.2.2.2 */
    recorder_free(r);
}

/* ---- the layout ---- */

static struct session_kept *kept_with_identifiers(void) {
    struct session_kept *kept = kept_new(77);
    static const char *const filters[] = {"c", "b", "a"};
    cr_assert_not_null(kept);
    for (unsigned i = 0; i < 3; i++)
        cr_assert_not_null(kept_subscribe(kept, slice_from_string(filters[i]), 2));
    kept->subscriptions->id = 300; /* of "a", the first */
    kept->subscriptions->next->is_removed = true;
    kept->subscriptions->next->id = 7;
    kept->last_packet_id = 9;
    return kept;
}

Test(session_keep, identifiers_in_the_record) {
    struct session_kept *kept = kept_with_identifiers(), *read;
    struct kept_bytes bytes;
    int64_t device_key;
    struct stream_mutation m = kept_mutation(kept, NULL, 42, &bytes);
    cr_assert_eq(kept_decode(m.key, m.value, &device_key, &read), 0);
    const struct session_subscription *last = read->subscriptions, *first = last->next;
    cr_assert(last->filter[0] == 'c' && last->id == 0, "the order is turned");
    cr_assert(first->filter[0] == 'a' && first->id == 300 && first->qos == 2 && !first->next);
    cr_assert_eq(read->last_packet_id, 0x8000 + 9, "far from what was used");
    kept_free(read);

    const size_t ids_size = 3 + 2 * 4, plain_size = m.value.size - ids_size - (3 + 2);
    for (size_t size = plain_size; size < m.value.size; size++) {
        int err = kept_decode(m.key, slice_make(m.value.data, size), &device_key, &read);
        bool is_whole = size == plain_size || size == m.value.size - ids_size;
        cr_assert_eq(err, is_whole ? 0 : DG_ERR_MALFORMED, "%zu", size);
        if (err == 0)
            kept_free(read);
    }
    bytes.value[plain_size + 2] = 3; /* the size of a field that has another: what follows */
    cr_assert_eq(kept_decode(m.key, m.value, &device_key, &read), DG_ERR_MALFORMED);
    bytes.value[plain_size + 2] = 2;
    for (int wrong = 4; wrong <= 12; wrong += 8) { /* one too few, one too many */
        bytes.value[m.value.size - ids_size + 2] = (uint8_t)wrong;
        struct slice value = slice_make(m.value.data, m.value.size - 8 + (size_t)wrong);
        memset(bytes.value + m.value.size, 0, 4);
        cr_assert_eq(kept_decode(m.key, value, &device_key, &read), DG_ERR_MALFORMED, "%d", wrong);
    }
    kept_free(kept);
}

Test(session_keep, layout_of_every_length) {
    struct session_kept *kept = kept_session(NULL, 5), *read;
    cr_assert_not_null(kept_subscribe(kept, nothing, 0));
    struct kept_bytes bytes;
    struct stream_mutation m = kept_mutation(kept, NULL, 42, &bytes);
    int64_t device_key = 0;
    for (size_t size = 0; size < m.value.size; size++)
        cr_assert_eq(kept_decode(m.key, slice_make(m.value.data, size), &device_key, &read),
                     DG_ERR_MALFORMED);
    for (size_t size = 0; size < m.key.size; size++)
        cr_assert_eq(kept_decode(slice_make(m.key.data, size), m.value, &device_key, &read),
                     DG_ERR_MALFORMED);
    cr_assert_eq(kept_decode(m.key, m.value, &device_key, &read), 0);
    cr_assert(device_key == 42 && read->epoch == 77 && read->expiry_s == 5);
    cr_assert_eq(read->disconnected_ms, kept->disconnected_ms);
    cr_assert_eq(m.value.data[0], 1, "an older release can read it");
    kept_free(read);
    bytes.value[0] = 3; /* a layout of another release */
    cr_assert_eq(kept_decode(m.key, m.value, &device_key, &read), DG_ERR_MALFORMED);
    kept_free(kept);

    uint8_t key[KEPT_IDENTITY_KEY_BYTES];
    uint64_t epoch;
    uint16_t packet_id;
    m = kept_identity_mutation(-5, 9, 65535, true, key);
    cr_assert_eq(kept_identity_decode(m.key, &device_key, &epoch, &packet_id), 0);
    cr_assert(device_key == -5 && epoch == 9 && packet_id == 65535);
    for (size_t size = 0; size < m.key.size; size++)
        cr_assert_eq(kept_identity_decode(slice_make(key, size), &device_key, &epoch, &packet_id),
                     DG_ERR_MALFORMED);
}
