/* The ceilings of this machine that `checkkernel --bench` holds the kernels against, measured in the same
 * run. */
#pragma once

#include "kernels/cpu_backend.h"

struct ceilings {
    double read_gb_s; /* from memory, all threads */
    /* As many bytes read as written, both counted: from one place to another or, where that is faster, in
     * place. */
    double copy_gb_s;
    double
        int8_gop_s; /* products of 8 bits (2 operations each) by the level's instruction; 0 = no such one */
    double tile_int8_gop_s, tile_bf16_gflop_s; /* of AMX; 0 = none */
    double f32_gflop_s;                        /* fused multiply-adds (2 operations each); 0 = not measured */
};

/* Of the backend's threads with the instructions of a level that the CPU has; some seconds. On a shared
 * machine they change within minutes: measured anew beside what is held against them. quick: of a few bytes,
 * to see that it runs. */
struct ceilings ceilings_measure(struct backend *backend, enum isa_level isa, bool quick);
/* int8_gop_s alone, which takes no memory and some tens of milliseconds. */
double ceilings_int8_gop_s(struct backend *backend, enum isa_level isa, bool quick);
