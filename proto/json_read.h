/* JSON texts that come with every request and every piece of an answer, read into jansson's values several
 * times as fast as jansson reads them. */
#pragma once

#include <jansson.h>
#include <stddef.h>

/* json_loadb, for flags out of JSON_REJECT_DUPLICATES and JSON_ALLOW_NUL: the same values, and NULL with the
 * same *error. What is not plain (a fault, a NUL, deep nesting) is left to jansson. Any thread. */
json_t *json_read(const char *text, size_t text_bytes, size_t flags, json_error_t *error);
/* What jansson is not needed for; NULL = it is. For the test and the fuzzer. */
json_t *json_read_plain(const char *text, size_t text_bytes, size_t flags);
