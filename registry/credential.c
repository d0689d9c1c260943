#include "registry/credential.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/assert.h"
#include "common/limits.h"
#include "common/random.h"

enum {
    ERROR_SIZE = 512,
    MASTER_FILE_MAX = 256,
    NONCE_SIZE = 12,
    TAG_SIZE = 16,
    SCRYPT_LOG_N = 15,
    SCRYPT_R = 8,
    SCRYPT_P = 1,
    SCRYPT_MEMORY_MAX = 64 * 1024 * 1024,
    CERTIFICATE_MAX = 16 * 1024,
};

/* ---- base64 ---- */

size_t credential_base64_encode(const uint8_t *data, size_t size, char *ret_text) {
    return (size_t)EVP_EncodeBlock((unsigned char *)ret_text, data, (int)size);
}

int credential_base64_decode(struct slice text, uint8_t *ret_data, size_t room) {
    uint8_t buffer[512];
    if (text.size == 0 || text.size % 4 != 0 || text.size / 4 * 3 > sizeof(buffer))
        return -1;
    int size = EVP_DecodeBlock(buffer, text.data, (int)text.size);
    if (size < 0)
        return -1;
    size -= (text.data[text.size - 1] == '=') + (text.data[text.size - 2] == '=');
    if ((size_t)size > room)
        return -1;
    memcpy(ret_data, buffer, (size_t)size);
    OPENSSL_cleanse(buffer, sizeof(buffer));
    return size;
}

static bool base64_is_text(struct slice text) {
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!letter && c != '+' && c != '/' && c != '=')
            return false;
    }
    return true;
}

/* ---- the master key ---- */

static int refuse_master(char *ret_error, const char *path, const char *why) {
    snprintf(ret_error, ERROR_SIZE,
             "security.master_key_file: %s %s; make one with: umask 077; "
             "printf 'k1:%%s\\n' \"$(openssl rand -base64 32)\" > FILE",
             path[0] ? path : "(not set)", why);
    return DG_ERR_INVALID;
}

static int parse_master(struct slice text, struct credential_master *ret_master) {
    while (text.size > 0 && (text.data[text.size - 1] == '\n' || text.data[text.size - 1] == '\r'))
        text.size--;
    const uint8_t *colon = text.size ? memchr(text.data, ':', text.size) : NULL;
    if (!colon || colon == text.data)
        return DG_ERR_INVALID;
    size_t id_size = (size_t)(colon - text.data);
    struct slice encoded = slice_skip(text, id_size + 1);
    struct credential_master master = {0};
    if (id_size >= sizeof(master.id) || !base64_is_text(encoded) ||
        credential_base64_decode(encoded, master.key, sizeof(master.key)) != sizeof(master.key))
        return DG_ERR_INVALID;
    memcpy(master.id, text.data, id_size);
    *ret_master = master;
    OPENSSL_cleanse(&master, sizeof(master));
    return 0;
}

int credential_master_load(const char *path, struct credential_master *ret_master,
                           char *ret_error) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return refuse_master(ret_error, path, strerror(errno));
    struct stat status;
    char text[MASTER_FILE_MAX];
    ssize_t size = read(fd, text, sizeof(text));
    bool open_to_all = fstat(fd, &status) != 0 || (status.st_mode & S_IRWXO) != 0;
    close(fd);
    int err = DG_ERR_INVALID;
    if (size > 0 && !open_to_all)
        err = parse_master(slice_make(text, (size_t)size), ret_master);
    OPENSSL_cleanse(text, sizeof(text));
    if (open_to_all)
        return refuse_master(ret_error, path, "may be read by everybody (chmod 600 it)");
    return err < 0 ? refuse_master(ret_error, path, "is not 'key-id:base64 of 32 bytes'") : 0;
}

/* ---- generated keys ---- */

