/*
 * What makes secrets: credentials of devices and API keys. A generated secret is in the one answer
 * that creates it and nowhere else; a password goes to the registry's pool to be hashed.
 */
#include "provisioning/credentials.h"

#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/random.h"
#include "provisioning/resource.h"
#include "registry/credential.h"
#include "registry/scram_keys.h"

enum {
    PASSWORD_BYTES_MIN = 12,
    PASSWORD_BYTES_MAX = 1024,
    CERTIFICATE_BYTES_MAX = 16 * 1024,
    DESCRIPTION_BYTES_MAX = 256,
    NAME_SIZE = LIMIT_API_KEY_ID_BYTES + 1,
    SECRET_HEX_SIZE = 2 + 2 * CREDENTIAL_PASSWORD_SIZE + 1,
};

/* What a kind takes from the client and makes itself. */
struct secret {
    const char *kind;
    char hex[SECRET_HEX_SIZE]; /* bytea as text; "" for none */
    char thumbprint[CREDENTIAL_HEX_SIZE];
    bool sealed; /* made under the master key */
};

static const struct member credential_members[] = {
    {"not_before", MEMBER_TIME, false, 0, 0, NULL},
    {"not_after", MEMBER_TIME, false, 0, 0, NULL},
    {"name", MEMBER_NAME, false, NAME_OTHER, 0, NULL},
    {"kind", MEMBER_TEXT, true, 1, 16, NULL},
    {"password", MEMBER_TEXT, false, PASSWORD_BYTES_MIN, PASSWORD_BYTES_MAX, NULL},
    {"thumbprint", MEMBER_TEXT, false, 40, 64, NULL},
    {"certificate", MEMBER_TEXT, false, 1, CERTIFICATE_BYTES_MAX, NULL},
    {NULL},
};
enum { VALIDITY_MEMBERS = 2 };

static const struct member api_key_members[] = {
    {"roles", MEMBER_ROLES, true, 0, 0, NULL},
    {"description", MEMBER_TEXT, false, 0, DESCRIPTION_BYTES_MAX, ""},
    {"not_after", MEMBER_TIME, false, 0, 0, NULL},
    {"key_id", MEMBER_NAME, false, NAME_OTHER, 0, NULL},
    {NULL},
};
enum { API_KEY_PARAMETERS = 3 };

static const char *text_of(const struct provisioning_call *call, const char *member) {
    return json_string_value(json_object_get(call->body, member));
}

static bool body_is_valid(struct provisioning_call *call, const struct member *members) {
    char detail[CALL_DETAIL_SIZE] = "";
    int err = members_check(members, call->body, detail, sizeof(detail));
    if (err == 0)
        err = members_check_validity(call->body, detail, sizeof(detail));
    if (err < 0)
        call_problem(call, err, "%s", detail);
    return err == 0;
}

static void write_bytea(const uint8_t *bytes, size_t size, char *ret_text) {
    ret_text += sprintf(ret_text, "\\x");
    for (size_t i = 0; i < size; i++)
        ret_text += sprintf(ret_text, "%02x", bytes[i]);
}

/* The name the client chose, or one of ours. */
static bool choose_name(struct provisioning_call *call, const char *member, const char *prefix) {
    char name[NAME_SIZE];
    const char *given = text_of(call, member);
    snprintf(name, sizeof(name), "%s-%012" PRIx64, prefix, random_u64() >> 16);
    call->name = strdup(given ? given : name);
    if (!call->name)
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
    return call->name != NULL;
}

/* ---- credentials: storing
 * ------------------------------------------------------------------------- */

static int bind_secret(struct provisioning_call *call, struct registry_request *request,
                       const struct secret *secret) {
    const char *master = credential_master_id(registry_master(call->registry));
    char limit[8];
    snprintf(limit, sizeof(limit), "%d", LIMIT_CREDENTIALS_PER_DEVICE);
    const char *values[] = {secret->kind, secret->hex[0] ? secret->hex : NULL,
                            secret->thumbprint[0] ? secret->thumbprint : NULL,
                            secret->sealed ? master : NULL, limit};
    int err = 0;
    for (unsigned i = 0; err == 0 && i < sizeof(values) / sizeof(values[0]); i++)
        err =
            registry_request_add(request, slice_make(values[i], values[i] ? strlen(values[i]) : 0));
    return err;
}

static void store_credential(struct provisioning_call *call, const struct secret *secret) {
    struct registry_request *request =
        call->name
            ? resource_request_named(call, STATEMENT_CREDENTIAL_PUT, slice_from_string(call->name))
            : resource_request(call, STATEMENT_CREDENTIAL_PUT);
    if (!request)
        return;
    int err = 0;
    for (unsigned i = 0; err == 0 && i < VALIDITY_MEMBERS; i++)
        err = member_bind(&credential_members[i], call->body, request);
    if (err == 0)
        err = resource_bind_precondition(request, &call->precondition);
    if (err == 0)
        err = bind_secret(call, request, secret);
    if (err < 0) {
        registry_request_free(request);
        call_fail(call, err, NULL);
        return;
    }
    call_execute(call, request, resource_answer);
}

