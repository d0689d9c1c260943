/* Every way to write a configuration, and every way to get one wrong. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/config.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static char directory[] = "/tmp/duragate-test-config-XXXXXX";
static char file_path[64], secret_path[64];
static char error[CONFIG_ERROR_SIZE];

static void write_file(const char *path, const char *text, size_t size) {
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(text, 1, size, file), size);
    fclose(file);
}

static void make_directory(void) {
    cr_assert_not_null(mkdtemp(directory));
    snprintf(file_path, sizeof(file_path), "%s/c.yaml", directory);
    snprintf(secret_path, sizeof(secret_path), "%s/secret", directory);
}

static void drop_directory(void) {
    unlink(file_path);
    unlink(secret_path);
    rmdir(directory);
}

static struct config *load_text(const char *text) {
    struct config *config = NULL;
    write_file(file_path, text, strlen(text));
    cr_assert_eq(config_load(file_path, NULL, NULL, &config, error), 0, "%s", error);
    return config;
}

Test(config, defaults) {
    struct config *c = NULL;
    cr_assert_eq(config_load(NULL, NULL, NULL, &c, error), 0, "%s", error);
    cr_expect_str_eq(c->server_node_id, "gw1");
    cr_expect_eq(c->server_workers, 0);
    cr_expect_eq(c->mqtt_max_packet_bytes, 256 * 1024);
    cr_expect_eq(c->storage_retention_time, 7ull * 86400000);
    cr_expect_eq(c->registry_auto_migrate, false);
    cr_expect_eq(c->events_presence, true);
    config_free(c);
    config_free(NULL);
}

Test(config, file, .init = make_directory, .fini = drop_directory) {
    struct config *c = load_text("# a comment\n"
                                 "server: {workers: 3, log_format: json}\n"
                                 "tls:\n"
                                 "mqtt:\n"
                                 "  bind: \"\"\n"
                                 "  connect_timeout: 1500ms\n"
                                 "storage:\n"
                                 "  segment_age: 1h\n"
                                 "  segment_size: 2097152\n"
                                 "  retention_bytes: 1TiB\n"
                                 "events:\n"
                                 "  presence: false\n"
                                 "registry:\n"
                                 "  password: 'it''s \"x\"'\n");
    cr_expect_eq(c->server_workers, 3);
    cr_expect_str_eq(c->server_log_format, "json");
    cr_expect_str_eq(c->mqtt_bind, "");
    cr_expect_eq(c->mqtt_connect_timeout, 1500);
    cr_expect_eq(c->storage_segment_age, 3600000);
    cr_expect_eq(c->storage_segment_size, 2097152);
    cr_expect_eq(c->storage_retention_bytes, 1ull << 40);
    cr_expect_eq(c->events_presence, false);
    cr_expect_str_eq(c->registry_password, "it's \"x\"");
    config_free(c);
    static const char *const empty[] = {"", "# only a comment\n", "---\n", "null\n", "{}\n"};
    for (size_t i = 0; i < COUNT_OF(empty); i++)
        config_free(load_text(empty[i]));
}

struct refusal {
    const char *text;
    const char *message; /* after "<path>:" */
};

