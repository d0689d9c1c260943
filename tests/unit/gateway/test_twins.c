/* Device twins between two workers that are no threads: mail is delivered by hand. PostgreSQL, the
 * stream and the sessions are played by functions that keep what they are given. */
#include <criterion/criterion.h>
#include <event2/event.h>
#include <stdio.h>
#include <stdlib.h>

#include "gateway/command/twins_internal.h"
#include "gateway/session/claims.h"
#include "leaks.h"

TestSuite(twins, .fini = check_leaks);

enum { WORKERS = 2, SESSION = 9, KEPT_MAX = 128 };

static struct worker fakes[WORKERS], *workers[WORKERS];
static struct twins_options options;

/* ---- what is played ---- */

static struct registry_request *asked[KEPT_MAX];
static struct transition *appended[KEPT_MAX];
static struct outbox_message *given[KEPT_MAX];
static unsigned asked_count, appended_count, given_count, answer_count;
static int deliver_err;
static struct twin_answer last;
static char last_why[TWIN_WHY_SIZE], last_document[512];

struct registry_request *registry_request_new(enum registry_statement statement) {
    struct registry_request *request = calloc(1, sizeof(*request));
    request->statement = statement;
    return request;
}

int registry_request_add(struct registry_request *request, struct slice value) {
    request->parameters[request->parameter_count++] = strndup((const char *)value.data, value.size);
    return 0;
}

void registry_request_free(struct registry_request *request) {
    for (unsigned i = 0; request && i < request->parameter_count; i++)
        free(request->parameters[i]);
    free(request);
}

void registry_execute(struct registry *registry, struct registry_request *request) {
    cr_assert_eq(request->statement, STATEMENT_TWIN_LOAD);
    cr_assert(request->is_own);
    asked[asked_count++] = request;
}

void transitions_append(struct worker *worker, struct transition *transition) {
    appended[appended_count++] = transition;
}

static int deliver(struct worker *worker, uint64_t owner, struct outbox_message *message) {
    if (deliver_err < 0)
        return deliver_err;
    given[given_count++] = message;
    return 0;
}

static void on_answered(struct worker *worker, const struct twin_answer *answer) {
    answer_count++;
    last = *answer;
    snprintf(last_why, sizeof(last_why), "%.*s", (int)answer->why.size,
             (const char *)answer->why.data);
    snprintf(last_document, sizeof(last_document), "%.*s", (int)answer->document.size,
             (const char *)answer->document.data);
}

/* ---- the stage ---- */

static void deliver_all(void) {
    while (mailbox_drain(&fakes[0].mailbox) + mailbox_drain(&fakes[1].mailbox) > 0) {
    }
}

static void begin(bool is_restored) {
    asked_count = appended_count = given_count = answer_count = 0;
    deliver_err = 0;
    options = (struct twins_options){
        .workers = workers, .worker_count = WORKERS, .deliver = deliver, .answered = on_answered};
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = &fakes[i];
        fakes[i] = (struct worker){.index = i, .base = event_base_new(), .wall_ms = 1700000000000};
        cr_assert_eq(mailbox_init(&fakes[i].mailbox, workers[i]), 0);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        cr_assert_eq(twins_worker_start(workers[i], &options), 0);
        if (is_restored)
            twins_restored(workers[i]);
    }
}

static void end(void) {
    deliver_all();
    for (unsigned i = 0; i < WORKERS; i++)
        twins_worker_free(workers[i]);
    deliver_all(); /* what comes back to nobody */
    for (unsigned i = 0; i < WORKERS; i++) {
        mailbox_free(&fakes[i].mailbox);
        event_base_free(fakes[i].base);
    }
}

static int64_t device_at_home(unsigned worker) {
    int64_t key = 1;
    while (claims_home(key, WORKERS) != worker)
        key++;
    return key;
}

static struct twins *home_of(int64_t device) {
    return twins_of(workers[claims_home(device, WORKERS)]);
}

static void retry(int64_t device) {
    twins_on_retry(-1, 0, home_of(device));
    deliver_all();
}

