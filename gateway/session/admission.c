#include "gateway/session/admission.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "gateway/session/session_internal.h"
#include "gateway/session/share.h"

enum {
    QUANTUM_BYTES = 16 * 1024,
    MESSAGE_BYTES = 256, /* what a message costs of the quantum, beside its size */
};
#define NS_PER_MS 1000000ull
#define SHARE_LOOK_NS \
    100000000ull /* at the latest; it is looked at whenever something is durable */

static bool limits_rate(const struct registry_quota *quota) {
    return quota->messages_per_second != 0 || quota->bytes_per_second != 0;
}

/* ---- lines ---- */

struct quota_line *quota_line_create(struct session_shared *shared, enum quota_kind kind,
                                     int64_t tenant_key, struct slice name) {
    struct quota_line *line = shared->quotas ? calloc(1, sizeof(*line) + name.size) : NULL;
    if (!line)
        return NULL;
    line->kind = (uint8_t)kind;
    line->name_size = (uint8_t)name.size;
    if (name.size > 0)
        memcpy(line->name, name.data, name.size);
    if (kind == QUOTA_SHARE)
        return line;
    line->meter.entry = quota_ledger_take(shared->quotas, kind, tenant_key, name, shared->now_ns);
    if (line->meter.entry)
        return line;
    free(line);
    return NULL;
}

static void stop_waiting(struct session_shared *shared, struct quota_line *line) {
    struct quota_line **at = &shared->waited;
    while (*at && *at != line)
        at = &(*at)->next_waited;
    if (*at)
        *at = line->next_waited;
    line->is_waited = false;
}

void quota_line_free(struct session_shared *shared, struct quota_line *line) {
    if (!line)
        return;
    dg_assert(!line->first);
    if (line->is_waited)
        stop_waiting(shared, line);
    quota_ledger_leave(shared->quotas, line->meter.entry);
    free(line);
}

void quota_line_set(struct quota_line *line, const struct registry_quota *quota, uint64_t now_ns) {
    static const struct registry_quota none = {0};
    quota_meter_set(&line->meter, quota ? quota : &none, now_ns);
}

/* first: it was called, and somebody else has taken what there was meanwhile. */
static void line_join(struct session_shared *shared, struct quota_line *line,
                      struct admission *admission, bool first) {
    admission->waits_in = line;
    admission->before = first ? NULL : line->last;
    admission->behind = first ? line->first : NULL;
    *(admission->before ? &admission->before->behind : &line->first) = admission;
    *(admission->behind ? &admission->behind->before : &line->last) = admission;
    if (line->is_waited)
        return;
    line->is_waited = true;
    line->next_waited = shared->waited;
    shared->waited = line;
}

static void line_leave(struct admission *admission) {
    struct quota_line *line = admission->waits_in;
    if (!line)
        return;
    *(admission->before ? &admission->before->behind : &line->first) = admission->behind;
    *(admission->behind ? &admission->behind->before : &line->last) = admission->before;
    admission->before = admission->behind = NULL;
    admission->waits_in = NULL;
}

/* ---- waiting ---- */

static void look_again(struct admission *admission) {
    line_leave(admission);
    if (admission->until_ms == 0)
        return;
    admission->until_ms = 0;
    session_unpause(admission->session, SESSION_PAUSED_QUOTA);
}

static struct quota_line *tenant_line(const struct admission *admission) {
    return admission->session->tenant->line;
}

static void count(struct admission *admission, enum quota_outcome outcome) {
    struct quota_tenant *tenant = tenant_line(admission)->meter.entry->tenant;
    atomic_fetch_add_explicit(&tenant->outcomes[admission->over_kind][outcome], 1,
                              memory_order_relaxed);
}

/* The quota that the publish is over for the longest time. */
struct over {
    uint64_t wait_ns;        /* 0 in a line: for its turn */
    struct quota_line *line; /* NULL: the device's */
    const struct quota_meter *meter;
    enum quota_unit unit;
    bool is_over;
};

/* Nobody overtakes who waits in the line, but who was called. */
static bool is_called(const struct admission *admission, const struct quota_line *line) {
    return admission->called == line && admission->quantum_bytes > 0;
}

/* line NULL: the device's own meter. */
static void look_at(struct over *over, const struct admission *admission,
                    const struct quota_meter *meter, struct quota_line *line) {
    enum quota_unit unit = QUOTA_MESSAGES;
    uint64_t wait_ns = quota_meter_wait(meter, admission->session->shared->now_ns, &unit);
    bool must_wait = wait_ns > 0 || (line && line->first && !is_called(admission, line));
    if (!must_wait || (over->is_over && wait_ns <= over->wait_ns))
        return;
    *over = (struct over){wait_ns, line, meter, unit, true};
}

/* Who was called and came too late is still the next one. */
static void wait_in(struct admission *admission, struct quota_line *line, uint64_t until_ms) {
    bool first = admission->called == line && admission->quantum_bytes == QUANTUM_BYTES;
    admission->until_ms = until_ms;
    line_join(admission->session->shared, line, admission, first);
    admission->called = NULL;
}

