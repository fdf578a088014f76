/* The attention of whole steps through a backend's vtable: a prompt in chunks, sequences that share its
 * beginning and decode side by side (on CUDA: first launched, then captured, then replayed), each of them
 * alone, where CUDA turns q and writes the new key within the attention. Bit for bit the same on a backend,
 * and within roundings on CUDA as on the CPU. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/checked.h"
#include "base/philox.h"
#include "kernels/kernels.h"
#include "tests/base/ok.h"
#include "tests/cuda/fake_control.h"

enum {
    HEADS = 4,
    KV_HEADS = 1,
    HEAD_DIM = 64,
    WIDTH = HEADS * HEAD_DIM,
    QKV_WIDTH = (HEADS + 2 * KV_HEADS) * HEAD_DIM,
    PREFIX = 272, /* tokens that all share: a split and a block; more than 256 rows */
    SHARED_BLOCKS = PREFIX / 16,
    SEQS = 12, /* enough for the kernel of shared prefixes */
    STEPS = 3, /* of decoding */
    MAX_LEN = 288,
    BLOCKS = SHARED_BLOCKS + SEQS,
};

struct bench {
    struct backend *backend;
    const struct backend_vtable *ops;
    struct act *qkv, *out;
    struct rope *rope;
    struct kv *kv;
    struct step *step;
    const struct fake_device_control *control; /* NULL: on the CPU */
};

static void bench_open(struct bench *b, struct backend *backend, enum kv_dtype dtype)
{
    *b = (struct bench){.backend = backend, .ops = backend->vtable};
    struct kv_desc kv = {dtype, BLOCKS, 16, KV_HEADS, HEAD_DIM, 0};
    struct backend_needs needs = {.step = {PREFIX, SEQS, PREFIX, 1, MAX_LEN / 16, 1},
                                  .qkv = {HEADS, KV_HEADS, HEAD_DIM},
                                  .widest_in = WIDTH,
                                  .widest_out = QKV_WIDTH,
                                  .vocab_size = 64,
                                  .logits_rows = 8};
    float inv_freq[HEAD_DIM / 2];
    for (int i = 0; i < HEAD_DIM / 2; i++)
        inv_freq[i] = powf(10000.0f, -2.0f * (float)i / HEAD_DIM);
    OK(b->ops->reserve(backend, &needs,
                       b->ops->act_bytes(backend, ACT_HIDDEN, PREFIX, QKV_WIDTH) +
                           b->ops->act_bytes(backend, ACT_HIDDEN, PREFIX, WIDTH) +
                           b->ops->rope_bytes(backend, HEAD_DIM / 2, MAX_LEN) +
                           b->ops->kv_bytes(backend, &kv) + b->ops->scratch_bytes(backend, &needs)));
    OK(b->ops->act_create(backend, ACT_HIDDEN, PREFIX, QKV_WIDTH, &b->qkv));
    OK(b->ops->act_create(backend, ACT_HIDDEN, PREFIX, WIDTH, &b->out));
    OK(b->ops->rope_create(backend, inv_freq, HEAD_DIM / 2, 1.0f, MAX_LEN, &b->rope));
    OK(b->ops->kv_create(backend, &kv, &b->kv));
    OK(b->ops->step_create(backend, &needs.step, &b->step));
}

static void bench_close(struct bench *b)
{
    b->ops->step_destroy(b->backend, b->step);
    b->ops->kv_destroy(b->kv);
    b->ops->rope_destroy(b->rope);
    b->ops->act_destroy(b->qkv);
    b->ops->act_destroy(b->out);
    b->ops->destroy(b->backend);
}

/* ---- Steps ---- */

static void begin(struct bench *b)
{
    b->step->n_rows = b->step->n_seqs = b->step->n_outputs = b->step->n_copies = 0;
}

/* Rows [first, first + n) of a sequence; its q, k and v hang on the sequence and the position, in the prefix
 * on the position alone. */
static void add_rows(struct bench *b, uint32_t seq, uint32_t first, uint32_t n)
{
    struct step *step = b->step;
    uint32_t s = step->n_seqs++, *table = step_block_table(step, 0, s);
    step->seqs[s] = (struct step_seq){step->n_rows, n, first + n, STEP_NO_SLOT, STEP_NO_SLOT};
    for (uint32_t i = 0; i < SHARED_BLOCKS; i++)
        table[i] = (i * 7 + 3) % SHARED_BLOCKS;
    table[SHARED_BLOCKS] = SHARED_BLOCKS + seq;
    float row[QKV_WIDTH];
    for (uint32_t position = first; position < first + n; position++) {
        struct rng rng = rng_make(position < PREFIX ? position : 1000 * (seq + 1) + position);
        for (uint32_t i = 0; i < QKV_WIDTH; i++)
            row[i] = rng_normal(&rng);
        b->ops->act_write(b->qkv, step->n_rows, 1, row);
        step->rows[step->n_rows++] = (struct step_row){.position = position, .seq = s};
    }
    step->outputs[step->n_outputs++] = (struct step_output){.row = step->n_rows - 1, .n_logprobs = -1};
}