static int ask_with(enum twin_action action, int64_t device, const char *patch, int64_t expected) {
    struct twin_request request = {.action = action,
                                   .target = {.device_key = device, .tenant_key = 7},
                                   .owner = SESSION,
                                   .tag = 5,
                                   .note = slice_from_string("rid"),
                                   .patch = slice_from_string(patch),
                                   .expected_version = expected};
    int err = twins_ask(workers[1], &request);
    deliver_all();
    return err;
}

static void report(int64_t device, const char *patch) {
    cr_assert_eq(ask_with(TWIN_REPORT, device, patch, 0), 0);
}

/* The stream has it (or not), or PostgreSQL. */
static void done(unsigned i, int err) {
    appended[i]->err = err;
    appended[i]->done(home_of(appended[i]->owner)->worker, appended[i]);
    deliver_all();
}

static void projected(unsigned i) {
    appended[i]->projected(home_of(appended[i]->owner)->worker, appended[i]);
    deliver_all();
}

static void answer_load(struct registry_request *request, int err, char **values, unsigned rows) {
    request->err = err;
    request->values = values;
    request->row_count = rows;
    request->column_count = 6;
    struct twins *twins = home_of(strtoll(request->parameters[0] + 1, NULL, 10));
    request->mail.deliver(&request->mail, twins->worker);
    deliver_all();
}

/* The last load finds one device like this. */
static void loaded(int64_t device, int desired_version, const char *desired, const char *recent,
                   int reported_version, const char *reported) {
    char key[24], version[24], said[24];
    snprintf(key, sizeof(key), "%lld", (long long)device);
    snprintf(version, sizeof(version), "%d", desired_version);
    snprintf(said, sizeof(said), "%d", reported_version);
    char *values[] = {key,
                      version,
                      (char *)(uintptr_t)desired,
                      (char *)(uintptr_t)recent,
                      said,
                      (char *)(uintptr_t)reported};
    answer_load(asked[asked_count - 1], 0, values, 1);
}

static void listen_as(uint64_t owner, int64_t device, enum twin_shape shape, const char *child) {
    struct twin_listener listener = {
        .device_key = device, .owner = owner, .shape = shape, .child = slice_from_string(child)};
    cr_assert_eq(twins_listen(workers[1], &listener), 0);
    deliver_all();
}

static void notice(const char *keys) {
    for (unsigned i = 0; i < WORKERS; i++)
        twins_notice(workers[i], keys);
    deliver_all();
}

static void notice_of(int64_t device) {
    char text[64];
    snprintf(text, sizeof(text), "999,%lld", (long long)device);
    notice(text);
}

static void expect_given(unsigned i, const char *topic, uint8_t qos, const char *payload) {
    cr_assert_lt(i, given_count);
    const struct outbox_message *message = given[i];
    cr_expect(slice_equals_string(message->topic, topic), "%.*s", (int)message->topic.size,
              (const char *)message->topic.data);
    cr_expect_eq(message->qos, qos);
    cr_expect_eq(strncmp((const char *)message->payload, payload, message->payload_size), 0, "%s",
                 (const char *)message->payload);
    cr_expect_eq(message->payload_size, strlen(payload));
}

/* The session is through with it. */
static void finished(unsigned i, enum outbox_outcome outcome, int err) {
    given[i]->outcome = (uint8_t)outcome;
    given[i]->err = (int8_t)err;
    given[i]->finished(given[i]);
    deliver_all();
}

#define EACH_HOME(device)                           \
    for (unsigned home_i = 0; home_i < 2; home_i++) \
        for (int64_t device = device_at_home(home_i), *once = &device; once; once = NULL)

/* ---- reports ---- */

