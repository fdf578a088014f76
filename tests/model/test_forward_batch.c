/* A sequence's results do not depend on what else is in the step, nor on how its prompt is cut: bit by bit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/philox.h"
#include "model/model_internal.h"
#include "tests/model/model_driver.h"

enum { N_SLOTS = 6, SEQ_TOKENS = 80, MAX_LEN = 96, N_TOP = 3 };

/* What every position of a sequence answered. */
struct trace {
    struct step_logprob chosen[SEQ_TOKENS];
    struct step_logprob top[SEQ_TOKENS][N_TOP];
    uint32_t rank[SEQ_TOKENS];
    uint32_t drawn[SEQ_TOKENS];
};

/* On an emulated device, which is slow, sequences are shorter; with sanitizers there still shorter, beyond a
 * block, and fewer. */
#if defined(__SANITIZE_ADDRESS__)
enum { DEVICE_SLOTS = 3, DEVICE_SEQ_TOKENS = 18 };
#else
enum { DEVICE_SLOTS = N_SLOTS, DEVICE_SEQ_TOKENS = 28 };
#endif

/* Threads meet in every step alike: with ThreadSanitizer there are fewer of them, and every format with one
 * model alone. */
#if defined(__SANITIZE_THREAD__)
enum { MEETINGS_ONLY = 1, ROUNDS = 2 };
#else
enum { MEETINGS_ONLY = 0, ROUNDS = 5 };
#endif

static uint32_t seq_tokens(void)
{
    return driver_device() ? DEVICE_SEQ_TOKENS : SEQ_TOKENS;
}

static uint32_t n_slots(void)
{
    return driver_device() ? DEVICE_SLOTS : N_SLOTS;
}

static uint32_t tokens[N_SLOTS][SEQ_TOKENS + 1];
static struct trace alone[N_SLOTS], together[N_SLOTS];
static bool asked[N_SLOTS][SEQ_TOKENS]; /* what is in together */

static void make_tokens(uint32_t vocab_size)
{
    struct rng rng = rng_make(7);
    for (uint32_t s = 0; s < N_SLOTS; s++) {
        for (uint32_t i = 0; i <= SEQ_TOKENS; i++)
            tokens[s][i] = rng_below(&rng, vocab_size);
    }
}

/* One sequence's share of a step, with outputs of all but its first n_silent rows. */
struct share {
    uint32_t slot, first, n, n_silent, first_output;
};

static void add_share(struct driver *driver, struct share *share)
{
    uint32_t row = driver_add(driver, share->slot, tokens[share->slot], share->first, share->n);
    share->first_output = driver->step->n_outputs;
    for (uint32_t i = share->n_silent; i < share->n; i++)
        driver_want(driver, row + i, STEP_OUTPUT_LOGPROBS, tokens[share->slot][share->first + i + 1], N_TOP);
}

static void record_share(const struct driver *driver, const struct share *share, struct trace *traces)
{
    struct trace *trace = &traces[share->slot];
    for (uint32_t i = share->n_silent; i < share->n; i++) {
        const struct step_result *result = driver_result(driver, share->first_output + i - share->n_silent);
        assert_int_equal(result->n_top, N_TOP);
        trace->chosen[share->first + i] = result->chosen;
        trace->rank[share->first + i] = result->rank;
        memcpy(trace->top[share->first + i], result->top, sizeof trace->top[0]);
    }
}

/* Rows of a step of a sequence alone: one, as in decoding. On an emulated device, where a step of a few rows
 * takes little more than one of a row, and with ThreadSanitizer some sequences go by several: what is the
 * same together is the same as the others. */
static uint32_t rows_alone(uint32_t slot)
{
    static const uint32_t rows[N_SLOTS] = {1, 3, 5, 1, 8, 13};
    return driver_device() || MEETINGS_ONLY ? rows[slot] : 1;
}

static void run_alone(struct driver *driver)
{
    for (uint32_t slot = 0; slot < n_slots(); slot++) {
        for (uint32_t first = 0; first < seq_tokens(); first += rows_alone(slot)) {
            uint32_t left = seq_tokens() - first, n = rows_alone(slot) < left ? rows_alone(slot) : left;
            struct share share = {.slot = slot, .first = first, .n = n};
            driver_begin(driver);
            add_share(driver, &share);
            driver_run(driver);
            record_share(driver, &share, alone);
        }
    }
}

