/* Committed offsets that the stream does not reach: after a restore or a repair. */
#pragma once

#include <stdint.h>

struct stream;

/* How many there are; logs one line when there are any, and sets the metric. Their consumers find
 * out by the leader epoch, or are told "offset out of range". At start, one thread. */
uint64_t kafka_find_offsets_beyond(struct stream *stream);
