/* The ops of a layer as the engine calls them, each back to back over several layers of random weights or KV
 * in one step, on any device: microseconds, bytes and operations a layer, to be held against what the device
 * can do. The weights and the KV of the layers together are meant to be larger than the device's caches. */
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
    OP_KINDS
};
const char *op_kind_name(enum op_kind kind); /* "layer_linears" */

struct op_bench_options {
    const char *device; /* "cpu", "cuda", "cuda:N" */
    int n_threads;      /* 0 = one per usable CPU */
    bool batch_variant; /* backend_cuda_options */
    enum weight_format weights;
    uint32_t group; /* inputs that share a scale, of int4, uint4 and int8; a power of two from 32 on */
    enum kv_dtype kv_dtype;
    size_t hidden, intermediate; /* values a row */
    struct qkv_shape qkv;
    uint32_t n_layers;         /* that are gone through; each has weights and KV of its own */
    uint32_t n_rounds;         /* of them in one step */
    uint32_t context;          /* tokens of each decoding sequence */
    bool leaves_out[OP_KINDS]; /* of OP_DECODE_LAYER: what an op costs in its place */
};

struct op_bench_result {
    double us; /* a layer: the median of several steps */
    double
        bytes; /* a layer: weights or KV read, and what the op reads and writes of activations in 16 bits */
    double flops;           /* a layer */
    double footprint_bytes; /* of weights or KV of all layers: what the caches would have to hold */
};

/* One op on each of rows[0..n_rows), ascending, in results[0..n_rows). ERR_UNIMPLEMENTED where the device
 * lacks the format. */
err_t op_bench_run(const struct op_bench_options *options, enum op_kind kind, const uint32_t *rows,
                   size_t n_rows, struct op_bench_result *results) ERR_MUST_CHECK;
