#include "provisioning/iothub_query.h"

#include <stdio.h>
#include <strings.h>

#include "common/utf8.h"
#include "common/writer.h"

enum token_kind {
    TOKEN_END,
    TOKEN_WORD,   /* a keyword or a name */
    TOKEN_STRING, /* text: between the quotes, with its escapes */
    TOKEN_NUMBER,
    TOKEN_SIGN, /* one of the operators and brackets */
};

struct token {
    enum token_kind kind;
    struct slice text;
};

struct parser {
    struct slice rest; /* behind the token */
    struct token token;
    struct writer out;
    unsigned depth;
    int err;
    char *detail;
    size_t detail_size;
};

/* The first thing that is wrong is what is said. */
static void refuse(struct parser *p, int err, const char *wanted) {
    if (p->err < 0)
        return;
    p->err = err;
    struct slice at = p->token.text;
    int size = at.size < 32 ? (int)at.size : 32;
    while (size > 0 && size < (int)at.size && (at.data[size] & 0xc0) == 0x80)
        size--; /* whole characters */
    snprintf(p->detail, p->detail_size, "%s, at '%.*s'", wanted, size, (const char *)at.data);
    for (char *c = p->detail; *c; c++)
        if (*c == ';' || *c == ':')
            *c = ' ';
    p->token = (struct token){.kind = TOKEN_END}; /* nothing more is read */
    p->rest.size = 0;
}

/* ---- tokens ---- */

static bool is_digit(uint8_t c) {
    return c >= '0' && c <= '9';
}

static bool is_word_byte(uint8_t c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '$' || c == '-' || c >= 0x80;
}

static size_t string_size(struct slice text) {
    for (size_t i = 1; i < text.size; i++) {
        if (text.data[i] == '\\')
            i++;
        else if (text.data[i] == text.data[0])
            return i + 1;
    }
    return 0;
}

/* A number of JSON at the front; 0: none. */
static size_t number_size(struct slice text) {
    size_t at = 0, digits = 0;
    at += at < text.size && text.data[at] == '-';
    for (; at < text.size && is_digit(text.data[at]); at++)
        digits++;
    if (digits == 0)
        return 0;
    if (at + 1 < text.size && text.data[at] == '.' && is_digit(text.data[at + 1]))
        for (at++; at < text.size && is_digit(text.data[at]);)
            at++;
    if (at < text.size && (text.data[at] | 0x20) == 'e') {
        size_t power = at + 1;
        power += power < text.size && (text.data[power] == '-' || text.data[power] == '+');
        if (power < text.size && is_digit(text.data[power]))
            for (at = power; at < text.size && is_digit(text.data[at]);)
                at++;
    }
    return at;
}

static size_t sign_size(struct slice text) {
    static const char *const signs[] = {"!=", "<>", "<=", ">=", "=", "<", ">",
                                        "(",  ")",  "[",  "]",  ",", ".", "*"};
    for (unsigned i = 0; i < sizeof(signs) / sizeof(signs[0]); i++)
        if (slice_starts_with(text, signs[i]))
            return strlen(signs[i]);
    return 0;
}

static size_t word_size(struct slice text) {
    size_t size = 0;
    while (size < text.size && is_word_byte(text.data[size]))
        size++;
    return size;
}

static void take(struct parser *p, enum token_kind kind, size_t size) {
    p->token = (struct token){kind, slice_make(p->rest.data, size)};
    p->rest = slice_skip(p->rest, size);
}

static void next(struct parser *p) {
    while (p->rest.size > 0 && memchr(" \t\r\n", p->rest.data[0], 4))
        p->rest = slice_skip(p->rest, 1);
    size_t size = 0;
    if (p->rest.size == 0) {
        take(p, TOKEN_END, 0);
    } else if (p->rest.data[0] == '\'' || p->rest.data[0] == '"') {
        size = string_size(p->rest);
        take(p, TOKEN_STRING, size);
        if (size > 0)
            p->token.text = slice_make(p->token.text.data + 1, size - 2);
    } else if ((size = number_size(p->rest)) > 0) {
        take(p, TOKEN_NUMBER, size);
    } else if ((size = sign_size(p->rest)) > 0) {
        take(p, TOKEN_SIGN, size);
    } else {
        size = word_size(p->rest);
        take(p, TOKEN_WORD, size);
    }
    if (size == 0 && p->token.kind != TOKEN_END) {
        p->token.text = p->rest;
        refuse(p, DG_ERR_MALFORMED, "the query cannot be read");
    }
}

