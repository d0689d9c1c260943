/* Every kind of credential, right and wrong, against a PostgreSQL of its own. */
#include "tests/unit/registry/logins.h"

#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "registry/admin.h"

static void hex(const uint8_t *bytes, size_t size, char *ret_text) {
    for (size_t i = 0; i < size; i++)
        sprintf(ret_text + 2 * i, "%02x", bytes[i]);
}

long long logins_add(struct bench *b, const char *device, const char *name, const char *kind,
                     const void *secret, size_t size, const char *more) {
    char text[512] = "";
    hex(secret, size, text);
    return atoll(bench_sql(b->conninfo,
                           "insert into credential (device_key, name, kind, secret, thumbprint,"
                           " not_before, not_after) select device_key, '%s', '%s',"
                           " case when '%s' = 'x509' then null else decode('%s', 'hex') end, %s"
                           " from device where device_id = '%s' returning credential_key",
                           name, kind, kind, text, more ? more : "null, null, null", device));
}

long long logins_add_key(struct bench *b, const char *device, const char *name, const char *text,
                         const char *more) {
    uint8_t hash[CREDENTIAL_HASH_SIZE];
    credential_hash_key(&b->master, text, strlen(text), hash);
    return logins_add(b, device, name, "key", hash, sizeof(hash), more);
}

long long logins_add_authority(struct bench *b, const char *tenant, const char *name,
                               const struct test_certificate *authority) {
    char *pem = test_certificate_pem(authority);
    struct credential_certificate seen;
    CHECK(credential_check_certificate(pem, strlen(pem), &seen) == 0 && seen.is_ca);
    long long key = atoll(bench_sql(
        b->conninfo,
        "insert into certificate_authority (tenant_key, name, certificate, fingerprint,"
        " subject_hash) select tenant_key, '%s', '%s', '%s', '%s' from tenant where name = '%s'"
        " returning credential_key",
        name, pem, seen.sha256, seen.subject_hash, tenant));
    free(pem);
    return key;
}

static void write_token_for(struct slice key, const char *resource, long long expiry_s,
                            char *ret_text, size_t room) {
    char text[256], base64[64];
    uint8_t mac[32];
    int size = snprintf(text, sizeof(text), "%s\n%lld", resource, expiry_s);
    HMAC(EVP_sha256(), key.data, (int)key.size, (const uint8_t *)text, (size_t)size, mac, NULL);
    credential_base64_encode(mac, sizeof(mac), base64);
    size = snprintf(ret_text, room, "SharedAccessSignature sr=%s&sig=", resource);
    for (const char *c = base64; *c; c++)
        size +=
            snprintf(ret_text + size, room - (size_t)size, strchr("+/=", *c) ? "%%%02X" : "%c", *c);
    snprintf(ret_text + size, room - (size_t)size, "&se=%lld", expiry_s);
}

static void write_token(const uint8_t *key, const char *device, long long expiry_s, char *ret_text,
                        size_t room) {
    char resource[128];
    snprintf(resource, sizeof(resource), "hub.example%%2Fdevices%%2F%s", device);
    write_token_for(slice_make(key, 32), resource, expiry_s, ret_text, room);
}

