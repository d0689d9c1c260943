/*
 * The device registry: tenants, devices, credentials and API keys in PostgreSQL, behind one thread
 * that owns the connections (one for logins, some for requests of the API, one for LISTEN), the
 * bounded cache and every credential check.
 *
 * Everybody else talks to it by message: a request object embeds a struct mail, is handed over with
 * registry_login() / registry_execute(), and comes back to the caller's mailbox with the result
 * filled in. A request always comes back, at the latest when its deadline passes. PostgreSQL may be
 * down or frozen at any time, also at start: what the cache knows keeps working, the rest gets
 * DG_ERR_UNAVAILABLE, never DG_ERR_BAD_CREDENTIALS. Nor is a secret called wrong because the cache
 * is outdated: before a refusal the row is read once more, at most once a second for each name.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/err.h"
#include "common/limits.h"
#include "common/mailbox.h"
#include "common/slice.h"
#include "registry/credential.h"
#include "registry/policy.h"
#include "registry/scram_keys.h"
#include "registry/statements.h"

struct registry;

struct registry_options {
    const char *conninfo;
    const char *password; /* "" for none */
    uint64_t query_timeout_ms;
    uint64_t cache_devices_max;
    const char *master_key_file;
};

enum { REGISTRY_ERROR_SIZE = 512 };

/* Reads the master key, starts the thread. PostgreSQL need not be up. */
DG_NODISCARD int registry_open(const struct registry_options *options,
                               struct registry **ret_registry, char *ret_error);

/* Stops the thread; requests still out come back first, with DG_ERR_SHUTTING_DOWN. */
void registry_close(struct registry *registry);

/* Any thread: takes up a changed registry.query_timeout. DG_ERR_NO_MEMORY. */
DG_NODISCARD int registry_reconfigure(struct registry *registry, uint64_t query_timeout_ms);

/* Any thread. True while queries are answered and changes are being heard; else ret_why (static
 * text) says what is wrong. */
bool registry_is_up(struct registry *registry, const char **ret_why);

/* Numbers that the stream has data under. No tenant or device may get one of them that does not
 * have it already, which a registry restored from an older backup would do: its sequences are moved
 * beyond these on each new connection, before anything else is asked. */
struct registry_floor {
    int64_t stream_id, tenant_key, device_key; /* 0: none */
};

/* At the start, before anything is asked: what is asked afterwards finds the sequences moved. */
void registry_set_floor(struct registry *registry, const struct registry_floor *floor);

/* At the start: waits until PostgreSQL has been asked which schema it has, or could not be asked.
 * DG_ERR_UNSUPPORTED_VERSION, with a sentence that says what to do, when it is none that this
 * duragate runs on. A gateway that began without PostgreSQL asks when it comes, and serves those it
 * knows as long as the schema does not fit. */
DG_NODISCARD int registry_check_schema(struct registry *registry, uint64_t timeout_ms,
                                       char *ret_error);

/* ---- who is it ---------------------------------------------------------------------------------
 */

enum stream_kind {
    STREAM_EVENTS,
    STREAM_COMMANDS,
    STREAM_AUDIT,
    STREAM_QUARANTINE,
    STREAM_KINDS = 8
};

/* Storage's stream id of one of a tenant's topics. */
static inline uint64_t registry_stream(int64_t tenant_stream_id, enum stream_kind kind) {
    return (uint64_t)tenant_stream_id * STREAM_KINDS + kind;
}

struct registry_identity {
    int64_t tenant_key;
    int64_t tenant_stream_id;
    uint32_t partition_count;
    char tenant[LIMIT_TENANT_BYTES + 1];
    /* a device ... */
    int64_t device_key; /* 0 for a principal */
    uint32_t partition;
    char device[LIMIT_DEVICE_ID_BYTES + 1];
    char group[LIMIT_GROUP_NAME_BYTES + 1]; /* "": none */
    /* of the device's tenant; valid as long as the login, or with a reference of one's own */
    struct registry_policy *policy;
    /* ... or a principal (API key); without a tenant it is a platform principal */
    uint32_t roles;         /* enum registry_role bits */
    int64_t credential_key; /* what was used; named in revocations */
    int64_t valid_until_ms; /* wall clock; the connection must end then; 0: no end */
};

enum registry_role {
    REGISTRY_ROLE_ADMIN = 1,    /* everything within its scope */
    REGISTRY_ROLE_OPERATOR = 2, /* devices and credentials */
    REGISTRY_ROLE_READER = 4,   /* read the registry over HTTP */
    REGISTRY_ROLE_CONSUMER = 8, /* read the stream */
    REGISTRY_ROLE_AUDITOR = 16, /* read <tenant>.audit */
    REGISTRY_ROLE_COMMANDER = 32,
};

