/*
 * A line is put together on the stack and written at once. It never exceeds PIPE_BUF, so that lines
 * of several threads cannot mix in a pipe; fields that do not fit are left out and `cut` says so.
 */
#include "common/log.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/utf8.h"
#include "common/writer.h"

enum {
    LINE_BYTES = PIPE_BUF,
    VALUE_BYTES = 512, /* of the escaped value */
    END_BYTES = 16,    /* kept free for the cut mark and the end of the line */
};

_Atomic(enum log_level) log_minimum = LOG_LEVEL_INFO;
static _Atomic(enum log_format) line_format = LOG_FORMAT_TEXT;

static const char *const level_names[] = {"debug", "info", "warn", "error"};

void log_configure(enum log_level minimum, enum log_format format) {
    log_minimum = minimum;
    line_format = format;
}

struct line {
    struct writer out;
    enum log_format format;
};

/* C0, DEL and C1 move a terminal's cursor; C1 is C2 80 to C2 9F in UTF-8. */
static bool is_control(const uint8_t *at) {
    return at[0] < 0x20 || at[0] == 0x7f || (at[0] == 0xc2 && at[1] < 0xa0);
}

/* The escape of a byte that may not stand for itself, at most 6 characters and a NUL. */
static void escape_byte(enum log_format format, uint8_t byte, char *ret_text) {
    static const char short_escapes[] = "\"\"\\\\\nn\rr\tt";
    for (const char *s = short_escapes; *s; s += 2)
        if (byte == (uint8_t)*s) {
            snprintf(ret_text, 7, "\\%c", s[1]);
            return;
        }
    if (format == LOG_FORMAT_TEXT)
        snprintf(ret_text, 7, "\\x%02x", byte);
    else if (byte < 0x80)
        snprintf(ret_text, 7, "\\u%04x", byte);
    else
        snprintf(ret_text, 7, "\\\\x%02x", byte); /* JSON text has no escape for a raw byte */
}

static void put_escaped(struct line *line, struct slice text) {
    size_t limit = writer_size(&line->out) + VALUE_BYTES;
    while (text.size > 0) {
        size_t size = utf8_character_size(text.data, text.size);
        char escape[7] = "";
        struct slice piece = slice_make(text.data, size);
        if (size == 0 || is_control(text.data) || *text.data == '"' || *text.data == '\\') {
            escape_byte(line->format, *text.data, escape);
            piece = slice_from_string(escape);
            size = 1;
            /* The second byte of a C1 character is no character by itself: escaped in its turn. */
        }
        if (writer_size(&line->out) + piece.size > limit) {
            writer_string(&line->out, "...");
            return;
        }
        writer_slice(&line->out, piece);
        text = slice_skip(text, size);
    }
}

/* True when logfmt can do without quotes. */
static bool is_bare(struct slice text) {
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] <= ' ' || text.data[i] >= 0x7f || strchr("=\"\\", text.data[i]))
            return false;
    return text.size > 0;
}

static void put_text(struct line *line, struct slice text) {
    bool quoted = line->format == LOG_FORMAT_JSON || !is_bare(text);
    if (quoted)
        writer_u8(&line->out, '"');
    put_escaped(line, text);
    if (quoted)
        writer_u8(&line->out, '"');
}

static void put_key(struct line *line, const char *key) {
    bool first = writer_size(&line->out) == 0;
    if (line->format == LOG_FORMAT_JSON) {
        writer_string(&line->out, first ? "{\"" : ",\"");
        writer_string(&line->out, key);
        writer_string(&line->out, "\":");
    } else {
        writer_string(&line->out, first ? "" : " ");
        writer_string(&line->out, key);
        writer_u8(&line->out, '=');
    }
}

static void put_field(struct line *line, const struct log_field *field) {
    put_key(line, field->key);
    if (field->kind == LOG_FIELD_SLICE) {
        put_text(line, field->text);
        return;
    }
    char digits[24];
    snprintf(digits, sizeof(digits), "%lld", (long long)field->number);
    writer_string(&line->out, digits);
}

static void put_head(struct line *line, enum log_level level, const char *event) {
    char time[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(clock_wall_ms(), time);
    const struct log_field head[] = {
        log_slice("time", slice_make(time, sizeof(time))),
        log_text("level", level_names[level]),
        log_text("event", event),
    };
    for (size_t i = 0; i < sizeof(head) / sizeof(head[0]); i++)
        put_field(line, &head[i]);
}

/* Puts whole fields only; true when one had to be left out. */
static bool put_fields(struct line *line, const struct log_field *fields, unsigned count) {
    for (unsigned i = 0; i < count; i++) {
        struct writer before = line->out;
        put_field(line, &fields[i]);
        if (line->out.failed) {
            line->out = before;
            return true;
        }
    }
    return false;
}

static void write_once(const uint8_t *data, size_t size) {
    ssize_t written;
    do
        written = write(STDERR_FILENO, data, size);
    while (written < 0 && errno == EINTR);
    /* Where would one report that the log cannot be written? */
}

void log_write(enum log_level level, const char *event, const struct log_field *fields,
               unsigned field_count) {
    uint8_t bytes[LINE_BYTES];
    struct line line = {.out = writer_make(bytes, sizeof(bytes) - END_BYTES),
                        .format = line_format};
    int errno_of_caller = errno;
    put_head(&line, level, event);
    bool cut = put_fields(&line, fields, field_count);
    line.out.end = bytes + sizeof(bytes);
    if (cut) {
        put_key(&line, "cut");
        writer_string(&line.out, "true");
    }
    writer_string(&line.out, line.format == LOG_FORMAT_JSON ? "}\n" : "\n");
    write_once(bytes, writer_size(&line.out));
    errno = errno_of_caller;
}

/* ---- sampling ---- */

bool log_sample(struct log_sample *sample, uint64_t now_ms, unsigned *ret_suppressed) {
    if (sample->written == 0 || now_ms - sample->since_ms >= LOG_SAMPLE_MS) {
        sample->since_ms = now_ms;
        sample->written = 0;
    }
    if (sample->written == LOG_SAMPLE_LINES) {
        sample->suppressed++;
        return false;
    }
    sample->written++;
    *ret_suppressed = sample->suppressed;
    sample->suppressed = 0;
    return true;
}
