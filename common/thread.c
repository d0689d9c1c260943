#include "common/thread.h"

#include <signal.h>
#include <stdio.h>

int thread_start(pthread_t *ret_thread, const char *name, void *(*run)(void *), void *context) {
    enum { NAME_SIZE = 16 }; /* the kernel's */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the new thread inherits the mask */
    int failed = pthread_create(ret_thread, NULL, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed)
        return DG_ERR_NO_MEMORY;
    char cut[NAME_SIZE];
    snprintf(cut, sizeof(cut), "%.*s", NAME_SIZE - 1, name);
    pthread_setname_np(*ret_thread, cut);
    return 0;
}
