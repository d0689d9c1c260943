/* Wills: their layout, what is due first, and what a session does with them. */
#include "common/utf8.h"
#include "gateway/session/due.h"
#include "gateway/session/will.h"
#include "session_recorder.h"

TestSuite(session_will, .fini = check_leaks);

enum { HOUR_S = 3600 };

/* ---- what is due first ---- */

Test(session_will, due_against_a_plain_array) {
    enum { ENTRIES = 300 };
    static struct due entries[ENTRIES];
    static bool is_in[ENTRIES];
    struct due *first = NULL;
    unsigned seed = 3;
    for (unsigned step = 0; step < 20000; step++) {
        seed = seed * 1664525u + 1013904223u;
        unsigned i = (seed >> 8) % ENTRIES;
        if (is_in[i]) {
            due_remove(&first, &entries[i]);
        } else {
            entries[i].at_ms = seed >> 20 & 63;
            due_add(&first, &entries[i]);
        }
        is_in[i] = !is_in[i];
        if (step % 7 == 0)
            due_remove(&first, &entries[i]), is_in[i] = false; /* harmless twice */
        int64_t least = INT64_MAX;
        for (unsigned j = 0; j < ENTRIES; j++)
            least = is_in[j] && entries[j].at_ms < least ? entries[j].at_ms : least;
        cr_assert_eq(first ? first->at_ms : INT64_MAX, least, "step %u", step);
        if (first)
            cr_assert(is_in[first - entries]);
    }
}

/* ---- the layout ---- */

static struct will_content content_of(const char *topic, uint32_t delay_s) {
    return (struct will_content){
        .qos = 2,
        .flags = WILL_RETAIN | WILL_MQTT5,
        .delay_s = delay_s,
        .message_expiry_s = 60,
        .topic = slice_from_string(topic),
        .content_type = slice_from_string("text/plain"),
        .payload = slice_from_string("gone"),
        .tenant_key = 7,
        .credential_key = 99,
        .source = {.tenant = slice_from_string("acme"),
                   .device = slice_from_string("dev1"),
                   .partition = 5,
                   .stream_id = 24},
    };
}

static struct session_will *will_of(const char *topic, uint32_t delay_s) {
    struct will_content content = content_of(topic, delay_s);
    struct session_will *will;
    cr_assert_eq(will_create(&content, &will), 0);
    return will;
}

Test(session_will, layout_of_every_length) {
    struct session_will *will = will_of("$dg/events/lost", 9), *copy;
    struct will_content content;
    will_read(will, &content);
    cr_assert(content.qos == 2 && content.flags == (WILL_RETAIN | WILL_MQTT5));
    cr_assert(content.delay_s == 9 && content.message_expiry_s == 60);
    cr_assert(content.tenant_key == 7 && content.credential_key == 99);
    cr_assert(content.source.partition == 5 && content.source.stream_id == 24);
    cr_assert(slice_equals_string(content.source.device, "dev1"));
    cr_assert(slice_equals_string(content.topic, "$dg/events/lost"));
    cr_assert(slice_equals_string(content.payload, "gone"));
    struct slice bytes = will_bytes(will);
    for (size_t size = 0; size < bytes.size; size++)
        cr_assert_eq(will_decode(slice_make(bytes.data, size), &copy), DG_ERR_MALFORMED);
    static const uint8_t wrong_flags[] = {3, 64, 128};
    uint8_t first = will->bytes[0];
    for (unsigned i = 0; i < sizeof(wrong_flags); i++) {
        will->bytes[0] = wrong_flags[i];
        cr_assert_eq(will_decode(bytes, &copy), DG_ERR_MALFORMED, "%u", i);
    }
    will->bytes[0] = first;
    cr_assert_eq(will_decode(bytes, &copy), 0);
    cr_assert(slice_equals(will_bytes(copy), bytes));
    free(copy);
    free(will);
}