void logins_check_keys(struct bench *b) {
    long long first = logins_add_key(b, "keyed", "first", "first-secret-of-the-device-00001", NULL);
    long long second =
        logins_add_key(b, "keyed", "second", "second-secret-of-the-device-0002", NULL);
    logins_add_key(b, "keyed", "early", "early-secret", "null, now() + interval '1 h', null");
    logins_add_key(b, "keyed", "late", "late-secret", "null, null, now() - interval '1 s'");
    long long dated = logins_add_key(b, "keyed", "dated", "dated-secret",
                                     "null, now() - interval '1 h', now() + interval '1 h'");
    logins_add_key(b, "off", "key", "off-secret", NULL);
    bench_run(b, 200);
    const struct {
        const char *tenant, *device, *secret;
        int err;
        long long credential_key;
    } rows[] = {
        {"acme", "keyed", "first-secret-of-the-device-00001", 0, first},
        {"acme", "keyed", "second-secret-of-the-device-0002", 0, second},
        {"acme", "keyed", "dated-secret", 0, dated},
        {"acme", "keyed", "first-secret-of-the-device-00002", DG_ERR_BAD_CREDENTIALS, 0},
        {"acme", "keyed", "", DG_ERR_BAD_CREDENTIALS, 0},
        {"acme", "keyed", "early-secret", DG_ERR_BAD_CREDENTIALS, 0},
        {"acme", "keyed", "late-secret", DG_ERR_BAD_CREDENTIALS, 0},
        {"beta", "keyed", "first-secret-of-the-device-00001", DG_ERR_BAD_CREDENTIALS, 0},
        {"acme", "keyee", "first-secret-of-the-device-00001", DG_ERR_BAD_CREDENTIALS, 0},
        {"none", "keyed", "first-secret-of-the-device-00001", DG_ERR_BAD_CREDENTIALS, 0},
        {"", "keyed", "first-secret-of-the-device-00001", DG_ERR_BAD_CREDENTIALS, 0},
        {"acme", "", "first-secret-of-the-device-00001", DG_ERR_BAD_CREDENTIALS, 0},
        {"acme", "\xFF\xFE", "first-secret-of-the-device-00001", DG_ERR_BAD_CREDENTIALS, 0},
        {"acme", "off", "off-secret", DG_ERR_DISABLED, 0},
        {"acme", "off", "on-secret", DG_ERR_BAD_CREDENTIALS, 0},
        {"shut", "inside", "inside-secret", DG_ERR_DISABLED, 0},
        {"shut", "inside", "wrong", DG_ERR_BAD_CREDENTIALS, 0},
    };
    for (unsigned i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) { /* second time: cached */
        unsigned row = i % (sizeof(rows) / sizeof(rows[0]));
        struct registry_identity who;
        int err = bench_login_secret(b, rows[row].tenant, rows[row].device, rows[row].secret, &who);
        CHECK(err == rows[row].err, "row %u: %s", i, dg_err_text(err));
        CHECK(err < 0 || who.credential_key == rows[row].credential_key, "row %u", i);
        if (err < 0)
            continue;
        CHECK(strcmp(who.tenant, "acme") == 0 && strcmp(who.device, "keyed") == 0);
        CHECK(who.partition == 3 && who.partition_count == 16 && who.tenant_stream_id > 0);
        int64_t left_ms = who.valid_until_ms ? who.valid_until_ms - clock_wall_ms() : 0;
        CHECK(rows[row].credential_key == dated ? left_ms > 3500000 && left_ms <= 3600000
                                                : left_ms == 0);
    }
}

void logins_check_tokens(struct bench *b) {
    uint8_t primary[32] = "primary", secondary[32] = "secondary", other[32] = "other";
    uint8_t sealed[CREDENTIAL_SEALED_SIZE];
    CHECK(credential_seal_pair(&b->master, primary, secondary, sealed) == 0);
    logins_add(b, "token", "sas", "sas", sealed, sizeof(sealed), NULL);
    bench_run(b, 100);
    long long now_s = clock_wall_ms() / 1000;
    const struct {
        const uint8_t *key;
        const char *device;
        long long expiry_s;
        int err;
    } rows[] = {
        {primary, "token", now_s + 600, 0},
        {secondary, "token", now_s + 600, 0},
        {other, "token", now_s + 600, DG_ERR_BAD_CREDENTIALS},
        {primary, "token", now_s - 1, DG_ERR_BAD_CREDENTIALS},
        {primary, "keyed", now_s + 600, DG_ERR_BAD_CREDENTIALS},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[512];
        struct registry_identity who;
        write_token(rows[i].key, rows[i].device, rows[i].expiry_s, text, sizeof(text));
        int err = bench_login_secret(b, "acme", "token", text, &who);
        CHECK(err == rows[i].err, "row %u: %s", i, dg_err_text(err));
        CHECK(err < 0 || who.valid_until_ms == rows[i].expiry_s * 1000);
    }
    CHECK(bench_login_secret(b, "acme", "token", "SharedAccessSignature x", NULL) ==
          DG_ERR_BAD_CREDENTIALS);
}

