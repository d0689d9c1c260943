/*
 * A secret that a person may have chosen: checked by the slow function, off the registry thread,
 * then remembered.
 *
 * A stranger must not learn from the time, or from the load, what there is. So what looks like a
 * generated key is never a password, and everything else costs exactly one run of the function: all
 * passwords of a device have one salt, and a device without any has one as well.
 *
 * A secret that was found right before does not come here, so who floods us with wrong passwords
 * (attempts.h) cannot keep out a device that the gateway has let in since it started.
 */
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "registry/directory.h"

struct password_login {
    struct password_job job;
    struct registry *registry;
    struct registry_login *login;
    int64_t device_key; /* 0: there was none */
    bool is_foreign;
};

bool login_is_current(const struct cache_credential *credential, int64_t now_ms) {
    return (credential->not_before_ms == 0 || now_ms >= credential->not_before_ms) &&
           (credential->not_after_ms == 0 || now_ms < credential->not_after_ms);
}

void login_hash_verified(const struct registry *registry, struct slice secret, uint8_t *ret_hash) {
    unsigned size = 0;
    HMAC(EVP_sha256(), registry->verified_key, sizeof(registry->verified_key), secret.data,
         secret.size, ret_hash, &size);
}

/* That of the newest password; the others have it as well unless the master key was another. */
static void choose_salt(const struct registry *registry, const struct registry_login *login,
                        const struct cache_device *device, int64_t now_ms, uint8_t *ret_salt) {
    const struct cache_credential *newest = NULL;
    for (unsigned i = 0; device && i < device->credential_count; i++) {
        const struct cache_credential *c = &device->credentials[i];
        if (c->kind == CACHE_PASSWORD && login_is_current(c, now_ms) &&
            (!newest || c->key > newest->key))
            newest = c;
    }
    if (!newest ||
        credential_password_salt(slice_make(newest->secret, newest->secret_size), ret_salt) < 0)
        credential_derive_salt(&registry->master, login->tenant, login->name, ret_salt);
}

static struct cache_credential *find_password(struct cache_device *device, const char *encoded,
                                              int64_t now_ms) {
    size_t size = strlen(encoded);
    struct cache_credential *found = NULL;
    for (unsigned i = 0; device && i < device->credential_count; i++) {
        struct cache_credential *c = &device->credentials[i];
        if (c->kind == CACHE_PASSWORD && login_is_current(c, now_ms) && c->secret_size == size &&
            CRYPTO_memcmp(c->secret, encoded, size) == 0)
            found = c;
    }
    return found;
}

static void give_back(struct registry *registry, const struct registry_login *login) {
    attempts_give_back(&registry->attempts, login->peer_address, login->tenant, login->name,
                       clock_monotonic_ms());
}

/* The device may have changed, or left the cache, while the function ran: look again. */
static void settle(struct password_login *p) {
    struct registry *registry = p->registry;
    struct registry_login *login = p->login;
    uint8_t salt[CREDENTIAL_SALT_SIZE];
    int64_t now_ms = clock_wall_ms();
    struct cache_device *device =
        p->device_key ? cache_find_device_by_key(&registry->cache, p->device_key) : NULL;
    struct cache_credential *found = find_password(device, p->job.encoded, now_ms);
    choose_salt(registry, login, device, now_ms, salt);
    bool same =
        (device != NULL) == (p->device_key != 0) && memcmp(salt, p->job.salt, sizeof(salt)) == 0;
    if (found) {
        give_back(registry, login);
        login_hash_verified(registry, login->secret, found->verified);
        found->has_verified = true;
        login_accept(registry, login, device, found->key, found->not_after_ms);
    } else if (!same) {
        give_back(registry, login);
        login_again(registry, login);
    } else {
        login_refuse_secret(registry, login, p->is_foreign);
    }
}

static void deliver_password(struct mail *mail, void *receiver) {
    struct password_login *p = (struct password_login *)(void *)mail;
    if (p->job.err == 0) {
        settle(p);
    } else {
        give_back(p->registry, p->login);
        login_reply(p->login, p->job.err);
    }
    OPENSSL_cleanse(p->job.encoded, sizeof(p->job.encoded));
    free(p);
}

/* Takes the job in, or answers. */
static void submit(struct password_login *p, enum attempts_verdict verdict) {
    struct registry *registry = p->registry;
    struct registry_login *login = p->login;
    p->job.is_preferred = verdict == ATTEMPTS_CLEAN;
    int err = password_pool_submit(registry->passwords, &p->job);
    if (err == 0)
        return;
    give_back(registry, login);
    free(p);
    login_reply(login, err);
}

void login_try_password(struct registry *registry, struct registry_login *login,
                        const struct cache_device *device, bool is_foreign) {
    if (credential_looks_generated(login->secret)) {
        login_refuse_secret(registry, login, is_foreign);
        return;
    }
    enum attempts_verdict verdict = attempts_take(&registry->attempts, login->peer_address,
                                                  login->tenant, login->name, clock_monotonic_ms());
    if (verdict == ATTEMPTS_REFUSED) {
        login_reply(login, DG_ERR_ATTEMPTS); /* right or wrong: nobody looked */
        return;
    }
    struct password_login *p = calloc(1, sizeof(*p));
    if (!p) {
        give_back(registry, login);
        login_reply(login, DG_ERR_NO_MEMORY);
        return;
    }
    *p = (struct password_login){.registry = registry,
                                 .login = login,
                                 .device_key = device ? device->key : 0,
                                 .is_foreign = is_foreign};
    p->job.mail.deliver = deliver_password;
    p->job.reply_to = &registry->mailbox;
    p->job.password = login->secret;
    choose_salt(registry, login, device, clock_wall_ms(), p->job.salt);
    submit(p, verdict);
}