Test(session_will, in_the_record_of_its_session) {
    struct session_kept *kept = kept_new(77), *read;
    struct session_will *will = will_of("lost", 9);
    struct kept_bytes bytes;
    int64_t device_key;
    struct stream_mutation m = kept_mutation(kept, will, 42, &bytes);
    size_t plain_size = kept_mutation(kept, NULL, 42, &bytes).value.size;
    m = kept_mutation(kept, will, 42, &bytes);
    cr_assert_eq(kept_decode(m.key, m.value, &device_key, &read), 0);
    cr_assert(slice_equals(will_bytes(read->will), will_bytes(will)));
    kept_free(read);
    for (size_t size = 0; size < m.value.size; size++) {
        int err = kept_decode(m.key, slice_make(m.value.data, size), &device_key, &read);
        cr_assert_eq(err, size == plain_size ? 0 : DG_ERR_MALFORMED, "%zu", size);
        if (err == 0)
            kept_free(read);
    }
    bytes.value[plain_size] = 200; /* a field of a later release */
    cr_assert_eq(kept_decode(m.key, m.value, &device_key, &read), 0);
    cr_assert_null(read->will);
    kept_free(read);
    kept_free(kept);
    free(will);
}

Test(session_will, due_with_the_delay_or_the_session) {
    struct session_will *will = will_of("lost", 10);
    cr_assert_eq(will_due_ms(will, 1000, 60), 11000);
    cr_assert_eq(will_due_ms(will, 1000, 5), 6000);
    cr_assert_eq(will_due_ms(will, 1000, 0), 1000);
    free(will);
    will = will_of("lost", UINT32_MAX);
    cr_assert_eq(will_due_ms(will, 1000, UINT32_MAX), 1000 + UINT32_MAX * 1000ll);
    free(will);
}

Test(session_will, event) {
    struct will_content content = content_of("$dg/events/lost", 0);
    struct device_event event;
    cr_assert_eq(will_event(&content, NULL, 5000, 100, &event), 0);
    cr_assert(event.type == EVENT_EVENT && slice_equals_string(event.subject, "lost"));
    cr_assert(event.qos == 2 && event.retain && event.message_expiry_s == 60);
    cr_assert(event.received_ms == 5000 && event.device_time_window_ms == 100);
    content.valid_until_ms = 5000;
    cr_assert_eq(will_event(&content, NULL, 4999, 100, &event), 0);
    cr_assert_eq(will_event(&content, NULL, 5000, 100, &event), DG_ERR_NOT_AUTHORIZED);
    static const char *const forbidden[] = {"$SYS/x", "$dg/replies/7/200"};
    for (unsigned i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++) {
        content = content_of(forbidden[i], 0);
        cr_assert_eq(will_event(&content, NULL, 1, 100, &event), DG_ERR_NOT_AUTHORIZED);
    }
}

/* ---- the session ---- */

struct will_options {
    uint32_t expiry_s, delay_s;
    bool clean, is_text;
    const char *payload;
};

static void put_u32_property(struct writer *w, uint8_t id, uint32_t value) {
    writer_u8(w, id);
    writer_u32(w, value);
}

static void put_text(struct writer *w, const char *text) {
    writer_u16(w, (uint16_t)strlen(text));
    writer_string(w, text);
}

/* With a will of QoS 1. As far as the login. */
static struct recorder *began(const struct will_options *options) {
    uint8_t body[200], bytes[256];
    struct recorder *r = recorder_create();
    struct writer w = writer_make(body, sizeof(body)), packet = writer_make(bytes, sizeof(bytes));
    r->config->mqtt_max_session_expiry = 86400000;
    r->shared.next_epoch = 500;
    writer_bytes(&w, "\0\4MQTT\5", 7);
    writer_u8(&w, options->clean ? 0xCE : 0xCC);
    writer_u16(&w, 60);
    writer_u8(&w, 5);
    put_u32_property(&w, 0x11, options->expiry_s);
    put_text(&w, "c");
    writer_u8(&w, options->is_text ? 7 : 5);
    put_u32_property(&w, 0x18, options->delay_s);
    if (options->is_text)
        writer_bytes(&w, "\1\1", 2);
    put_text(&w, "$dg/events/lost");
    put_text(&w, options->payload ? options->payload : "gone");
    put_text(&w, "dev1@acme");
    put_text(&w, "x");
    writer_u8(&packet, 0x10);
    writer_u8(&packet, (uint8_t)writer_size(&w));
    writer_bytes(&packet, body, writer_size(&w));
    cr_assert(!w.failed && !packet.failed && writer_size(&w) < 128);
    feed(r, bytes, writer_size(&packet));
    memset(bytes, 0xEE, sizeof(bytes)); /* the will was copied */
    return r;
}

