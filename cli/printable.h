/*
 * Text from outside on its way to a terminal. Names and payloads are other people's: a control
 * character among them could move the cursor, change the title or imitate lines. Pure but for
 * printable_write; any thread.
 */
#pragma once

#include <stddef.h>
#include <stdio.h>

/* Writes the text with \n, \t and \x1b for what is a control character or not UTF-8. */
void printable_write(FILE *out, const void *data, size_t size);

/* The same into ret_text: what fits of it, and of that at most width_max characters; ends in NUL,
 * never within a character or an escape. */
void printable_copy(const char *text, size_t width_max, char *ret_text, size_t ret_size);

/* Code points of a text made by printable_copy. */
size_t printable_width(const char *text);