static void begin_wait(struct admission *admission, const struct over *over, uint64_t may_wait_ms) {
    uint64_t now_ms = session_now_ms(admission->session);
    if (over->line)
        wait_in(admission, over->line, now_ms + may_wait_ms);
    else
        admission->until_ms = now_ms + over->wait_ns / NS_PER_MS + 1;
    count(admission, QUOTA_WAITED);
}

int admission_ask(struct admission *admission, uint64_t may_wait_ms) {
    struct quota_line *tenant = tenant_line(admission);
    struct over over = {0};
    if (admission->gave_up) {
        admission->gave_up = false;
        return DG_ERR_QUOTA;
    }
    look_at(&over, admission, &admission->device, NULL);
    if (admission->group)
        look_at(&over, admission, &admission->group->meter, admission->group);
    look_at(&over, admission, &tenant->meter, tenant);
    if (!over.is_over)
        return 0;
    admission->over_kind = over.line ? over.line->kind : QUOTA_DEVICE;
    admission->over_unit = (uint8_t)over.unit;
    admission->over_per_second = over.meter->per_second[over.unit];
    if (over.wait_ns / NS_PER_MS > may_wait_ms)
        return DG_ERR_QUOTA;
    begin_wait(admission, &over, may_wait_ms);
    return DG_ERR_PRESSURE;
}

bool admission_wait_for_share(struct session *session) {
    struct quota_line *line = session->tenant->share;
    if (!session->admission && !(session->admission = calloc(1, sizeof(*session->admission))))
        return false;
    session->admission->session = session;
    if (is_called(session->admission, line) && share_tenant_room(session) > 0)
        return false;
    wait_in(session->admission, line, UINT64_MAX);
    return true;
}

void admission_charge(struct admission *admission, uint64_t size_bytes) {
    uint64_t now_ns = admission->session->shared->now_ns;
    const uint64_t amounts[QUOTA_UNITS] = {[QUOTA_MESSAGES] = 1, [QUOTA_BYTES] = size_bytes};
    quota_meter_charge(&admission->device, amounts, false, now_ns);
    if (admission->group)
        quota_meter_charge(&admission->group->meter, amounts, true, now_ns);
    quota_meter_charge(&tenant_line(admission)->meter, amounts, true, now_ns);
    if (admission->called && admission->quantum_bytes > 0)
        admission->quantum_bytes -= (int32_t)(size_bytes + MESSAGE_BYTES);
}

void admission_expire(struct admission *admission) {
    admission->gave_up = admission->waits_in != NULL;
    look_again(admission);
}

void admission_count_refused(struct admission *admission, bool is_dropped) {
    count(admission, is_dropped ? QUOTA_DROPPED : QUOTA_REFUSED);
}

/* ---- turns ---- */

static void call_first(struct quota_line *line) {
    struct admission *next = line->first;
    next->called = line;
    next->quantum_bytes = QUANTUM_BYTES;
    look_again(next);
}

/* As many as may send their quantum. */
static uint64_t call_for_share(struct quota_line *line) {
    const uint32_t quantum = QUANTUM_BYTES / SHARE_UNIT_BYTES;
    uint32_t room = share_tenant_room(line->first->session);
    for (; line->first && room > 0; room -= room < quantum ? room : quantum)
        call_first(line);
    return SHARE_LOOK_NS;
}

/* One at a time: what it takes is known when it has taken it, at the end of the next turn. */
static uint64_t call_next(struct quota_line *line, uint64_t now_ns) {
    enum quota_unit unit;
    uint64_t wait_ns = quota_meter_wait(&line->meter, now_ns, &unit);
    if (wait_ns > 0)
        return wait_ns;
    call_first(line);
    return 1;
}

uint64_t admission_turn(struct session_shared *shared) {
    uint64_t soonest_ns = 0;
    struct quota_line *next;
    for (struct quota_line *line = shared->waited; line; line = next) {
        next = line->next_waited;
        if (!line->first) {
            stop_waiting(shared, line);
            continue;
        }
        uint64_t wait_ns =
            line->kind == QUOTA_SHARE ? call_for_share(line) : call_next(line, shared->now_ns);
        if (soonest_ns == 0 || wait_ns < soonest_ns)
            soonest_ns = wait_ns;
    }
    return soonest_ns;
}

/* ---- devices ---- */

static const struct registry_quota *device_quota(const struct registry_policy *policy,
                                                 const struct registry_group *group) {
    static const struct registry_quota none = {0};
    if (group && group->has_device_quota)
        return &group->device_quota;
    return policy ? &policy->device_quota : &none;
}

