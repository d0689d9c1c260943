/* Threads with a name that `top -H` shows, deaf to signals: those are the main thread's. */
#pragma once

#include <pthread.h>

#include "common/err.h"

/* Names longer than 15 bytes are cut. DG_ERR_NO_MEMORY: the system gives no thread. */
DG_NODISCARD int thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *),
                              void *context);
