#include "tests/amx/amx_model.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "kernels/ref/flush_ref.h"
#include "kernels/x86/amx_request.h"

struct tile {
    uint8_t rows[TILE_ROWS][TILE_ROW_BYTES];
};

static _Thread_local struct {
    struct tile_config config; /* palette 0: none */
    struct tile tiles[TILE_COUNT];
} machine;

static atomic_uint_fast64_t n_instructions;

static void print_and_abort(const char *message)
{
    fprintf(stderr, "AMX model: %s\n", message);
    abort();
}

void (*amx_model_on_fault)(const char *message) = print_and_abort;

static void fault(const char *message)
{
    amx_model_on_fault(message);
    abort();
}

static void fault_unless(bool holds, const char *message)
{
    if (!holds)
        fault(message);
}

bool amx_request(void)
{
    return true;
}

uint64_t amx_model_count(void)
{
    return atomic_load(&n_instructions);
}

static void count(void)
{
    atomic_fetch_add_explicit(&n_instructions, 1, memory_order_relaxed);
}

/* ---- Configuration ---- */

void amx_model_load_config(const struct tile_config *config)
{
    count();
    struct tile_config wanted = *config;
    memset(&machine, 0, sizeof machine);
    if (wanted.palette == 0)
        return;
    fault_unless(wanted.palette == 1, "LDTILECFG of a palette that does not exist");
    fault_unless(wanted.start_row == 0, "LDTILECFG with a start row, which only an interrupted load leaves");
    for (size_t i = 0; i < sizeof wanted.reserved; i++)
        fault_unless(wanted.reserved[i] == 0, "LDTILECFG with reserved bytes that are not 0");
    for (size_t i = 0; i < 16; i++) {
        fault_unless(i < TILE_COUNT || (wanted.rows[i] == 0 && wanted.row_bytes[i] == 0),
                     "LDTILECFG of a tile past the last");
        fault_unless(wanted.rows[i] <= TILE_ROWS && wanted.row_bytes[i] <= TILE_ROW_BYTES,
                     "LDTILECFG of a tile that is too large");
        fault_unless((wanted.rows[i] == 0) == (wanted.row_bytes[i] == 0),
                     "LDTILECFG of a tile with rows and no bytes, or the other way round");
    }
    machine.config = wanted;
}

void amx_model_store_config(struct tile_config *config)
{
    count();
    *config = machine.config;
}

void amx_model_release(void)
{
    count();
    memset(&machine, 0, sizeof machine);
}

static struct tile *configured(int index)
{
    fault_unless(machine.config.palette != 0, "an instruction on tiles that are not configured");
    fault_unless(index >= 0 && index < TILE_COUNT, "a tile past the last");
    fault_unless(machine.config.rows[index] != 0, "an instruction on a tile that is not configured");
    return &machine.tiles[index];
}

/* ---- Tiles and memory ---- */

void amx_model_zero(int tile)
{
    count();
    memset(configured(tile), 0, sizeof(struct tile));
}

void amx_model_load(int tile, const void *rows, size_t stride_bytes)
{
    count();
    struct tile *into = configured(tile);
    size_t n = machine.config.row_bytes[tile];
    memset(into, 0, sizeof *into);
    for (size_t r = 0; r < machine.config.rows[tile]; r++)
        memcpy(into->rows[r], (const uint8_t *)rows + r * stride_bytes, n);
}

void amx_model_store(int tile, void *rows, size_t stride_bytes)
{
    count();
    const struct tile *from = configured(tile);
    size_t n = machine.config.row_bytes[tile];
    for (size_t r = 0; r < machine.config.rows[tile]; r++)
        memcpy((uint8_t *)rows + r * stride_bytes, from->rows[r], n);
}

/* ---- Products ---- */

struct product {
    struct tile *sums;
    const struct tile *a, *b;
    size_t n_rows, n_groups, n_sums; /* of the sums; of four bytes of a row of a; of a row of the sums */
};

