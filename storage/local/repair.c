/*
 * Order of work, so that it can end at any moment and be run again: the format file's version (a
 * version alone changes nothing), the checkpoint with all that was decided, the journal behind its
 * damage, files that the checkpoint does not need any more; last the store is opened and closed,
 * which is what a start does: it writes last blocks back, cuts and syncs.
 */
#include "storage/repair.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "common/sys.h"
#include "storage/local/examine.h"
#include "storage/local/store.h"

struct repair {
    const char *directory;
    const struct storage_repair_options *options;
    const struct storage_repair_report *report;
    char *error; /* STORAGE_REPAIR_ERROR_SIZE */
    int lock_fd;
    struct format_store store;
    struct draft draft;
    struct partition_finding *findings; /* one for each partition of the draft */
    struct journal journal;
    struct journal_finding journal_finding;
    bool loses, cuts; /* events; an end moves */
};

static int fail(struct repair *repair, int err, const char *what, const char *why) {
    snprintf(repair->error, STORAGE_REPAIR_ERROR_SIZE, "%.300s/%s: %s", repair->directory, what,
             why);
    return err;
}

static void tell(struct repair *repair, bool loses, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static void tell(struct repair *repair, bool loses, const char *format, ...) {
    char text[STORE_PATH_SIZE + 256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    repair->loses |= loses;
    repair->report->action(repair->report->context, loses, text);
}

/* ---- finding out --------------------------------------------------------------------------------
 */

static int take_lock(struct repair *repair) {
    char path[STORE_PATH_SIZE];
    snprintf(path, sizeof(path), "%s/lock", repair->directory);
    repair->lock_fd = file_open(path, O_RDWR);
    if (repair->lock_fd < 0)
        return errno == ENOENT ? 0 : fail(repair, DG_ERR_IO, "lock", strerror(errno));
    if (flock(repair->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    return fail(repair, DG_ERR_BUSY, "lock", "the store is in use by another process: stop it");
}

static int load(struct repair *repair) {
    static const char restore[] = "it cannot be repaired: restore a backup";
    int err = take_lock(repair);
    if (err < 0)
        return err;
    err = store_read_format(repair->directory, &repair->store);
    if (err < 0)
        return fail(repair, err, "format", err == DG_ERR_CORRUPT ? restore : dg_err_text(err));
    err = draft_load(repair->directory, repair->store.secret, &repair->draft);
    if (err < 0)
        return fail(repair, err, "checkpoint", err == DG_ERR_CORRUPT ? restore : dg_err_text(err));
    err = journal_open_for_reading(&repair->journal, repair->directory,
                                   repair->store.journal_size_bytes, repair->store.secret);
    if (err < 0)
        return fail(repair, err, "journal", err == DG_ERR_CORRUPT ? restore : dg_err_text(err));
    return 0;
}

static void tell_partition(struct repair *repair, const struct format_partition *row,
                           const struct partition_finding *finding) {
    if (finding->is_torn)
        tell(repair, false,
             "stream %" PRIu64 " partition %" PRIu32
             ": the last block, torn when the power failed, is written back from the checkpoint",
             row->stream_id, row->partition);
    if (finding->log_start > row->log_start)
        tell(repair, true,
             "stream %" PRIu64 " partition %" PRIu32 ": a segment is damaged; the log start moves "
             "behind it: offsets %" PRId64 " to %" PRId64 " are lost",
             row->stream_id, row->partition, row->log_start, finding->log_start - 1);
}

/* The journal's ends are known before the cut: what it has for the partition goes, too. */
static void tell_cut(struct repair *repair, const struct format_partition *row,
                     const struct partition_finding *finding) {
    struct partition_key key = {.stream_id = row->stream_id, .number = row->partition};
    struct partition_end *end;
    HASH_FIND(hh, repair->journal_finding.ends, &key, sizeof(key), end);
    int64_t last = end ? end->next_offset : row->next_offset;
    repair->cuts = true;
    tell(repair, true,
         "stream %" PRIu64 " partition %" PRIu32 ": the newest segment is damaged; the partition "
         "ends before that: offsets %" PRId64 " to %" PRId64 " are lost, the epoch rises",
         row->stream_id, row->partition, finding->end.next_offset, last - 1);
    if (end) {
        end->next_offset = finding->end.next_offset;
        end->discard_lsn = repair->journal_finding.end_lsn;
    }
}

static int examine(struct repair *repair) {
    const struct examination examination = {.directory = repair->directory,
                                            .progress = repair->report->progress,
                                            .context = repair->report->context};
    const struct draft *draft = &repair->draft;
    int err = examine_journal(&repair->journal, draft, &repair->journal_finding);
    if (err < 0)
        return fail(repair, err, "journal", dg_err_text(err));
    repair->findings = calloc((size_t)draft->partition_count + 1, sizeof(*repair->findings));
    if (!repair->findings)
        return fail(repair, DG_ERR_NO_MEMORY, "", dg_err_text(DG_ERR_NO_MEMORY));
    for (uint32_t i = 0; i < draft->partition_count; i++) {
        const struct format_partition *row = &draft->partitions[i].row;
        err = examine_partition(&examination, &draft->partitions[i], &repair->findings[i]);
        if (err < 0)
            return fail(repair, err, "segments", strerror(errno));
        tell_partition(repair, row, &repair->findings[i]);
        if (repair->findings[i].is_cut)
            tell_cut(repair, row, &repair->findings[i]);
    }
    if (repair->journal_finding.later_lsn > 0) {
        repair->cuts = true;
        tell(repair, true,
             "the journal is damaged at LSN %" PRIu64 " and has a valid group at LSN %" PRIu64
             "; it ends before the damage: what was acknowledged after that is lost, the epoch "
             "rises",
             repair->journal_finding.end_lsn, repair->journal_finding.later_lsn);
    }
    return 0;
}

/* ---- files that are not needed ------------------------------------------------------------------
 */

static int remove_file(struct repair *repair, const char *path, const char *why) {
    struct stat status;
    if (stat(path, &status) != 0)
        return 0;
    tell(repair, false, "%s is removed: %s", path, why);
    if (!repair->options->apply || sys.unlink(path) == 0)
        return 0;
    return fail(repair, DG_ERR_IO, "", strerror(errno));
}

static int remove_expired(struct repair *repair, uint32_t index) {
    const struct format_partition *row = &repair->draft.partitions[index].row;
    const struct partition_finding *finding = &repair->findings[index];
    int err = 0;
    for (uint32_t i = 0; err == 0 && i + 1 < finding->count; i++) {
        if (finding->bases[i + 1] > finding->log_start)
            break;
        char path[STORE_PATH_SIZE];
        snprintf(path, sizeof(path), "%s/%" PRIu64 "/%" PRIu32 "/%020" PRId64 ".log",
                 repair->directory, row->stream_id, row->partition, finding->bases[i]);
        err = remove_file(repair, path, "it lies before the log start");
    }
    return err;
}

static int remove_files(struct repair *repair) {
    static const char *const unfinished[] = {"checkpoint.new", "format.new"};
    int err = 0;
    for (size_t i = 0; err == 0 && i < sizeof(unfinished) / sizeof(unfinished[0]); i++) {
        char path[STORE_PATH_SIZE];
        snprintf(path, sizeof(path), "%s/%s", repair->directory, unfinished[i]);
        err = remove_file(repair, path, "it was never finished");
    }
    for (uint32_t i = 0; err == 0 && i < repair->draft.partition_count; i++)
        err = remove_expired(repair, i);
    return err;
}

/* ---- doing it -----------------------------------------------------------------------------------
 */

static int create_segment(struct repair *repair, const struct format_partition *row) {
    char path[STORE_PATH_SIZE];
    bool created;
    snprintf(path, sizeof(path), "%s/%" PRIu64, repair->directory, row->stream_id);
    int error = file_make_directory(path, &created);
    snprintf(path, sizeof(path), "%s/%" PRIu64 "/%" PRIu32, repair->directory, row->stream_id,
             row->partition);
    if (error == 0)
        error = file_make_directory(path, &created);
    if (error == 0)
        error = file_sync_directory(repair->directory);
    size_t length = strlen(path);
    snprintf(path + length, sizeof(path) - length, "/%020" PRId64 ".log", row->segment_base);
    int fd = error ? -1 : file_open(path, O_RDWR | O_CREAT);
    if (error == 0 && fd < 0)
        error = errno;
    file_close(fd);
    path[length] = '\0';
    return error ? error : file_sync_directory(path);
}

static int change_draft(struct repair *repair) {
    struct draft *draft = &repair->draft;
    int err = 0;
    for (uint32_t i = 0; err == 0 && i < draft->partition_count; i++) {
        const struct partition_finding *finding = &repair->findings[i];
        struct draft_partition *partition = &draft->partitions[i];
        partition->row.log_start = finding->log_start;
        if (finding->newest_is_missing && create_segment(repair, &partition->row) != 0)
            err = DG_ERR_IO;
        if (err == 0 && finding->is_cut)
            err = draft_cut(partition, &finding->end, finding->block,
                            repair->journal_finding.end_lsn);
    }
    const struct partition_end *end, *next;
    int32_t epoch = draft->epochs.current + 1;
    HASH_ITER(hh, repair->journal_finding.ends, end, next) {
        if (err == 0 && repair->cuts)
            err = epoch_table_raise(&draft->epochs, &end->key, epoch, end->next_offset);
    }
    if (repair->cuts)
        draft->epochs.current = epoch;
    return err;
}

/* All that no group before the damage holds: other blocks of the ring are free or lost. */
static int clear_journal(struct repair *repair) {
    enum { STEP = 1024 * 1024 };
    uint64_t size = repair->journal.size_bytes, at = repair->journal_finding.end_lsn;
    uint64_t end = repair->draft.loaded.header.lsn + size;
    uint8_t *zeros = calloc(1, STEP);
    int fd = file_open(repair->journal.path, O_RDWR);
    int error = !zeros ? ENOMEM : fd < 0 ? errno : 0;
    while (error == 0 && at < end) {
        uint64_t to_ring_end = size - at % size, step = end - at < STEP ? end - at : STEP;
        step = step < to_ring_end ? step : to_ring_end;
        error = file_write(fd, zeros, step, (off_t)(at % size));
        at += step;
    }
    if (error == 0 && sys.fsync(fd) != 0)
        error = errno;
    file_close(fd);
    free(zeros);
    return error;
}

static int write_changes(struct repair *repair) {
    int err = change_draft(repair);
    if (err < 0)
        return fail(repair, err, "", dg_err_text(err));
    repair->store.version = FORMAT_VERSION_EPOCHS;
    int error = repair->cuts ? store_write_format(repair->directory, &repair->store) : 0;
    if (error == 0)
        error = draft_save(&repair->draft, repair->directory, repair->store.secret);
    if (error == 0 && repair->journal_finding.later_lsn > 0)
        error = clear_journal(repair);
    if (error == 0)
        return 0;
    return fail(repair, errno_is_no_room(error) ? DG_ERR_STORAGE_FULL : DG_ERR_IO, "",
                strerror(error));
}

static int open_and_close(struct repair *repair) {
    struct stream_options options = {
        .directory = repair->directory,
        .journal_size_bytes = repair->store.journal_size_bytes,
        .segment_size_bytes = INT32_MAX,
        .segment_age_ms = INT64_MAX,
    };
    _Static_assert((int)STREAM_ERROR_SIZE <= (int)STORAGE_REPAIR_ERROR_SIZE, "its message fits");
    struct stream *stream;
    journal_close(&repair->journal);
    file_close(repair->lock_fd);
    repair->lock_fd = -1;
    int err = stream_open(&options, &stream, repair->error);
    if (err == 0)
        stream_close(stream);
    return err;
}

static int run(struct repair *repair) {
    int err = load(repair);
    if (err == 0)
        err = examine(repair);
    if (err == 0 && repair->options->apply && repair->loses && !repair->options->accept_loss)
        return DG_ERR_PRECONDITION;
    if (err == 0 && repair->options->apply && repair->loses)
        err = write_changes(repair);
    if (err == 0)
        err = remove_files(repair);
    if (err == 0 && repair->options->apply)
        err = open_and_close(repair);
    if (err == 0 && repair->loses && !repair->options->accept_loss)
        err = DG_ERR_PRECONDITION;
    return err;
}

int storage_repair(const char *directory, const struct storage_repair_options *options,
                   const struct storage_repair_report *report, char *ret_error) {
    struct repair repair = {.directory = directory,
                            .options = options,
                            .report = report,
                            .error = ret_error,
                            .lock_fd = -1,
                            .journal.fd = -1};
    ret_error[0] = '\0';
    int err = run(&repair);
    for (uint32_t i = 0; repair.findings && i < repair.draft.partition_count; i++)
        partition_finding_free(&repair.findings[i]);
    free(repair.findings);
    journal_finding_free(&repair.journal_finding);
    draft_free(&repair.draft);
    journal_close(&repair.journal);
    file_close(repair.lock_fd);
    return err;
}
