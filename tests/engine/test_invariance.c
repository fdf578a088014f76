/* The same bits: a hundred requests answer the same tokens and logprobs, bit by bit, whoever runs beside
 * them, in whatever order and chunks, preempted or not, with and without cached prefixes, on any number of
 * threads and steps in flight, by any instruction set. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/philox.h"
#include "kernels/kernel_table.h"
#include "tests/engine/engine_world.h"
#include "tests/model/block_model.h"

enum { FEW_REQUESTS = 10 };
#if defined(__SANITIZE_THREAD__) /* threads meet in the same way by any instructions, in any model */
enum { N_REQUESTS = 24, OTHER_REQUESTS = FEW_REQUESTS, SANITIZED = 1, EVERY_ISA = 0, THREADS_ALONE = 1 };
#elif defined(__SANITIZE_ADDRESS__)
enum { N_REQUESTS = 24, OTHER_REQUESTS = FEW_REQUESTS, SANITIZED = 1, EVERY_ISA = 1, THREADS_ALONE = 0 };
#else
enum { N_REQUESTS = 100, OTHER_REQUESTS = N_REQUESTS, SANITIZED = 0, EVERY_ISA = 1, THREADS_ALONE = 0 };
#endif
enum { PROMPT_MAX = 120, SHARED_PREFIX = 50, OUTPUT_MAX = 40, LISTS_MAX = 24, N_NOISE = 20 };
enum { LONG_TIMES = 5, LONG_REQUESTS = 10, LONG_KV_TIMES = 5, LONG_OUTPUT_TIMES = 6 };

struct test_request {
    struct request request;
    uint32_t ids[PROMPT_MAX * LONG_TIMES], allowed[LISTS_MAX], stops[2];
    struct logit_bias bias[4];
    uint32_t n; /* choices */
};

struct setup {
    const char *name;
    const char *directory;
    enum model_dtype dtype;
    enum model_quantization quantization;
    enum model_kv_cache kv_cache;
    uint32_t vocab_size;
};

struct variant {
    const char *name;
    bool one_by_one, shuffled, caches_prefixes, twice, with_noise;
    bool
        on_device; /* also of many requests on an emulated device, which is slow; of few there is every one */
    bool on_cpu;   /* of its threads and nothing else */
    bool of_order; /* of what runs beside what, by the same threads: not under ThreadSanitizer */
    uint32_t prefill_chunk, max_num_batched_tokens, num_kv_blocks, steps_in_flight;
    int n_threads;
    const char *isa; /* NULL = the machine's best */
};

static const char *device; /* NULL = the CPU */
static uint32_t n_requests = N_REQUESTS;
static uint32_t n_times =
    1; /* as long as usual are prompts and what they share; more than 1: the rest by LONG_.. */
static struct test_request requests[N_REQUESTS];
static struct replies baseline[N_REQUESTS], answers[N_REQUESTS];

/* ---- The requests ---- */

static void choose_sampling(struct rng *rng, struct test_request *test, uint32_t index, uint32_t vocab_size)
{
    struct sampling_params *p = &test->request.sampling;
    p->set = SAMPLING_TEMPERATURE | SAMPLING_SEED | SAMPLING_MAX_TOKENS | SAMPLING_IGNORE_EOS;
    p->seed = 1000 + index;
    p->ignore_eos = index % 4 != 0;
    p->max_tokens = 1 + rng_below(rng, OUTPUT_MAX * (n_times == 1 ? 1 : LONG_OUTPUT_TIMES));
    uint32_t kind = index % 8;
    p->temperature = kind == 0 || kind == 4 ? 0.0f : 0.6f + 0.2f * (float)kind;
    p->set |= kind == 2 || kind == 5 ? SAMPLING_TOP_P : 0;
    p->top_p = 0.9f;
    p->set |= kind == 3 || kind == 5 ? SAMPLING_TOP_K | SAMPLING_MIN_P : 0;
    p->top_k = 20;
    p->min_p = 0.02f;
    bool penalties = kind == 4 || kind == 5;
    p->set |=
        penalties ? SAMPLING_REPETITION_PENALTY | SAMPLING_PRESENCE_PENALTY | SAMPLING_FREQUENCY_PENALTY : 0;
    p->repetition_penalty = 1.3f;
    p->presence_penalty = 0.5f;
    p->frequency_penalty = 0.3f;
    for (uint32_t i = 0; i < LISTS_MAX; i++)
        test->allowed[i] = rng_below(rng, vocab_size);
    for (uint32_t i = 0; i < 4; i++)
        test->bias[i] = (struct logit_bias){rng_below(rng, vocab_size), 2.0f * (float)i - 3.0f};
    p->allowed_token_ids = test->allowed;
    p->n_allowed_token_ids = kind == 6 ? LISTS_MAX : 0;
    p->logit_bias = test->bias;
    p->n_logit_bias = kind == 6 ? 4 : 0;
    test->stops[0] = test->allowed[0];
    test->stops[1] = test->allowed[1];
    p->stop_token_ids = test->stops;
    p->n_stop_token_ids = kind == 6 || kind == 7 ? 2 : 0;
    p->set |= kind == 7 ? SAMPLING_MIN_TOKENS : 0;
    p->min_tokens = p->max_tokens / 2;
}

