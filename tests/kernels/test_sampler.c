/* The sampler's semantics, parameter by parameter, and the distribution of its draws. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/philox.h"
#include "kernels/kernels.h"
#include "tests/base/ok.h"

enum { VOCAB = 40, SLOTS = 3, HISTORY = 5000 };

static struct backend *backend;
static const struct backend_vtable *ops;
static struct sampler *sampler;
static struct act *logits;

static int set_up(void **state)
{
    (void)state;
    OK(backend_cpu_create(2, "auto", &backend));
    ops = backend->vtable;
    OK(ops->sampler_create(backend, SLOTS, VOCAB, HISTORY, &sampler));
    OK(ops->act_create(backend, ACT_HIDDEN, SLOTS, VOCAB, &logits));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    ops->sampler_destroy(sampler);
    ops->act_destroy(logits);
    ops->destroy(backend);
    return 0;
}

static struct sampler_params defaults(void)
{
    return (struct sampler_params){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 1};
}

static void set_slot(uint32_t slot, const struct sampler_params *params, const uint32_t *prompt,
                     size_t n_prompt, const uint32_t *output, size_t n_output)
{
    struct sampler_history history = {prompt, n_prompt, output, n_output};
    ops->slot_set(sampler, slot, params, &history);
}

/* One draw of slot 0 from x at a position. */
static struct step_result draw(const float *x, uint32_t position, int32_t n_logprobs, const uint32_t *mask)
{
    struct step_row row = {.position = position - 1, .seq = 0};
    struct step_seq seq = {.n_rows = 1, .n_context = position, .sampling_slot = 0};
    struct step_output output = {0, STEP_OUTPUT_SAMPLE, 0, n_logprobs};
    struct step_result result;
    struct step step = {.n_rows = 1,
                        .n_seqs = 1,
                        .n_outputs = 1,
                        .rows = &row,
                        .seqs = &seq,
                        .outputs = &output,
                        .results = &result};
    ops->act_write(logits, 0, 1, x);
    ops->sample(backend, &step, 0, 1, logits, mask == NULL ? NULL : &mask, sampler);
    return result;
}

/* The token that greedy decoding takes under params, with this history. */
static uint32_t greedy(const float *x, struct sampler_params params, const uint32_t *prompt, size_t n_prompt,
                       const uint32_t *output, size_t n_output)
{
    params.temperature = 0;
    set_slot(0, &params, prompt, n_prompt, output, n_output);
    struct step_result result = draw(x, 1, -1, NULL);
    assert_int_equal(result.status, STEP_RESULT_OK);
    assert_int_equal(result.n_tokens, 1);
    return result.token_ids[0];
}

static void fill(float *x, float value)
{
    for (int i = 0; i < VOCAB; i++)
        x[i] = value;
}

static void test_greedy_and_ties(void **state)
{
    (void)state;
    float x[VOCAB];
    fill(x, -1.0f);
    x[7] = x[30] = 2.0f;
    assert_int_equal(greedy(x, defaults(), NULL, 0, NULL, 0), 7);
    x[30] = 2.5f;
    assert_int_equal(greedy(x, defaults(), NULL, 0, NULL, 0), 30);
    struct sampler_params params = defaults();
    params.temperature = 0.9e-5f; /* below SAMPLER_GREEDY_BELOW, with a filter that greedy ignores */
    params.top_k = 1;
    set_slot(0, &params, NULL, 0, NULL, 0);
    assert_int_equal(draw(x, 1, -1, NULL).token_ids[0], 30);
}

static void test_allowed_and_masks(void **state)
{
    (void)state;
    float x[VOCAB];
    for (int i = 0; i < VOCAB; i++)
        x[i] = (float)i;
    const uint32_t allowed[] = {0, 3, 17};
    struct sampler_params params = defaults();
    params.allowed_ids = allowed;
    params.n_allowed_ids = 3;
    assert_int_equal(greedy(x, params, NULL, 0, NULL, 0), 17);
    uint32_t mask[2] = {1u << 3 | 1u << 20, 0};
    params.temperature = 0;
    set_slot(0, &params, NULL, 0, NULL, 0);
    assert_int_equal(draw(x, 1, -1, mask).token_ids[0], 3); /* both must allow it */
    mask[0] = 1u << 20;
    assert_int_equal(draw(x, 1, -1, mask).status, STEP_RESULT_FORBIDDEN);
    mask[0] = 0;
    mask[1] = 1u << 7;
    params.n_allowed_ids = 0;
    set_slot(0, &params, NULL, 0, NULL, 0);
    assert_int_equal(draw(x, 1, -1, mask).token_ids[0], 39);
}

