/* Sub-commands of `bantam bench` that live in files of their own; see commands.h for the convention. */
#pragma once

int bench_decode(int argc, char *argv[]);
int bench_doors(int argc, char *argv[]);
int bench_latency(int argc, char *argv[]);
int bench_ops(int argc, char *argv[]);
int bench_products(int argc, char *argv[]);
int bench_provider(int argc, char *argv[]);
int bench_router(int argc, char *argv[]);
int bench_serve(int argc, char *argv[]);
int bench_throughput(int argc, char *argv[]);
