/* The CUDA backend's KV layout: every piece has a place of its own, and ldmatrix finds no two in one bank. */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>
#include "kernels/cuda/cuda_kv.h"

enum { ROW_PIECES_MAX = 64 };

static void test_pieces_fill_a_tile(void **state)
{
    (void)state;
    for (uint32_t row_pieces = 1; row_pieces <= ROW_PIECES_MAX; row_pieces++) {
        uint8_t seen[CUDA_KV_BLOCK_TOKENS * ROW_PIECES_MAX] = {0};
        for (uint32_t token = 0; token < CUDA_KV_BLOCK_TOKENS; token++) {
            for (uint32_t piece = 0; piece < row_pieces; piece++) {
                uint32_t offset = cuda_kv_piece_offset(row_pieces, token, piece);
                assert_int_equal(offset % CUDA_KV_PIECE_BYTES, 0);
                uint32_t place = offset / CUDA_KV_PIECE_BYTES;
                assert_int_equal(place / row_pieces, token);
                assert_false(seen[place]);
                seen[place] = 1;
            }
        }
    }
}

/* One matrix of ldmatrix: a piece of eight tokens, which must come from eight groups of four banks. */
static void test_no_bank_conflicts(void **state)
{
    (void)state;
    for (uint32_t row_pieces = 1; row_pieces <= ROW_PIECES_MAX; row_pieces++) {
        for (uint32_t first = 0; first < CUDA_KV_BLOCK_TOKENS; first += 8) {
            for (uint32_t piece = 0; piece < row_pieces; piece++) {
                uint32_t groups = 0;
                for (uint32_t token = first; token < first + 8; token++)
                    groups |= 1u << cuda_kv_piece_offset(row_pieces, token, piece) / CUDA_KV_PIECE_BYTES % 8;
                assert_int_equal(groups, 0xff);
            }
        }
    }
}

static void test_offsets(void **state)
{
    (void)state;
    assert_int_equal(cuda_kv_row_pieces(128, 2), 16);
    assert_int_equal(cuda_kv_row_pieces(80, 1), 5);
    assert_int_equal(cuda_kv_row_pieces(72, 1), 5);
    assert_int_equal(cuda_kv_tile_bytes(128, 2), 4096);
    assert_int_equal(cuda_kv_block_bytes(8, 128, 2), 65536);
    assert_int_equal(cuda_kv_tile_offset(8, 4096, 3, 5, CUDA_KV_V), 3 * 65536 + 5 * 8192 + 4096);
    /* bf16 element 27 is the second half of piece 3, which token 6 keeps at 3 ^ 6. */
    assert_int_equal(cuda_kv_element_offset(16, 2, 6, 27), 6 * 256 + (3 ^ 6) * 16 + 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pieces_fill_a_tile),
        cmocka_unit_test(test_no_bank_conflicts),
        cmocka_unit_test(test_offsets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
