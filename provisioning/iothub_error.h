/*
 * Answers of the service API for clients written for Azure IoT Hub, who expect errors of a form of
 * their own: {"Message":"ErrorCode:<name>;<text>","ExceptionMessage":"Tracking ID:..."} and the
 * name once more in the header iothub-errorcode. Worker's thread.
 */
#pragma once

#include "provisioning/call.h"

/* name, code, HTTP status */
#define IOTHUB_ERRORS(X)                            \
    X(ArgumentInvalid, 400004, 400)                 \
    X(DeviceDefinedMultipleTimes, 400011, 400)      \
    X(InvalidProtocolVersion, 400001, 400)          \
    X(IotHubUnauthorizedAccess, 401002, 401)        \
    X(IotHubUnauthorized, 401003, 401)              \
    X(IotHubQuotaExceeded, 403002, 403)             \
    X(DeviceMaximumQueueDepthExceeded, 403004, 403) \
    X(DeviceNotFound, 404001, 404)                  \
    X(JobNotFound, 404002, 404)                     \
    X(ModuleNotFound, 404010, 404)                  \
    X(DeviceNotOnline, 404103, 404)                 \
    X(ConfigurationNotFound, 404301, 404)           \
    X(DeviceAlreadyExists, 409001, 409)             \
    X(PreconditionFailed, 412001, 412)              \
    X(MessageTooLarge, 413001, 413)                 \
    X(ThrottlingException, 429001, 429)             \
    X(ServerError, 500001, 500)                     \
    X(BadDeviceResponse, 502001, 502)               \
    X(ServiceUnavailable, 503001, 503)              \
    X(GatewayTimeout, 504101, 504)

enum iothub_error {
#define X(name, code, status) IOTHUB_##name,
    IOTHUB_ERRORS(X)
#undef X
        IOTHUB_ERROR_COUNT
};

struct iothub_error_row {
    const char *name;
    unsigned code, status;
};
extern const struct iothub_error_row iothub_errors[IOTHUB_ERROR_COUNT];

/* What an error of ours is called there. */
enum iothub_error iothub_error_of(int err);

/* Ends the exchange with an error and a text for people (printf style). */
void iothub_refuse(struct http_exchange *x, enum iothub_error error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same for an error of ours; a provisioning_call's `problem`. */
void iothub_problem(struct provisioning_call *call, int err, const char *detail);

enum { IOTHUB_ETAG_SIZE = 13 }; /* base64 of the 8 bytes of a version, and NUL */
void iothub_format_etag(int64_t version, char ret_etag[IOTHUB_ETAG_SIZE]);
/* The version of one; INT64_MAX, which nothing has, for any other text. */
int64_t iothub_parse_etag(struct slice text);
/* If-Match in any form that clients send: *, "*", x, "x", W/"x". False: the header is absent. */
bool iothub_read_if_match(struct http_exchange *x, struct etag_condition *ret_condition);

/* Ends the exchange with JSON, which is taken over (NULL: out of memory), or with none (204). An
 * entity tag when version is not 0. */
void iothub_answer(struct http_exchange *x, unsigned status, json_t *body, int64_t version);
/* A time as that API gives it; 0: never. NULL: out of memory. */
json_t *iothub_time(int64_t wall_ms);
