#include "provisioning/members.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/assert.h"
#include "common/clock.h"
#include "common/device_id.h"
#include "common/limits.h"
#include "provisioning/json.h"

enum { POINTER_SIZE = 256, TAG_NAME_BYTES_MAX = 128 };

/* Rights are kept beside roles, in bits of their own. */
static const struct {
    uint32_t role;
    const char *name;
} role_names[] = {
    {REGISTRY_ROLE_ADMIN, "admin"},
    {REGISTRY_ROLE_OPERATOR, "operator"},
    {REGISTRY_ROLE_READER, "reader"},
    {REGISTRY_ROLE_CONSUMER, "consumer"},
    {REGISTRY_ROLE_AUDITOR, "auditor"},
    {REGISTRY_ROLE_COMMANDER, "commander"},
    {REGISTRY_RIGHT_REGISTRY_READ, "registry_read"},
    {REGISTRY_RIGHT_REGISTRY_WRITE, "registry_write"},
    {REGISTRY_RIGHT_SERVICE_CONNECT, "service_connect"},
    {REGISTRY_RIGHT_DEVICE_CONNECT, "device_connect"},
};
enum { ROLE_COUNT = sizeof(role_names) / sizeof(role_names[0]) };

/* What is being checked, and where the sentence about it goes. */
struct check {
    const struct member *member;
    char pointer[POINTER_SIZE];
    char *detail;
    size_t detail_size;
};

static int refuse(struct check *check, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static int refuse(struct check *check, const char *format, ...) {
    int size = snprintf(check->detail, check->detail_size, "%s: ", check->pointer);
    if (size > 0 && (size_t)size < check->detail_size) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(check->detail + size, check->detail_size - (size_t)size, format, arguments);
        va_end(arguments);
    }
    return DG_ERR_INVALID;
}

/* ---- names --------------------------------------------------------------------------------------
 */

