/*
 * The threads that run the slow password function, behind a short queue: a storm of password logins
 * gets "busy" and costs neither the registry thread nor the workers. Two threads, or one where
 * there are only two processors, and they give way to all others.
 */
#pragma once

#include <stdbool.h>

#include "common/err.h"
#include "common/mailbox.h"
#include "common/slice.h"
#include "registry/credential.h"

struct password_pool;

/* One password to be encoded under a salt, made by its asker; comes back to reply_to with err 0 or
 * DG_ERR_NO_MEMORY. */
struct password_job {
    struct mail mail; /* deliver is the asker's */
    struct mailbox *reply_to;
    struct password_job *next;
    bool is_preferred; /* goes before the others, and has room in the queue that they do not have */
    struct slice password; /* stays valid until it comes back */
    uint8_t salt[CREDENTIAL_SALT_SIZE];
    char encoded[CREDENTIAL_PASSWORD_SIZE]; /* the result */
    int err;
};

DG_NODISCARD int password_pool_create(struct password_pool **ret_pool);
/* Finishes the jobs in hand; the rest comes back with DG_ERR_SHUTTING_DOWN. Accepts NULL. */
void password_pool_free(struct password_pool *pool);

/* DG_ERR_BUSY when the queue is full, DG_ERR_SHUTTING_DOWN for NULL; the job then stays the
 * caller's. Any thread. */
DG_NODISCARD int password_pool_submit(struct password_pool *pool, struct password_job *job);