/* Of an access policy, in an identity's roles; no role of an API key has one of these bits. */
enum registry_right {
    REGISTRY_RIGHT_REGISTRY_READ = 1 << 16,
    REGISTRY_RIGHT_REGISTRY_WRITE = 1 << 17,
    REGISTRY_RIGHT_SERVICE_CONNECT = 1 << 18,
    REGISTRY_RIGHT_DEVICE_CONNECT = 1 << 19,
};

enum registry_login_kind {
    REGISTRY_LOGIN_DEVICE_SECRET,      /* key, password or SAS-style token */
    REGISTRY_LOGIN_DEVICE_CERTIFICATE, /* TLS client certificate, already proven by the handshake */
    REGISTRY_LOGIN_PRINCIPAL,          /* API key: id and secret */
    REGISTRY_LOGIN_PRINCIPAL_SCRAM,    /* ... id and a proof; secret: what it is about */
    REGISTRY_LOGIN_ACCESS_POLICY,      /* name: "tenant/policy"; secret: a token it signed */
};

/* Allocated by registry_login_new(), freed by registry_login_free() (wipes the secret). */
struct registry_login {
    struct mail mail; /* set deliver before the call; runs on reply_to's thread */
    struct mailbox *reply_to;
    void (*reply)(struct mail *mail, void *receiver); /* the registry's: deliver, kept */
    unsigned attempts;           /* the registry's: begun again since something changed meanwhile */
    struct registry_login *next; /* the registry's: waits for the same row */
    uint64_t began_ms;           /* the registry's: monotonic */
    int freshness;               /* the registry's: enum login_freshness */
    uint64_t
        owner; /* the caller's own, returned untouched: an id with a generation, not a pointer */

    uint8_t peer_address[16]; /* IPv6, or mapped IPv4: whose failed attempts are counted */

    enum registry_login_kind kind;
    char tenant[LIMIT_TENANT_BYTES + 1]; /* empty with a certificate: found by its issuer */
    char name[LIMIT_DEVICE_ID_BYTES +
              1];        /* device id or API key id; may be empty with a certificate */
    struct slice secret; /* into secret_bytes, or leaf DER then chain */
    /* A client of IoT Hub: the host name it uses, which its tokens must be for; empty: none. */
    char host[LIMIT_HOST_BYTES + 1];
    size_t leaf_size_bytes; /* CERTIFICATE: length of the leaf within secret */
    /* SCRAM: the client's proof, and with err 0 ours */
    uint8_t proof[SCRAM_KEY_SIZE], signature[SCRAM_KEY_SIZE];

    /* 0, DG_ERR_BAD_CREDENTIALS, DG_ERR_DISABLED, DG_ERR_UNAVAILABLE, DG_ERR_BUSY, DG_ERR_ATTEMPTS
     * (a password, from an address or for a device with too many wrong ones: it was not looked at),
     * DG_ERR_NOT_AUTHORIZED (a certificate of two tenants) ... */
    int err;
    struct registry_identity identity;
    uint8_t secret_bytes[];
};

/* Copies secret in. NULL when out of memory or a name or the secret is over its limit. */
struct registry_login *registry_login_new(enum registry_login_kind kind, struct slice tenant,
                                          struct slice name, struct slice secret);
void registry_login_free(struct registry_login *login);

/* Whether registry_login_new() takes these: then NULL means that memory is out. */
static inline bool registry_login_fits(enum registry_login_kind kind, struct slice tenant,
                                       struct slice name, struct slice secret) {
    size_t limit =
        kind == REGISTRY_LOGIN_DEVICE_CERTIFICATE ? LIMIT_BEFORE_LOGIN_BYTES : LIMIT_PASSWORD_BYTES;
    return secret.size <= limit && tenant.size <= LIMIT_TENANT_BYTES &&
           name.size <= LIMIT_DEVICE_ID_BYTES &&
           !(tenant.size && memchr(tenant.data, 0, tenant.size)) &&
           !(name.size && memchr(name.data, 0, name.size));
}

/* Any thread. One identical error for an unknown device and a wrong secret. */
void registry_login(struct registry *registry, struct registry_login *login);

/* ---- who may speak for whom ----
 */

/* A device behind a gateway device: answered from the cache where it says yes, else from
 * PostgreSQL. What is answered holds until a change of the device is told (a registry_revocation
 * with its key), or that changes were missed (a registry_update without a tenant). */