void credential_generate_key(char *ret_text) {
    uint8_t bytes[24];
    random_bytes(bytes, sizeof(bytes));
    size_t size = credential_base64_encode(bytes, sizeof(bytes), ret_text);
    dg_assert(size == CREDENTIAL_KEY_TEXT_SIZE - 1);
    for (size_t i = 0; i < size; i++)
        ret_text[i] = ret_text[i] == '+' ? '-' : ret_text[i] == '/' ? '_' : ret_text[i];
    OPENSSL_cleanse(bytes, sizeof(bytes));
}

bool credential_looks_generated(struct slice secret) {
    for (size_t i = 0; i < secret.size; i++) {
        uint8_t c = secret.data[i];
        bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!letter && c != '-' && c != '_')
            return false;
    }
    return secret.size == CREDENTIAL_KEY_TEXT_SIZE - 1;
}

void credential_hash_key(const struct credential_master *master, const char *text, size_t size,
                         uint8_t *ret_hash) {
    unsigned length = 0;
    const uint8_t *hash = HMAC(EVP_sha256(), master->key, sizeof(master->key),
                               (const uint8_t *)text, size, ret_hash, &length);
    dg_assert(hash && length == CREDENTIAL_HASH_SIZE);
}

/* ---- passwords ---- */

static int run_scrypt(struct slice password, const uint8_t *salt, uint8_t *ret_hash) {
    int done = EVP_PBE_scrypt((const char *)password.data, password.size, salt,
                              CREDENTIAL_SALT_SIZE, 1u << SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P,
                              SCRYPT_MEMORY_MAX, ret_hash, CREDENTIAL_HASH_SIZE);
    return done == 1 ? 0 : DG_ERR_NO_MEMORY;
}

int credential_hash_password(struct slice password, const uint8_t *salt, char *ret_encoded) {
    uint8_t hash[CREDENTIAL_HASH_SIZE];
    char salt_text[32], hash_text[64];
    int err = run_scrypt(password, salt, hash);
    if (err < 0)
        return err;
    credential_base64_encode(salt, CREDENTIAL_SALT_SIZE, salt_text);
    credential_base64_encode(hash, sizeof(hash), hash_text);
    snprintf(ret_encoded, CREDENTIAL_PASSWORD_SIZE, "scrypt$%d$%d$%d$%s$%s", SCRYPT_LOG_N, SCRYPT_R,
             SCRYPT_P, salt_text, hash_text);
    OPENSSL_cleanse(hash, sizeof(hash));
    OPENSSL_cleanse(hash_text, sizeof(hash_text));
    return 0;
}

int credential_password_salt(struct slice encoded, uint8_t *ret_salt) {
    char prefix[32];
    uint8_t salt[CREDENTIAL_SALT_SIZE];
    int size =
        snprintf(prefix, sizeof(prefix), "scrypt$%d$%d$%d$", SCRYPT_LOG_N, SCRYPT_R, SCRYPT_P);
    if (!slice_starts_with(encoded, prefix))
        return DG_ERR_CORRUPT;
    struct slice rest = slice_skip(encoded, (size_t)size);
    const uint8_t *dollar = rest.size ? memchr(rest.data, '$', rest.size) : NULL;
    if (!dollar || credential_base64_decode(slice_make(rest.data, (size_t)(dollar - rest.data)),
                                            salt, sizeof(salt)) != sizeof(salt))
        return DG_ERR_CORRUPT;
    memcpy(ret_salt, salt, sizeof(salt));
    return 0;
}

void credential_derive_salt(const struct credential_master *master, const char *tenant,
                            const char *device, uint8_t *ret_salt) {
    char text[LIMIT_TENANT_BYTES + LIMIT_DEVICE_ID_BYTES + 32];
    uint8_t mac[EVP_MAX_MD_SIZE];
    int size = snprintf(text, sizeof(text), "password salt %s/%s", tenant, device);
    const uint8_t *done = HMAC(EVP_sha256(), master->key, sizeof(master->key),
                               (const uint8_t *)text, (size_t)size, mac, NULL);
    dg_assert(done && size < (int)sizeof(text));
    memcpy(ret_salt, mac, CREDENTIAL_SALT_SIZE);
}

