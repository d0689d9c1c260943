/* Eclipse Paho's asynchronous C client as mqtt_clients.py drives it: the commands and the lines are
 * described there. */
#include <MQTTAsync.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PAYLOAD_BYTES_MAX = 512 * 1024, EXPIRY_S = 300 };

static MQTTAsync client;
static atomic_int acknowledged;
static int is_mqtt5, may_reconnect, window;
static char payload[PAYLOAD_BYTES_MAX];

static void check(const char *what, int result) {
    if (result == MQTTASYNC_SUCCESS)
        return;
    printf("error %s: %d %s\n", what, result, MQTTAsync_strerror(result));
    exit(1);
}

/* ---- callbacks ---- */

static void on_connected(void *context, MQTTAsync_successData *data) {
    printf("connected %d\n", data->alt.connect.sessionPresent);
}

static void on_connected5(void *context, MQTTAsync_successData5 *data) {
    printf("connected %d\n", data->alt.connect.sessionPresent);
}

static void on_refused(void *context, MQTTAsync_failureData *data) {
    printf("refused %d\n", data->code);
    exit(0);
}

static void on_refused5(void *context, MQTTAsync_failureData5 *data) {
    printf("refused %d\n", data->reasonCode ? (int)data->reasonCode : data->code);
    exit(0);
}

static void on_lost(void *context, char *cause) {
    printf("lost -\n");
    if (!may_reconnect)
        exit(0);
}

static void on_server_disconnect(void *context, MQTTProperties *properties,
                                 enum MQTTReasonCodes reason) {
    printf("lost %d\n", reason);
    exit(0);
}

static void on_acknowledged(void *context, MQTTAsync_successData *data) {
    atomic_fetch_add(&acknowledged, 1);
}

static void on_acknowledged5(void *context, MQTTAsync_successData5 *data) {
    atomic_fetch_add(&acknowledged, 1);
}

static void on_granted(void *context, MQTTAsync_successData *data) {
    printf("granted %d\n", data->alt.qos);
}

static void on_granted5(void *context, MQTTAsync_successData5 *data) {
    printf("granted %d\n", data->reasonCode);
}

static void on_not_granted(void *context, MQTTAsync_failureData *data) {
    printf("granted %d\n", data->code);
}

static void on_not_granted5(void *context, MQTTAsync_failureData5 *data) {
    printf("granted %d\n", data->reasonCode);
}

static int on_message(void *context, char *topic, int size, MQTTAsync_message *message) {
    MQTTAsync_freeMessage(&message);
    MQTTAsync_free(topic);
    return 1;
}

/* ---- commands ---- */

static void do_connect(void) {
    MQTTAsync_connectOptions five = MQTTAsync_connectOptions_initializer5;
    MQTTAsync_connectOptions four = MQTTAsync_connectOptions_initializer;
    MQTTAsync_connectOptions options = is_mqtt5 ? five : four;
    MQTTAsync_SSLOptions tls = MQTTAsync_SSLOptions_initializer;
    MQTTAsync_willOptions will = MQTTAsync_willOptions_initializer;
    MQTTProperties properties = MQTTProperties_initializer;
    MQTTProperty expiry = {.identifier = MQTTPROPERTY_CODE_SESSION_EXPIRY_INTERVAL,
                           .value.integer4 = EXPIRY_S};
    int clean = atoi(getenv("DG_CLEAN"));
    options.username = getenv("DG_USER");
    options.password = getenv("DG_PASSWORD");
    options.automaticReconnect = may_reconnect;
    options.minRetryInterval = options.maxRetryInterval = 1;
    tls.trustStore = getenv("DG_CA_FILE");
    tls.verify = 1;
    options.ssl = &tls;
    will.topicName = getenv("DG_WILL");
    will.message = "gone";
    will.qos = 1;
    options.will = will.topicName[0] ? &will : NULL;
    if (is_mqtt5) {
        options.cleanstart = clean;
        options.onSuccess5 = on_connected5;
        options.onFailure5 = on_refused5;
        check("expiry", clean ? 0 : MQTTProperties_add(&properties, &expiry));
        options.connectProperties = &properties;
    } else {
        options.MQTTVersion = MQTTVERSION_3_1_1;
        options.cleansession = clean;
        options.onSuccess = on_connected;
        options.onFailure = on_refused;
    }
    check("connect", MQTTAsync_connect(client, &options));
}

static int sent;

static void await(int count) {
    while (atomic_load(&acknowledged) < count)
        usleep(1000);
}

static void begin(void) {
    atomic_store(&acknowledged, 0);
    sent = 0;
}

static void publish(const char *topic, size_t size, int qos, MQTTProperties *properties) {
    MQTTAsync_message message = MQTTAsync_message_initializer;
    MQTTAsync_responseOptions answer = MQTTAsync_responseOptions_initializer;
    message.payload = payload;
    message.payloadlen = (int)size;
    message.qos = qos;
    if (properties)
        message.properties = *properties;
    if (is_mqtt5)
        answer.onSuccess5 = on_acknowledged5;
    else
        answer.onSuccess = on_acknowledged;
    check("publish", MQTTAsync_sendMessage(client, topic, &message, &answer));
    await(window > 0 ? ++sent + 1 - window : 0);
}