static void test_bad_words(void **state)
{
    (void)state;
    float x[VOCAB];
    for (int i = 0; i < VOCAB; i++)
        x[i] = (float)i;
    const uint32_t one[] = {39}, two[] = {5, 38}, long_one[] = {1, 2, 37}, empty[] = {0};
    const struct sampler_word words[] = {{one, 1}, {two, 2}, {long_one, 3}, {empty, 0}};
    struct sampler_params params = defaults();
    params.bad_words = words;
    params.n_bad_words = 4;
    const uint32_t history[] = {1, 2, 5}, only_two[] = {1, 2};
    assert_int_equal(greedy(x, params, history, 3, NULL, 0), 38); /* the prompt does not count */
    assert_int_equal(greedy(x, params, NULL, 0, history, 3), 37);
    assert_int_equal(greedy(x, params, NULL, 0, only_two, 2), 38);
    x[38] = 0;
    assert_int_equal(greedy(x, params, NULL, 0, only_two, 2), 36);
    assert_int_equal(greedy(x, params, only_two, 1, only_two + 1, 1), 37); /* straddling prompt and output */
}

static void test_min_tokens(void **state)
{
    (void)state;
    float x[VOCAB];
    fill(x, 0.0f);
    x[2] = 5.0f;
    x[9] = 4.0f;
    const uint32_t stops[] = {2, 9, 1000000}; /* an id that the vocabulary does not have */
    struct sampler_params params = defaults();
    params.stop_ids = stops;
    params.n_stop_ids = 3;
    params.min_tokens = 2;
    const uint32_t output[] = {1, 1};
    assert_int_equal(greedy(x, params, output, 2, output, 1), 0);
    assert_int_equal(greedy(x, params, NULL, 0, output, 2), 2);
}

static void test_bias(void **state)
{
    (void)state;
    float x[VOCAB];
    fill(x, 0.0f);
    const struct sampler_bias bias[] = {{4, 3.0f}, {5, -3.0f}, {4, 1.0f}, {99999, 50.0f}};
    struct sampler_params params = defaults();
    params.bias = bias;
    params.n_bias = 4;
    x[5] = 3.5f;
    x[6] = 3.9f;
    assert_int_equal(greedy(x, params, NULL, 0, NULL, 0), 4);
    const uint32_t allowed[] = {5};
    params.allowed_ids = allowed; /* a bias does not bring back what is not allowed */
    params.n_allowed_ids = 1;
    assert_int_equal(greedy(x, params, NULL, 0, NULL, 0), 5);
}

static void test_penalties(void **state)
{
    (void)state;
    float x[VOCAB];
    const uint32_t prompt[] = {3, 3}, output[] = {4, 4, 4, 5};
    struct sampler_params params = defaults();
    /* Repetition: prompt and output, division above zero, multiplication below. */
    params.repetition_penalty = 2.0f;
    fill(x, -10.0f);
    x[3] = 4.0f, x[4] = 3.9f, x[8] = 2.1f;
    assert_int_equal(greedy(x, params, prompt, 2, output, 4), 8);
    x[8] = 1.97f;
    assert_int_equal(greedy(x, params, prompt, 2, output, 4), 3);
    fill(x, -10.0f);
    x[3] = -4.0f, x[8] = -7.9f;
    assert_int_equal(greedy(x, params, prompt, 2, output, 4), 8);
    /* Presence: output only, once; frequency: output only, per occurrence. */
    params.repetition_penalty = 1.0f;
    params.presence_penalty = 1.0f;
    fill(x, -10.0f);
    x[3] = 1.0f, x[4] = 1.9f;
    assert_int_equal(greedy(x, params, prompt, 2, output, 4), 3);
    x[4] = 2.1f;
    assert_int_equal(greedy(x, params, prompt, 2, output, 4), 4);
    params.presence_penalty = 0.0f;
    params.frequency_penalty = 0.5f;
    x[3] = 1.0f, x[4] = 2.4f, x[5] = 1.4f;
    assert_int_equal(greedy(x, params, prompt, 2, output, 4), 3);
    x[5] = 1.6f;
    assert_int_equal(greedy(x, params, prompt, 2, output, 4), 5);
    /* Drawn tokens count from then on. */
    set_slot(0, &(struct sampler_params){.top_p = 1, .repetition_penalty = 1, .frequency_penalty = 0.5f},
             prompt, 2, NULL, 0);
    fill(x, 0.0f);
    x[10] = 0.7f;
    assert_int_equal(draw(x, 3, -1, NULL).token_ids[0], 10);
    assert_int_equal(draw(x, 4, -1, NULL).token_ids[0], 10); /* 0.7 - 0.5 */
    assert_int_equal(draw(x, 5, -1, NULL).token_ids[0], 0);
}