static struct recorder *claimed(const struct will_options *options, struct session_kept *kept) {
    struct recorder *r = began(options);
    log_in(r);
    session_claim_done(&r->session, 0, kept, true);
    return r;
}

static struct recorder *durable(uint32_t expiry_s, uint32_t delay_s) {
    struct recorder *r = claimed(&(struct will_options){expiry_s, delay_s}, NULL);
    session_append_done(&r->session, r->mutations[0].tag, 0);
    cr_assert_eq(r->session.state, SESSION_CONNECTED);
    return r;
}

static struct session_kept *written(const struct recorded_mutation *mutation) {
    struct session_kept *kept;
    int64_t device_key;
    cr_assert(mutation->name_space == STREAM_STATE_SESSION && !mutation->is_delete);
    cr_assert_eq(kept_decode(slice_make(mutation->key, mutation->key_size),
                             slice_make(mutation->value, mutation->value_size), &device_key, &kept),
                 0);
    return kept;
}

static bool written_with_will(const struct recorded_mutation *mutation) {
    struct session_kept *kept = written(mutation);
    bool with_will = kept->will != NULL;
    kept_free(kept);
    return with_will;
}

static struct recorded_mutation *last(struct recorder *r) {
    cr_assert_gt(r->mutation_count, 0);
    return &r->mutations[r->mutation_count - 1];
}

static void settle(struct recorder *r) {
    while (r->session.outstanding > 0)
        session_append_done(&r->session, 1ull << 63, 0);
    cr_assert_eq(r->release_count, 1);
}

static struct session_kept *kept_with_will(void) {
    struct session_kept *kept = kept_new(77);
    kept->expiry_s = 2 * HOUR_S;
    kept->disconnected_ms = 1700000000000 - HOUR_S * 1000;
    kept->will = will_of("former", UINT32_MAX);
    kept->will->due.at_ms = 12345;
    return kept;
}

Test(session_will, with_a_delay_waits_with_the_session) {
    struct recorder *r = durable(HOUR_S, 10);
    cr_assert(written_with_will(&r->mutations[0]), "before CONNACK: it survives kill -9");
    cr_assert_eq(r->event_count, 1);
    advance(r, 5000);
    session_unlinked(&r->session, DG_ERR_CLOSED);
    settle(r);
    cr_assert_eq(r->event_count, 2);
    cr_assert_eq(r->events[1].type, EVENT_DEVICE_DISCONNECTED);
    cr_assert(r->kept->will && r->kept->will->due.at_ms == r->shared.wall_ms + 10000);
    cr_assert(written_with_will(last(r)));
    cr_assert_eq(r->shared.will_bytes, 0);
    struct will_content content;
    will_read(r->kept->will, &content);
    cr_assert(slice_equals_string(content.source.tenant, "acme"));
    cr_assert(content.tenant_key == 7 && content.credential_key == 99);
    cr_assert(content.source.stream_id == 24 && content.source.partition == 5);
    recorder_free(r);
}

Test(session_will, the_session_ends_with_the_connection_or_before) {
    struct recorder *r = durable(5, 10);
    session_unlinked(&r->session, DG_ERR_CLOSED);
    settle(r);
    cr_assert_eq(r->kept->will->due.at_ms, r->shared.wall_ms + 5000);
    recorder_free(r);

    static const uint8_t at_once[] = {0xE0, 7, 4, 5, 0x11, 0, 0, 0, 0};
    r = durable(HOUR_S, 10); /* DISCONNECT 0x04 that ends the session */
    feed(r, at_once, sizeof(at_once));
    settle(r);
    cr_assert_str_eq(r->events[1].payload, "gone");
    cr_assert(last(r)->is_delete && last(r)->with_event == 1);
    cr_assert_null(r->kept);
    recorder_free(r);

    r = claimed(&(struct will_options){0, 10, .clean = true}, NULL);
    session_unlinked(&r->session, DG_ERR_CLOSED);
    settle(r);
    cr_assert_str_eq(r->events[1].payload, "gone");
    cr_assert_eq(r->mutation_count, 0);
    recorder_free(r);
}