struct registry_child_query {
    struct mail mail;
    struct mailbox *reply_to;
    void (*reply)(struct mail *mail, void *receiver); /* the registry's */
    uint64_t owner;
    int64_t tenant_key; /* of the gateway; the child's must be the same */
    char tenant[LIMIT_TENANT_BYTES + 1];
    char gateway[LIMIT_DEVICE_ID_BYTES + 1];
    char child[LIMIT_DEVICE_ID_BYTES + 1];

    /* 0: it exists and is enabled, whether the gateway is listed or not; DG_ERR_VIA: it does not or
     * is not; else nobody knows: DG_ERR_UNAVAILABLE, DG_ERR_NO_MEMORY */
    int err;
    int64_t device_key;
    uint32_t partition;
    char group[LIMIT_GROUP_NAME_BYTES + 1]; /* "": none */
    char *via; /* names of the gateways that may speak for it; owned; registry_is_listed() */
};
void registry_find_child(struct registry *registry, struct registry_child_query *query);
static inline void registry_child_query_free(struct registry_child_query *query) {
    free(query->via);
    free(query);
}

/* Whether a name is among those of such a list: "gw1 gw2 ". */
static inline bool registry_is_listed(const char *names, struct slice name) {
    for (const char *end; (end = strchr(names, ' ')) != NULL; names = end + 1)
        if (slice_equals(slice_make(names, (size_t)(end - names)), name))
            return true;
    return false;
}

/* Where something for a device goes. */
struct registry_device_query {
    struct mail mail;
    struct mailbox *reply_to;
    void (*reply)(struct mail *mail, void *receiver); /* the registry's */
    uint64_t owner;
    int64_t scope_tenant_key; /* the one tenant that the asker may see; 0: any */
    char tenant[LIMIT_TENANT_BYTES + 1];
    char device[LIMIT_DEVICE_ID_BYTES + 1];

    /* 0, DG_ERR_NOT_FOUND; else nobody knows: DG_ERR_UNAVAILABLE, DG_ERR_NO_MEMORY ... */
    int err;
    int64_t tenant_key, stream_id, device_key;
    uint32_t partition;
};
/* Any thread; the query comes back, and is the caller's to free. */
void registry_find_device(struct registry *registry, struct registry_device_query *query);

/* ---- what changed ------------------------------------------------------------------------------
 */

/* What PostgreSQL notifies of: the channels. */
enum registry_channel {
    REGISTRY_CHANNEL_CHANGES,  /* duragate_registry: the registry's own */
    REGISTRY_CHANNEL_COMMANDS, /* duragate_command: "<instance that says it>:<device key>,..." */
    REGISTRY_CHANNEL_TWINS,    /* duragate_twin: "<device key>,..." whose twin was written */
    REGISTRY_CHANNEL_COUNT
};

/* Posted to each listener when a device, a tenant or a principal changed: connections in scope
 * whose credential is not among those listed must end now. The receiver frees it with free(). */
struct registry_revocation {
    struct mail mail;
    int64_t tenant_key;     /* 0 for a platform principal */
    int64_t device_key;     /* 0: every device (and principal) of the tenant */
    int64_t credential_key; /* != 0: exactly this principal or CA or credential is gone */
    int err;                /* reason: DG_ERR_DISABLED, DG_ERR_ADMINISTRATIVE */
    unsigned kept_count;
    /* credential keys still valid: the device's, and the tenant's certificate authorities */
    int64_t kept[LIMIT_CREDENTIALS_PER_DEVICE + LIMIT_AUTHORITIES_PER_TENANT];
};

/* Posted to each listener: what connections that stay are told. Freed with registry_update_free().
 */
struct registry_update {
    struct mail mail;
    int64_t tenant_key;                     /* 0: changes were missed; nothing of a child holds */
    int64_t device_key;                     /* 0: the tenant's policy has changed */
    struct registry_policy *policy;         /* the new one; a reference */
    char group[LIMIT_GROUP_NAME_BYTES + 1]; /* the device's group now; "": none */
};
void registry_update_free(struct registry_update *update);

/* Posted to each listener: another gateway, or this one, has something for devices. Freed with
 * free(). */
struct registry_notice {
    struct mail mail;
    enum registry_channel channel;
    char text[]; /* as it was notified; "": some may have been missed, look at everything */
};

/* What a receiver is called with, on the thread of its mailbox. */
struct registry_receiver {
    void (*revoked)(struct mail *mail, void *receiver); /* a struct registry_revocation */
    void (*updated)(struct mail *mail, void *receiver); /* a struct registry_update */
    void (*noticed)(struct mail *mail, void *receiver); /* a struct registry_notice */
};

