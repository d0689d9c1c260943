#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/metrics.h"
#include "common/metrics_series.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
enum { THREADS = 4, ROUNDS = 10000 };

static void *count(void *unused) {
    for (int i = 0; i < ROUNDS; i++) {
        metric_add(METRIC_EVENTS_STORED, 2);
        metric_observe(METRIC_COMMIT_EVENTS, 3, 2);
        metric_add(METRIC_DEVICES_CONNECTED, i % 2 ? -1 : 2);
    }
    return NULL;
}

Test(metrics, sums_over_threads_living_and_ended) {
    pthread_t threads[THREADS];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < THREADS; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL, count, NULL), 0);
        count(NULL);
        for (int i = 0; i < THREADS; i++)
            pthread_join(threads[i], NULL);
    }
    cr_expect_eq(metric_read(METRIC_EVENTS_STORED), 2 * (THREADS + 1) * ROUNDS * 2);
    cr_expect_eq(metric_read(METRIC_COMMIT_EVENTS), 2 * (THREADS + 1) * ROUNDS * 2);
    cr_expect_eq(metric_read(METRIC_DEVICES_CONNECTED), 2 * (THREADS + 1) * ROUNDS / 2);
}

Test(metrics, a_gauge_is_set_and_added_to) {
    metric_add(METRIC_STORAGE_FULL, 5);
    metric_set(METRIC_STORAGE_FULL, 1);
    cr_expect_eq(metric_read(METRIC_STORAGE_FULL), 1);
    metric_add(METRIC_STORAGE_FULL, -3);
    cr_expect_eq(metric_read(METRIC_STORAGE_FULL), -2);
}

static char *print(void) {
    struct buffer page = {0};
    cr_assert_eq(metrics_print(&page), 0);
    cr_assert_eq(buffer_append(&page, "", 1, SIZE_MAX / 2), 0);
    return (char *)page.data;
}

static unsigned occurrences(const char *page, const char *text) {
    unsigned found = 0;
    for (const char *at = page; (at = strstr(at, text)); at++)
        found++;
    return found;
}

Test(metrics, prints_prometheus_text) {
    metric_add(METRIC_LOGINS_OK, 41);
    metric_observe(METRIC_ACK_LATENCY, 10000, 1);          /* exactly 10 us */
    metric_observe(METRIC_ACK_LATENCY, 10001, 2);          /* 20 us */
    metric_observe(METRIC_ACK_LATENCY, 1500000000, 1);     /* 2 s */
    metric_observe(METRIC_ACK_LATENCY, 60000000000ull, 1); /* +Inf */
    metric_observe(METRIC_COMMIT_BYTES, 16777217, 1);
    metric_observe(METRIC_COMMIT_BYTES, 0, 1);
    metric_observe(METRIC_COMMIT_EVENTS, 100000, 1);
    char *page = print();
    static const char *const once[] = {
        "# HELP duragate_logins_total Authentication attempts of devices and principals\n",
        "# TYPE duragate_logins_total counter\n",
        "\nduragate_logins_total{result=\"ok\"} 41\n",
        "\nduragate_logins_total{result=\"refused\"} 0\n",
        "# TYPE duragate_connections gauge\n",
        "# TYPE duragate_ack_latency_seconds histogram\n",
        "\nduragate_ack_latency_seconds_bucket{le=\"1e-05\"} 1\n",
        "\nduragate_ack_latency_seconds_bucket{le=\"2e-05\"} 3\n",
        "\nduragate_ack_latency_seconds_bucket{le=\"0.001\"} 3\n",
        "\nduragate_ack_latency_seconds_bucket{le=\"1\"} 3\n",
        "\nduragate_ack_latency_seconds_bucket{le=\"2\"} 4\n",
        "\nduragate_ack_latency_seconds_bucket{le=\"10\"} 4\n",
        "\nduragate_ack_latency_seconds_bucket{le=\"+Inf\"} 5\n",
        "\nduragate_ack_latency_seconds_sum 61.500030002\n",
        "\nduragate_ack_latency_seconds_count 5\n",
        "\nduragate_commit_bytes_bucket{le=\"256\"} 1\n",
        "\nduragate_commit_bytes_bucket{le=\"16777216\"} 1\n",
        "\nduragate_commit_bytes_bucket{le=\"+Inf\"} 2\n",
        "\nduragate_commit_events_bucket{le=\"50000\"} 0\n",
        "\nduragate_commit_events_bucket{le=\"100000\"} 1\n",
        "\nduragate_events_stored_total 0\n",
    };
    for (size_t i = 0; i < COUNT_OF(once); i++)
        cr_expect_eq(occurrences(page, once[i]), 1, "%s", once[i]);
    free(page);
}

