/*
 * Secrets: making, hashing, sealing and checking them. Pure but for randomness; any thread.
 *
 * Generated keys are random, so a keyed hash (HMAC-SHA256 under the master key) is enough and
 * cheap. Passwords that people choose go through scrypt, off the workers. Symmetric keys that must
 * be known to check a signature are sealed with AES-256-GCM. The master key lives in a file, never
 * in PostgreSQL; each secret names the master key that made it.
 *
 * Forms in PostgreSQL (column secret): key: 32 bytes of hash. password: "scrypt$15$8$1$" salt "$"
 * hash, both base64. sas: 12 bytes nonce, 16 bytes tag, then the primary and secondary key
 * encrypted: 32 bytes each, or, when one of them is of another size, a byte with the size and 64
 * bytes each. An API key's keys for SCRAM (scram_keys.h): 32 bytes each.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/mailbox.h"
#include "common/slice.h"

enum {
    CREDENTIAL_HASH_SIZE = 32,
    CREDENTIAL_KEY_TEXT_SIZE = 33, /* 192 random bits in base64url, and NUL */
    CREDENTIAL_PAIR_KEY_SIZE = 32,
    CREDENTIAL_SEALED_SIZE = 12 + 16 + 2 * 32,
    CREDENTIAL_SYMMETRIC_MIN = 16, /* bytes of a key that somebody brings along */
    CREDENTIAL_SYMMETRIC_MAX = 64,
    CREDENTIAL_SEALED_MAX = 12 + 16 + 2 * (1 + 64),
    CREDENTIAL_MASTER_ID_SIZE = 33,
    CREDENTIAL_PASSWORD_SIZE = 160, /* the encoded form, and NUL */
    CREDENTIAL_SALT_SIZE = 16,
    CREDENTIAL_HEX_SIZE = 65,
};

struct credential_master {
    char id[CREDENTIAL_MASTER_ID_SIZE];
    uint8_t key[32];
};

/* Reads 'key-id:base64 of 32 bytes'. DG_ERR_INVALID with a message for people (512 bytes) when the
 * file is missing, readable by everybody, or not of that form. */
DG_NODISCARD int credential_master_load(const char *path, struct credential_master *ret_master,
                                        char *ret_error);
static inline const char *credential_master_id(const struct credential_master *master) {
    return master->id;
}

/* A new random key, printable. ret_text: CREDENTIAL_KEY_TEXT_SIZE. */
void credential_generate_key(char *ret_text);

/* The keyed hash of a generated key. */
void credential_hash_key(const struct credential_master *master, const char *text, size_t size,
                         uint8_t *ret_hash);

/* Whether a secret has exactly the shape of a generated key: it is never a password. */
bool credential_looks_generated(struct slice secret);

/* The salt of a device's passwords: all have the same one, so that one run of the slow function
 * tells whether a secret is any of them. Made with the master key, so it says nothing elsewhere. */
void credential_derive_salt(const struct credential_master *master, const char *tenant,
                            const char *device, uint8_t *ret_salt);
/* The salt of an encoded password; DG_ERR_CORRUPT when it is none of ours. */
DG_NODISCARD int credential_password_salt(struct slice encoded, uint8_t *ret_salt);

/* scrypt; slow (about 50 ms) and 32 MiB: never on a worker. NUL-terminated. A password is right
 * when its encoded form under the stored one's salt is the stored one. */
DG_NODISCARD int credential_hash_password(struct slice password, const uint8_t *salt,
                                          char *ret_encoded);

/* Seals two keys of CREDENTIAL_PAIR_KEY_SIZE bytes each; ret_sealed: CREDENTIAL_SEALED_SIZE. */
DG_NODISCARD int credential_seal_pair(const struct credential_master *master,
                                      const uint8_t *primary, const uint8_t *secondary,
                                      uint8_t *ret_sealed);
/* Opens what was sealed: 64 bytes. DG_ERR_CORRUPT when it was changed or another key made it. */
DG_NODISCARD int credential_open_pair(const struct credential_master *master, struct slice sealed,
                                      uint8_t *ret_keys);

/* The primary and the secondary key of a `sas` credential or an access policy. */
struct credential_keys {
    struct credential_symmetric {
        uint8_t size_bytes; /* CREDENTIAL_SYMMETRIC_MIN to _MAX */
        uint8_t bytes[CREDENTIAL_SYMMETRIC_MAX];
    } keys[2];
};
static inline struct slice credential_key(const struct credential_keys *keys, unsigned index) {
    return slice_make(keys->keys[index].bytes, keys->keys[index].size_bytes);
}
/* Seals them; ret_sealed: CREDENTIAL_SEALED_MAX, of which ret_size are used. */
DG_NODISCARD int credential_seal_keys(const struct credential_master *master,
                                      const struct credential_keys *keys, uint8_t *ret_sealed,
                                      size_t *ret_size);
/* Opens either form. DG_ERR_CORRUPT as above. */
DG_NODISCARD int credential_open_keys(const struct credential_master *master, struct slice sealed,
                                      struct credential_keys *ret_keys);

struct credential_certificate {
    char sha256[CREDENTIAL_HEX_SIZE];       /* of the DER, lower-case hex */
    char subject_hash[CREDENTIAL_HEX_SIZE]; /* SHA-256 of the DER subject */
    bool is_ca;
    int64_t not_before_ms, not_after_ms;
};
/* Looks at one PEM certificate. DG_ERR_INVALID when it is not exactly one. */
DG_NODISCARD int credential_check_certificate(const char *pem, size_t size,
                                              struct credential_certificate *ret);

/* Base64 (standard alphabet, padded): length without NUL; -1 when the text is not valid. */
size_t credential_base64_encode(const uint8_t *data, size_t size, char *ret_text);
int credential_base64_decode(struct slice text, uint8_t *ret_data, size_t room);
