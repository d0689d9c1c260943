#include "registry/cache.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/err.h"
#include "common/log.h"

enum { PRINCIPALS_MAX = 10000 };

/* The columns of LOGIN_DEVICE. */
enum device_column {
    COLUMN_TENANT, /* five columns, as LOGIN_TENANTS */
    COLUMN_DEVICE_KEY = 5,
    COLUMN_DEVICE_ID,
    COLUMN_PARTITION,
    COLUMN_ENABLED,
    COLUMN_CREDENTIAL_KEY,
    COLUMN_KIND,
    COLUMN_SECRET,
    COLUMN_THUMBPRINT,
    COLUMN_MASTER_KEY,
    COLUMN_NOT_BEFORE,
    COLUMN_NOT_AFTER,
    COLUMN_GROUP,
    COLUMN_VIA,
    COLUMN_POLICY, /* three columns, as LOGIN_TENANTS */
    COLUMN_REFUSES_AUTHORITIES = COLUMN_POLICY + 3,
};

static int64_t number_at(const PGresult *result, int row, int column) {
    return strtoll(PQgetvalue(result, row, column), NULL, 10);
}

static bool truth_at(const PGresult *result, int row, int column) {
    return PQgetvalue(result, row, column)[0] == 't';
}

static int digit(char c) {
    static const char digits[] = "0123456789abcdef";
    const char *at = c ? strchr(digits, c >= 'A' && c <= 'F' ? c | 0x20 : c) : NULL;
    return at ? (int)(at - digits) : -1;
}

int cache_decode_hex(const char *text, uint8_t *ret_bytes, size_t room) {
    size_t size = strlen(text);
    if (size % 2 != 0 || size / 2 > room)
        return -1;
    for (size_t i = 0; i < size / 2; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return -1;
        ret_bytes[i] = (uint8_t)(high << 4 | low);
    }
    return (int)(size / 2);
}

/* ---- tenants ---- */

struct cache_tenant *cache_find_tenant(struct cache *cache, int64_t key) {
    struct cache_tenant *tenant;
    HASH_FIND(hh, cache->tenants, &key, sizeof(key), tenant);
    return tenant;
}

struct cache_tenant *cache_find_tenant_by_name(struct cache *cache, const char *name) {
    struct cache_tenant *tenant;
    HASH_FIND(by_name, cache->tenants_by_name, name, strlen(name), tenant);
    return tenant;
}

static struct cache_tenant *add_tenant(struct cache *cache, int64_t key, const char *name) {
    struct cache_tenant *tenant = calloc(1, sizeof(*tenant));
    if (!tenant)
        return NULL;
    tenant->key = key;
    snprintf(tenant->name, sizeof(tenant->name), "%s", name);
    HASH_ADD(hh, cache->tenants, key, sizeof(tenant->key), tenant);
    /* The same name with another key: it was deleted and made again. */
    struct cache_tenant *old = cache_find_tenant_by_name(cache, name);
    if (old)
        HASH_DELETE(by_name, cache->tenants_by_name, old);
    HASH_ADD_KEYPTR(by_name, cache->tenants_by_name, tenant->name, strlen(tenant->name), tenant);
    if (old)
        cache_remove_tenant(cache, old->key);
    return tenant;
}

struct cache_tenant *cache_store_tenant(struct cache *cache, const PGresult *result, int row,
                                        int column) {
    int64_t key = number_at(result, row, column);
    struct cache_tenant *tenant = cache_find_tenant(cache, key);
    if (!tenant && !(tenant = add_tenant(cache, key, PQgetvalue(result, row, column + 1))))
        return NULL;
    tenant->stream_id = number_at(result, row, column + 2);
    tenant->partition_count = (uint32_t)number_at(result, row, column + 3);
    tenant->enabled = truth_at(result, row, column + 4);
    return tenant;
}

static struct slice text_at(const PGresult *result, int row, int column) {
    return slice_make(PQgetvalue(result, row, column), (size_t)PQgetlength(result, row, column));
}