static void make_requests(uint32_t vocab_size)
{
    uint32_t shared[SHARED_PREFIX * LONG_TIMES], n_shared = SHARED_PREFIX * n_times;
    fill_prompt(shared, n_shared, 4711, vocab_size);
    for (uint32_t i = 0; i < n_requests; i++) {
        struct test_request *test = &requests[i];
        struct rng rng = rng_make(i + 1);
        uint32_t length = i < 3 ? i + 1 : 1 + rng_below(&rng, PROMPT_MAX * n_times);
        *test = (struct test_request){.n = i % 10 == 9 ? 2 : 1};
        fill_prompt(test->ids, length, i, vocab_size);
        if (i % 3 == 0) /* some begin alike */
            memcpy(test->ids, shared, (length < n_shared ? length : n_shared) * sizeof *shared);
        test->request = request_of(test->ids, length, 1);
        choose_sampling(&rng, test, i, vocab_size);
        struct sampling_params *p = &test->request.sampling;
        p->set |= SAMPLING_N | SAMPLING_LOGPROBS | SAMPLING_PROMPT_LOGPROBS;
        p->n = test->n;
        p->logprobs = (int32_t)(i % 5) - 1;
        p->prompt_logprobs = i % 7 == 3 ? (int32_t)(i % 4) : -1;
    }
}

/* ---- Running them ---- */

static struct engine *open_engine(const struct setup *setup, const struct variant *variant)
{
    struct engine_options options = engine_options_default();
    options.model.directory = setup->directory;
    options.model.dtype = setup->dtype;
    options.model.quantization = setup->quantization;
    options.model.kv_cache = setup->kv_cache;
    options.model.device = device;
    if (getenv("BANTAM_TEST_LIBRARY_ROWS")) {
        options.model.batch_variant = true;
        options.model.library_rows_min = (uint32_t)strtoul(getenv("BANTAM_TEST_LIBRARY_ROWS"), NULL, 10);
    }
    options.model.num_kv_blocks = variant->num_kv_blocks * (n_times == 1 ? 1 : LONG_KV_TIMES);
    options.model.n_threads = variant->n_threads ? variant->n_threads : 1;
    if (variant->isa)
        options.model.isa = variant->isa;
    if (variant->max_num_batched_tokens)
        options.model.max_num_batched_tokens = variant->max_num_batched_tokens;
    if (variant->max_num_batched_tokens && variant->max_num_batched_tokens < options.model.max_num_seqs)
        options.model.max_num_seqs = variant->max_num_batched_tokens;
    options.skip_tokenizer_init = true;
    options.disable_prefix_caching = !variant->caches_prefixes;
    options.prefill_chunk = variant->prefill_chunk;
    options.steps_in_flight = variant->steps_in_flight;
    struct engine *engine = NULL;
    assert_error(ERR_OK, engine_open(&options, NULL, &engine));
    return engine;
}