static bool is_alphanumeric(uint8_t c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool tenant_is_valid(struct slice name) {
    if (name.size == 0 || name.size > LIMIT_TENANT_BYTES || name.data[0] == '-' ||
        name.data[name.size - 1] == '-')
        return false;
    for (size_t i = 0; i < name.size; i++) {
        uint8_t c = name.data[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-')
            return false;
    }
    return true;
}

bool name_is_valid(enum name_kind kind, struct slice name) {
    if (kind == NAME_TENANT)
        return tenant_is_valid(name);
    if (kind == NAME_DEVICE)
        return device_id_is_native(name);
    if (kind == NAME_HUB_DEVICE)
        return device_id_is_hub(name);
    if (name.size == 0 || name.size > LIMIT_API_KEY_ID_BYTES)
        return false;
    /* As a segment of a path these two mean something else (RFC 3986 5.2.4). */
    if (slice_equals_string(name, ".") || slice_equals_string(name, ".."))
        return false;
    for (size_t i = 0; i < name.size; i++)
        if (!is_alphanumeric(name.data[i]) && (!name.data[i] || !strchr("._-", name.data[i])))
            return false;
    return true;
}

const char *name_rule(enum name_kind kind) {
    static const char *const rules[] = {
        [NAME_TENANT] = "1 to 63 of a-z 0-9 -, not beginning or ending with -",
        [NAME_DEVICE] = "1 to 128 of A-Z a-z 0-9 . _ : -",
        [NAME_HUB_DEVICE] = "1 to 128 of A-Z a-z 0-9 . _ : - + % # * ? ! ( ) , = @ $ '",
        [NAME_OTHER] = "1 to 64 of A-Z a-z 0-9 . _ -",
    };
    return rules[kind];
}

/* ---- roles --------------------------------------------------------------------------------------
 */

static uint32_t role_by_name(const char *name) {
    for (unsigned i = 0; i < ROLE_COUNT; i++)
        if (name && strcmp(role_names[i].name, name) == 0)
            return role_names[i].role;
    return 0;
}

uint32_t member_roles(const json_t *names) {
    uint32_t roles = 0;
    size_t index;
    json_t *name;
    json_array_foreach(names, index, name) roles |= role_by_name(json_string_value(name));
    return roles;
}

void roles_print(uint32_t roles, char *ret_text, size_t size) {
    size_t at = 0;
    ret_text[0] = '\0';
    for (unsigned i = 0; i < ROLE_COUNT; i++)
        if ((roles & role_names[i].role) && at < size)
            at += (size_t)snprintf(ret_text + at, size - at, "%s%s", at ? ", " : "",
                                   role_names[i].name);
}

/* ---- checks of one value ------------------------------------------------------------------------
 */

static int check_boolean(struct check *check, const json_t *value) {
    return json_is_boolean(value) ? 0 : refuse(check, "must be true or false");
}

static int check_integer(struct check *check, const json_t *value) {
    const struct member *member = check->member;
    if (!json_is_integer(value) || json_integer_value(value) < member->minimum ||
        json_integer_value(value) > member->maximum)
        return refuse(check, "must be an integer from %" PRId64 " to %" PRId64, member->minimum,
                      member->maximum);
    return 0;
}

static int check_text(struct check *check, const json_t *value) {
    const struct member *member = check->member;
    if (!json_is_string(value))
        return refuse(check, "must be a string");
    int64_t size = (int64_t)json_string_length(value);
    if (size < member->minimum || size > member->maximum)
        return refuse(check, "must have %" PRId64 " to %" PRId64 " bytes, has %" PRId64,
                      member->minimum, member->maximum, size);
    return 0;
}

static int check_name(struct check *check, const json_t *value) {
    enum name_kind kind = (enum name_kind)check->member->minimum;
    struct slice name = slice_make(json_string_value(value), json_string_length(value));
    if (!json_is_string(value) || !name_is_valid(kind, name))
        return refuse(check, "must be a string of %s", name_rule(kind));
    return 0;
}

static int parse_time(const json_t *value, int64_t *ret_ms) {
    return json_is_string(value)
               ? clock_parse_rfc3339(json_string_value(value), json_string_length(value), ret_ms)
               : DG_ERR_INVALID;
}

static int check_time(struct check *check, const json_t *value) {
    int64_t ms;
    if (!json_is_null(value) && parse_time(value, &ms) < 0)
        return refuse(check, "must be a time such as 2026-01-31T12:00:00Z (RFC 3339)");
    return 0;
}

static int check_object_size(struct check *check, const json_t *value) {
    char *text = json_print_exact(value);
    if (!text)
        return DG_ERR_NO_MEMORY;
    int64_t size = (int64_t)strlen(text), maximum = check->member->maximum;
    free(text);
    return size <= maximum
               ? 0
               : refuse(check, "must have at most %" PRId64 " bytes as JSON, has %" PRId64, maximum,
                        size);
}

static bool is_listed_before(const json_t *list, size_t index) {
    const char *name = json_string_value(json_array_get(list, index));
    for (size_t i = 0; i < index; i++)
        if (strcmp(json_string_value(json_array_get(list, i)), name) == 0)
            return true;
    return false;
}

static int check_names(struct check *check, const json_t *value) {
    const struct member *member = check->member;
    enum name_kind kind = (enum name_kind)member->minimum;
    if (!json_is_array(value) || json_array_size(value) > (size_t)member->maximum)
        return refuse(check, "must be a list of at most %" PRId64 " names", member->maximum);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *item = json_array_get(value, i);
        struct slice name = slice_make(json_string_value(item), json_string_length(item));
        if (!json_is_string(item) || !name_is_valid(kind, name))
            return refuse(check, "each must be a string of %s", name_rule(kind));
        if (is_listed_before(value, i))
            return refuse(check, "names %s twice", json_string_value(item));
    }
    return 0;
}

static int check_list(struct check *check, const json_t *value) {
    int64_t maximum = check->member->maximum;
    if (!json_is_array(value) || json_array_size(value) > (size_t)maximum)
        return refuse(check, "must be a list of at most %" PRId64, maximum);
    return 0;
}

static int check_value(struct check *check, const json_t *value) {
    return 0;
}

static int check_metadata(struct check *check, const json_t *value) {
    if (!json_is_object(value))
        return refuse(check, "must be an object");
    return check_object_size(check, value);
}

static int check_tags(struct check *check, const json_t *value) {
    const char *name;
    json_t *tag;
    if (!json_is_object(value))
        return refuse(check, "must be an object of strings");
    size_t pointer_end = strlen(check->pointer);
    json_object_foreach((json_t *)(uintptr_t)value, name, tag) {
        json_pointer_append(check->pointer, sizeof(check->pointer), name);
        if (!*name || strlen(name) > TAG_NAME_BYTES_MAX)
            return refuse(check, "a name has 1 to %d bytes here", TAG_NAME_BYTES_MAX);
        if (!json_is_string(tag))
            return refuse(check, "must be a string");
        check->pointer[pointer_end] = '\0';
    }
    return check_object_size(check, value);
}

static int check_names_of(struct check *check, const json_t *value, uint32_t allowed) {
    char all[128];
    size_t index;
    json_t *name;
    roles_print(allowed, all, sizeof(all));
    if (!json_is_array(value) || json_array_size(value) == 0)
        return refuse(check, "must be a list of at least one of %s", all);
    json_array_foreach(value, index, name) {
        if ((role_by_name(json_string_value(name)) & allowed) == 0) {
            char number[24];
            snprintf(number, sizeof(number), "%zu", index);
            json_pointer_append(check->pointer, sizeof(check->pointer), number);
            return refuse(check, "must be one of %s", all);
        }
    }
    return 0;
}

enum { RIGHT_BITS = -REGISTRY_RIGHT_REGISTRY_READ }; /* from the first of them on */

static int check_roles(struct check *check, const json_t *value) {
    return check_names_of(check, value, ~(uint32_t)RIGHT_BITS);
}

static int check_rights(struct check *check, const json_t *value) {
    return check_names_of(check, value, (uint32_t)RIGHT_BITS);
}

static int check_read_only(struct check *check, const json_t *value) {
    return refuse(check, "is set by the server; leave it out");
}

static int (*const checks[])(struct check *check, const json_t *value) = {
    [MEMBER_BOOLEAN] = check_boolean,     [MEMBER_INTEGER] = check_integer,
    [MEMBER_TEXT] = check_text,           [MEMBER_NAME] = check_name,
    [MEMBER_TIME] = check_time,           [MEMBER_NAMES] = check_names,
    [MEMBER_LIST] = check_list,           [MEMBER_METADATA] = check_metadata,
    [MEMBER_TAGS] = check_tags,           [MEMBER_ROLES] = check_roles,
    [MEMBER_READ_ONLY] = check_read_only, [MEMBER_VALUE] = check_value,
    [MEMBER_RIGHTS] = check_rights,
};

/* ---- whole objects ------------------------------------------------------------------------------
 */

static const struct member *find_member(const struct member *members, const char *name) {
    for (; members->name; members++)
        if (strcmp(members->name, name) == 0)
            return members;
    return NULL;
}

static int refuse_unknown(struct check *check, const struct member *members) {
    char allowed[256] = "";
    size_t at = 0;
    for (; members->name; members++)
        if (members->kind != MEMBER_READ_ONLY && at < sizeof(allowed))
            at += (size_t)snprintf(allowed + at, sizeof(allowed) - at, "%s%s", at ? ", " : "",
                                   members->name);
    return refuse(check, "no such member here; allowed: %s", allowed);
}

static int check_required(struct check *check, const struct member *members, const json_t *object) {
    for (; members->name; members++) {
        if (!members->required || json_object_get(object, members->name))
            continue;
        check->pointer[0] = '\0';
        json_pointer_append(check->pointer, sizeof(check->pointer), members->name);
        return refuse(check, "is required");
    }
    return 0;
}

int members_check(const struct member *members, const json_t *object, char *ret_detail,
                  size_t detail_size) {
    struct check check = {.detail = ret_detail, .detail_size = detail_size};
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, name, value) {
        check.pointer[0] = '\0';
        json_pointer_append(check.pointer, sizeof(check.pointer), name);
        check.member = find_member(members, name);
        if (!check.member)
            return refuse_unknown(&check, members);
        int err = checks[check.member->kind](&check, value);
        if (err < 0)
            return err;
    }
    return check_required(&check, members, object);
}

