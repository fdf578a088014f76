/* The prompts of a load: random ids, random ids with shared prefixes, or a file. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/request.h"
#include "base/error.h"

enum { BENCH_FILE_BYTES_MAX = 1 << 30 };

struct bench_prompt {
    uint32_t *token_ids; /* [n_token_ids] owned, or NULL */
    size_t n_token_ids;
    char *text;          /* owned, NUL-terminated, or NULL */
    bool as_message;     /* text is a user's message for the chat template */
    uint32_t output_len; /* tokens wanted */
};

struct bench_data {
    struct bench_prompt *prompts; /* [count] owned */
    size_t count;
};

struct random_data_options {
    size_t num_prompts;
    uint32_t input_len, output_len, vocab_size; /* tokens */
    uint32_t output_len_min; /* 0 = every answer has output_len; else its length is drawn, from this one on */
    uint32_t prefix_len;     /* of input_len: shared within a group; 0 = nothing shared */
    uint32_t num_prefixes;   /* groups, >= 1 */
    uint64_t seed, prefix_seed; /* prefix_seed: of what is shared */
};

err_t bench_data_random(const struct random_data_options *options, struct bench_data *out) ERR_MUST_CHECK;
/* JSON lines: {"prompt": text, "output_tokens": n (optional)} as vLLM's custom data set, or {"messages":
 * [...]} whose last user message is sent. The first num_prompts lines, again from the top when there are
 * fewer. Errors name file and line. */
err_t bench_data_file(const char *path, size_t num_prompts, uint32_t output_len,
                      struct bench_data *out) ERR_MUST_CHECK;
/* A prompt of ids as a request of its output_len, EOS ignored; temperature 0 is greedy. Borrows the ids. */
struct request bench_prompt_request(const struct bench_prompt *prompt, double temperature);
void bench_data_free(struct bench_data *data);
