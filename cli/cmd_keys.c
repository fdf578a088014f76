/* bantam keys: keys for clients, and their lines in a server's file of tenants. */
#include <stdio.h>
#include <string.h>
#include "cli/commands.h"
#include "server/key_lines.h"

enum { KEY_INPUT_BYTES_MAX = 1024, LINES_BYTES_MAX = 4096 };

/* One line of standard input: an argument would show in the list of processes. */
static err_t read_key(char *out, size_t out_bytes, size_t *size_bytes)
{
    if (!fgets(out, (int)out_bytes, stdin))
        return err_new(ERR_INVALID_ARGUMENT, "there is no key on standard input");
    *size_bytes = strcspn(out, "\r\n");
    return err_ok();
}

static err_t make_lines(const char *what, const char *tenant, struct buffer *out)
{
    char key[KEY_INPUT_BYTES_MAX];
    size_t size_bytes = 0;
    if (strcmp(what, "new") == 0)
        return key_lines_new(tenant, out);
    if (strcmp(what, "hash") != 0)
        return err_new(ERR_INVALID_ARGUMENT, "\"%s\" is not new or hash", what);
    TRY(read_key(key, sizeof key, &size_bytes));
    return key_lines_of(key, size_bytes, tenant, out);
}

int command_keys(int argc, char *argv[])
{
    const char *tenant;
    const struct flag flags[] = {{.name = "tenant",
                                  .kind = FLAG_STRING,
                                  .target = &tenant,
                                  .default_text = "default",
                                  .metavar = "NAME",
                                  .help = "whom the key is for"}};
    const struct flag_command command = {
        .name = "bantam keys",
        .summary =
            "new: prints a fresh random key, which is kept nowhere, and the line that stands for it in the "
            "file of --api-keys-file, below a line \"tenant NAME\". hash: prints that line for a key read "
            "from "
            "standard input.",
        .positionals = "new|hash",
        .min_positionals = 1,
        .max_positionals = 1,
        .flags = flags,
        .n_flags = sizeof flags / sizeof *flags,
        .examples = "  bantam keys new --tenant acme\n"
                    "  (echo tenant acme; bantam keys hash --tenant acme < key.txt) >> tenants.txt\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    struct buffer lines = {.limit_bytes = LINES_BYTES_MAX};
    err_t e = make_lines(arguments.positional[0], tenant, &lines);
    if (e.code != ERR_OK)
        return report_error(command.name, &e);
    (void)fputs(lines.data, stdout);
    buffer_free(&lines);
    return 0;
}