Test(twins, a_report) {
    EACH_HOME(device) {
        char row[128];
        begin(true);
        report(device, "{\"a\":1}");
        cr_assert_eq(asked_count, 1);
        loaded(device, 4, "{}", NULL, 7, "{\"b\": 2}");
        cr_assert_eq(appended_count, 1);
        const struct transition *transition = appended[0];
        snprintf(row, sizeof(row), "{\"k\":%lld,\"v\":8,\"at\":1700000000000,\"p\":{\"a\":1}}",
                 (long long)device);
        cr_assert(slice_equals_string(transition->row, row));
        cr_assert(slice_equals_string(transition->payload, "{\"version\":8,\"patch\":{\"a\":1}}"));
        cr_assert_eq(transition->kind, PROJECTION_TWIN);
        cr_assert_eq(transition->owner, device);
        cr_assert_eq(transition->state.name_space, 0);
        cr_assert_eq(answer_count, 0, "it is not durable yet");
        done(0, 0);
        cr_assert_eq(answer_count, 1);
        cr_assert(last.err == 0 && last.version == 8 && last.owner == SESSION && last.tag == 5);
        cr_assert(slice_equals_string(last.note, "rid"));
        projected(0);
        end();
    }
}

Test(twins, one_report_at_a_time) {
    int64_t device = device_at_home(0);
    begin(true);
    for (unsigned i = 0; i < 3; i++)
        report(device, "{\"a\":1}");
    cr_assert_eq(asked_count, 1, "one reading is enough");
    loaded(device, 1, "{}", NULL, 1, "{}");
    cr_assert_eq(asked_count, 1);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(appended_count, i + 1);
        done(i, 0);
        cr_assert_eq(last.version, 2 + i);
    }
    for (unsigned i = 0; i < 3; i++)
        projected(i);
    report(device, "{\"b\":1}");
    cr_assert_eq(asked_count, 1, "it is remembered");
    done(3, 0);
    cr_assert_eq(last.version, 5);
    projected(3);
    end();
}

Test(twins, what_the_stream_did_not_take_did_not_happen) {
    int64_t device = device_at_home(0);
    begin(true);
    report(device, "{\"a\":1}");
    report(device, "{\"b\":1}");
    loaded(device, 1, "{}", NULL, 1, "{}");
    done(0, DG_ERR_STORAGE_FULL);
    cr_assert_eq(last.err, DG_ERR_STORAGE_FULL);
    cr_assert(slice_equals_string(appended[1]->payload, "{\"version\":2,\"patch\":{\"b\":1}}"));
    done(1, 0);
    cr_assert_str_eq(twin_find(home_of(device), device)->reported, "{\"b\":1}");
    projected(1);
    cr_assert_eq(home_of(device)->unsaid_bytes, 0);
    end();
}

Test(twins, reports_that_are_refused) {
    int64_t device = device_at_home(1);
    static char large[LIMIT_TWIN_BYTES + 64];
    begin(true);
    memset(large, 'x', sizeof(large) - 1);
    memcpy(large, "{\"a\":\"", 6);
    strcpy(large + LIMIT_TWIN_BYTES - 2, "\"}");
    report(device, "{\"b\":1}");
    loaded(device, 1, "{}", NULL, 3, large);
    cr_assert_eq(last.err, DG_ERR_STATE_SIZE);
    cr_assert_str_eq(
        last_why, "the document would have 32774 bytes as compact JSON; at most 32768 are allowed");
    cr_assert_eq(ask_with(TWIN_REPORT, device, "{\"a\":null}", 2), 0);
    cr_assert_eq(last.err, DG_ERR_PRECONDITION);
    cr_assert_str_eq(last_why, "the version is 3");
    cr_assert_eq(ask_with(TWIN_REPORT, device, "{\"a\":null}", 3), 0);
    done(0, 0);
    cr_assert_eq(last.version, 4);
    projected(0);
    home_of(device)->unsaid_bytes = LIMIT_TWIN_UNSAID_BYTES + 1;
    report(device, "{}");
    cr_assert_eq(last.err, DG_ERR_BUSY);
    home_of(device)->unsaid_bytes = 0;
    end();
}

Test(twins, postgresql_does_not_answer) {
    int64_t device = device_at_home(0);
    begin(true);
    report(device, "{\"a\":1}");
    answer_load(asked[0], DG_ERR_TIMEOUT, NULL, 0);
    cr_assert_eq(last.err, DG_ERR_TIMEOUT);
    report(device, "{\"a\":1}");
    cr_assert_eq(asked_count, 2);
    answer_load(asked[1], 0, NULL, 0); /* the device has gone */
    cr_assert_eq(last.err, DG_ERR_NOT_FOUND);
    cr_assert_eq(home_of(device)->by_key.count, 0);
    end();
}

