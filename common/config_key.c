/* The configuration table as rows, and finding one by name, even by a misspelt one. */
#include <string.h>

#include "common/config_internal.h"

enum { SECRET = CONFIG_FLAG_SECRET, RELOAD = CONFIG_FLAG_RELOAD }; /* as the table spells them */

const struct config_key config_keys[CONFIG_KEY_COUNT] = {
#define CONFIG(section, key, type, default_text, minimum, maximum, flags, help) \
    {#section,                                                                  \
     #key,                                                                      \
     #section "." #key,                                                         \
     CONFIG_TYPE_##type,                                                        \
     default_text,                                                              \
     minimum,                                                                   \
     maximum,                                                                   \
     flags,                                                                     \
     help,                                                                      \
     offsetof(struct config, section##_##key)},
#include "common/config_table.h"
#undef CONFIG
};

bool config_is_section_start(unsigned index) {
    return index == 0 || strcmp(config_keys[index].section, config_keys[index - 1].section) != 0;
}

const struct config_key *config_key_find(const char *section, const char *key) {
    for (unsigned i = 0; i < CONFIG_KEY_COUNT; i++)
        if (strcmp(config_keys[i].section, section) == 0 && strcmp(config_keys[i].key, key) == 0)
            return &config_keys[i];
    return NULL;
}

bool config_section_exists(const char *section) {
    for (unsigned i = 0; i < CONFIG_KEY_COUNT; i++)
        if (strcmp(config_keys[i].section, section) == 0)
            return true;
    return false;
}

enum { WORD_BYTES = 40, FAR = 1000 };

static unsigned smallest(unsigned a, unsigned b, unsigned c) {
    unsigned ab = a < b ? a : b;
    return ab < c ? ab : c;
}

/* Edits (insert, drop, replace) from a to b; two neighbours swapped count as two. */
static unsigned edit_distance(const char *a, const char *b) {
    size_t size_a = strlen(a), size_b = strlen(b);
    if (size_a >= WORD_BYTES || size_b >= WORD_BYTES)
        return FAR;
    unsigned row[WORD_BYTES];
    for (unsigned j = 0; j <= size_b; j++)
        row[j] = j;
    for (unsigned i = 1; i <= size_a; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= size_b; j++) {
            unsigned above = row[j];
            row[j] = smallest(above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = above;
        }
    }
    return row[size_b];
}

/* A word of up to five letters may be two edits away, a longer one three. */
static unsigned tolerated_distance(const char *word) {
    return strlen(word) <= 5 ? 2 : 3;
}

const struct config_key *config_key_suggest(const char *section, const char *key) {
    const struct config_key *best = NULL;
    unsigned best_distance = tolerated_distance(key) + 1;
    for (unsigned i = 0; i < CONFIG_KEY_COUNT; i++) {
        if (strcmp(config_keys[i].section, section) != 0)
            continue;
        unsigned distance = edit_distance(key, config_keys[i].key);
        if (distance < best_distance) {
            best = &config_keys[i];
            best_distance = distance;
        }
    }
    return best;
}

const char *config_section_suggest(const char *section) {
    const char *best = NULL;
    unsigned best_distance = tolerated_distance(section) + 1;
    for (unsigned i = 0; i < CONFIG_KEY_COUNT; i++) {
        unsigned distance = edit_distance(section, config_keys[i].section);
        if (distance < best_distance) {
            best = config_keys[i].section;
            best_distance = distance;
        }
    }
    return best;
}
