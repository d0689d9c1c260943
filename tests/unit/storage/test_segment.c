/* Segment files: what is synced when, what is reserved. */
#include <criterion/criterion.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/sys.h"
#include "storage/local/format.h"
#include "storage/local/segment.h"
#include "support.h"

TestSuite(segment, .fini = check_leaks);

static struct segment *create_dirty(struct segment_files *files, uint32_t partition) {
    struct segment *segment = segment_create(files, 7, partition, 0, 1);
    cr_assert(segment && segment_create_file(segment) == 0);
    uint8_t *block = aligned_alloc(FORMAT_BLOCK, FORMAT_BLOCK);
    memset(block, 'x', FORMAT_BLOCK);
    segment_write_blocks(segment, block, FORMAT_BLOCK, 0);
    free(block);
    return segment;
}

static sem_t sync_entered, sync_may_go_on;
static int (*real_fdatasync)(int fd);

static int slow_fdatasync(int fd) {
    sem_post(&sync_entered);
    sem_wait(&sync_may_go_on);
    return real_fdatasync(fd);
}

static void *sync_one(void *segment) {
    segment_sync(segment);
    return NULL;
}

static atomic_bool all_synced;

static void *sync_all(void *files) {
    segment_files_sync(files);
    atomic_store(&all_synced, true);
    return NULL;
}

/* The journal is freed after segment_files_sync(): a sync that the placer has begun counts too. */
Test(segment, all_is_synced_when_another_thread_was_at_it) {
    struct test_store store;
    test_store_init(&store);
    struct segment_files files;
    segment_files_init(&files, store.directory);
    struct segment *segment = create_dirty(&files, 0);
    sem_init(&sync_entered, 0, 0);
    sem_init(&sync_may_go_on, 0, 0);
    real_fdatasync = sys.fdatasync;
    sys.fdatasync = slow_fdatasync;
    pthread_t placer, checkpointer;
    pthread_create(&placer, NULL, sync_one, segment);
    sem_wait(&sync_entered);
    pthread_create(&checkpointer, NULL, sync_all, &files);
    usleep(50000);
    cr_expect(!atomic_load(&all_synced));
    sem_post(&sync_may_go_on);
    pthread_join(placer, NULL);
    pthread_join(checkpointer, NULL);
    segment_free(segment);
    segment_files_free(&files);
    test_store_remove(&store);
}

static struct segment *written_again;
static unsigned sync_count;

static int writing_fdatasync(int fd) {
    if (++sync_count < 50)
        segment_mark_dirty(written_again);
    return 0;
}

/* What becomes dirty meanwhile is for the next time: a busy placer must not keep it from ending. */
Test(segment, syncs_what_was_dirty_and_no_more) {
    struct test_store store;
    test_store_init(&store);
    struct segment_files files;
    segment_files_init(&files, store.directory);
    struct segment *segments[3];
    for (uint32_t i = 0; i < 3; i++)
        segments[i] = create_dirty(&files, i);
    written_again = segments[0];
    sys.fdatasync = writing_fdatasync;
    segment_files_sync(&files);
    cr_assert_eq(sync_count, 3);
    segment_files_sync(&files);
    cr_assert_eq(sync_count, 4);
    for (uint32_t i = 0; i < 3; i++)
        segment_free(segments[i]);
    segment_files_free(&files);
    test_store_remove(&store);
}
