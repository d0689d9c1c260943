/*
 * Admission: whether a publish is within the quotas of its device, the device's group and its
 * tenant, and who comes first when it is not.
 *
 * Who is over its device's quota waits until the bucket has room. Who is over a group's or the
 * tenant's waits in a line, first come, first served, and nobody overtakes who waits; whoever is
 * called may send QUANTUM_BYTES before it is the next one's turn. Who waits for longer than it may
 * has its publish refused (QoS 0: dropped).
 *
 * Pure: time comes in as an argument, nothing is sent. One worker's thread, but for the ledger.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/slice.h"
#include "gateway/session/quota_meter.h"
#include "registry/policy.h"

struct session;
struct session_shared;
struct session_tenant;
struct admission;

/* A meter that several devices share, and those that wait for it. */
struct quota_line {
    struct quota_meter meter;
    struct quota_line *next; /* of the tenant's groups */
    struct admission *first, *last;
    struct quota_line *next_waited; /* of the lines that somebody waits in */
    bool is_waited;
    uint8_t kind; /* enum quota_kind */
    uint32_t users;
    uint8_t name_size;
    uint8_t name[];
};

/* What a device has to do with quotas: of a session, or of a device behind it. Those without group
 * and quota have none. */
struct admission {
    struct session *session; /* who is told to go on */
    struct quota_meter device;
    struct quota_line *group; /* NULL: none */
    struct quota_line *waits_in;
    struct admission *before, *behind; /* in the line */
    uint64_t until_ms;                 /* monotonic: then it looks again, or gives up; 0: no wait */
    const struct quota_line *called;   /* the line that has called it last ... */
    int32_t quantum_bytes;             /* ... and what it may send before those that wait there */
    bool gave_up;                      /* it has waited for so long that the publish is refused */
    uint8_t over_kind, over_unit;      /* the quota of the last wait or refusal */
    uint64_t over_per_second;
};

/* ---- tenants (tenants.c) ---- */

/* A line with a place in the ledger; NULL: out of memory. */
struct quota_line *quota_line_create(struct session_shared *shared, enum quota_kind kind,
                                     int64_t tenant_key, struct slice name);
/* Nobody waits in it. Accepts NULL. */
void quota_line_free(struct session_shared *shared, struct quota_line *line);
/* The quota is this one from now on. */
void quota_line_set(struct quota_line *line, const struct registry_quota *quota, uint64_t now_ns);

/* ---- devices ---- */

/*
 * What the device needs now, by the tenant's policy: *admission is made, changed or freed. After
 * login, and when the policy or the group (empty: none) has changed; a session that waits is told
 * to look again. DG_ERR_NO_MEMORY: what there was stays.
 */
DG_NODISCARD int admission_set(struct admission **admission, struct session *session,
                               int64_t device_key, struct slice group);
/* Accepts NULL. */
void admission_free(struct admission *admission, struct session *session);
static inline struct slice admission_group(const struct admission *admission) {
    if (!admission || !admission->group)
        return slice_make(NULL, 0);
    return slice_make(admission->group->name, admission->group->name_size);
}

/*
 * May a publish of so many bytes go on? 0; DG_ERR_PRESSURE: it waits, at the latest until
 * admission->until_ms; DG_ERR_QUOTA: it has waited, or would wait, for longer than may_wait_ms.
 */
DG_NODISCARD int admission_ask(struct admission *admission, uint64_t may_wait_ms);
/* The session's next publish waits until its tenant has room in flight again, in turn with the
 * tenant's others. False: it is the session's turn, or memory is out. Makes session->admission. */
bool admission_wait_for_share(struct session *session);
/* It did. */
void admission_charge(struct admission *admission, uint64_t size_bytes);
/* The same for a publish for a device behind the session's, by that device's own quota and on top
 * of the others; the session waits. DG_ERR_NO_MEMORY too. */
struct child;
DG_NODISCARD int admission_ask_child(struct session *session, const struct child *child,
                                     uint64_t may_wait_ms);
void admission_charge_child(struct session *session, const struct child *child,
                            uint64_t size_bytes);
/* What was refused is counted: dropped, since QoS 0 has no answer that could say so. */
void admission_count_refused(struct admission *admission, bool is_dropped);
/* until_ms has passed: looks again, or gives up. */
void admission_expire(struct admission *admission);

/* Calls the next of each line that has room; how long until one may have (ns), 0: nobody waits. */
uint64_t admission_turn(struct session_shared *shared);

/* What DG_ERR_QUOTA was about: "the device's quota of 10 messages per second". */
enum { ADMISSION_TEXT_SIZE = 96 };
void admission_format(const struct admission *admission, char ret_text[ADMISSION_TEXT_SIZE]);