bool cache_store_policy(struct cache_tenant *tenant, const PGresult *result, int row, int column) {
    char detail[256] = "";
    int64_t version = number_at(result, row, column);
    struct registry_policy *policy;
    if (tenant->policy_version >= version)
        return true;
    int err =
        registry_policy_parse(text_at(result, row, column + 1), text_at(result, row, column + 2),
                              version, REGISTRY_POLICY_LENIENT, &policy, detail, sizeof(detail));
    if (err != DG_ERR_NO_MEMORY)
        tenant->policy_version = version;
    if (err == 0) {
        registry_policy_release(tenant->policy);
        tenant->policy = policy;
    } else if (err == DG_ERR_INVALID) {
        LOG_ERROR("registry.policy_unreadable", log_text("tenant", tenant->name),
                  log_text("why", detail), log_text("effect", "the policy before stays in force"));
    }
    return err != DG_ERR_NO_MEMORY;
}

void cache_remove_tenant(struct cache *cache, int64_t key) {
    struct cache_tenant *tenant = cache_find_tenant(cache, key);
    if (!tenant)
        return;
    HASH_DELETE(hh, cache->tenants, tenant);
    struct cache_tenant *named = cache_find_tenant_by_name(cache, tenant->name);
    if (named == tenant)
        HASH_DELETE(by_name, cache->tenants_by_name, tenant);
    registry_policy_release(tenant->policy);
    free(tenant);
}

/* ---- devices ---- */

static void unlink_lru(struct cache *cache, struct cache_device *device) {
    *(device->newer ? &device->newer->older : &cache->newest) = device->older;
    *(device->older ? &device->older->newer : &cache->oldest) = device->newer;
}

static void link_newest(struct cache *cache, struct cache_device *device) {
    device->newer = NULL;
    device->older = cache->newest;
    *(cache->newest ? &cache->newest->newer : &cache->oldest) = device;
    cache->newest = device;
}

void cache_remove_device(struct cache *cache, struct cache_device *device) {
    HASH_DELETE(hh, cache->devices, device);
    HASH_DELETE(by_key, cache->devices_by_key, device);
    unlink_lru(cache, device);
    cache->device_count--;
    explicit_bzero(device->credentials, device->credential_count * sizeof(*device->credentials));
    free(device->credentials);
    free(device->via);
    free(device);
}

void cache_remove_devices_of(struct cache *cache, int64_t tenant_key) {
    for (struct cache_device *device = cache->newest, *older; device; device = older) {
        older = device->older;
        if (device->tenant_key == tenant_key)
            cache_remove_device(cache, device);
    }
}

struct cache_device *cache_find_device(struct cache *cache, const char *tenant,
                                       const char *device_id) {
    char name[LIMIT_TENANT_BYTES + LIMIT_DEVICE_ID_BYTES + 2];
    int size = snprintf(name, sizeof(name), "%s/%s", tenant, device_id);
    struct cache_device *device;
    HASH_FIND(hh, cache->devices, name, (size_t)size, device);
    if (device && device != cache->newest) {
        unlink_lru(cache, device);
        link_newest(cache, device);
    }
    return device;
}

struct cache_device *cache_find_device_by_key(struct cache *cache, int64_t key) {
    struct cache_device *device;
    HASH_FIND(by_key, cache->devices_by_key, &key, sizeof(key), device);
    return device;
}

static enum cache_kind kind_by_name(const char *name) {
    static const char *const names[] = {"key", "password", "sas", "x509"};
    for (unsigned kind = 0; kind < CACHE_X509; kind++)
        if (strcmp(name, names[kind]) == 0)
            return kind;
    return CACHE_X509;
}

static bool is_foreign(const struct cache *cache, const PGresult *result, int row, int column) {
    return !PQgetisnull(result, row, column) &&
           strcmp(PQgetvalue(result, row, column), cache->master_id) != 0;
}

static void read_credential(const struct cache *cache, const PGresult *result, int row,
                            struct cache_credential *credential) {
    *credential = (struct cache_credential){
        .key = number_at(result, row, COLUMN_CREDENTIAL_KEY),
        .kind = kind_by_name(PQgetvalue(result, row, COLUMN_KIND)),
        .not_before_ms = number_at(result, row, COLUMN_NOT_BEFORE),
        .not_after_ms = number_at(result, row, COLUMN_NOT_AFTER),
    };
    credential->is_foreign = (credential->kind == CACHE_KEY || credential->kind == CACHE_SAS) &&
                             is_foreign(cache, result, row, COLUMN_MASTER_KEY);
    snprintf(credential->thumbprint, sizeof(credential->thumbprint), "%s",
             PQgetvalue(result, row, COLUMN_THUMBPRINT));
    int size = cache_decode_hex(PQgetvalue(result, row, COLUMN_SECRET), credential->secret,
                                sizeof(credential->secret) - 1); /* a text ends with NUL */
    credential->secret_size = size > 0 ? (size_t)size : 0;
}

