/* storage verify and dump, which only read a stopped or copied store, and repair, which changes it
 * when told to. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/printable.h"
#include "cli/progress.h"
#include "common/clock.h"
#include "common/err.h"
#include "common/utf8.h"
#include "storage/repair.h"
#include "storage/verify.h"

static bool has_file(const char *directory, const char *name) {
    char path[4096];
    snprintf(path, sizeof(path), "%.3900s/%s", directory, name);
    return access(path, F_OK) == 0;
}

/* What somebody may take for a store. A store that lost one of its files is one still. */
static bool is_store(struct cli_run *run) {
    const char *directory = run->operand[0];
    bool has_journal = has_file(directory, "journal");
    if (has_file(directory, "manifest.json") ||
        (!has_journal && has_file(directory, "format") && has_file(directory, "../manifest.json")))
        cli_fail(run, 0, "%s is a backup, which duragate restore checks", directory);
    else if (!has_journal && !has_file(directory, "format") && !has_file(directory, "checkpoint"))
        cli_fail(run, 0, "%s is no store", directory);
    else
        return true;
    return false;
}

/* The last line of --json. */
static void print_verdict(bool whole) {
    printf("{\"whole\":%s}\n", whole ? "true" : "false");
}

/* ---- verify
 * --------------------------------------------------------------------------------------- */

struct verification {
    bool json;
    unsigned partition_count;
    uint64_t damage_count;
    struct progress progress;
};

static void print_journal(void *context, const struct storage_journal_report *journal) {
    const struct verification *v = context;
    if (v->json)
        printf("{\"journal\":{\"size_bytes\":%llu,\"checkpoint_lsn\":\"%llu\",\"end_lsn\":\"%llu\","
               "\"groups_after_checkpoint\":%llu}}\n",
               (unsigned long long)journal->size_bytes, (unsigned long long)journal->checkpoint_lsn,
               (unsigned long long)journal->end_lsn, (unsigned long long)journal->group_count);
    else
        printf("journal: %llu MiB, checkpoint at %llu, end at %llu, %llu groups between them\n",
               (unsigned long long)(journal->size_bytes >> 20),
               (unsigned long long)journal->checkpoint_lsn, (unsigned long long)journal->end_lsn,
               (unsigned long long)journal->group_count);
}

static void print_partition(void *context, const struct storage_partition_report *p) {
    struct verification *v = context;
    if (v->json) {
        printf("{\"stream\":\"%llu\",\"partition\":%u,\"log_start\":\"%lld\",\"end\":\"%lld\","
               "\"segments\":%llu,\"batches\":%llu,\"records\":%llu,\"journal_records\":%llu,"
               "\"size_bytes\":%llu}\n",
               (unsigned long long)p->stream_id, p->partition, (long long)p->log_start,
               (long long)p->end, (unsigned long long)p->segment_count,
               (unsigned long long)p->batch_count, (unsigned long long)p->record_count,
               (unsigned long long)p->journal_record_count, (unsigned long long)p->size_bytes);
        return;
    }
    if (v->partition_count++ == 0)
        printf("%-14s %12s %12s %9s %10s %12s %12s\n", "stream/part", "log start", "end",
               "segments", "batches", "in journal", "bytes");
    char name[40];
    snprintf(name, sizeof(name), "%llu/%u", (unsigned long long)p->stream_id, p->partition);
    printf("%-14s %12lld %12lld %9llu %10llu %12llu %12llu\n", name, (long long)p->log_start,
           (long long)p->end, (unsigned long long)p->segment_count,
           (unsigned long long)p->batch_count, (unsigned long long)p->journal_record_count,
           (unsigned long long)p->size_bytes);
}