/* ---- sealed keys ---- */

enum { HEAD_SIZE = NONCE_SIZE + TAG_SIZE, FORM_SIZE = CREDENTIAL_SEALED_MAX - HEAD_SIZE };

static int seal(const struct credential_master *master, struct slice plain, uint8_t *ret_sealed) {
    uint8_t sealed[CREDENTIAL_SEALED_MAX], *body = sealed + HEAD_SIZE;
    int size = 0, more = 0;
    random_bytes(sealed, NONCE_SIZE);
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    bool done =
        cipher && EVP_EncryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, master->key, sealed) == 1 &&
        EVP_EncryptUpdate(cipher, body, &size, plain.data, (int)plain.size) == 1 &&
        EVP_EncryptFinal_ex(cipher, body + size, &more) == 1 &&
        EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_GET_TAG, TAG_SIZE, sealed + NONCE_SIZE) == 1;
    EVP_CIPHER_CTX_free(cipher);
    if (!done)
        return DG_ERR_NO_MEMORY;
    memcpy(ret_sealed, sealed, HEAD_SIZE + plain.size);
    return 0;
}

/* sealed has at most CREDENTIAL_SEALED_MAX bytes. */
static int unseal(const struct credential_master *master, struct slice sealed, uint8_t *ret_plain) {
    uint8_t plain[FORM_SIZE], tag[TAG_SIZE];
    int size = 0;
    memcpy(tag, sealed.data + NONCE_SIZE, TAG_SIZE);
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    bool done =
        cipher &&
        EVP_DecryptInit_ex(cipher, EVP_aes_256_gcm(), NULL, master->key, sealed.data) == 1 &&
        EVP_DecryptUpdate(cipher, plain, &size, sealed.data + HEAD_SIZE,
                          (int)(sealed.size - HEAD_SIZE)) == 1 &&
        EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_GCM_SET_TAG, TAG_SIZE, tag) == 1 &&
        EVP_DecryptFinal_ex(cipher, plain + size, &size) == 1;
    EVP_CIPHER_CTX_free(cipher);
    if (done)
        memcpy(ret_plain, plain, sealed.size - HEAD_SIZE);
    OPENSSL_cleanse(plain, sizeof(plain));
    return done ? 0 : DG_ERR_CORRUPT;
}

int credential_seal_pair(const struct credential_master *master, const uint8_t *primary,
                         const uint8_t *secondary, uint8_t *ret_sealed) {
    uint8_t pair[2 * CREDENTIAL_PAIR_KEY_SIZE];
    memcpy(pair, primary, CREDENTIAL_PAIR_KEY_SIZE);
    memcpy(pair + CREDENTIAL_PAIR_KEY_SIZE, secondary, CREDENTIAL_PAIR_KEY_SIZE);
    int err = seal(master, slice_make(pair, sizeof(pair)), ret_sealed);
    OPENSSL_cleanse(pair, sizeof(pair));
    return err;
}

int credential_open_pair(const struct credential_master *master, struct slice sealed,
                         uint8_t *ret_keys) {
    if (sealed.size != CREDENTIAL_SEALED_SIZE)
        return DG_ERR_CORRUPT;
    return unseal(master, sealed, ret_keys);
}

static bool is_symmetric(const struct credential_symmetric *key) {
    return key->size_bytes >= CREDENTIAL_SYMMETRIC_MIN &&
           key->size_bytes <= CREDENTIAL_SYMMETRIC_MAX;
}