static void read_all(struct world *world, struct stream **streams)
{
    struct event_count *progress = world->vtable->progress(world->service);
    for (;;) {
        uint32_t seen = event_count_read(progress), n_open = 0;
        for (uint32_t i = 0; i < n_requests; i++) {
            if (streams[i] && read_some(world, streams[i], &answers[i])) {
                world->vtable->stream_release(streams[i]);
                streams[i] = NULL;
            }
            n_open += streams[i] != NULL;
        }
        if (n_open == 0)
            return;
        (void)event_count_wait(progress, seen, -1);
    }
}

static void order_requests(const struct variant *variant, uint32_t order[N_REQUESTS])
{
    struct rng rng = rng_make(99);
    for (uint32_t i = 0; i < n_requests; i++)
        order[i] = i;
    for (uint32_t i = n_requests; i > 1 && variant->shuffled; i--) {
        uint32_t k = rng_below(&rng, i), swapped = order[i - 1];
        order[i - 1] = order[k];
        order[k] = swapped;
    }
}

static uint32_t n_noise(void)
{
    return n_requests < N_NOISE ? n_requests : N_NOISE;
}

/* Requests that are cancelled while the others run: every block that they leave is used again. */
static void end_noise(struct world *world, struct stream **noise)
{
    for (uint32_t i = 0; i < n_noise(); i++)
        world->vtable->stream_release(noise[i]);
}

static void run_round(struct world *world, const struct variant *variant)
{
    uint32_t order[N_REQUESTS];
    struct stream *streams[N_REQUESTS] = {NULL}, *noise[N_NOISE];
    order_requests(variant, order);
    for (uint32_t i = 0; i < n_requests; i++) {
        answers[i].n_choices = requests[i].n;
        memset(answers[i].choice, 0, requests[i].n * sizeof *answers[i].choice);
    }
    /* Nobody runs before all are there, so that the same happens every time. */
    engine_loop_park(world->engine, !variant->one_by_one);
    for (uint32_t i = 0; i < n_noise() && variant->with_noise; i++) {
        struct request request = request_of(requests[i].ids, requests[i].request.n_token_ids, 100);
        noise[i] = submit(world, &request);
    }
    for (uint32_t i = 0; i < n_requests; i++) {
        uint32_t at = order[i];
        if (variant->one_by_one)
            ask(world, &requests[at].request, &answers[at]);
        else
            streams[at] = submit(world, &requests[at].request);
    }
    engine_loop_park(world->engine, false);
    if (variant->with_noise) {
        read_tokens(world, streams[order[0]], &answers[order[0]], 1);
        end_noise(world, noise);
    }
    if (!variant->one_by_one)
        read_all(world, streams);
}

/* ---- Comparing ---- */

static bool logprobs_equal(const struct position_logprobs *a, const struct position_logprobs *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bool same = memcmp(&a[i].chosen, &b[i].chosen, sizeof a[i].chosen) == 0 && a[i].rank == b[i].rank &&
                    a[i].n_top == b[i].n_top &&
                    memcmp(a[i].top, b[i].top, a[i].n_top * sizeof a[i].top[0]) == 0;
        if (!same)
            return false;
    }
    return true;
}

static const char *difference(const struct reply *a, const struct reply *b)
{
    if (a->reason != b->reason || a->stop_token_id != b->stop_token_id)
        return "finish";
    if (a->n != b->n || memcmp(a->ids, b->ids, a->n * sizeof *a->ids) != 0)
        return "token ids";
    if (a->n_logprobs != b->n_logprobs || !logprobs_equal(a->logprobs, b->logprobs, a->n_logprobs))
        return "logprobs";
    if (a->n_prompt_logprobs != b->n_prompt_logprobs ||
        !logprobs_equal(a->prompt_logprobs, b->prompt_logprobs, a->n_prompt_logprobs))
        return "prompt logprobs";
    return NULL;
}

static void compare(const struct setup *setup, const struct variant *variant)
{
    for (uint32_t i = 0; i < n_requests; i++) {
        for (uint32_t c = 0; c < requests[i].n; c++) {
            const char *what = difference(&baseline[i].choice[c], &answers[i].choice[c]);
            if (what)
                fail_msg("%s, %s: the %s of request %u choice %u differ", setup->name, variant->name, what, i,
                         c);
        }
    }
}