Test(session_will, without_delay_in_one_unit_with_the_record) {
    struct recorder *r = durable(HOUR_S, 0);
    session_unlinked(&r->session, DG_ERR_CLOSED);
    cr_assert_eq(r->events[1].type, EVENT_EVENT);
    cr_assert_eq(r->events[2].type, EVENT_DEVICE_DISCONNECTED);
    cr_assert_eq(r->mutation_count, 2, "the end is written once");
    cr_assert_eq(last(r)->with_event, 1);
    cr_assert(!written_with_will(last(r)));
    settle(r);
    cr_assert_null(r->kept->will);
    recorder_free(r);
}

Test(session_will, no_room_for_it_the_end_is_written_by_itself) {
    struct recorder *r = durable(HOUR_S, 0);
    session_unlinked(&r->session, DG_ERR_CLOSED);
    session_append_done(&r->session, r->events[1].tag, DG_ERR_STORAGE_FULL);
    cr_assert_eq(r->mutation_count, 3);
    cr_assert(last(r)->with_event < 0 && !written_with_will(last(r)));
    settle(r);
    recorder_free(r);
}

Test(session_will, pressure_at_the_end) {
    struct recorder *r = durable(HOUR_S, 0);
    r->append_err = DG_ERR_PRESSURE;
    session_unlinked(&r->session, DG_ERR_CLOSED);
    cr_assert_eq(r->event_count, 1);
    r->append_err = 0;
    session_ready(&r->session);
    cr_assert_eq(r->events[1].type, EVENT_EVENT);
    settle(r);
    recorder_free(r);
}

/* Changes of state alone are written after those that go with events: the record that a SUBSCRIBE
 * has written would come after the end's, and bring the will back at the next start. */
Test(session_will, not_before_a_change_that_is_on_the_way) {
    static const uint8_t subscribe[] = "\x82\x14\0\x09\0\0\x0e$dg/commands/#\1";
    for (unsigned stored = 0; stored < 2; stored++) {
        struct recorder *r = durable(HOUR_S, 0);
        feed(r, subscribe, sizeof(subscribe) - 1);
        cr_assert(r->mutation_count == 2 && written_with_will(last(r)));
        session_unlinked(&r->session, DG_ERR_CLOSED);
        cr_assert_eq(r->event_count, 1);
        session_append_done(&r->session, last(r)->tag, stored ? 0 : DG_ERR_STORAGE_FULL);
        cr_assert_eq(r->event_count, 3);
        cr_assert_eq(last(r)->with_event, 1);
        cr_assert(!written_with_will(last(r)));
        settle(r);
        recorder_free(r);
    }
}

Test(session_will, goodbye_and_revocation_leave_none) {
    static const uint8_t goodbye[] = {0xE0, 0};
    for (unsigned how = 0; how < 3; how++) {
        struct recorder *r = durable(HOUR_S, how == 2 ? 0 : 10);
        if (how == 0)
            feed(r, goodbye, sizeof(goodbye));
        else
            session_stop(&r->session, how == 1 ? DG_ERR_DISABLED : DG_ERR_ADMINISTRATIVE, NULL);
        settle(r);
        cr_assert_eq(r->event_count, 2);
        cr_assert_null(r->kept->will);
        cr_assert(!written_with_will(last(r)));
        recorder_free(r);
    }
}

Test(session_will, resumed_it_is_not_left) { /* MQTT5 3.1.3-9 */
    struct recorder *r = claimed(&(struct will_options){HOUR_S, 10}, kept_with_will());
    struct session_kept *kept = written(&r->mutations[0]);
    struct will_content content;
    will_read(kept->will, &content);
    cr_assert(slice_equals_string(content.topic, "$dg/events/lost"));
    kept_free(kept);
    cr_assert_eq(r->event_count, 0);
    session_append_done(&r->session, r->mutations[0].tag, 0);
    cr_assert_null(r->session.kept->will);
    recorder_free(r);
}

Test(session_will, resuming_that_failed_leaves_it_waiting) {
    struct recorder *r = claimed(&(struct will_options){HOUR_S, 10}, kept_with_will());
    session_append_done(&r->session, r->mutations[0].tag, DG_ERR_STORAGE_FULL);
    settle(r);
    cr_assert(r->kept->will && r->kept->will->due.at_ms == 12345);
    recorder_free(r);
}

