/* Tenants that a worker's sessions belong to: each name is kept once. One worker's thread. */
#pragma once

#include "gateway/session/admission.h"
#include "gateway/session/session.h"

struct session_tenant {
    int64_t key;
    uint64_t events_stream; /* storage's stream id of <tenant>.events */
    uint64_t quarantine_stream;
    int64_t stream_id;
    struct registry_policy *policy; /* a reference; NULL: none */
    struct quota_line *line;        /* the tenant's own quota */
    struct quota_line *groups;      /* of those who are here, by their names */
    struct quota_line *share;       /* who waits for its share of the way to the disk */
    uint32_t outstanding;           /* on that way: share.h */
    const struct topic_map *topics; /* the policy's; NULL: none */
    uint32_t users;                 /* sessions */
    uint8_t name_size;
    uint8_t name[];
};

/* The tenant of this identity with one more user, or NULL when out of memory. */
struct session_tenant *tenant_take(struct session_shared *shared,
                                   const struct registry_identity *identity);
/* The tenant's policy is this one now, unless a newer one is known. */
void tenant_update(struct session_shared *shared, int64_t tenant_key,
                   struct registry_policy *policy);
/* Sessions of a tenant that are here. */
uint32_t tenant_users(const struct session_shared *shared, int64_t tenant_key);
/* One user less; NULL allowed. */
void tenant_release(struct session_shared *shared, struct session_tenant *tenant);

/* The line of a group with one more user; NULL: out of memory. */
struct quota_line *tenant_group_take(struct session_shared *shared, struct session_tenant *tenant,
                                     struct slice name);
/* NULL allowed. */
void tenant_group_release(struct session_shared *shared, struct session_tenant *tenant,
                          struct quota_line *line);

/* One more connection; DG_ERR_QUOTA: the tenant has as many as it may have. */
DG_NODISCARD int tenant_enter(struct session_tenant *tenant);
void tenant_leave(struct session_tenant *tenant);
