/*
 * What the files of registry/ share: the registry thread's state. Registry thread only, but for
 * what registry.h says.
 */
#pragma once

#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>

#include "common/log.h"
#include "registry/attempts.h"
#include "registry/authorities.h"
#include "registry/cache.h"
#include "registry/password.h"
#include "registry/postgres.h"
#include "registry/registry.h"

enum registry_condition {
    REGISTRY_STARTING,
    REGISTRY_UP,
    REGISTRY_NO_QUERIES,
    REGISTRY_NO_CHANGES,
    REGISTRY_OLD_SCHEMA,
    REGISTRY_NEW_SCHEMA,
    REGISTRY_OTHER_SCHEMA,
};

struct registry {
    pthread_t thread;
    struct event_base *base;
    struct mailbox mailbox;
    struct event *mailbox_event, *change_timer;
    struct credential_master master;
    uint64_t foreign_logged_ms; /* when the master key was last complained of */
    struct log_sample authority_lines, scram_lines;
    uint8_t verified_key[32]; /* of this process: hashes of passwords found right */
    char *conninfo, *password;
    uint64_t query_timeout_ms;
    struct postgres *queries;  /* logins and what changes ask for; answered in order */
    struct postgres *changes;  /* LISTEN, and the rows of registry_change */
    struct requests *requests; /* of the provisioning API, so that a slow one delays no login */
    struct password_pool *passwords;
    struct attempts attempts;
    struct cache cache;
    struct authorities authorities;
    atomic_int condition; /* enum registry_condition */
    atomic_int schema;    /* enum schema_fit, as the queries' connection found it */
    atomic_int schema_version;
    _Atomic(struct registry_listener *) listeners;
    unsigned device_lookups; /* under way: a change of any device may concern them */
    /* changes.c */
    uint64_t epoch;            /* counts changes applied */
    uint64_t credential_epoch; /* counts changes of API keys and authorities applied */
    int64_t revision;          /* last change applied; -1: not known, all must be read again */
    bool range_known;          /* since the connection came up */
    bool reading_changes;      /* a CHANGES or CHANGES_RANGE is under way */
    unsigned lookups;          /* of changes under way: no more changes are read before they end */
    int64_t retry_revision;    /* go back there when they ended; INT64_MAX: all went well */
    struct registry_stale *stale; /* what is to be read again since changes were missed; owned */
    size_t stale_count, stale_next;
    bool synced;       /* everything up to now was applied since the connection came up */
    uint64_t heard_ms; /* monotonic: when changes that have come back were asked for */
    unsigned trims;
    /* collect.c */
    struct event *collect_timer;
    bool is_collecting, collect_again;
    struct registry_floor_mail {
        struct mail mail;
        struct registry_floor floor;
    } floor_mail;
    struct mail stop_mail;
};

/* A device, or a tenant when device_key is 0. */
struct registry_stale {
    int64_t tenant_key, device_key;
};

struct registry_listener {
    struct registry_listener *next;
    struct mailbox *mailbox;
    struct registry_receiver receiver;
};

/* What a mismatch with the cache is worth; of a login. */
enum login_freshness {
    LOGIN_UNSURE, /* not looked at yet */
    LOGIN_SURE,   /* read from PostgreSQL after the login began, or a moment before */
    LOGIN_STALE,  /* PostgreSQL did not say: nothing can be called wrong */
};

/* login.c: handles a request on the registry thread; it goes back by itself. */
void login_begin(struct registry *registry, struct registry_login *login);
void tenants_begin(struct registry *registry, struct registry_tenant_query *query);
/* A login goes back to its asker. */
void login_reply(struct registry_login *login, int err);

/* From the start, since what was read may be outdated; DG_ERR_UNAVAILABLE after a few times. */
void login_again(struct registry *registry, struct registry_login *login);
/* What the asker hears when a look-up failed; a name that PostgreSQL cannot even represent is
 * simply unknown. */
int login_lookup_error(int err);
/* The credential was right for this tenant and device (login->tenant, login->name). */
void login_as_device(struct registry *registry, struct registry_login *login,
                     int64_t credential_key, int64_t valid_until_ms);

/* The credential is not right, as far as anybody can know: DG_ERR_BAD_CREDENTIALS, or
 * DG_ERR_UNAVAILABLE when what we know may be outdated. */
void login_refuse(struct registry *registry, struct registry_login *login);

/* The same for a secret; is_foreign: what it might be was made with another master key. */
void login_refuse_secret(struct registry *registry, struct registry_login *login, bool is_foreign);

/* password_login.c: the secret is none of the keys. One run of the slow function at most, whether
 * there is such a device and password or not. device may be NULL. */
void login_try_password(struct registry *registry, struct registry_login *login,
                        const struct cache_device *device, bool is_foreign);
bool login_is_current(const struct cache_credential *credential, int64_t now_ms);
/* The keyed hash under which a password found right is remembered. */
void login_hash_verified(const struct registry *registry, struct slice secret, uint8_t *ret_hash);

/* authority_login.c */
void login_with_authority(struct registry *registry, struct registry_login *login,
                          const struct x509_client *client);
/* The same for authorities in the cache only; false when none of them says yes. */
bool login_with_known_authority(struct registry *registry, struct registry_login *login,
                                const struct x509_client *client);

/* Answers with the device, or DG_ERR_DISABLED; for a credential that was right. */
void login_accept(struct registry *registry, struct registry_login *login,
                  const struct cache_device *device, int64_t credential_key,
                  int64_t valid_until_ms);

/* requests.c: connections of their own. registry->requests is NULL after requests_close(), which
 * answers all that are out; what begins later is answered at once. */
DG_NODISCARD int requests_create(struct registry *registry);
void requests_close(struct registry *registry);
void requests_begin(struct registry *registry, struct registry_request *request);
/* At least one connection is there. */
bool requests_are_taken(const struct registry *registry);
void requests_set_timeout(struct registry *registry);
void requests_set_floor(struct registry *registry, const struct registry_floor *floor);

/* collect.c: the timer's callback; a tenant has gone. */
void collect_on_timer(evutil_socket_t fd, short what, void *context);
void collect_soon(struct registry *registry);

/* changes.c */
void changes_ready(void *context);
void changes_lost(void *context);
void changes_notified(void *context, const char *channel, const char *text);
/* The names of enum registry_channel, NULL at the end. */
extern const char *const changes_channels[];
void changes_on_timer(evutil_socket_t fd, short what, void *context);
void changes_update_condition(struct registry *registry);
/* Whether the cache is not much older than a second. */
bool changes_are_heard(const struct registry *registry);