/* ---- credentials: each kind
 * ----------------------------------------------------------------------- */

static void make_key(struct provisioning_call *call) {
    struct secret secret = {.kind = "key", .sealed = true};
    char key[CREDENTIAL_KEY_TEXT_SIZE];
    uint8_t hash[CREDENTIAL_HASH_SIZE];
    credential_generate_key(key);
    credential_hash_key(registry_master(call->registry), key, strlen(key), hash);
    write_bytea(hash, sizeof(hash), secret.hex);
    bool kept = asprintf(&call->secret, "\"key\":\"%s\"", key) > 0;
    OPENSSL_cleanse(key, sizeof(key));
    if (kept)
        store_credential(call, &secret);
    else
        call_fail(call, DG_ERR_NO_MEMORY, NULL);
}

static void make_sas(struct provisioning_call *call) {
    struct secret secret = {.kind = "sas", .sealed = true};
    uint8_t keys[2][CREDENTIAL_PAIR_KEY_SIZE], sealed[CREDENTIAL_SEALED_SIZE];
    char texts[2][64];
    random_bytes(keys, sizeof(keys));
    int err = credential_seal_pair(registry_master(call->registry), keys[0], keys[1], sealed);
    for (unsigned i = 0; i < 2; i++)
        credential_base64_encode(keys[i], CREDENTIAL_PAIR_KEY_SIZE, texts[i]);
    if (err == 0 && asprintf(&call->secret, "\"primary_key\":\"%s\",\"secondary_key\":\"%s\"",
                             texts[0], texts[1]) < 0)
        err = DG_ERR_NO_MEMORY;
    OPENSSL_cleanse(keys, sizeof(keys));
    OPENSSL_cleanse(texts, sizeof(texts));
    if (err < 0) {
        call_fail(call, err, NULL);
        return;
    }
    write_bytea(sealed, sizeof(sealed), secret.hex);
    store_credential(call, &secret);
}

static void deliver_password(struct mail *mail, void *receiver) {
    struct registry_password_hash *hash = (struct registry_password_hash *)(void *)mail;
    struct http_exchange *exchange = http_find(receiver, hash->owner);
    if (exchange) {
        struct provisioning_call *call = http_context(exchange);
        struct secret secret = {.kind = "password", .sealed = true};
        write_bytea((const uint8_t *)hash->encoded, strnlen(hash->encoded, sizeof(hash->encoded)),
                    secret.hex);
        if (hash->err < 0)
            call_fail(call, hash->err, NULL);
        else
            store_credential(call, &secret);
    }
    registry_password_hash_free(hash);
}

static void copy_parameter(const struct provisioning_call *call, const char *name, char *ret_text,
                           size_t room) {
    struct slice value = http_path_parameter(call->exchange, name);
    snprintf(ret_text, room, "%.*s", (int)value.size, (const char *)value.data);
}

static void make_password(struct provisioning_call *call) {
    const char *password = text_of(call, "password");
    if (password && credential_looks_generated(slice_from_string(password))) {
        call_problem(call, DG_ERR_INVALID,
                     "/password: %zu of A-Z a-z 0-9 - _ is the shape of a generated key; make it "
                     "longer or shorter, or use a credential of kind key",
                     strlen(password));
        return;
    }
    struct registry_password_hash *hash = password ? calloc(1, sizeof(*hash)) : NULL;
    if (!hash) {
        call_problem(call, password ? DG_ERR_NO_MEMORY : DG_ERR_INVALID,
                     "/password: a credential of kind password needs one of %d to %d bytes",
                     PASSWORD_BYTES_MIN, PASSWORD_BYTES_MAX);
        return;
    }
    hash->mail.deliver = deliver_password;
    hash->reply_to = &call->worker->mailbox;
    hash->owner = http_exchange_id(call->exchange);
    copy_parameter(call, "tenant", hash->tenant, sizeof(hash->tenant));
    copy_parameter(call, "device", hash->device, sizeof(hash->device));
    hash->password_size = strlen(password);
    memcpy(hash->password, password, hash->password_size);
    registry_hash_password(call->registry, hash);
}