static void check_baseline(void)
{
    uint32_t n_stopped = 0;
    for (uint32_t i = 0; i < n_requests; i++) {
        const struct reply *reply = &answers[i].choice[0];
        assert_true(reply->reason == FINISH_LENGTH || reply->reason == FINISH_STOP);
        assert_true(reply->n > 0);
        assert_int_equal(reply->n_logprobs, requests[i].request.sampling.logprobs >= 0 ? reply->n : 0);
        n_stopped += reply->reason == FINISH_STOP;
    }
    assert_true(n_stopped > 0 || n_requests < N_REQUESTS);
}

/* Asserts that the variant made happen what it is about. */
static void check_loads(const struct world *world, const struct variant *variant)
{
    struct loads loads;
    world->vtable->loads(world->service, &loads);
    if (variant->num_kv_blocks) {
        if (loads.preemptions_total == 0)
            fail_msg("%s: nothing was preempted", variant->name);
    } else if (!variant->with_noise) /* nobody reads the noise: it pauses and loses its place */
        assert_int_equal(loads.preemptions_total, 0);
    if (variant->caches_prefixes)
        assert_true(loads.prefix_hit_tokens > (variant->twice ? n_requests * 16 : 0));
    else
        assert_int_equal(loads.prefix_hit_tokens, 0);
}

static void run_variant(const struct setup *setup, const struct variant *variant)
{
    struct world world = {.engine = open_engine(setup, variant)};
    world.service = engine_service(world.engine);
    world.vtable = world.service->vtable;
    bool is_baseline = variant->one_by_one && !variant->caches_prefixes;
    for (int round = 0; round < (variant->twice ? 2 : 1); round++) {
        run_round(&world, variant);
        if (is_baseline)
            check_baseline();
        else
            compare(setup, variant);
    }
    check_loads(&world, variant);
    world_assert_empty(&world);
    engine_close(world.engine);
    for (uint32_t i = 0; i < n_requests && is_baseline; i++)
        memcpy(baseline[i].choice, answers[i].choice, requests[i].n * sizeof *answers[i].choice);
}

/* What was answered so far handed to another engine: the rest is the same. */
static void run_hand_over(const struct setup *setup)
{
    const struct variant plain = {.name = "hand-over", .caches_prefixes = true};
    struct world world = {.engine = open_engine(setup, &plain)};
    world.service = engine_service(world.engine);
    world.vtable = world.service->vtable;
    struct replies rest = replies_new(1);
    for (uint32_t i = 0; i < n_requests; i++) {
        const struct reply *whole = &baseline[i].choice[0];
        size_t cut = whole->n / 2;
        if (requests[i].n > 1 || cut == 0)
            continue;
        struct request request = requests[i].request;
        request.output_prefix_ids = whole->ids;
        request.n_output_prefix_ids = cut;
        memset(rest.choice, 0, sizeof *rest.choice);
        ask(&world, &request, &rest);
        assert_int_equal(rest.choice->reason, whole->reason);
        assert_int_equal(rest.choice->n, whole->n - cut);
        assert_memory_equal(rest.choice->ids, whole->ids + cut, (whole->n - cut) * sizeof *whole->ids);
        if (!logprobs_equal(rest.choice->logprobs, whole->logprobs + cut, rest.choice->n_logprobs))
            fail_msg("%s, hand-over: the logprobs of request %u differ", setup->name, i);
    }
    replies_free(&rest);
    engine_close(world.engine);
}

enum { SMALL_KV_BLOCKS = 12 };

