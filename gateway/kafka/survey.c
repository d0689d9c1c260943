#include "gateway/kafka/survey.h"

#include <stdlib.h>

#include "common/log.h"
#include "common/metrics_series.h"
#include "gateway/kafka/topics.h"

enum {
    ROUND_MS = 1000,         /* from the begin of a round to the next, when there is little to do */
    TENANTS_MS = 10000,      /* how old the list of tenants may be */
    TENANTS_FRESH_MS = 1000, /* ... when there are groups of new ones */
    STEP_PARTITIONS = 1000   /* looked up in one step: well below a millisecond */
};

/* What a round has of one tenant; kept beside the list of tenants. */
struct tally {
    unsigned series;
    struct group_lag other; /* of the groups beyond them */
};

struct kafka_survey {
    struct kafka_worker *kafka;
    struct groups *groups;
    unsigned series_max, series_of_tenant_max;
    struct registry_tenant *tenants, *new_tenants; /* by key; new ones are for the next round */
    unsigned tenant_count, new_tenant_count;
    bool tenants_known, asking;
    uint64_t begun_ms, asked_ms, round_ms;
    uint64_t tenants_ms;              /* how old the list may be: rises while there is no news */
    unsigned unknown, unknown_before; /* groups of tenants that are not in it, of this round */
    struct log_sample overtaken_lines;
    /* the round in hand; page NULL: none */
    struct metric_page *page;
    bool groups_done;
    struct tally *tallies; /* of the tenants, then of the platform's own groups */
    unsigned series;
    struct group_lag other; /* of tenants beyond the limit */
    unsigned next_tenant, tenants_shown;
    struct kafka_topic_totals other_streams[STREAM_KINDS];
};

static uint64_t now_ms(const struct kafka_survey *survey) {
    return survey->kafka->worker->now_ns / 1000000;
}

static void add(struct kafka_survey *survey, enum metric_id id, const char *labels, int64_t value) {
    (void)!metric_page_add(survey->page, id, labels, value); /* without memory: not this time */
}

/* ---- tenants' names ---- */

static int compare_tenants(const void *a, const void *b) {
    const struct registry_tenant *x = a, *y = b;
    return x->tenant_key < y->tenant_key ? -1 : x->tenant_key > y->tenant_key;
}

static void take_tenants(struct kafka_survey *survey, struct registry_tenant_query *query) {
    survey->asking = false;
    survey->asked_ms = now_ms(survey);
    if (query->err < 0)
        return; /* the names known so far stand */
    free(survey->new_tenants);
    survey->new_tenants = query->tenants;
    survey->new_tenant_count = query->tenant_count;
    query->tenants = NULL;
    qsort(survey->new_tenants, survey->new_tenant_count, sizeof(*survey->new_tenants),
          compare_tenants);
}

static void deliver_tenants(struct mail *mail, void *receiver) {
    struct registry_tenant_query *query = (struct registry_tenant_query *)(void *)mail;
    struct kafka_worker *kafka = kafka_of(receiver);
    struct kafka_survey *survey = kafka ? kafka_groups_survey(kafka) : NULL;
    if (survey) {
        worker_refresh_time(kafka->worker);
        take_tenants(survey, query);
    }
    registry_tenant_query_free(query);
}

static void ask_tenants(struct kafka_survey *survey) {
    bool fresh = survey->tenants_known && now_ms(survey) - survey->asked_ms < survey->tenants_ms;
    struct registry_tenant_query *query =
        survey->asking || fresh ? NULL : calloc(1, sizeof(*query));
    if (!query)
        return;
    query->mail.deliver = deliver_tenants;
    query->reply_to = &survey->kafka->worker->mailbox;
    survey->asking = true;
    registry_find_tenants(survey->kafka->registry, query);
}

/* NULL: the registry does not know it (any more). */
static const struct registry_tenant *find_tenant(const struct kafka_survey *survey, int64_t key) {
    struct registry_tenant wanted = {.tenant_key = key};
    return survey->tenant_count == 0 ? NULL
                                     : bsearch(&wanted, survey->tenants, survey->tenant_count,
                                               sizeof(wanted), compare_tenants);
}

/* ---- groups ---- */

static void bounds_of(void *context, uint64_t stream_id, uint32_t partition,
                      struct group_bounds *ret_bounds) {
    struct kafka_survey *survey = context;
    struct stream_offsets offsets;
    stream_offsets(survey->kafka->stream, stream_id, partition, &offsets);
    *ret_bounds = (struct group_bounds){offsets.log_start, offsets.durable_end};
}

