/*
 * One list of everything that can go wrong, and what each protocol says of it.
 *
 * Functions that can fail return 0 or a negative enum dg_err and leave their outputs untouched on
 * failure. The row holds the sentence for people, the MQTT 5 reason code, the MQTT 3.1.1 CONNACK
 * return code (0 where none fits), the AMQP condition, the Kafka error code and the HTTP status.
 */
#pragma once

#include <stdint.h>

#define DG_NODISCARD __attribute__((warn_unused_result))

/* clang-format off */
/*        name                  value  mqtt5 mqtt3 kafka http  amqp condition                    text */
#define DG_ERRORS(X)                                                                                 \
    X(DG_ERR_NO_MEMORY,            -1, 0x97, 3,   -1,  503, "amqp:resource-limit-exceeded",   "out of memory")                          \
    X(DG_ERR_LIMIT,                -2, 0x97, 3,   44,  429, "amqp:resource-limit-exceeded",   "a limit is reached")                     \
    X(DG_ERR_MALFORMED,            -3, 0x81, 0,   42,  400, "amqp:decode-error",              "malformed input")                        \
    X(DG_ERR_PROTOCOL,             -4, 0x82, 0,   42,  400, "amqp:connection:framing-error",  "protocol error")                         \
    X(DG_ERR_UNSUPPORTED_VERSION,  -5, 0x84, 1,   35,  505, "amqp:not-implemented",           "unsupported protocol version")           \
    X(DG_ERR_CLIENT_ID,            -6, 0x85, 2,   42,  400, "amqp:invalid-field",             "client identifier not valid")            \
    X(DG_ERR_BAD_CREDENTIALS,      -7, 0x86, 4,   58,  401, "amqp:unauthorized-access",       "bad user name or credential")            \
    X(DG_ERR_NOT_AUTHORIZED,       -8, 0x87, 5,   29,  403, "amqp:unauthorized-access",       "not authorized")                         \
    X(DG_ERR_UNAVAILABLE,          -9, 0x88, 3,   15,  503, "amqp:internal-error",            "server unavailable, try again")          \
    X(DG_ERR_BUSY,                -10, 0x89, 3,    7,  503, "amqp:resource-limit-exceeded",   "server busy, try again")                 \
    X(DG_ERR_DISABLED,            -11, 0x8A, 5,   29,  403, "amqp:unauthorized-access",       "the device is disabled")                 \
    X(DG_ERR_SHUTTING_DOWN,       -12, 0x8B, 3,   15,  503, "amqp:connection:forced",         "server shutting down")                   \
    X(DG_ERR_BAD_AUTH_METHOD,     -13, 0x8C, 0,   33,  401, "amqp:unauthorized-access",       "bad authentication method")              \
    X(DG_ERR_KEEP_ALIVE,          -14, 0x8D, 0,    7,  408, "amqp:resource-limit-exceeded",   "keep alive time-out")                    \
    X(DG_ERR_TAKEN_OVER,          -15, 0x8E, 0,   25,  409, "amqp:link:stolen",               "session taken over by a new connection") \
    X(DG_ERR_TOPIC_FILTER,        -16, 0x8F, 0,   17,  400, "amqp:invalid-field",             "topic filter not valid")                 \
    X(DG_ERR_TOPIC_NAME,          -17, 0x90, 0,   17,  400, "amqp:invalid-field",             "topic name not valid")                   \
    X(DG_ERR_PACKET_ID_IN_USE,    -18, 0x91, 0,   42,  409, "amqp:invalid-field",             "packet identifier in use")               \
    X(DG_ERR_PACKET_ID_NOT_FOUND, -19, 0x92, 0,   42,  404, "amqp:not-found",                 "packet identifier not found")            \
    X(DG_ERR_RECEIVE_MAXIMUM,     -20, 0x93, 0,   42,  429, "amqp:link:transfer-limit-exceeded", "receive maximum exceeded")            \
    X(DG_ERR_TOPIC_ALIAS,         -21, 0x94, 0,   42,  400, "amqp:invalid-field",             "topic alias not valid")                  \
    X(DG_ERR_TOO_LARGE,           -22, 0x95, 0,   10,  413, "amqp:link:message-size-exceeded", "too large")                             \
    X(DG_ERR_RATE,                -23, 0x96, 0,   44,  429, "amqp:resource-limit-exceeded",   "message rate too high")                  \
    X(DG_ERR_QUOTA,               -24, 0x97, 3,   44,  429, "amqp:resource-limit-exceeded",   "quota exceeded")                         \
    X(DG_ERR_STORAGE_FULL,        -25, 0x97, 3,   56,  507, "amqp:resource-limit-exceeded",   "no room left to store events")           \
    X(DG_ERR_ADMINISTRATIVE,      -26, 0x98, 0,   29,  403, "amqp:connection:forced",         "closed by an administrator")             \
    X(DG_ERR_PAYLOAD_FORMAT,      -27, 0x99, 0,   87,  422, "amqp:decode-error",              "payload format not valid")               \
    X(DG_ERR_NOT_SUPPORTED,       -28, 0x83, 0,   42,  501, "amqp:not-implemented",           "not supported")                          \
    X(DG_ERR_QOS_NOT_SUPPORTED,   -29, 0x9B, 0,   42,  400, "amqp:not-implemented",           "QoS not supported")                      \
    X(DG_ERR_SHARED_SUBSCRIPTION, -30, 0x9E, 0,   42,  400, "amqp:not-implemented",           "shared subscriptions not supported")     \
    X(DG_ERR_CONNECTION_RATE,     -31, 0x9F, 3,   44,  429, "amqp:resource-limit-exceeded",   "connection rate exceeded")               \
    X(DG_ERR_WILDCARD,            -32, 0xA2, 0,   42,  400, "amqp:not-implemented",           "wildcard subscriptions not supported")   \
    X(DG_ERR_NOT_FOUND,           -33, 0x80, 0,    3,  404, "amqp:not-found",                 "not found")                              \
    X(DG_ERR_EXISTS,              -34, 0x80, 0,   36,  409, "amqp:precondition-failed",       "already exists")                         \
    X(DG_ERR_PRECONDITION,        -35, 0x80, 0,   42,  412, "amqp:precondition-failed",       "precondition failed")                    \
    X(DG_ERR_INVALID,             -36, 0x83, 0,   42,  422, "amqp:invalid-field",             "value not valid")                        \
    X(DG_ERR_TIMEOUT,             -37, 0x80, 0,    7,  504, "amqp:internal-error",            "timed out")                              \
    X(DG_ERR_OFFSET_OUT_OF_RANGE, -38, 0x80, 0,    1,  416, "amqp:not-found",                 "offset out of range")                    \
    X(DG_ERR_PRESSURE,            -39, 0x89, 0,    7,  503, "amqp:resource-limit-exceeded",   "too much in flight, wait")               \
    X(DG_ERR_COLD,                -40, 0x89, 0,    7,  503, "amqp:internal-error",            "being read from disk, wait")             \
    X(DG_ERR_CORRUPT,             -41, 0x80, 0,    2,  500, "amqp:internal-error",            "stored data is damaged")                 \
    X(DG_ERR_IO,                  -42, 0x80, 0,   56,  500, "amqp:internal-error",            "input/output error")                     \
    X(DG_ERR_CLOSED,              -43, 0x80, 0,   -1,  499, "amqp:connection:forced",         "closed by the peer")                     \
    X(DG_ERR_TLS,                 -44, 0x80, 0,   -1,  400, "amqp:connection:forced",         "TLS error")                              \
    X(DG_ERR_INTERNAL,            -45, 0x83, 3,   -1,  500, "amqp:internal-error",            "internal error") \
    X(DG_ERR_MEDIA_TYPE,          -46, 0x99, 0,   42,  415, "amqp:decode-error",              "media type not supported") \
    X(DG_ERR_ATTEMPTS,            -47, 0x9F, 3,   44,  429, "amqp:resource-limit-exceeded",   "too many failed logins, try again later") \
    X(DG_ERR_CODEC,               -48, 0x83, 3,   76,  406, "amqp:not-implemented",           "compressed with zstd, which this client's version of Fetch does not know") \
    X(DG_ERR_IN_USE,              -49, 0x80, 0,   68, 409, "amqp:precondition-failed",       "in use") \
    X(DG_ERR_CONTENT_SIZE,        -50, 0x99, 0,   87,  422, "amqp:decode-error",              "quarantined: the payload is larger than the tenant's rules for this topic allow") \
    X(DG_ERR_CONTENT_UTF8,        -51, 0x99, 0,   87,  422, "amqp:decode-error",              "quarantined: the payload is not UTF-8, which the tenant's rules for this topic ask for") \
    X(DG_ERR_CONTENT_JSON,        -52, 0x99, 0,   87,  422, "amqp:decode-error",              "quarantined: the payload is not JSON, which the tenant's rules for this topic ask for") \
    X(DG_ERR_SEQUENCE,            -53, 0x83, 0,   42,  400, "amqp:invalid-field",             "producer sequence not valid: once, as <producer>:<epoch>:<sequence>, is expected") \
    X(DG_ERR_SEQUENCE_WINDOW,     -54, 0x83, 0,   46,  409, "amqp:precondition-failed",       "sequence too far below the producer's highest: it is not known whether it is stored") \
    X(DG_ERR_PRODUCER_EPOCH,      -55, 0x83, 0,   47,  409, "amqp:precondition-failed",       "a later epoch of this producer was used") \
    X(DG_ERR_PRODUCERS,           -56, 0x97, 0,   44,  429, "amqp:resource-limit-exceeded",   "the device has four producers, all of them used within a day") \
    X(DG_ERR_VIA,                 -57, 0x87, 5,   29,  403, "amqp:unauthorized-access",       "not a device behind this gateway: no enabled device of that name lists it in its member via") \
    X(DG_ERR_NOT_CONNECTED,       -58, 0x80, 0,   42, 404, "amqp:not-found",                 "the device is not connected") \
    X(DG_ERR_NO_CALL,             -59, 0x80, 0,   42, 404, "amqp:not-found",                 "no call waits for this reply (any more)") \
    X(DG_ERR_DEVICE_REFUSED,      -60, 0x80, 0,   42, 502, "amqp:not-allowed",               "the device has refused the message") \
    X(DG_ERR_STATE_DOCUMENT,      -61, 0x99, 0,   87, 422, "amqp:decode-error",              "not a merge patch of a state: a JSON object that keeps the rules of docs/twins.md") \
    X(DG_ERR_STATE_SIZE,          -62, 0x97, 0,   10, 413, "amqp:resource-limit-exceeded",   "the state would have more than 32 KiB with this patch") \
    X(DG_ERR_OVER,                -63, 0x80, 0,   42, 409, "amqp:precondition-failed",       "it is over")
/* clang-format on */

enum dg_err {
    DG_OK = 0,
#define X(name, value, ...) name = value,
    DG_ERRORS(X)
#undef X
};

struct dg_err_row {
    enum dg_err err;
    const char *name; /* "DG_ERR_LIMIT" */
    const char *text;
    uint8_t mqtt5_reason;
    uint8_t mqtt3_connack;
    int16_t kafka_code;
    uint16_t http_status;
    const char *amqp_condition;
};

/* The row of err (a row for "success" when err is 0). Never NULL; any thread. */
const struct dg_err_row *dg_err_row(int err);

/* Short for dg_err_row(err)->text. */
const char *dg_err_text(int err);

/* Process exit codes (sysexits where one fits). */
enum dg_exit {
    DG_EXIT_OK = 0,
    DG_EXIT_FAILURE = 1,
    DG_EXIT_USAGE = 64,
    DG_EXIT_UNAVAILABLE = 69,
    DG_EXIT_STORAGE = 74, /* a write or fdatasync failed: nothing may be acknowledged any more */
    DG_EXIT_NOPERM = 77,
    DG_EXIT_CONFIG = 78,
};
