/* Where the emulator keeps the elements of mma, ldmatrix and wgmma: against what dump_fragments wrote on real
 * cards (golden/fragments_*.txt), and against the formulas of the PTX ISA. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/cuda/fragments_emulated.h"

static uint32_t *outputs[32];

static int run_all(void **state)
{
    (void)state;
    assert_true(n_fragment_probes <= sizeof outputs / sizeof outputs[0]);
    for (size_t i = 0; i < n_fragment_probes; i++) {
        outputs[i] = malloc(fragment_words(&fragment_probes[i]) * sizeof *outputs[i]);
        assert_non_null(outputs[i]);
        fragment_run(i, outputs[i]);
    }
    return 0;
}

static int free_all(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_fragment_probes; i++)
        free(outputs[i]);
    return 0;
}

static size_t probe_named(const char *name)
{
    for (size_t i = 0; i < n_fragment_probes; i++)
        if (strcmp(fragment_probes[i].name, name) == 0)
            return i;
    fail_msg("no probe %s", name);
    return 0;
}

/* ---- The ISA's formulas ---- */

struct place {
    int row, k; /* of a: row of the product; of b: its column */
};

/* Matrix fragments of mma.m16n8k16 and k32, for the 16 rows of each warp. per: elements a register. */
static struct place register_a(uint32_t number, int per)
{
    int e = (int)number % per, r = (int)number / per % 4, lane = (int)number / per / 4;
    int group = lane % 32 / 4, in_group = lane % 4;
    int row = r == 0 || r == 2 ? group : group + 8;
    int k = in_group * per + e + (r >= 2 ? 4 * per : 0);
    return (struct place){lane / 32 * 16 + row, k};
}

static struct place register_b(uint32_t number, int per)
{
    int e = (int)number % per, r = (int)number / per % 2, lane = (int)number / per / 2;
    return (struct place){lane / 4, lane % 4 * per + e + r * 4 * per};
}

/* An element of a tile by rows in a swizzle of `width` bytes (16: none, 8 x 16-byte matrices side by side in
 * k). */
static struct place shared_by_row(uint32_t number, int element_bytes, int width, int n_rows)
{
    int address = (int)number * element_bytes;
    if (width == 16) {
        int matrix = address / (n_rows * 16), in_matrix = address % (n_rows * 16);
        return (struct place){in_matrix / 16, (matrix * 16 + in_matrix % 16) / element_bytes};
    }
    int row = address / width, piece = address % width / 16;
    int exchanged = piece ^ (width == 128 ? row % 8 : width == 64 ? row / 2 % 4 : row / 4 % 2);
    return (struct place){row, (exchanged * 16 + address % 16) / element_bytes};
}

/* A 16-bit tile [k][64] in a swizzle of 128 bytes. */
static struct place shared_by_k(uint32_t number)
{
    int address = (int)number * 2, k = address / 128, piece = address % 128 / 16;
    return (struct place){((piece ^ k % 8) * 16 + address % 16) / 2, k};
}

/* Row and column of accumulator i of a thread of the warp or warpgroup, n = 8. */
static void accumulator_place(int thread, int i, int *row, int *column)
{
    *row = thread / 32 * 16 + thread % 32 / 4 + i / 2 * 8;
    *column = thread % 4 * 2 + i % 2;
}

enum source { A_REGISTERS, A_BY_ROW, A_BY_K };

static const struct {
    const char *name;
    enum source source;
    int n_k, width;
} layouts[] = {
    {"mma_bf16", A_REGISTERS, 16, 0},      {"mma_f16", A_REGISTERS, 16, 0},
    {"mma_s8", A_REGISTERS, 32, 0},        {"mma_e4m3", A_REGISTERS, 32, 0},
    {"wgmma_bf16_none", A_BY_ROW, 16, 16}, {"wgmma_bf16_32", A_BY_ROW, 16, 32},
    {"wgmma_bf16_64", A_BY_ROW, 16, 64},   {"wgmma_bf16_128", A_BY_ROW, 16, 128},
    {"wgmma_bf16_by_k", A_BY_K, 16, 128},  {"wgmma_bf16_registers", A_REGISTERS, 16, 128},
    {"wgmma_e4m3_128", A_BY_ROW, 32, 128}, {"wgmma_e4m3_registers", A_REGISTERS, 32, 128},
};

