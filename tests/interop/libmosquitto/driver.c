/* libmosquitto as mqtt_clients.py drives it: the commands and the lines are described there. */
#include <mosquitto.h>
#include <mqtt_protocol.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAYLOAD_BYTES_MAX = 512 * 1024, EXPIRY_S = 300 };

static struct mosquitto *client;
static atomic_int acknowledged;
static int is_mqtt5, may_reconnect;
static char payload[PAYLOAD_BYTES_MAX];

static void check(const char *what, int result) {
    if (result == MOSQ_ERR_SUCCESS)
        return;
    printf("error %s: %s\n", what, mosquitto_strerror(result));
    exit(1);
}

static void on_connect(struct mosquitto *m, void *context, int code, int flags,
                       const mosquitto_property *properties) {
    if (code == 0) {
        printf("connected %d\n", flags & 1);
        return;
    }
    printf("refused %d\n", code);
    exit(0);
}

static void on_disconnect(struct mosquitto *m, void *context, int code,
                          const mosquitto_property *properties) {
    if (code >= 128)
        printf("lost %d\n", code);
    else
        printf("lost -\n");
    if (!may_reconnect)
        exit(0);
}

static void on_publish(struct mosquitto *m, void *context, int id, int code,
                       const mosquitto_property *properties) {
    if (code >= 128)
        printf("error publish refused: %d\n", code);
    atomic_fetch_add(&acknowledged, 1);
}

static void on_subscribe(struct mosquitto *m, void *context, int id, int count, const int *granted,
                         const mosquitto_property *properties) {
    printf("granted %d\n", granted[0]);
}

/* The library's own loop ends for good when TLS breaks off (MOSQ_ERR_TLS). */
static void *run_loop(void *context) {
    do {
        mosquitto_loop_forever(client, -1, 1);
        usleep(100000);
    } while (may_reconnect && mosquitto_reconnect(client) >= 0);
    return NULL;
}

static void do_connect(void) {
    pthread_t loop;
    mosquitto_property *properties = NULL;
    const char *will = getenv("DG_WILL");
    if (is_mqtt5 && !atoi(getenv("DG_CLEAN")))
        check("expiry", mosquitto_property_add_int32(&properties, MQTT_PROP_SESSION_EXPIRY_INTERVAL,
                                                     EXPIRY_S));
    if (will[0])
        check("will", mosquitto_will_set_v5(client, will, 4, "gone", 1, false, NULL));
    check("connect", mosquitto_connect_bind_v5(client, getenv("DG_HOST"), atoi(getenv("DG_PORT")),
                                               60, NULL, properties));
    check("loop", pthread_create(&loop, NULL, run_loop, NULL));
}

static void publish(const char *topic, size_t size, int qos, const mosquitto_property *properties) {
    check("publish",
          mosquitto_publish_v5(client, NULL, topic, (int)size, payload, qos, false, properties));
}

static void await(int count) {
    while (atomic_load(&acknowledged) < count)
        usleep(1000);
    printf("published %d\n", count);
}

static void do_publish(const char *topic, int qos, int count, size_t size) {
    atomic_store(&acknowledged, 0);
    for (int i = 0; i < count; i++) {
        memset(payload, 'x', size);
        int digits = snprintf(payload, size + 1, "%d", i);
        payload[digits] = (size_t)digits < size ? 'x' : '\0';
        publish(topic, size, qos, NULL);
    }
    await(count);
}

static void do_describe(const char *topic) {
    mosquitto_property *properties = NULL;
    atomic_store(&acknowledged, 0);
    check("content type",
          mosquitto_property_add_string(&properties, MQTT_PROP_CONTENT_TYPE, "text/plain"));
    check("user property", mosquitto_property_add_string_pair(&properties, MQTT_PROP_USER_PROPERTY,
                                                              "colour", "blue"));
    publish(topic, 1, 1, properties);
    await(1);
}

static void do_alias(const char *topic, int count) {
    mosquitto_property *properties = NULL;
    atomic_store(&acknowledged, 0);
    check("alias", mosquitto_property_add_int16(&properties, MQTT_PROP_TOPIC_ALIAS, 1));
    for (int i = 0; i < count; i++)
        publish(i == 0 ? topic : NULL, 1, 1, properties);
    await(count);
}

static void obey(const char *line) {
    char topic[256];
    int qos, count;
    size_t size;
    if (strncmp(line, "connect", 7) == 0)
        do_connect();
    else if (sscanf(line, "publish %255s %d %d %zu", topic, &qos, &count, &size) == 4)
        do_publish(topic, qos, count, size);
    else if (sscanf(line, "describe %255s", topic) == 1)
        do_describe(topic);
    else if (sscanf(line, "alias %255s %d", topic, &count) == 2)
        do_alias(topic, count);
    else if (sscanf(line, "subscribe %255s", topic) == 1)
        check("subscribe", mosquitto_subscribe(client, NULL, topic, 1));
    else if (strncmp(line, "disconnect", 10) == 0)
        check("disconnect", mosquitto_disconnect(client));
}

int main(void) {
    char line[512];
    setvbuf(stdout, NULL, _IOLBF, 0);
    mosquitto_lib_init();
    is_mqtt5 = atoi(getenv("DG_VERSION")) == 5;
    may_reconnect = atoi(getenv("DG_RECONNECT"));
    client = mosquitto_new(getenv("DG_CLIENT_ID"), atoi(getenv("DG_CLEAN")) != 0, NULL);
    check("threads", mosquitto_threaded_set(client, true));
    check("version", mosquitto_int_option(client, MOSQ_OPT_PROTOCOL_VERSION, is_mqtt5 ? 5 : 4));
    check("user", mosquitto_username_pw_set(client, getenv("DG_USER"), getenv("DG_PASSWORD")));
    if (strcmp(getenv("DG_TRANSPORT"), "tls") == 0)
        check("tls", mosquitto_tls_set(client, getenv("DG_CA_FILE"), NULL, NULL, NULL, NULL));
    mosquitto_connect_v5_callback_set(client, on_connect);
    mosquitto_disconnect_v5_callback_set(client, on_disconnect);
    mosquitto_publish_v5_callback_set(client, on_publish);
    mosquitto_subscribe_v5_callback_set(client, on_subscribe);
    while (fgets(line, sizeof(line), stdin))
        obey(line);
    pause();
    return 0;
}
