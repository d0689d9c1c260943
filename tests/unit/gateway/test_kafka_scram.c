/* SCRAM-SHA-256: the exchange of RFC 7677 byte by byte, and what a client can get wrong in it. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "gateway/kafka/scram.h"
#include "tests/unit/gateway/leaks.h"

TestSuite(kafka_scram, .fini = check_leaks);

static struct scram scram;

static int take_first(const char *message) {
    scram = (struct scram){0};
    return scram_take_first(&scram, slice_from_string(message), slice_from_string("OURS"));
}

static struct slice challenge(void) {
    struct slice message;
    cr_assert_eq(scram_challenge(&scram, (const uint8_t *)"salt", 4, 4096, &message), 0);
    return message;
}

Test(kafka_scram, the_exchange_of_rfc_7677) {
    static const char first[] = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    static const char ours[] = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    static const char challenged[] = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                                     "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    static const char final[] = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
                                "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    static const char success[] = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    uint8_t salt[SCRAM_SALT_SIZE], proof[SCRAM_KEY_SIZE], signature[SCRAM_KEY_SIZE];
    char text[SCRAM_SUCCESS_SIZE];
    struct scram_keys keys;
    struct slice message;
    cr_assert_eq(
        credential_base64_decode(slice_from_string("W22ZaJ0SNY7soEsUEjb6gQ=="), salt, sizeof(salt)),
        SCRAM_SALT_SIZE);
    cr_assert_eq(scram_keys_derive(slice_from_string("pencil"), salt, sizeof(salt), 4096, &keys),
                 0);
    cr_assert_eq(scram_take_first(&scram, slice_from_string(first), slice_from_string(ours)), 0);
    cr_assert(slice_equals_string(scram_name(&scram), "user"));
    cr_assert_eq(scram_challenge(&scram, salt, sizeof(salt), 4096, &message), 0);
    cr_assert(slice_equals_string(message, challenged));
    cr_assert_eq(scram_take_final(&scram, slice_from_string(final), proof), 0);
    cr_assert(scram_keys_check(&keys, scram_auth_message(&scram), proof, signature));
    cr_assert_eq(scram_write_success(signature, text), strlen(success));
    cr_assert_str_eq(text, success);
    proof[31] ^= 1;
    cr_expect(!scram_keys_check(&keys, scram_auth_message(&scram), proof, signature));
}

Test(kafka_scram, first_messages) {
    static const struct {
        const char *message;
        int err;
        const char *name;
    } cases[] = {
        {"n,,n=user,r=abc", 0, "user"},
        {"y,,n=user,r=abc", 0, "user"}, /* could bind the channel, believes that we cannot */
        {"n,a=user,n=user,r=abc", 0, "user"},
        {"n,,n=a=2Cb=3Dc,r=abc", 0, "a,b=c"},
        {"n,,n=user,r=abc,tokenauth=true,x=y", 0, "user"}, /* extensions */
        {"p=tls-unique,,n=user,r=abc", DG_ERR_NOT_SUPPORTED, NULL},
        {"n,a=other,n=user,r=abc", DG_ERR_MALFORMED, NULL},
        {"n,b=user,n=user,r=abc", DG_ERR_MALFORMED, NULL},
        {"x,,n=user,r=abc", DG_ERR_MALFORMED, NULL},
        {"n,,m=ext,n=user,r=abc", DG_ERR_MALFORMED, NULL},
        {"n,,n=us=2Xer,r=abc", DG_ERR_MALFORMED, NULL},
        {"n,,n=user=,r=abc", DG_ERR_MALFORMED, NULL},
        {"n,,n=user=2,r=abc", DG_ERR_MALFORMED, NULL},
        {"n,,n=user=2c,r=abc", DG_ERR_MALFORMED, NULL},
        {"n,,n=,r=abc", DG_ERR_MALFORMED, NULL},
        {"n,,n=user,r=", DG_ERR_MALFORMED, NULL},
        {"n,,n=user,r=a b", DG_ERR_MALFORMED, NULL},
        {"n,,n=user", DG_ERR_MALFORMED, NULL},
        {"n,,r=abc,n=user", DG_ERR_MALFORMED, NULL},
        {"n,,", DG_ERR_MALFORMED, NULL},
        {"n", DG_ERR_MALFORMED, NULL},
        {",,,,", DG_ERR_MALFORMED, NULL},
        {"", DG_ERR_MALFORMED, NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_expect_eq(take_first(cases[i].message), cases[i].err, "%s", cases[i].message);
        if (cases[i].name)
            cr_expect(slice_equals_string(scram_name(&scram), cases[i].name), "%s",
                      cases[i].message);
    }
}

