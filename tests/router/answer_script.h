/* An answer as one line of text, for tests: what a provider's bytes become. */
#pragma once

#include "router/providers/provider_answer.h"

/* Reads a whole stream (SSE) in pieces of `piece` bytes, or a body when is_stream is false. Returns a
 * mem_alloc'd text, e.g. "0:text(Hi) 0:tool0(call_1 f {}) 0:finish(stop)", then "
 * usage(in,cached,written,out,reasoning)" where one of them is known, then " error(CODE)". */
char *answer_script(enum provider_kind kind, const char *bytes, size_t size, size_t piece, bool is_stream);