/* All rows have outputs, some, the last one alone or none. */
static uint32_t choose_silent(struct rng *rng, uint32_t n)
{
    const uint32_t some = rng_below(rng, n + 1), n_silent[] = {0, some, n - 1, n};
    return n_silent[rng_below(rng, 4)];
}

/* Every step takes a random share of some of the sequences: single rows beside long chunks. */
static void run_together(struct driver *driver, uint64_t seed)
{
    struct rng rng = rng_make(seed);
    uint32_t done[N_SLOTS] = {0}, n_finished = 0;
    while (n_finished < n_slots()) {
        struct share shares[N_SLOTS];
        uint32_t n_shares = 0, room = driver->step->capacity.rows;
        driver_begin(driver);
        for (uint32_t i = 0, slot = rng_below(&rng, n_slots()); i < n_slots();
             i++, slot = (slot + 1) % n_slots()) {
            uint32_t left = seq_tokens() - done[slot];
            uint32_t n = rng_below(&rng, 2) ? 1 : 1 + rng_below(&rng, 40);
            n = n < left ? n : left;
            n = n < room ? n : room;
            if (n == 0 || rng_below(&rng, 4) == 0)
                continue;
            shares[n_shares] =
                (struct share){.slot = slot, .first = done[slot], .n = n, .n_silent = choose_silent(&rng, n)};
            for (uint32_t k = shares[n_shares].n_silent; k < n; k++)
                asked[slot][done[slot] + k] = true;
            add_share(driver, &shares[n_shares++]);
            done[slot] += n;
            room -= n;
            n_finished += done[slot] == seq_tokens();
        }
        if (n_shares == 0)
            continue;
        driver_run(driver);
        for (uint32_t i = 0; i < n_shares; i++)
            record_share(driver, &shares[i], together);
    }
}

static void compare_traces(const char *what, uint64_t seed)
{
    for (uint32_t slot = 0; slot < n_slots(); slot++) {
        for (uint32_t i = 0; i < seq_tokens(); i++) {
            bool same =
                memcmp(&alone[slot].chosen[i], &together[slot].chosen[i], sizeof alone[0].chosen[0]) == 0 &&
                memcmp(alone[slot].top[i], together[slot].top[i], sizeof alone[0].top[0]) == 0 &&
                alone[slot].rank[i] == together[slot].rank[i];
            if (asked[slot][i] && !same)
                fail_msg("%s, seed %d: sequence %u, position %u: %.9g alone, %.9g in a batch", what,
                         (int)seed, slot, i, (double)alone[slot].chosen[i].logprob,
                         (double)together[slot].chosen[i].logprob);
        }
    }
}

/* Each time with other steps than before. */
static void compare_alone_and_together(const struct model_options *options, const char *what)
{
    static uint64_t seed = 0;
    struct driver driver = driver_open(options);
    make_tokens(model_describe(driver.model)->vocab_size);
    memset(alone, 0, sizeof alone);
    run_alone(&driver);
    for (uint64_t end = seed + (driver_device() ? 1 : ROUNDS); seed < end; seed++) {
        memset(together, 0xff, sizeof together);
        memset(asked, 0, sizeof asked);
        run_together(&driver, seed);
        compare_traces(what, seed);
    }
    driver_close(&driver);
}

static void batch_gives_the_same_bits(void **state)
{
    static const struct {
        const char *name;
        enum model_dtype dtype;
        enum model_quantization quantization;
    } formats[] = {
        {"float32", MODEL_DTYPE_F32, MODEL_QUANT_NONE}, {"bfloat16", MODEL_DTYPE_BF16, MODEL_QUANT_NONE},
        {"float16", MODEL_DTYPE_F16, MODEL_QUANT_NONE}, {"int8", MODEL_DTYPE_AUTO, MODEL_QUANT_INT8},
        {"int4", MODEL_DTYPE_AUTO, MODEL_QUANT_INT4},   {"w8a8", MODEL_DTYPE_AUTO, MODEL_QUANT_W8A8},
    };
    char directory[4096];
    snprintf(directory, sizeof directory, "%s/parity/checkpoints/%s", TEST_DATA_DIR, (const char *)*state);
    bool every_format = !MEETINGS_ONLY || strcmp(*state, "llama-tied-llama3-rope") == 0;
    for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++) {
        struct model_options options = driver_options(directory, N_SLOTS, MAX_LEN);
        if (!every_format && formats[f].dtype != MODEL_DTYPE_BF16)
            continue;
        options.dtype = formats[f].dtype;
        options.quantization = formats[f].quantization;
        compare_alone_and_together(&options, formats[f].name);
    }
}

