/* bantam bench products: a library's products against our own kernels, bit by bit and by the clock. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "benchmarks/product_check.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"

struct products_values {
    const char *device;
    struct flag_list rows, shapes, weights;
    int64_t threads, rounds;
    bool json;
};

enum { PRODUCTS_FLAGS_MAX = 8, PRODUCTS_ROWS_MAX = 1 << 16, PRODUCTS_DIMENSION_MAX = 1 << 20 };

/* The layers of an 8B Llama. */
static const char *const DEFAULT_SHAPES[] = {"6144x4096", "4096x4096", "28672x4096", "4096x14336"};
/* Around powers of two, at which a library changes its mind, and between; from where it is used on. */
static const char *const DEFAULT_ROWS[] = {"256",  "257",  "300",  "384",  "511",  "512",  "513",
                                           "1000", "1024", "1025", "2047", "2048", "4096", "8192"};
static const char *const DEFAULT_WEIGHTS[] = {"bf16", "fp8"};

static size_t products_flags(struct products_values *v, struct flag *flags)
{
    const struct flag rows[] = {
        {"device", FLAG_STRING, &v->device, "cuda", 0, 0, NULL, NULL, "cuda or cuda:N", NULL},
        {"threads", FLAG_INT, &v->threads, "0", 0, 256, NULL, NULL,
         "that pack weights; 0 = one per usable CPU", NULL},
        {"weights", FLAG_LIST, &v->weights, NULL, 0, 0, NULL, "bf16|fp8",
         "only this format; may be given several times", NULL},
        {"shape", FLAG_LIST, &v->shapes, NULL, 0, 0, NULL, "OUTxIN",
         "of a weight; absent: the layers of an 8B Llama", NULL},
        {"rows", FLAG_LIST, &v->rows, NULL, 0, 0, NULL, "N",
         "in ascending order; absent: 14 numbers from 256 to 8192", NULL},
        {"rounds", FLAG_INT, &v->rounds, "5", 0, PRODUCT_CHECK_STEPS_MAX, NULL, NULL,
         "timed steps, the median counts; 0 = each product once, for its bits alone", NULL},
        {"json", FLAG_BOOL, &v->json, "false", 0, 0, NULL, NULL, "print a JSON object a line", NULL},
    };
    memcpy(flags, rows, sizeof rows);
    return sizeof rows / sizeof *rows;
}

static void default_list(struct flag_list *list, const char *const *items, size_t n)
{
    for (size_t i = 0; list->count == 0 && i < n; i++)
        list->item[i] = items[i];
    if (list->count == 0)
        list->count = n;
}

static bool parse_number(const char *text, char end, long max, const char **rest, uint32_t *out)
{
    char *stop;
    long value = strtol(text, &stop, 10);
    *rest = stop + 1;
    *out = (uint32_t)value;
    return stop != text && *stop == end && value >= 1 && value <= max;
}

static err_t parse_rows(const struct flag_list *list, uint32_t *rows)
{
    const char *rest;
    for (size_t i = 0; i < list->count; i++) {
        if (!parse_number(list->item[i], '\0', PRODUCTS_ROWS_MAX, &rest, &rows[i]) ||
            (i > 0 && rows[i] <= rows[i - 1]))
            return err_new(ERR_INVALID_ARGUMENT,
                           "--rows: \"%s\" is not a number from 1 to %d above the one before", list->item[i],
                           PRODUCTS_ROWS_MAX);
    }
    return err_ok();
}

static err_t parse_shape(const char *text, struct product_check_options *out)
{
    const char *rest;
    uint32_t n_out, n_in;
    if (!parse_number(text, 'x', PRODUCTS_DIMENSION_MAX, &rest, &n_out) ||
        !parse_number(rest, '\0', PRODUCTS_DIMENSION_MAX, &rest, &n_in))
        return err_new(ERR_INVALID_ARGUMENT, "--shape: \"%s\" is not OUTxIN, as in 6144x4096", text);
    out->n_out = n_out;
    out->n_in = n_in;
    return err_ok();
}

static err_t parse_weights(const char *text, struct product_check_options *out)
{
    out->weights = strcmp(text, "fp8") == 0 ? WEIGHT_FP8 : WEIGHT_BF16;
    if (strcmp(text, "fp8") != 0 && strcmp(text, "bf16") != 0)
        return err_new(ERR_INVALID_ARGUMENT, "--weights: \"%s\" is not bf16 or fp8", text);
    return err_ok();
}