static bool has_null(const struct member *member) {
    return !member->required && member->kind != MEMBER_BOOLEAN && member->kind != MEMBER_INTEGER &&
           member->kind != MEMBER_READ_ONLY;
}

/* A null removes the member, and what is not there takes its default: enabled would be true. */
int members_check_patch(const struct member *members, const json_t *patch, char *ret_detail,
                        size_t detail_size) {
    struct check check = {.detail = ret_detail, .detail_size = detail_size};
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)patch, name, value) {
        check.pointer[0] = '\0';
        json_pointer_append(check.pointer, sizeof(check.pointer), name);
        check.member = find_member(members, name);
        if (!check.member)
            return refuse_unknown(&check, members);
        if (!json_is_null(value) || has_null(check.member))
            continue;
        if (check.member->kind == MEMBER_READ_ONLY)
            return check_read_only(&check, value);
        return refuse(&check, "cannot be null");
    }
    return 0;
}

int members_check_validity(const json_t *object, char *ret_detail, size_t detail_size) {
    int64_t from, to;
    if (parse_time(json_object_get(object, "not_before"), &from) < 0 ||
        parse_time(json_object_get(object, "not_after"), &to) < 0 || from < to)
        return 0;
    snprintf(ret_detail, detail_size, "/not_after: must be later than /not_before");
    return DG_ERR_INVALID;
}

