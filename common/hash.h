/*
 * Hashing of keys that strangers choose: XXH3 with a seed drawn once per process, so that nobody
 * outside can aim at one bucket. Include this before uthash.h: it makes uthash use it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

uint64_t hash_bytes(const void *data, size_t size);

#define HASH_FUNCTION(keyptr, keylen, hashv) ((hashv) = (unsigned)hash_bytes((keyptr), (keylen)))
