/* Loading in layers: defaults, file, environment, overrides. */
#include "common/config.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config_internal.h"

enum { NAME_BYTES = 80, SECRET_FILE_BYTES = 8192 };
static const char ENVIRONMENT_PREFIX[] = "DURAGATE_CFG_";
static const char FILE_SUFFIX[] = "_file";

int config_refuse(struct config_layer *layer, const char *format, ...) {
    char sentence[CONFIG_ERROR_SIZE];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
    char line[16] = "";
    if (layer->line > 0)
        snprintf(line, sizeof(line), ":%u", layer->line);
    snprintf(layer->error, CONFIG_ERROR_SIZE, "%.200s%s: %.280s", layer->source, line, sentence);
    return DG_ERR_INVALID;
}

/* "a, b, c": the keys of a section, or all sections when it is NULL. */
static void list_names(const char *section, char *ret_list, size_t size) {
    size_t used = 0;
    ret_list[0] = '\0';
    for (unsigned i = 0; i < CONFIG_KEY_COUNT && used < size; i++) {
        const struct config_key *key = &config_keys[i];
        if (section ? strcmp(key->section, section) != 0 : !config_is_section_start(i))
            continue;
        used += (size_t)snprintf(ret_list + used, size - used, "%s%s", used > 0 ? ", " : "",
                                 section ? key->key : key->section);
    }
}

int config_check_section(struct config_layer *layer, const char *section) {
    if (config_section_exists(section))
        return 0;
    const char *meant = config_section_suggest(section);
    if (meant)
        return config_refuse(layer, "%.60s: unknown section; did you mean %s?", section, meant);
    char sections[160];
    list_names(NULL, sections, sizeof(sections));
    return config_refuse(layer, "%.60s: unknown section; allowed: %s", section, sections);
}

static int refuse_key(struct config_layer *layer, const char *section, const char *key) {
    const struct config_key *meant = config_key_suggest(section, key);
    if (meant)
        return config_refuse(layer, "%s.%.60s: unknown key; did you mean %s?", section, key,
                             meant->name);
    char keys[160];
    list_names(section, keys, sizeof(keys));
    return config_refuse(layer, "%s.%.60s: unknown key; allowed: %s", section, key, keys);
}

static int set_value(struct config_layer *layer, const struct config_key *row, const char *text) {
    char why[CONFIG_WHY_SIZE];
    if (config_value_set(layer->config, row, text, why))
        return config_refuse(layer, "%s: %s", row->name, why);
    return 0;
}

/* Reads at most size bytes; the count, or -1. */
static ssize_t read_file(const char *path, char *ret_data, size_t size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return -1;
    size_t used = 0;
    ssize_t got = 0;
    while (used < size && (got = read(fd, ret_data + used, size - used)) > 0)
        used += (size_t)got;
    close(fd);
    return got < 0 ? -1 : (ssize_t)used;
}

static int set_secret_from_file(struct config_layer *layer, const struct config_key *row,
                                const char *path) {
    char data[SECRET_FILE_BYTES];
    ssize_t size = read_file(path, data, sizeof(data) - 1);
    if (size < 0)
        return config_refuse(layer, "%s_file: cannot read %.160s: %m", row->name, path);
    if (size > 0 && data[size - 1] == '\n')
        size--;
    if (size > 0 && data[size - 1] == '\r')
        size--;
    data[size] = '\0';
    int err = strlen(data) == (size_t)size
                  ? set_value(layer, row, data)
                  : config_refuse(layer, "%s_file: %.160s holds a NUL byte", row->name, path);
    explicit_bzero(data, sizeof(data));
    return err;
}

/* The secret whose `<key>_file` this is, or NULL. */
static const struct config_key *find_secret_of_file(const char *section, const char *key) {
    size_t size = strlen(key), suffix = strlen(FILE_SUFFIX);
    if (size <= suffix || size >= NAME_BYTES || strcmp(key + size - suffix, FILE_SUFFIX) != 0)
        return NULL;
    char name[NAME_BYTES];
    memcpy(name, key, size - suffix);
    name[size - suffix] = '\0';
    const struct config_key *row = config_key_find(section, name);
    return row && row->flags & CONFIG_FLAG_SECRET ? row : NULL;
}

int config_assign(struct config_layer *layer, const char *section, const char *key,
                  const char *text) {
    int err = config_check_section(layer, section);
    if (err)
        return err;
    const struct config_key *direct = config_key_find(section, key);
    const struct config_key *row = direct ? direct : find_secret_of_file(section, key);
    if (row == NULL)
        return refuse_key(layer, section, key);
    bool *seen = &layer->seen[row - config_keys];
    if (*seen)
        return config_refuse(layer, "%s: given twice; allowed: once", row->name);
    *seen = true;
    return direct ? set_value(layer, row, text) : set_secret_from_file(layer, row, text);
}