static struct product begin_product(int sums, int a, int b)
{
    count();
    struct product p = {.sums = configured(sums), .a = configured(a), .b = configured(b)};
    const struct tile_config *c = &machine.config;
    fault_unless(sums != a && sums != b && a != b, "a product of a tile with itself");
    fault_unless(c->row_bytes[sums] % 4 == 0 && c->row_bytes[a] % 4 == 0 && c->row_bytes[b] % 4 == 0,
                 "a product of rows that are no multiple of 4 bytes");
    fault_unless(c->rows[sums] == c->rows[a], "a product whose sums have other rows than its left tile");
    fault_unless(c->row_bytes[sums] == c->row_bytes[b],
                 "a product whose sums have other columns than its right tile");
    fault_unless(c->row_bytes[a] / 4 == c->rows[b], "a product of tiles with unequal inputs");
    p.n_rows = c->rows[sums];
    p.n_groups = c->rows[b];
    p.n_sums = c->row_bytes[sums] / 4;
    return p;
}

static float read_bf16(const uint8_t *row, size_t index)
{
    uint16_t value;
    memcpy(&value, row + 2 * index, sizeof value);
    return flush_ref(bf16_to_f32(value));
}

enum { SUMS_MAX = TILE_ROW_BYTES / 4 };

/* Columns past n_sums are computed too, and dropped. */
FLUSH_INLINE void dot_bf16_body(const struct product *p)
{
    float b[2][TILE_ROWS][SUMS_MAX]; /* of even and odd inputs */
    for (size_t k = 0; k < p->n_groups; k++) {
        for (size_t n = 0; n < SUMS_MAX; n++) {
            b[0][k][n] = read_bf16(p->b->rows[k], 2 * n);
            b[1][k][n] = read_bf16(p->b->rows[k], 2 * n + 1);
        }
    }
    for (size_t m = 0; m < p->n_rows; m++) {
        float even[SUMS_MAX] = {0}, odd[SUMS_MAX] = {0}, total[SUMS_MAX] = {0};
        for (size_t k = 0; k < p->n_groups; k++) {
            fma_flush_row_ref(read_bf16(p->a->rows[m], 2 * k), b[0][k], even, SUMS_MAX);
            fma_flush_row_ref(read_bf16(p->a->rows[m], 2 * k + 1), b[1][k], odd, SUMS_MAX);
        }
        memcpy(total, p->sums->rows[m], p->n_sums * 4);
        for (size_t n = 0; n < p->n_sums; n++)
            total[n] = add_flush_ref(flush_ref(total[n]), add_flush_ref(even[n], odd[n]));
        memcpy(p->sums->rows[m], total, sizeof total);
    }
}

static void dot_bf16_portable(const struct product *p)
{
    dot_bf16_body(p);
}

/* fmaf as an instruction and not a call: the same bits. */
__attribute__((target("avx2,fma"))) static void dot_bf16_fma(const struct product *p)
{
    dot_bf16_body(p);
}

static void clear_other_rows(const struct product *p)
{
    memset(p->sums->rows[p->n_rows], 0, (TILE_ROWS - p->n_rows) * TILE_ROW_BYTES);
}

void amx_model_dot_bf16(int sums, int a, int b)
{
    struct product p = begin_product(sums, a, b);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        dot_bf16_fma(&p);
    else
        dot_bf16_portable(&p);
    clear_other_rows(&p);
}

static void dot_bytes(int sums, int a, int b, bool a_is_signed)
{
    struct product p = begin_product(sums, a, b);
    for (size_t m = 0; m < p.n_rows; m++) {
        uint32_t total[TILE_ROW_BYTES / 4] = {0}; /* wraps, as the machine's does */
        memcpy(total, p.sums->rows[m], p.n_sums * 4);
        for (size_t i = 0; i < p.n_groups * 4; i++) {
            int left = a_is_signed ? (int8_t)p.a->rows[m][i] : p.a->rows[m][i];
            for (size_t n = 0; n < p.n_sums; n++)
                total[n] += (uint32_t)(left * (int8_t)p.b->rows[i / 4][4 * n + i % 4]);
        }
        memcpy(p.sums->rows[m], total, sizeof total);
    }
    clear_other_rows(&p);
}

void amx_model_dot_int8(int sums, int a, int b)
{
    dot_bytes(sums, a, b, true);
}

void amx_model_dot_uint8(int sums, int a, int b)
{
    dot_bytes(sums, a, b, false);
}