/* What the process before left is said first. */
Test(twins, nothing_is_read_before_it_may_be) {
    int64_t device = device_at_home(0);
    begin(false);
    report(device, "{\"a\":1}");
    listen_as(SESSION, device, TWIN_WHOLE, "");
    cr_assert_eq(asked_count, 0);
    retry(device);
    cr_assert_eq(last.err, DG_ERR_UNAVAILABLE);
    twins_restored(workers[0]);
    cr_assert_eq(asked_count, 1);
    loaded(device, 1, "{}", NULL, 1, "{}");
    cr_assert_eq(given_count, 1);
    finished(0, OUTBOX_ACKNOWLEDGED, 0);
    end();
}

/* A reading that was under way when PostgreSQL was told more must not bring back what was. */
Test(twins, a_reading_may_be_too_old) {
    int64_t device = device_at_home(0);
    begin(true);
    report(device, "{\"a\":1}");
    loaded(device, 1, "{}", NULL, 1, "{}");
    done(0, 0);
    listen_as(SESSION, device, TWIN_WHOLE, "");
    cr_assert_eq(asked_count, 2);
    projected(0);
    loaded(device, 1, "{}", NULL, 1, "{}"); /* from before */
    report(device, "{\"b\":1}");
    cr_assert(slice_equals_string(appended[1]->payload, "{\"version\":3,\"patch\":{\"b\":1}}"));
    done(1, 0);
    projected(1);
    finished(0, OUTBOX_ACKNOWLEDGED, 0);
    end();
}

Test(twins, somebody_else_has_written_it) {
    int64_t device = device_at_home(0);
    begin(true);
    report(device, "{\"a\":1}");
    loaded(device, 1, "{}", NULL, 1, "{}");
    done(0, 0);
    notice_of(device); /* while PostgreSQL is being told: it holds until then */
    report(device, "{\"b\":1}");
    cr_assert_eq(asked_count, 1);
    done(1, 0);
    projected(0);
    projected(1);
    report(device, "{\"c\":1}");
    cr_assert_eq(asked_count, 2);
    loaded(device, 1, "{}", NULL, 9, "{}");
    done(2, 0);
    cr_assert_eq(last.version, 10);
    projected(2);
    notice_of(device);
    cr_assert_null(twin_find(home_of(device), device));
    report(device, "{}");
    cr_assert_eq(asked_count, 3);
    loaded(device, 1, "{}", NULL, 10, "{}");
    done(3, 0);
    projected(3);
    notice("");
    cr_assert_eq(home_of(device)->by_key.count, 0);
    end();
}

Test(twins, a_qos_2_identity_goes_with_it) {
    int64_t device = device_at_home(0);
    begin(true);
    struct twin_request request = {.action = TWIN_REPORT,
                                   .target = {.device_key = device},
                                   .patch = slice_from_string("{}"),
                                   .identity = slice_from_string("key")};
    cr_assert_eq(twins_ask(workers[1], &request), 0);
    deliver_all();
    loaded(device, 1, "{}", NULL, 1, "{}");
    cr_assert_eq(appended[0]->state.name_space, STREAM_STATE_QOS2);
    cr_assert(slice_equals_string(appended[0]->state.key, "key"));
    cr_assert_eq(appended[0]->state.value.size, 8);
    done(0, 0);
    projected(0);
    end();
}

Test(twins, get) {
    int64_t device = device_at_home(0);
    begin(true);
    listen_as(SESSION, device, TWIN_CHANGES, "");
    cr_assert_eq(ask_with(TWIN_GET, device, "", 0), 0); /* what is being read may be older */
    loaded(device, 1, "{\"old\": 1}", "[]", 1, "{}");
    cr_assert_eq(answer_count, 0);
    loaded(device, 2, "{\"a\": 1}", "[]", 1, "{}");
    cr_assert_eq(answer_count, 1);
    cr_assert_str_eq(last_document, "{\"desired\":{\"a\": 1,\"$version\":2},"
                                    "\"reported\":{\"$version\":1}}");
    report(device, "{\"r\":1}");
    cr_assert_eq(ask_with(TWIN_GET, device, "", 0), 0);
    loaded(device, 2, "{}", "[]", 1, "{}");
    done(0, 0);
    loaded(device, 2, "{}", "[]", 1, "{}"); /* PostgreSQL does not know yet */
    cr_assert_str_eq(last_document, "{\"desired\":{\"$version\":2},"
                                    "\"reported\":{\"r\":1,\"$version\":2}}");
    projected(0);
    end();
}

