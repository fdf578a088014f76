/* The sub-commands: each parses its own arguments (argv[0] is the first after the command's name) and returns
 * the process's exit status: 0 fine, 1 failed, 2 wrong usage. */
#pragma once

#include "base/error.h"
#include "base/flags.h"

int command_eval(int argc, char *argv[]);
int command_replay(int argc, char *argv[]);
int command_serve(int argc, char *argv[]);
int command_route(int argc, char *argv[]);
int command_mcp(int argc, char *argv[]);
int command_keys(int argc, char *argv[]);
int command_forget(int argc, char *argv[]);
int command_cost(int argc, char *argv[]);
int command_run(int argc, char *argv[]);
int command_chat(int argc, char *argv[]);
int command_tokenize(int argc, char *argv[]);
int command_quantize(int argc, char *argv[]);
int command_bench(int argc, char *argv[]);

/* Prints "bantam: message" to stderr; returns the exit status for it. */
int report_error(const char *what, const err_t *error);
/* Parses; true when the command shall go on, else *status is the exit status (0 after --help). */
bool parse_command(const struct flag_command *command, int argc, char *argv[], struct flag_result *out,
                   int *status);