/* A history of many distinct tokens, set twice: the counts of the first must be gone. */
static void test_history_is_replaced(void **state)
{
    (void)state;
    uint32_t prompt[HISTORY];
    for (uint32_t i = 0; i < HISTORY; i++)
        prompt[i] = i % 37;
    struct sampler_params params = defaults();
    params.repetition_penalty = 1.5f;
    float x[VOCAB];
    fill(x, 1.0f);
    x[12] = 1.2f;
    assert_int_equal(greedy(x, params, prompt, HISTORY, NULL, 0), 37);
    assert_int_equal(greedy(x, params, prompt, 10, NULL, 0), 12);
}

/* How often each token is drawn over many positions. */
static void count_draws(const float *x, const struct sampler_params *params, uint32_t n,
                        uint32_t counts[VOCAB])
{
    memset(counts, 0, VOCAB * sizeof counts[0]);
    for (uint32_t i = 0; i < n; i++) {
        if (i % 1000 == 0)
            set_slot(0, params, NULL, 0, NULL, 0);
        struct step_result result = draw(x, i + 1, -1, NULL);
        assert_int_equal(result.status, STEP_RESULT_OK);
        counts[result.token_ids[0]]++;
    }
}

/* Pearson's statistic of the counts against p; tokens of probability 0 must not occur. */
static double chi_square(const uint32_t counts[VOCAB], const double p[VOCAB], uint32_t n)
{
    double statistic = 0;
    for (int i = 0; i < VOCAB; i++) {
        if (p[i] == 0) {
            assert_int_equal(counts[i], 0);
            continue;
        }
        statistic += pow(counts[i] - p[i] * n, 2) / (p[i] * n);
    }
    return statistic;
}

/* Upper bound of chi-square with df degrees of freedom at about 1 in 100,000 (Wilson and Hilferty). */
static double chi_square_bound(int df)
{
    double a = 2.0 / (9.0 * df);
    return df * pow(1 - a + 4.265 * sqrt(a), 3);
}

static void normalize(double p[VOCAB])
{
    double sum = 0;
    for (int i = 0; i < VOCAB; i++)
        sum += p[i];
    for (int i = 0; i < VOCAB; i++)
        p[i] /= sum;
}

static void test_distribution(void **state)
{
    (void)state;
    enum { DRAWS = 40000 };
    float x[VOCAB];
    struct rng rng = rng_make(3);
    for (int i = 0; i < VOCAB; i++)
        x[i] = 1.2f * rng_normal(&rng);
    static const struct {
        float temperature, top_p, min_p;
        uint32_t top_k;
    } cases[] = {{1, 1, 0, 0},    {0.5f, 1, 0, 0}, {2, 1, 0, 0},           {1, 1, 0, 6},
                 {1, 0.7f, 0, 0}, {1, 1, 0.2f, 0}, {1.5f, 0.8f, 0.1f, 12}, {0.8f, 0.9f, 0.1f, 0}};
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        double p[VOCAB], max = -INFINITY;
        for (int i = 0; i < VOCAB; i++)
            max = fmax(max, p[i] = (double)x[i] / (double)cases[c].temperature);
        for (int i = 0; i < VOCAB; i++)
            p[i] = exp(p[i] - max);
        for (int i = 0; i < VOCAB; i++)
            p[i] = p[i] < (double)cases[c].min_p ? 0 : p[i];
        for (uint32_t k = 0; cases[c].top_k > 0 && k < VOCAB; k++) {
            int above = 0; /* straight from the definition: keep those with fewer than k above */
            for (int j = 0; j < VOCAB; j++)
                above += x[j] > x[k];
            p[k] = above >= (int)cases[c].top_k ? 0 : p[k];
        }
        normalize(p);
        double q[VOCAB];
        for (int i = 0; i < VOCAB; i++) {
            double before = 0;
            for (int j = 0; j < VOCAB; j++)
                before += x[j] > x[i] ? p[j] : 0;
            q[i] = before >= (double)cases[c].top_p ? 0 : p[i];
        }
        normalize(q);
        int support = 0;
        for (int i = 0; i < VOCAB; i++)
            support += q[i] > 0;
        struct sampler_params params = defaults();
        params.temperature = cases[c].temperature;
        params.top_p = cases[c].top_p;
        params.min_p = cases[c].min_p;
        params.top_k = cases[c].top_k;
        params.seed = 100 + c;
        uint32_t counts[VOCAB];
        count_draws(x, &params, DRAWS, counts);
        double statistic = chi_square(counts, q, DRAWS);
        if (statistic > chi_square_bound(support - 1))
            fail_msg("case %zu: chi-square %.1f over %d tokens", c, statistic, support);
    }
}

