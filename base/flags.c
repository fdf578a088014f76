#include "base/flags.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "base/flags_internal.h"

enum { FLAG_NAME_MAX = 48 };

/* Flags may be typed with '_' for '-'. */
static bool name_equal(const char *name, const char *typed, size_t typed_bytes)
{
    for (size_t i = 0; i < typed_bytes; i++) {
        char c = typed[i] == '_' ? '-' : typed[i];
        if (name[i] != c) /* also ends at name's NUL: c is never NUL */
            return false;
    }
    return name[typed_bytes] == '\0';
}

static const struct flag *find_flag(const struct flag_command *command, const char *typed, size_t typed_bytes)
{
    for (size_t i = 0; i < command->n_flags; i++) {
        const struct flag *flag = &command->flags[i];
        if (flag->name != NULL && name_equal(flag->name, typed, typed_bytes))
            return flag;
    }
    return NULL;
}

/* Here and below, origin says where the value came from: "--top-k" or "BANTAM_TOP_K". */
static err_t check_range(const struct flag *flag, const char *origin, const char *text, double value)
{
    if (flag->min == 0 && flag->max == 0)
        return err_ok();
    if (value < flag->min)
        return err_new(ERR_INVALID_ARGUMENT, "%s %s is below the least value, %.15g", origin, text,
                       flag->min);
    if (value > flag->max)
        return err_new(ERR_INVALID_ARGUMENT, "%s %s is above the largest value, %.15g", origin, text,
                       flag->max);
    return err_ok();
}

/* Power of two that a size suffix stands for; -1 when it is none. */
static int suffix_shift(const char *suffix)
{
    if (suffix[0] == '\0')
        return 0;
    if (suffix[1] != '\0')
        return -1;
    switch (tolower((unsigned char)suffix[0])) {
    case 'k':
        return 10;
    case 'm':
        return 20;
    case 'g':
        return 30;
    default:
        return -1;
    }
}

static err_t set_int(const struct flag *flag, const char *origin, const char *text)
{
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    int shift = end == text || isspace((unsigned char)text[0]) ? -1 : suffix_shift(end);
    if (shift < 0)
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s\" is not a whole number (such as 4096 or 4k)", origin,
                       text);
    int64_t value;
    if (errno == ERANGE || __builtin_mul_overflow((int64_t)number, (int64_t)1 << shift, &value))
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s\" does not fit in 64 bits", origin, text);
    TRY(check_range(flag, origin, text, (double)value));
    *(int64_t *)flag->target = value;
    return err_ok();
}

static err_t set_double(const struct flag *flag, const char *origin, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || isspace((unsigned char)text[0]) || !isfinite(value))
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s\" is not a finite number", origin, text);
    TRY(check_range(flag, origin, text, value));
    *(double *)flag->target = value;
    return err_ok();
}

static err_t set_bool(const struct flag *flag, const char *origin, const char *text)
{
    static const char *const words[] = {"false", "true", "0", "1", "no", "yes", "off", "on"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *(bool *)flag->target = i % 2 == 1;
            return err_ok();
        }
    }
    return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s\" is neither true nor false", origin, text);
}

static err_t set_choice(const struct flag *flag, const char *origin, const char *text)
{
    size_t text_bytes = strlen(text);
    const char *choice = flag->choices;
    for (;;) {
        size_t choice_bytes = strcspn(choice, "|");
        if (choice_bytes == text_bytes && memcmp(choice, text, text_bytes) == 0) {
            *(const char **)flag->target = text;
            return err_ok();
        }
        if (choice[choice_bytes] == '\0')
            break;
        choice += choice_bytes + 1;
    }
    return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s\" is not one of %s", origin, text, flag->choices);
}

static err_t set_list(const struct flag *flag, const char *origin, const char *text)
{
    struct flag_list *list = flag->target;
    if (list->count == FLAG_LIST_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "%s may be given at most %d times", origin, FLAG_LIST_MAX);
    list->item[list->count++] = text;
    return err_ok();
}

static err_t set_value(const struct flag *flag, const char *origin, const char *text)
{
    switch (flag->kind) {
    case FLAG_BOOL:
        return set_bool(flag, origin, text);
    case FLAG_INT:
        return set_int(flag, origin, text);
    case FLAG_DOUBLE:
        return set_double(flag, origin, text);
    case FLAG_STRING:
        *(const char **)flag->target = text;
        return err_ok();
    case FLAG_CHOICE:
        return set_choice(flag, origin, text);
    case FLAG_LIST:
        return set_list(flag, origin, text);
    }
    ASSERT(false && "a known kind of flag");
    return err_ok();
}