/* What may not be told now, since there is too much of it, is told in one of the next rounds. */
static void log_overtaken(struct kafka_survey *survey, const char *tenant,
                          const struct group_measured *group) {
    unsigned suppressed;
    if (group->lag.overtaken <= *group->overtaken_told ||
        !log_sample(&survey->overtaken_lines, now_ms(survey), &suppressed))
        return;
    *group->overtaken_told = group->lag.overtaken;
    LOG_WARN("kafka.group_overtaken", log_text("tenant", tenant), log_slice("group", group->name),
             log_int("partitions", group->lag.overtaken),
             log_int("most_records_lost", -group->lag.distance),
             log_text("why", "retention removed records that the group had not read"));
}

static void add_group(struct kafka_survey *survey, const char *tenant, struct slice group,
                      const struct group_lag *lag) {
    char labels[METRIC_LABELS_SIZE] = "";
    metric_label_append(labels, "tenant", slice_from_string(tenant));
    metric_label_append(labels, "group", group);
    add(survey, METRIC_GROUP_LAG, labels, lag->records);
    add(survey, METRIC_GROUP_LAG_TIME, labels, (int64_t)lag->behind_ms / 1000);
    add(survey, METRIC_GROUP_OVERTAKEN, labels, lag->overtaken);
    if (lag->distance != GROUP_LAG_NO_DISTANCE)
        add(survey, METRIC_GROUP_DISTANCE, labels, lag->distance);
}

/* Room for one more series. */
static bool take_series(struct kafka_survey *survey) {
    bool room = survey->series < survey->series_max;
    survey->series += room;
    return room;
}

/* Of a tenant the last series is for all groups beyond. */
static void measured(void *context, const struct group_measured *group) {
    struct kafka_survey *survey = context;
    const struct registry_tenant *tenant = find_tenant(survey, group->tenant_key);
    const char *name = tenant ? tenant->name : "";
    bool has_gone = !tenant && group->tenant_key != 0 && survey->tenants_known;
    survey->unknown += has_gone; /* or is new */
    if (has_gone)
        return;
    log_overtaken(survey, name, group);
    if (!tenant && group->tenant_key != 0) {
        group_lag_add(&survey->other, &group->lag);
        return;
    }
    struct tally *tally =
        &survey->tallies[tenant ? (unsigned)(tenant - survey->tenants) : survey->tenant_count];
    bool is_shared = tally->series >= survey->series_of_tenant_max;
    if (!is_shared && !take_series(survey)) {
        group_lag_add(&survey->other, &group->lag);
    } else if (!is_shared && ++tally->series < survey->series_of_tenant_max) {
        add_group(survey, name, group->name, &group->lag);
    } else {
        group_lag_add(&tally->other, &group->lag);
    }
}

static void add_other_groups(struct kafka_survey *survey) {
    struct slice other = slice_from_string("other");
    for (unsigned i = 0; i <= survey->tenant_count; i++) {
        const struct tally *tally = &survey->tallies[i];
        const char *name = i < survey->tenant_count ? survey->tenants[i].name : "";
        if (tally->other.partitions > 0)
            add_group(survey, name, other, &tally->other);
    }
    if (survey->other.partitions > 0)
        add_group(survey, "other", other, &survey->other);
}

/* ---- streams ---- */

static void add_stream(struct kafka_survey *survey, const char *tenant, enum stream_kind kind,
                       const struct kafka_topic_totals *totals) {
    char labels[METRIC_LABELS_SIZE] = "";
    if (totals->end == 0)
        return;
    metric_label_append(labels, "tenant", slice_from_string(tenant));
    metric_label_append(labels, "stream", slice_from_string(kafka_topic_kind_name(kind)));
    add(survey, METRIC_STREAM_SIZE, labels, (int64_t)totals->size_bytes);
    add(survey, METRIC_STREAM_RECORDS, labels, totals->end - totals->log_start);
    add(survey, METRIC_STREAM_APPENDED, labels, totals->end);
}

/* Returns how many partitions were looked up. */
static unsigned add_tenant(struct kafka_survey *survey, const struct registry_tenant *tenant) {
    struct kafka_topic_totals totals[STREAM_KINDS];
    unsigned partitions = 0;
    bool is_used = false;
    for (const enum stream_kind *kind = kafka_topic_kinds; *kind != STREAM_KINDS; kind++) {
        totals[*kind] = kafka_topic_sum_up(survey->kafka->stream, tenant, *kind);
        is_used |= totals[*kind].end > 0;
        partitions += tenant->partition_count;
    }
    bool is_shown = is_used && survey->tenants_shown < LIMIT_METRIC_TENANTS;
    survey->tenants_shown += is_shown;
    for (const enum stream_kind *kind = kafka_topic_kinds; *kind != STREAM_KINDS; kind++) {
        struct kafka_topic_totals *other = &survey->other_streams[*kind];
        if (is_shown) {
            add_stream(survey, tenant->name, *kind, &totals[*kind]);
            continue;
        }
        other->size_bytes += totals[*kind].size_bytes;
        other->log_start += totals[*kind].log_start;
        other->end += totals[*kind].end;
    }
    return partitions;
}