/* ---- listeners ---- */

Test(twins, the_latest_when_the_one_before_has_arrived) {
    EACH_HOME(device) {
        begin(true);
        listen_as(SESSION, device, TWIN_WHOLE, "");
        loaded(device, 1, "{}", NULL, 1, "{}");
        expect_given(0, "$dg/state/desired", 1, "{\"version\":1,\"state\":{}}");
        notice_of(device);
        loaded(device, 2, "{\"a\": 1}", NULL, 1, "{}");
        notice_of(device);
        loaded(device, 3, "{\"a\": 2}", NULL, 1, "{}");
        cr_assert_eq(given_count, 1);
        finished(0, OUTBOX_ACKNOWLEDGED, 0);
        loaded(device, 3, "{\"a\": 2}", NULL, 1, "{}");
        expect_given(1, "$dg/state/desired", 1, "{\"version\":3,\"state\":{\"a\": 2}}");
        finished(1, OUTBOX_REFUSED, 0);
        cr_assert_eq(asked_count, 4);
        notice_of(device);
        loaded(device, 3, "{\"a\": 2}", NULL, 1, "{}");
        cr_assert_eq(given_count, 2, "nothing new");
        end();
    }
}

Test(twins, as_anew) {
    int64_t device = device_at_home(0);
    begin(true);
    for (unsigned i = 0; i < 2; i++) {
        listen_as(SESSION, device, TWIN_WHOLE, "c1");
        loaded(device, 1, "{}", NULL, 1, "{}");
        expect_given(i, "$dg/via/c1/state/desired", 1, "{\"version\":1,\"state\":{}}");
        if (i == 0)
            finished(i, OUTBOX_ACKNOWLEDGED, 0);
    }
    listen_as(SESSION, device, TWIN_WHOLE, "c1"); /* while one is under way */
    loaded(device, 1, "{}", NULL, 1, "{}");
    cr_assert_eq(given_count, 2);
    finished(1, OUTBOX_ACKNOWLEDGED, 0);
    loaded(device, 1, "{}", NULL, 1, "{}");
    cr_assert_eq(given_count, 3);
    finished(2, OUTBOX_ACKNOWLEDGED, 0);
    end();
}

Test(twins, who_is_gone_is_forgotten) {
    static const int errs[] = {DG_ERR_NOT_CONNECTED, DG_ERR_NOT_FOUND};
    for (unsigned i = 0; i < 2; i++) {
        int64_t device = device_at_home(i);
        begin(true);
        listen_as(SESSION, device, TWIN_WHOLE, "");
        deliver_err = errs[i];
        loaded(device, 1, "{}", NULL, 1, "{}");
        cr_assert_eq(home_of(device)->by_key.count, 0);
        cr_assert_eq(home_of(device)->message_bytes, 0);
        notice_of(device);
        cr_assert_eq(asked_count, 1);
        deliver_err = 0;
        listen_as(SESSION, device, TWIN_WHOLE, "");
        loaded(device, 1, "{}", NULL, 1, "{}");
        twins_ignore(workers[1], device, SESSION);
        deliver_all();
        cr_assert_eq(home_of(device)->by_key.count, 0);
        finished(0, OUTBOX_DROPPED, DG_ERR_CLOSED);
        twins_ignore(workers[1], device, SESSION);
        end();
    }
}