Test(session_will, clean_start_ends_the_session_that_leaves_it) {
    for (unsigned lives_on = 0; lives_on < 2; lives_on++) {
        struct will_options options = {lives_on ? HOUR_S : 0, 10, .clean = true};
        struct recorder *r = claimed(&options, kept_with_will());
        cr_assert_eq(r->event_count, 1);
        cr_assert_str_eq(r->events[0].subject, "former");
        cr_assert_eq(r->mutations[0].with_event, 0, "one unit with the record");
        cr_assert_eq(r->mutations[0].is_delete, !lives_on);
        cr_assert_eq(r->sent_size, 0);
        session_append_done(&r->session, r->events[0].tag, 0);
        cr_assert_eq(r->session.state, SESSION_CONNECTED);
        cr_assert_eq(r->events[1].type, EVENT_DEVICE_CONNECTED);
        recorder_free(r);
    }
}

Test(session_will, clean_start_that_failed_leaves_it_waiting) {
    struct recorder *r =
        claimed(&(struct will_options){HOUR_S, 10, .clean = true}, kept_with_will());
    session_append_done(&r->session, r->events[0].tag, DG_ERR_STORAGE_FULL);
    settle(r);
    cr_assert(r->kept && r->kept->epoch == 77 && r->kept->will);
    recorder_free(r);
}

Test(session_will, bytes_have_a_limit) {
    struct recorder *r = recorder_create();
    recorder_free(r);
    r = durable(HOUR_S, 10);
    cr_assert_gt(r->shared.will_bytes, 0);
    recorder_free(r);
    struct will_options options = {HOUR_S, 10};
    r = began(&options);
    r->shared.will_bytes += LIMIT_WILLS_BYTES; /* of others */
    log_in(r);
    cr_assert(r->sent[0] == 0x20 && r->sent[3] == 0x97);
    r->shared.will_bytes = 0;
    recorder_free(r);
}

Test(session_will, text_that_is_none) {
    static const struct {
        const char *payload;
        bool is_text;
    } rows[] = {{"gr\xc3\xbc\xc3\x9f", true}, {"\xc3(", false}, {"", true}};
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct will_options options = {HOUR_S, 10, .is_text = true, .payload = rows[i].payload};
        struct recorder *r = began(&options);
        if (rows[i].is_text)
            cr_assert_eq(r->session.state, SESSION_AUTHENTICATING);
        else
            cr_assert(r->sent[0] == 0x20 && r->sent[3] == 0x99);
        recorder_free(r);
    }
    cr_assert(utf8_is_text("a\0b\0", 4) && !utf8_is_text("a\0\xff", 3) && utf8_is_text("", 0));
}

Test(session_will, payload_of_a_publish_that_is_no_text) {
    static const uint8_t qos1[] = {0x32, 10, 0, 1, 't', 0, 1, 2, 1, 1, 0xC3, '('};
    static const uint8_t qos2[] = {0x34, 10, 0, 1, 't', 0, 1, 2, 1, 1, 0xC3, '('};
    static const uint8_t qos0[] = {0x30, 8, 0, 1, 't', 2, 1, 1, 0xC3, '('};
    static const uint8_t fine[] = {0x32, 10, 0, 1, 't', 0, 1, 2, 1, 1, 0xC3, 0xBC};
    static const uint8_t said_nothing[] = {0x32, 10, 0, 1, 't', 0, 2, 2, 1, 0, 0xC3, '('};
    struct recorder *r = connected(MQTT_VERSION_5);
    feed(r, qos1, sizeof(qos1));
    cr_assert(r->sent[0] == 0x40 && r->sent[4] == 0x99);
    forget_sent(r);
    feed(r, qos2, sizeof(qos2));
    cr_assert(r->sent[0] == 0x50 && r->sent[4] == 0x99);
    cr_assert_eq(r->event_count, 1);
    feed(r, fine, sizeof(fine));
    cr_assert(r->events[1].payload_is_utf8);
    feed(r, said_nothing, sizeof(said_nothing));
    cr_assert(!r->events[2].payload_is_utf8);
    forget_sent(r);
    feed(r, qos0, sizeof(qos0));
    cr_assert(r->sent[0] == 0xE0 && r->sent[2] == 0x99);
    recorder_free(r);
}

