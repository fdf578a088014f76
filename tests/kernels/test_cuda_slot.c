/* What the host writes into a sampling slot of the CUDA backend. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "api/sampling_params.h"
#include "kernels/cuda/cuda_kernels.h"

enum { VOCAB = 100 };

/* Whatever the validator lets through has room. */
_Static_assert((int)CUDA_SLOT_BIAS_MAX >= (int)SAMPLING_LOGIT_BIAS_MAX, "logit_bias");
_Static_assert((int)CUDA_SLOT_WORDS_MAX >= (int)SAMPLING_BAD_WORDS_MAX, "bad_words");
_Static_assert((int)CUDA_SLOT_WORD_TOKENS_MAX >= (int)SAMPLING_BAD_WORD_TOKENS_MAX, "tokens of a bad word");
_Static_assert((int)CUDA_SLOT_STOP_IDS_MAX >= 2 * (int)SAMPLING_STOP_IDS_MAX,
               "stop ids, and as many of the model's");

static struct cuda_slot slot;
static uint32_t allowed[(VOCAB + 31) / 32];

static void test_defaults(void **state)
{
    (void)state;
    const struct sampler_params params = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 7};
    const uint32_t prompt[] = {3, 9};
    memset(&slot, 0xa5, sizeof slot);
    size_t bytes =
        cuda_slot_fill(&slot, allowed, VOCAB, &params, &(struct sampler_history){prompt, 2, NULL, 0});
    assert_int_equal(slot.flags, 0);
    assert_int_equal(slot.last_token, 9);
    assert_int_equal(slot.n_output, 0);
    assert_true(slot.key == 7);
    assert_true(slot.min_p_log == -INFINITY);
    assert_int_equal(bytes, offsetof(struct cuda_slot, stop_ids));
}

static void test_lists(void **state)
{
    (void)state;
    const struct sampler_bias bias[] = {{5, 1}, {2, 2}, {5, 3}, {2, 4}};
    const uint32_t allow[] = {0, 31, 32, 99, 100}, stops[] = {4, 6}, word[] = {1, 2, 3};
    const struct sampler_word words[] = {{word, 3}, {word, 0}, {word, 1}};
    const struct sampler_params params = {.temperature = 0,
                                          .min_p = 2,
                                          .frequency_penalty = 1,
                                          .choice_index = 2,
                                          .stop_ids = stops,
                                          .n_stop_ids = 2,
                                          .bias = bias,
                                          .n_bias = 4,
                                          .allowed_ids = allow,
                                          .n_allowed_ids = 5,
                                          .bad_words = words,
                                          .n_bad_words = 3};
    size_t bytes = cuda_slot_fill(&slot, allowed, VOCAB, &params, &(struct sampler_history){0});
    assert_int_equal(slot.flags, CUDA_SLOT_GREEDY | CUDA_SLOT_COUNTS | CUDA_SLOT_ALLOWED);
    assert_int_equal(slot.last_token, 0);
    assert_true(slot.min_p_log == 0); /* a min_p above one keeps the best token alone */
    const uint32_t ids[] = {2, 2, 5, 5}, values[] = {2, 4, 1, 3};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(slot.bias[i].token_id, ids[i]);
        assert_true(slot.bias[i].bias == (float)values[i]);
    }
    assert_int_equal(allowed[0], 1u << 31 | 1);
    assert_int_equal(allowed[1], 1);
    assert_int_equal(allowed[2], 0);
    assert_int_equal(allowed[3], 1u << 3); /* 100 names nothing */
    assert_int_equal(slot.word_ends[0], 3);
    assert_int_equal(slot.word_ends[1], 3);
    assert_int_equal(slot.word_ends[2], 4);
    assert_int_equal(bytes, offsetof(struct cuda_slot, word_ids) + 4 * sizeof(uint32_t));
}

static void test_history(void **state)
{
    (void)state;
    uint32_t output[CUDA_SLOT_TAIL + 5];
    for (uint32_t i = 0; i < CUDA_SLOT_TAIL + 5; i++)
        output[i] = i;
    const struct sampler_params params = {.temperature = 1, .top_p = 1, .repetition_penalty = 1};
    cuda_slot_fill(&slot, allowed, VOCAB, &params,
                   &(struct sampler_history){output, 3, output, CUDA_SLOT_TAIL + 5});
    assert_int_equal(slot.n_output, CUDA_SLOT_TAIL + 5);
    assert_int_equal(slot.last_token, CUDA_SLOT_TAIL + 4);
    for (uint32_t i = 5; i < CUDA_SLOT_TAIL + 5; i++)
        assert_int_equal(slot.tail[i % CUDA_SLOT_TAIL], i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
