#include "provisioning/iothub_error.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "common/assert.h"
#include "common/clock.h"
#include "common/random.h"
#include "registry/credential.h"

#define RETRY_AFTER "2" /* seconds */
static const char CONTENT_TYPE[] = "application/json; charset=utf-8";

const struct iothub_error_row iothub_errors[] = {
#define X(name, code, status) {#name, code, status},
    IOTHUB_ERRORS(X)
#undef X
};

enum iothub_error iothub_error_of(int err) {
    switch (err) {
    case DG_ERR_BAD_CREDENTIALS:
    case DG_ERR_DISABLED:
        return IOTHUB_IotHubUnauthorized;
    case DG_ERR_NOT_AUTHORIZED:
        return IOTHUB_IotHubUnauthorizedAccess;
    case DG_ERR_NOT_FOUND:
        return IOTHUB_DeviceNotFound;
    case DG_ERR_NOT_CONNECTED:
        return IOTHUB_DeviceNotOnline;
    case DG_ERR_EXISTS:
        return IOTHUB_DeviceAlreadyExists;
    case DG_ERR_PRECONDITION:
        return IOTHUB_PreconditionFailed;
    case DG_ERR_TOO_LARGE:
        return IOTHUB_MessageTooLarge;
    case DG_ERR_QUOTA:
        return IOTHUB_IotHubQuotaExceeded;
    case DG_ERR_LIMIT:
        return IOTHUB_ThrottlingException;
    case DG_ERR_DEVICE_REFUSED:
        return IOTHUB_BadDeviceResponse;
    case DG_ERR_TIMEOUT:
        return IOTHUB_GatewayTimeout;
    }
    unsigned status = dg_err_row(err)->http_status;
    return status == 503  ? IOTHUB_ServiceUnavailable
           : status < 500 ? IOTHUB_ArgumentInvalid
                          : IOTHUB_ServerError;
}

/* ---- headers ---- */

/* A request that has a number of its own gets it back. */
static void echo_request_id(struct http_exchange *x) {
    struct slice id;
    char text[129];
    if (!http_request_header(x, "Request-Id", &id) || id.size == 0 || id.size >= sizeof(text))
        return;
    memcpy(text, id.data, id.size);
    text[id.size] = '\0';
    http_add_header(x, "Request-Id", text);
}

static void respond(struct http_exchange *x, unsigned status, const json_t *body) {
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    echo_request_id(x);
    http_add_header(x, "Cache-Control", "no-store"); /* keys may be within */
    http_respond(x, status, text ? CONTENT_TYPE : NULL, slice_make(text, text ? strlen(text) : 0));
    if (text)
        explicit_bzero(text, strlen(text));
    free(text);
}

/* ---- errors ---- */

static json_t *make_message(const struct iothub_error_row *row, const char *text) {
    char exception[128], stamp[32];
    time_t now = (time_t)(clock_wall_ms() / 1000);
    struct tm parts;
    gmtime_r(&now, &parts);
    strftime(stamp, sizeof(stamp), "%m/%d/%Y %H:%M:%S", &parts);
    snprintf(exception, sizeof(exception),
             "Tracking ID:%016" PRIx64 "%016" PRIx64 "-G:0-TimeStamp:%s", random_u64(),
             random_u64(), stamp);
    json_t *message = json_sprintf("ErrorCode:%s;%s", row->name, text);
    if (!message) /* the text has a character that was cut */
        message = json_sprintf("ErrorCode:%s;", row->name);
    return json_pack("{s:o, s:s}", "Message", message, "ExceptionMessage", exception);
}

static void refuse(struct http_exchange *x, enum iothub_error error, const char *text) {
    const struct iothub_error_row *row = &iothub_errors[error];
    json_t *body = make_message(row, text);
    http_add_header(x, "iothub-errorcode", row->name);
    if (row->status == 429 || row->status == 503)
        http_add_header(x, "Retry-After", RETRY_AFTER);
    respond(x, row->status, body);
    json_decref(body);
}

void iothub_refuse(struct http_exchange *x, enum iothub_error error, const char *format, ...) {
    char text[CALL_DETAIL_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    refuse(x, error, text);
}

void iothub_problem(struct provisioning_call *call, int err, const char *detail) {
    refuse(call->exchange, iothub_error_of(err), detail[0] ? detail : dg_err_text(err));
}

/* ---- entity tags ---- */

void iothub_format_etag(int64_t version, char ret_etag[IOTHUB_ETAG_SIZE]) {
    uint64_t bytes = __builtin_bswap64((uint64_t)version);
    size_t size = credential_base64_encode((const uint8_t *)&bytes, sizeof(bytes), ret_etag);
    dg_assert(size == IOTHUB_ETAG_SIZE - 1);
}

int64_t iothub_parse_etag(struct slice text) {
    uint64_t bytes;
    if (credential_base64_decode(text, (uint8_t *)&bytes, sizeof(bytes)) != sizeof(bytes))
        return INT64_MAX;
    int64_t version = (int64_t)__builtin_bswap64(bytes);
    return version > 0 ? version : INT64_MAX;
}

bool iothub_read_if_match(struct http_exchange *x, struct etag_condition *ret_condition) {
    struct slice value;
    if (!http_request_header(x, "If-Match", &value))
        return false;
    if (slice_starts_with(value, "W/"))
        value = slice_skip(value, 2);
    if (value.size >= 2 && value.data[0] == '"' && value.data[value.size - 1] == '"')
        value = slice_make(value.data + 1, value.size - 2);
    *ret_condition =
        etag_condition_of(slice_equals_string(value, "*") ? ETAG_EXISTS : iothub_parse_etag(value));
    return true;
}

/* ---- answers ---- */

void iothub_answer(struct http_exchange *x, unsigned status, json_t *body, int64_t version) {
    char etag[IOTHUB_ETAG_SIZE], quoted[IOTHUB_ETAG_SIZE + 2];
    if (!body && status != 204) {
        refuse(x, IOTHUB_ServiceUnavailable, dg_err_text(DG_ERR_NO_MEMORY));
        return;
    }
    if (version != 0) {
        iothub_format_etag(version, etag);
        snprintf(quoted, sizeof(quoted), "\"%s\"", etag);
        http_add_header(x, "ETag", quoted);
    }
    respond(x, status, body);
    json_decref(body);
}

json_t *iothub_time(int64_t wall_ms) {
    char text[CLOCK_RFC3339_SIZE];
    if (wall_ms <= 0)
        return json_string("0001-01-01T00:00:00");
    clock_format_rfc3339(wall_ms, text);
    return json_stringn(text, sizeof(text));
}
