/*
 * CRC-32C (Castagnoli), as in Kafka's RecordBatch v2: reflected, initial and final value inverted.
 * crc32c_update() continues from a previous result; start with 0. Pure; any thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c_update(uint32_t crc, const void *data, size_t size);

/* CRC of A||B from CRC(A), CRC(B) and the length of B, without the bytes. */
uint32_t crc32c_combine(uint32_t crc_a, uint32_t crc_b, size_t size_b);