static struct place place_of_a(size_t l, const struct fragment_probe *probe, uint32_t number)
{
    if (layouts[l].source == A_REGISTERS)
        return register_a(number, 4 / (int)probe->element_bytes);
    if (layouts[l].source == A_BY_K)
        return shared_by_k(number);
    return shared_by_row(number, (int)probe->element_bytes, layouts[l].width, 64);
}

static struct place place_of_b(size_t l, const struct fragment_probe *probe, uint32_t number)
{
    if (layouts[l].width == 0)
        return register_b(number, 4 / (int)probe->element_bytes);
    if (layouts[l].source == A_BY_K)
        return shared_by_k(number);
    return shared_by_row(number, (int)probe->element_bytes, layouts[l].width, 8);
}

/* Each element of a meets, in the 8 accumulators of its row, the elements of b with its k; nothing else
 * happens. */
static void check_layout(size_t l)
{
    size_t at = probe_named(layouts[l].name);
    const struct fragment_probe *probe = &fragment_probes[at];
    const uint32_t *out = outputs[at];
    for (uint32_t block = 0; block < probe->blocks; block++) {
        struct place a = place_of_a(l, probe, block);
        for (uint32_t thread = 0; thread < probe->threads; thread++) {
            for (uint32_t i = 0; i < probe->accumulators; i++, out++) {
                int row, column;
                accumulator_place((int)thread, (int)i, &row, &column);
                if (a.k >= layouts[l].n_k || a.row != row) {
                    assert_int_equal(*out, 0);
                    continue;
                }
                assert_int_not_equal(*out, 0);
                struct place b = place_of_b(l, probe, *out - 1);
                assert_int_equal(b.row, column);
                assert_int_equal(b.k, a.k);
            }
        }
    }
}

static void test_formulas(void **state)
{
    (void)state;
    for (size_t l = 0; l < sizeof layouts / sizeof layouts[0]; l++)
        check_layout(l);
}

static void test_ldmatrix_formulas(void **state)
{
    (void)state;
    const uint32_t *plain = outputs[probe_named("ldmatrix")],
                   *transposed = outputs[probe_named("ldmatrix_trans")];
    for (uint32_t lane = 0; lane < 32; lane++) {
        for (uint32_t m = 0; m < 4; m++) {
            uint32_t low = m * 64 + lane / 4 * 8 + lane % 4 * 2;
            assert_int_equal(plain[lane * 4 + m], low | (low + 1) << 16);
            low = m * 64 + lane % 4 * 2 * 8 + lane / 4;
            assert_int_equal(transposed[lane * 4 + m], low | (low + 8) << 16);
        }
    }
}

/* ---- The golden files ---- */

static bool file_has_probe(FILE *golden, const char *name)
{
    char line[4096];
    size_t length = strlen(name);
    rewind(golden);
    while (fgets(line, sizeof line, golden) != NULL)
        if (strncmp(line, name, length) == 0 && line[length] == ' ')
            return true;
    return false;
}

/* The lines of the file are the emulator's for the probes that the file has. */
static void check_golden(const char *path)
{
    char *text = NULL, line[4096];
    size_t size = 0;
    FILE *golden = fopen(path, "r"), *mine = open_memstream(&text, &size);
    assert_true(golden != NULL && mine != NULL);
    for (size_t i = 0; i < n_fragment_probes; i++)
        if (file_has_probe(golden, fragment_probes[i].name))
            fragment_print(mine, &fragment_probes[i], outputs[i]);
    fclose(mine);
    rewind(golden);
    const char *at = text;
    while (fgets(line, sizeof line, golden) != NULL) {
        if (line[0] == '#')
            continue;
        if (strncmp(at, line, strlen(line)) != 0)
            fail_msg("%s says\n%sbut the emulator says\n%.*s", path, line, (int)strcspn(at, "\n"), at);
        at += strlen(line);
    }
    assert_int_equal(*at, '\0');
    fclose(golden);
    free(text);
}

static void test_golden(void **state)
{
    (void)state;
    glob_t found;
    assert_int_equal(glob(TEST_DATA_DIR "/cuda/golden/fragments_*.txt", 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++)
        check_golden(found.gl_pathv[i]);
    globfree(&found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formulas),
        cmocka_unit_test(test_ldmatrix_formulas),
        cmocka_unit_test(test_golden),
    };
    return cmocka_run_group_tests(tests, run_all, free_all);
}
