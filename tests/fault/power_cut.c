/*
 * Power cuts at random moments, with torn and reordered sectors, one after the other on the same
 * store: after each the store opens, every acknowledged record is there, in order, unchanged, and
 * nothing stands where nothing was written. A control run must be caught losing records, for a
 * checker that cannot fail proves nothing: with sectors of 512 bytes one on a disk whose syncs do
 * nothing; with sectors of 4 KiB, which may be spoiled, one whose checkpoints say of the segments'
 * last blocks what the files say.
 *
 *     power_cut [cycles] [seed] [sector bytes]
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/storage/support.h"
#include "common/crc32c.h"
#include "disk.h"
#include "storage/local/engine.h"

enum { PARTITIONS = 6, STREAM_ID = 7, STORE_CUTS = 10, CONTROL_CYCLES = 50 };

enum run { RUN_REAL, RUN_WITHOUT_SYNCS, RUN_WITHOUT_BLOCKS };

/* Shared with the child: what it has been promised. */
struct promises {
    int64_t acked_end[PARTITIONS]; /* offsets below are acknowledged */
};

static struct promises *promises;
static uint64_t random_state;
static unsigned sector_bytes = 512;

static uint64_t roll(uint64_t below) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 16) % below;
}

static void configure(struct test_store *store, uint64_t seed) {
    store->options.segment_size_bytes = 64 * 1024 + seed % 5 * 100 * 1024;
    store->options.retention_bytes = seed % 3 == 0 ? 600 * 1024 : 0;
    store->options.retention_ms = seed % 5 == 0 ? 20 : 0; /* idle partitions become empty */
    store->options.segment_age_ms = seed % 5 == 0 ? 30 : 3600 * 1000;
}

static void on_ack(void *context, const struct stream_ticket *ticket, int err, int64_t offset) {
    if (err == 0 && offset + 1 > promises->acked_end[ticket->owner])
        promises->acked_end[ticket->owner] = offset + 1;
}

/* ---- the child: writes until the power fails ----------------------------------------------------
 */

static uint32_t random_padding(void) {
    uint64_t kind = roll(20);
    return kind == 0  ? (uint32_t)roll(200000)
           : kind < 5 ? (uint32_t)roll(5000)
                      : (uint32_t)roll(300);
}

static void write_until_cut(struct test_store *store) {
    int64_t next[PARTITIONS];
    struct stream_offsets offsets;
    for (unsigned i = 0; i < PARTITIONS; i++) {
        stream_offsets(store->stream, STREAM_ID, i, &offsets);
        next[i] = offsets.durable_end;
    }
    for (;;) {
        for (uint64_t left = 1 + roll(60); left > 0; left--) {
            unsigned partition = (unsigned)roll(PARTITIONS);
            if (test_append_for(store, STREAM_ID, partition, (uint64_t)next[partition],
                                random_padding(), 1000 + next[partition], partition) == 0)
                next[partition]++;
        }
        if (roll(8) == 0)
            checkpointer_request(&store->stream->checkpointer);
        if (roll(3) == 0)
            test_store_settle(store);
        else
            test_store_turn(store);
    }
}

static void run_child(struct test_store *store, const struct disk_options *options) {
    disk_start(options);
    store->done = on_ack;
    int err = test_store_open(store);
    if (err < 0) {
        fprintf(stderr, "open under the shim: %s: %s\n", dg_err_text(err), store->error);
        _exit(1);
    }
    write_until_cut(store);
}

/* ---- the parent: checks -------------------------------------------------------------------------
 */

static bool check(struct test_store *store, bool quiet) {
    int err = test_store_open(store);
    if (err < 0) {
        if (!quiet)
            fprintf(stderr, "open after the cut: %s: %s\n", dg_err_text(err), store->error);
        return false;
    }
    bool good = true;
    for (unsigned i = 0; i < PARTITIONS && good; i++) {
        struct stream_offsets offsets;
        stream_offsets(store->stream, STREAM_ID, i, &offsets);
        good = offsets.durable_end >= promises->acked_end[i] &&
               test_read_all(store, STREAM_ID, i, offsets.log_start, 0) ==
                   offsets.durable_end - offsets.log_start;
        if (!good && !quiet)
            fprintf(stderr, "partition %u: [%" PRId64 ", %" PRId64 "), acknowledged %" PRId64 "\n",
                    i, offsets.log_start, offsets.durable_end, promises->acked_end[i]);
        promises->acked_end[i] = offsets.durable_end;
    }
    test_store_close(store);
    return good;
}