static void print_row(const struct products_values *v, const char *weights,
                      const struct product_check_options *o, const struct product_check_card *card,
                      uint32_t rows, const struct product_check_result *r)
{
    double flops = 2.0 * rows * (double)o->n_out * (double)o->n_in;
    double ours = flops / r->ours_us / 1e6, library = flops / r->library_us / 1e6;
    if (v->json)
        (void)printf("{\"weights\":\"%s\",\"n_out\":%zu,\"n_in\":%zu,\"rows\":%u,\"equal\":%s,\"differing_"
                     "rows\":%u,\"worst_error\":%.6g,"
                     "\"ours_us\":%.3f,\"library_us\":%.3f,\"ours_tflop_s\":%.4f,\"library_tflop_s\":%.4f,"
                     "\"library_version\":%u}\n",
                     weights, o->n_out, o->n_in, rows, r->n_differing == 0 ? "true" : "false", r->n_differing,
                     fmin(r->worst_error, 1e30), r->ours_us, r->library_us, ours, library,
                     card->library_version);
    else if (r->n_differing == 0)
        (void)printf("%-4s %6zu x %-6zu %5u rows %8.2f TFLOP/s, library %8.2f: every row is equal\n", weights,
                     o->n_out, o->n_in, rows, ours, library);
    else
        (void)printf("%-4s %6zu x %-6zu %5u rows %8.2f TFLOP/s, library %8.2f: %u rows differ, from row %u, "
                     "by at most %.2g of a row's greatest value\n",
                     weights, o->n_out, o->n_in, rows, ours, library, r->n_differing, r->first_differing,
                     r->worst_error);
    (void)fflush(stdout);
}

/* The line that the backend's table takes: from where on every row is equal and the library is faster. */
static void print_table_line(const struct product_check_options *o, const struct product_check_card *card,
                             const uint32_t *rows, const struct product_check_result *results, size_t n)
{
    size_t first = n;
    while (first > 0 && results[first - 1].n_differing == 0 &&
           results[first - 1].library_us < results[first - 1].ours_us)
        first--;
    if (first < n)
        (void)printf("product_table.c: {\"%s\", %u, PRODUCT_%s, %zu, %zu, %u, %u},\n", card->name,
                     card->library_version, o->weights == WEIGHT_FP8 ? "E4M3" : "BF16", o->n_out, o->n_in,
                     rows[first], rows[n - 1]);
}

static err_t check_shape(const struct products_values *v, const char *weights,
                         const struct product_check_options *o, const uint32_t *rows)
{
    struct product_check_card card;
    struct product_check_result results[FLAG_LIST_MAX];
    TRY(product_check_run(o, rows, v->rows.count, &card, results));
    for (size_t i = 0; i < v->rows.count; i++)
        print_row(v, weights, o, &card, rows[i], &results[i]);
    if (!v->json)
        print_table_line(o, &card, rows, results, v->rows.count);
    for (size_t i = 0; i < v->rows.count; i++) {
        if (!(results[i].worst_error <= PRODUCT_CHECK_ERROR_MAX))
            return err_new(
                ERR_INTERNAL,
                "%s %zu x %zu at %u rows: the two differ by %.3g of a row's greatest value, which no "
                "rounding explains",
                weights, o->n_out, o->n_in, rows[i], results[i].worst_error);
    }
    return err_ok();
}

static err_t run_products(struct products_values *v)
{
    default_list(&v->rows, DEFAULT_ROWS, sizeof DEFAULT_ROWS / sizeof *DEFAULT_ROWS);
    default_list(&v->shapes, DEFAULT_SHAPES, sizeof DEFAULT_SHAPES / sizeof *DEFAULT_SHAPES);
    default_list(&v->weights, DEFAULT_WEIGHTS, sizeof DEFAULT_WEIGHTS / sizeof *DEFAULT_WEIGHTS);
    uint32_t rows[FLAG_LIST_MAX];
    TRY(parse_rows(&v->rows, rows));
    for (size_t w = 0; w < v->weights.count; w++) {
        for (size_t s = 0; s < v->shapes.count; s++) {
            struct product_check_options options = {
                .device = v->device, .n_threads = (int)v->threads, .timed_steps = (uint32_t)v->rounds};
            TRY(parse_weights(v->weights.item[w], &options));
            TRY(parse_shape(v->shapes.item[s], &options));
            TRY(check_shape(v, v->weights.item[w], &options, rows));
        }
    }
    return err_ok();
}

int bench_products(int argc, char *argv[])
{
    static struct products_values values;
    struct flag flags[PRODUCTS_FLAGS_MAX];
    const struct flag_command command = {
        .name = "bantam bench products",
        .summary =
            "The products of cuBLASLt against our own kernels, on a GPU: whether every row has the same "
            "bits at every number of rows, and both speeds. A shape that is equal throughout may go "
            "into kernels/cuda/product_table.c, whose line is printed.",
        .flags = flags,
        .n_flags = products_flags(&values, flags),
        .examples = "  bantam bench products --weights bf16 --shape 6144x4096 --rows 256 --rows 2048\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    err_t e = run_products(&values);
    return e.code == ERR_OK ? 0 : report_error(command.name, &e);
}