/* Rows of one name must stand together, or HELP and TYPE would appear twice. */
Test(metrics, each_name_has_one_head) {
    static const char *const names[] = {
#define METRIC(id, kind, name, labels, help) name,
#include "common/metrics_table.h"
#undef METRIC
    };
    char *page = print();
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char head[128];
        snprintf(head, sizeof(head), "# TYPE %s ", names[i]);
        cr_expect_eq(occurrences(page, head), 1, "%s", names[i]);
    }
    free(page);
}

/* ---- series whose labels are data ---- */

static struct metric_page *page_of(enum metric_id id, const char *labels, int64_t value) {
    struct metric_page *page = metric_page_new();
    cr_assert_eq(metric_page_add(page, id, labels, value), 0);
    return page;
}

Test(metrics, equal_series_of_several_publishers_are_one) {
    struct metric_page *page = page_of(METRIC_GROUP_LAG, "group=\"a\"", 5);
    cr_assert_eq(metric_page_add(page, METRIC_GROUP_LAG, "group=\"b\"", 1), 0);
    cr_assert_eq(metric_page_add(page, METRIC_GROUP_DISTANCE, "group=\"a\"", 7), 0);
    cr_assert_eq(metric_page_add(page, METRIC_GROUP_DISTANCE, "group=\"a\"", -3), 0);
    metric_page_publish(0, page);
    metric_page_publish(1, page_of(METRIC_GROUP_LAG, "group=\"a\"", 100));
    char *printed = print();
    cr_expect_eq(occurrences(printed, "\nduragate_consumer_group_lag_records{group=\"a\"} 105\n"),
                 1);
    cr_expect_eq(occurrences(printed, "\nduragate_consumer_group_lag_records{group=\"b\"} 1\n"), 1);
    cr_expect_eq(
        occurrences(printed,
                    "\nduragate_consumer_group_log_start_distance_records{group=\"a\"} -3\n"),
        1, "the least of them");
    cr_expect_eq(occurrences(printed, "# TYPE duragate_consumer_group_lag_records gauge\n"), 1);
    cr_expect_eq(occurrences(printed, "# TYPE duragate_stream_appended_records_total counter\n"),
                 1);
    free(printed);
    metric_page_publish(0, page_of(METRIC_GROUP_LAG, "group=\"b\"", 2));
    metric_page_publish(1, NULL);
    printed = print();
    cr_expect_eq(occurrences(printed, "group=\"a\""), 0, "what is not published again is gone");
    cr_expect_eq(occurrences(printed, "\nduragate_consumer_group_lag_records{group=\"b\"} 2\n"), 1);
    free(printed);
    metric_page_publish(0, NULL);
}

Test(metrics, labels_are_escaped_and_cut) {
    static const struct {
        const char *value, *expected;
    } cases[] = {
        {"plain", "plain"},
        {"", ""},
        {"a\"b\\c\nd", "a\\\"b\\\\c\\nd"},
        {"gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f"},
        {"\xff\xc3", "\xef\xbf\xbd\xef\xbf\xbd"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char labels[METRIC_LABELS_SIZE] = "", expected[METRIC_LABELS_SIZE];
        snprintf(expected, sizeof(expected), "tenant=\"acme\",group=\"%s\"", cases[i].expected);
        metric_label_append(labels, "tenant", slice_from_string("acme"));
        metric_label_append(labels, "group", slice_from_string(cases[i].value));
        cr_expect_str_eq(labels, expected);
    }
    char labels[METRIC_LABELS_SIZE] = "", hostile[255];
    memset(hostile, '"', sizeof(hostile));
    metric_label_append(labels, "tenant", slice_make(hostile, 63));
    metric_label_append(labels, "group", slice_make(hostile, sizeof(hostile)));
    size_t size = strlen(labels);
    cr_expect_lt(size, METRIC_LABELS_SIZE);
    cr_expect_str_eq(labels + size - 6, "\\\"...\"", "%s", labels + size - 6);
}