int credential_seal_keys(const struct credential_master *master, const struct credential_keys *keys,
                         uint8_t *ret_sealed, size_t *ret_size) {
    const struct credential_symmetric *first = &keys->keys[0], *second = &keys->keys[1];
    _Static_assert(sizeof(*keys) == FORM_SIZE, "sealed as it is in memory");
    dg_assert(is_symmetric(first) && is_symmetric(second));
    /* What an older release can read is written so that it can. */
    bool is_pair = first->size_bytes == CREDENTIAL_PAIR_KEY_SIZE &&
                   second->size_bytes == CREDENTIAL_PAIR_KEY_SIZE;
    int err = is_pair ? credential_seal_pair(master, first->bytes, second->bytes, ret_sealed)
                      : seal(master, slice_make(keys, sizeof(*keys)), ret_sealed);
    if (err == 0)
        *ret_size = is_pair ? CREDENTIAL_SEALED_SIZE : CREDENTIAL_SEALED_MAX;
    return err;
}

static int open_pair_as_keys(const struct credential_master *master, struct slice sealed,
                             struct credential_keys *ret_keys) {
    uint8_t pair[2 * CREDENTIAL_PAIR_KEY_SIZE];
    int err = credential_open_pair(master, sealed, pair);
    if (err < 0)
        return err;
    for (unsigned i = 0; i < 2; i++) {
        ret_keys->keys[i].size_bytes = CREDENTIAL_PAIR_KEY_SIZE;
        memcpy(ret_keys->keys[i].bytes, pair + i * CREDENTIAL_PAIR_KEY_SIZE,
               CREDENTIAL_PAIR_KEY_SIZE);
    }
    OPENSSL_cleanse(pair, sizeof(pair));
    return 0;
}

int credential_open_keys(const struct credential_master *master, struct slice sealed,
                         struct credential_keys *ret_keys) {
    struct credential_keys keys;
    if (sealed.size != CREDENTIAL_SEALED_MAX)
        return open_pair_as_keys(master, sealed, ret_keys);
    int err = unseal(master, sealed, (uint8_t *)&keys);
    if (err == 0 && (!is_symmetric(&keys.keys[0]) || !is_symmetric(&keys.keys[1])))
        err = DG_ERR_CORRUPT;
    if (err == 0)
        *ret_keys = keys;
    OPENSSL_cleanse(&keys, sizeof(keys));
    return err;
}

/* ---- certificates ---- */

static void write_hex(const uint8_t *data, size_t size, char *ret_text) {
    for (size_t i = 0; i < size; i++)
        sprintf(ret_text + 2 * i, "%02x", data[i]);
}

static int64_t asn1_time_ms(const ASN1_TIME *time) {
    struct tm parts;
    return ASN1_TIME_to_tm(time, &parts) == 1 ? (int64_t)timegm(&parts) * 1000 : 0;
}

static bool describe_certificate(X509 *certificate, struct credential_certificate *ret) {
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    struct credential_certificate c = {0};
    if (X509_digest(certificate, EVP_sha256(), digest, &size) != 1)
        return false;
    write_hex(digest, size, c.sha256);
    if (X509_NAME_digest(X509_get_subject_name(certificate), EVP_sha256(), digest, &size) != 1)
        return false;
    write_hex(digest, size, c.subject_hash);
    c.is_ca = X509_check_ca(certificate) > 0;
    c.not_before_ms = asn1_time_ms(X509_get0_notBefore(certificate));
    c.not_after_ms = asn1_time_ms(X509_get0_notAfter(certificate));
    *ret = c;
    return true;
}

int credential_check_certificate(const char *pem, size_t size, struct credential_certificate *ret) {
    static const char begin[] = "-----BEGIN CERTIFICATE-----";
    if (size == 0 || size > CERTIFICATE_MAX)
        return DG_ERR_INVALID;
    const char *first = memmem(pem, size, begin, sizeof(begin) - 1);
    size_t after = first ? (size_t)(first - pem) + sizeof(begin) - 1 : 0;
    if (!first || memmem(pem + after, size - after, begin, sizeof(begin) - 1))
        return DG_ERR_INVALID;
    BIO *bio = BIO_new_mem_buf(pem, (int)size);
    X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    bool done = certificate && describe_certificate(certificate, ret);
    X509_free(certificate);
    BIO_free(bio);
    return done ? 0 : DG_ERR_INVALID;
}