/* Filters that keep everything must not change a draw. */
static void test_filters_keep_draws(void **state)
{
    (void)state;
    float x[VOCAB];
    struct rng rng = rng_make(4);
    for (int i = 0; i < VOCAB; i++)
        x[i] = 0.1f * rng_normal(&rng);
    for (uint32_t i = 0; i < 200; i++) {
        struct sampler_params params = defaults();
        params.seed = i;
        set_slot(0, &params, NULL, 0, NULL, 0);
        uint32_t plain = draw(x, 5, -1, NULL).token_ids[0];
        params.min_p = 1e-6f;
        set_slot(0, &params, NULL, 0, NULL, 0);
        assert_int_equal(draw(x, 5, -1, NULL).token_ids[0], plain);
        params.min_p = 0;
        params.top_k = VOCAB - 1; /* drops the worst */
        set_slot(0, &params, NULL, 0, NULL, 0);
        uint32_t filtered = draw(x, 5, -1, NULL).token_ids[0];
        int below = 0;
        for (int j = 0; j < VOCAB; j++)
            below += x[j] < x[plain];
        assert_true(filtered == plain || below == 0);
    }
}

static void test_top_k_ties(void **state)
{
    (void)state;
    float x[VOCAB];
    fill(x, 1.0f);
    x[20] = 2.0f;
    struct sampler_params params = defaults();
    params.top_k = 3; /* 20, then the lowest ids: 0 and 1 */
    uint32_t counts[VOCAB];
    count_draws(x, &params, 3000, counts);
    assert_true(counts[20] > 0 && counts[0] > 0 && counts[1] > 0);
    assert_int_equal(counts[20] + counts[0] + counts[1], 3000);
}

static void test_draw_depends_on_its_key_only(void **state)
{
    (void)state;
    float x[VOCAB];
    fill(x, 0.0f);
    struct sampler_params params = defaults();
    int differ_seed = 0, differ_choice = 0, differ_position = 0;
    for (uint32_t i = 1; i <= 50; i++) {
        params.seed = 42;
        params.choice_index = 0;
        set_slot(0, &params, NULL, 0, NULL, 0);
        uint32_t token = draw(x, i, -1, NULL).token_ids[0];
        /* Again, with another history: a recomputed sequence draws the same. */
        const uint32_t history[] = {1, 2, 3};
        set_slot(0, &params, history, 3, history, 2);
        assert_int_equal(draw(x, i, -1, NULL).token_ids[0], token);
        differ_position += draw(x, i + 1000, -1, NULL).token_ids[0] != token;
        params.choice_index = 1;
        set_slot(0, &params, NULL, 0, NULL, 0);
        differ_choice += draw(x, i, -1, NULL).token_ids[0] != token;
        params.seed = 43;
        params.choice_index = 0;
        set_slot(0, &params, NULL, 0, NULL, 0);
        differ_seed += draw(x, i, -1, NULL).token_ids[0] != token;
    }
    assert_true(differ_seed > 40 && differ_choice > 40 && differ_position > 40);
}

