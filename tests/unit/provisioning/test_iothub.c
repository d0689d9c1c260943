/* Shapes of the service API of Azure IoT Hub: routes, entity tags, devices. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "provisioning/iothub_device.h"
#include "provisioning/iothub_route.h"
#include "provisioning/provisioning.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

Test(iothub, every_route_is_complete) {
    for (unsigned i = 0; i < IOTHUB_ROUTE_COUNT; i++) {
        const struct iothub_route *row = &iothub_rows[i];
        const struct http_route *route = &provisioning_device_routes[i];
        cr_expect_eq(route->context, row);
        cr_expect_eq(route->pattern, row->path);
        cr_expect(route->begin == iothub_begin && route->handle == iothub_handle,
                  "%s goes past the check of tokens", row->id);
        cr_expect_neq(row->right, 0u, "%s", row->id);
        cr_expect_eq(row->right & (row->right - 1), 0u, "%s", row->id);
        cr_expect_leq(route->body_limit_bytes, LIMIT_HTTP_BODY_BYTES);
        bool writes = strcmp(row->method, "GET") != 0 && strcmp(row->method, "DELETE") != 0;
        cr_expect(!writes || route->body_limit_bytes > 0, "%s", row->id);
        for (unsigned j = 0; j < i; j++)
            cr_expect(strcmp(row->path, iothub_rows[j].path) != 0 ||
                          strcmp(row->method, iothub_rows[j].method) != 0,
                      "%s is there twice", row->id);
    }
}

/* What an error of ours becomes has the same status, or is one of these. */
Test(iothub, errors) {
    static const struct {
        int err;
        enum iothub_error error;
    } cases[] = {
        {DG_ERR_MALFORMED, IOTHUB_ArgumentInvalid},
        {DG_ERR_INVALID, IOTHUB_ArgumentInvalid},
        {DG_ERR_BAD_CREDENTIALS, IOTHUB_IotHubUnauthorized},
        {DG_ERR_NOT_FOUND, IOTHUB_DeviceNotFound},
        {DG_ERR_NOT_CONNECTED, IOTHUB_DeviceNotOnline},
        {DG_ERR_EXISTS, IOTHUB_DeviceAlreadyExists},
        {DG_ERR_PRECONDITION, IOTHUB_PreconditionFailed},
        {DG_ERR_TOO_LARGE, IOTHUB_MessageTooLarge},
        {DG_ERR_LIMIT, IOTHUB_ThrottlingException},
        {DG_ERR_UNAVAILABLE, IOTHUB_ServiceUnavailable},
        {DG_ERR_BUSY, IOTHUB_ServiceUnavailable},
        {DG_ERR_TIMEOUT, IOTHUB_GatewayTimeout},
        {DG_ERR_INTERNAL, IOTHUB_ServerError},
        {DG_ERR_CORRUPT, IOTHUB_ServerError},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        cr_expect_eq(iothub_error_of(cases[i].err), cases[i].error, "%s",
                     dg_err_row(cases[i].err)->name);
    for (unsigned i = 0; i < IOTHUB_ERROR_COUNT; i++)
        cr_expect_eq(iothub_errors[i].code / 1000, iothub_errors[i].status, "%s",
                     iothub_errors[i].name);
}

Test(iothub, etags) {
    static const int64_t versions[] = {1, 255, 256, 123456789012345, INT64_MAX - 1};
    char etag[IOTHUB_ETAG_SIZE];
    for (size_t i = 0; i < COUNT_OF(versions); i++) {
        iothub_format_etag(versions[i], etag);
        cr_expect_eq(iothub_parse_etag(slice_from_string(etag)), versions[i], "%s", etag);
    }
    iothub_format_etag(1, etag);
    cr_expect_str_eq(etag, "AAAAAAAAAAE=");
    static const char *const others[] = {
        "", "x", "AAAA", "AAAAAAAAAAE", "AAAAAAAAAAA=", "AAAAAAAAAAEAAAAA", "//////////8="};
    for (size_t i = 0; i < COUNT_OF(others); i++)
        cr_expect_eq(iothub_parse_etag(slice_from_string(others[i])), INT64_MAX, "%s", others[i]);
}

Test(iothub, modes) {
    static const struct {
        const char *name, *nothing, *fits, *differs; /* what is answered when it is so */
    } cases[] = {
        {"create", "", "exists", "exists"},
        {"Update", "missing", "", ""},
        {"updateIfMatchETag", "missing", "", "precondition"},
        {"createOrUpdate", "", "", ""},
        {"CREATEORUPDATEIFMATCHETAG", "", "", "precondition"},
        {"Delete", "missing", "", ""},
        {"deleteIfMatchETag", "missing", "", "precondition"},
    };
    static const struct {
        const char *word;
        int err;
    } words[] = {{"", 0},
                 {"exists", DG_ERR_EXISTS},
                 {"missing", DG_ERR_NOT_FOUND},
                 {"precondition", DG_ERR_PRECONDITION}};
    struct iothub_device none = {.version = 0}, there = {.version = 7};
    struct etag_condition fits = etag_condition_of(7), differs = etag_condition_of(8),
                          any = etag_condition_of(ETAG_EXISTS);
    cr_expect_eq(COUNT_OF(cases), (size_t)IOTHUB_MODE_COUNT);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        const struct iothub_mode *mode = iothub_mode_find(cases[i].name);
        cr_assert_eq(mode, &iothub_modes[i], "%s", cases[i].name);
        int errs[3] = {iothub_mode_permits(mode, &none, &any),
                       iothub_mode_permits(mode, &there, &fits),
                       iothub_mode_permits(mode, &there, &differs)};
        const char *wanted[3] = {cases[i].nothing, cases[i].fits, cases[i].differs};
        for (unsigned j = 0; j < 3; j++)
            for (unsigned w = 0; w < COUNT_OF(words); w++)
                if (strcmp(words[w].word, wanted[j]) == 0)
                    cr_expect_eq(errs[j], words[w].err, "%s, case %u: %d", cases[i].name, j,
                                 errs[j]);
        cr_expect_eq(iothub_mode_permits(mode, &there, &any), errs[1], "%s", cases[i].name);
    }
    cr_expect_null(iothub_mode_find("updateTwin"));
    cr_expect_null(iothub_mode_find(NULL));
}