static bool is_word(const struct parser *p, const char *word) {
    return p->token.kind == TOKEN_WORD && p->token.text.size == strlen(word) &&
           strncasecmp((const char *)p->token.text.data, word, p->token.text.size) == 0;
}

static bool is_sign(const struct parser *p, const char *sign) {
    return p->token.kind == TOKEN_SIGN && slice_equals_string(p->token.text, sign);
}

static bool skip_word(struct parser *p, const char *word) {
    bool is_there = is_word(p, word);
    if (is_there)
        next(p);
    return is_there;
}

static bool skip_sign(struct parser *p, const char *sign) {
    bool is_there = is_sign(p, sign);
    if (is_there)
        next(p);
    return is_there;
}

static void want_sign(struct parser *p, const char *sign) {
    char wanted[32];
    snprintf(wanted, sizeof(wanted), "%s is expected", sign);
    if (!skip_sign(p, sign))
        refuse(p, DG_ERR_MALFORMED, wanted);
}

/* ---- values ---- */

static void write_byte(struct parser *p, uint8_t c) {
    char escaped[8];
    if (c == '"' || c == '\\' || c < 0x20) {
        snprintf(escaped, sizeof(escaped), "\\u%04x", c);
        writer_string(&p->out, escaped);
    } else {
        writer_u8(&p->out, c);
    }
}

/* A string of the path from one of the query, in which a backslash goes before a quote or itself,
 * and before other letters means what it does in JSON, as far as one letter says it. */
static void write_string(struct parser *p, struct slice text) {
    static const char letters[] = "nrtbf", meanings[] = "\n\r\t\b\f";
    writer_u8(&p->out, '"');
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c == '\\' && i + 1 < text.size) {
            c = text.data[++i];
            const char *letter = c ? strchr(letters, c) : NULL;
            if (letter)
                c = (uint8_t)meanings[letter - letters];
            else if (c != '\\' && c != '\'' && c != '"' && c != '/')
                refuse(p, DG_ERR_MALFORMED, "a backslash is only known before \\ ' \" / n r t b f");
        }
        write_byte(p, c);
    }
    writer_u8(&p->out, '"');
}

static void write_literal(struct parser *p) {
    static const char *const words[] = {"true", "false", "null"};
    if (p->token.kind == TOKEN_STRING) {
        write_string(p, p->token.text);
        next(p);
        return;
    }
    if (p->token.kind == TOKEN_NUMBER) {
        /* Zeros at the front are none of the path's numbers. */
        struct slice number = p->token.text;
        if (number.data[0] == '-') {
            writer_u8(&p->out, '-');
            number = slice_skip(number, 1);
        }
        while (number.size > 1 && number.data[0] == '0' && is_digit(number.data[1]))
            number = slice_skip(number, 1);
        writer_slice(&p->out, number);
        next(p);
        return;
    }
    for (unsigned i = 0; i < 3; i++)
        if (skip_word(p, words[i])) {
            writer_string(&p->out, words[i]);
            return;
        }
    refuse(p, DG_ERR_MALFORMED, "a string, a number, true, false or null is expected");
}

static bool is_literal(const struct parser *p) {
    return p->token.kind == TOKEN_STRING || p->token.kind == TOKEN_NUMBER || is_word(p, "true") ||
           is_word(p, "false") || is_word(p, "null");
}

/* ---- paths ---- */

/* What a path begins with. */
static bool is_property(struct slice name) {
    static const char *const names[] = {"deviceId",    "etag",
                                        "status",      "statusReason",
                                        "tags",        "properties",
                                        "version",     "statusUpdateTime",
                                        "deviceEtag",  "connectionState",
                                        "modelId",     "authenticationType",
                                        "capabilities"};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (slice_equals_string(name, names[i]))
            return true;
    return false;
}

static void write_step(struct parser *p) {
    writer_u8(&p->out, '.');
    write_string(p, p->token.text);
    next(p);
}

static void write_path(struct parser *p) {
    if (p->token.kind != TOKEN_WORD) {
        refuse(p, DG_ERR_MALFORMED, "a property is expected");
        return;
    }
    if (!is_property(p->token.text)) {
        refuse(p, DG_ERR_NOT_SUPPORTED,
               "conditions are about deviceId, status, statusReason, statusUpdateTime, "
               "connectionState, authenticationType, tags, properties, version or etag");
        return;
    }
    writer_u8(&p->out, '$');
    write_step(p);
    for (;;) {
        if (skip_sign(p, ".")) {
            if (p->token.kind != TOKEN_WORD && p->token.kind != TOKEN_NUMBER)
                refuse(p, DG_ERR_MALFORMED, "a name is expected behind the dot");
            else
                write_step(p);
        } else if (skip_sign(p, "[")) {
            if (p->token.kind != TOKEN_STRING)
                refuse(p, DG_ERR_MALFORMED, "a name in quotes is expected in brackets");
            else
                write_step(p);
            want_sign(p, "]");
        } else {
            return;
        }
    }
}