/* IoT Hub's clients: keys of any size, the host counts, clocks may be five minutes apart. */
void logins_check_hub_tokens(struct bench *b) {
    const struct credential_keys keys = {.keys = {{16, "primary"}, {64, "secondary"}}};
    uint8_t sealed[CREDENTIAL_SEALED_MAX];
    size_t sealed_size;
    CHECK(credential_seal_keys(&b->master, &keys, sealed, &sealed_size) == 0);
    logins_add(b, "hub", "iothub", "sas", sealed, sealed_size, NULL);
    bench_run(b, 100);
    long long now_s = clock_wall_ms() / 1000;
    const struct {
        const char *resource;
        unsigned key;
        int seconds, until, err; /* from now on; until: of the connection */
    } rows[] = {
        {"hub.example%2Fdevices%2Fhub", 0, 600, 600, 0},
        {"HUB.EXAMPLE:8883/devices/hub", 1, 600, 600, 0},
        {"hub.example%2fdevices", 1, 600, 600, 0},
        {"hub.example%2Fdevices%2Fhub", 0, -200, 100, 0},
        {"hub.example%2Fdevices%2Fhub", 0, -400, 0, DG_ERR_BAD_CREDENTIALS},
        {"other.example%2Fdevices%2Fhub", 0, 600, 0, DG_ERR_BAD_CREDENTIALS},
        {"hub.example%2Fdevices%2Fhu", 0, 600, 0, DG_ERR_BAD_CREDENTIALS},
        {"devices%2Fhub", 0, 600, 0, DG_ERR_BAD_CREDENTIALS},
    };
    b->host = "hub.example";
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[512];
        struct registry_identity who;
        write_token_for(credential_key(&keys, rows[i].key), rows[i].resource,
                        now_s + rows[i].seconds, text, sizeof(text));
        int err = bench_login_secret(b, "acme", "hub", text, &who);
        CHECK(err == rows[i].err, "row %u: %s", i, dg_err_text(err));
        CHECK(err < 0 || who.valid_until_ms == (now_s + rows[i].until) * 1000, "row %u", i);
    }
    b->host = NULL;
}

