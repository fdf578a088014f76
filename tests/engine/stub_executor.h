/* A stand-in for a model behind the engine. It keeps a KV store of plain tokens, reads every sequence's whole
 * context back through its block table, and draws a token that is a function of that context, the seed and
 * the choice: a wrong table, row, slot or history gives other tokens, and stub_expect says which ones are
 * right. Results become visible at collect, as on a device. The test can hold it before any step. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "api/event.h"
#include "engine/executor.h"

enum { STUB_VOCAB = 50000, STUB_STEPS_MAX = 2 };

struct stub_options {
    uint32_t vocab_size, max_model_len, num_kv_blocks, block_tokens, max_num_seqs, max_num_batched_tokens;
};

struct stub;
struct stub *stub_create(const struct stub_options *options);
void stub_destroy(struct stub *stub);
struct executor stub_executor(struct stub *stub);

/* While held, a step waits at the entry of forward until it gets a permit. Any thread. */
void stub_hold(struct stub *stub);
void stub_permit(struct stub *stub, uint64_t n_steps);
void stub_let_go(struct stub *stub);
/* Waits until that many steps have come to forward since the start. */
void stub_wait_steps(struct stub *stub, uint64_t n_steps);
uint64_t stub_steps(struct stub *stub);

/* Lost for good, as a device is: at the n-th call of that kind from now on (0 = the next), which says so like
 * all after it. Aborts when anything is submitted to it afterwards. Any thread. */
enum stub_call { STUB_FORWARD, STUB_SAMPLE, STUB_COLLECT, STUB_CALLS };
void stub_lose(struct stub *stub, enum stub_call call, uint64_t nth);

/* Pieces of work from now on that wait for a time without any; aborts when one is done while a step is in
 * flight. Any thread. */
void stub_put_off(struct stub *stub, uint64_t n_pieces);
/* Waits until none is left. */
void stub_wait_tended(struct stub *stub);

/* Requests with this seed get results of that status from their n-th output on. Before any request. */
void stub_poison(struct stub *stub, uint64_t seed, uint32_t output, enum step_result_status status);

/* The token after tokens[0..n): temperature 0 ignores the seed. */
uint32_t stub_draw(const struct stub_options *options, const uint32_t *tokens, size_t n, float temperature,
                   uint64_t seed, uint32_t choice_index);
/* What the stub says of token `target` after tokens[0..n), with n_top alternatives. */
struct position_logprobs stub_logprobs(const uint32_t *tokens, size_t n, uint32_t target, uint32_t n_top);
