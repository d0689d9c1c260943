/* Randomness from the kernel (getrandom). Aborts if the kernel has none. Any thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

void random_bytes(void *ret_bytes, size_t size);
uint64_t random_u64(void);