static void write_operand(struct parser *p) {
    if (is_literal(p))
        write_literal(p);
    else
        write_path(p);
}

/* ---- conditions ---- */

static void write_condition(struct parser *p);

/* One argument or two; what is written before, between and behind them. */
static const struct function {
    const char *name, *before, *behind;
    const char *literal; /* what stands between the path and a string; NULL: there is none */
    const char *end;
} functions[] = {
    /* The path of what is missing is an error, and so unknown: that has to become false here. */
    {"IS_DEFINED", "!((exists(", "", NULL, ")) is unknown)"},
    {"IS_NULL", "(", " == null", NULL, ")"},
    {"IS_BOOL", "(", ".type() == \"boolean\"", NULL, ")"},
    {"IS_NUMBER", "(", ".type() == \"number\"", NULL, ")"},
    {"IS_STRING", "(", ".type() == \"string\"", NULL, ")"},
    {"IS_OBJECT", "(", ".type() == \"object\"", NULL, ")"},
    {"IS_ARRAY", "(", ".type() == \"array\"", NULL, ")"},
    {"IS_PRIMITIVE", "exists(", " ? (@.type() != \"object\" && @.type() != \"array\")", NULL, ")"},
    {"STARTSWITH", "(", "", " starts with ", ")"},
    {"CONTAINS", "(", "", " like_regex ", " flag \"q\")"},
};

