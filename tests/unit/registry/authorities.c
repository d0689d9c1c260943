/* Who may register a certificate authority, and whose devices its certificates are. */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "registry/x509.h"
#include "tests/unit/registry/logins.h"

/* PUT as the API sends it, with the name that the proof gives. */
static const char *put(struct bench *b, const char *tenant, const char *name, const char *pem,
                       const char *proof_name, bool needs_proof) {
    static char outcome[32];
    struct credential_certificate seen;
    CHECK(credential_check_certificate(pem, strlen(pem), &seen) == 0);
    struct registry_request *r = bench_execute(
        b, STATEMENT_AUTHORITY_PUT, tenant, name, pem, proof_name ? "proof" : NULL, NULL,
        seen.sha256, seen.subject_hash, proof_name, needs_proof ? "true" : "false", "3", BENCH_END);
    snprintf(outcome, sizeof(outcome), "%s",
             r->err < 0          ? dg_err_text(r->err)
             : r->row_count == 0 ? "nothing"
                                 : registry_value(r, 0, 0));
    registry_request_free(r);
    return outcome;
}

static bool stores(struct bench *b, const char *tenant, const char *name,
                   const struct test_certificate *ca, const char *proof_name, bool needs_proof,
                   const char *outcome) {
    char *pem = test_certificate_pem(ca);
    const char *said = put(b, tenant, name, pem, proof_name, needs_proof);
    bool same = strcmp(said, outcome) == 0;
    if (!same)
        fprintf(stderr, "%s %s: %s, not %s\n", tenant, name, said, outcome);
    free(pem);
    return same;
}

static int proves(const struct test_certificate *ca, const struct test_certificate *proof,
                  char *ret_name) {
    char *authority = test_certificate_pem(ca), *text = test_certificate_pem(proof);
    int err = x509_check_proof(authority, text, clock_wall_ms(), ret_name);
    free(authority);
    free(text);
    return err;
}

static void check_signatures(void) {
    struct test_certificate ca = test_certificate_make("Some CA", true, 7200, NULL);
    struct test_certificate twin = test_certificate_make("Some CA", true, 7200, NULL);
    struct test_certificate good = test_certificate_make("code", false, 600, &ca);
    struct test_certificate forged = test_certificate_make("code", false, 600, &twin);
    struct test_certificate expired = test_certificate_make("code", false, -60, &ca);
    struct test_certificate alone = test_certificate_make("code", false, 600, NULL);
    char name[X509_NAME_SIZE] = "";
    CHECK(proves(&ca, &good, name) == 0 && strcmp(name, "code") == 0);
    CHECK(proves(&ca, &forged, name) == DG_ERR_INVALID);
    CHECK(proves(&ca, &expired, name) == DG_ERR_INVALID);
    CHECK(proves(&ca, &alone, name) == DG_ERR_INVALID);
    CHECK(x509_check_proof("no certificate", "none", 0, name) == DG_ERR_INVALID);
    struct test_certificate *all[] = {&ca, &twin, &good, &forged, &expired, &alone};
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        test_certificate_free(all[i]);
}