/* What a listener of before had under way is nothing to the one that came after it. */
Test(twins, who_listens_again_meanwhile) {
    EACH_HOME(device) {
        begin(true);
        listen_as(SESSION, device, TWIN_WHOLE, "");
        loaded(device, 1, "{}", NULL, 1, "{}");
        twins_ignore(workers[1], device, SESSION);
        listen_as(SESSION, device, TWIN_WHOLE, "");
        loaded(device, 1, "{}", NULL, 1, "{}");
        cr_assert_eq(given_count, 2);
        if (home_i == 0)
            finished(0, OUTBOX_ACKNOWLEDGED, 0);
        else
            finished(0, OUTBOX_DROPPED, DG_ERR_NOT_FOUND);
        finished(1, OUTBOX_ACKNOWLEDGED, 0);
        notice_of(device);
        loaded(device, 2, "{\"a\": 1}", NULL, 1, "{}");
        expect_given(2, "$dg/state/desired", 1, "{\"version\":2,\"state\":{\"a\": 1}}");
        finished(2, OUTBOX_ACKNOWLEDGED, 0);
        end();
    }
}

Test(twins, what_finds_no_room_is_tried_again) {
    int64_t device = device_at_home(0);
    begin(true);
    listen_as(SESSION, device, TWIN_WHOLE, "");
    deliver_err = DG_ERR_LIMIT;
    loaded(device, 2, "{}", NULL, 1, "{}");
    cr_assert_eq(asked_count, 1);
    deliver_err = 0;
    retry(device);
    cr_assert_eq(asked_count, 2);
    answer_load(asked[1], DG_ERR_UNAVAILABLE, NULL, 0);
    retry(device);
    home_of(device)->message_bytes = LIMIT_TWIN_MESSAGE_BYTES + 1;
    loaded(device, 2, "{}", NULL, 1, "{}");
    cr_assert_eq(given_count, 0);
    home_of(device)->message_bytes = 0;
    retry(device);
    loaded(device, 2, "{}", NULL, 1, "{}");
    cr_assert_eq(given_count, 1);
    retry(device);
    cr_assert_eq(asked_count, 4, "nothing is left to be tried");
    finished(0, OUTBOX_ACKNOWLEDGED, 0);
    end();
}

Test(twins, each_change_in_order) {
    static const char recent[] = "[{\"version\":2,\"change\":{\"a\":1}},"
                                 "{\"version\":3,\"change\":{\"a\":null}},"
                                 "{\"version\":4,\"change\":{}}]";
    int64_t device = device_at_home(0);
    begin(true);
    listen_as(SESSION, device, TWIN_CHANGES, "");
    cr_assert_eq(strtoll(asked[0]->parameters[1] + 1, NULL, 10), device);
    loaded(device, 2, "{\"a\": 1}", recent, 1, "{}");
    cr_assert_eq(given_count, 0, "it hears of what comes");
    notice_of(device);
    loaded(device, 4, "{}", recent, 1, "{}");
    expect_given(0, "$dg/state/desired/3", 0, "{\"a\":null,\"$version\":3}");
    expect_given(1, "$dg/state/desired/4", 0, "{\"$version\":4}");
    finished(0, OUTBOX_SENT, 0);
    finished(1, OUTBOX_DROPPED, DG_ERR_PRESSURE);
    retry(device);
    loaded(device, 4, "{}", recent, 1, "{}");
    expect_given(2, "$dg/state/desired/4", 0, "{\"$version\":4}");
    finished(2, OUTBOX_SENT, 0);
    notice_of(device);
    loaded(device, 9, "{\"z\": 1}", "[{\"version\":9,\"change\":{\"q\":1}}]", 1, "{}");
    expect_given(3, "$dg/state/desired/9", 0, "{\"z\": 1,\"$version\":9}");
    finished(3, OUTBOX_SENT, 0);
    notice_of(device);
    loaded(device, 5, "{}", "[]", 1, "{}"); /* PostgreSQL was put back */
    notice_of(device);
    loaded(device, 6, "{}", "[{\"version\":6,\"change\":{\"n\":1}}]", 1, "{}");
    expect_given(4, "$dg/state/desired/6", 0, "{\"n\":1,\"$version\":6}");
    finished(4, OUTBOX_SENT, 0);
    end();
}

