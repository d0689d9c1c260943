/* What needs no PostgreSQL: secrets, SAS tokens, certificates' forms, roles. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "registry/admin.h"
#include "registry/cache.h"
#include "registry/credential.h"
#include "registry/registry.h"
#include "registry/sas.h"
#include "registry/scram_keys.h"

static const struct credential_master master = {.id = "k1", .key = {1, 2, 3}};

static int load(const char *text, mode_t mode, struct credential_master *ret, char *ret_error) {
    char path[] = "/tmp/duragate-master-XXXXXX";
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    cr_assert(fchmod(fd, mode) == 0);
    close(fd);
    int err = credential_master_load(path, ret, ret_error);
    unlink(path);
    return err;
}

#define KEY32 "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

Test(registry, master_key_file) {
    static const struct {
        const char *text;
        mode_t mode;
        int err;
    } rows[] = {
        {"k1:" KEY32 "\n", 0600, 0},
        {"k1:" KEY32, 0640, 0},
        {"k1:" KEY32 "\r\n", 0400, 0},
        {"k1:" KEY32 "\n", 0644, DG_ERR_INVALID},
        {":" KEY32 "\n", 0600, DG_ERR_INVALID},
        {KEY32 "\n", 0600, DG_ERR_INVALID},
        {"k1:AAEC\n", 0600, DG_ERR_INVALID},
        {"k1:AAE*\n", 0600, DG_ERR_INVALID},
        {"", 0600, DG_ERR_INVALID},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct credential_master got = {0};
        char error[REGISTRY_ERROR_SIZE] = "";
        cr_expect_eq(load(rows[i].text, rows[i].mode, &got, error), rows[i].err, "row %u: %s", i,
                     error);
        cr_expect_eq(got.key[31], rows[i].err == 0 ? 31 : 0, "row %u", i);
        cr_expect_eq(error[0] == '\0', rows[i].err == 0, "row %u", i);
    }
    struct credential_master got;
    char error[REGISTRY_ERROR_SIZE] = "";
    cr_expect_eq(credential_master_load("", &got, error), DG_ERR_INVALID);
    cr_expect(strstr(error, "security.master_key_file"));
}

Test(registry, generated_keys) {
    char key[CREDENTIAL_KEY_TEXT_SIZE], other[CREDENTIAL_KEY_TEXT_SIZE];
    uint8_t hash[CREDENTIAL_HASH_SIZE], again[CREDENTIAL_HASH_SIZE];
    credential_generate_key(key);
    credential_generate_key(other);
    cr_expect_eq(strlen(key), 32);
    cr_expect_eq(strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
                 32);
    cr_expect_str_neq(key, other);
    credential_hash_key(&master, key, strlen(key), hash);
    credential_hash_key(&master, key, strlen(key), again);
    cr_expect_arr_eq(hash, again, sizeof(hash));
    const struct credential_master different = {.id = "k2", .key = {9}};
    credential_hash_key(&different, key, strlen(key), again);
    cr_expect_arr_neq(hash, again, sizeof(hash));
}

Test(registry, passwords) {
    char encoded[CREDENTIAL_PASSWORD_SIZE], again[CREDENTIAL_PASSWORD_SIZE];
    uint8_t salt[CREDENTIAL_SALT_SIZE], other[CREDENTIAL_SALT_SIZE], read[CREDENTIAL_SALT_SIZE];
    struct slice right = slice_from_string("correct horse");
    credential_derive_salt(&master, "acme", "human", salt);
    credential_derive_salt(&master, "acme", "humam", other);
    cr_expect_arr_neq(salt, other, sizeof(salt), "a salt for each device");
    cr_assert_eq(credential_hash_password(right, salt, encoded), 0);
    cr_assert_eq(credential_hash_password(right, salt, again), 0);
    cr_expect_str_eq(encoded, again);
    cr_assert_eq(credential_hash_password(right, other, again), 0);
    cr_expect_str_neq(encoded, again);
    cr_assert_eq(credential_password_salt(slice_from_string(encoded), read), 0);
    cr_expect_arr_eq(read, salt, sizeof(salt));
    static const char *const wrong[] = {"correct horsf", "", "correct horse "};
    for (unsigned i = 0; i < 3; i++) {
        cr_assert_eq(credential_hash_password(slice_from_string(wrong[i]), salt, again), 0);
        cr_expect_str_neq(encoded, again);
    }
    static const char *const damaged[] = {
        "", "scrypt$", "scrypt$15$8$1$", "scrypt$15$8$1$AA==$AA==", "scrypt$31$8$1$AAAA$AAAA", "x"};
    for (unsigned i = 0; i < 6; i++)
        cr_expect_eq(credential_password_salt(slice_from_string(damaged[i]), read), DG_ERR_CORRUPT,
                     "%s", damaged[i]);
}

Test(registry, shape_of_generated_keys) {
    char key[CREDENTIAL_KEY_TEXT_SIZE];
    credential_generate_key(key);
    cr_expect(credential_looks_generated(slice_from_string(key)));
    static const char *const others[] = {"", "correct horse battery staple 123", "aaaaaaaaaaaaaaaa",
                                         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                                         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        cr_expect(!credential_looks_generated(slice_from_string(others[i])), "%s", others[i]);
}

Test(registry, sealed_keys) {
    uint8_t primary[32] = "primary", secondary[32] = "secondary", opened[64];
    uint8_t sealed[CREDENTIAL_SEALED_SIZE];
    cr_assert_eq(credential_seal_pair(&master, primary, secondary, sealed), 0);
    struct slice blob = slice_make(sealed, sizeof(sealed));
    cr_assert_eq(credential_open_pair(&master, blob, opened), 0);
    cr_expect_arr_eq(opened, primary, 32);
    cr_expect_arr_eq(opened + 32, secondary, 32);
    const struct credential_master different = {.id = "k2", .key = {9}};
    cr_expect_eq(credential_open_pair(&different, blob, opened), DG_ERR_CORRUPT);
    for (size_t i = 0; i < sizeof(sealed); i++) {
        sealed[i] ^= 1;
        cr_expect_eq(credential_open_pair(&master, blob, opened), DG_ERR_CORRUPT, "byte %zu", i);
        sealed[i] ^= 1;
    }
    cr_expect_eq(credential_open_pair(&master, slice_make(sealed, 91), opened), DG_ERR_CORRUPT);
}

Test(registry, sealed_keys_of_any_size) {
    static const uint8_t sizes[][2] = {{32, 32}, {16, 64}, {32, 16}, {64, 64}};
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct credential_keys keys = {.keys = {{sizes[i][0], "primary"},
                                                {sizes[i][1], "secondary"}}},
                               opened;
        uint8_t sealed[CREDENTIAL_SEALED_MAX];
        size_t size;
        cr_assert_eq(credential_seal_keys(&master, &keys, sealed, &size), 0);
        cr_expect_eq(size, i == 0 ? CREDENTIAL_SEALED_SIZE : CREDENTIAL_SEALED_MAX);
        memset(&opened, 0xAA, sizeof(opened));
        cr_assert_eq(credential_open_keys(&master, slice_make(sealed, size), &opened), 0);
        for (unsigned k = 0; k < 2; k++)
            cr_expect(slice_equals(credential_key(&opened, k), credential_key(&keys, k)));
        for (size_t at = 0; at < size; at++) {
            sealed[at] ^= 1;
            cr_expect_eq(credential_open_keys(&master, slice_make(sealed, size), &opened),
                         DG_ERR_CORRUPT);
            sealed[at] ^= 1;
        }
        cr_expect_eq(credential_open_keys(&master, slice_make(sealed, size - 1), &opened),
                     DG_ERR_CORRUPT);
    }
}

Test(registry, scram_keys) {
    static const char id[] = "reader", secret[] = "a-secret";
    uint8_t sealed[CREDENTIAL_SEALED_SIZE], salt[SCRAM_SALT_SIZE], other[SCRAM_SALT_SIZE];
    struct scram_keys keys, derived;
    cr_assert_eq(scram_keys_seal(&master, id, secret, sealed), 0);
    cr_assert_eq(scram_keys_open(&master, slice_make(sealed, sizeof(sealed)), &keys), 0);
    scram_keys_salt(&master, slice_from_string(id), salt);
    cr_assert_eq(scram_keys_derive(slice_from_string(secret), salt, sizeof(salt), SCRAM_ITERATIONS,
                                   &derived),
                 0);
    cr_expect_arr_eq(&keys, &derived, sizeof(keys));
    scram_keys_salt(&master, slice_from_string("other"), other);
    cr_expect_arr_neq(salt, other, sizeof(salt));
    const struct credential_master different = {.id = "k2", .key = {9}};
    scram_keys_salt(&different, slice_from_string(id), other);
    cr_expect_arr_neq(salt, other, sizeof(salt));
    sealed[40] ^= 1;
    cr_expect_eq(scram_keys_open(&master, slice_make(sealed, sizeof(sealed)), &keys),
                 DG_ERR_CORRUPT);
}

#define SIG "7XMfwbVYH8Zd3Uy8xNvFqBqxH0nJmB0Tj7cZ8b1aK3s%3D"

Test(registry, sas_forms) {
    static const struct {
        const char *text;
        int err;
        bool names_dev1;
    } rows[] = {
        {"SharedAccessSignature sr=h%2Fdevices%2Fdev1&sig=" SIG "&se=1900000000", 0, true},
        {"SharedAccessSignature se=1900000000&SIG=" SIG "&SKN=p1&SR=h%2fdevices%2fdev1", 0, true},
        {"SharedAccessSignature sr=h/devices/dev1&sig=" SIG "&se=1900000000", 0, true},
        {"SharedAccessSignature sr=h%2Fdevices%2Fdev2&sig=" SIG "&se=1900000000", 0, false},
        {"SharedAccessSignature sr=h%2Fdevices%2FDEV1&sig=" SIG "&se=1900000000", 0, false},
        {"SharedAccessSignature sr=hdevices%2Fdev1&sig=" SIG "&se=1900000000", 0, false},
        {"SharedAccessSignature sr=h%2Fdevices%2Fdev1%2Fmodules%2Fm&sig=" SIG "&se=1900000000", 0,
         false},
        {"SharedAccessSignature sr=h%2Fdevices%2Fdev1&sig=" SIG, DG_ERR_MALFORMED, false},
        {"SharedAccessSignature sr=h%2Fdevices%2Fdev1&se=1900000000", DG_ERR_MALFORMED, false},
        {"SharedAccessSignature sig=" SIG "&se=1900000000", DG_ERR_MALFORMED, false},
        {"SharedAccessSignature sr=h%2Fdevices%2Fdev1&sig=AAAA&se=1900000000", DG_ERR_MALFORMED,
         false},
        {"SharedAccessSignature sr=h&sig=" SIG "&se=19x", DG_ERR_MALFORMED, false},
        {"SharedAccessSignature sr=h&sig=" SIG "&se=", DG_ERR_MALFORMED, false},
        {"SharedAccessSignature sr=h&sig=" SIG "&se=9999999999999", DG_ERR_MALFORMED, false},
        {"SharedAccessSignature  ", DG_ERR_MALFORMED, false},
        {"SharedAccessSignature", DG_ERR_MALFORMED, false},
        {"", DG_ERR_MALFORMED, false},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct sas_token token;
        int err = sas_parse(slice_from_string(rows[i].text), &token);
        cr_expect_eq(err, rows[i].err, "row %u: %d", i, err);
        if (err == 0)
            cr_expect(slice_equals_string(token.policy, i == 1 ? "p1" : ""));
        if (err == 0)
            cr_expect_eq(sas_names_device(&token, "dev1"), rows[i].names_dev1, "row %u", i);
    }
}

Test(registry, sas_signature) {
    static const char text[] = "host.example%2Fdevices%2Fdev1\n1900000000";
    uint8_t key[32] = "0123456789abcdef0123456789abcde", mac[32];
    char base64[64], token_text[256];
    HMAC(EVP_sha256(), key, 32, (const uint8_t *)text, sizeof(text) - 1, mac, NULL);
    credential_base64_encode(mac, 32, base64);
    char escaped[160] = "";
    for (const char *c = base64; *c; c++)
        snprintf(escaped + strlen(escaped), 4, strchr("+/=", *c) ? "%%%02X" : "%c", *c);
    snprintf(token_text, sizeof(token_text),
             "SharedAccessSignature sr=host.example%%2Fdevices%%2Fdev1&sig=%s&se=1900000000",
             escaped);
    struct sas_token token;
    cr_assert_eq(sas_parse(slice_from_string(token_text), &token), 0);
    cr_expect_eq(token.expiry_ms, 1900000000000);
    cr_expect_eq(sas_is_signed_by(&token, slice_make(key, 32)), SAS_SIGNED);
    key[0] ^= 1;
    cr_expect_eq(sas_is_signed_by(&token, slice_make(key, 32)), SAS_NOT_SIGNED);
}

/* Signed over the encoded form, sent in another. */
Test(registry, sas_signature_of_another_encoding) {
    static const char signed_text[] = "host.example%2Fdevices%2Fdev%401\n1900000000";
    static const struct {
        const char *resource;
        enum sas_signature expected;
    } rows[] = {
        {"host.example%2Fdevices%2Fdev%401", SAS_SIGNED},
        {"host.example%2fdevices%2fdev%401", SAS_SIGNED_REENCODED},
        {"host.example/devices/dev@1", SAS_SIGNED_REENCODED},
        {"host.example/devices/dev1", SAS_NOT_SIGNED},
    };
    static const uint8_t key[64] = "a key of sixty-four bytes, the longest one that there may be";
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct sas_token token = {.resource = slice_from_string(rows[i].resource),
                                  .expiry_text = slice_from_string("1900000000")};
        HMAC(EVP_sha256(), key, sizeof(key), (const uint8_t *)signed_text, sizeof(signed_text) - 1,
             token.signature, NULL);
        cr_expect_eq(sas_is_signed_by(&token, slice_make(key, sizeof(key))), rows[i].expected,
                     "row %u", i);
    }
}