/* Access policies: either key, no key of a device, and nothing that proves an API key. */
void logins_check_policies(struct bench *b) {
    const struct credential_keys keys = {.keys = {{32, "first"}, {32, "second"}}};
    const struct credential_symmetric other = {32, "other"};
    uint8_t sealed[CREDENTIAL_SEALED_MAX];
    char text[512], sealed_text[2 * CREDENTIAL_SEALED_MAX + 1];
    size_t sealed_size;
    struct registry_identity who;
    CHECK(credential_seal_keys(&b->master, &keys, sealed, &sealed_size) == 0);
    hex(sealed, sealed_size, sealed_text);
    long long number = atoll(
        bench_sql(b->conninfo,
                  "insert into access_policy (tenant_key, name, rights, secret, master_key_id)"
                  " select tenant_key, 'service', 1 << 18, decode('%s', 'hex'), '%s' from tenant"
                  " where name = 'acme' returning credential_key",
                  sealed_text, b->master.id));
    bench_run(b, 100);
    long long now_s = clock_wall_ms() / 1000;
#define LOGIN(name, key, expiry_s)                                          \
    (write_token_for((key), "hub.example", (expiry_s), text, sizeof(text)), \
     bench_login(b, REGISTRY_LOGIN_ACCESS_POLICY, "", (name), slice_from_string(text), 0, &who))
    for (unsigned i = 0; i < 2; i++) {
        CHECK(LOGIN("acme/service", credential_key(&keys, i), now_s + 600) == 0);
        CHECK(who.roles == REGISTRY_RIGHT_SERVICE_CONNECT && strcmp(who.tenant, "acme") == 0);
        CHECK(who.credential_key == number && who.device_key == 0);
        CHECK(LOGIN("acme/service", credential_key(&keys, i), now_s - 200) == 0);
        CHECK(LOGIN("acme/service", credential_key(&keys, i), now_s - 400) ==
              DG_ERR_BAD_CREDENTIALS);
    }
    CHECK(LOGIN("acme/service", slice_make(other.bytes, 32), now_s + 600) ==
          DG_ERR_BAD_CREDENTIALS);
    CHECK(LOGIN("acme/other", credential_key(&keys, 0), now_s + 600) == DG_ERR_BAD_CREDENTIALS);
    CHECK(LOGIN("none/service", credential_key(&keys, 0), now_s + 600) == DG_ERR_BAD_CREDENTIALS);
    CHECK(LOGIN("service", credential_key(&keys, 0), now_s + 600) == DG_ERR_BAD_CREDENTIALS);
    CHECK(logins_try_principal(b, "acme/service", "first", NULL) == DG_ERR_BAD_CREDENTIALS);
    CHECK(bench_login_scram(b, "acme/service", "first", NULL) == DG_ERR_BAD_CREDENTIALS);
    b->revocation_count = 0;
    bench_sql(b->conninfo, "update access_policy set rights = 1 << 16 where name = 'service'");
    CHECK(bench_wait_revocation(b, 0, number), "other rights end connections");
    CHECK(LOGIN("acme/service", credential_key(&keys, 0), now_s + 600) == 0 &&
          who.roles == REGISTRY_RIGHT_REGISTRY_READ);
    b->revocation_count = 0;
    bench_sql(b->conninfo, "delete from access_policy where name = 'service'");
    CHECK(bench_wait_revocation(b, 0, number));
    CHECK(LOGIN("acme/service", credential_key(&keys, 0), now_s + 600) == DG_ERR_BAD_CREDENTIALS);
#undef LOGIN
}

struct hashed {
    bool done;
};

static void deliver_hash(struct mail *mail, void *receiver) {
    struct registry_password_hash *hash = (struct registry_password_hash *)(void *)mail;
    ((struct hashed *)(uintptr_t)hash->owner)->done = true;
}

static void add_password(struct bench *b, const char *device, const char *name,
                         const char *password) {
    struct registry_password_hash *hash = calloc(1, sizeof(*hash));
    struct hashed hashed = {false};
    hash->mail.deliver = deliver_hash;
    hash->reply_to = &b->mailbox;
    hash->owner = (uintptr_t)&hashed;
    snprintf(hash->tenant, sizeof(hash->tenant), "acme");
    snprintf(hash->device, sizeof(hash->device), "%s", device);
    hash->password_size = strlen(password);
    memcpy(hash->password, password, hash->password_size);
    registry_hash_password(b->registry, hash);
    bench_wait(b, &hashed.done, 10000);
    CHECK(hash->err == 0, "%s", dg_err_text(hash->err));
    logins_add(b, device, name, "password", hash->encoded, strlen(hash->encoded), NULL);
    registry_password_hash_free(hash);
}

