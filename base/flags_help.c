#include <stdio.h>
#include <string.h>
#include "base/flags_internal.h"

enum { HELP_COLUMNS = 100, HELP_INDENT = 32, HELP_HEAD_MAX = 160, HELP_TAIL_MAX = 512 };

/* Prints text wrapped between `indent` and HELP_COLUMNS; the cursor stands at `column` and is left behind the
 * last word. Returns the column. */
static int print_wrapped(const char *text, int indent, int column)
{
    while (*text != '\0') {
        text += strspn(text, " ");
        int word_bytes = (int)strcspn(text, " ");
        if (word_bytes == 0)
            break;
        bool at_start = column == indent;
        if (!at_start && column + 1 + word_bytes > HELP_COLUMNS) {
            printf("\n%*s", indent, "");
            column = indent;
            at_start = true;
        }
        printf("%s%.*s", at_start ? "" : " ", word_bytes, text);
        column += word_bytes + (at_start ? 0 : 1);
        text += word_bytes;
    }
    return column;
}

static const char *flag_metavar(const struct flag *flag)
{
    if (flag->metavar != NULL)
        return flag->metavar;
    switch (flag->kind) {
    case FLAG_INT:
        return "N";
    case FLAG_DOUBLE:
        return "X";
    case FLAG_CHOICE:
        return flag->choices;
    default:
        return "TEXT";
    }
}

static void format_head(const struct flag *flag, char *out, size_t out_bytes)
{
    bool on_by_default =
        flag->kind == FLAG_BOOL && flag->default_text != NULL && strcmp(flag->default_text, "true") == 0;
    if (flag->kind == FLAG_BOOL)
        snprintf(out, out_bytes, "  --%s%s", on_by_default ? "[no-]" : "", flag->name);
    else
        snprintf(out, out_bytes, "  --%s %s", flag->name, flag_metavar(flag));
}

static void format_tail(const struct flag *flag, char *out, size_t out_bytes)
{
    char environment[FLAG_ENVIRONMENT_NAME_MAX];
    flag_environment_name(flag, environment);
    const char *repeat = flag->kind == FLAG_LIST ? "may be repeated; " : "";
    const char *default_text = flag->default_text;
    if (default_text == NULL)
        snprintf(out, out_bytes, "[%s%s]", repeat, environment);
    else
        snprintf(out, out_bytes, "[%sdefault: %s; %s]", repeat,
                 default_text[0] != '\0' ? default_text : "\"\"", environment);
}

static void print_flag(const struct flag *flag)
{
    char head[HELP_HEAD_MAX];
    format_head(flag, head, sizeof head);
    int column = printf("%s", head);
    if (column >= HELP_INDENT) {
        printf("\n");
        column = 0;
    }
    printf("%*s", HELP_INDENT - column, "");
    column = HELP_INDENT;
    if (flag->help != NULL)
        column = print_wrapped(flag->help, HELP_INDENT, column);
    char tail[HELP_TAIL_MAX];
    format_tail(flag, tail, sizeof tail);
    print_wrapped(tail, HELP_INDENT, column);
    printf("\n");
}

void flags_print_help(const struct flag_command *command)
{
    printf("Usage: %s%s%s%s\n\n", command->name, command->n_flags > 0 ? " [flags]" : "",
           command->positionals != NULL ? " " : "", command->positionals != NULL ? command->positionals : "");
    if (command->summary != NULL) {
        print_wrapped(command->summary, 0, 0);
        printf("\n\n");
    }
    if (command->n_flags > 0 && command->flags[0].name != NULL)
        printf("Flags:\n");
    for (size_t i = 0; i < command->n_flags; i++) {
        const struct flag *flag = &command->flags[i];
        if (flag->name == NULL)
            printf("%s%s:\n", i > 0 ? "\n" : "", flag->help);
        else
            print_flag(flag);
    }
    printf("%s  --help%*sprint this and exit\n", command->n_flags > 0 ? "" : "Flags:\n", HELP_INDENT - 8, "");
    printf("\nA flag on the command line wins over its environment variable, which wins over the default.\n");
    if (command->examples != NULL)
        printf("\nExamples:\n%s%s", command->examples,
               command->examples[strlen(command->examples) - 1] == '\n' ? "" : "\n");
    fflush(stdout);
}
