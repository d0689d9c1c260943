/*
 * What many boards have for TLS, as test_tls.py drives it: Mbed TLS with the options of a small
 * device. Sends one read of standard input and copies what comes back, until it is killed.
 *
 *   mbedtls_client HOST PORT CA-FILE [fragments=512|2048] [no-ems] [no-ticket] [no-sni]
 *                  [cipher=NAME] [cert=FILE key=FILE]
 */
#include <mbedtls/ctr_drbg.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INPUT_BYTES = 8192 };

static mbedtls_net_context net;
static mbedtls_entropy_context entropy;
static mbedtls_ctr_drbg_context random_source;
static mbedtls_ssl_config config;
static mbedtls_ssl_context ssl;
static mbedtls_x509_crt authorities, certificate;
static mbedtls_pk_context key;
static int ciphers[2];

static void check(const char *what, int result) {
    if (result >= 0)
        return;
    printf("%s failed: -0x%04x\n", what, (unsigned)-result);
    exit(1);
}

static void load_identity(const char *certificate_path, const char *key_path) {
    check("certificate", mbedtls_x509_crt_parse_file(&certificate, certificate_path));
    check("key", mbedtls_pk_parse_keyfile(&key, key_path, NULL));
    check("own certificate", mbedtls_ssl_conf_own_cert(&config, &certificate, &key));
}

/* The value of an option NAME=VALUE, or NULL. */
static const char *value_of(const char *argument, const char *name) {
    size_t size = strlen(name);
    return strncmp(argument, name, size) == 0 ? argument + size : NULL;
}

/* False for an option of another kind. */
static int set_option(const char *argument) {
    if (strcmp(argument, "fragments=512") == 0)
        check(argument, mbedtls_ssl_conf_max_frag_len(&config, MBEDTLS_SSL_MAX_FRAG_LEN_512));
    else if (strcmp(argument, "fragments=2048") == 0)
        check(argument, mbedtls_ssl_conf_max_frag_len(&config, MBEDTLS_SSL_MAX_FRAG_LEN_2048));
    else if (strcmp(argument, "no-ems") == 0)
        mbedtls_ssl_conf_extended_master_secret(&config, MBEDTLS_SSL_EXTENDED_MS_DISABLED);
    else if (strcmp(argument, "no-ticket") == 0)
        mbedtls_ssl_conf_session_tickets(&config, MBEDTLS_SSL_SESSION_TICKETS_DISABLED);
    else
        return 0;
    return 1;
}

static void set_options(int count, char **arguments, const char **host) {
    const char *certificate_path = NULL, *value;
    for (int i = 0; i < count; i++) {
        if (set_option(arguments[i]))
            continue;
        if (strcmp(arguments[i], "no-sni") == 0)
            *host = NULL;
        else if ((value = value_of(arguments[i], "cipher=")))
            ciphers[0] = mbedtls_ssl_get_ciphersuite_id(value);
        else if ((value = value_of(arguments[i], "cert=")))
            certificate_path = value;
        else if ((value = value_of(arguments[i], "key=")))
            load_identity(certificate_path, value);
    }
    if (ciphers[0] != 0)
        mbedtls_ssl_conf_ciphersuites(&config, ciphers);
}

static void configure(const char *authorities_path) {
    mbedtls_entropy_init(&entropy);
    mbedtls_ctr_drbg_init(&random_source);
    mbedtls_ssl_config_init(&config);
    mbedtls_ssl_init(&ssl);
    check("random", mbedtls_ctr_drbg_seed(&random_source, mbedtls_entropy_func, &entropy, NULL, 0));
    check("authorities", mbedtls_x509_crt_parse_file(&authorities, authorities_path));
    check("defaults",
          mbedtls_ssl_config_defaults(&config, MBEDTLS_SSL_IS_CLIENT, MBEDTLS_SSL_TRANSPORT_STREAM,
                                      MBEDTLS_SSL_PRESET_DEFAULT));
    mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &random_source);
    mbedtls_ssl_conf_ca_chain(&config, &authorities, NULL);
}

static void say_what_was_agreed(void) {
    char subject[256] = "";
    const mbedtls_x509_crt *peer = mbedtls_ssl_get_peer_cert(&ssl);
    if (peer)
        mbedtls_x509_dn_gets(subject, sizeof(subject), &peer->subject);
    printf("%s %s %s\n", mbedtls_ssl_get_version(&ssl), mbedtls_ssl_get_ciphersuite(&ssl), subject);
    fflush(stdout);
}

static void converse(void) {
    unsigned char data[INPUT_BYTES];
    ssize_t size = read(0, data, sizeof(data));
    check("input", (int)size);
    for (size_t sent = 0; sent < (size_t)size;) {
        int count = mbedtls_ssl_write(&ssl, data + sent, (size_t)size - sent);
        check("write", count);
        sent += (size_t)count;
    }
    for (;;) {
        int count = mbedtls_ssl_read(&ssl, data, sizeof(data));
        check("read", count);
        if (count == 0 || write(1, data, (size_t)count) != count)
            return;
    }
}

int main(int count, char **arguments) {
    if (count < 4)
        return 64;
    const char *host = arguments[1];
    configure(arguments[3]);
    set_options(count - 4, arguments + 4, &host);
    mbedtls_net_init(&net);
    check("connect", mbedtls_net_connect(&net, arguments[1], arguments[2], MBEDTLS_NET_PROTO_TCP));
    check("setup", mbedtls_ssl_setup(&ssl, &config));
    if (host)
        check("name", mbedtls_ssl_set_hostname(&ssl, host));
    mbedtls_ssl_set_bio(&ssl, &net, mbedtls_net_send, mbedtls_net_recv, NULL);
    check("handshake", mbedtls_ssl_handshake(&ssl));
    say_what_was_agreed();
    converse();
    return 0;
}
