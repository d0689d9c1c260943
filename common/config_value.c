/* One configuration value: from text, checked against its row, and back to text. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_internal.h"
#include "common/host_map.h"
#include "common/networks.h"
#include "common/utf8.h"

struct unit {
    const char *name;
    int64_t factor;
};

/* Largest first: a number is printed in the first unit that divides it. */
static const struct unit size_units[] = {
    {"TiB", 1ll << 40}, {"GiB", 1ll << 30}, {"MiB", 1ll << 20}, {"KiB", 1ll << 10}, {"", 1}, {0}};
static const struct unit duration_units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000},
                                             {"s", 1000},     {"ms", 1},      {0}};
static const struct unit no_units[] = {{"", 1}, {0}};

struct type_row {
    const struct unit *units;
    const char *spelling; /* what a message says is allowed */
};

static const struct type_row types[] = {
    [CONFIG_TYPE_STRING] = {no_units, "a text"},
    [CONFIG_TYPE_SIZE] = {size_units, "a size such as 1000000, 64KiB, 256MiB or 1GiB"},
    [CONFIG_TYPE_DURATION_MS] = {duration_units, "a duration such as 500ms, 30s, 5m, 1h or 7d"},
    [CONFIG_TYPE_NUMBER] = {no_units, "a whole number"},
    [CONFIG_TYPE_BOOL] = {no_units, "true or false"},
};

static const struct {
    const char *name;
    const char *choices;
} choice_rows[] = {
    {"server.log_level", "debug, info, warn, error"},
    {"server.log_format", "text, json"},
    {"storage.compression", "none, lz4, zstd"},
};

const char *config_key_choices(const struct config_key *key) {
    for (size_t i = 0; i < sizeof(choice_rows) / sizeof(choice_rows[0]); i++)
        if (strcmp(choice_rows[i].name, key->name) == 0)
            return choice_rows[i].choices;
    return NULL;
}

/* Texts that have a form of their own. */
static const struct {
    const char *name;
    bool (*is_valid)(const char *text);
    const char *allowed;
} form_rows[] = {
    {"server.proxy_sources", networks_are_valid,
     "addresses and networks such as 192.0.2.7, 10.0.0.0/8, 2001:db8::/32, comma separated"},
    {"iothub.hosts", host_map_is_valid,
     "host=tenant, comma separated, without ports, no host twice: hub.example.com=acme"},
};

/* Rows are constant, so the compiler checks nothing here: offset and type come from one row. */
static void *member(struct config *config, const struct config_key *key) {
    return (char *)config + key->offset;
}

static const void *member_of_const(const struct config *config, const struct config_key *key) {
    return (const char *)config + key->offset;
}

static bool is_choice(const char *choices, const char *text) {
    size_t size = strlen(text);
    for (const char *at = choices; at; at = strchr(at, ' ')) {
        at += *at == ' ';
        if (size > 0 && strncmp(at, text, size) == 0 && (at[size] == ',' || at[size] == '\0'))
            return true;
    }
    return false;
}

static bool has_control(const char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return true;
    return false;
}

static int refuse(char *ret_why, const struct config_key *key, const char *text,
                  const char *problem, const char *allowed) {
    bool quotable = !(key->flags & CONFIG_FLAG_SECRET) && !has_control(text) &&
                    utf8_is_valid(text, strlen(text));
    if (quotable)
        snprintf(ret_why, CONFIG_WHY_SIZE, "\"%.60s\" %s; allowed: %.120s", text, problem, allowed);
    else
        snprintf(ret_why, CONFIG_WHY_SIZE, "the value %s; allowed: %.120s", problem, allowed);
    return DG_ERR_INVALID;
}

static int check_form(const struct config_key *key, const char *text, char *ret_why) {
    for (size_t i = 0; i < sizeof(form_rows) / sizeof(form_rows[0]); i++)
        if (strcmp(form_rows[i].name, key->name) == 0 && !form_rows[i].is_valid(text))
            return refuse(ret_why, key, text, "is not valid", form_rows[i].allowed);
    return 0;
}