/* "a b" as "a b ". */
static char *copy_names(const char *names) {
    size_t size = strlen(names);
    char *copy = malloc(size + 2);
    if (copy)
        snprintf(copy, size + 2, "%s%s", names, size > 0 ? " " : "");
    return copy;
}

static struct cache_device *make_device(const struct cache *cache, const PGresult *result,
                                        const struct cache_tenant *tenant) {
    int rows = PQntuples(result);
    const char *id = PQgetvalue(result, 0, COLUMN_DEVICE_ID);
    size_t name_size = strlen(tenant->name) + 1 + strlen(id);
    struct cache_device *device = calloc(1, sizeof(*device) + name_size + 1);
    bool none = PQgetisnull(result, 0, COLUMN_CREDENTIAL_KEY);
    if (device) {
        device->credentials = calloc((size_t)rows, sizeof(*device->credentials));
        device->via = copy_names(PQgetvalue(result, 0, COLUMN_VIA));
    }
    if (!device || !device->credentials || !device->via) {
        if (device) {
            free(device->credentials);
            free(device->via);
        }
        free(device);
        return NULL;
    }
    device->key = number_at(result, 0, COLUMN_DEVICE_KEY);
    device->tenant_key = tenant->key;
    device->partition = (uint32_t)number_at(result, 0, COLUMN_PARTITION);
    device->enabled = truth_at(result, 0, COLUMN_ENABLED);
    device->refuses_authorities = truth_at(result, 0, COLUMN_REFUSES_AUTHORITIES);
    device->credential_count = none ? 0 : (unsigned)rows;
    snprintf(device->group, sizeof(device->group), "%s", PQgetvalue(result, 0, COLUMN_GROUP));
    for (int row = 0; !none && row < rows; row++)
        read_credential(cache, result, row, &device->credentials[row]);
    snprintf(device->name, name_size + 1, "%s/%s", tenant->name, id);
    device->name_size = (uint16_t)name_size;
    return device;
}

/* What was verified under the same credential stays verified. */
static void keep_verified(struct cache_device *device, const struct cache_device *old) {
    for (unsigned i = 0; i < device->credential_count; i++) {
        struct cache_credential *credential = &device->credentials[i];
        for (unsigned j = 0; j < old->credential_count; j++) {
            const struct cache_credential *known = &old->credentials[j];
            if (known->key != credential->key || known->secret_size != credential->secret_size ||
                memcmp(known->secret, credential->secret, known->secret_size) != 0)
                continue;
            credential->has_verified = known->has_verified;
            memcpy(credential->verified, known->verified, sizeof(known->verified));
        }
    }
}

struct cache_device *cache_store_device(struct cache *cache, const PGresult *result,
                                        uint64_t read_ms) {
    if (PQntuples(result) == 0)
        return NULL;
    struct cache_tenant *tenant = cache_store_tenant(cache, result, 0, COLUMN_TENANT);
    if (!tenant || !cache_store_policy(tenant, result, 0, COLUMN_POLICY))
        return NULL;
    struct cache_device *device = make_device(cache, result, tenant);
    if (!device)
        return NULL;
    device->read_ms = read_ms;
    struct cache_device *old = cache_find_device_by_key(cache, device->key), *named;
    if (old) {
        device->read_again_ms = old->read_again_ms;
        keep_verified(device, old);
        cache_remove_device(cache, old);
    }
    HASH_FIND(hh, cache->devices, device->name, device->name_size, named);
    if (named) { /* deleted and made again: the old one's change is still on its way */
        cache->has_evicted = true;
        cache_remove_device(cache, named);
    }
    if (cache->device_count >= cache->devices_max) {
        cache->has_evicted = true;
        cache_remove_device(cache, cache->oldest);
    }
    HASH_ADD_KEYPTR(hh, cache->devices, device->name, device->name_size, device);
    HASH_ADD(by_key, cache->devices_by_key, key, sizeof(device->key), device);
    link_newest(cache, device);
    cache->device_count++;
    return device;
}

/* ---- principals ---- */

struct cache_principal *cache_find_principal(struct cache *cache, const char *key_id) {
    struct cache_principal *principal;
    HASH_FIND_STR(cache->principals, key_id, principal);
    return principal;
}

void cache_remove_principal(struct cache *cache, struct cache_principal *principal) {
    HASH_DEL(cache->principals, principal);
    explicit_bzero(principal, sizeof(*principal));
    free(principal);
}