/* The control run's: the checkpoint's last blocks become what the segment files hold. */
static void forget_blocks(const char *directory) {
    char path[600], segment[600];
    snprintf(path, sizeof(path), "%s/checkpoint", directory);
    uint8_t *data;
    size_t size;
    if (file_load(path, LIMIT_CHECKPOINT_BYTES, &data, &size) < 0)
        return; /* the first one had not been written */
    struct format_checkpoint header;
    memcpy(&header, data, sizeof(header));
    uint8_t *block =
        data + sizeof(header) + header.partition_count * sizeof(struct format_partition);
    for (uint32_t i = 0; i < header.partition_count; i++) {
        struct format_partition row;
        memcpy(&row, data + sizeof(header) + i * sizeof(row), sizeof(row));
        uint32_t bytes = format_last_block_bytes(&row);
        snprintf(segment, sizeof(segment), "%s/%" PRIu64 "/%" PRIu32 "/%020" PRId64 ".log",
                 directory, row.stream_id, row.partition, row.segment_base);
        int fd = open(segment, O_RDONLY);
        if (fd < 0 || pread(fd, block, bytes, row.segment_position - bytes) != (ssize_t)bytes)
            abort();
        close(fd);
        block += bytes;
    }
    uint32_t crc = crc32c_update(0, data, size - 4);
    memcpy(data + size - 4, &crc, sizeof(crc));
    if (file_replace(directory, "checkpoint", data, size) != 0)
        abort();
    free(data);
}

/* One cut, checked or not: the child works on store->directory, the image takes its place. */
static bool cycle(struct test_store *store, uint64_t seed, enum run run) {
    bool quiet = run != RUN_REAL;
    char image[300], old[300];
    snprintf(image, sizeof(image), "%s.image", store->directory);
    snprintf(old, sizeof(old), "%s", store->directory);
    random_state = seed * 0x2545f4914f6cdd1du | 1;
    configure(store, seed);
    struct disk_options options = {.live = store->directory,
                                   .image = image,
                                   .seed = seed,
                                   .sector_bytes = sector_bytes,
                                   .lies = run == RUN_WITHOUT_SYNCS};
    options.cut_at = 1 + roll(roll(4) == 0 ? 30 : 400);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        if (quiet && !freopen("/dev/null", "w", stderr))
            _exit(1);
        run_child(store, &options);
    }
    int status;
    waitpid(child, &status, 0);
    bool cut = WIFEXITED(status) && WEXITSTATUS(status) == DISK_EXIT_CUT;
    if (!cut) {
        fprintf(stderr, "seed %" PRIu64 ": the child ended with status %d\n", seed, status);
        return false;
    }
    test_store_remove(store);
    if (rename(image, old) != 0)
        abort();
    if (run == RUN_WITHOUT_BLOCKS)
        forget_blocks(old);
    /* Sometimes the next child recovers this, and the power fails in that too. */
    return (seed % 3 == 1 && run == RUN_REAL) || check(store, quiet);
}

/* Cycles on fresh stores, a few on each. Returns the first seed that fails, or 0. */
static uint64_t run_cycles(uint64_t first_seed, uint64_t count, enum run run) {
    for (uint64_t i = 0; i < count;) {
        struct test_store store;
        test_store_init(&store);
        memset(promises, 0, sizeof(*promises));
        bool good = true;
        for (unsigned cut = 0; cut < STORE_CUTS && i < count && good; cut++, i++)
            good = cycle(&store, first_seed + i, run);
        good = good && check(&store, run != RUN_REAL);
        if (!good) {
            if (run != RUN_REAL)
                test_store_remove(&store);
            else
                fprintf(stderr, "store left in %s\n", store.directory);
            return first_seed + i - 1;
        }
        test_store_remove(&store);
    }
    return 0;
}

int main(int argument_count, char **arguments) {
    uint64_t cycles = argument_count > 1 ? strtoull(arguments[1], NULL, 10) : 150;
    uint64_t seed = argument_count > 2 ? strtoull(arguments[2], NULL, 10) : 1;
    sector_bytes = argument_count > 3 ? (unsigned)strtoul(arguments[3], NULL, 10) : 512;
    promises =
        mmap(NULL, sizeof(*promises), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t failed = run_cycles(seed, cycles, RUN_REAL);
    if (failed) {
        fprintf(stderr, "power_cut: seed %" PRIu64 " lost something\n", failed);
        return 1;
    }
    enum run control = sector_bytes == 512 ? RUN_WITHOUT_SYNCS : RUN_WITHOUT_BLOCKS;
    uint64_t caught = run_cycles(seed, CONTROL_CYCLES, control);
    if (!caught) {
        fprintf(stderr, "power_cut: the control run was not caught\n");
        return 1;
    }
    printf("%" PRIu64 " power cuts survived; the control run was caught at seed %" PRIu64 "\n",
           cycles, caught);
    return 0;
}