static void print_damage(void *context, const char *path, uint64_t position, const char *what) {
    struct verification *v = context;
    v->damage_count++;
    if (v->json) {
        json_t *line = json_pack("{s:{s:s, s:I, s:s}}", "damage", "file", path, "position",
                                 (json_int_t)position, "what", what);
        json_dumpf(line, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(line);
    } else {
        printf("DAMAGE %s at %llu: %s\n", path, (unsigned long long)position, what);
    }
}

static void show_progress(void *context, uint64_t read_bytes) {
    progress_add(&((struct verification *)context)->progress, read_bytes);
}

int storage_verify_run(struct cli_run *run) {
    if (!is_store(run))
        return DG_EXIT_USAGE;
    struct verification verification = {
        .json = cli_has(run, CLI_JSON),
        .progress = progress_begin("verified", progress_measure(run->operand[0])),
    };
    struct storage_report report = {.journal = print_journal,
                                    .partition = print_partition,
                                    .damage = print_damage,
                                    .progress = show_progress,
                                    .context = &verification};
    char error[STORAGE_ERROR_SIZE] = "";
    int err = storage_verify(run->operand[0], &report, error);
    progress_end(&verification.progress);
    if (verification.json && (err == 0 || err == DG_ERR_CORRUPT))
        print_verdict(err == 0);
    if (err == DG_ERR_CORRUPT)
        return cli_fail(run, DG_EXIT_STORAGE, "%s is damaged%s%s", run->operand[0],
                        error[0] ? ": " : "", error);
    if (err < 0)
        return cli_fail(run, DG_EXIT_FAILURE, "%s", error[0] ? error : dg_err_text(err));
    if (!verification.json)
        printf("%s is whole\n", run->operand[0]);
    return DG_EXIT_OK;
}

/* ---- dump
 * ----------------------------------------------------------------------------------------- */

static json_t *bytes_as_json(struct slice bytes) {
    if (!bytes.data)
        return json_null();
    json_t *text = utf8_is_valid(bytes.data, bytes.size)
                       ? json_stringn((const char *)bytes.data, bytes.size)
                       : NULL;
    return text ? text : json_pack("{s:I}", "bytes", (json_int_t)bytes.size);
}

static void print_record_json(uint64_t stream_id, uint32_t partition, const struct record *record) {
    struct reader headers = reader_make(record->headers.data, record->headers.size);
    json_t *all = json_object();
    for (uint32_t i = 0; i < record->header_count; i++) {
        struct slice key, value;
        if (record_header_read(&headers, &key, &value) < 0)
            break;
        json_object_setn_new(all, (const char *)key.data, key.size, bytes_as_json(value));
    }
    json_t *line =
        json_pack("{s:I, s:i, s:I, s:I, s:o, s:o, s:o}", "stream", (json_int_t)stream_id,
                  "partition", (int)partition, "offset", (json_int_t)record->offset, "timestamp_ms",
                  (json_int_t)record->timestamp_ms, "key", bytes_as_json(record->key), "headers",
                  all, "value", bytes_as_json(record->value));
    json_dumpf(line, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(line);
}

static void print_record_text(uint64_t stream_id, uint32_t partition, const struct record *record) {
    struct reader headers = reader_make(record->headers.data, record->headers.size);
    char time[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(record->timestamp_ms, time);
    printf("%llu/%u:%lld %.*s ", (unsigned long long)stream_id, partition,
           (long long)record->offset, (int)sizeof(time), time);
    printable_write(stdout, record->key.data, record->key.size);
    for (uint32_t i = 0; i < record->header_count; i++) {
        struct slice key, value;
        if (record_header_read(&headers, &key, &value) < 0)
            break;
        putchar(' ');
        printable_write(stdout, key.data, key.size);
        putchar('=');
        printable_write(stdout, value.data, value.size);
    }
    printf(" (%zu bytes)\n", record->value.size);
}

struct dump {
    bool json;
};

static void print_record(void *context, uint64_t stream_id, uint32_t partition,
                         const struct record *record) {
    const struct dump *dump = context;
    (dump->json ? print_record_json : print_record_text)(stream_id, partition, record);
}

int storage_dump_run(struct cli_run *run) {
    if (!is_store(run))
        return DG_EXIT_USAGE;
    struct dump dump = {.json = cli_has(run, CLI_JSON)};
    struct storage_dump_filter filter = {0};
    int64_t limit;
    if (!cli_number(run, CLI_LIMIT, 1, INT64_MAX, 0, &limit))
        return DG_EXIT_USAGE;
    filter.limit = (uint64_t)limit;
    if (cli_has(run, CLI_PARTITION)) {
        unsigned long long stream_id;
        unsigned partition;
        int used = 0;
        if (sscanf(run->option[CLI_PARTITION], "%llu/%u%n", &stream_id, &partition, &used) != 2 ||
            run->option[CLI_PARTITION][used])
            return cli_fail(run, DG_EXIT_USAGE,
                            "--partition is '%s'; it takes STREAM/N as `storage verify` prints it",
                            run->option[CLI_PARTITION]);
        filter.has_stream = filter.has_partition = true;
        filter.stream_id = stream_id;
        filter.partition = partition;
    }
    char error[STORAGE_ERROR_SIZE] = "";
    int err = storage_dump(run->operand[0], &filter, print_record, &dump, error);
    if (err == DG_ERR_CORRUPT)
        return cli_fail(run, DG_EXIT_STORAGE,
                        "damage was passed over; see duragate storage verify");
    if (err < 0)
        return cli_fail(run, DG_EXIT_FAILURE, "%s", error[0] ? error : dg_err_text(err));
    return DG_EXIT_OK;
}

/* ---- repair
 * --------------------------------------------------------------------------------------- */

struct repairing {
    bool json;
    unsigned action_count;
    struct progress progress;
};

static void print_action(void *context, bool loses, const char *text) {
    struct repairing *repairing = context;
    repairing->action_count++;
    if (!repairing->json) {
        printf("%s %s\n", loses ? "LOSS" : "    ", text);
        return;
    }
    json_t *line = json_pack("{s:s, s:b}", "action", text, "loses", loses);
    json_dumpf(line, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(line);
}

static void repair_progress(void *context, uint64_t read_bytes) {
    progress_add(&((struct repairing *)context)->progress, read_bytes);
}

static int print_outcome(struct cli_run *run, int err, const struct repairing *repairing,
                         const char *error) {
    bool apply = cli_has(run, CLI_APPLY);
    if (repairing->json && (err == 0 || err == DG_ERR_PRECONDITION))
        print_verdict(err == 0 && (apply || repairing->action_count == 0));
    if (err == DG_ERR_PRECONDITION)
        return cli_fail(run, DG_EXIT_STORAGE,
                        "%slines that begin with LOSS are done only with --accept-loss --apply",
                        apply ? "nothing was changed: " : "");
    if (err < 0)
        return cli_fail(run, err == DG_ERR_CORRUPT ? DG_EXIT_STORAGE : DG_EXIT_FAILURE, "%s",
                        error[0] ? error : dg_err_text(err));
    if (repairing->json)
        return DG_EXIT_OK;
    if (repairing->action_count == 0)
        printf("%s needs no repair\n", run->operand[0]);
    else
        puts(apply ? "done" : "nothing was changed; with --apply this is done");
    return DG_EXIT_OK;
}

int storage_repair_run(struct cli_run *run) {
    if (cli_has(run, CLI_APPLY) && !cli_owns_store(run, run->operand[0]))
        return DG_EXIT_NOPERM;
    if (!is_store(run))
        return DG_EXIT_USAGE;
    struct repairing repairing = {
        .json = cli_has(run, CLI_JSON),
        .progress = progress_begin("read", progress_measure(run->operand[0])),
    };
    struct storage_repair_options options = {.apply = cli_has(run, CLI_APPLY),
                                             .accept_loss = cli_has(run, CLI_ACCEPT_LOSS)};
    struct storage_repair_report report = {
        .action = print_action, .progress = repair_progress, .context = &repairing};
    char error[STORAGE_REPAIR_ERROR_SIZE] = "";
    int err = storage_repair(run->operand[0], &options, &report, error);
    progress_end(&repairing.progress);
    return print_outcome(run, err, &repairing, error);
}