/* True when all have been looked at. */
static bool survey_streams(struct kafka_survey *survey) {
    unsigned looked_at = 0;
    if (survey->kafka->worker->index != 0)
        return true;
    while (survey->next_tenant < survey->tenant_count && looked_at < STEP_PARTITIONS)
        looked_at += add_tenant(survey, &survey->tenants[survey->next_tenant++]);
    if (survey->next_tenant < survey->tenant_count)
        return false;
    for (const enum stream_kind *kind = kafka_topic_kinds; *kind != STREAM_KINDS; kind++)
        add_stream(survey, "other", *kind, &survey->other_streams[*kind]);
    return true;
}

/* ---- rounds ---- */

static void use_new_tenants(struct kafka_survey *survey) {
    if (!survey->new_tenants)
        return;
    free(survey->tenants);
    survey->tenants = survey->new_tenants;
    survey->tenant_count = survey->new_tenant_count;
    survey->tenants_known = true;
    survey->new_tenants = NULL;
}

/* At start the names come first, unless the registry cannot tell them. */
static bool begin_round(struct kafka_survey *survey) {
    use_new_tenants(survey);
    if (!survey->tenants_known && now_ms(survey) - survey->begun_ms < TENANTS_MS)
        return false;
    struct metric_page *page = metric_page_new();
    struct tally *tallies = calloc((size_t)survey->tenant_count + 1, sizeof(*tallies));
    if (!page || !tallies) {
        metric_page_free(page);
        free(tallies);
        return false;
    }
    for (unsigned i = 0; i <= survey->tenant_count; i++)
        tallies[i].other = group_lag_none();
    survey->page = page;
    survey->tallies = tallies;
    survey->round_ms = now_ms(survey);
    survey->groups_done = false;
    survey->series = survey->next_tenant = survey->tenants_shown = survey->unknown = 0;
    survey->other = group_lag_none();
    memset(survey->other_streams, 0, sizeof(survey->other_streams));
    return true;
}

static void end_round(struct kafka_survey *survey) {
    bool is_news = survey->unknown != survey->unknown_before;
    survey->unknown_before = survey->unknown;
    survey->tenants_ms = is_news ? TENANTS_FRESH_MS : 2 * survey->tenants_ms;
    if (survey->tenants_ms > TENANTS_MS)
        survey->tenants_ms = TENANTS_MS;
    free(survey->tallies);
    survey->tallies = NULL;
    metric_page_publish(survey->kafka->worker->index, survey->page);
    survey->page = NULL;
}

void kafka_survey_step(struct kafka_survey *survey) {
    const struct group_surveyor surveyor = {
        .context = survey, .bounds = bounds_of, .measured = measured};
    bool is_due = survey->page || now_ms(survey) - survey->round_ms >= ROUND_MS;
    if (survey->begun_ms == 0)
        survey->begun_ms = now_ms(survey);
    ask_tenants(survey);
    if (!is_due || (!survey->page && !begin_round(survey)))
        return;
    if (survey->groups_done) {
        if (survey_streams(survey))
            end_round(survey);
        return;
    }
    survey->groups_done = groups_survey(survey->groups, STEP_PARTITIONS, &surveyor, now_ms(survey));
    if (survey->groups_done)
        add_other_groups(survey);
}

/* ---- life ---- */

static unsigned share_of(unsigned limit, unsigned worker_count) {
    return limit > worker_count ? limit / worker_count : 1;
}

struct kafka_survey *kafka_survey_create(struct kafka_worker *kafka, struct groups *groups,
                                         unsigned worker_count) {
    struct kafka_survey *survey = calloc(1, sizeof(*survey));
    if (!survey)
        return NULL;
    survey->kafka = kafka;
    survey->groups = groups;
    survey->tenants_ms = TENANTS_FRESH_MS;
    survey->series_max = share_of(LIMIT_METRIC_GROUPS, worker_count);
    survey->series_of_tenant_max = share_of(LIMIT_METRIC_GROUPS_OF_TENANT, worker_count);
    return survey;
}

void kafka_survey_free(struct kafka_survey *survey) {
    if (!survey)
        return;
    metric_page_publish(survey->kafka->worker->index, NULL);
    metric_page_free(survey->page);
    free(survey->tallies);
    free(survey->tenants);
    free(survey->new_tenants);
    free(survey);
}
