/* Requests with several fields wrong or right at once, from a seed: what the validator lets through is within
 * every limit, and what it refuses is outside one. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "api/validate.h"
#include "base/philox.h"
#include "base/utf8.h"

enum { ROUNDS = 300000, VOCAB = 500, MODEL_LEN = 64, IDS = 80, TEXTS = 20, BIASES = 4 };

static const struct validate_limits LIMITS = {.vocab_size = VOCAB,
                                              .max_model_len = MODEL_LEN,
                                              .max_n = 4,
                                              .has_tokenizer = true,
                                              .has_chat_template = false};

struct sample {
    struct request request;
    uint32_t ids[IDS], prefix[IDS], stop_ids[IDS], allowed[IDS];
    struct logit_bias bias[BIASES];
    const char *stops[TEXTS], *words[TEXTS];
};

static float pick_float(struct rng *rng)
{
    static const float values[] = {0,         1,     -1,      2,       -2,      100,    -100,
                                   0.5f,      1e-9f, 2.0001f, 1.0001f, 1e30f,   -1e-9f, INFINITY,
                                   -INFINITY, NAN,   101,     3,       2.8e-45f};
    return rng_below(rng, 2) ? 0.5f : values[rng_below(rng, sizeof values / sizeof *values)];
}

static int32_t pick_int(struct rng *rng)
{
    static const int32_t values[] = {0,  1,  -1, -2,        4,         5,       20,
                                     21, 64, 65, INT32_MAX, INT32_MIN, 1000000, 1000001};
    return rng_below(rng, 2) ? 1 : values[rng_below(rng, sizeof values / sizeof *values)];
}

static const char *pick_text(struct rng *rng)
{
    static const char *const values[] = {"a", "end", "\xc3\xa9", "", "\xff", "b\n", NULL};
    return rng_below(rng, 8) ? "ok" : values[rng_below(rng, sizeof values / sizeof *values)];
}

static size_t fill_ids(struct rng *rng, uint32_t *ids, size_t max)
{
    size_t n = rng_below(rng, 3) ? rng_below(rng, 4) : rng_below(rng, (uint32_t)max + 1);
    for (size_t i = 0; i < n; i++)
        ids[i] = rng_below(rng, 200) ? rng_below(rng, VOCAB) : rng_below(rng, 2) ? VOCAB : UINT32_MAX;
    return n;
}

static void fill_sampling(struct rng *rng, struct sample *sample)
{
    struct sampling_params *p = &sample->request.sampling;
    p->set = rng_u32(rng) & rng_u32(rng) & rng_u32(rng);
    p->temperature = pick_float(rng);
    p->top_p = pick_float(rng);
    p->min_p = pick_float(rng);
    p->top_k = pick_int(rng);
    p->repetition_penalty = pick_float(rng);
    p->presence_penalty = pick_float(rng);
    p->frequency_penalty = pick_float(rng);
    p->n = (uint32_t)pick_int(rng);
    p->logprobs = pick_int(rng);
    p->prompt_logprobs = pick_int(rng);
    p->truncate_prompt_tokens = pick_int(rng);
    p->max_tokens = (uint32_t)pick_int(rng);
    p->min_tokens = (uint32_t)pick_int(rng);
    p->stop = sample->stops;
    p->n_stop = rng_below(rng, 4) ? 0 : rng_below(rng, TEXTS + 1);
    p->bad_words = sample->words;
    p->n_bad_words = rng_below(rng, 4) ? 0 : rng_below(rng, TEXTS + 1);
    for (size_t i = 0; i < TEXTS; i++) {
        sample->stops[i] = pick_text(rng);
        sample->words[i] = pick_text(rng);
    }
    p->stop_token_ids = sample->stop_ids;
    p->n_stop_token_ids = fill_ids(rng, sample->stop_ids, IDS);
    p->allowed_token_ids = sample->allowed;
    p->n_allowed_token_ids = fill_ids(rng, sample->allowed, IDS);
    p->logit_bias = sample->bias;
    p->n_logit_bias = rng_below(rng, 4) ? 0 : rng_below(rng, BIASES + 1);
    for (size_t i = 0; i < p->n_logit_bias; i++)
        sample->bias[i] = (struct logit_bias){rng_below(rng, VOCAB + VOCAB / 20), pick_float(rng)};
}

static void fill_request(struct rng *rng, struct sample *sample)
{
    struct request *request = &sample->request;
    *request = (struct request){.prompt_kind = PROMPT_TOKEN_IDS, .token_ids = sample->ids};
    request->n_token_ids = fill_ids(rng, sample->ids, IDS);
    request->output_prefix_ids = sample->prefix;
    request->n_output_prefix_ids = rng_below(rng, 2) ? 0 : fill_ids(rng, sample->prefix, IDS);
    request->request_id = rng_below(rng, 2) ? pick_text(rng) : NULL;
    request->tenant = rng_below(rng, 2) ? pick_text(rng) : NULL;
    request->priority = rng_below(rng, 2) ? 0 : pick_int(rng);
    fill_sampling(rng, sample);
}

/* ---- The limits once more, written down as plainly as possible ---- */

static bool ids_fit(const uint32_t *ids, size_t n, size_t max)
{
    bool fit = n <= max;
    for (size_t i = 0; i < n && fit; i++)
        fit = ids[i] < VOCAB;
    return fit;
}

