#include "registry/password.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/metrics.h"
#include "common/thread.h"

/* One job in so many is of those that are not preferred, when such wait. */
enum { THREADS_MAX = 2, OTHERS_EVERY = 4, GIVE_WAY = 10 };

struct password_queue {
    struct password_job *first, **last;
};

struct password_pool {
    pthread_t threads[THREADS_MAX];
    unsigned thread_count;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct password_queue preferred, others;
    unsigned waiting, turn;
    bool stopping;
};

static void push(struct password_queue *queue, struct password_job *job) {
    job->next = NULL;
    *queue->last = job;
    queue->last = &job->next;
}

static struct password_job *pop(struct password_queue *queue) {
    struct password_job *job = queue->first;
    if (job)
        queue->first = job->next;
    if (!queue->first)
        queue->last = &queue->first;
    return job;
}

static struct password_job *pop_next(struct password_pool *pool) {
    bool others_first = pool->turn++ % OTHERS_EVERY == 0;
    struct password_job *job = pop(others_first ? &pool->others : &pool->preferred);
    if (!job)
        job = pop(others_first ? &pool->preferred : &pool->others);
    pool->waiting--;
    return job;
}

static struct password_job *take_job(struct password_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    while (pool->waiting == 0 && !pool->stopping)
        pthread_cond_wait(&pool->changed, &pool->lock);
    struct password_job *job = pool->stopping ? NULL : pop_next(pool);
    pthread_mutex_unlock(&pool->lock);
    return job;
}

/* Of this thread alone, as Linux has it. Without it all works, only with less regard. */
static void give_way(void) {
    id_t thread = (id_t)gettid();
    errno = 0;
    int nice = getpriority(PRIO_PROCESS, thread);
    if (errno == 0)
        (void)setpriority(PRIO_PROCESS, thread, nice + GIVE_WAY);
}

static void *run(void *context) {
    struct password_pool *pool = context;
    struct password_job *job;
    give_way();
    while ((job = take_job(pool))) {
        metric_add(METRIC_PASSWORD_RUNS, 1);
        job->err = credential_hash_password(job->password, job->salt, job->encoded);
        mailbox_post(job->reply_to, &job->mail);
    }
    return NULL;
}

int password_pool_create(struct password_pool **ret_pool) {
    struct password_pool *pool = calloc(1, sizeof(*pool));
    if (!pool)
        return DG_ERR_NO_MEMORY;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->changed, NULL);
    pool->preferred.last = &pool->preferred.first;
    pool->others.last = &pool->others.first;
    unsigned threads = sysconf(_SC_NPROCESSORS_ONLN) > THREADS_MAX ? THREADS_MAX : 1;
    while (pool->thread_count < threads &&
           thread_start(&pool->threads[pool->thread_count], "passwords", run, pool) == 0)
        pool->thread_count++;
    if (pool->thread_count == 0) {
        password_pool_free(pool);
        return DG_ERR_NO_MEMORY;
    }
    *ret_pool = pool;
    return 0;
}

void password_pool_free(struct password_pool *pool) {
    if (!pool)
        return;
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
    while (pool->waiting > 0) {
        struct password_job *job = pop_next(pool);
        job->err = DG_ERR_SHUTTING_DOWN;
        mailbox_post(job->reply_to, &job->mail);
    }
    pthread_cond_destroy(&pool->changed);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

int password_pool_submit(struct password_pool *pool, struct password_job *job) {
    int err = DG_ERR_BUSY;
    if (!pool)
        return DG_ERR_SHUTTING_DOWN;
    pthread_mutex_lock(&pool->lock);
    unsigned room = LIMIT_PASSWORD_QUEUE - (job->is_preferred ? 0 : LIMIT_PASSWORD_QUEUE_KEPT);
    if (pool->waiting < room && !pool->stopping) {
        push(job->is_preferred ? &pool->preferred : &pool->others, job);
        pool->waiting++;
        pthread_cond_signal(&pool->changed);
        err = 0;
    }
    pthread_mutex_unlock(&pool->lock);
    return err;
}