static void test_logprobs(void **state)
{
    (void)state;
    float x[VOCAB];
    struct rng rng = rng_make(5);
    double sum = 0;
    for (int i = 0; i < VOCAB; i++)
        x[i] = 2.0f * rng_normal(&rng);
    x[3] = x[11] = 1.0f; /* a tie */
    x[39] = -INFINITY;
    for (int i = 0; i < VOCAB; i++)
        sum += exp((double)x[i]);
    /* Transformations change the choice, not the log-probabilities. */
    const uint32_t allowed[] = {11};
    struct sampler_params params = defaults();
    params.allowed_ids = allowed;
    params.n_allowed_ids = 1;
    set_slot(0, &params, NULL, 0, NULL, 0);
    struct step_result result = draw(x, 1, STEP_LOGPROBS_MAX, NULL);
    assert_int_equal(result.token_ids[0], 11);
    assert_int_equal(result.chosen.token_id, 11);
    assert_true(fabs((double)result.chosen.logprob - (1.0 - log(sum))) < 2e-6);
    uint32_t rank = 1;
    for (int i = 0; i < VOCAB; i++)
        rank += x[i] > x[11];
    assert_int_equal(result.rank, rank);
    assert_int_equal(result.n_top, STEP_LOGPROBS_MAX);
    for (uint32_t i = 0; i < result.n_top; i++) {
        uint32_t id = result.top[i].token_id, above = 0;
        for (uint32_t j = 0; j < VOCAB; j++)
            above += x[j] > x[id] || (x[j] == x[id] && j < id);
        assert_int_equal(above, i);
        assert_true(fabs((double)result.top[i].logprob - ((double)x[id] - log(sum))) < 2e-6);
    }
    assert_int_equal(draw(x, 1, 0, NULL).n_top, 0);
}

static void test_prompt_logprobs(void **state)
{
    (void)state;
    float x[2 * VOCAB];
    for (int i = 0; i < 2 * VOCAB; i++)
        x[i] = (float)(i % 7);
    struct step_row rows[2] = {{.position = 0}, {.position = 1}};
    struct step_seq seq = {.n_rows = 2, .n_context = 2, .sampling_slot = STEP_NO_SLOT};
    struct step_output outputs[2] = {{0, STEP_OUTPUT_LOGPROBS, 6, 2}, {1, STEP_OUTPUT_LOGPROBS, 0, -1}};
    struct step_result results[2];
    struct step step = {.n_rows = 2,
                        .n_seqs = 1,
                        .n_outputs = 2,
                        .rows = rows,
                        .seqs = &seq,
                        .outputs = outputs,
                        .results = results};
    ops->act_write(logits, 0, 2, x);
    ops->sample(backend, &step, 0, 2, logits, NULL, sampler);
    assert_int_equal(results[0].status, STEP_RESULT_OK);
    assert_int_equal(results[0].n_tokens, 0);
    assert_int_equal(results[0].chosen.token_id, 6);
    assert_int_equal(results[0].rank, 1);
    assert_int_equal(results[0].n_top, 2);
    assert_int_equal(results[0].top[0].token_id, 6);
    assert_int_equal(results[0].top[1].token_id, 13);
    assert_int_equal(results[1].n_top, 0);
}

static void test_not_finite(void **state)
{
    (void)state;
    float x[VOCAB];
    struct sampler_params params = defaults();
    const float bad[] = {NAN, INFINITY};
    for (int i = 0; i < 2; i++) {
        fill(x, 1.0f);
        x[17] = bad[i];
        set_slot(0, &params, NULL, 0, NULL, 0);
        struct step_result result = draw(x, 1, 3, NULL);
        assert_int_equal(result.status, STEP_RESULT_NOT_FINITE);
        assert_int_equal(result.n_tokens, 0);
    }
    fill(x, -INFINITY);
    assert_int_equal(draw(x, 1, -1, NULL).status, STEP_RESULT_NOT_FINITE);
    x[5] = -1e30f;
    assert_int_equal(draw(x, 1, -1, NULL).token_ids[0], 5);
    /* A very low temperature takes the best without overflowing. */
    fill(x, 0.0f);
    x[8] = 1e30f;
    params.temperature = 2e-5f;
    params.top_p = 0.9f;
    set_slot(0, &params, NULL, 0, NULL, 0);
    assert_int_equal(draw(x, 1, -1, NULL).token_ids[0], 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_greedy_and_ties),
        cmocka_unit_test(test_allowed_and_masks),
        cmocka_unit_test(test_bad_words),
        cmocka_unit_test(test_min_tokens),
        cmocka_unit_test(test_bias),
        cmocka_unit_test(test_penalties),
        cmocka_unit_test(test_history_is_replaced),
        cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_filters_keep_draws),
        cmocka_unit_test(test_top_k_ties),
        cmocka_unit_test(test_draw_depends_on_its_key_only),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_prompt_logprobs),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
