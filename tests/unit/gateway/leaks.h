/* Fini of a suite: Criterion lets a test that leaks pass, this does not. */
#pragma once

#include <stdlib.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
static inline void check_leaks(void) {
    if (__lsan_do_recoverable_leak_check())
        abort();
}
#else
static inline void check_leaks(void) {
}
#endif
