/* What the command line makes of numbers, durations, the demo.env file and latencies. The commands
 * themselves are tests/e2e's. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/bench.h"
#include "cli/env_file.h"

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
