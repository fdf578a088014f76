/* What a model says of itself: fingerprints that follow the weights and the arithmetic and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "kernels/kernel_table.h"
#include "tests/model/broken_model.h"

static struct broken_model broken;

static int setup(void **state)
{
    (void)state;
    broken_model_make(&broken);
    broken_model_write(&broken);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    broken_model_remove(&broken);
    return 0;
}

/* The strings of the description do not outlive the model; its numbers do. */
static struct model_description describe(const struct model_options *options)
{
    struct model *model;
    err_t e = model_load(options, NULL, &model);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    struct model_description description = *model_describe(model);
    model_destroy(model);
    return description;
}

static void a_tiny_llama_describes_itself(void **state)
{
    (void)state;
    struct model_options options = broken_model_options(&broken);
    struct model *model;
    assert_int_equal(model_load(&options, NULL, &model).code, ERR_OK);
    const struct model_description *description = model_describe(model);
    assert_string_equal(description->architecture, "LlamaForCausalLM");
    assert_string_equal(description->dtype, "bfloat16");
    assert_string_equal(description->kv_dtype, "bfloat16");
    assert_string_equal(description->quantization, "none");
    assert_true(strlen(description->backend) > 0);
    assert_int_equal(description->n_layers, 2);
    assert_int_equal(description->hidden_size, 64);
    assert_int_equal(description->vocab_size, 384);
    assert_int_equal(description->max_model_len, 64);
    assert_int_equal(description->n_parameters, 123200); /* as Transformers counts them */
    assert_int_equal(model_generation_config(model)->eos_token_ids[0], 2);
    model_destroy(model);
}

static void kv_has_a_dtype_of_its_own(void **state)
{
    (void)state;
    struct model_options options = broken_model_options(&broken);
    options.dtype = MODEL_DTYPE_F32;
    assert_string_equal(describe(&options).kv_dtype, "float32");
    options.kv_cache = MODEL_KV_INT8;
    assert_string_equal(describe(&options).kv_dtype, "int8");
    assert_string_equal(describe(&options).dtype, "float32");
}

static void weights_fingerprint_follows_the_weights(void **state)
{
    (void)state;
    struct model_options options = broken_model_options(&broken);
    uint64_t first = describe(&options).weights_fingerprint;
    assert_int_equal(describe(&options).weights_fingerprint, first);

    /* Other limits, spacing and order of keys are the same model. */
    options.max_num_seqs = 1;
    static char text[1 << 14];
    size_t n = json_dumpb(broken.config, text, sizeof text, JSON_INDENT(7) | JSON_SORT_KEYS);
    broken_model_write_file(&broken, "config.json", text, n);
    options.quantization = MODEL_QUANT_INT8;
    assert_int_equal(describe(&options).weights_fingerprint, first);

    broken.data[broken.data_bytes / 2] ^= 1;
    broken_model_write(&broken);
    uint64_t other_weights = describe(&options).weights_fingerprint;
    assert_int_not_equal(other_weights, first);
    broken.data[broken.data_bytes / 2] ^= 1;

    json_object_set_new(broken.config, "rms_norm_eps", json_real(2e-5));
    broken_model_write(&broken);
    assert_int_not_equal(describe(&options).weights_fingerprint, first);

    options.dummy_weights = true;
    uint64_t dummy = describe(&options).weights_fingerprint;
    options.dummy_seed = 1;
    assert_int_not_equal(describe(&options).weights_fingerprint, dummy);
}

static void arithmetic_fingerprint_follows_the_arithmetic(void **state)
{
    (void)state;
    struct model_options options = broken_model_options(&broken);
    options.isa = "avx2";
    uint64_t bf16 = describe(&options).arithmetic_fingerprint;
    options.n_threads = 2;
    options.isa = "scalar";
    assert_int_equal(describe(&options).arithmetic_fingerprint, bf16);
    options.isa = "auto"; /* tiles where the machine has them */
    assert_int_equal(describe(&options).arithmetic_fingerprint == bf16, isa_detect() != ISA_AMX);
    options.isa = "scalar";
    options.dtype = MODEL_DTYPE_BF16; /* what AUTO is here */
    assert_int_equal(describe(&options).arithmetic_fingerprint, bf16);
    options.dtype = MODEL_DTYPE_F32;
    assert_int_not_equal(describe(&options).arithmetic_fingerprint, bf16);
    options.dtype = MODEL_DTYPE_AUTO;
    options.quantization = MODEL_QUANT_INT8;
    uint64_t int8 = describe(&options).arithmetic_fingerprint;
    assert_int_not_equal(int8, bf16);
    options.quantization = MODEL_QUANT_INT4;
    assert_int_not_equal(describe(&options).arithmetic_fingerprint, int8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_tiny_llama_describes_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(kv_has_a_dtype_of_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(weights_fingerprint_follows_the_weights, setup, teardown),
        cmocka_unit_test_setup_teardown(arithmetic_fingerprint_follows_the_arithmetic, setup, teardown),
    };
    return cmocka_run_group_tests_name("description", tests, NULL, NULL);
}