/* The same on the codes of a checkpoint. */
static void codes_give_the_same_bits(void **state)
{
    char directory[4096];
    snprintf(directory, sizeof directory, "%s/parity/quantized/%s", TEST_DATA_DIR, (const char *)*state);
    struct model_options options = driver_options(directory, N_SLOTS, MAX_LEN);
    compare_alone_and_together(&options, *state);
}

/* What the last layer's MLP computed in a row of the step. */
static void read_mlp(const struct driver *driver, uint32_t row, float *out)
{
    const struct model_rank *rank = &driver->model->ranks[0];
    rank->backend->vtable->act_read(rank->acts.mlp, row, 1, out);
}

/* Behind the last attention an output's row stands where the output does: the others are not computed. */
static void rows_without_outputs_end_at_the_last_attention(void **state)
{
    (void)state;
    enum { ROWS = 8, WIDTH_MAX = 1024 };
    static float whole[WIDTH_MAX], narrow[WIDTH_MAX];
    struct model_options options =
        driver_options(TEST_DATA_DIR "/parity/checkpoints/qwen2-window", N_SLOTS, MAX_LEN);
    struct driver driver = driver_open(&options);
    const size_t width = driver.model->ranks[0].config.intermediate_size;
    assert_true(width <= WIDTH_MAX);
    make_tokens(model_describe(driver.model)->vocab_size);
    for (uint32_t slot = 0; slot < 2; slot++) {
        struct share share = {.slot = slot, .n = ROWS, .n_silent = slot == 0 ? 0 : ROWS - 1};
        memcpy(tokens[1], tokens[0], sizeof tokens[0]);
        driver_begin(&driver);
        add_share(&driver, &share);
        driver_run(&driver);
        read_mlp(&driver, slot == 0 ? ROWS - 1 : 0, slot == 0 ? whole : narrow);
    }
    assert_memory_equal(narrow, whole, width * sizeof(float));
    driver_close(&driver);
}

/* Seeded draws at temperature 1 beside others, and alone: the same tokens. */
static void draw(struct driver *driver, uint32_t first_slot, uint32_t n_slots, struct trace *traces)
{
    enum { N_PROMPT = 20, N_DRAWN = 24 };
    for (uint32_t s = first_slot; s < first_slot + n_slots; s++) {
        const struct sampler_params params = {
            .temperature = 1.0f, .top_p = 0.9f, .repetition_penalty = 1.1f, .seed = 99 + s};
        const struct sampler_history history = {.prompt_ids = tokens[s], .n_prompt = N_PROMPT};
        model_slot_set(driver->model, s, &params, &history);
    }
    for (uint32_t i = 0; i < N_DRAWN; i++) {
        driver_begin(driver);
        for (uint32_t s = first_slot; s < first_slot + n_slots; s++) {
            uint32_t n = i == 0 ? N_PROMPT : 1;
            uint32_t row = driver_add(driver, s, i == 0 ? tokens[s] : NULL, i == 0 ? 0 : N_PROMPT - 1 + i, n);
            driver_want(driver, row + n - 1, STEP_OUTPUT_SAMPLE, 0, 1);
        }
        driver_run(driver);
        for (uint32_t s = 0; s < n_slots; s++) {
            const struct step_result *result = driver_result(driver, s);
            traces[first_slot + s].drawn[i] = result->token_ids[0];
            traces[first_slot + s].chosen[i] = result->chosen;
        }
    }
}

static void draws_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    struct model_options options =
        driver_options(TEST_DATA_DIR "/parity/checkpoints/qwen2-window", N_SLOTS, MAX_LEN);
    struct driver driver = driver_open(&options);
    make_tokens(model_describe(driver.model)->vocab_size);
    memset(alone, 0, sizeof alone);
    memset(together, 0, sizeof together);
    for (uint32_t slot = 0; slot < n_slots(); slot++)
        draw(&driver, slot, 1, alone);
    draw(&driver, 0, N_SLOTS, together);
    assert_memory_equal(alone, together, n_slots() * sizeof alone[0]);
    assert_memory_not_equal(alone[0].drawn, alone[1].drawn, sizeof alone[0].drawn);
    driver_close(&driver);
}