/* Registers a receiver. One caller at a time. DG_ERR_NO_MEMORY. */
DG_NODISCARD int registry_listen(struct registry *registry, struct mailbox *mailbox,
                                 const struct registry_receiver *receiver);

/* ---- statements for the provisioning API -------------------------------------------------------
 */

enum { REGISTRY_PARAMETERS_MAX = 12 };

/* Allocated by registry_request_new(), freed by registry_request_free(). */
struct registry_request {
    struct mail mail;
    struct mailbox *reply_to;
    void (*reply)(struct mail *mail, void *receiver); /* the registry's */
    uint64_t owner;
    int64_t account;          /* whose requests are counted together: registry_account() */
    int64_t scope_tenant_key; /* the one tenant that it may see and change; 0: any */
    bool is_own; /* the gateway's, of whatever tenants: has no scope as its last parameter */
    enum registry_statement statement;
    unsigned parameter_count;
    char *parameters[REGISTRY_PARAMETERS_MAX]; /* text format, owned; NULL is SQL NULL */

    /* 0; DG_ERR_EXISTS, DG_ERR_INVALID (constraint), DG_ERR_UNAVAILABLE, DG_ERR_TIMEOUT;
     * DG_ERR_LIMIT, DG_ERR_BUSY: too many of this account, of all are under way */
    int err;
    char *detail; /* what PostgreSQL said about a refused value, or NULL; owned */
    unsigned row_count, column_count;
    char **values; /* row-major, NULL is SQL NULL; owned */
};

/* A tenant is one account, however many API keys it makes; each key of the platform is another. */
static inline int64_t registry_account(const struct registry_identity *principal) {
    return principal->tenant_key != 0 ? principal->tenant_key : -principal->credential_key;
}

enum { REGISTRY_ACCOUNT_COLLECT = 0 }; /* the registry's own, collect.c */
/* Of a worker's questions about wills: far from those of principals. */
static inline int64_t registry_account_of_wills(unsigned worker) {
    return INT64_MIN + worker;
}

/* Of a worker's statements about commands. */
static inline int64_t registry_account_of_commands(unsigned worker) {
    return INT64_MIN + LIMIT_WORKERS + worker;
}

struct registry_request *registry_request_new(enum registry_statement statement);
/* Appends a copied parameter; NULL data is SQL NULL. 0, DG_ERR_NO_MEMORY, or DG_ERR_INVALID for a
 * NUL inside. */
DG_NODISCARD int registry_request_add(struct registry_request *request, struct slice value);
void registry_request_free(struct registry_request *request);
void registry_execute(struct registry *registry, struct registry_request *request);

static inline const char *registry_value(const struct registry_request *request, unsigned row,
                                         unsigned column) {
    return request->values[row * request->column_count + column];
}

/* A tenant by name for a consumer's topic names, answered from the cache where it can be. */
struct registry_tenant_query {
    struct mail mail;
    struct mailbox *reply_to;
    void (*reply)(struct mail *mail, void *receiver); /* the registry's */
    uint64_t owner;
    char tenant[LIMIT_TENANT_BYTES + 1]; /* empty: all tenants, for a platform principal */

    int err;
    unsigned tenant_count;
    struct registry_tenant {
        int64_t tenant_key;
        int64_t stream_id;
        uint32_t partition_count;
        char name[LIMIT_TENANT_BYTES + 1];
    } * tenants; /* owned; freed by registry_tenant_query_free */
};
void registry_find_tenants(struct registry *registry, struct registry_tenant_query *query);
void registry_tenant_query_free(struct registry_tenant_query *query);

/* ---- passwords and the master key, for whoever makes credentials ---- */

/* A password to be hashed by the slow function, off the workers. Freed with
 * registry_password_hash_free(), which wipes it. */
struct registry_password_hash {
    struct mail mail;
    struct mailbox *reply_to;
    void (*reply)(struct mail *mail, void *receiver); /* the registry's */
    uint64_t owner;
    int err; /* 0, DG_ERR_BUSY (queue full), DG_ERR_NO_MEMORY, DG_ERR_SHUTTING_DOWN */
    char tenant[LIMIT_TENANT_BYTES + 1], device[LIMIT_DEVICE_ID_BYTES + 1]; /* whose it will be */
    char encoded[CREDENTIAL_PASSWORD_SIZE];
    size_t password_size;
    char password[LIMIT_PASSWORD_BYTES];
};
void registry_hash_password(struct registry *registry, struct registry_password_hash *hash);
void registry_password_hash_free(struct registry_password_hash *hash);

/* Any thread; constant. */
const struct credential_master *registry_master(const struct registry *registry);