/* How often the slow function runs must not depend on what there is. */
static void check_runs(struct bench *b) {
    static const struct {
        const char *device, *secret;
        int err;
        unsigned runs;
    } rows[] = {
        {"human", "correct horse", 0, 1},
        {"human", "battery staple", 0, 1},
        {"human", "correct horsf", DG_ERR_BAD_CREDENTIALS, 1},
        {"nobody", "correct horse", DG_ERR_BAD_CREDENTIALS, 1},
        {"keyed", "correct horse", DG_ERR_BAD_CREDENTIALS, 1},
        {"off", "correct horse", DG_ERR_BAD_CREDENTIALS, 1},
        {"human", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", DG_ERR_BAD_CREDENTIALS, 0},
        {"nobody", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", DG_ERR_BAD_CREDENTIALS, 0},
        {"keyed", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", DG_ERR_BAD_CREDENTIALS, 0},
        {"human", "correct horse", 0, 0}, /* a password found right is remembered */
        {"human", "battery staple", 0, 0},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int64_t before = metric_read(METRIC_PASSWORD_RUNS);
        int err = bench_login_secret(b, "acme", rows[i].device, rows[i].secret, NULL);
        unsigned runs = (unsigned)(metric_read(METRIC_PASSWORD_RUNS) - before);
        CHECK(err == rows[i].err, "row %u: %s", i, dg_err_text(err));
        CHECK(runs == rows[i].runs, "row %u: %u runs", i, runs);
    }
}

void logins_check_passwords(struct bench *b) {
    add_password(b, "human", "old", "correct horse");
    add_password(b, "human", "new", "battery staple");
    add_password(b, "human", "third", "third password");
    bench_run(b, 100);
    check_runs(b);
}

/* Wrong passwords from one address: what they cost, and who still gets in. */
void logins_check_password_flood(struct bench *b) {
    enum { COUNT = 300 };
    const uint8_t flooder[16] = {[10] = 0xFF, 0xFF, 192, 0, 2, 1};
    const uint8_t other[16] = {[10] = 0xFF, 0xFF, 192, 0, 2, 2};
    add_password(b, "honest", "pw", "the honest device");
    add_password(b, "human", "fourth", "fourth password");
    bench_run(b, 100);
    memcpy(b->peer, flooder, sizeof(flooder));
    int64_t before = metric_read(METRIC_PASSWORD_RUNS);
    uint64_t start_ms = clock_monotonic_ms();
    unsigned throttled = 0;
    for (unsigned i = 0; i < COUNT; i++) {
        char name[16];
        snprintf(name, sizeof(name), i % 5 ? "flood%u" : "human", i % 7);
        int err = bench_login_secret(b, "acme", name, "a wrong password", NULL);
        CHECK(err == DG_ERR_BAD_CREDENTIALS || err == DG_ERR_ATTEMPTS, "%s", dg_err_text(err));
        throttled += err == DG_ERR_ATTEMPTS;
    }
    int64_t runs = metric_read(METRIC_PASSWORD_RUNS) - before;
    int64_t seconds = (int64_t)(clock_monotonic_ms() - start_ms) / 1000 + 1;
    CHECK(throttled > COUNT / 2 && throttled + runs == COUNT, "%u", throttled);
    CHECK(runs <= LIMIT_ATTEMPTS_OF_SOURCE + LIMIT_ATTEMPTS_OF_RESERVE + 2 * seconds, "%d runs",
          (int)runs);
    int err = bench_login_secret(b, "acme", "human", "fourth password", NULL);
    CHECK(err == DG_ERR_ATTEMPTS, "not looked at, so not called wrong: %s", dg_err_text(err));
    CHECK(bench_login_secret(b, "acme", "human", "correct horse", NULL) == 0, "found right before");
    bench_run(b, LIMIT_ATTEMPTS_OF_RESERVE_MS + 100);
    err = bench_login_secret(b, "acme", "honest", "the honest device", NULL);
    CHECK(err == 0, "an honest neighbour: %s", dg_err_text(err));
    memcpy(b->peer, other, sizeof(other));
    err = bench_login_secret(b, "acme", "human", "fourth password", NULL);
    CHECK(err == 0, "from its own address: %s", dg_err_text(err));
    memset(b->peer, 0, sizeof(b->peer));
}

int logins_try_certificate(struct bench *b, const char *tenant, const char *name,
                           const struct test_certificate *leaf, const struct test_certificate *more,
                           struct registry_identity *ret_identity) {
    uint8_t chain[8192];
    size_t leaf_size;
    size_t size = test_certificate_chain(leaf, more, chain, sizeof(chain), &leaf_size);
    return bench_login(b, REGISTRY_LOGIN_DEVICE_CERTIFICATE, tenant, name, slice_make(chain, size),
                       leaf_size, ret_identity);
}

void logins_check_pinned(struct bench *b) {
    struct test_certificate leaf = test_certificate_make("anything", false, 3600, NULL);
    struct test_certificate old = test_certificate_make("anything", false, 3600, NULL);
    struct test_certificate expired = test_certificate_make("anything", false, -60, NULL);
    struct test_certificate other = test_certificate_make("anything", false, 3600, NULL);
    const struct {
        const struct test_certificate *certificate;
        const char *name;
        const EVP_MD *digest;
    } pins[] = {{&leaf, "a", EVP_sha256()}, {&old, "b", EVP_sha1()}, {&expired, "c", EVP_sha256()}};
    for (unsigned i = 0; i < 3; i++) {
        char more[160] = "'";
        test_certificate_thumbprint(pins[i].certificate, pins[i].digest, more + 1);
        strcat(more, "', null, null");
        logins_add(b, "pinned", pins[i].name, "x509", "", 0, more);
    }
    bench_run(b, 100);
    struct registry_identity who;
    CHECK(logins_try_certificate(b, "acme", "pinned", &leaf, NULL, &who) == 0);
    CHECK(strcmp(who.device, "pinned") == 0 && who.valid_until_ms > clock_wall_ms());
    CHECK(logins_try_certificate(b, "acme", "pinned", &old, NULL, NULL) == 0);
    int bad = DG_ERR_BAD_CREDENTIALS;
    CHECK(logins_try_certificate(b, "acme", "pinned", &expired, NULL, NULL) == bad);
    CHECK(logins_try_certificate(b, "acme", "pinned", &other, NULL, NULL) == bad);
    CHECK(logins_try_certificate(b, "acme", "keyed", &leaf, NULL, NULL) == bad);
    CHECK(logins_try_certificate(b, "", "", &other, NULL, NULL) == bad);
    uint8_t junk[] = {0x30, 0x82, 0xFF, 0xFF, 1};
    CHECK(bench_login(b, REGISTRY_LOGIN_DEVICE_CERTIFICATE, "acme", "pinned", slice_make(junk, 5),
                      5, NULL) == bad);
    test_certificate_free(&leaf);
    test_certificate_free(&old);
    test_certificate_free(&expired);
    test_certificate_free(&other);
}

void logins_check_authorities(struct bench *b) {
    struct test_certificate ca = test_certificate_make("Acme CA", true, 7200, NULL);
    struct test_certificate twin = test_certificate_make("Acme CA", true, 7200, NULL);
    struct test_certificate middle = test_certificate_make("Acme line 2", true, 7200, &ca);
    struct test_certificate leaf = test_certificate_make("signed", false, 3600, &ca);
    struct test_certificate deep = test_certificate_make("signed", false, 3600, &middle);
    struct test_certificate foreign = test_certificate_make("signed", false, 3600, &twin);
    struct test_certificate expired = test_certificate_make("signed", false, -60, &ca);
    struct test_certificate unknown = test_certificate_make("not-there", false, 3600, &ca);
    struct test_certificate off = test_certificate_make("off", false, 3600, &ca);
    long long key = logins_add_authority(b, "acme", "main", &ca);
    long long twin_key = logins_add_authority(b, "beta", "main", &twin);
    bench_run(b, 100);
    int bad = DG_ERR_BAD_CREDENTIALS;
    const struct {
        const char *tenant, *name;
        const struct test_certificate *leaf, *more;
        int err;
        long long credential_key;
        const char *is_tenant;
    } rows[] = {
        {"", "", &leaf, NULL, 0, key, "acme"},
        {"acme", "signed", &leaf, NULL, 0, key, "acme"},
        {"acme", "", &deep, &middle, 0, key, "acme"},
        {"", "", &foreign, NULL, 0, twin_key, "beta"},
        {"acme", "", &deep, NULL, bad, 0, NULL},
        {"beta", "signed", &leaf, NULL, bad, 0, NULL},
        {"acme", "signed", &foreign, NULL, bad, 0, NULL},
        {"acme", "keyed", &leaf, NULL, bad, 0, NULL},
        {"", "", &expired, NULL, bad, 0, NULL},
        {"", "", &unknown, NULL, bad, 0, NULL},
        {"", "", &off, NULL, DG_ERR_DISABLED, 0, NULL},
    };
    for (unsigned i = 0; i < 2 * sizeof(rows) / sizeof(rows[0]); i++) {
        unsigned row = i % (sizeof(rows) / sizeof(rows[0]));
        struct registry_identity who;
        int err = logins_try_certificate(b, rows[row].tenant, rows[row].name, rows[row].leaf,
                                         rows[row].more, &who);
        CHECK(err == rows[row].err, "row %u: %s", i, dg_err_text(err));
        CHECK(err < 0 ||
                  (who.credential_key == rows[row].credential_key &&
                   strcmp(who.tenant, rows[row].is_tenant) == 0 &&
                   strcmp(who.device, "signed") == 0 && who.valid_until_ms > clock_wall_ms()),
              "row %u", i);
    }
    b->revocation_count = 0;
    bench_sql(b->conninfo, "update certificate_authority set updated_at = now()");
    CHECK(!bench_wait_revocation(b, 0, key), "an authority that stays ends nothing");
    bench_sql(b->conninfo, "delete from certificate_authority where credential_key = %lld", key);
    CHECK(bench_wait_revocation(b, 0, key));
    CHECK(logins_try_certificate(b, "", "", &leaf, NULL, NULL) == bad);
    struct test_certificate *all[] = {&ca,      &twin,    &middle,  &leaf, &deep,
                                      &foreign, &expired, &unknown, &off};
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        test_certificate_free(all[i]);
}

int logins_try_principal(struct bench *b, const char *key_id, const char *secret,
                         struct registry_identity *ret_identity) {
    return bench_login(b, REGISTRY_LOGIN_PRINCIPAL, "", key_id, slice_from_string(secret), 0,
                       ret_identity);
}

/* Secrets that another master key hashed or sealed: not the caller's fault. */
void logins_check_foreign(struct bench *b) {
    bench_sql(b->conninfo, "update credential c set master_key_id = 'k0' from device d"
                           " where d.device_key = c.device_key and d.device_id = 'off'");
    bench_run(b, 200);
    CHECK(bench_login_secret(b, "acme", "off", "another-secret-made-by-another-1", NULL) ==
          DG_ERR_UNAVAILABLE);
    CHECK(bench_login_secret(b, "acme", "off", "on-secret", NULL) == DG_ERR_UNAVAILABLE);
    bench_sql(b->conninfo, "update credential set master_key_id = null");
    bench_run(b, 200);
    CHECK(bench_login_secret(b, "acme", "off", "off-secret", NULL) == DG_ERR_DISABLED);
}

void logins_check_principals(struct bench *b) {
    char error[REGISTRY_ERROR_SIZE] = "", platform[REGISTRY_SECRET_SIZE],
         tenant[REGISTRY_SECRET_SIZE], again[REGISTRY_SECRET_SIZE];
    struct registry_admin_key key = {.key_id = "root", .roles = REGISTRY_ROLE_ADMIN};
#define CREATE(secret) \
    registry_admin_create_key(b->conninfo, "", b->master_file, &key, (secret), error)
    CHECK(CREATE(platform) == 0, "%s", error);
    CHECK(CREATE(again) == DG_ERR_EXISTS && strstr(error, "--replace"), "%s", error);
    key = (struct registry_admin_key){
        .key_id = "back-end", .tenant = "acme", .roles = REGISTRY_ROLE_CONSUMER};
    CHECK(CREATE(tenant) == 0, "%s", error);
    key.tenant = "none";
    CHECK(CREATE(again) == DG_ERR_NOT_FOUND, "%s", error);
    key.key_id = "no space";
    key.tenant = NULL;
    CHECK(CREATE(again) == DG_ERR_INVALID, "%s", error);
    struct registry_identity who;
    CHECK(logins_try_principal(b, "root", platform, &who) == 0);
    CHECK(who.roles == REGISTRY_ROLE_ADMIN && who.tenant_key == 0 && who.device_key == 0);
    CHECK(logins_try_principal(b, "back-end", tenant, &who) == 0);
    CHECK(who.roles == REGISTRY_ROLE_CONSUMER && strcmp(who.tenant, "acme") == 0);
    CHECK(logins_try_principal(b, "root", tenant, NULL) == DG_ERR_BAD_CREDENTIALS);
    CHECK(logins_try_principal(b, "root", "", NULL) == DG_ERR_BAD_CREDENTIALS);
    CHECK(logins_try_principal(b, "nobody", platform, NULL) == DG_ERR_BAD_CREDENTIALS);
    CHECK(bench_login_scram(b, "root", platform, &who) == 0);
    CHECK(who.roles == REGISTRY_ROLE_ADMIN && who.tenant_key == 0);
    CHECK(bench_login_scram(b, "back-end", tenant, &who) == 0 && strcmp(who.tenant, "acme") == 0);
    CHECK(bench_login_scram(b, "root", tenant, NULL) == DG_ERR_BAD_CREDENTIALS);
    CHECK(bench_login_scram(b, "nobody", platform, NULL) == DG_ERR_BAD_CREDENTIALS);
    b->revocation_count = 0;
    bench_sql(b->conninfo, "update api_key set description = 'x' where key_id = 'back-end'");
    CHECK(!bench_wait_revocation(b, 0, who.credential_key), "a description ends nothing");
    bench_sql(b->conninfo, "update api_key set roles = 4 where key_id = 'back-end'");
    CHECK(bench_wait_revocation(b, 0, who.credential_key), "fewer roles end connections");
    CHECK(logins_try_principal(b, "back-end", tenant, &who) == 0 && who.roles == 4);
    key = (struct registry_admin_key){
        .key_id = "root", .roles = REGISTRY_ROLE_ADMIN, .replace = true};
    CHECK(CREATE(again) == 0, "%s", error);
    bench_run(b, 300);
    CHECK(logins_try_principal(b, "root", platform, NULL) == DG_ERR_BAD_CREDENTIALS);
    CHECK(logins_try_principal(b, "root", again, NULL) == 0);
    CHECK(bench_login_scram(b, "root", platform, NULL) == DG_ERR_BAD_CREDENTIALS);
    CHECK(bench_login_scram(b, "root", again, NULL) == 0);
    bench_sql(b->conninfo, "update api_key set not_after = now() where key_id = 'root'");
    bench_run(b, 300);
    CHECK(logins_try_principal(b, "root", again, NULL) == DG_ERR_BAD_CREDENTIALS);
    CHECK(bench_login_scram(b, "root", again, NULL) == DG_ERR_BAD_CREDENTIALS);
#undef CREATE
}

/* A gateway that does not know of the column replaces a secret: what the old one proves is nothing
 * any more. Nor has a key proofs that was made before there were any. */
void logins_check_old_principals(struct bench *b) {
    char error[REGISTRY_ERROR_SIZE] = "", secret[REGISTRY_SECRET_SIZE];
    struct registry_admin_key key = {.key_id = "old", .roles = REGISTRY_ROLE_ADMIN};
    CHECK(registry_admin_create_key(b->conninfo, "", b->master_file, &key, secret, error) == 0);
    CHECK(bench_login_scram(b, "old", secret, NULL) == 0);
    bench_sql(b->conninfo, "update api_key set description = 'x' where key_id = 'old'");
    bench_run(b, 300);
    CHECK(bench_login_scram(b, "old", secret, NULL) == 0);
    bench_sql(b->conninfo, "update api_key set secret = sha256('x'), description = 'y',"
                           " credential_key = nextval('credential_key_seq') where key_id = 'old'");
    bench_run(b, 300);
    CHECK(bench_login_scram(b, "old", secret, NULL) == DG_ERR_BAD_CREDENTIALS);
    bench_sql(b->conninfo, "insert into api_key (key_id, roles, secret, master_key_id)"
                           " select 'older', roles, sha256('x'), master_key_id from api_key"
                           " where key_id = 'old'");
    CHECK(bench_login_scram(b, "older", secret, NULL) == DG_ERR_BAD_CREDENTIALS);
    bench_sql(b->conninfo, "delete from api_key where key_id in ('old', 'older')");
}
