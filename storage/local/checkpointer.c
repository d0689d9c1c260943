/* The checkpointer's thread: when to take a checkpoint (the file's format: checkpoint.c). */
#include "storage/local/checkpointer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/sys.h"
#include "common/thread.h"
#include "storage/local/engine.h"
#include "storage/local/walk.h"

enum {
    CHECKPOINTER_TICK_MS = 500,
    CHECKPOINT_AGE_MS = 60 * 1000, /* an idle store's journal does not stay long */
};

void checkpointer_init(struct checkpointer *checkpointer) {
    *checkpointer = (struct checkpointer){0};
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&checkpointer->mutex, NULL);
    pthread_cond_init(&checkpointer->work, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void checkpointer_free(struct checkpointer *checkpointer) {
    pthread_mutex_destroy(&checkpointer->mutex);
    pthread_cond_destroy(&checkpointer->work);
}

void checkpointer_request(struct checkpointer *checkpointer) {
    pthread_mutex_lock(&checkpointer->mutex);
    bool wake = !checkpointer->wanted;
    checkpointer->wanted = true;
    pthread_mutex_unlock(&checkpointer->mutex);
    if (wake)
        pthread_cond_signal(&checkpointer->work);
}

/* Sleeps until wanted or the next tick. False: stopping. */
static bool wait_for_work(struct checkpointer *checkpointer, bool *ret_wanted) {
    struct timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_nsec += CHECKPOINTER_TICK_MS * 1000000L;
    if (deadline.tv_nsec >= 1000000000L) {
        deadline.tv_sec++;
        deadline.tv_nsec -= 1000000000L;
    }
    pthread_mutex_lock(&checkpointer->mutex);
    int waited = 0;
    while (!checkpointer->wanted && !checkpointer->is_stopping && waited != ETIMEDOUT)
        waited = pthread_cond_timedwait(&checkpointer->work, &checkpointer->mutex, &deadline);
    *ret_wanted = checkpointer->wanted;
    checkpointer->wanted = false;
    bool goes_on = !checkpointer->is_stopping;
    pthread_mutex_unlock(&checkpointer->mutex);
    return goes_on;
}

/* Units are refused while the disk is full; this notices that space has come back even if nobody
 * sends any. */
static void probe_space(struct stream *stream) {
    struct statvfs status;
    if (!atomic_load(&stream->is_full) || atomic_load(&stream->checkpointer.has_failed))
        return; /* a checkpoint that finds room tells it */
    int fd = file_open(stream->directory, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return;
    uint64_t reserve = atomic_load(&stream->files.reserve_bytes);
    if (sys.fstatvfs(fd, &status) == 0 &&
        (uint64_t)status.f_bavail * status.f_frsize >= reserve + LIMIT_GROUP_BYTES)
        stream_set_full(stream, false);
    file_close(fd);
}

static bool has_applied_since(struct stream *stream) {
    pthread_mutex_lock(&stream->committer.apply_mutex);
    uint64_t applied = stream->committer.applied_lsn;
    pthread_mutex_unlock(&stream->committer.apply_mutex);
    return applied != atomic_load(&stream->journal.tail_lsn);
}

static uint64_t retention_now(struct stream *stream) {
    uint64_t step_ms;
    uint64_t now_ms = retention_clock_read(&stream->checkpointer.clock, (uint64_t)clock_wall_ms(),
                                           clock_monotonic_ms(), &step_ms);
    if (step_ms > 0)
        LOG_WARN("retention.clock_step", log_int("forward_ms", (int64_t)step_ms),
                 log_int("hold_ms", RETENTION_HOLD_MS),
                 log_text("effect", "nothing expires by age meanwhile"));
    return now_ms;
}

/* Looks whether a backup asks for a checkpoint. */
static bool is_asked(struct stream *stream) {
    char wanted[STORE_PATH_SIZE], taking[STORE_PATH_SIZE];
    snprintf(wanted, sizeof(wanted), "%s/" CHECKPOINT_WANTED, stream->directory);
    snprintf(taking, sizeof(taking), "%s/" CHECKPOINT_TAKING, stream->directory);
    bool is_there = access(wanted, F_OK) == 0; /* root may have made it: not to be read then */
    if (is_there && sys.rename(wanted, taking) == 0)
        stream->checkpointer.is_asked = true;
    else if (is_there && errno != ENOENT && !errno_is_no_room(errno))
        storage_die("rename", wanted, errno);
    return stream->checkpointer.is_asked;
}

static void answer(struct stream *stream) {
    char taking[STORE_PATH_SIZE];
    snprintf(taking, sizeof(taking), "%s/" CHECKPOINT_TAKING, stream->directory);
    sys.unlink(taking);
    stream->checkpointer.is_asked = false;
}

static int take_and_tell(struct stream *stream) {
    int err = checkpoint_take(stream);
    atomic_store(&stream->checkpointer.has_failed, err < 0);
    if (err == 0 && stream->checkpointer.is_asked)
        answer(stream);
    if (err < 0)
        stream_set_full(stream, true); /* the journal fills up; it is tried again at every tick */
    committer_wake(&stream->committer);
    return err;
}

static void *run_checkpointer(void *context) {
    struct stream *stream = context;
    uint64_t last_ms = clock_monotonic_ms();
    bool wanted;
    while (wait_for_work(&stream->checkpointer, &wanted)) {
        retention_request(stream, retention_now(stream));
        bool is_old = clock_monotonic_ms() - last_ms >= CHECKPOINT_AGE_MS;
        bool retry = atomic_load(&stream->checkpointer.has_failed);
        wanted |= is_asked(stream);
        if ((wanted || retry || (is_old && has_applied_since(stream))) &&
            take_and_tell(stream) == 0) {
            last_ms = clock_monotonic_ms();
            retention_remove(stream);
        }
        probe_space(stream);
        walk_forget_indexes(stream, LIMIT_INDEX_BYTES);
    }
    return NULL;
}

int checkpointer_start(struct stream *stream) {
    struct checkpointer *checkpointer = &stream->checkpointer;
    int err = thread_start(&checkpointer->thread, "checkpointer", run_checkpointer, stream);
    checkpointer->is_running = err == 0;
    return err;
}

void checkpointer_stop(struct stream *stream) {
    struct checkpointer *checkpointer = &stream->checkpointer;
    if (!checkpointer->is_running)
        return;
    pthread_mutex_lock(&checkpointer->mutex);
    checkpointer->is_stopping = true;
    pthread_cond_signal(&checkpointer->work);
    pthread_mutex_unlock(&checkpointer->mutex);
    pthread_join(checkpointer->thread, NULL);
    checkpointer->is_running = false;
}
