/* Owned copies of a request's lists, in one block: stop strings and ids, biases, allowed ids (sorted), and
 * bad words turned into token sequences. */
#pragma once

#include "api/sampling_params.h"
#include "base/error.h"
#include "kernels/sampler.h"
#include "text/tokenizer.h"

/* Repoints params' lists into a new block, *lists (mem_free), and fills the lists of *sampler: stop ids are
 * eos_ids (unless ignore_eos) and stop_token_ids. tokenizer may be NULL when there are no bad words. A bad
 * word is forbidden both as written and after a space, as its tokens differ. */
err_t sampling_lists_own(struct sampling_params *params, const struct tokenizer *tokenizer,
                         const uint32_t *eos_ids, size_t n_eos_ids, struct sampler_params *sampler,
                         void **lists) ERR_MUST_CHECK;

/* ERR_INVALID_ARGUMENT when the lists leave no token to begin with, n_output_prefix tokens being there: bad
 * words of one token, and the stop ids before min_tokens, forbid all that is allowed. Longer bad words can do
 * so later: that shows when it happens. */
err_t sampling_lists_check(const struct sampler_params *sampler, uint32_t vocab_size,
                           size_t n_output_prefix) ERR_MUST_CHECK;
