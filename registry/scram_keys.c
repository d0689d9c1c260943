#include "registry/scram_keys.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <string.h>

#include "common/assert.h"

_Static_assert(sizeof(struct scram_keys) == 2 * CREDENTIAL_PAIR_KEY_SIZE, "sealed as a pair");

static void hmac(const uint8_t *key, size_t key_size, struct slice text,
                 uint8_t ret_mac[SCRAM_KEY_SIZE]) {
    unsigned size = 0;
    const uint8_t *mac =
        HMAC(EVP_sha256(), key, (int)key_size, text.data, text.size, ret_mac, &size);
    dg_assert(mac && size == SCRAM_KEY_SIZE);
}

void scram_keys_salt(const struct credential_master *master, struct slice key_id,
                     uint8_t ret_salt[SCRAM_SALT_SIZE]) {
    uint8_t key[SCRAM_KEY_SIZE], mac[SCRAM_KEY_SIZE];
    hmac(master->key, sizeof(master->key), slice_from_string("scram salt"), key);
    hmac(key, sizeof(key), key_id, mac);
    memcpy(ret_salt, mac, SCRAM_SALT_SIZE);
    OPENSSL_cleanse(key, sizeof(key));
}

int scram_keys_derive(struct slice secret, const uint8_t *salt, size_t salt_size, int iterations,
                      struct scram_keys *ret_keys) {
    uint8_t salted[SCRAM_KEY_SIZE], client_key[SCRAM_KEY_SIZE];
    if (PKCS5_PBKDF2_HMAC((const char *)secret.data, (int)secret.size, salt, (int)salt_size,
                          iterations, EVP_sha256(), sizeof(salted), salted) != 1)
        return DG_ERR_NO_MEMORY;
    hmac(salted, sizeof(salted), slice_from_string("Client Key"), client_key);
    hmac(salted, sizeof(salted), slice_from_string("Server Key"), ret_keys->server_key);
    SHA256(client_key, sizeof(client_key), ret_keys->stored_key);
    OPENSSL_cleanse(salted, sizeof(salted));
    OPENSSL_cleanse(client_key, sizeof(client_key));
    return 0;
}

int scram_keys_seal(const struct credential_master *master, const char *key_id, const char *secret,
                    uint8_t ret_sealed[CREDENTIAL_SEALED_SIZE]) {
    uint8_t salt[SCRAM_SALT_SIZE];
    struct scram_keys keys;
    scram_keys_salt(master, slice_from_string(key_id), salt);
    int err =
        scram_keys_derive(slice_from_string(secret), salt, sizeof(salt), SCRAM_ITERATIONS, &keys);
    if (err == 0)
        err = credential_seal_pair(master, keys.stored_key, keys.server_key, ret_sealed);
    OPENSSL_cleanse(&keys, sizeof(keys));
    return err;
}

int scram_keys_open(const struct credential_master *master, struct slice sealed,
                    struct scram_keys *ret_keys) {
    uint8_t pair[2 * CREDENTIAL_PAIR_KEY_SIZE];
    int err = credential_open_pair(master, sealed, pair);
    if (err == 0)
        memcpy(ret_keys, pair, sizeof(pair));
    OPENSSL_cleanse(pair, sizeof(pair));
    return err;
}

bool scram_keys_check(const struct scram_keys *keys, struct slice auth_message,
                      const uint8_t proof[SCRAM_KEY_SIZE], uint8_t ret_signature[SCRAM_KEY_SIZE]) {
    uint8_t client_key[SCRAM_KEY_SIZE], digest[SCRAM_KEY_SIZE];
    hmac(keys->stored_key, sizeof(keys->stored_key), auth_message, client_key);
    for (unsigned i = 0; i < SCRAM_KEY_SIZE; i++)
        client_key[i] ^= proof[i];
    SHA256(client_key, sizeof(client_key), digest);
    bool right = CRYPTO_memcmp(digest, keys->stored_key, sizeof(digest)) == 0;
    if (right)
        hmac(keys->server_key, sizeof(keys->server_key), auth_message, ret_signature);
    OPENSSL_cleanse(client_key, sizeof(client_key));
    return right;
}
