/* What reaches standard error, read back through a pipe. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <unistd.h>

#include "common/log.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
enum { TIME_BYTES = 24 };

static int read_end = -1;

static void capture(void) {
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    cr_assert(dup2(ends[1], STDERR_FILENO) >= 0);
    close(ends[1]);
    read_end = ends[0];
}

/* The next write to standard error, whole. */
static const char *captured(void) {
    static char line[8192];
    ssize_t size = read(read_end, line, sizeof(line) - 1);
    line[size > 0 ? size : 0] = '\0';
    return line;
}

struct value_case {
    struct slice value;
    const char *text;
    const char *json;
};
#define VALUE(bytes) \
    { (const uint8_t *)(bytes), sizeof(bytes) - 1 }

static const struct value_case value_cases[] = {
    {VALUE("plain"), "plain", "\"plain\""},
    {VALUE(""), "\"\"", "\"\""},
    {VALUE("two words"), "\"two words\"", "\"two words\""},
    {VALUE("a=b"), "\"a=b\"", "\"a=b\""},
    {VALUE("say \"hi\""), "\"say \\\"hi\\\"\"", "\"say \\\"hi\\\"\""},
    {VALUE("back\\slash"), "\"back\\\\slash\"", "\"back\\\\slash\""},
    {VALUE("x\nlevel=error"), "\"x\\nlevel=error\"", "\"x\\nlevel=error\""},
    {VALUE("\r\t"), "\"\\r\\t\"", "\"\\r\\t\""},
    {VALUE("\0\x1b[2J\x7f"), "\"\\x00\\x1b[2J\\x7f\"", "\"\\u0000\\u001b[2J\\u007f\""},
    {VALUE("\xc2\x9b"), "\"\\xc2\\x9b\"", "\"\\\\xc2\\\\x9b\""},
    {VALUE("gr\xc3\xbc\xc3\x9f"), "\"gr\xc3\xbc\xc3\x9f\"", "\"gr\xc3\xbc\xc3\x9f\""},
    {VALUE("\xff\xc3"), "\"\\xff\\xc3\"", "\"\\\\xff\\\\xc3\""},
};

static void log_value(struct slice value) {
    LOG_INFO("unit.test", log_slice("value", value), log_int("n", -7));
}

Test(log, escapes, .init = capture) {
    for (size_t i = 0; i < COUNT_OF(value_cases); i++) {
        char expected[512];
        log_configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
        log_value(value_cases[i].value);
        snprintf(expected, sizeof(expected), " level=info event=unit.test value=%s n=-7\n",
                 value_cases[i].text);
        const char *line = captured();
        cr_expect(strncmp(line, "time=20", 7) == 0, "%s", line);
        cr_expect_str_eq(line + 5 + TIME_BYTES, expected);
        log_configure(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
        log_value(value_cases[i].value);
        snprintf(expected, sizeof(expected),
                 "\",\"level\":\"info\",\"event\":\"unit.test\",\"value\":%s,\"n\":-7}\n",
                 value_cases[i].json);
        line = captured();
        cr_expect(strncmp(line, "{\"time\":\"20", 11) == 0, "%s", line);
        cr_expect_str_eq(line + 9 + TIME_BYTES, expected);
    }
}

Test(log, levels_below_the_minimum_are_silent, .init = capture) {
    log_configure(LOG_LEVEL_WARN, LOG_FORMAT_TEXT);
    LOG_INFO("not.seen");
    LOG_DEBUG("not.seen");
    LOG_ERROR("seen");
    LOG_WARN("seen.too", log_text("nothing", NULL));
    const char *both = captured(); /* one read returns both lines */
    cr_expect(strstr(both, "not.seen") == NULL);
    cr_expect(strstr(both, "level=error event=seen\n"));
    cr_expect(strstr(both, "event=seen.too nothing=\"\"\n"));
}

Test(log, long_values_are_cut, .init = capture) {
    static char value[600], expected[600];
    memset(value, 'x', 599);
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_TEXT);
    LOG_INFO("e", log_text("v", value));
    snprintf(expected, sizeof(expected), " v=%.512s...\n", value);
    const char *line = captured();
    cr_expect_str_eq(strstr(line, " v="), expected);
    LOG_INFO("e", log_slice("v", slice_make(value, 512)));
    snprintf(expected, sizeof(expected), " v=%.512s\n", value);
    cr_expect_str_eq(strstr(captured(), " v="), expected);
    memset(value, '\n', 599);
    LOG_INFO("e", log_text("v", value));
    cr_expect(strlen(captured()) < 700, "the limit is that of the escaped text");
}

Test(log, a_line_stays_one_atomic_write, .init = capture) {
    static char value[600];
    memset(value, 'x', 599);
    log_configure(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
    LOG_INFO("e", log_text("a", value), log_text("b", value), log_text("c", value),
             log_text("d", value), log_text("e", value), log_text("f", value), log_text("g", value),
             log_text("h", value), log_text("i", value));
    const char *line = captured();
    size_t size = strlen(line);
    cr_expect(size <= 4096);
    cr_expect_str_eq(line + size - 16, "..\",\"cut\":true}\n");
}

Test(log, lines_that_strangers_cause_are_sampled) {
    struct log_sample sample = {0};
    unsigned suppressed = 7, written = 0;
    for (unsigned i = 0; i < 100; i++)
        written += log_sample(&sample, 1000 + i, &suppressed);
    cr_expect_eq(written, LOG_SAMPLE_LINES);
    cr_expect_eq(suppressed, 0);
    cr_expect(log_sample(&sample, 1000 + LOG_SAMPLE_MS, &suppressed));
    cr_expect_eq(suppressed, 100 - LOG_SAMPLE_LINES);
    cr_expect(log_sample(&sample, 1001 + LOG_SAMPLE_MS, &suppressed));
    cr_expect_eq(suppressed, 0, "said once");
}