json_t *members_select_writable(const struct member *members, const json_t *object) {
    json_t *selected = json_object();
    for (; selected && members->name; members++) {
        json_t *value = json_object_get(object, members->name);
        if (members->kind == MEMBER_READ_ONLY || !value || json_is_null(value))
            continue;
        if (json_object_set(selected, members->name, value) != 0) {
            json_decref(selected);
            return NULL;
        }
    }
    return selected;
}

/* ---- parameters ---------------------------------------------------------------------------------
 */

static int bind_text(struct registry_request *request, const char *text) {
    return registry_request_add(request, text ? slice_from_string(text) : slice_make(NULL, 0));
}

static int bind_object(struct registry_request *request, const json_t *value) {
    char *text = json_print_exact(value);
    int err = text ? bind_text(request, text) : DG_ERR_NO_MEMORY;
    free(text);
    return err;
}

/* A PostgreSQL array; names need no quoting. */
static int bind_names(struct registry_request *request, const json_t *names) {
    char text[2 + LIMIT_VIA_GATEWAYS * (LIMIT_DEVICE_ID_BYTES + 1)] = "{";
    size_t size = 1;
    dg_assert(json_array_size(names) <= LIMIT_VIA_GATEWAYS);
    for (size_t i = 0; i < json_array_size(names); i++)
        size += (size_t)snprintf(text + size, sizeof(text) - size, "%s%s", i ? "," : "",
                                 json_string_value(json_array_get(names, i)));
    text[size++] = '}';
    return registry_request_add(request, slice_make(text, size));
}

static int bind_number(struct registry_request *request, int64_t number) {
    char text[24];
    snprintf(text, sizeof(text), "%" PRId64, number);
    return bind_text(request, text);
}

static int bind_time(struct registry_request *request, const json_t *value) {
    char text[CLOCK_RFC3339_SIZE];
    int64_t ms;
    if (parse_time(value, &ms) < 0)
        return bind_text(request, NULL);
    clock_format_rfc3339(ms, text);
    return registry_request_add(request, slice_make(text, sizeof(text)));
}

int member_bind(const struct member *member, const json_t *object,
                struct registry_request *request) {
    const json_t *value = json_object_get(object, member->name);
    if (!value)
        return bind_text(request, member->fallback);
    switch (member->kind) {
    case MEMBER_BOOLEAN:
        return bind_text(request, json_is_true(value) ? "true" : "false");
    case MEMBER_INTEGER:
        return bind_number(request, json_integer_value(value));
    case MEMBER_ROLES:
    case MEMBER_RIGHTS:
        return bind_number(request, member_roles(value));
    case MEMBER_TIME:
        return bind_time(request, value);
    case MEMBER_NAMES:
        return bind_names(request, value);
    case MEMBER_LIST:
    case MEMBER_METADATA:
    case MEMBER_TAGS:
    case MEMBER_VALUE:
        return bind_object(request, value);
    case MEMBER_TEXT:
    case MEMBER_NAME:
    case MEMBER_READ_ONLY:
        break;
    }
    return bind_text(request, json_string_value(value));
}

int members_bind(const struct member *members, const json_t *object,
                 struct registry_request *request) {
    int err = 0;
    for (; err == 0 && members->name; members++)
        if (members->kind != MEMBER_READ_ONLY)
            err = member_bind(members, object, request);
    return err;
}
