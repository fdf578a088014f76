/* bantam bench ops: a layer's ops on a device. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "benchmarks/op_bench.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"

struct ops_values {
    const char *device, *weights, *kv_dtype;
    struct flag_list rows, ops, left_out;
    int64_t threads, hidden, intermediate, vocab, heads, kv_heads, head_dim, layers, rounds, context, group,
        library_rows;
    bool batch_invariant, json;
};

enum { OPS_FLAGS_MAX = 24, OPS_ROWS_MAX = 1 << 16 };

static size_t ops_flags(struct ops_values *v, struct flag *flags)
{
    const struct flag rows[] = {
        {"device", FLAG_STRING, &v->device, "cpu", 0, 0, NULL, NULL, "cpu, cuda or cuda:N", NULL},
        {"threads", FLAG_INT, &v->threads, "0", 0, 256, NULL, NULL, "of the CPU; 0 = one per usable CPU",
         NULL},
        {"weights", FLAG_CHOICE, &v->weights, "int4", 0, 0, "int4|uint4|int8|w8a8|fp8|bf16", NULL,
         "format of the weights; uint4: int4 with zero points; w8a8: int8 of weights and rows", NULL},
        {"group", FLAG_INT, &v->group, "32", 32, 1024, NULL, NULL,
         "inputs that share a scale, of int4, uint4 and int8: a power of two", NULL},
        {"kv-cache-dtype", FLAG_CHOICE, &v->kv_dtype, "bfloat16", 0, 0, "bfloat16|fp8|int8", NULL,
         "type of the KV cache", NULL},
        {"op", FLAG_LIST, &v->ops, NULL, 0, 0, NULL, "NAME", "only this op; may be given several times",
         NULL},
        {"leave-out", FLAG_LIST, &v->left_out, NULL, 0, 0, NULL, "NAME",
         "an op that decode_layer goes without: what it costs in its place; may be given several times",
         NULL},
        {"rows", FLAG_LIST, &v->rows, NULL, 0, 0, NULL, "N",
         "rows of a step, in ascending order; absent: 1, 16, 32, 128 and 256", NULL},
        {"context", FLAG_INT, &v->context, "900", 1, 1 << 20, NULL, NULL, "tokens of each sequence in decode",
         NULL},
        {"layers", FLAG_INT, &v->layers, "8", 1, 64, NULL, NULL, "with weights and KV of their own", NULL},
        {"rounds", FLAG_INT, &v->rounds, "4", 1, 64, NULL, NULL, "through the layers in one step", NULL},
        {"hidden", FLAG_INT, &v->hidden, "4096", 32, 1 << 20, NULL, NULL, "width of the model", NULL},
        {"intermediate", FLAG_INT, &v->intermediate, "14336", 32, 1 << 20, NULL, NULL, "width of the MLP",
         NULL},
        {"vocab", FLAG_INT, &v->vocab, "128256", 32, 1 << 20, NULL, NULL, "tokens of embedding and LM head",
         NULL},
        {"heads", FLAG_INT, &v->heads, "32", 1, 1024, NULL, NULL, "of queries", NULL},
        {"kv-heads", FLAG_INT, &v->kv_heads, "8", 1, 1024, NULL, NULL, "of keys and values", NULL},
        {"head-dim", FLAG_INT, &v->head_dim, "128", 16, 256, NULL, NULL, "width of a head", NULL},
        {"batch-invariant", FLAG_BOOL, &v->batch_invariant, "true", 0, 0, NULL, NULL,
         "on a GPU; --no-batch-invariant gives many rows to cuBLASLt", NULL},
        {"library-rows", FLAG_INT, &v->library_rows, "0", 0, OPS_ROWS_MAX, NULL, NULL,
         "with --no-batch-invariant: rows from which on cuBLASLt serves; 0 = as in an engine", NULL},
        {"json", FLAG_BOOL, &v->json, "false", 0, 0, NULL, NULL, "print a JSON object a line", NULL},
    };
    memcpy(flags, rows, sizeof rows);
    return sizeof rows / sizeof *rows;
}

static err_t parse_rows(const struct flag_list *list, uint32_t *rows, size_t *n)
{
    static const uint32_t defaults[] = {1, 16, 32, 128, 256};
    *n = list->count ? list->count : sizeof defaults / sizeof *defaults;
    memcpy(rows, defaults, sizeof defaults);
    for (size_t i = 0; i < list->count; i++) {
        char *end;
        long value = strtol(list->item[i], &end, 10);
        if (end == list->item[i] || *end || value < 1 || value > OPS_ROWS_MAX ||
            (i && (uint32_t)value <= rows[i - 1]))
            return err_new(ERR_INVALID_ARGUMENT,
                           "--rows: \"%s\" is not a number from 1 to %d above the one before", list->item[i],
                           OPS_ROWS_MAX);
        rows[i] = (uint32_t)value;
    }
    return err_ok();
}

static void print_row(const struct ops_values *v, const struct op_bench_options *options, enum op_kind kind,
                      uint32_t rows, const struct op_bench_result *r)
{
    double seconds = r->us / 1e6;
    bool is_layer = kind == OP_DECODE_LAYER;
    const char *head = op_bench_head_format(options) == WEIGHT_INT8 ? "int8" : "bf16";
    const char *weights = kind == OP_LAYER_LINEARS || is_layer ? v->weights : kind >= OP_EMBED ? head : "";
    bool attends = kind == OP_ATTENTION_DECODE || kind == OP_ATTENTION_SHARED || kind == OP_ATTENTION_PREFILL;
    const char *kv = attends || is_layer ? v->kv_dtype : "";
    if (v->json)
        (void)printf(
            "{\"op\":\"%s\",\"weights\":\"%s\",\"group\":%d,\"kv\":\"%s\",\"batch_invariant\":%s,\"rows\":%u,"
            "\"us\":%.3f,\"bytes\":%.0f,"
            "\"flops\":%.0f,\"gb_s\":%.3f,\"tflop_s\":%.4f,\"footprint_bytes\":%.0f}\n",
            op_kind_name(kind), weights, (int)v->group, kv, v->batch_invariant ? "true" : "false", rows,
            r->us, r->bytes, r->flops, r->bytes / seconds / 1e9, r->flops / seconds / 1e12,
            r->footprint_bytes);
    else
        (void)printf("%-18s %-5s%-9s %5u rows %10.1f us a layer %9.1f GB/s %8.2f TFLOP/s\n",
                     op_kind_name(kind), weights, kv, rows, r->us, r->bytes / seconds / 1e9,
                     r->flops / seconds / 1e12);
    (void)fflush(stdout); /* a long series may be cut: what is measured is said */
}

