/* How sm_90 adds products of e4m3 in one wgmma, scalar. Nvidia does not say; that it is so follows from what
 * an H200 gave (golden/wgmma_e4m3_sm90.txt) and is what "MMA-Sim: Bit-Accurate Reference Model of Tensor
 * Cores and Matrix Cores" (arXiv 2511.10909) found on Hopper.
 *
 * A product is exact, its exponent the sum of its factors' (a subnormal factor has the least, -6). e is the
 * greatest exponent of the 32 products and of the sum so far. All 33 are cut, towards zero, to multiples of
 * 2^(e - 13) and added exactly; the result is cut to 13 bits behind its own leading one.
 *
 * So one instruction errs by less than 33 * 2^(e - 13) + 2^-13 |result|, where 2^e is at most the greatest of
 * the 33 magnitudes unless a factor is subnormal: by at most 34 * 2^-13 of the sum of magnitudes. */
#pragma once

enum { WGMMA_E4M3_INPUTS = 32 };

/* sum plus a . b; a, b: values of e4m3 [WGMMA_E4M3_INPUTS]. */
double wgmma_e4m3_add(double sum, const float *a, const float *b);
