/*
 * Shared by the config_*.c files: the table as rows, and one layer (file, environment, overrides)
 * being applied to a struct. Nobody else includes this.
 */
#pragma once

#include <stddef.h>

#include "common/config.h"

enum config_type {
    CONFIG_TYPE_STRING,
    CONFIG_TYPE_SIZE,
    CONFIG_TYPE_DURATION_MS,
    CONFIG_TYPE_NUMBER,
    CONFIG_TYPE_BOOL,
};

enum { CONFIG_FLAG_SECRET = 1, CONFIG_FLAG_RELOAD = 2 };

enum config_index {
#define CONFIG(section, key, ...) CONFIG_INDEX_##section##_##key,
#include "common/config_table.h"
#undef CONFIG
    CONFIG_KEY_COUNT
};

struct config_key {
    const char *section;
    const char *key;
    const char *name; /* section.key */
    enum config_type type;
    const char *default_text;
    int64_t minimum; /* of a string: bytes */
    int64_t maximum;
    unsigned flags;
    const char *help;
    size_t offset; /* in struct config */
};

extern const struct config_key config_keys[CONFIG_KEY_COUNT];

/* Rows of one section stand together: true for the first of them. */
bool config_is_section_start(unsigned index);

/* NULL when there is no such row. */
const struct config_key *config_key_find(const char *section, const char *key);

/* True when the table has a row of this section. */
bool config_section_exists(const char *section);

/* The row a mistyped key most likely meant, or NULL. */
const struct config_key *config_key_suggest(const char *section, const char *key);

/* The section a mistyped one most likely meant, or NULL. */
const char *config_section_suggest(const char *section);

enum { CONFIG_TEXT_SIZE = 64, CONFIG_WHY_SIZE = 256 };

/* Parses text, checks it against the row and puts it into the struct (freeing a string that was
 * there). DG_ERR_INVALID and a sentence for people in ret_why (CONFIG_WHY_SIZE); the sentence does
 * not repeat the text when the key is a secret. */
DG_NODISCARD int config_value_set(struct config *config, const struct config_key *key,
                                  const char *text, char *ret_why);

/* The value as config_value_set() would read it again. A string is not copied: it stays the
 * struct's; other types are written to scratch (CONFIG_TEXT_SIZE) and scratch is returned. */
const char *config_value_text(const struct config *config, const struct config_key *key,
                              char *scratch);

/* Writes number in the unit of a SIZE or DURATION_MS, largest that divides it; plain for others. */
void config_format_number(enum config_type type, int64_t number, char *ret_text);

/* The words a STRING is limited to, comma separated, or NULL for any text. */
const char *config_key_choices(const struct config_key *key);

/* One layer being applied. */
struct config_layer {
    struct config *config;
    const char *source; /* what the message starts with: a file, a variable, a flag */
    unsigned line;      /* 0: the source has no lines */
    char *error;        /* CONFIG_ERROR_SIZE */
    bool seen[CONFIG_KEY_COUNT];
};

/* Writes "source:line: <format...>" to the error; always DG_ERR_INVALID. */
__attribute__((format(printf, 2, 3))) int config_refuse(struct config_layer *layer,
                                                        const char *format, ...);

/* One key of the layer; `<secret>_file` reads the secret from the file that text names. */
DG_NODISCARD int config_assign(struct config_layer *layer, const char *section, const char *key,
                               const char *text);

/* Refuses a section that the table does not have. */
DG_NODISCARD int config_check_section(struct config_layer *layer, const char *section);

/* Applies a YAML file to the layer, whose source is its path. */
DG_NODISCARD int config_apply_file(struct config_layer *layer);