static const struct variant BASELINE = {.name = "alone", .one_by_one = true};
static const struct variant VARIANTS[] = {
    {.name = "all at once", .on_device = true},
    {.name = "shuffled", .shuffled = true, .of_order = true},
    {.name = "prefill chunks of 16", .prefill_chunk = 16, .of_order = true},
    {.name = "prefill chunks of 64, shuffled", .prefill_chunk = 64, .shuffled = true, .of_order = true},
    {.name = "steps of 16 tokens", .max_num_batched_tokens = 16, .of_order = true},
    {.name = "steps of 64 tokens", .max_num_batched_tokens = 64, .of_order = true},
    {.name = "small KV, one step in flight",
     .num_kv_blocks = SMALL_KV_BLOCKS,
     .steps_in_flight = 1,
     .on_device = true},
    {.name = "cached prefixes", .caches_prefixes = true, .twice = true, .of_order = true},
    {.name = "cached prefixes alone", .caches_prefixes = true, .one_by_one = true, .of_order = true},
    {.name = "two steps in flight", .steps_in_flight = 2, .of_order = true},
    {.name = "two threads", .n_threads = 2, .on_cpu = true},
    {.name = "neighbours that go away", .with_noise = true, .caches_prefixes = true},
};
static const struct variant WITHOUT_AMX = {
    .name = "alone, without AMX", .one_by_one = true, .isa = "avx512vnni"};
static const struct variant MASKED[] = {{.name = "AVX-512 without VNNI", .isa = "avx512"},
                                        {.name = "AVX-VNNI", .isa = "avxvnni"},
                                        {.name = "AVX2", .isa = "avx2"}};
static const struct variant SCALAR = {.name = "scalar kernels", .isa = "scalar"};
static const struct variant EVERYTHING[] = {
    {.name = "everything at once, a roomy KV",
     .shuffled = true,
     .caches_prefixes = true,
     .twice = true,
     .with_noise = true,
     .prefill_chunk = 16,
     .steps_in_flight = 2,
     .n_threads = 2},
    {.name = "everything at once, a small KV",
     .shuffled = true,
     .caches_prefixes = true,
     .prefill_chunk = 24,
     .max_num_batched_tokens = 100,
     .num_kv_blocks = SMALL_KV_BLOCKS,
     .steps_in_flight = 2,
     .n_threads = 2,
     .on_device = true},
};

static bool is_wanted(const struct variant *variant)
{
    if (THREADS_ALONE && variant->of_order)
        return false;
    bool all = !SANITIZED && n_requests <= FEW_REQUESTS && !getenv("BANTAM_TEST_LIBRARY_ROWS");
    return !device || variant->on_device || (all && !variant->on_cpu);
}

static void run_setup(const struct setup *setup, bool every_variant)
{
    make_requests(setup->vocab_size);
    run_variant(setup, &BASELINE);
    for (size_t i = 0; i < sizeof VARIANTS / sizeof *VARIANTS && every_variant; i++)
        if (is_wanted(&VARIANTS[i]))
            run_variant(setup, &VARIANTS[i]);
    size_t least = THREADS_ALONE && !every_variant ? 1 : 0;
    for (size_t i = least; i < sizeof EVERYTHING / sizeof *EVERYTHING; i++)
        if (is_wanted(&EVERYTHING[i]))
            run_variant(setup, &EVERYTHING[i]);
    if (least == 0)
        run_hand_over(setup);
    if (device || !EVERY_ISA)
        return;
    if (isa_detect() == ISA_AMX) /* an arithmetic of its own: the others have another baseline */
        run_variant(setup, &WITHOUT_AMX);
    for (size_t i = 0; i < sizeof MASKED / sizeof *MASKED; i++)
        run_variant(setup, &MASKED[i]);
    if (every_variant)
        run_variant(setup, &SCALAR);
}

static void run_some(const struct setup *setup, uint32_t n_at_most, bool every_variant)
{
    uint32_t n_before = n_requests;
    n_requests = n_before < n_at_most ? n_before : n_at_most;
    run_setup(setup, every_variant);
    n_requests = n_before;
}

/* A model beside the first. With sanitizers on the CPU: alone, everything at once on two threads, handed
 * over, and by every instruction set; under ThreadSanitizer alone and everything at once in a small KV. What
 * one variant after the other does to the engine is seen with the first model, and is the same. */
static void run_other(const struct setup *setup, bool every_variant)
{
    run_some(setup, OTHER_REQUESTS, every_variant && (device || !SANITIZED));
}

static bool finished_is(const struct loads *loads, uint64_t n)
{
    return loads->requests_finished == n;
}