void authorities_check_proofs(struct bench *b) {
    struct test_certificate ca = test_certificate_make("Proved CA", true, 7200, NULL);
    struct test_certificate next = test_certificate_make("Proved CA", true, 7200, NULL);
    struct test_certificate third = test_certificate_make("Third CA", true, 7200, NULL);
    struct test_certificate fourth = test_certificate_make("Fourth CA", true, 7200, NULL);
    bench_sql(b->conninfo, "insert into tenant (name) values ('prover'), ('other')");
    char code[64], other[64];
    const char *sql = "select registration_code from tenant where name = '%s'";
    snprintf(code, sizeof(code), "%s", bench_sql(b->conninfo, sql, "prover"));
    snprintf(other, sizeof(other), "%s", bench_sql(b->conninfo, sql, "other"));
    CHECK(strlen(code) == 32 && strlen(other) == 32 && strcmp(code, other) != 0);
    check_signatures();
    CHECK(stores(b, "prover", "one", &ca, NULL, true, "proof"));
    CHECK(stores(b, "prover", "one", &ca, other, true, "proof"));
    CHECK(stores(b, "prover", "one", &ca, other, false, "proof"));
    CHECK(stores(b, "nobody", "one", &ca, code, true, "nothing"));
    CHECK(stores(b, "prover", "one", &ca, code, true, "created"));
    CHECK(stores(b, "prover", "one", &ca, NULL, true, "replaced")); /* nothing new in it */
    CHECK(stores(b, "prover", "one", &next, NULL, true, "proof"));
    CHECK(stores(b, "prover", "one", &next, code, true, "replaced"));
    CHECK(stores(b, "other", "one", &next, NULL, false, "created")); /* locks nobody out */
    CHECK(stores(b, "prover", "two", &next, code, true, dg_err_text(DG_ERR_EXISTS)));
    CHECK(stores(b, "prover", "two", &ca, NULL, false, "created"));
    CHECK(stores(b, "prover", "three", &third, code, true, "created"));
    CHECK(stores(b, "prover", "four", &fourth, code, true, "full"));
    CHECK(stores(b, "prover", "three", &third, code, true, "replaced"));
    bench_sql(b->conninfo, "delete from tenant where name in ('prover', 'other')");
    struct test_certificate *all[] = {&ca, &next, &third, &fourth};
    for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        test_certificate_free(all[i]);
}

static void add_tenant(struct bench *b, const char *name) {
    bench_sql(b->conninfo,
              "with t as (insert into tenant (name) values ('%s') returning tenant_key)"
              " insert into device (tenant_key, device_id, partition) select tenant_key, 'dev1', 1"
              " from t",
              name);
}

void authorities_check_crowd(struct bench *b) {
    enum { LOOK_ALIKES = 40 };
    struct test_certificate root = test_certificate_make("Victim root", true, 7200, NULL);
    struct test_certificate middle = test_certificate_make("Victim line", true, 7200, &root);
    struct test_certificate leaf = test_certificate_make("dev1", false, 3600, &middle);
    struct test_certificate twins[LOOK_ALIKES];
    struct registry_identity who;
    add_tenant(b, "victim");
    add_tenant(b, "attacker");
    for (unsigned i = 0; i < LOOK_ALIKES; i++) {
        char name[16];
        snprintf(name, sizeof(name), "twin%u", i);
        twins[i] = test_certificate_make("Victim root", true, 7200, NULL);
        logins_add_authority(b, "attacker", name, &twins[i]);
    }
    logins_add_authority(b, "victim", "root", &root);
    bench_run(b, 200);
    for (unsigned i = 0; i < 2; i++) { /* second time: known */
        CHECK(logins_try_certificate(b, "", "", &leaf, &middle, &who) == 0);
        CHECK(strcmp(who.tenant, "victim") == 0);
        CHECK(logins_try_certificate(b, "victim", "dev1", &leaf, &middle, NULL) == 0);
    }
    /* The attacker's own log-in must not decide what the victim's device is. */
    logins_add_authority(b, "attacker", "captured", &middle);
    bench_run(b, 200);
    CHECK(logins_try_certificate(b, "attacker", "dev1", &leaf, &middle, NULL) == 0);
    for (unsigned i = 0; i < 2; i++) {
        CHECK(logins_try_certificate(b, "", "", &leaf, &middle, NULL) == DG_ERR_NOT_AUTHORIZED);
        CHECK(logins_try_certificate(b, "victim", "dev1", &leaf, &middle, &who) == 0);
        CHECK(strcmp(who.tenant, "victim") == 0);
    }
    bench_sql(b->conninfo, "delete from tenant where name = 'attacker'");
    bench_run(b, 200);
    CHECK(logins_try_certificate(b, "", "", &leaf, &middle, &who) == 0);
    bench_sql(b->conninfo, "delete from tenant where name = 'victim'");
    bench_run(b, 200);
    CHECK(logins_try_certificate(b, "", "", &leaf, &middle, NULL) == DG_ERR_BAD_CREDENTIALS);
    test_certificate_free(&root);
    test_certificate_free(&middle);
    test_certificate_free(&leaf);
    for (unsigned i = 0; i < LOOK_ALIKES; i++)
        test_certificate_free(&twins[i]);
}