/* Blocks that step->copies name hold the same keys and values as where they came from. */
static void copied_blocks_continue_the_sequence(void **state)
{
    (void)state;
    struct model_options options = driver_options(TEST_DATA_DIR "/parity/checkpoints/llama-gqa", 3, MAX_LEN);
    struct driver driver = driver_open(&options);
    make_tokens(model_describe(driver.model)->vocab_size);
    enum { SHARED = 3 * MODEL_BLOCK_TOKENS }; /* as many copies as there are slots */
    memset(alone, 0, sizeof alone);
    memset(together, 0, sizeof together);
    struct share all = {.slot = 0, .first = 0, .n = SEQ_TOKENS};
    driver_begin(&driver);
    add_share(&driver, &all);
    driver_run(&driver);
    record_share(&driver, &all, alone);

    memcpy(tokens[1], tokens[0], sizeof tokens[0]);
    struct share rest = {.slot = 1, .first = SHARED, .n = SEQ_TOKENS - SHARED};
    driver_begin(&driver);
    add_share(&driver, &rest);
    const uint32_t *to = step_block_table(driver.step, 0, 0);
    for (uint32_t b = 0; b < SHARED / MODEL_BLOCK_TOKENS; b++)
        driver.step->copies[driver.step->n_copies++] =
            (struct step_copy){.from_block = to[b] - driver.blocks_per_slot, .to_block = to[b]};
    driver_run(&driver);
    record_share(&driver, &rest, together);
    for (uint32_t i = SHARED; i < SEQ_TOKENS; i++)
        assert_memory_equal(&alone[0].chosen[i], &together[1].chosen[i], sizeof alone[0].chosen[0]);
    driver_close(&driver);
}

/* More outputs than one pass through the LM head takes, each with a mask that leaves one token. */
static void masks_follow_their_outputs(void **state)
{
    (void)state;
    enum { N_MASKED = 40, VOCAB_WORDS = 12 }; /* 384 tokens */
    struct model_options options =
        driver_options(TEST_DATA_DIR "/parity/checkpoints/llama-gqa", N_MASKED, 16);
    struct driver driver = driver_open(&options);
    static uint32_t words[N_MASKED][VOCAB_WORDS];
    const uint32_t *masks[N_MASKED];
    const uint32_t prompt[] = {5};
    driver_begin(&driver);
    for (uint32_t slot = 0; slot < N_MASKED; slot++) {
        uint32_t only = 7 * slot + 3;
        words[slot][only / 32] = 1u << only % 32;
        masks[slot] = slot % 5 ? words[slot] : NULL;
        driver_reset_slot(&driver, slot);
        driver_want(&driver, driver_add(&driver, slot, prompt, 0, 1), STEP_OUTPUT_SAMPLE, 0, -1);
    }
    driver_run_masked(&driver, masks);
    uint32_t unmasked = driver_result(&driver, 0)->token_ids[0];
    for (uint32_t slot = 0; slot < N_MASKED; slot++)
        assert_int_equal(driver_result(&driver, slot)->token_ids[0], slot % 5 ? 7 * slot + 3 : unmasked);
    driver_close(&driver);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        {"llama batch_gives_the_same_bits", batch_gives_the_same_bits, NULL, NULL, "llama-tied-llama3-rope"},
        {"qwen2 batch_gives_the_same_bits", batch_gives_the_same_bits, NULL, NULL, "qwen2-window"},
        {"awq codes_give_the_same_bits", codes_give_the_same_bits, NULL, NULL, "awq-g128"},
        {"packed codes_give_the_same_bits", codes_give_the_same_bits, NULL, NULL, "packed-asym-g32"},
        {"w8a8 codes_give_the_same_bits", codes_give_the_same_bits, NULL, NULL, "w8a8"},
        {"e4m3 codes_give_the_same_bits", codes_give_the_same_bits, NULL, NULL, "e4m3-tensor"},
        {"gemma3 batch_gives_the_same_bits", batch_gives_the_same_bits, NULL, NULL, "gemma3-windows"},
        cmocka_unit_test(rows_without_outputs_end_at_the_last_attention),
        cmocka_unit_test(draws_do_not_depend_on_the_batch),
        cmocka_unit_test(copied_blocks_continue_the_sequence),
        cmocka_unit_test(masks_follow_their_outputs),
    };
    return cmocka_run_group_tests_name("forward batch", tests, NULL, NULL);
}
