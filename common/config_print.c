/* The effective configuration as YAML, and the reference page as Markdown. */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/config_internal.h"

enum { PAGE_BYTES = 1024 * 1024 };

__attribute__((format(printf, 2, 3))) static int put(struct buffer *out, const char *format, ...) {
    char *text;
    va_list arguments;
    va_start(arguments, format);
    int size = vasprintf(&text, format, arguments);
    va_end(arguments);
    if (size < 0)
        return DG_ERR_NO_MEMORY;
    int err = buffer_append(out, text, (size_t)size, buffer_size(out) + PAGE_BYTES);
    free(text);
    return err;
}

/* A double-quoted YAML scalar. Values are UTF-8 without control characters already. */
static int put_quoted(struct buffer *out, const char *text) {
    int err = put(out, "\"");
    for (; !err && *text; text++)
        err = put(out, *text == '"' || *text == '\\' ? "\\%c" : "%c", *text);
    return err ? err : put(out, "\"");
}

static int put_value(struct buffer *out, const struct config *config,
                     const struct config_key *key) {
    char scratch[CONFIG_TEXT_SIZE];
    const char *text = config_value_text(config, key, scratch);
    if (key->flags & CONFIG_FLAG_SECRET && *text != '\0')
        text = "(redacted)";
    int err = put(out, "  %s: ", key->key);
    if (!err)
        err = key->type == CONFIG_TYPE_STRING ? put_quoted(out, text) : put(out, "%s", text);
    return err ? err : put(out, "\n");
}

int config_print(const struct config *config, struct buffer *out) {
    int err = 0;
    for (unsigned i = 0; !err && i < CONFIG_KEY_COUNT; i++) {
        if (config_is_section_start(i))
            err = put(out, "%s:\n", config_keys[i].section);
        if (!err)
            err = put_value(out, config, &config_keys[i]);
    }
    return err;
}

static const char *const type_names[] = {
    [CONFIG_TYPE_STRING] = "text",          [CONFIG_TYPE_SIZE] = "size",
    [CONFIG_TYPE_DURATION_MS] = "duration", [CONFIG_TYPE_NUMBER] = "number",
    [CONFIG_TYPE_BOOL] = "boolean",
};

static int put_allowed(struct buffer *out, const struct config_key *key) {
    char minimum[CONFIG_TEXT_SIZE], maximum[CONFIG_TEXT_SIZE];
    if (config_key_choices(key))
        return put(out, " %s |", config_key_choices(key));
    if (key->type == CONFIG_TYPE_BOOL)
        return put(out, " true, false |");
    config_format_number(key->type, key->minimum, minimum);
    config_format_number(key->type, key->maximum, maximum);
    return put(out, " %s to %s%s |", minimum, maximum,
               key->type == CONFIG_TYPE_STRING ? " bytes" : "");
}

static int put_environment_name(struct buffer *out, const struct config_key *key) {
    int err = put(out, " `DURAGATE_CFG_");
    for (const char *at = key->name; !err && *at; at++)
        err = *at == '.' ? put(out, "__") : put(out, "%c", toupper((unsigned char)*at));
    return err ? err : put(out, "`%s |", key->flags & CONFIG_FLAG_SECRET ? " or `_FILE`" : "");
}

static int put_reference_row(struct buffer *out, const struct config_key *key) {
    int err = put(out, "| `%s` | %s | `%s` |", key->key, type_names[key->type],
                  *key->default_text ? key->default_text : "\"\"");
    if (!err)
        err = put_allowed(out, key);
    if (!err)
        err = put(out, " %s |", key->flags & CONFIG_FLAG_RELOAD ? "yes" : "no");
    if (!err)
        err = put_environment_name(out, key);
    return err ? err : put(out, " %s |\n", key->help);
}

int config_print_reference(struct buffer *out) {
    int err = put(out, "# Configuration reference\n");
    for (unsigned i = 0; !err && i < CONFIG_KEY_COUNT; i++) {
        if (config_is_section_start(i))
            err = put(out,
                      "\n## %s\n\n| key | type | default | allowed | reload | environment | "
                      "meaning |\n|---|---|---|---|---|---|---|\n",
                      config_keys[i].section);
        if (!err)
            err = put_reference_row(out, &config_keys[i]);
    }
    return err;
}