static const struct refusal file_refusals[] = {
    {"mqtt:\n  bnid: x\n", "2: mqtt.bnid: unknown key; did you mean mqtt.bind?"},
    {"events:\n\n  zzzzzz: x\n",
     "3: events.zzzzzz: unknown key; allowed: device_time_window, presence"},
    {"mqttt:\n  bind: x\n", "1: mqttt: unknown section; did you mean mqtt?"},
    {"nonsense:\n", "1: nonsense: unknown section; allowed: server, mqtt, kafka, iothub, https, "
                    "management, tls, registry, security, storage, events, commands"},
    {"mqtt:\n  bind: a\n  bind: b\n", "3: mqtt.bind: given twice; allowed: once"},
    {"mqtt:\n  bind: a\nmqtt:\n", "3: mqtt: section given twice; allowed: once"},
    {"mqtt:\n  bind: [a, b]\n", "2: a list is not allowed; write one text, comma separated"},
    {"- mqtt\n", "1: a list is not allowed; write one text, comma separated"},
    {"mqtt:\n  bind: {a: b}\n", "2: mqtt.bind: a map is not allowed here; allowed: one value"},
    {"mqtt:\n  {a: b}: c\n", "2: mqtt: a key must be a plain word"},
    {"{a: b}: c\n", "1: a section must be a plain word"},
    {"mqtt: 5\n", "1: mqtt: is a section; allowed: keys with values below it"},
    {"mqtt: \"\"\n", "1: mqtt: is a section; allowed: keys with values below it"},
    {"text\n", "1: the file must be a map of sections"},
    {"mqtt:\n  bind: &x a\n", "2: anchors and aliases are not allowed"},
    {"mqtt: &x\n  bind: a\n", "1: anchors and aliases are not allowed"},
    {"mqtt:\n  bind: *x\n", "2: anchors and aliases are not allowed"},
    {"mqtt:\n  bind: !!str a\n", "2: tags are not allowed"},
    {"mqtt:\n  bind: \"a\\0b\"\n", "2: a NUL character is not allowed"},
    {"mqtt:\n  bind:\n", "2: mqtt.bind: has no value; write \"\" for an empty text"},
    {"mqtt:\n  bind: ~\n", "2: mqtt.bind: has no value; write \"\" for an empty text"},
    {"mqtt:\n  bind: a\n---\nmqtt:\n", "3: a second document is not allowed"},
    {"mqtt:\n  bind: \"a\n", "3: not YAML: found unexpected end of stream"},
    {"mqtt:\n\tbind: a\n", "2: not YAML: found character that cannot start any token"},
    {"server:\n  workers: many\n",
     "2: server.workers: \"many\" is not valid; allowed: a whole number"},
    {"server:\n  workers: 65\n", "2: server.workers: \"65\" is out of range; allowed: 0 to 64"},
    {"server:\n  workers: -1\n", "2: server.workers: \"-1\" is not valid; allowed: a whole number"},
    {"server:\n  node_id: \"\"\n", "2: server.node_id: \"\" is empty; allowed: 1 to 32 bytes"},
    {"server:\n  node_id: 123456789012345678901234567890123\n",
     "2: server.node_id: \"123456789012345678901234567890123\" is too long; allowed: 1 to 32 "
     "bytes"},
    {"server:\n  node_id: \"a\\nb\"\n",
     "2: server.node_id: the value has control characters or is not UTF-8; allowed: UTF-8 text on "
     "one line"},
    {"server:\n  proxy_sources: 10.0.0.0/8, host\n",
     "2: server.proxy_sources: \"10.0.0.0/8, host\" is not valid; allowed: addresses and networks "
     "such as 192.0.2.7, 10.0.0.0/8, 2001:db8::/32, comma separated"},
    {"iothub:\n  hosts: hub.example.com\n",
     "2: iothub.hosts: \"hub.example.com\" is not valid; allowed: host=tenant, comma separated, "
     "without ports, no host twice: hub.example.com=acme"},
    {"server:\n  log_level: loud\n",
     "2: server.log_level: \"loud\" is not known; allowed: debug, info, warn, error"},
    {"server:\n  log_level: inf\n",
     "2: server.log_level: \"inf\" is not known; allowed: debug, info, warn, error"},
    {"mqtt:\n  max_packet_bytes: 64KB\n",
     "2: mqtt.max_packet_bytes: \"64KB\" is not valid; allowed: a size such as 1000000, 64KiB, "
     "256MiB or 1GiB"},
    {"mqtt:\n  max_packet_bytes: 2MiB\n",
     "2: mqtt.max_packet_bytes: \"2MiB\" is out of range; allowed: 1KiB to 1MiB"},
    {"mqtt:\n  max_packet_bytes: 9999999999999TiB\n",
     "2: mqtt.max_packet_bytes: \"9999999999999TiB\" is not valid; allowed: a size such as "
     "1000000, 64KiB, 256MiB or 1GiB"},
    {"mqtt:\n  connect_timeout: 30\n",
     "2: mqtt.connect_timeout: \"30\" is not valid; allowed: a duration such as 500ms, 30s, 5m, "
     "1h or 7d"},
    {"mqtt:\n  connect_timeout: 20m\n",
     "2: mqtt.connect_timeout: \"20m\" is out of range; allowed: 100ms to 10m"},
    {"events:\n  presence: yes\n",
     "2: events.presence: \"yes\" is not valid; allowed: true or false"},
};