static bool texts_fit(const char *const *texts, size_t n, size_t max)
{
    bool fit = n <= max;
    for (size_t i = 0; i < n && fit; i++)
        fit = texts[i] && texts[i][0] && utf8_valid(texts[i], strlen(texts[i]));
    return fit;
}

static bool name_fits(const char *name)
{
    return !name || (utf8_valid(name, strlen(name)) && !strchr(name, '\n'));
}

static bool within(float value, float low, float high)
{
    return value >= low && value <= high;
}

static bool scalars_fit(const struct sampling_params *p)
{
    uint32_t set = p->set;
    return (!(set & SAMPLING_TEMPERATURE) || within(p->temperature, 0, 100)) &&
           (!(set & SAMPLING_TOP_P) || (within(p->top_p, 0, 1) && p->top_p > 0)) &&
           (!(set & SAMPLING_MIN_P) || within(p->min_p, 0, 1)) &&
           (!(set & SAMPLING_TOP_K) || p->top_k >= -1) &&
           (!(set & SAMPLING_REPETITION_PENALTY) || within(p->repetition_penalty, 0.01f, 100)) &&
           (!(set & SAMPLING_PRESENCE_PENALTY) || within(p->presence_penalty, -2, 2)) &&
           (!(set & SAMPLING_FREQUENCY_PENALTY) || within(p->frequency_penalty, -2, 2)) &&
           (!(set & SAMPLING_N) || (p->n >= 1 && p->n <= 4)) &&
           (!(set & SAMPLING_TRUNCATE_PROMPT_TOKENS) || p->truncate_prompt_tokens == -1 ||
            (p->truncate_prompt_tokens >= 1 && p->truncate_prompt_tokens <= MODEL_LEN)) &&
           (!(set & SAMPLING_LOGPROBS) || (p->logprobs >= -1 && p->logprobs <= SAMPLING_LOGPROBS_MAX)) &&
           (!(set & SAMPLING_PROMPT_LOGPROBS) ||
            (p->prompt_logprobs >= -1 && p->prompt_logprobs <= SAMPLING_LOGPROBS_MAX));
}

static bool is_right(const struct request *r)
{
    const struct sampling_params *p = &r->sampling;
    bool cut = p->set & SAMPLING_TRUNCATE_PROMPT_TOKENS; /* then a prompt may have any length */
    bool fit = r->n_token_ids >= 1 && (cut || r->n_token_ids < MODEL_LEN) &&
               ids_fit(r->token_ids, r->n_token_ids, IDS) &&
               ids_fit(r->output_prefix_ids, r->n_output_prefix_ids, MODEL_LEN) && name_fits(r->request_id) &&
               name_fits(r->tenant) &&
               abs(r->priority == INT32_MIN ? INT32_MAX : r->priority) <= REQUEST_PRIORITY_LIMIT;
    fit = fit && scalars_fit(p) && texts_fit(p->stop, p->n_stop, SAMPLING_STOP_MAX) &&
          texts_fit(p->bad_words, p->n_bad_words, SAMPLING_BAD_WORDS_MAX) &&
          ids_fit(p->stop_token_ids, p->n_stop_token_ids, SAMPLING_STOP_IDS_MAX) &&
          ids_fit(p->allowed_token_ids, p->n_allowed_token_ids, SAMPLING_ALLOWED_IDS_MAX);
    for (size_t i = 0; i < p->n_logit_bias && fit; i++)
        fit = p->logit_bias[i].token_id < VOCAB && within(p->logit_bias[i].bias, -100, 100);
    bool several = p->set & SAMPLING_N && p->n > 1;
    return fit && !(r->n_output_prefix_ids > 0 && several);
}

static void test_request(void **state)
{
    (void)state;
    static struct sample sample;
    uint32_t n_accepted = 0;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct rng rng = rng_make(round);
        fill_request(&rng, &sample);
        err_t e = validate_request(&sample.request, &LIMITS);
        bool accepted = e.code == ERR_OK;
        if (accepted != is_right(&sample.request))
            fail_msg("seed %u: %s", round, accepted ? "accepted" : e.message);
        if (!accepted) {
            assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
            assert_true(e.message[0] != '\0' && utf8_valid(e.message, strlen(e.message)));
        }
        n_accepted += accepted;
    }
    assert_in_range(n_accepted, ROUNDS / 100, ROUNDS / 2); /* both answers were seen often */
}

static void test_resolved(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        struct rng rng = rng_make(round);
        struct sampling_params p = {.max_tokens =
                                        rng_below(&rng, 2) ? rng_below(&rng, 2 * MODEL_LEN) : rng_u32(&rng)};
        p.min_tokens = rng_below(&rng, 2) ? 0 : rng_below(&rng, 2 * MODEL_LEN);
        size_t n_prompt = rng_below(&rng, MODEL_LEN + 2),
               n_prefix = rng_below(&rng, 2) ? 0 : rng_below(&rng, MODEL_LEN);
        uint32_t asked = p.max_tokens;
        err_t e = validate_resolved(&p, n_prompt, n_prefix, &LIMITS);
        if (e.code != ERR_OK) {
            assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
            continue;
        }
        assert_true(n_prompt >= 1 && n_prompt + p.max_tokens <= MODEL_LEN);
        assert_true(p.max_tokens > n_prefix && p.min_tokens <= p.max_tokens);
        assert_true(asked == 0 || p.max_tokens <= asked);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_request), cmocka_unit_test(test_resolved)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
