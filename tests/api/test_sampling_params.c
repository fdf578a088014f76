/* Where a sampling parameter comes from: request, then model, then built in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>
#include "api/event.h"
#include "api/sampling_params.h"

enum { N_FIELDS = 18, ALL_FIELDS = (1 << N_FIELDS) - 1 };

/* Each field's value as a number, in the order of enum sampling_field. */
static void read_fields(const struct sampling_params *p, double out[N_FIELDS])
{
    const double values[N_FIELDS] = {
        p->temperature,
        p->top_p,
        p->top_k,
        p->min_p,
        p->repetition_penalty,
        p->presence_penalty,
        p->frequency_penalty,
        (double)p->seed,
        p->max_tokens,
        p->min_tokens,
        p->n,
        p->ignore_eos,
        p->logprobs,
        p->prompt_logprobs,
        p->skip_special_tokens,
        p->include_stop_str_in_output,
        p->spaces_between_special_tokens,
        p->truncate_prompt_tokens,
    };
    memcpy(out, values, sizeof values);
}

/* Values that differ from the built-in ones and, by `salt`, from each other. */
static struct sampling_params odd_params(uint32_t set, int salt)
{
    return (struct sampling_params){
        .set = set,
        .temperature = 0.25f + (float)salt,
        .top_p = 0.5f / (float)(salt + 1),
        .min_p = 0.125f / (float)(salt + 1),
        .top_k = 7 + salt,
        .repetition_penalty = 1.5f + (float)salt,
        .presence_penalty = 0.5f + (float)salt,
        .frequency_penalty = 0.75f + (float)salt,
        .seed = 77 + (uint64_t)salt,
        .max_tokens = 33 + (uint32_t)salt,
        .min_tokens = 3 + (uint32_t)salt,
        .n = 2 + (uint32_t)salt,
        .logprobs = 4 + salt,
        .prompt_logprobs = 5 + salt,
        .ignore_eos = true,
        .skip_special_tokens = false,
        .include_stop_str_in_output = true,
        .spaces_between_special_tokens = false,
        .truncate_prompt_tokens = 6 + salt,
    };
}

static void test_builtin(void **state)
{
    (void)state;
    struct sampling_params p = sampling_params_builtin();
    const double right[N_FIELDS] = {1, 1, 0, 0, 1, 0, 0, 0, 16, 0, 1, 0, -1, -1, 1, 0, 1, 0};
    double got[N_FIELDS];
    read_fields(&p, got);
    for (int i = 0; i < N_FIELDS; i++)
        assert_true(got[i] == right[i]);
    assert_int_equal(p.set, ALL_FIELDS & ~SAMPLING_SEED);
    assert_int_equal(p.n_stop + p.n_stop_token_ids + p.n_logit_bias + p.n_allowed_token_ids + p.n_bad_words,
                     0);
}

/* For every field alone: set or not in the request and in the model's defaults. */
static void test_precedence(void **state)
{
    (void)state;
    double request_values[N_FIELDS], model_values[N_FIELDS], builtin_values[N_FIELDS], got[N_FIELDS];
    struct sampling_params request = odd_params(0, 0), model = odd_params(0, 1);
    struct sampling_params builtin = sampling_params_builtin();
    read_fields(&request, request_values);
    read_fields(&model, model_values);
    read_fields(&builtin, builtin_values);
    for (uint32_t field = 0; field < N_FIELDS; field++) {
        for (uint32_t given = 0; given < 4; given++) {
            struct sampling_params p = odd_params(given & 1 ? 1u << field : 0, 0);
            model.set = given & 2 ? 1u << field : 0;
            sampling_params_resolve(&p, &model);
            read_fields(&p, got);
            for (uint32_t i = 0; i < N_FIELDS; i++) {
                bool here = i == field;
                double right = here && given & 1   ? request_values[i]
                               : here && given & 2 ? model_values[i]
                                                   : builtin_values[i];
                bool is_set = 1u << i != SAMPLING_SEED || (here && given);
                assert_int_equal(p.set >> i & 1, is_set);
                if (is_set)
                    assert_true(got[i] == right);
            }
        }
    }
}

static void test_no_model_defaults_and_lists(void **state)
{
    (void)state;
    const uint32_t ids[] = {1};
    struct sampling_params p = {.stop_token_ids = ids, .n_stop_token_ids = 1};
    struct sampling_params model = {
        .set = SAMPLING_TOP_K, .top_k = 9, .allowed_token_ids = ids, .n_allowed_token_ids = 1};
    sampling_params_resolve(&p, NULL);
    assert_int_equal(p.set, ALL_FIELDS & ~SAMPLING_SEED);
    assert_int_equal(p.top_k, 0);
    assert_ptr_equal(p.stop_token_ids, ids);
    p.set = 0;
    sampling_params_resolve(&p, &model);
    assert_int_equal(p.top_k, 9);
    assert_int_equal(p.n_stop_token_ids, 1);
    assert_int_equal(p.n_allowed_token_ids, 0); /* lists are the request's alone */
}

static void test_finish_reasons(void **state)
{
    (void)state;
    assert_string_equal(finish_reason_name(FINISH_NONE), "");
    assert_string_equal(finish_reason_name(FINISH_STOP), "stop");
    assert_string_equal(finish_reason_name(FINISH_LENGTH), "length");
    assert_string_equal(finish_reason_name(FINISH_ABORT), "abort");
    assert_string_equal(finish_reason_name(FINISH_ERROR), "error");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_builtin),
        cmocka_unit_test(test_precedence),
        cmocka_unit_test(test_no_model_defaults_and_lists),
        cmocka_unit_test(test_finish_reasons),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
