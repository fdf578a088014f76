/* The ops of a layer, and those before and behind the layers, as the engine calls them, each back to back
 * over several layers of random weights or KV in one step, on any device: microseconds, bytes and operations
 * a layer, to be held against what the device can do. The weights and the KV of the layers together are meant
 * to be larger than the device's caches. Activations are the same for all layers and may lie there, as in an
 * engine, where the op before has just written them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "kernels/kernels.h"

enum op_kind {
    OP_LAYER_LINEARS, /* qkv, o, gate and up, down */
    OP_ATTENTION_DECODE,
    OP_ATTENTION_SHARED, /* decode of sequences that have the first two thirds of their tokens in common */
    OP_ATTENTION_PREFILL,
    OP_ROPE_KV_WRITE,
    OP_ADD_NORM,
    OP_ACTIVATION_MUL,
    OP_DECODE_LAYER, /* all of them, as a step that decodes has them */
    /* What surrounds the layers: one weight for all calls, of op_bench_head_format. */
    OP_EMBED,
    OP_LM_HEAD,        /* the rows gathered, and their logits */
    OP_LM_HEAD_GREEDY, /* and a token of each: what it takes longer than OP_LM_HEAD is sampling */
    OP_LM_HEAD_TOP_P,  /* likewise at temperature 1, top-p 0.9; logits of random weights are flat */
    OP_KINDS
};
const char *op_kind_name(enum op_kind kind); /* "layer_linears" */

struct op_bench_options {
    const char *device; /* "cpu", "cuda", "cuda:N" */
    int n_threads;      /* 0 = one per usable CPU */
    bool batch_variant; /* backend_cuda_options, as the next */
    uint32_t library_rows_min;
    enum weight_format weights;
    uint32_t group;      /* inputs that share a scale, of int4, uint4 and int8; a power of two from 32 on */
    bool rows_in_8_bits; /* int8 with a scale per output: W8A8; group is not read */
    enum kv_dtype kv_dtype;
    size_t hidden, intermediate; /* values a row */
    size_t vocab;                /* tokens of embedding and LM head */
    struct qkv_shape qkv;
    uint32_t n_layers;         /* that are gone through; each has weights and KV of its own */
    uint32_t n_rounds;         /* of them in one step */
    uint32_t context;          /* tokens of each decoding sequence */
    bool leaves_out[OP_KINDS]; /* of OP_DECODE_LAYER: what an op costs in its place */
};

struct op_bench_result {
    double us; /* a layer or call: the median of several steps */
    /* Likewise: weights or KV read, and what the op reads and writes of activations in 16 bits; logits in 32,
     * read once by sampling. */
    double bytes;
    double flops;           /* likewise */
    double footprint_bytes; /* of weights or KV of all layers: what the caches would have to hold */
};

/* Of embedding and LM head, as a model has it whose layers were quantised while loading: int8 in groups where
 * they are int4 or int8, else bf16. */
enum weight_format op_bench_head_format(const struct op_bench_options *options);

/* One op on each of rows[0..n_rows), ascending, in results[0..n_rows). ERR_INVALID_ARGUMENT where the
 * device lacks the format. */
err_t op_bench_run(const struct op_bench_options *options, enum op_kind kind, const uint32_t *rows,
                   size_t n_rows, struct op_bench_result *results) ERR_MUST_CHECK;
