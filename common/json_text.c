#include "common/json_text.h"

#include "common/utf8.h"

struct scan {
    const uint8_t *at, *end;
    uint64_t objects; /* a bit for each level: it is an object, not an array */
    unsigned depth;
};

static bool next_is(const struct scan *s, uint8_t byte) {
    return s->at < s->end && *s->at == byte;
}

static bool take(struct scan *s, uint8_t byte) {
    if (!next_is(s, byte))
        return false;
    s->at++;
    return true;
}

static void skip_space(struct scan *s) {
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\n' || *s->at == '\r' || *s->at == '\t'))
        s->at++;
}

static bool is_digit(const struct scan *s) {
    return s->at < s->end && *s->at >= '0' && *s->at <= '9';
}

/* ---- scalars: true, with s->at behind them; else s->at is where it went wrong ---- */

static bool take_digits(struct scan *s) {
    if (!is_digit(s))
        return false;
    while (is_digit(s))
        s->at++;
    return true;
}

static bool take_number(struct scan *s) {
    (void)take(s, '-');
    if (!take(s, '0') && !take_digits(s))
        return false;
    if (take(s, '.') && !take_digits(s))
        return false;
    if (!next_is(s, 'e') && !next_is(s, 'E'))
        return true;
    s->at++;
    if (!take(s, '+'))
        (void)take(s, '-');
    return take_digits(s);
}

static bool take_word(struct scan *s, const char *word) {
    for (; *word; word++)
        if (!take(s, (uint8_t)*word))
            return false;
    return true;
}

static bool is_hex(uint8_t byte) {
    return (byte >= '0' && byte <= '9') || ((byte | 0x20) >= 'a' && (byte | 0x20) <= 'f');
}

/* Behind the backslash. */
static bool take_escape(struct scan *s) {
    if (s->at == s->end)
        return false;
    if (*s->at != 'u') {
        if (!*s->at || !strchr("\"\\/bfnrt", *s->at))
            return false;
        s->at++;
        return true;
    }
    s->at++;
    for (unsigned i = 0; i < 4; i++, s->at++)
        if (s->at == s->end || !is_hex(*s->at))
            return false;
    return true;
}

/* Bytes of a string that stand for themselves and are one character each. */
static const bool is_plain[256] = {
    [' ' ... '!'] = true, ['#' ... '['] = true, [']' ... '~'] = true, [0x7F] = true};

static bool take_string(struct scan *s) {
    if (!take(s, '"'))
        return false;
    for (;;) {
        while (s->at < s->end && is_plain[*s->at])
            s->at++;
        if (take(s, '"'))
            return true;
        if (take(s, '\\')) {
            if (!take_escape(s))
                return false;
            continue;
        }
        if (s->at == s->end || *s->at < 0x20)
            return false;
        size_t size = utf8_character_size(s->at, (size_t)(s->end - s->at));
        if (size == 0)
            return false;
        s->at += size;
    }
}

static bool take_scalar(struct scan *s) {
    if (s->at == s->end)
        return false;
    switch (*s->at) {
    case '"':
        return take_string(s);
    case 't':
        return take_word(s, "true");
    case 'f':
        return take_word(s, "false");
    case 'n':
        return take_word(s, "null");
    default:
        return take_number(s);
    }
}

/* ---- structure ---- */

static bool in_object(const struct scan *s) {
    return s->objects & (uint64_t)1 << (s->depth - 1);
}

static bool take_name(struct scan *s) {
    skip_space(s);
    if (!take_string(s))
        return false;
    skip_space(s);
    return take(s, ':');
}

/* '{' or '[' is next: goes in. *ret_empty: and out again. Else the next thing is a value. */
static bool enter(struct scan *s, bool *ret_empty) {
    bool object = *s->at == '{';
    if (s->depth == JSON_TEXT_DEPTH_MAX)
        return false;
    uint64_t bit = (uint64_t)1 << s->depth++;
    s->objects = object ? s->objects | bit : s->objects & ~bit;
    s->at++;
    skip_space(s);
    *ret_empty = take(s, object ? '}' : ']');
    if (*ret_empty)
        s->depth--;
    return *ret_empty || !object || take_name(s);
}

/* Behind a value: out of what ends here. *ret_end: out of everything. Else the next is a value. */
static bool leave(struct scan *s, bool *ret_end) {
    for (skip_space(s); s->depth > 0; skip_space(s)) {
        if (take(s, ','))
            return !in_object(s) || take_name(s);
        if (!take(s, in_object(s) ? '}' : ']'))
            return false;
        s->depth--;
    }
    *ret_end = true;
    return s->at == s->end;
}

bool json_text_is_valid(struct slice text, size_t *ret_at) {
    struct scan s = {.at = text.data, .end = text.data + text.size};
    bool end = false, valid = true;
    while (valid && !end) {
        bool whole = true; /* a value has been passed, not only entered */
        skip_space(&s);
        valid = next_is(&s, '{') || next_is(&s, '[') ? enter(&s, &whole) : take_scalar(&s);
        if (valid && whole)
            valid = leave(&s, &end);
    }
    if (!valid)
        *ret_at = (size_t)(s.at - text.data);
    return valid;
}