static uint64_t launches(const struct bench *b)
{
    struct fake_device_counts counts = {0};
    if (b->control != NULL)
        b->control->counts(&counts);
    return counts.launches;
}

/* out: [rows of the step][WIDTH]. Returns the launches of a step that is no replay. */
static uint64_t run(struct bench *b, float *out)
{
    uint64_t before = launches(b);
    struct qkv_shape shape = {HEADS, KV_HEADS, HEAD_DIM};
    struct attention_params params = {shape, 0.125f, 0, 0};
    if (b->ops->forward_begin(b->backend, b->step)) {
        b->ops->rope_kv_write(b->backend, b->step, b->qkv, &shape, NULL, NULL, 0, b->rope, ROPE_HALVES,
                              b->kv);
        b->ops->attention(b->backend, b->step, b->qkv, &params, b->kv, b->out);
        b->ops->forward_end(b->backend, b->step);
    }
    uint64_t n = launches(b) - before;
    b->ops->collect(b->backend, b->step);
    b->ops->act_read(b->out, 0, b->step->n_rows, out);
    return n;
}

/* The prompt in two chunks, and again at once (on CUDA by another kernel); then all sequences decode
 * together, and each token of each again alone. together: [STEPS] [SEQS][WIDTH]. */
static void run_all(struct bench *b, float *together)
{
    float *out = mem_alloc_array((size_t)PREFIX * WIDTH, sizeof(float));
    assert_non_null(out);
    float *whole = mem_alloc_array((size_t)PREFIX * WIDTH, sizeof(float));
    assert_non_null(whole);
    begin(b);
    add_rows(b, 0, 0, 150);
    run(b, out);
    begin(b);
    add_rows(b, 0, 150, PREFIX - 150);
    run(b, out + 150 * WIDTH);
    begin(b);
    add_rows(b, 0, 0, PREFIX);
    run(b, whole);
    assert_memory_equal(whole, out, (size_t)PREFIX * WIDTH * sizeof(float));
    mem_free(whole);
    for (uint32_t t = 0; t < STEPS; t++) {
        begin(b);
        for (uint32_t s = 0; s < SEQS; s++)
            add_rows(b, s, PREFIX + t, 1);
        run(b, together + (size_t)t * SEQS * WIDTH);
    }
    for (uint32_t s = 0; s < SEQS; s += 3) {
        for (uint32_t t = 0; t < STEPS; t++) {
            begin(b);
            add_rows(b, s, PREFIX + t, 1);
            uint64_t n = run(b, out);
            assert_true(b->control == NULL || s > 0 || t > 0 || n == 1);
            assert_memory_equal(out, together + (t * SEQS + s) * WIDTH, WIDTH * sizeof(float));
        }
        begin(b);
        add_rows(b, s, PREFIX - 3, 3 + STEPS);
        uint64_t n = run(b, out);
        assert_true(b->control == NULL || n == 2);
        for (uint32_t t = 0; t < STEPS; t++)
            assert_memory_equal(out + (3 + t) * WIDTH, together + (t * SEQS + s) * WIDTH,
                                WIDTH * sizeof(float));
    }
    mem_free(out);
}

static void check_dtype(enum kv_dtype dtype, float tolerance)
{
    static float cpu[STEPS * SEQS * WIDTH], cuda[STEPS * SEQS * WIDTH];
    struct backend *backend;
    struct bench b;
    OK(backend_cpu_create(1, "auto", &backend));
    bench_open(&b, backend, KV_F32);
    run_all(&b, cpu);
    bench_close(&b);
    OK(backend_cuda_create(&(struct backend_cuda_options){.n_threads = 1}, &backend));
    bench_open(&b, backend, dtype);
    struct kv_desc int8 = {KV_INT8, BLOCKS, 16, KV_HEADS, HEAD_DIM, 0};
    struct kv *kv;
    err_t e = b.ops->kv_create(backend, &int8, &kv);
    assert_true(e.code == ERR_INVALID_ARGUMENT && kv == NULL && strstr(e.message, "fp8") != NULL);
    b.control = fake_control_find();
    run_all(&b, cuda);
    bench_close(&b);
    for (uint32_t i = 0; i < STEPS * SEQS * WIDTH; i++) {
        float difference = fabsf(cuda[i] - cpu[i]);
        if (!(difference <= tolerance))
            fail_msg("value %u: %g, the CPU has %g", i, (double)cuda[i], (double)cpu[i]);
    }
}

static void test_bf16(void **state)
{
    (void)state;
    check_dtype(KV_BF16, 0.02f);
}

static void test_fp8(void **state)
{
    (void)state;
    check_dtype(KV_FP8, 0.1f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bf16), cmocka_unit_test(test_fp8)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
