#include "registry/password.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/metrics.h"
#include "common/thread.h"

enum { QUEUE_MAX = 64, THREADS = 2 };

struct password_pool {
    pthread_t threads[THREADS];
    unsigned thread_count;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct password_job *first, **last;
    unsigned waiting;
    bool stopping;
};

static struct password_job *take_job(struct password_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    while (!pool->first && !pool->stopping)
        pthread_cond_wait(&pool->changed, &pool->lock);
    struct password_job *job = pool->stopping ? NULL : pool->first;
    if (job) {
        pool->first = job->next;
        if (!pool->first)
            pool->last = &pool->first;
        pool->waiting--;
    }
    pthread_mutex_unlock(&pool->lock);
    return job;
}

static void *run(void *context) {
    struct password_pool *pool = context;
    struct password_job *job;
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
    pool->last = &pool->first;
    while (pool->thread_count < THREADS &&
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
    while (pool->first) {
        struct password_job *job = pool->first;
        pool->first = job->next;
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
    if (pool->waiting < QUEUE_MAX && !pool->stopping) {
        job->next = NULL;
        *pool->last = job;
        pool->last = &job->next;
        pool->waiting++;
        pthread_cond_signal(&pool->changed);
        err = 0;
    }
    pthread_mutex_unlock(&pool->lock);
    return err;
}