/* Each part over its limit, and the whole. */
Test(kafka_scram, long_first_messages) {
    enum { LONG = 3000 };
    char filler[LONG + 1], message[2 * LONG];
    static const struct {
        const char *format;
        unsigned most;
    } cases[] = {{"n,,n=%s,r=abc", SCRAM_NAME_MAX},
                 {"n,,n=user,r=%s", SCRAM_NONCE_MAX - 4},
                 {"n,,n=user,r=abc,x=%s", SCRAM_TRANSCRIPT_MAX - 16}};
    memset(filler, 'x', LONG);
    filler[LONG] = '\0';
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        snprintf(message, sizeof(message), cases[i].format, filler + LONG - cases[i].most);
        cr_expect_eq(take_first(message), 0, "%zu", i);
        snprintf(message, sizeof(message), cases[i].format, filler + LONG - cases[i].most - 1);
        cr_expect_eq(take_first(message), DG_ERR_LIMIT, "%zu", i);
    }
    struct slice answer; /* the last one that fitted leaves no room for our answer */
    snprintf(message, sizeof(message), cases[2].format, filler + LONG - cases[2].most);
    cr_assert_eq(take_first(message), 0);
    cr_expect_eq(scram_challenge(&scram, (const uint8_t *)"salt", 4, 4096, &answer), DG_ERR_LIMIT);
}

#define PROOF "p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

Test(kafka_scram, final_messages) {
    static const struct {
        const char *first, *message;
        int err;
    } cases[] = {
        {"n,,n=u,r=abc", "c=biws,r=abcOURS," PROOF, 0},
        {"n,,n=u,r=abc", "c=biws,r=abcOURS,x=y," PROOF, 0}, /* an extension */
        {"y,,n=u,r=abc", "c=eSws,r=abcOURS," PROOF, 0},
        {"n,a=u,n=u,r=abc", "c=bixhPXUs,r=abcOURS," PROOF, 0},
        /* "y" turned into "n" on the way: the client would have bound the channel */
        {"n,,n=u,r=abc", "c=eSws,r=abcOURS," PROOF, DG_ERR_BAD_CREDENTIALS},
        {"y,,n=u,r=abc", "c=biws,r=abcOURS," PROOF, DG_ERR_BAD_CREDENTIALS},
        {"n,,n=u,r=abc", "c=,r=abcOURS," PROOF, DG_ERR_BAD_CREDENTIALS},
        {"n,,n=u,r=abc", "c=biws,r=abcours," PROOF, DG_ERR_BAD_CREDENTIALS},
        {"n,,n=u,r=abc", "c=biws,r=abc," PROOF, DG_ERR_BAD_CREDENTIALS},
        {"n,,n=u,r=abc", "c=biws,r=abcOURSx," PROOF, DG_ERR_BAD_CREDENTIALS},
        {"n,,n=u,r=abc", "c=biws,r=abcabcOURS," PROOF, 0}, /* librdkafka before 2.6.1 */
        {"n,,n=u,r=abc", "c=biws,r=abcabcabcOURS," PROOF, DG_ERR_BAD_CREDENTIALS},
        {"n,,n=u,r=abc", "c=biws,r=xyzabcOURS," PROOF, DG_ERR_BAD_CREDENTIALS},
        {"n,,n=u,r=abc", "r=abcOURS,c=biws," PROOF, DG_ERR_MALFORMED},
        {"n,,n=u,r=abc", "c=biws,r=abcOURS", DG_ERR_MALFORMED},
        {"n,,n=u,r=abc", "c=biws,r=abcOURS," PROOF ",x=y", DG_ERR_MALFORMED},
        {"n,,n=u,r=abc", "c=biws,r=abcOURS,p=", DG_ERR_MALFORMED},
        {"n,,n=u,r=abc", "c=biws,r=abcOURS,p=AAAA", DG_ERR_MALFORMED},
        {"n,,n=u,r=abc", "c=biws,r=abcOURS," PROOF "AAAA", DG_ERR_MALFORMED},
        {"n,,n=u,r=abc", "c=biws,r=abcOURS,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
         DG_ERR_MALFORMED},
        {"n,,n=u,r=abc",
         "c=biws,r=abcOURS,p= AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", DG_ERR_MALFORMED},
        {"n,,n=u,r=abc", PROOF, DG_ERR_MALFORMED},
        {"n,,n=u,r=abc", "", DG_ERR_MALFORMED},
        {"n,,n=u,r=abc", ",,,", DG_ERR_MALFORMED},
    };
    uint8_t proof[SCRAM_KEY_SIZE];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_assert_eq(take_first(cases[i].first), 0);
        cr_assert(slice_equals_string(challenge(), "r=abcOURS,s=c2FsdA==,i=4096"));
        cr_expect_eq(scram_take_final(&scram, slice_from_string(cases[i].message), proof),
                     cases[i].err, "%s", cases[i].message);
    }
}

/* What is signed is what was sent, extensions and all. */
Test(kafka_scram, the_signed_text) {
    uint8_t proof[SCRAM_KEY_SIZE];
    cr_assert_eq(take_first("n,,n=a=2Cb,r=abc,x=1"), 0);
    challenge();
    cr_assert_eq(scram_take_final(&scram, slice_from_string("c=biws,r=abcOURS,y=2," PROOF), proof),
                 0);
    cr_expect(slice_equals_string(scram_auth_message(&scram),
                                  "n=a=2Cb,r=abc,x=1,r=abcOURS,s=c2FsdA==,i=4096,"
                                  "c=biws,r=abcOURS,y=2"));
}
