/*
 * What the registry thread remembers of PostgreSQL: tenants, the devices that logged in (a bounded
 * set, the least recently used go first), and API keys. Kept and used while PostgreSQL is away;
 * while it is there every change is heard and applied. Registry thread only.
 */
#pragma once

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/hash.h"
#include "common/limits.h"
#include "common/slice.h"
#include "registry/credential.h"
#include "registry/policy.h"

#include <uthash.h>

enum cache_kind { CACHE_KEY, CACHE_PASSWORD, CACHE_SAS, CACHE_X509 };

struct cache_tenant {
    int64_t key, stream_id;
    uint32_t partition_count;
    bool enabled;
    int64_t policy_version;         /* of the last one that was read; 0: none */
    struct registry_policy *policy; /* a reference; NULL: none was readable yet */
    char name[LIMIT_TENANT_BYTES + 1];
    UT_hash_handle hh, by_name;
};

struct cache_credential {
    int64_t key;
    enum cache_kind kind;
    int64_t not_before_ms, not_after_ms; /* 0: no limit */
    bool is_foreign; /* another master key made it: nobody can say whether a secret is right */
    char thumbprint[CREDENTIAL_HEX_SIZE];
    bool has_verified; /* a password was found right: its keyed hash, so that the next is cheap */
    uint8_t verified[CREDENTIAL_HASH_SIZE];
    size_t secret_size;
    uint8_t secret[CREDENTIAL_PASSWORD_SIZE];
};

_Static_assert(CREDENTIAL_SEALED_MAX <= CREDENTIAL_PASSWORD_SIZE, "the largest secret fits");

struct login_query;

struct cache_device {
    int64_t key;
    uint64_t read_ms;            /* monotonic: what it was at this time, or later */
    uint64_t read_again_ms;      /* ... for a login that did not match; 0: never */
    struct login_query *reading; /* under way, for logins that do not match; login.c's */
    int64_t tenant_key;
    struct cache_device *newer, *older;
    uint32_t partition;
    bool enabled;
    bool refuses_authorities; /* a certificate must be one of its own */
    unsigned credential_count;
    struct cache_credential *credentials;   /* owned */
    char group[LIMIT_GROUP_NAME_BYTES + 1]; /* "": none */
    char *via; /* names of gateway devices with a blank after each; owned */
    UT_hash_handle hh, by_key;
    uint16_t name_size;
    char name[]; /* "tenant/device", the hash key; the device id begins behind the '/' */
};

struct cache_principal {
    uint64_t read_ms, read_again_ms; /* as those of a device */
    struct login_query *reading;
    int64_t credential_key, not_after_ms;
    int64_t tenant_key; /* 0: platform */
    uint32_t roles;
    bool is_foreign;
    bool is_unheard; /* read before the change that made it what it is was heard */
    uint8_t secret[CREDENTIAL_HASH_SIZE];
    size_t sealed_size;                    /* 0: none, so no SCRAM */
    uint8_t sealed[CREDENTIAL_SEALED_MAX]; /* keys for SCRAM, or those of an access policy */
    bool is_policy;                        /* an access policy, which has no secret */
    UT_hash_handle hh;
    char key_id[LIMIT_DEVICE_ID_BYTES + 1]; /* "tenant/policy" of an access policy */
};

struct cache_unknown; /* a name that PostgreSQL did not know a moment ago */

struct cache {
    struct cache_tenant *tenants, *tenants_by_name;
    struct cache_device *devices, *devices_by_key;
    struct cache_device *newest, *oldest;
    struct cache_principal *principals;
    struct cache_unknown *unknown;
    uint64_t device_count, devices_max;
    const char *master_id;
    bool has_evicted; /* a device with a live connection may be unknown */
};

void cache_free(struct cache *cache);

struct cache_tenant *cache_find_tenant(struct cache *cache, int64_t key);
struct cache_tenant *cache_find_tenant_by_name(struct cache *cache, const char *name);
/* Row of LOGIN_TENANTS' five columns, beginning at column. NULL when out of memory. */
struct cache_tenant *cache_store_tenant(struct cache *cache, const PGresult *result, int row,
                                        int column);
/* The three columns of a policy (version, quota, policy), beginning at column: the tenant's policy
 * if they are newer. One that cannot be read leaves the old one, with a line in the log. False when
 * out of memory. */
bool cache_store_policy(struct cache_tenant *tenant, const PGresult *result, int row, int column);
void cache_remove_tenant(struct cache *cache, int64_t key);

struct cache_device *cache_find_device(struct cache *cache, const char *tenant, const char *device);
struct cache_device *cache_find_device_by_key(struct cache *cache, int64_t key);
/* All rows of LOGIN_DEVICE (one device), asked for at read_ms. NULL when there is none, or memory
 * is out. */
struct cache_device *cache_store_device(struct cache *cache, const PGresult *result,
                                        uint64_t read_ms);
/* All devices of a tenant that has gone. */
void cache_remove_devices_of(struct cache *cache, int64_t tenant_key);
void cache_remove_device(struct cache *cache, struct cache_device *device);

struct cache_principal *cache_find_principal(struct cache *cache, const char *key_id);
struct cache_principal *cache_store_principal(struct cache *cache, const char *key_id,
                                              const PGresult *result, uint64_t read_ms);
struct cache_principal *cache_find_principal_by_key(struct cache *cache, int64_t credential_key);
void cache_remove_principal(struct cache *cache, struct cache_principal *principal);

/* Names of no device, for a short time (monotonic clock) and until anything changes. */
void cache_store_unknown(struct cache *cache, const char *tenant, const char *device,
                         uint64_t until_ms);
bool cache_is_unknown(struct cache *cache, const char *tenant, const char *device, uint64_t now_ms);
void cache_clear_unknown(struct cache *cache);

/* Hexadecimal text to bytes; -1 when it is not, or has no room. */
int cache_decode_hex(const char *text, uint8_t *ret_bytes, size_t room);