static void clear_list(const struct flag *flag)
{
    if (flag->kind == FLAG_LIST)
        ((struct flag_list *)flag->target)->count = 0;
}

void flag_environment_name(const struct flag *flag, char out[FLAG_ENVIRONMENT_NAME_MAX])
{
    static const char prefix[] = "BANTAM_";
    size_t length = strlen(flag->name);
    ASSERT(length <= FLAG_NAME_MAX);
    memcpy(out, prefix, sizeof prefix - 1);
    char *name = out + sizeof prefix - 1;
    for (size_t i = 0; i < length; i++)
        name[i] = flag->name[i] == '-' ? '_' : (char)toupper((unsigned char)flag->name[i]);
    name[length] = '\0';
}

static void apply_defaults(const struct flag_command *command)
{
    for (size_t i = 0; i < command->n_flags; i++) {
        const struct flag *flag = &command->flags[i];
        if (flag->name == NULL)
            continue;
        ASSERT(flag->target != NULL);
        ASSERT(flag->kind != FLAG_CHOICE || flag->choices != NULL);
        if (flag->is_set != NULL)
            *flag->is_set = false;
        clear_list(flag);
        if (flag->default_text == NULL)
            continue;
        err_t e = set_value(flag, flag->name, flag->default_text);
        ASSERT(e.code == ERR_OK); /* the table is wrong */
    }
}

/* An empty variable counts as unset: service managers and containers often cannot leave one out. */
static err_t apply_environment(const struct flag_command *command)
{
    for (size_t i = 0; i < command->n_flags; i++) {
        const struct flag *flag = &command->flags[i];
        if (flag->name == NULL)
            continue;
        char name[FLAG_ENVIRONMENT_NAME_MAX];
        flag_environment_name(flag, name);
        const char *text = getenv(name);
        if (text == NULL || text[0] == '\0')
            continue;
        clear_list(flag);
        TRY(set_value(flag, name, text));
        if (flag->is_set != NULL)
            *flag->is_set = true;
    }
    return err_ok();
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Edits (insert, delete, replace, swap neighbours) that turn one name into the other. */
static size_t edit_distance(const char *a, size_t a_bytes, const char *b, size_t b_bytes)
{
    size_t rows[3][FLAG_NAME_MAX + 1];
    for (size_t j = 0; j <= b_bytes; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a_bytes; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i + 2) % 3];
        const size_t *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= b_bytes; j++) {
            row[j] = min_size(above[j - 1] + (a[i - 1] != b[j - 1]), min_size(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = min_size(row[j], above2[j - 2] + 1);
        }
    }
    return rows[a_bytes % 3][b_bytes];
}

/* NULL when nothing is near enough to be what was meant. */
static const char *nearest_name(const struct flag_command *command, const char *typed, size_t typed_bytes)
{
    if (typed_bytes == 0 || typed_bytes > FLAG_NAME_MAX)
        return NULL;
    const char *best = NULL;
    size_t best_distance = typed_bytes < 6 ? 3 : typed_bytes / 3 + 2;
    for (size_t i = 0; i < command->n_flags; i++) {
        const char *name = command->flags[i].name;
        if (name == NULL)
            continue;
        size_t distance = edit_distance(typed, typed_bytes, name, strlen(name));
        bool begins = typed_bytes >= 3 && strncmp(name, typed, typed_bytes) == 0;
        if (begins)
            distance = 1;
        if (distance < best_distance) {
            best_distance = distance;
            best = name;
        }
    }
    return best;
}

static err_t unknown_flag(const struct flag_command *command, const char *argument)
{
    size_t dashes = strspn(argument, "-");
    size_t name_bytes = strcspn(argument + dashes, "=");
    const char *nearest = nearest_name(command, argument + dashes, name_bytes);
    int shown = (int)min_size(dashes + name_bytes, 100);
    if (nearest != NULL)
        return err_new(ERR_INVALID_ARGUMENT, "unknown flag %.*s: did you mean --%s?", shown, argument,
                       nearest);
    return err_new(ERR_INVALID_ARGUMENT, "unknown flag %.*s: \"%s --help\" lists them", shown, argument,
                   command->name);
}

/* The arguments still to be read. */
struct cursor {
    int next, argc;
    char *const *argv;
};