static const struct function *find_function(const struct parser *p) {
    for (unsigned i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        if (is_word(p, functions[i].name))
            return &functions[i];
    return NULL;
}

static void write_function(struct parser *p, const struct function *function) {
    next(p);
    want_sign(p, "(");
    writer_string(&p->out, function->before);
    write_path(p);
    writer_string(&p->out, function->behind);
    if (function->literal) {
        want_sign(p, ",");
        writer_string(&p->out, function->literal);
        if (p->token.kind != TOKEN_STRING)
            refuse(p, DG_ERR_MALFORMED, "a string is expected");
        else
            write_literal(p);
    }
    want_sign(p, ")");
    writer_string(&p->out, function->end);
}

/* The path is written; what is in the list is compared with what it leads to. */
static void write_list(struct parser *p) {
    unsigned count = 0;
    next(p);
    want_sign(p, "[");
    writer_string(&p->out, " ? (");
    do {
        writer_string(&p->out, count++ ? " || @ == " : "@ == ");
        write_literal(p);
    } while (p->err == 0 && skip_sign(p, ","));
    writer_string(&p->out, "))");
    want_sign(p, "]");
}

static void write_comparison(struct parser *p) {
    static const struct {
        const char *sign, *written;
    } comparisons[] = {{"=", " == "},  {"!=", " != "}, {"<>", " != "}, {"<", " < "},
                       {"<=", " <= "}, {">", " > "},   {">=", " >= "}};
    for (unsigned i = 0; i < sizeof(comparisons) / sizeof(comparisons[0]); i++)
        if (skip_sign(p, comparisons[i].sign)) {
            writer_string(&p->out, comparisons[i].written);
            write_operand(p);
            return;
        }
    refuse(p, DG_ERR_MALFORMED, "a comparison is expected");
}

/* Before the operand stands what only a list needs, so it is written first and then moved. */
static void write_test(struct parser *p) {
    static const char in[] = "exists(", not_in[] = "!exists(";
    uint8_t *start = p->out.at;
    bool is_path = !is_literal(p);
    write_operand(p);
    bool is_in = is_word(p, "IN"), is_not_in = is_word(p, "NIN");
    const char *before = is_in ? in : is_not_in ? not_in : "(";
    size_t written = (size_t)(p->out.at - start), size = strlen(before);
    if (!is_path && (is_in || is_not_in))
        refuse(p, DG_ERR_MALFORMED, "a property is expected before IN and NIN");
    if (!writer_reserve(&p->out, size) || p->err < 0)
        return;
    memmove(start + size, start, written);
    memcpy(start, before, size);
    if (is_in || is_not_in) {
        write_list(p);
    } else {
        write_comparison(p);
        writer_u8(&p->out, ')');
    }
}

static void write_primary(struct parser *p) {
    const struct function *function = find_function(p);
    if (skip_sign(p, "(")) {
        writer_u8(&p->out, '(');
        write_condition(p);
        writer_u8(&p->out, ')');
        want_sign(p, ")");
    } else if (function) {
        write_function(p, function);
    } else {
        write_test(p);
    }
}

static void write_negation(struct parser *p) {
    bool is_negated = false;
    while (skip_word(p, "NOT"))
        is_negated = !is_negated;
    writer_string(&p->out, is_negated ? "!(" : "(");
    write_primary(p);
    writer_u8(&p->out, ')');
}

static void write_conjunction(struct parser *p) {
    write_negation(p);
    while (p->err == 0 && skip_word(p, "AND")) {
        writer_string(&p->out, " && ");
        write_negation(p);
    }
}

static void write_condition(struct parser *p) {
    if (++p->depth > IOTHUB_QUERY_DEPTH_MAX) {
        refuse(p, DG_ERR_MALFORMED, "the condition is nested too deeply");
        return;
    }
    write_conjunction(p);
    while (p->err == 0 && skip_word(p, "OR")) {
        writer_string(&p->out, " || ");
        write_conjunction(p);
    }
    p->depth--;
}

/* ---- the query ---- */

static void parse_top(struct parser *p, unsigned *ret_top) {
    unsigned top = 0;
    if (!skip_word(p, "TOP"))
        return;
    for (size_t i = 0; p->token.kind == TOKEN_NUMBER && i < p->token.text.size; i++) {
        uint8_t c = p->token.text.data[i];
        top = is_digit(c) && top <= LIMIT_IOTHUB_QUERY_TOP ? top * 10 + (c - '0')
                                                           : LIMIT_IOTHUB_QUERY_TOP + 1;
    }
    if (top == 0 || top > LIMIT_IOTHUB_QUERY_TOP)
        refuse(p, DG_ERR_MALFORMED, "TOP takes a number from 1 to 1000000");
    else
        next(p);
    _Static_assert(LIMIT_IOTHUB_QUERY_TOP == 1000000, "the sentence names it");
    *ret_top = top;
}

static void parse_head(struct parser *p, unsigned *ret_top) {
    if (!skip_word(p, "SELECT"))
        refuse(p, DG_ERR_MALFORMED, "SELECT is expected");
    parse_top(p, ret_top);
    if (!skip_sign(p, "*"))
        refuse(p, DG_ERR_NOT_SUPPORTED, "only SELECT * is served");
    if (!skip_word(p, "FROM"))
        refuse(p, DG_ERR_MALFORMED, "FROM is expected");
    if (!skip_word(p, "devices"))
        refuse(p, DG_ERR_MALFORMED, "devices is expected");
    if (is_sign(p, "."))
        refuse(p, DG_ERR_NOT_SUPPORTED, "only FROM devices is served");
}

int iothub_query_parse(struct slice text, struct iothub_query *ret_query, char *ret_detail,
                       size_t detail_size) {
    struct parser p = {.rest = text,
                       .out = writer_make(ret_query->condition, sizeof(ret_query->condition) - 1),
                       .detail = ret_detail,
                       .detail_size = detail_size};
    ret_query->top = 0;
    if (text.size > LIMIT_IOTHUB_QUERY_BYTES || !utf8_is_valid(text.data, text.size)) {
        snprintf(ret_detail, detail_size, "a query is UTF-8 of at most %d bytes",
                 LIMIT_IOTHUB_QUERY_BYTES);
        return DG_ERR_MALFORMED;
    }
    next(&p);
    parse_head(&p, &ret_query->top);
    if (skip_word(&p, "WHERE")) {
        writer_string(&p.out, "strict ");
        write_condition(&p);
    }
    if (is_word(&p, "GROUP") || is_word(&p, "ORDER"))
        refuse(&p, DG_ERR_NOT_SUPPORTED, "GROUP BY and ORDER BY are not served");
    if (p.token.kind != TOKEN_END)
        refuse(&p, DG_ERR_MALFORMED, "the end of the query is expected");
    if (p.out.failed && p.err == 0) {
        snprintf(ret_detail, detail_size, "the query is too long");
        return DG_ERR_MALFORMED;
    }
    ret_query->condition[writer_size(&p.out)] = '\0';
    return p.err;
}