static bool copy_thumbprint(const char *text, char *ret_thumbprint) {
    size_t size = strlen(text);
    if (size != 40 && size != 64)
        return false;
    for (size_t i = 0; i <= size; i++) {
        char c = text[i] >= 'A' && text[i] <= 'F' ? (char)(text[i] | 0x20) : text[i];
        if (i < size && !(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f'))
            return false;
        ret_thumbprint[i] = c;
    }
    return true;
}

static void make_x509(struct provisioning_call *call) {
    struct secret secret = {.kind = "x509"};
    struct credential_certificate certificate;
    const char *thumbprint = text_of(call, "thumbprint"), *pem = text_of(call, "certificate");
    if ((thumbprint != NULL) == (pem != NULL)) {
        call_problem(call, DG_ERR_INVALID,
                     "a credential of kind x509 needs either thumbprint or certificate");
    } else if (thumbprint && !copy_thumbprint(thumbprint, secret.thumbprint)) {
        call_problem(call, DG_ERR_INVALID,
                     "/thumbprint: must be the SHA-256 (64) or SHA-1 (40) digits in hexadecimal");
    } else if (pem && credential_check_certificate(pem, strlen(pem), &certificate) < 0) {
        call_problem(call, DG_ERR_INVALID, "/certificate: must be one certificate in PEM");
    } else {
        if (pem)
            memcpy(secret.thumbprint, certificate.sha256, sizeof(secret.thumbprint));
        store_credential(call, &secret);
    }
}

static const struct kind {
    const char *name;
    bool client_gives_it; /* so PUT may replace it */
    void (*make)(struct provisioning_call *call);
} kinds[] = {
    {"key", false, make_key},
    {"password", true, make_password},
    {"sas", false, make_sas},
    {"x509", true, make_x509},
};

/* A member that belongs to another kind is a mistake, not something to pass over. */
static bool members_fit_kind(struct provisioning_call *call, const struct kind *kind) {
    static const struct {
        const char *member, *kind;
    } owners[] = {{"password", "password"}, {"thumbprint", "x509"}, {"certificate", "x509"}};
    for (unsigned i = 0; i < sizeof(owners) / sizeof(owners[0]); i++) {
        if (!json_object_get(call->body, owners[i].member) ||
            strcmp(owners[i].kind, kind->name) == 0)
            continue;
        call_problem(call, DG_ERR_INVALID, "/%s: belongs to kind %s, not %s", owners[i].member,
                     owners[i].kind, kind->name);
        return false;
    }
    return true;
}

static void make_credential(struct provisioning_call *call, bool replace) {
    const char *name = text_of(call, "kind");
    const struct kind *kind = NULL;
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].name, name) == 0)
            kind = &kinds[i];
    if (!kind)
        call_problem(call, DG_ERR_INVALID, "/kind: must be key, password, sas or x509");
    else if (replace && !kind->client_gives_it)
        call_problem(call, DG_ERR_INVALID,
                     "/kind: a %s is generated; add one with POST and delete the old one", name);
    else if (members_fit_kind(call, kind))
        kind->make(call);
}

void credential_post(struct provisioning_call *call) {
    if (!call_read_body(call) || !body_is_valid(call, credential_members) ||
        !choose_name(call, "name", "credential"))
        return;
    call->precondition = etag_condition_of(ETAG_ABSENT);
    make_credential(call, false);
}

void credential_put(struct provisioning_call *call) {
    if (!call_read_precondition(call) || !call_read_body(call) ||
        !body_is_valid(call, credential_members))
        return;
    if (json_object_get(call->body, "name"))
        call_problem(call, DG_ERR_INVALID, "/name: the path names it already");
    else
        make_credential(call, true);
}

/* ---- API keys
 * ------------------------------------------------------------------------------------- */

/* The secret goes into the answer; its hash, the keys for SCRAM and what belongs to them into the
 * request. */
static int make_api_key(struct provisioning_call *call, struct registry_request *request) {
    const struct credential_master *master = registry_master(call->registry);
    char key[CREDENTIAL_KEY_TEXT_SIZE], most[12];
    uint8_t hash[CREDENTIAL_HASH_SIZE], scram[CREDENTIAL_SEALED_SIZE];
    char hash_text[2 + 2 * sizeof(hash) + 1], scram_text[2 + 2 * sizeof(scram) + 1];
    snprintf(most, sizeof(most), "%d", LIMIT_API_KEYS_PER_TENANT);
    credential_generate_key(key);
    credential_hash_key(master, key, strlen(key), hash);
    int err = scram_keys_seal(master, call->name, key, scram);
    if (err == 0 &&
        asprintf(&call->secret, "\"secret\":\"%s\",\"bearer\":\"%s.%s\"", key, call->name, key) < 0)
        err = DG_ERR_NO_MEMORY;
    OPENSSL_cleanse(key, sizeof(key));
    if (err < 0)
        return err;
    write_bytea(hash, sizeof(hash), hash_text);
    write_bytea(scram, sizeof(scram), scram_text);
    const char *values[] = {hash_text, scram_text, credential_master_id(master), most};
    for (unsigned i = 0; err == 0 && i < sizeof(values) / sizeof(values[0]); i++)
        err = registry_request_add(request, slice_from_string(values[i]));
    return err;
}

void api_key_post(struct provisioning_call *call) {
    if (!call_read_body(call) || !body_is_valid(call, api_key_members) ||
        !choose_name(call, "key_id", "key"))
        return;
    struct registry_request *request =
        resource_request_named(call, STATEMENT_API_KEY_CREATE, slice_from_string(call->name));
    if (!request)
        return;
    int err = 0;
    for (unsigned i = 0; err == 0 && i < API_KEY_PARAMETERS; i++)
        err = member_bind(&api_key_members[i], call->body, request);
    if (err == 0)
        err = make_api_key(call, request);
    if (err < 0) {
        registry_request_free(request);
        call_fail(call, err, NULL);
        return;
    }
    call_execute(call, request, resource_answer);
}
