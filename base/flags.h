/* Command-line flags from one table: parsing, environment variables, defaults and --help come from the same
 * rows, so that they cannot disagree. Precedence: command line, then environment, then default. One thread,
 * at start. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

enum flag_kind {
    FLAG_BOOL,   /* bool *: --x, --no-x, --x=true */
    FLAG_INT,    /* int64_t *: range-checked; k, m, g suffixes are powers of 1024 */
    FLAG_DOUBLE, /* double *: finite, range-checked */
    FLAG_STRING, /* const char **: points into argv, the environment or the default */
    FLAG_CHOICE, /* const char **: one of `choices` */
    FLAG_LIST,   /* struct flag_list *: may be repeated; collects strings */
};

enum { FLAG_LIST_MAX = 64 };
struct flag_list {
    const char *item[FLAG_LIST_MAX];
    size_t count;
};

/* A row whose name is NULL is a heading for --help: its `help` is the title of the rows below. */
struct flag {
    const char
        *name; /* "max-model-len"; the environment variable is BANTAM_MAX_MODEL_LEN; at most 48 bytes */
    enum flag_kind kind;
    void *target;
    const char *default_text; /* parsed like an argument; NULL = leave the target as it is */
    double min, max;          /* FLAG_INT and FLAG_DOUBLE; both 0 = no bounds */
    const char *choices;      /* FLAG_CHOICE: "auto|int8|int4" */
    const char *metavar;      /* "N", "PATH"; NULL = from the kind */
    const char *help;         /* one sentence, no final stop */
    bool *is_set;             /* optional: set when given by argument or environment */
};

struct flag_command {
    const char *name;        /* "bantam serve" */
    const char *summary;     /* what it does, for --help */
    const char *positionals; /* "MODEL [PROMPT]", what may be left out in brackets; NULL = none */
    size_t min_positionals, max_positionals;
    const struct flag *flags;
    size_t n_flags;
    const char *examples; /* shown at the end of --help; may be NULL */
};

struct flag_result {
    const char *positional[8];
    size_t n_positionals;
    bool help; /* --help was given and printed to stdout: the caller exits with 0 */
};

/* argv[0] is the first argument to parse. An unknown flag's error names the nearest known one. --x VALUE and
 * --x=VALUE are the same; "--" ends the flags; --help or -h anywhere before it prints the help and nothing
 * else is looked at. An empty environment variable counts as unset. Names may be typed with '_' for '-'. */
err_t flags_parse(const struct flag_command *command, int argc, char *const argv[],
                  struct flag_result *out) ERR_MUST_CHECK;
/* To stdout, at most 100 columns wide where words allow. */
void flags_print_help(const struct flag_command *command);
