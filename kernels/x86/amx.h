/* The tile instructions of AMX that the kernels use, in three bodies: the machine's instructions; with
 * BANTAM_AMX_NOTHING nothing; with BANTAM_AMX_MODEL the functions of tests/amx/, which do in plain C what
 * Intel's manual says of each and stop the program where the machine would fault. Tiles are named by literal
 * numbers. The assembly is our own: intrinsics of compilers differ in what they say of the memory that they
 * read and write (gcc 12's _tile_loadconfig reads 8 bytes for it, the tile loads none at all). */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum { TILE_COUNT = 8, TILE_ROWS = 16, TILE_ROW_BYTES = 64 };

/* The operand of LDTILECFG. */
struct tile_config {
    uint8_t palette; /* 1 */
    uint8_t start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16]; /* of the tiles 0..7; the rest 0 */
    uint8_t rows[16];       /* likewise */
};

#if defined(BANTAM_AMX_NOTHING)

/* For a bench of what surrounds them, wherever AVX-512 is. */
#define AMX_LOAD_CONFIG(config)       ((void)(config))
#define AMX_RELEASE()                 ((void)0)
#define AMX_ZERO(tile)                ((void)0)
#define AMX_LOAD(tile, rows, stride)  ((void)(rows), (void)(stride))
#define AMX_STORE(tile, rows, stride) ((void)(rows), (void)(stride))
#define AMX_DOT_BF16(sums, a, b)      ((void)0)
#define AMX_DOT_INT8(sums, a, b)      ((void)0)

#elif defined(BANTAM_AMX_MODEL)

void amx_model_load_config(const struct tile_config *config);
void amx_model_release(void);
void amx_model_zero(int tile);
void amx_model_load(int tile, const void *rows, size_t stride_bytes);
void amx_model_store(int tile, void *rows, size_t stride_bytes);
void amx_model_dot_bf16(int sums, int a, int b);
void amx_model_dot_int8(int sums, int a, int b);

#define AMX_LOAD_CONFIG(config)       amx_model_load_config(config)
#define AMX_RELEASE()                 amx_model_release()
#define AMX_ZERO(tile)                amx_model_zero(tile)
#define AMX_LOAD(tile, rows, stride)  amx_model_load(tile, rows, stride)
#define AMX_STORE(tile, rows, stride) amx_model_store(tile, rows, stride)
#define AMX_DOT_BF16(sums, a, b)      amx_model_dot_bf16(sums, a, b)
#define AMX_DOT_INT8(sums, a, b)      amx_model_dot_int8(sums, a, b)

#else

#define AMX_LOAD_CONFIG(config) __asm__ volatile("ldtilecfg %0" : : "m"(*(config)))
#define AMX_RELEASE()           __asm__ volatile("tilerelease")
#define AMX_ZERO(tile)          __asm__ volatile("tilezero %%tmm" #tile : :)
#define AMX_LOAD(tile, rows, stride)                                                                         \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile                                                      \
                     :                                                                                       \
                     : "r"((const void *)(rows)), "r"((size_t)(stride))                                      \
                     : "memory")
#define AMX_STORE(tile, rows, stride)                                                                        \
    __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)"                                                  \
                     :                                                                                       \
                     : "r"((void *)(rows)), "r"((size_t)(stride))                                            \
                     : "memory")
/* sums += a (rows by inputs) * b (inputs by outputs). */
#define AMX_DOT_BF16(sums, a, b) __asm__ volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #sums : :)
#define AMX_DOT_INT8(sums, a, b) __asm__ volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #sums : :)

#endif