/* ---- take-over, server reference ---- */

Test(session_will, presence_of_a_take_over) {
    static const struct session_takeover takeover = {"192.0.2.7:1", "192.0.2.8:2", "gw1-1-0-s9"};
    struct recorder *r = recorder_create();
    r->takeover = &takeover;
    feed_connect(r, MQTT_VERSION_5);
    log_in(r);
    session_claim_done(&r->session, 0, NULL, true);
    cr_assert_not_null(strstr(r->events[0].payload, "\"reason\":\"taken over\""));
    cr_assert_not_null(strstr(r->events[0].payload, "\"previous_peer\":\"192.0.2.7:1\""));
    cr_assert_not_null(strstr(r->events[0].payload, "\"previous_session_id\":\"gw1-1-0-s9\""));
    session_stop(&r->session, DG_ERR_TAKEN_OVER, NULL);
    const char *payload = r->events[1].payload;
    cr_assert_not_null(strstr(payload, "\"reason\":\"taken over by 192.0.2.8:2\""));
    cr_assert_not_null(strstr(payload, "\"reason_code\":142"));
    cr_assert_null(strstr(payload, "previous"));
    recorder_free(r);

    r = connected(MQTT_VERSION_5);
    r->takeover = &takeover; /* of an earlier one: it ended otherwise */
    session_unlinked(&r->session, DG_ERR_CLOSED);
    cr_assert_not_null(strstr(r->events[1].payload, "\"reason\":\"closed by the peer\""));
    recorder_free(r);
}

Test(session_will, server_reference_when_the_gateway_stops) {
    static const uint8_t reference[] = {0x1C, 0, 2, 'g', '2'};
    EACH_VERSION(version) {
        for (unsigned how = 0; how < 3; how++) {
            struct recorder *r = how == 2 ? recorder_create() : connected(version);
            if (how == 2) { /* before CONNACK */
                feed_connect(r, version);
                log_in(r);
            }
            free(r->config->mqtt_server_reference);
            r->config->mqtt_server_reference = strdup("g2");
            if (how == 0)
                session_stop(&r->session, DG_ERR_KEEP_ALIVE, NULL);
            else
                session_drain(&r->session);
            bool is_told = how > 0 && version == MQTT_VERSION_5;
            cr_assert_eq(memmem(r->sent, r->sent_size, reference, sizeof(reference)) != NULL,
                         is_told);
            if (is_told)
                cr_assert_eq(r->sent[how == 1 ? 2 : 3], 0x9C);
            recorder_free(r);
        }
    }
}

/* ---- SUBSCRIBE ---- */

Test(session_will, refused_filter_is_told_what_is_allowed) {
    static const uint8_t subscribe5[] = {0x82, 13, 0, 1, 0, 0, 1, 'x', 1, 0, 3, '$', 'd', 'g', 1};
    static const uint8_t subscribe3[] = {0x82, 6, 0, 1, 0, 1, 'x', 1};
    struct recorder *r = connected(MQTT_VERSION_5);
    feed(r, subscribe5, sizeof(subscribe5));
    cr_assert_not_null(memmem(r->sent, r->sent_size, "$dg/commands/#", 14));
    cr_assert(r->sent[r->sent_size - 1] == 0x87 && r->sent[r->sent_size - 2] == 0x87);
    cr_assert_eq(r->filters_refused, 2);
    forget_sent(r);
    r->session.flags |= SESSION_NO_PROBLEM_INFORMATION; /* MQTT5 3.1.2-29 */
    feed(r, subscribe5, sizeof(subscribe5));
    cr_assert_sent(r, 0x90, 5, 0, 1, 0, 0x87, 0x87);
    forget_sent(r);
    r->session.flags &= ~(uint32_t)SESSION_NO_PROBLEM_INFORMATION;
    r->session.peer_packet_bytes = 30; /* MQTT5 3.9.2-1 */
    feed(r, subscribe5, sizeof(subscribe5));
    cr_assert_sent(r, 0x90, 5, 0, 1, 0, 0x87, 0x87);
    recorder_free(r);

    r = connected(MQTT_VERSION_3_1_1);
    feed(r, subscribe3, sizeof(subscribe3));
    cr_assert_sent(r, 0x90, 3, 0, 1, 0x80);
    recorder_free(r);
}