static err_t take_value(const struct flag_command *command, const struct flag *flag, struct cursor *cursor,
                        const char **value)
{
    const char *next = cursor->next < cursor->argc ? cursor->argv[cursor->next] : NULL;
    /* A value may begin with a dash (-1), but another flag in its place means that it was forgotten. */
    bool is_flag = next != NULL && strncmp(next, "--", 2) == 0 &&
                   find_flag(command, next + 2, strcspn(next + 2, "=")) != NULL;
    if (next == NULL || is_flag)
        return err_new(ERR_INVALID_ARGUMENT, "--%s needs a value", flag->name);
    cursor->next++;
    *value = next;
    return err_ok();
}

static err_t parse_flag(const struct flag_command *command, const char *argument, struct cursor *cursor,
                        bool given[])
{
    if (argument[1] != '-')
        return unknown_flag(command, argument);
    const char *name = argument + 2;
    size_t name_bytes = strcspn(name, "=");
    const char *value = name[name_bytes] == '=' ? name + name_bytes + 1 : NULL;
    const struct flag *flag = find_flag(command, name, name_bytes);
    if (flag == NULL && value == NULL && name_bytes > 3 &&
        (strncmp(name, "no-", 3) == 0 || strncmp(name, "no_", 3) == 0)) {
        flag = find_flag(command, name + 3, name_bytes - 3);
        if (flag != NULL && flag->kind != FLAG_BOOL)
            flag = NULL;
        value = "false";
    }
    if (flag == NULL)
        return unknown_flag(command, argument);
    if (value == NULL && flag->kind == FLAG_BOOL)
        value = "true";
    if (value == NULL)
        TRY(take_value(command, flag, cursor, &value));

    size_t index = (size_t)(flag - command->flags);
    if (!given[index])
        clear_list(flag); /* the command line replaces what the environment or the default put there */
    given[index] = true;
    char origin[FLAG_NAME_MAX + 3] = "--";
    memcpy(origin + 2, flag->name, strlen(flag->name) + 1);
    TRY(set_value(flag, origin, value));
    if (flag->is_set != NULL)
        *flag->is_set = true;
    return err_ok();
}

static err_t add_positional(const struct flag_command *command, const char *argument, struct flag_result *out)
{
    if (out->n_positionals == command->max_positionals)
        return err_new(ERR_INVALID_ARGUMENT, "unexpected argument \"%.100s\"%s%s", argument,
                       command->positionals != NULL ? ": expected only " : "",
                       command->positionals != NULL ? command->positionals : "");
    out->positional[out->n_positionals++] = argument;
    return err_ok();
}

static err_t apply_arguments(const struct flag_command *command, struct cursor *cursor,
                             struct flag_result *out)
{
    bool given[FLAGS_MAX] = {false};
    bool flags_over = false;
    while (cursor->next < cursor->argc) {
        const char *argument = cursor->argv[cursor->next++];
        if (!flags_over && strcmp(argument, "--") == 0)
            flags_over = true;
        else if (!flags_over && argument[0] == '-' && argument[1] != '\0')
            TRY(parse_flag(command, argument, cursor, given));
        else
            TRY(add_positional(command, argument, out));
    }
    return err_ok();
}

/* Those in brackets, at the end, may be left out. */
static err_t missing_positional(const struct flag_command *command)
{
    const char *names = command->positionals != NULL ? command->positionals : "an argument";
    size_t size = strcspn(names, "[");
    while (size > 1 && names[size - 1] == ' ')
        size--;
    return err_new(ERR_INVALID_ARGUMENT, "%.*s is missing", (int)size, names);
}

static bool wants_help(int argc, char *const argv[])
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    }
    return false;
}

err_t flags_parse(const struct flag_command *command, int argc, char *const argv[], struct flag_result *out)
{
    ASSERT(command->n_flags <= FLAGS_MAX);
    ASSERT(command->max_positionals <= sizeof out->positional / sizeof out->positional[0]);
    *out = (struct flag_result){.n_positionals = 0};
    apply_defaults(command);
    if (wants_help(argc, argv)) {
        flags_print_help(command);
        out->help = true;
        return err_ok();
    }
    TRY(apply_environment(command));
    struct cursor cursor = {.next = 0, .argc = argc, .argv = argv};
    TRY(apply_arguments(command, &cursor, out));
    if (out->n_positionals < command->min_positionals)
        return missing_positional(command);
    return err_ok();
}