static void say_published(int count) {
    await(count);
    printf("published %d\n", count);
}

static void do_publish(const char *topic, int qos, int count, size_t size) {
    begin();
    for (int i = 0; i < count; i++) {
        memset(payload, 'x', size);
        int digits = snprintf(payload, size + 1, "%d", i);
        payload[digits] = (size_t)digits < size ? 'x' : '\0';
        publish(topic, size, qos, NULL);
    }
    say_published(count);
}

static void do_describe(const char *topic) {
    MQTTProperties properties = MQTTProperties_initializer;
    MQTTProperty type = {.identifier = MQTTPROPERTY_CODE_CONTENT_TYPE,
                         .value.data = {10, (char *)(uintptr_t) "text/plain"}};
    MQTTProperty colour = {.identifier = MQTTPROPERTY_CODE_USER_PROPERTY,
                           .value = {.data = {6, (char *)(uintptr_t) "colour"},
                                     .value = {4, (char *)(uintptr_t) "blue"}}};
    begin();
    check("content type", MQTTProperties_add(&properties, &type));
    check("user property", MQTTProperties_add(&properties, &colour));
    publish(topic, 1, 1, &properties);
    say_published(1);
}

static void do_alias(const char *topic, int count) {
    MQTTProperties properties = MQTTProperties_initializer;
    MQTTProperty alias = {.identifier = MQTTPROPERTY_CODE_TOPIC_ALIAS, .value.integer2 = 1};
    begin();
    check("alias", MQTTProperties_add(&properties, &alias));
    for (int i = 0; i < count; i++)
        publish(i == 0 ? topic : "", 1, 1, &properties);
    say_published(count);
}

static void do_subscribe(const char *filter) {
    MQTTAsync_responseOptions answer = MQTTAsync_responseOptions_initializer;
    if (is_mqtt5) {
        answer.onSuccess5 = on_granted5;
        answer.onFailure5 = on_not_granted5;
    } else {
        answer.onSuccess = on_granted;
        answer.onFailure = on_not_granted;
    }
    check("subscribe", MQTTAsync_subscribe(client, filter, 1, &answer));
}

static void obey(const char *line) {
    char topic[256];
    int qos, count;
    size_t size;
    if (strncmp(line, "connect", 7) == 0) {
        do_connect();
    } else if (sscanf(line, "publish %255s %d %d %zu", topic, &qos, &count, &size) == 4) {
        do_publish(topic, qos, count, size);
    } else if (sscanf(line, "describe %255s", topic) == 1) {
        do_describe(topic);
    } else if (sscanf(line, "alias %255s %d", topic, &count) == 2) {
        do_alias(topic, count);
    } else if (sscanf(line, "subscribe %255s", topic) == 1) {
        do_subscribe(topic);
    } else if (strncmp(line, "disconnect", 10) == 0) {
        MQTTAsync_disconnectOptions options = MQTTAsync_disconnectOptions_initializer;
        check("disconnect", MQTTAsync_disconnect(client, &options));
        sleep(1);
        exit(0);
    }
}

int main(void) {
    static const struct {
        const char *transport, *scheme, *path;
    } transports[] = {{"tcp", "tcp", ""}, {"tls", "ssl", ""}, {"wss", "wss", "/mqtt"}};
    char line[512], uri[256] = "";
    setvbuf(stdout, NULL, _IOLBF, 0);
    is_mqtt5 = atoi(getenv("DG_VERSION")) == 5;
    may_reconnect = atoi(getenv("DG_RECONNECT"));
    window = atoi(getenv("DG_WINDOW"));
    for (unsigned i = 0; i < 3; i++)
        if (strcmp(transports[i].transport, getenv("DG_TRANSPORT")) == 0)
            snprintf(uri, sizeof(uri), "%s://%s:%s%s", transports[i].scheme, getenv("DG_HOST"),
                     getenv("DG_PORT"), transports[i].path);
    MQTTAsync_createOptions options = MQTTAsync_createOptions_initializer;
    options.MQTTVersion = is_mqtt5 ? MQTTVERSION_5 : MQTTVERSION_3_1_1;
    options.sendWhileDisconnected = 1;
    options.maxBufferedMessages = 1000;
    check("create", MQTTAsync_createWithOptions(&client, uri, getenv("DG_CLIENT_ID"),
                                                MQTTCLIENT_PERSISTENCE_NONE, NULL, &options));
    check("callbacks", MQTTAsync_setCallbacks(client, NULL, on_lost, on_message, NULL));
    check("callbacks", MQTTAsync_setDisconnected(client, NULL, on_server_disconnect));
    while (fgets(line, sizeof(line), stdin))
        obey(line);
    pause();
    return 0;
}