/* Nothing is allocated from the first step to the last, whatever is asked for. */
static void run_counting_allocations(const struct setup *setup)
{
    const struct variant plain = {.caches_prefixes = true, .num_kv_blocks = SMALL_KV_BLOCKS, .n_threads = 2};
    make_requests(setup->vocab_size);
    struct world world = {.engine = open_engine(setup, &plain)};
    world.service = engine_service(world.engine);
    world.vtable = world.service->vtable;
    struct stream *streams[N_REQUESTS];
    engine_loop_park(world.engine, true);
    for (uint32_t i = 0; i < n_requests; i++)
        streams[i] = submit(&world, &requests[i].request);
    uint64_t before = mem_alloc_count();
    engine_loop_park(world.engine, false);
    world_wait_loads(&world, finished_is, n_requests); /* every answer is shorter than its ring */
    assert_int_equal(mem_alloc_count(), before);
    for (uint32_t i = 0; i < n_requests; i++)
        world.vtable->stream_release(streams[i]);
    engine_close(world.engine);
}

#define CHECKPOINT(name) TEST_DATA_DIR "/parity/checkpoints/" name
#define QUANTIZED(name)  TEST_DATA_DIR "/parity/quantized/" name
enum { LLAMA_VOCAB = 384, QWEN2_VOCAB = 320, QUANTIZED_VOCAB = 160 };

static void test_llama(void **state)
{
    (void)state;
    run_setup(
        &(struct setup){.name = "llama", .directory = CHECKPOINT("llama-gqa"), .vocab_size = LLAMA_VOCAB},
        true);
}

static void test_qwen2(void **state)
{
    (void)state;
    run_other(&(struct setup){.name = "qwen2",
                              .directory = CHECKPOINT("qwen2-gqa-tied"),
                              .vocab_size = QWEN2_VOCAB},
              true);
}

static void test_float32(void **state)
{
    (void)state;
    run_other(&(struct setup){.name = "llama float32",
                              .directory = CHECKPOINT("llama-gqa"),
                              .dtype = MODEL_DTYPE_F32,
                              .vocab_size = LLAMA_VOCAB},
              false);
}

static void test_int8(void **state)
{
    (void)state;
    run_other(&(struct setup){.name = "qwen2 int8",
                              .directory = CHECKPOINT("qwen2-gqa-tied"),
                              .quantization = MODEL_QUANT_INT8,
                              .vocab_size = QWEN2_VOCAB},
              false);
}

static void test_int4(void **state)
{
    (void)state;
    run_other(&(struct setup){.name = "llama int4",
                              .directory = CHECKPOINT("llama-gqa"),
                              .quantization = MODEL_QUANT_INT4,
                              .vocab_size = LLAMA_VOCAB},
              false);
}

/* On a GPU there is none. */
static void test_int8_kv(void **state)
{
    (void)state;
    if (device)
        skip();
    run_other(&(struct setup){.name = "llama, int8 KV",
                              .directory = CHECKPOINT("llama-gqa"),
                              .kv_cache = MODEL_KV_INT8,
                              .vocab_size = LLAMA_VOCAB},
              true);
}

