#include "common/metrics_series.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/assert.h"
#include "common/metrics_internal.h"
#include "common/utf8.h"

struct entry {
    enum metric_id id;
    int64_t value;
    size_t labels_at; /* in text, ended by NUL */
};

struct metric_page {
    struct entry *entries;
    size_t count, room;
    struct buffer text;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct metric_page *published[METRIC_PUBLISHERS]; /* by lock */

/* ---- pages ---- */

struct metric_page *metric_page_new(void) {
    return calloc(1, sizeof(struct metric_page));
}

void metric_page_free(struct metric_page *page) {
    if (!page)
        return;
    free(page->entries);
    buffer_free(&page->text);
    free(page);
}

static int grow(struct metric_page *page) {
    size_t room = page->room ? 2 * page->room : 64;
    struct entry *entries = realloc(page->entries, room * sizeof(*entries));
    if (!entries)
        return DG_ERR_NO_MEMORY;
    page->entries = entries;
    page->room = room;
    return 0;
}

int metric_page_add(struct metric_page *page, enum metric_id id, const char *labels,
                    int64_t value) {
    enum { TEXT_BYTES_MAX = 64 * 1024 * 1024 };
    dg_assert(metric_is_series(metric_rows[id].kind));
    size_t at = buffer_size(&page->text);
    if (page->count == page->room && grow(page) < 0)
        return DG_ERR_NO_MEMORY;
    if (buffer_append(&page->text, labels, strlen(labels) + 1, TEXT_BYTES_MAX) < 0)
        return DG_ERR_NO_MEMORY;
    page->entries[page->count++] = (struct entry){id, value, at};
    return 0;
}

void metric_page_publish(unsigned publisher, struct metric_page *page) {
    dg_assert(publisher < METRIC_PUBLISHERS);
    pthread_mutex_lock(&lock);
    struct metric_page *before = published[publisher];
    published[publisher] = page;
    pthread_mutex_unlock(&lock);
    metric_page_free(before);
}

/* ---- reading ---- */

static size_t count_of(enum metric_id id) {
    size_t count = 0;
    for (unsigned p = 0; p < METRIC_PUBLISHERS; p++)
        for (size_t i = 0; published[p] && i < published[p]->count; i++)
            count += published[p]->entries[i].id == id;
    return count;
}

static void collect(enum metric_id id, struct metric_series *ret_series) {
    size_t count = 0;
    for (unsigned p = 0; p < METRIC_PUBLISHERS; p++) {
        const struct metric_page *page = published[p];
        for (size_t i = 0; page && i < page->count; i++)
            if (page->entries[i].id == id)
                ret_series[count++] =
                    (struct metric_series){.labels = (const char *)buffer_slice(&page->text).data +
                                                     page->entries[i].labels_at,
                                           .value = page->entries[i].value};
    }
}

static int compare_series(const void *a, const void *b) {
    const struct metric_series *x = a, *y = b;
    return strcmp(x->labels, y->labels);
}

static int64_t join(enum metric_kind kind, int64_t a, int64_t b) {
    switch (kind) {
    case METRIC_KIND_SERIES_LEAST:
        return a < b ? a : b;
    case METRIC_KIND_SERIES_MOST:
        return a > b ? a : b;
    default:
        return a + b;
    }
}

/* Equal ones become one; returns how many are left. */
static size_t fold(enum metric_kind kind, struct metric_series *series, size_t count) {
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        struct metric_series *last = kept > 0 ? &series[kept - 1] : NULL;
        if (last && strcmp(last->labels, series[i].labels) == 0)
            last->value = join(kind, last->value, series[i].value);
        else
            series[kept++] = series[i];
    }
    return kept;
}

int metric_visit_series(enum metric_id id, metric_visit_fn *visit, void *context) {
    int err = 0;
    pthread_mutex_lock(&lock);
    size_t count = count_of(id);
    struct metric_series *series = calloc(count + 1, sizeof(*series));
    if (series) {
        collect(id, series);
        qsort(series, count, sizeof(*series), compare_series);
        count = fold(metric_rows[id].kind, series, count);
    }
    for (size_t i = 0; series && err == 0 && i < count; i++)
        err = visit(context, &series[i]);
    pthread_mutex_unlock(&lock);
    free(series);
    return series ? err : DG_ERR_NO_MEMORY;
}

/* ---- labels ---- */

/* What stands for the bytes at `at`, and how many they are. */
static const char *escape(const uint8_t *at, size_t left, char *ret_text, size_t *ret_used) {
    size_t size = utf8_character_size(at, left);
    *ret_used = size > 0 ? size : 1;
    if (size == 0)
        return "\xef\xbf\xbd"; /* U+FFFD */
    if (*at == '\n')
        return "\\n";
    size_t slash = *at == '"' || *at == '\\';
    if (slash)
        ret_text[0] = '\\';
    memcpy(ret_text + slash, at, size);
    ret_text[slash + size] = '\0';
    return ret_text;
}

void metric_label_append(char *labels, const char *name, struct slice value) {
    static const char cut[] = "...";
    char text[METRIC_LABEL_BYTES + sizeof(cut)], one[8];
    size_t size = 0, used;
    for (size_t at = 0; at < value.size; at += used) {
        const char *piece = escape(value.data + at, value.size - at, one, &used);
        size_t piece_size = strlen(piece);
        if (size + piece_size > METRIC_LABEL_BYTES) {
            memcpy(text + size, cut, sizeof(cut) - 1);
            size += sizeof(cut) - 1;
            break;
        }
        memcpy(text + size, piece, piece_size);
        size += piece_size;
    }
    size_t before = strlen(labels);
    int written = snprintf(labels + before, METRIC_LABELS_SIZE - before, "%s%s=\"%.*s\"",
                           before ? "," : "", name, (int)size, text);
    dg_assert(written > 0 && before + (size_t)written < METRIC_LABELS_SIZE);
}
