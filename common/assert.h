/*
 * Invariants. dg_assert() stays on in release builds: a broken invariant ends the process before it
 * can acknowledge or overwrite anything. Input from outside never reaches an assert unvalidated.
 */
#pragma once

_Noreturn void dg_assert_failed(const char *expression, const char *file, int line);

#define dg_assert(expression)                      \
    (__builtin_expect(!!(expression), 1) ? (void)0 \
                                         : dg_assert_failed(#expression, __FILE__, __LINE__))
