/* AMX in plain C, after the pseudo-code of Intel's manual (vol. 2: LDTILECFG, STTILECFG, TILERELEASE,
 * TILELOADD, TILESTORED, TILEZERO, TDPBF16PS, TDPBSSD, TDPBUSD; vol. 1, ch. 18). Every thread has its own
 * tiles. Where the machine would raise #GP or #UD the model calls on_fault, which by default prints and
 * aborts: a configuration that is no valid one, tiles that are not configured, products of shapes that do not
 * match. Linking it makes a program an AMX machine: kernels/x86/kernels_amx.c is compiled against it, and
 * amx_request says yes. What kernels_amx.c uses of it is declared in kernels/x86/amx.h. */
#pragma once

#include "kernels/x86/amx.h"

/* Replaced by tests; may not return. */
extern void (*amx_model_on_fault)(const char *message);

/* STTILECFG: zeros where nothing is configured. */
void amx_model_store_config(struct tile_config *config);
/* TDPBUSD: bytes of `a` are unsigned. */
void amx_model_dot_uint8(int sums, int a, int b);

/* Instructions that this process ran, of all threads. */
uint64_t amx_model_count(void);