Test(config, file_refusals, .init = make_directory, .fini = drop_directory) {
    for (size_t i = 0; i < COUNT_OF(file_refusals); i++) {
        const struct refusal *r = &file_refusals[i];
        struct config *config = NULL;
        char expected[CONFIG_ERROR_SIZE];
        write_file(file_path, r->text, strlen(r->text));
        cr_expect_eq(config_load(file_path, NULL, NULL, &config, error), DG_ERR_INVALID, "%s",
                     r->text);
        snprintf(expected, sizeof(expected), "%s:%s", file_path, r->message);
        cr_expect_str_eq(error, expected);
        cr_expect_null(config, "untouched");
    }
}

/* Cut and damaged files must end in an answer, whatever it is. */
Test(config, damaged_files, .init = make_directory, .fini = drop_directory) {
    static const char good[] =
        "mqtt: {bind: \"a\", connect_timeout: 1s}\nevents:\n  presence: true\n";
    for (size_t i = 0; i < sizeof(good) - 1; i++)
        for (int damage = 0; damage < 4; damage++) {
            char text[sizeof(good)];
            memcpy(text, good, sizeof(good));
            text[i] = "\0\xff*["[damage];
            struct config *config = NULL;
            write_file(file_path, text, damage == 3 ? i : sizeof(good) - 1);
            if (config_load(file_path, NULL, NULL, &config, error) == 0)
                config_free(config);
            else
                cr_expect(strlen(error) > 0 && config == NULL);
        }
}

Test(config, a_file_that_is_not_there) {
    struct config *config = NULL;
    cr_expect_eq(config_load("/nowhere/at/all", NULL, NULL, &config, error), DG_ERR_INVALID);
    cr_expect_str_eq(error, "/nowhere/at/all: cannot be read: No such file or directory");
    cr_expect_eq(config_load("/", NULL, NULL, &config, error), DG_ERR_INVALID);
}

Test(config, layers, .init = make_directory, .fini = drop_directory) {
    static const char text[] = "server:\n  workers: 1\n  node_id: f\nmqtt:\n  bind: f\n";
    char workers[] = "DURAGATE_CFG_SERVER__WORKERS=2", bind[] = "DURAGATE_CFG_MQTT__BIND=e=1";
    char other[] = "DURAGATE_HOME=/x", path[] = "PATH=/bin";
    char *environment[] = {path, workers, other, bind, NULL};
    const char *overrides[] = {"server.workers=3", NULL};
    struct config *c = NULL;
    write_file(file_path, text, strlen(text));
    cr_assert_eq(config_load(file_path, environment, overrides, &c, error), 0, "%s", error);
    cr_expect_eq(c->server_workers, 3);
    cr_expect_str_eq(c->mqtt_bind, "e=1");
    cr_expect_str_eq(c->server_node_id, "f");
    config_free(c);
}

static void expect_variable_refused(const char *pair, const char *message) {
    char copy[256];
    snprintf(copy, sizeof(copy), "%s", pair);
    char *environment[] = {copy, NULL};
    struct config *config = NULL;
    cr_expect_eq(config_load(NULL, environment, NULL, &config, error), DG_ERR_INVALID, "%s", pair);
    cr_expect_str_eq(error, message);
}