static int set_device(struct admission *admission, int64_t device_key,
                      const struct registry_quota *quota) {
    struct session_shared *shared = admission->session->shared;
    struct quota_meter *meter = &admission->device;
    if (limits_rate(quota) && !meter->entry) {
        meter->entry = quota_ledger_take(shared->quotas, QUOTA_DEVICE, device_key,
                                         slice_make(NULL, 0), shared->now_ns);
        if (!meter->entry)
            return DG_ERR_NO_MEMORY;
    }
    quota_meter_set(meter, quota, shared->now_ns);
    if (limits_rate(quota))
        return 0;
    quota_ledger_leave(shared->quotas, meter->entry);
    meter->entry = NULL;
    return 0;
}

/* Takes over what is asked for in admission, which is new or has been there. */
static int change(struct admission *admission, int64_t device_key, struct slice group,
                  const struct registry_quota *quota) {
    struct session *session = admission->session;
    struct quota_line *line = NULL, *former = admission->group;
    if (group.size > 0 && !(line = tenant_group_take(session->shared, session->tenant, group)))
        return DG_ERR_NO_MEMORY;
    int err = set_device(admission, device_key, quota);
    if (err < 0) {
        tenant_group_release(session->shared, session->tenant, line);
        return err;
    }
    look_again(admission);
    admission->group = line;
    tenant_group_release(session->shared, session->tenant, former);
    return 0;
}

int admission_set(struct admission **admission, struct session *session, int64_t device_key,
                  struct slice group) {
    const struct registry_policy *policy = session->tenant->policy;
    const struct registry_quota *quota = device_quota(policy, registry_policy_group(policy, group));
    bool is_needed =
        group.size > 0 || limits_rate(quota) || (policy && limits_rate(&policy->quota));
    if (!is_needed) {
        admission_free(*admission, session);
        *admission = NULL;
        return 0;
    }
    struct admission *made = *admission ? *admission : calloc(1, sizeof(*made));
    if (!made)
        return DG_ERR_NO_MEMORY;
    made->session = session;
    int err = change(made, device_key, group, quota);
    if (err < 0 && !*admission)
        free(made);
    else
        *admission = made;
    return err;
}

void admission_free(struct admission *admission, struct session *session) {
    if (!admission)
        return;
    look_again(admission);
    quota_ledger_leave(session->shared->quotas, admission->device.entry);
    tenant_group_release(session->shared, session->tenant, admission->group);
    free(admission);
}

/* ---- devices behind one ---- */

/* The child's own quota, if it has one; given back with quota_ledger_leave(). */
static bool take_child(const struct session *session, const struct child *child,
                       struct quota_meter *ret_meter) {
    struct session_shared *shared = session->shared;
    const struct registry_policy *policy = session->tenant->policy;
    const struct registry_quota *quota =
        device_quota(policy, registry_policy_group(policy, slice_from_string(child->group)));
    *ret_meter = (struct quota_meter){.entry = NULL};
    if (limits_rate(quota))
        ret_meter->entry = quota_ledger_take(shared->quotas, QUOTA_DEVICE, child->device_key,
                                             slice_make(NULL, 0), shared->now_ns);
    quota_meter_set(ret_meter, quota, shared->now_ns);
    return ret_meter->entry != NULL;
}

int admission_ask_child(struct session *session, const struct child *child, uint64_t may_wait_ms) {
    struct quota_meter meter;
    struct over over = {0};
    if (!take_child(session, child, &meter))
        return 0;
    if (!session->admission && !(session->admission = calloc(1, sizeof(*session->admission)))) {
        quota_ledger_leave(session->shared->quotas, meter.entry);
        return DG_ERR_NO_MEMORY;
    }
    struct admission *admission = session->admission;
    admission->session = session;
    look_at(&over, admission, &meter, NULL);
    quota_ledger_leave(session->shared->quotas, meter.entry);
    if (!over.is_over)
        return 0;
    admission->over_kind = QUOTA_DEVICE;
    admission->over_unit = (uint8_t)over.unit;
    admission->over_per_second = meter.per_second[over.unit];
    if (over.wait_ns / NS_PER_MS > may_wait_ms)
        return DG_ERR_QUOTA;
    begin_wait(admission, &over, may_wait_ms);
    return DG_ERR_PRESSURE;
}

void admission_charge_child(struct session *session, const struct child *child,
                            uint64_t size_bytes) {
    struct quota_meter meter;
    const uint64_t amounts[QUOTA_UNITS] = {[QUOTA_MESSAGES] = 1, [QUOTA_BYTES] = size_bytes};
    if (!take_child(session, child, &meter))
        return;
    quota_meter_charge(&meter, amounts, false, session->shared->now_ns);
    quota_ledger_leave(session->shared->quotas, meter.entry);
}

/* ---- words ---- */

void admission_format(const struct admission *admission, char ret_text[ADMISSION_TEXT_SIZE]) {
    static const char *const whose[QUOTA_KINDS] = {"device", "group", "tenant"};
    static const char *const units[QUOTA_UNITS] = {"messages", "bytes"};
    snprintf(ret_text, ADMISSION_TEXT_SIZE, "over the %s's quota of %llu %s per second",
             whose[admission->over_kind], (unsigned long long)admission->over_per_second,
             units[admission->over_unit]);
}
