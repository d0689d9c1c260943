/*
 * The configuration file: YAML of one shape, a map of sections, each a map of keys to scalars.
 * Everything else YAML can express (lists, deeper maps, anchors, aliases, tags, several documents)
 * is refused with its line.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "common/config_internal.h"

enum { FILE_BYTES = 1024 * 1024, SECTION_BYTES = 64 };

struct yaml_source {
    struct config_layer *layer;
    yaml_parser_t parser;
    yaml_event_t event; /* the last one taken; owned */
};

static int refuse_syntax(struct yaml_source *s) {
    s->layer->line = (unsigned)s->parser.problem_mark.line + 1;
    return config_refuse(s->layer, "not YAML: %s",
                         s->parser.problem ? s->parser.problem : "cannot be parsed");
}

/* What no place of the file may hold. */
static int check_event(struct yaml_source *s) {
    const yaml_event_t *e = &s->event;
    bool scalar = e->type == YAML_SCALAR_EVENT, map = e->type == YAML_MAPPING_START_EVENT;
    if (e->type == YAML_ALIAS_EVENT || (scalar && e->data.scalar.anchor) ||
        (map && e->data.mapping_start.anchor))
        return config_refuse(s->layer, "anchors and aliases are not allowed");
    if (e->type == YAML_SEQUENCE_START_EVENT)
        return config_refuse(s->layer, "a list is not allowed; write one text, comma separated");
    if ((scalar && e->data.scalar.tag) || (map && e->data.mapping_start.tag))
        return config_refuse(s->layer, "tags are not allowed");
    if (scalar && strlen((const char *)e->data.scalar.value) != e->data.scalar.length)
        return config_refuse(s->layer, "a NUL character is not allowed");
    return 0;
}

static int take_event(struct yaml_source *s) {
    yaml_event_delete(&s->event);
    memset(&s->event, 0, sizeof(s->event));
    if (!yaml_parser_parse(&s->parser, &s->event))
        return refuse_syntax(s);
    s->layer->line = (unsigned)s->event.start_mark.line + 1;
    return check_event(s);
}

static const char *scalar_text(const struct yaml_source *s) {
    return (const char *)s->event.data.scalar.value;
}

/* A plain scalar that YAML reads as "no value". */
static bool is_null(const struct yaml_source *s) {
    const char *text = scalar_text(s);
    return s->event.type == YAML_SCALAR_EVENT &&
           s->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           (*text == '\0' || strcmp(text, "~") == 0 || strcasecmp(text, "null") == 0);
}

/* The event is a key of the section. */
static int apply_key(struct yaml_source *s, const char *section) {
    char key[SECTION_BYTES];
    if (s->event.type != YAML_SCALAR_EVENT)
        return config_refuse(s->layer, "%s: a key must be a plain word", section);
    snprintf(key, sizeof(key), "%s", scalar_text(s));
    int err = take_event(s);
    if (err)
        return err;
    if (s->event.type != YAML_SCALAR_EVENT)
        return config_refuse(s->layer, "%s.%s: a map is not allowed here; allowed: one value",
                             section, key);
    if (is_null(s))
        return config_refuse(s->layer, "%s.%s: has no value; write \"\" for an empty text", section,
                             key);
    return config_assign(s->layer, section, key, scalar_text(s));
}

static int apply_keys(struct yaml_source *s, const char *section) {
    for (;;) {
        int err = take_event(s);
        if (err || s->event.type == YAML_MAPPING_END_EVENT)
            return err;
        err = apply_key(s, section);
        if (err)
            return err;
    }
}

/* Marks the section as met; false when it was already. */
static bool note_section(bool *met, const char *section) {
    for (unsigned i = 0; i < CONFIG_KEY_COUNT; i++)
        if (config_is_section_start(i) && strcmp(config_keys[i].section, section) == 0) {
            bool first = !met[i];
            met[i] = true;
            return first;
        }
    return true;
}

/* The event is the name of a section. */
static int apply_section(struct yaml_source *s, bool *met) {
    char section[SECTION_BYTES];
    if (s->event.type != YAML_SCALAR_EVENT)
        return config_refuse(s->layer, "a section must be a plain word");
    snprintf(section, sizeof(section), "%s", scalar_text(s));
    int err = config_check_section(s->layer, section);
    if (err)
        return err;
    if (!note_section(met, section))
        return config_refuse(s->layer, "%s: section given twice; allowed: once", section);
    err = take_event(s);
    if (err || is_null(s))
        return err;
    if (s->event.type != YAML_MAPPING_START_EVENT)
        return config_refuse(s->layer, "%s: is a section; allowed: keys with values below it",
                             section);
    return apply_keys(s, section);
}

static int apply_sections(struct yaml_source *s) {
    bool met[CONFIG_KEY_COUNT] = {false};
    for (;;) {
        int err = take_event(s);
        if (err || s->event.type == YAML_MAPPING_END_EVENT)
            return err;
        err = apply_section(s, met);
        if (err)
            return err;
    }
}

static int apply_root(struct yaml_source *s) {
    int err = take_event(s);
    if (err || is_null(s))
        return err;
    if (s->event.type != YAML_MAPPING_START_EVENT)
        return config_refuse(s->layer, "the file must be a map of sections");
    return apply_sections(s);
}

/* STREAM-START (DOCUMENT-START root DOCUMENT-END)? STREAM-END */
static int apply_stream(struct yaml_source *s) {
    int err = take_event(s);
    if (!err)
        err = take_event(s);
    if (err || s->event.type == YAML_STREAM_END_EVENT)
        return err;
    err = apply_root(s);
    if (!err)
        err = take_event(s);
    if (!err)
        err = take_event(s);
    if (!err && s->event.type != YAML_STREAM_END_EVENT)
        return config_refuse(s->layer, "a second document is not allowed");
    return err;
}

static int apply_text(struct config_layer *layer, const unsigned char *text, size_t size) {
    struct yaml_source s = {.layer = layer};
    if (!yaml_parser_initialize(&s.parser))
        return config_refuse(layer, "%s", dg_err_text(DG_ERR_NO_MEMORY));
    yaml_parser_set_encoding(&s.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&s.parser, text, size);
    int err = apply_stream(&s);
    yaml_event_delete(&s.event);
    yaml_parser_delete(&s.parser);
    return err;
}

/* Reads at most size bytes; false and errno on failure. */
static bool read_text(const char *path, unsigned char *ret_text, size_t size, size_t *ret_size) {
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    *ret_size = fread(ret_text, 1, size, file);
    bool complete = !ferror(file);
    int reason = errno;
    fclose(file);
    errno = reason;
    return complete;
}

int config_apply_file(struct config_layer *layer) {
    unsigned char *text = malloc(FILE_BYTES + 1);
    if (text == NULL)
        return config_refuse(layer, "%s", dg_err_text(DG_ERR_NO_MEMORY));
    size_t size;
    int err;
    if (!read_text(layer->source, text, FILE_BYTES + 1, &size))
        err = config_refuse(layer, "cannot be read: %m");
    else if (size > FILE_BYTES)
        err = config_refuse(layer, "is too long; allowed: %d bytes", FILE_BYTES);
    else
        err = apply_text(layer, text, size);
    free(text);
    return err;
}
