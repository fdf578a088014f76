/* Sub-commands of `bantam bench` that live in files of their own; see commands.h for the convention. */
#pragma once

int bench_serve(int argc, char *argv[]);