static int parse(const char *text, struct iothub_wish *ret_wish) {
    char detail[256] = "";
    json_t *object = json_loads(text, 0, NULL);
    cr_assert(object, "%s", text);
    int err = iothub_wish_parse(object, "deviceId", ret_wish, detail, sizeof(detail));
    cr_expect(err == 0 || (detail[0] && !strpbrk(detail, ";:")), "%s: %s", text, detail);
    ret_wish->id = ret_wish->reason = NULL; /* they were the object's */
    json_decref(object);
    return err;
}

#define KEY16 "AAAAAAAAAAAAAAAAAAAAAA=="
#define KEY15 "AAAAAAAAAAAAAAAAAAAA"

Test(iothub, wishes) {
    static const struct {
        const char *text;
        int err;
        enum iothub_authentication authentication;
    } cases[] = {
        {"{}", 0, IOTHUB_AUTHENTICATION_UNSAID},
        {"{\"authentication\":null}", 0, IOTHUB_AUTHENTICATION_UNSAID},
        {"{\"authentication\":{}}", 0, IOTHUB_AUTHENTICATION_SAS},
        {"{\"authentication\":{\"symmetricKey\":{\"primaryKey\":\"\",\"secondaryKey\":null}}}", 0,
         IOTHUB_AUTHENTICATION_SAS},
        {"{\"authentication\":{\"symmetricKey\":{\"primaryKey\":\"" KEY16 "\"}}}", 0,
         IOTHUB_AUTHENTICATION_SAS},
        {"{\"authentication\":{\"symmetricKey\":{\"primaryKey\":\"" KEY15 "\"}}}", DG_ERR_INVALID,
         0},
        {"{\"authentication\":{\"symmetricKey\":{\"primaryKey\":7}}}", DG_ERR_INVALID, 0},
        {"{\"authentication\":{\"type\":\"CertificateAuthority\"}}", 0,
         IOTHUB_AUTHENTICATION_AUTHORITY},
        {"{\"authentication\":{\"type\":\"none\"}}", 0, IOTHUB_AUTHENTICATION_NONE},
        {"{\"authentication\":{\"type\":\"x\"}}", DG_ERR_INVALID, 0},
        {"{\"status\":\"Disabled\",\"statusReason\":null}", 0, IOTHUB_AUTHENTICATION_UNSAID},
        {"{\"status\":true}", DG_ERR_INVALID, 0},
        {"{\"deviceId\":\"a b\"}", DG_ERR_INVALID, 0},
        {"{\"capabilities\":{\"iotEdge\":true}}", DG_ERR_INVALID, 0},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct iothub_wish wish;
        int err = parse(cases[i].text, &wish);
        cr_expect_eq(err, cases[i].err, "%s: %d", cases[i].text, err);
        if (err == 0)
            cr_expect_eq(wish.authentication, cases[i].authentication, "%s", cases[i].text);
    }
}

/* Keys that are not given stay; where there are none, they are made; others end with their kind. */
Test(iothub, keys) {
    struct iothub_device there = {.version = 7, .is_enabled = true};
    struct iothub_wish wish;
    bool has_new_keys = false;
    for (unsigned i = 0; i < 2; i++) {
        there.keys.keys[i].size_bytes = 32;
        memset(there.keys.keys[i].bytes, 'a' + (int)i, 32);
    }
    cr_expect_eq(parse("{\"authentication\":{}}", &wish), 0);
    cr_expect_eq(iothub_wish_complete(&wish, &there, &has_new_keys), 0);
    cr_expect(!has_new_keys && wish.status == IOTHUB_STATUS_ENABLED);
    cr_expect_eq(wish.keys.keys[1].bytes[0], 'b');
    cr_expect_eq(
        parse("{\"authentication\":{\"symmetricKey\":{\"primaryKey\":\"" KEY16 "\"}}}", &wish), 0);
    cr_expect_eq(iothub_wish_complete(&wish, &there, &has_new_keys), 0);
    cr_expect(has_new_keys);
    cr_expect_eq(wish.keys.keys[0].size_bytes, 16);
    cr_expect_eq(wish.keys.keys[1].bytes[0], 'b');
    cr_expect_eq(parse("{}", &wish), 0);
    cr_expect_eq(iothub_wish_complete(&wish, &there, &has_new_keys), 0);
    cr_expect(!has_new_keys && wish.authentication == IOTHUB_AUTHENTICATION_UNSAID);
    there = (struct iothub_device){.version = 0};
    cr_expect_eq(parse("{}", &wish), 0);
    cr_expect_eq(iothub_wish_complete(&wish, &there, &has_new_keys), 0);
    cr_expect(has_new_keys && wish.authentication == IOTHUB_AUTHENTICATION_SAS);
    cr_expect_eq(wish.keys.keys[0].size_bytes, 32);
    cr_expect_neq(memcmp(wish.keys.keys[0].bytes, wish.keys.keys[1].bytes, 32), 0);
    there = (struct iothub_device){.version = 7, .others = LIMIT_CREDENTIALS_PER_DEVICE};
    cr_expect_eq(parse("{\"authentication\":{}}", &wish), 0);
    cr_expect_eq(iothub_wish_complete(&wish, &there, &has_new_keys), DG_ERR_INVALID);
}