static int set_string(struct config *config, const struct config_key *key, const char *text,
                      char *ret_why) {
    size_t size = strlen(text);
    char allowed[CONFIG_TEXT_SIZE];
    snprintf(allowed, sizeof(allowed), "%" PRId64 " to %" PRId64 " bytes", key->minimum,
             key->maximum);
    if (has_control(text) || !utf8_is_valid(text, size))
        return refuse(ret_why, key, text, "has control characters or is not UTF-8",
                      "UTF-8 text on one line");
    if ((int64_t)size < key->minimum)
        return refuse(ret_why, key, text, size == 0 ? "is empty" : "is too short", allowed);
    if ((int64_t)size > key->maximum)
        return refuse(ret_why, key, text, "is too long", allowed);
    const char *choices = config_key_choices(key);
    if (choices && !is_choice(choices, text))
        return refuse(ret_why, key, text, "is not known", choices);
    if (check_form(key, text, ret_why) < 0)
        return DG_ERR_INVALID;
    char *copy = strdup(text);
    if (copy == NULL) {
        snprintf(ret_why, CONFIG_WHY_SIZE, "%s", dg_err_text(DG_ERR_NO_MEMORY));
        return DG_ERR_INVALID;
    }
    char **value = member(config, key);
    free(*value);
    *value = copy;
    return 0;
}

/* Digits and one of the units; a bare 0 needs none. */
static bool parse_number(const struct unit *units, const char *text, int64_t *ret_number) {
    if (*text < '0' || *text > '9')
        return false;
    char *rest;
    errno = 0;
    long long number = strtoll(text, &rest, 10);
    if (errno != 0)
        return false;
    if (number == 0 && *rest == '\0') {
        *ret_number = 0;
        return true;
    }
    for (; units->name; units++)
        if (strcmp(rest, units->name) == 0)
            return !__builtin_mul_overflow((int64_t)number, units->factor, ret_number);
    return false;
}

static bool parse_bool(const char *text, int64_t *ret_number) {
    *ret_number = strcmp(text, "true") == 0;
    return *ret_number || strcmp(text, "false") == 0;
}

static void store_number(struct config *config, const struct config_key *key, int64_t number) {
    void *value = member(config, key);
    if (key->type == CONFIG_TYPE_BOOL)
        *(bool *)value = number != 0;
    else if (key->type == CONFIG_TYPE_NUMBER)
        *(int64_t *)value = number;
    else
        *(uint64_t *)value = (uint64_t)number;
}

int config_value_set(struct config *config, const struct config_key *key, const char *text,
                     char *ret_why) {
    if (key->type == CONFIG_TYPE_STRING)
        return set_string(config, key, text, ret_why);
    const struct type_row *type = &types[key->type];
    int64_t number;
    bool parsed = key->type == CONFIG_TYPE_BOOL ? parse_bool(text, &number)
                                                : parse_number(type->units, text, &number);
    if (!parsed)
        return refuse(ret_why, key, text, "is not valid", type->spelling);
    if (number < key->minimum || number > key->maximum) {
        char minimum[CONFIG_TEXT_SIZE], maximum[CONFIG_TEXT_SIZE],
            allowed[2 * CONFIG_TEXT_SIZE + 4];
        config_format_number(key->type, key->minimum, minimum);
        config_format_number(key->type, key->maximum, maximum);
        snprintf(allowed, sizeof(allowed), "%s to %s", minimum, maximum);
        return refuse(ret_why, key, text, "is out of range", allowed);
    }
    store_number(config, key, number);
    return 0;
}

void config_format_number(enum config_type type, int64_t number, char *ret_text) {
    const struct unit *unit = types[type].units;
    while (number != 0 && number % unit->factor != 0)
        unit++;
    snprintf(ret_text, CONFIG_TEXT_SIZE, "%" PRId64 "%s", number / unit->factor,
             number == 0 ? "" : unit->name);
}

const char *config_value_text(const struct config *config, const struct config_key *key,
                              char *scratch) {
    const void *value = member_of_const(config, key);
    if (key->type == CONFIG_TYPE_STRING)
        return *(char *const *)value;
    if (key->type == CONFIG_TYPE_BOOL)
        return *(const bool *)value ? "true" : "false";
    int64_t number;
    memcpy(&number, value, sizeof(number));
    config_format_number(key->type, number, scratch);
    return scratch;
}