Test(config, environment_refusals) {
    static const struct refusal cases[] = {
        {"DURAGATE_CFG_MQTT__BNID=x", "environment variable DURAGATE_CFG_MQTT__BNID: mqtt.bnid: "
                                      "unknown key; did you mean mqtt.bind?"},
        {"DURAGATE_CFG_MQT__BIND=x", "environment variable DURAGATE_CFG_MQT__BIND: mqt: unknown "
                                     "section; did you mean mqtt?"},
        {"DURAGATE_CFG_MQTT_BIND=x",
         "environment variable DURAGATE_CFG_MQTT_BIND: unknown name; allowed: "
         "DURAGATE_CFG_<SECTION>__<KEY>, upper case"},
        {"DURAGATE_CFG_mqtt__bind=x",
         "environment variable DURAGATE_CFG_mqtt__bind: unknown name; allowed: "
         "DURAGATE_CFG_<SECTION>__<KEY>, upper case"},
        {"DURAGATE_CFG_EVENTS__PRESENCE_FILE=x",
         "environment variable DURAGATE_CFG_EVENTS__PRESENCE_FILE: events.presence_file: unknown "
         "key; allowed: device_time_window, presence"},
        {"DURAGATE_CFG_SERVER__WORKERS=x",
         "environment variable DURAGATE_CFG_SERVER__WORKERS: server.workers: \"x\" is not valid; "
         "allowed: a whole number"},
        {"DURAGATE_CFG_REGISTRY__PASSWORD_FILE=/nowhere",
         "environment variable DURAGATE_CFG_REGISTRY__PASSWORD_FILE: registry.password_file: "
         "cannot read /nowhere: No such file or directory"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        expect_variable_refused(cases[i].text, cases[i].message);
}

Test(config, override_refusals) {
    static const struct refusal cases[] = {
        {"mqtt.bind", "option: mqtt.bind: not an assignment; allowed: section.key=value"},
        {"bind=x", "option: bind=x: not an assignment; allowed: section.key=value"},
        {".bind=x", "option: .bind=x: not an assignment; allowed: section.key=value"},
        {"mqtt.=x", "option: mqtt.=x: not an assignment; allowed: section.key=value"},
        {"events.presense=true",
         "option: events.presense: unknown key; did you mean events.presence?"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *overrides[] = {cases[i].text, NULL};
        struct config *config = NULL;
        cr_expect_eq(config_load(NULL, NULL, overrides, &config, error), DG_ERR_INVALID);
        cr_expect_str_eq(error, cases[i].message);
    }
}

Test(config, secret_from_a_file, .init = make_directory, .fini = drop_directory) {
    static const struct {
        const char *content;
        const char *password;
    } cases[] = {{"s3cret\n", "s3cret"}, {"s3cret\r\n", "s3cret"}, {"a b", "a b"}, {"", ""}};
    char variable[128];
    snprintf(variable, sizeof(variable), "DURAGATE_CFG_REGISTRY__PASSWORD_FILE=%s", secret_path);
    char *environment[] = {variable, NULL, NULL};
    struct config *c = NULL;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        write_file(secret_path, cases[i].content, strlen(cases[i].content));
        cr_assert_eq(config_load(NULL, environment, NULL, &c, error), 0, "%s", error);
        cr_expect_str_eq(c->registry_password, cases[i].password);
        config_free(c);
    }
    char twice[] = "DURAGATE_CFG_REGISTRY__PASSWORD=x";
    environment[1] = twice;
    cr_expect_eq(config_load(NULL, environment, NULL, &c, error), DG_ERR_INVALID);
    cr_expect(strstr(error, "registry.password: given twice"));
    environment[1] = NULL;
    write_file(secret_path, "two\nlines\n", 10);
    cr_expect_eq(config_load(NULL, environment, NULL, &c, error), DG_ERR_INVALID);
    cr_expect(strstr(error, "two") == NULL, "a secret never shows: %s", error);
}

static char *printed(const struct config *config) {
    struct buffer page = {0};
    cr_assert_eq(config ? config_print(config, &page) : config_print_reference(&page), 0);
    cr_assert_eq(buffer_append(&page, "", 1, SIZE_MAX / 2), 0);
    return (char *)page.data;
}

Test(config, prints_what_it_would_load, .init = make_directory, .fini = drop_directory) {
    struct config *c = load_text("server:\n  pid_file: 'a \"b\" \\ # c'\n"
                                 "mqtt:\n  connect_timeout: 90s\n  max_packet_bytes: 1025\n"
                                 "registry:\n  password: hunter2\n"
                                 "storage:\n  retention_time: 0\n");
    char *page = printed(c);
    cr_expect(strstr(page, "hunter2") == NULL);
    cr_expect(strstr(page, "\n  password: \"(redacted)\"\n"));
    cr_expect(strstr(page, "\n  pid_file: \"a \\\"b\\\" \\\\ # c\"\n"));
    cr_expect(strstr(page, "\n  connect_timeout: 90s\n"));
    cr_expect(strstr(page, "\n  max_packet_bytes: 1025\n"));
    cr_expect(strstr(page, "\n  retention_time: 0\n"));
    cr_expect(strstr(page, "\n  segment_age: 1d\n"));
    struct config *again = load_text(page);
    char *second = printed(again);
    cr_expect_str_eq(second, page);
    free(page);
    free(second);
    config_free(c);
    config_free(again);
}

Test(config, reference_has_every_key) {
    static const struct {
        const char *section;
        const char *key;
    } rows[] = {
#define CONFIG(section, key, ...) {#section, #key},
#include "common/config_table.h"
#undef CONFIG
    };
    char *page = printed(NULL);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char heading[64], row[80];
        snprintf(heading, sizeof(heading), "\n## %s\n", rows[i].section);
        snprintf(row, sizeof(row), "\n| `%s` | ", rows[i].key);
        const char *section = strstr(page, heading);
        cr_assert_not_null(section);
        cr_expect_not_null(strstr(section, row), "%s.%s", rows[i].section, rows[i].key);
        cr_expect_null(strstr(section + 1, heading), "one table per section");
    }
    cr_expect(strstr(page, "| `max_packet_bytes` | size | `256KiB` | 1KiB to 1MiB | yes | "
                           "`DURAGATE_CFG_MQTT__MAX_PACKET_BYTES` | Largest MQTT packet"));
    cr_expect(strstr(page, "| `DURAGATE_CFG_REGISTRY__PASSWORD` or `_FILE` |") ||
              strstr(page, "`DURAGATE_CFG_REGISTRY__PASSWORD` or `_FILE`"));
    free(page);
}

Test(config, reload) {
    static const struct {
        const char *change;
        const char *key; /* that forbids the reload, or NULL */
    } cases[] = {
        {"server.log_level=debug", NULL},
        {"mqtt.receive_maximum=7", NULL},
        {"server.workers=0", NULL},
        {"server.workers=2", "server.workers"},
        {"mqtt.bind=x", "mqtt.bind"},
        {"registry.auto_migrate=true", "registry.auto_migrate"},
        {"registry.password=x", "registry.password"},
    };
    struct config *before = NULL;
    cr_assert_eq(config_load(NULL, NULL, NULL, &before, error), 0);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const char *overrides[] = {cases[i].change, NULL}, *key = NULL;
        struct config *after = NULL;
        cr_assert_eq(config_load(NULL, NULL, overrides, &after, error), 0, "%s", error);
        cr_expect_eq(config_is_reloadable(before, after, &key), cases[i].key == NULL);
        if (cases[i].key)
            cr_expect_str_eq(key, cases[i].key);
        config_free(after);
    }
    config_free(before);
}
