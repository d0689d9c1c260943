/* Checks of each kind of login; tenants acme, beta and shut exist, with the devices they name. */
#pragma once

#include "tests/unit/registry/bench.h"
#include "tests/unit/registry/certificates.h"

void logins_check_keys(struct bench *b);
void logins_check_tokens(struct bench *b);
void logins_check_hub_tokens(struct bench *b);
void logins_check_passwords(struct bench *b);
void logins_check_password_flood(struct bench *b);
void logins_check_pinned(struct bench *b);
void logins_check_authorities(struct bench *b);
void logins_check_principals(struct bench *b);
void logins_check_old_principals(struct bench *b);
void logins_check_foreign(struct bench *b);
void logins_check_policies(struct bench *b);
void logins_check_stale(struct bench *b); /* stops and starts the server */

/* authorities.c */
void authorities_check_proofs(struct bench *b);
void authorities_check_crowd(struct bench *b);

/* Each adds a credential to a device and returns its key. more: thumbprint, not_before, not_after
 * as SQL, or NULL for none. */
long long logins_add(struct bench *b, const char *device, const char *name, const char *kind,
                     const void *secret, size_t size, const char *more);
long long logins_add_key(struct bench *b, const char *device, const char *name, const char *text,
                         const char *more);
long long logins_add_authority(struct bench *b, const char *tenant, const char *name,
                               const struct test_certificate *authority);
int logins_try_certificate(struct bench *b, const char *tenant, const char *name,
                           const struct test_certificate *leaf, const struct test_certificate *more,
                           struct registry_identity *ret_identity);
int logins_try_principal(struct bench *b, const char *key_id, const char *secret,
                         struct registry_identity *ret_identity);