Test(registry, sas_covers) {
    static const struct {
        const char *resource;
        bool covers;
    } rows[] = {
        {"hub.example%2Fdevices%2Fdev1", true},
        {"HUB.example:8883/devices/dev1", true},
        {"amqps%3A%2F%2Fhub.example%2Fdevices%2Fdev1%2F", true},
        {"hub.example%2fdevices", true},
        {"hub.example", true},
        {"hub.example/", true},
        {"hub.example/devices/dev1/modules/m", false},
        {"hub.example/devices/dev", false},
        {"hub.example/devices/dev12", false},
        {"hub.example/devices/DEV1", false},
        {"hub.example/Devices", false},
        {"hub.exampl", false},
        {"hub.example2/devices/dev1", false},
        {"other.example/devices/dev1", false},
        {"/devices/dev1", false},
        {"devices/dev1", false},
        {"%2", false},
        {"", false},
        {"/", false},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct sas_token token = {.resource = slice_from_string(rows[i].resource)};
        cr_expect_eq(sas_covers(&token, slice_from_string("hub.example/devices/dev1")),
                     rows[i].covers, "%s", rows[i].resource);
    }
}

Test(registry, sas_host) {
    static const struct {
        const char *resource, *host; /* NULL: none */
    } rows[] = {
        {"hub.example", "hub.example"},
        {"HUB.example:443%2Fdevices", "HUB.example"},
        {"sb%3A%2F%2Fhub.example%2Fhub", "hub.example"},
        {"", NULL},
        {"/devices", NULL},
        {"%00hub", NULL},
        {"a-host-too-long", NULL},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct sas_token token = {.resource = slice_from_string(rows[i].resource)};
        char host[14] = "";
        cr_expect_eq(sas_read_host(&token, host, sizeof(host)), rows[i].host != NULL, "%s",
                     rows[i].resource);
        cr_expect_str_eq(host, rows[i].host ? rows[i].host : "", "%s", rows[i].resource);
    }
}

Test(registry, roles) {
    static const char *const names[] = {"admin",    "operator", "reader",
                                        "consumer", "auditor",  "commander"};
    for (unsigned i = 0; i < 6; i++) {
        cr_expect_eq(registry_role_by_name(names[i]), 1u << i);
        cr_expect_str_eq(registry_role_name(1u << i), names[i]);
    }
    cr_expect_eq(registry_role_by_name("Admin"), 0);
    cr_expect_null(registry_role_name(3));
    cr_expect_null(registry_role_name(64));
}

Test(registry, hexadecimal) {
    uint8_t bytes[2] = {0};
    cr_expect_eq(cache_decode_hex("0aFF", bytes, 2), 2);
    cr_expect_eq(bytes[0], 0x0A);
    cr_expect_eq(bytes[1], 0xFF);
    static const char *const wrong[] = {"0", "0g", "g0", " 1", "+1", "0x", "010203"};
    for (unsigned i = 0; i < 7; i++)
        cr_expect_eq(cache_decode_hex(wrong[i], bytes, 2), -1, "%s", wrong[i]);
}