Test(twins, listeners_have_a_limit) {
    int64_t device = device_at_home(0);
    begin(true);
    for (unsigned i = 1; i <= LIMIT_TWIN_LISTENERS + 2; i++)
        listen_as(i, device, TWIN_WHOLE, "");
    unsigned count = 0;
    for (struct twin_ear *ear = twin_find(home_of(device), device)->ears; ear; ear = ear->next)
        cr_assert_eq(ear->owner, LIMIT_TWIN_LISTENERS + 2 - count++);
    cr_assert_eq(count, LIMIT_TWIN_LISTENERS);
    answer_load(asked[0], 0, NULL, 0);
    cr_assert_eq(home_of(device)->by_key.count, 1, "it is read again: others came meanwhile");
    answer_load(asked[1], 0, NULL, 0); /* the device has gone */
    cr_assert_eq(home_of(device)->by_key.count, 0);
    end();
}

/* ---- together ---- */

Test(twins, many_are_read_at_a_time) {
    int64_t devices[LIMIT_TWIN_LOADS + 6];
    unsigned count = 0;
    begin(true);
    for (int64_t key = 1; count < LIMIT_TWIN_LOADS + 6; key++)
        if (claims_home(key, WORKERS) == 0)
            devices[count++] = key;
    for (unsigned i = 0; i < count; i++)
        listen_as(SESSION, devices[i], TWIN_WHOLE, "");
    cr_assert_eq(asked_count, 1);
    cr_assert_null(strchr(asked[0]->parameters[0], ','), "the first did not wait for others");
    answer_load(asked[0], DG_ERR_TIMEOUT, NULL, 0);
    cr_assert_eq(asked_count, 2);
    unsigned commas = 0;
    for (const char *at = asked[1]->parameters[0]; (at = strchr(at, ',')); at++)
        commas++;
    cr_assert_eq(commas, LIMIT_TWIN_LOADS - 1);
    answer_load(asked[1], DG_ERR_TIMEOUT, NULL, 0);
    answer_load(asked[2], DG_ERR_TIMEOUT, NULL, 0);
    cr_assert_eq(asked_count, 3);
    retry(devices[0]);
    cr_assert_eq(asked_count, 4, "all are tried again");
    answer_load(asked[3], DG_ERR_TIMEOUT, NULL, 0);
    answer_load(asked[4], DG_ERR_TIMEOUT, NULL, 0);
    if (asked_count == 6)
        answer_load(asked[5], DG_ERR_TIMEOUT, NULL, 0);
    end();
}

Test(twins, questions_have_a_limit) {
    int64_t device = device_at_home(0);
    begin(true);
    for (unsigned i = 0; i < LIMIT_TWIN_ASKS; i++)
        report(device, "{}");
    cr_assert_eq(ask_with(TWIN_REPORT, device, "{}", 0), DG_ERR_BUSY);
    answer_load(asked[0], DG_ERR_TIMEOUT, NULL, 0);
    cr_assert_eq(answer_count, LIMIT_TWIN_ASKS);
    report(device, "{}");
    answer_load(asked[1], DG_ERR_TIMEOUT, NULL, 0);
    end();
}

Test(twins, what_is_not_used_is_forgotten_first) {
    static char large[LIMIT_TWIN_BYTES + 1];
    memset(large, 'x', sizeof(large) - 1);
    memcpy(large, "{\"a\":\"", 6);
    strcpy(large + LIMIT_TWIN_BYTES - 2, "\"}");
    begin(true);
    int64_t first = 0, unsaid = 0, key = 0;
    unsigned room = LIMIT_TWIN_KNOWN_BYTES / LIMIT_TWIN_BYTES;
    for (unsigned i = 0; i < room + 3;) {
        if (claims_home(++key, WORKERS) != 0)
            continue;
        asked_count = appended_count = 0;
        report(key, "{}");
        loaded(key, 1, "{}", NULL, 1, large);
        done(0, 0);
        if (i == 0)
            unsaid = key, appended[KEPT_MAX - 1] = appended[0];
        else
            projected(0);
        if (i == 1)
            first = key;
        i++;
    }
    cr_assert_leq(home_of(first)->known_bytes, LIMIT_TWIN_KNOWN_BYTES);
    cr_assert_null(twin_find(home_of(first), first));
    cr_assert_not_null(twin_find(home_of(unsaid), unsaid)->reported, "only the stream has it");
    cr_assert_not_null(twin_find(home_of(key), key));
    projected(KEPT_MAX - 1);
    end();
}
