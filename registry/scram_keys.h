/*
 * What SCRAM-SHA-256 (RFC 5802, RFC 7677) needs of an API key's secret, and the judgement of a
 * client's proof. Pure; any thread.
 *
 * The salt is a keyed hash of the key's id: whoever asks about an id that does not exist gets what
 * he would get if it did, and the same each time. Secrets are 192 random bits, so neither the salt
 * nor the number of iterations has anything to protect; 4096 is the least that clients accept. The
 * two keys are sealed with the master key (credential.h) in the order of the struct.
 */
#pragma once

#include "registry/credential.h"

enum {
    SCRAM_KEY_SIZE = 32,
    SCRAM_SALT_SIZE = 16,
    SCRAM_ITERATIONS = 4096,
};

struct scram_keys {
    uint8_t stored_key[SCRAM_KEY_SIZE], server_key[SCRAM_KEY_SIZE];
};

/* The salt of this id, whether there is such a key or not. */
void scram_keys_salt(const struct credential_master *master, struct slice key_id,
                     uint8_t ret_salt[SCRAM_SALT_SIZE]);

/* PBKDF2: about two milliseconds. DG_ERR_NO_MEMORY. */
DG_NODISCARD int scram_keys_derive(struct slice secret, const uint8_t *salt, size_t salt_size,
                                   int iterations, struct scram_keys *ret_keys);

/* Of a secret that was made for this id, as PostgreSQL keeps them. DG_ERR_NO_MEMORY. */
DG_NODISCARD int scram_keys_seal(const struct credential_master *master, const char *key_id,
                                 const char *secret, uint8_t ret_sealed[CREDENTIAL_SEALED_SIZE]);
/* DG_ERR_CORRUPT when they were changed or another master key sealed them. */
DG_NODISCARD int scram_keys_open(const struct credential_master *master, struct slice sealed,
                                 struct scram_keys *ret_keys);

/* Whether the proof shows knowledge of the secret, in constant time. Only then the signature, which
 * shows to the client that we know it too, is written. */
bool scram_keys_check(const struct scram_keys *keys, struct slice auth_message,
                      const uint8_t proof[SCRAM_KEY_SIZE], uint8_t ret_signature[SCRAM_KEY_SIZE]);
