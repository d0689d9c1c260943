#include "registry/admin.h"

#include <libpq-fe.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#include "registry/credential.h"
#include "registry/registry.h"
#include "registry/scram_keys.h"
#include "registry/synchronous.h"

_Static_assert((int)CREDENTIAL_KEY_TEXT_SIZE <= (int)REGISTRY_SECRET_SIZE, "a generated key fits");

static const struct {
    uint32_t bit;
    const char *name;
} roles[] = {
    {REGISTRY_ROLE_ADMIN, "admin"},     {REGISTRY_ROLE_OPERATOR, "operator"},
    {REGISTRY_ROLE_READER, "reader"},   {REGISTRY_ROLE_CONSUMER, "consumer"},
    {REGISTRY_ROLE_AUDITOR, "auditor"}, {REGISTRY_ROLE_COMMANDER, "commander"},
};

uint32_t registry_role_by_name(const char *name) {
    for (unsigned i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (strcmp(roles[i].name, name) == 0)
            return roles[i].bit;
    return 0;
}

const char *registry_role_name(uint32_t role_bit) {
    for (unsigned i = 0; i < sizeof(roles) / sizeof(roles[0]); i++)
        if (roles[i].bit == role_bit)
            return roles[i].name;
    return NULL;
}

/* Key id, tenant or null, roles, hash, keys for SCRAM, master key id, replace. One row: was the
 * tenant found, was the key written. An API key never moves to another owner. */
static const char CREATE[] =
    "with owner as (select tenant_key from tenant where name = $2::text"
    " union all select null::bigint where $2::text is null),"
    " made as (insert into api_key as k (key_id, tenant_key, roles, secret, scram, master_key_id)"
    " select $1::text, owner.tenant_key, $3::integer, decode($4::text, 'hex'),"
    " decode($5::text, 'hex'), $6::text from owner"
    " on conflict (key_id) do update set credential_key = nextval('credential_key_seq'),"
    " roles = excluded.roles, secret = excluded.secret, scram = excluded.scram,"
    " master_key_id = excluded.master_key_id,"
    " not_after = null, version = k.version + 1, updated_at = now()"
    " where $7::boolean and k.tenant_key is not distinct from excluded.tenant_key"
    " returning key_id)"
    " select exists (select from owner), exists (select from made)";

static int refuse(char *ret_error, int err, const char *format, const char *name) {
    snprintf(ret_error, REGISTRY_ERROR_SIZE, format, name);
    return err;
}

static int judge(const PGconn *connection, const PGresult *result,
                 const struct registry_admin_key *key, char *ret_error) {
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    if (state && strcmp(state, "23514") == 0)
        return refuse(ret_error, DG_ERR_INVALID,
                      "API key id '%.80s': 1 to 64 of A-Z a-z 0-9 . _ - are allowed", key->key_id);
    if (state && strcmp(state, "42P01") == 0)
        return refuse(ret_error, DG_ERR_INTERNAL, "%s", "no schema yet; run: duragate migrate");
    if (PQresultStatus(result) != PGRES_TUPLES_OK)
        return refuse(ret_error, DG_ERR_INTERNAL, "PostgreSQL: %.450s", PQerrorMessage(connection));
    if (PQgetvalue(result, 0, 0)[0] != 't')
        return refuse(ret_error, DG_ERR_NOT_FOUND, "no tenant '%.80s'", key->tenant);
    if (PQgetvalue(result, 0, 1)[0] != 't')
        return refuse(ret_error, DG_ERR_EXISTS,
                      key->replace ? "API key '%.80s' belongs to another tenant"
                                   : "API key '%.80s' exists; --replace gives it a new secret",
                      key->key_id);
    return 0;
}

static void write_hex(const uint8_t *bytes, size_t size, char *ret_text) {
    for (size_t i = 0; i < size; i++)
        snprintf(ret_text + 2 * i, 3, "%02x", bytes[i]);
}

static int insert_key(PGconn *connection, const struct registry_admin_key *key,
                      const struct credential_master *master, const char *secret, char *ret_error) {
    uint8_t hash[CREDENTIAL_HASH_SIZE], scram[CREDENTIAL_SEALED_SIZE];
    char hash_text[2 * sizeof(hash) + 1], scram_text[2 * sizeof(scram) + 1], roles_text[16];
    credential_hash_key(master, secret, strlen(secret), hash);
    if (scram_keys_seal(master, key->key_id, secret, scram) < 0)
        return refuse(ret_error, DG_ERR_NO_MEMORY, "%s", "out of memory");
    write_hex(hash, sizeof(hash), hash_text);
    write_hex(scram, sizeof(scram), scram_text);
    snprintf(roles_text, sizeof(roles_text), "%u", key->roles);
    const char *values[] = {key->key_id,
                            key->tenant,
                            roles_text,
                            hash_text,
                            scram_text,
                            credential_master_id(master),
                            key->replace ? "t" : "f"};
    PGresult *result = PQexecParams(connection, CREATE, 7, NULL, values, NULL, NULL, 0);
    int err = judge(connection, result, key, ret_error);
    PQclear(result);
    return err;
}

int registry_admin_create_key(const char *conninfo, const char *password,
                              const char *master_key_file, const struct registry_admin_key *key,
                              char *ret_secret, char *ret_error) {
    struct credential_master master;
    int err = credential_master_load(master_key_file, &master, ret_error);
    PGconn *connection = NULL;
    if (err == 0)
        err = synchronous_connect(conninfo, password, &connection, ret_error);
    char secret[CREDENTIAL_KEY_TEXT_SIZE];
    credential_generate_key(secret);
    if (err == 0)
        err = insert_key(connection, key, &master, secret, ret_error);
    if (err == 0)
        memcpy(ret_secret, secret, sizeof(secret));
    OPENSSL_cleanse(secret, sizeof(secret));
    OPENSSL_cleanse(&master, sizeof(master));
    PQfinish(connection);
    return err;
}