struct cache_principal *cache_store_principal(struct cache *cache, const char *key_id,
                                              const PGresult *result, uint64_t read_ms) {
    struct cache_principal *principal = cache_find_principal(cache, key_id);
    if (principal)
        cache_remove_principal(cache, principal);
    if (PQntuples(result) == 0 || !(principal = calloc(1, sizeof(*principal))))
        return NULL;
    bool platform = PQgetisnull(result, 0, 5);
    principal->is_policy = PQgetisnull(result, 0, 2);
    if ((!principal->is_policy && cache_decode_hex(PQgetvalue(result, 0, 2), principal->secret,
                                                   CREDENTIAL_HASH_SIZE) != CREDENTIAL_HASH_SIZE) ||
        (!platform && !cache_store_tenant(cache, result, 0, 5))) {
        free(principal);
        return NULL;
    }
    int sealed_size =
        cache_decode_hex(PQgetvalue(result, 0, 10), principal->sealed, sizeof(principal->sealed));
    principal->sealed_size = sealed_size > 0 ? (size_t)sealed_size : 0;
    principal->read_ms = read_ms;
    principal->credential_key = number_at(result, 0, 0);
    principal->roles = (uint32_t)number_at(result, 0, 1);
    principal->not_after_ms = number_at(result, 0, 4);
    principal->is_foreign = is_foreign(cache, result, 0, 3);
    principal->tenant_key = platform ? 0 : number_at(result, 0, 5);
    snprintf(principal->key_id, sizeof(principal->key_id), "%s", key_id);
    if (HASH_COUNT(cache->principals) >= PRINCIPALS_MAX)
        cache_remove_principal(cache, cache->principals); /* uthash keeps the order: the oldest */
    HASH_ADD_STR(cache->principals, key_id, principal);
    return principal;
}

/* A walk: there are few, and they change seldom. */
struct cache_principal *cache_find_principal_by_key(struct cache *cache, int64_t credential_key) {
    struct cache_principal *principal = cache->principals;
    while (principal && principal->credential_key != credential_key)
        principal = principal->hh.next;
    return principal;
}

/* ---- unknown names ---- */

struct cache_unknown {
    uint64_t until_ms;
    UT_hash_handle hh;
    char name[LIMIT_TENANT_BYTES + LIMIT_DEVICE_ID_BYTES + 2];
};

static struct cache_unknown *find_unknown(struct cache *cache, const char *tenant,
                                          const char *device) {
    char name[LIMIT_TENANT_BYTES + LIMIT_DEVICE_ID_BYTES + 2];
    struct cache_unknown *unknown;
    snprintf(name, sizeof(name), "%s/%s", tenant, device);
    HASH_FIND_STR(cache->unknown, name, unknown);
    return unknown;
}

void cache_store_unknown(struct cache *cache, const char *tenant, const char *device,
                         uint64_t until_ms) {
    struct cache_unknown *unknown = find_unknown(cache, tenant, device);
    if (!unknown && (unknown = malloc(sizeof(*unknown)))) {
        if (HASH_COUNT(cache->unknown) >= LIMIT_REGISTRY_UNKNOWN_NAMES)
            cache_clear_unknown(cache);
        snprintf(unknown->name, sizeof(unknown->name), "%s/%s", tenant, device);
        HASH_ADD_STR(cache->unknown, name, unknown);
    }
    if (unknown)
        unknown->until_ms = until_ms;
}

bool cache_is_unknown(struct cache *cache, const char *tenant, const char *device,
                      uint64_t now_ms) {
    const struct cache_unknown *unknown = find_unknown(cache, tenant, device);
    return unknown && now_ms < unknown->until_ms;
}

void cache_clear_unknown(struct cache *cache) {
    struct cache_unknown *unknown, *next;
    HASH_ITER(hh, cache->unknown, unknown, next) {
        HASH_DEL(cache->unknown, unknown);
        free(unknown);
    }
}

void cache_free(struct cache *cache) {
    cache_clear_unknown(cache);
    struct cache_principal *principal, *next_principal;
    struct cache_tenant *tenant, *next_tenant;
    HASH_ITER(hh, cache->principals, principal, next_principal) {
        cache_remove_principal(cache, principal);
    }
    while (cache->newest)
        cache_remove_device(cache, cache->newest);
    HASH_ITER(hh, cache->tenants, tenant, next_tenant) {
        cache_remove_tenant(cache, tenant->key);
    }
}
