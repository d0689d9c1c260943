/* What the command line makes of numbers, durations, the demo.env file and latencies. The commands
 * themselves are tests/e2e's. */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/bench.h"
#include "cli/env_file.h"
#include "cli/printable.h"
#include "cli/table.h"

static const struct cli_command command = {.name = "test", .operands = ""};

Test(cli, numbers) {
    static const struct {
        const char *text;
        bool ok;
        int64_t value;
    } cases[] = {
        {NULL, true, 7},   {"1", true, 1},    {"100", true, 100},
        {"0", false, 0},   {"101", false, 0}, {"", false, 0},
        {"ten", false, 0}, {"5x", false, 0},  {"99999999999999999999", false, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cli_run run = {.command = &command};
        int64_t value = -1;
        run.option[CLI_COUNT] = cases[i].text;
        cr_expect_eq(cli_number(&run, CLI_COUNT, 1, 100, 7, &value), cases[i].ok, "case %zu", i);
        cr_expect(!cases[i].ok || value == cases[i].value, "case %zu: %lld", i, (long long)value);
    }
}

Test(cli, durations) {
    static const struct {
        const char *text;
        bool ok;
        int64_t ms;
    } cases[] = {
        {NULL, true, 42}, {"250ms", true, 250}, {"3s", true, 3000}, {"2m", true, 120000},
        {"", false, 0},   {"soon", false, 0},   {"-1s", false, 0},  {"3 parsecs", false, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct cli_run run = {.command = &command};
        int64_t ms = -1;
        run.option[CLI_DURATION] = cases[i].text;
        cr_expect_eq(cli_duration_ms(&run, CLI_DURATION, 42, &ms), cases[i].ok, "case %zu", i);
        cr_expect(!cases[i].ok || ms == cases[i].ms, "case %zu: %lld", i, (long long)ms);
    }
}

/* As printf %q of bash writes it, since that is what deploy/up uses. */
Test(cli, env_file) {
    char path[] = "/tmp/duragate-env-XXXXXX";
    int fd = mkstemp(path);
    FILE *file = fdopen(fd, "w");
    fputs("# comment\nPLAIN=value\nSPACES=two\\ words\nQUOTED='a $b \"c\"'\nDOUBLE=\"d 'e'\"\n"
          "EMPTY=''\nno assignment\nEQUALS=a=b==\n",
          file);
    fclose(file);
    struct cli_run run = {.command = &command};
    run.option[CLI_ENV] = path;
    cr_assert(env_file_load(&run));
    static const struct {
        const char *name, *value;
    } cases[] = {{"PLAIN", "value"},  {"SPACES", "two words"}, {"QUOTED", "a $b \"c\""},
                 {"DOUBLE", "d 'e'"}, {"EMPTY", ""},           {"EQUALS", "a=b=="}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *value = env_file_find(cases[i].name);
        cr_expect(value && strcmp(value, cases[i].value) == 0, "%s is %s", cases[i].name,
                  value ? value : "missing");
    }
    cr_expect_null(env_file_find("NO"));
    unlink(path);
    run.option[CLI_ENV] = "/nonexistent";
    cr_expect_not(env_file_load(&run));
}

/* Quantiles are within a step, 1/32, below the true value. */
Test(cli, histogram) {
    static struct histogram h;
    cr_expect_eq(histogram_quantile(&h, 0.5), 0);
    for (uint64_t us = 1; us <= 100000; us++)
        histogram_add(&h, us * 1000);
    static const double quantiles[] = {0.01, 0.5, 0.99, 0.999};
    for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
        double truth = quantiles[i] * 100000 * 1000;
        double found = (double)histogram_quantile(&h, quantiles[i]);
        cr_expect(found <= truth * 1.001 && found >= truth * 31 / 32 - 1000, "%f: %f", quantiles[i],
                  found);
    }
    histogram_add(&h, UINT64_MAX);
    cr_expect_gt(histogram_quantile(&h, 1.0 - 1e-9), 100000000u / 2);
}

/* Nothing that a name or a payload contains reaches a terminal as an order to it. */
Test(cli, printable) {
    static const struct {
        const char *text, *shown;
        size_t width;
    } cases[] = {
        {"plain", "plain", 5},
        {"", "", 0},
        {"\x1b[2J", "\\x1b[2J", 7},
        {"a\nb\tc\rd", "a\\nb\\tc\\rd", 10},
        {"\x7f\b", "\\x7f\\x08", 8},
        {"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80",
         8},
        {"\xc2\x9b"
         "1m",
         "\\xc2\\x9b1m", 10},
        {"\xc3(", "\\xc3(", 5},
        {"\xe2\x82", "\\xe2\\x82", 8},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char shown[64];
        printable_copy(cases[i].text, 40, shown, sizeof(shown));
        cr_expect_str_eq(shown, cases[i].shown, "case %zu: %s", i, shown);
        cr_expect_eq(printable_width(shown), cases[i].width, "case %zu", i);
        char *written = NULL;
        size_t size;
        FILE *file = open_memstream(&written, &size);
        printable_write(file, cases[i].text, strlen(cases[i].text));
        fclose(file);
        cr_expect_str_eq(written, cases[i].shown, "case %zu: %s", i, written);
        free(written);
    }
}

/* What is too long ends with a whole character or escape, within the width and within the room. */
Test(cli, printable_cuts) {
    char shown[8];
    printable_copy("\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac", 40, shown, sizeof(shown));
    cr_expect_str_eq(shown, "\xe2\x82\xac\xe2\x82\xac");
    printable_copy("abcdef", 3, shown, sizeof(shown));
    cr_expect_str_eq(shown, "abc");
    printable_copy("ab\x1b", 5, shown, sizeof(shown));
    cr_expect_str_eq(shown, "ab");
}

/* Columns stand below each other whatever the names are. */
Test(cli, table) {
    static const char *const columns[] = {"name", "state", NULL};
    json_t *items = json_pack("[{s:s, s:s}, {s:s, s:s}, {s:s, s:s}]", "name", "caf\xc3\xa9-9",
                              "state", "A", "name", "\x1b[2J\n", "state", "B", "name",
                              "0123456789012345678901234567890123456789tail", "state", "C");
    fflush(stdout);
    cr_redirect_stdout();
    table_print(columns, items);
    fflush(stdout);
    cr_assert_stdout_eq_str("name                                      state\n"
                            "caf\xc3\xa9-9                                    A\n"
                            "\\x1b[2J\\n                                 B\n"
                            "0123456789012345678901234567890123456789  C\n");
    json_decref(items);
}