static int apply_defaults(struct config_layer *layer) {
    layer->source = "default";
    for (unsigned i = 0; i < CONFIG_KEY_COUNT; i++) {
        int err = set_value(layer, &config_keys[i], config_keys[i].default_text);
        if (err)
            return err;
    }
    return 0;
}

/* Splits SECTION<separator>KEY in place; false when a part is missing or too long. */
static bool split_name(char *name, const char *separator, char **ret_key) {
    char *at = strstr(name, separator);
    if (at == NULL || at == name)
        return false;
    *at = '\0';
    *ret_key = at + strlen(separator);
    return **ret_key != '\0';
}

/* Lower-cases an upper-case name; false when it is not upper case. */
static bool fold_name(char *name) {
    for (; *name; name++) {
        if (islower((unsigned char)*name))
            return false;
        *name = (char)tolower((unsigned char)*name);
    }
    return true;
}

/* Copies the name before '='; false when it is too long to be one of ours. */
static bool copy_name(const char *pair, char *ret_name) {
    size_t size = strcspn(pair, "=");
    if (size >= NAME_BYTES || pair[size] == '\0')
        return false;
    memcpy(ret_name, pair, size);
    ret_name[size] = '\0';
    return true;
}

static int apply_variable(struct config_layer *layer, const char *pair) {
    char source[NAME_BYTES + 24], name[NAME_BYTES], *key;
    snprintf(source, sizeof(source), "environment variable %.*s", (int)strcspn(pair, "="), pair);
    layer->source = source;
    if (!copy_name(pair, name) || !fold_name(name) ||
        !split_name(name + strlen(ENVIRONMENT_PREFIX), "__", &key))
        return config_refuse(layer, "unknown name; allowed: %s<SECTION>__<KEY>, upper case",
                             ENVIRONMENT_PREFIX);
    return config_assign(layer, name + strlen(ENVIRONMENT_PREFIX), key, strchr(pair, '=') + 1);
}

static int apply_environment(struct config_layer *layer, char *const *environment) {
    for (; environment && *environment; environment++) {
        if (strncmp(*environment, ENVIRONMENT_PREFIX, strlen(ENVIRONMENT_PREFIX)) != 0)
            continue;
        int err = apply_variable(layer, *environment);
        if (err)
            return err;
    }
    return 0;
}

static int apply_overrides(struct config_layer *layer, const char *const *overrides) {
    layer->source = "option";
    for (; overrides && *overrides; overrides++) {
        char name[NAME_BYTES], *key;
        if (!copy_name(*overrides, name) || !split_name(name, ".", &key))
            return config_refuse(layer, "%.60s: not an assignment; allowed: section.key=value",
                                 *overrides);
        int err = config_assign(layer, name, key, strchr(*overrides, '=') + 1);
        if (err)
            return err;
    }
    return 0;
}

static int load_layers(struct config *config, const char *path, char *const *environment,
                       const char *const *overrides, char *ret_error) {
    struct config_layer defaults = {.config = config, .error = ret_error};
    struct config_layer file = {.config = config, .source = path, .error = ret_error};
    struct config_layer variables = {.config = config, .error = ret_error};
    struct config_layer flags = {.config = config, .error = ret_error};
    int err = apply_defaults(&defaults);
    if (!err && path)
        err = config_apply_file(&file);
    if (!err)
        err = apply_environment(&variables, environment);
    return err ? err : apply_overrides(&flags, overrides);
}

int config_load(const char *path, char *const *environment, const char *const *overrides,
                struct config **ret_config, char *ret_error) {
    struct config *config = calloc(1, sizeof(*config));
    if (config == NULL) {
        snprintf(ret_error, CONFIG_ERROR_SIZE, "%s", dg_err_text(DG_ERR_NO_MEMORY));
        return DG_ERR_INVALID;
    }
    int err = load_layers(config, path, environment, overrides, ret_error);
    if (err) {
        config_free(config);
        return err;
    }
    *ret_config = config;
    return 0;
}

void config_free(struct config *config) {
    if (config == NULL)
        return;
    for (unsigned i = 0; i < CONFIG_KEY_COUNT; i++) {
        if (config_keys[i].type != CONFIG_TYPE_STRING)
            continue;
        char **text = (char **)(void *)((char *)config + config_keys[i].offset);
        if (*text && config_keys[i].flags & CONFIG_FLAG_SECRET)
            explicit_bzero(*text, strlen(*text));
        free(*text);
    }
    free(config);
}

bool config_is_reloadable(const struct config *before, const struct config *after,
                          const char **ret_key) {
    for (unsigned i = 0; i < CONFIG_KEY_COUNT; i++) {
        char old_scratch[CONFIG_TEXT_SIZE], new_scratch[CONFIG_TEXT_SIZE];
        const struct config_key *key = &config_keys[i];
        if (key->flags & CONFIG_FLAG_RELOAD)
            continue;
        if (strcmp(config_value_text(before, key, old_scratch),
                   config_value_text(after, key, new_scratch)) == 0)
            continue;
        *ret_key = key->name;
        return false;
    }
    return true;
}