static bool is_named(const struct flag_list *ops, enum op_kind kind)
{
    for (size_t i = 0; i < ops->count; i++)
        if (strcmp(ops->item[i], op_kind_name(kind)) == 0)
            return true;
    return false;
}

static err_t run_ops(const struct ops_values *v)
{
    uint32_t rows[FLAG_LIST_MAX];
    size_t n;
    TRY(parse_rows(&v->rows, rows, &n));
    if ((v->group & (v->group - 1)) != 0 || v->hidden % v->group != 0 || v->intermediate % v->group != 0 ||
        v->heads * v->head_dim % v->group != 0)
        return err_new(
            ERR_INVALID_ARGUMENT,
            "--group %d: a power of two that divides --hidden, --intermediate and --heads * --head-dim",
            (int)v->group);
    struct op_bench_options options = {
        .device = v->device,
        .n_threads = (int)v->threads,
        .batch_variant = !v->batch_invariant,
        .library_rows_min = (uint32_t)v->library_rows,
        .weights = strcmp(v->weights, "int4") == 0    ? WEIGHT_INT4
                   : strcmp(v->weights, "uint4") == 0 ? WEIGHT_UINT4
                   : strcmp(v->weights, "int8") == 0  ? WEIGHT_INT8
                   : strcmp(v->weights, "w8a8") == 0  ? WEIGHT_INT8
                   : strcmp(v->weights, "fp8") == 0   ? WEIGHT_FP8
                                                      : WEIGHT_BF16,
        .group = (uint32_t)v->group,
        .rows_in_8_bits = strcmp(v->weights, "w8a8") == 0,
        .kv_dtype = strcmp(v->kv_dtype, "fp8") == 0    ? KV_FP8
                    : strcmp(v->kv_dtype, "int8") == 0 ? KV_INT8
                                                       : KV_BF16,
        .hidden = (size_t)v->hidden,
        .intermediate = (size_t)v->intermediate,
        .vocab = (size_t)v->vocab,
        .qkv = {(uint32_t)v->heads, (uint32_t)v->kv_heads, (uint32_t)v->head_dim},
        .n_layers = (uint32_t)v->layers,
        .n_rounds = (uint32_t)v->rounds,
        .context = (uint32_t)v->context,
    };
    for (int kind = 0; kind < OP_KINDS; kind++)
        options.leaves_out[kind] = is_named(&v->left_out, (enum op_kind)kind);
    for (int kind = 0; kind < OP_KINDS; kind++) {
        struct op_bench_result results[FLAG_LIST_MAX];
        if (v->ops.count > 0 && !is_named(&v->ops, (enum op_kind)kind))
            continue;
        TRY(op_bench_run(&options, (enum op_kind)kind, rows, n, results));
        for (size_t i = 0; i < n; i++)
            print_row(v, &options, (enum op_kind)kind, rows[i], &results[i]);
    }
    return err_ok();
}

int bench_ops(int argc, char *argv[])
{
    static struct ops_values values;
    struct flag flags[OPS_FLAGS_MAX];
    const struct flag_command command = {
        .name = "bantam bench ops",
        .summary = "Ops of a layer (of an 8B Llama, unless said otherwise) as the engine calls them, back to "
                   "back over several layers of random weights in one step; embedding, LM head and sampling "
                   "likewise. Times are of one layer or call, the median of several steps.",
        .flags = flags,
        .n_flags = ops_flags(&values, flags),
        .examples = "  bantam bench ops --op layer_linears --weights int8 --layers 2 --rows 1 --rows 64\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    err_t e = run_ops(&values);
    return e.code == ERR_OK ? 0 : report_error(command.name, &e);
}