/* The checkpoint with room for contexts of several chunks of attention. Free with remove_long_checkpoint. */
static void make_long_checkpoint(char directory[64])
{
    char text[4096], path[128];
    FILE *file = fopen(CHECKPOINT("llama-gqa") "/config.json", "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    (void)fclose(file);
    static const char key[] = "\"max_position_embeddings\": ";
    char *place = strstr(text, key);
    assert_true(place != NULL && memcmp(place + sizeof key - 1, "256", 3) == 0);
    memcpy(place + sizeof key - 1, "999", 3);
    snprintf(directory, 64, "/tmp/bantam-long-XXXXXX");
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/config.json", directory);
    file = fopen(path, "w");
    assert_true(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    assert_int_equal(symlink(CHECKPOINT("llama-gqa") "/model.safetensors", path), 0);
}

static void remove_long_checkpoint(const char *directory)
{
    char path[128];
    snprintf(path, sizeof path, "%s/config.json", directory);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(directory), 0);
}

/* Contexts of up to three chunks, which threads share and merge: kernels/kernel_types.h. On an emulated
 * device in one variant: beyond one split of the keys, whose parts are merged. */
static void test_long_contexts(void **state)
{
    (void)state;
    uint32_t n_before = n_requests;
    char directory[64];
    if (n_requests < LONG_REQUESTS)
        skip();
    make_long_checkpoint(directory);
    n_requests = LONG_REQUESTS;
    n_times = LONG_TIMES;
    struct setup setup = {.name = "llama, long", .directory = directory, .vocab_size = LLAMA_VOCAB};
    run_other(&setup, !device);
    if (!device) {
        setup.name = "llama, long, int8 KV";
        setup.kv_cache = MODEL_KV_INT8;
        run_other(&setup, false);
    }
    n_times = 1;
    n_requests = n_before;
    remove_long_checkpoint(directory);
}

static void test_no_allocation(void **state)
{
    (void)state;
    struct setup setup = {.name = "llama", .directory = CHECKPOINT("llama-gqa"), .vocab_size = LLAMA_VOCAB};
    run_counting_allocations(&setup);
    setup.quantization = MODEL_QUANT_INT8;
    setup.kv_cache = device ? MODEL_KV_AUTO : MODEL_KV_INT8;
    run_counting_allocations(&setup);
}

static void test_fp8(void **state)
{
    (void)state;
    if (!device)
        skip();
    run_other(&(struct setup){.name = "llama fp8",
                              .directory = CHECKPOINT("llama-gqa"),
                              .quantization = MODEL_QUANT_FP8,
                              .kv_cache = MODEL_KV_FP8,
                              .vocab_size = LLAMA_VOCAB},
              true);
}

/* On a GPU every variant: no other format has its arithmetic there. */
static void test_w8a8(void **state)
{
    (void)state;
    run_other(&(struct setup){.name = "llama w8a8",
                              .directory = CHECKPOINT("llama-gqa"),
                              .quantization = MODEL_QUANT_W8A8,
                              .vocab_size = LLAMA_VOCAB},
              device != NULL);
}

static void run_few(const struct setup *setup)
{
    run_some(setup, FEW_REQUESTS, false);
}

/* Codes with zero points; in groups of 32 and, where tiles then multiply in int8, of 128. */
static void test_awq(void **state)
{
    (void)state;
    run_few(&(struct setup){
        .name = "AWQ, groups of 32", .directory = QUANTIZED("awq-g32"), .vocab_size = QUANTIZED_VOCAB});
    run_few(&(struct setup){
        .name = "AWQ, groups of 128", .directory = QUANTIZED("awq-g128"), .vocab_size = QUANTIZED_VOCAB});
}

/* Every type of blocks, and with them int5, k4, k5 and k6. */
static void test_gguf(void **state)
{
    (void)state;
    char path[BLOCK_MODEL_PATH];
    (void)block_model_write(NULL, path);
    run_few(&(struct setup){.name = "GGUF", .directory = path, .vocab_size = BLOCK_MODEL_VOCAB});
    assert_int_equal(unlink(path), 0);
}

static int make_replies(void **state)
{
    (void)state;
    device = getenv("BANTAM_TEST_DEVICE");
    if (getenv("BANTAM_TEST_REQUESTS"))
        n_requests = (uint32_t)strtoul(getenv("BANTAM_TEST_REQUESTS"), NULL, 10);
    assert_in_range(n_requests, 1, N_REQUESTS);
    for (uint32_t i = 0; i < n_requests; i++) {
        baseline[i] = replies_new(2);
        answers[i] = replies_new(2);
    }
    return 0;
}

static int free_replies(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < n_requests; i++) {
        replies_free(&baseline[i]);
        replies_free(&answers[i]);
    }
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama),         cmocka_unit_test(test_qwen2),
        cmocka_unit_test(test_float32),       cmocka_unit_test(test_int8_kv),
        cmocka_unit_test(test_int8),          cmocka_unit_test(test_int4),
        cmocka_unit_test(test_fp8),           cmocka_unit_test(test_w8a8),
        cmocka_unit_test(test_awq),           cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_no_allocation), cmocka_unit_test(test_long_contexts),
    };
    if (getenv("BANTAM_TEST_ONLY"))
        cmocka_set_test_filter(getenv("BANTAM_TEST_ONLY"));
    return cmocka_run_group_tests(tests, make_replies, free_replies);
}
