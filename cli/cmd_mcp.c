/* bantam mcp: a router's MCP for agents that start a program and speak over its standard streams. */
#include <stdio.h>
#include <string.h>
#include "cli/commands.h"
#include "router/mcp/mcp_bridge.h"

enum { KEY_LINE_BYTES_MAX = 2048 };

static err_t read_key(const char *path, char *out, size_t out_bytes)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return err_new(ERR_NOT_FOUND, "--api-key-file %s cannot be opened", path);
    bool good = fgets(out, (int)out_bytes, file) != NULL;
    (void)fclose(file);
    out[good ? strcspn(out, "\r\n") : 0] = '\0';
    return out[0] ? err_ok()
                  : err_new(ERR_INVALID_ARGUMENT, "--api-key-file %s: its first line is empty", path);
}

int command_mcp(int argc, char *argv[])
{
    const char *url, *key_file = NULL, *ca_file = NULL;
    int64_t timeout_s;
    const struct flag flags[] = {
        {.name = "url",
         .kind = FLAG_STRING,
         .target = &url,
         .default_text = "http://127.0.0.1:8010/mcp",
         .metavar = "URL",
         .help = "where a router answers MCP"},
        {.name = "api-key-file",
         .kind = FLAG_STRING,
         .target = &key_file,
         .metavar = "FILE",
         .help = "its first line is sent as the key"},
        {.name = "ca-file",
         .kind = FLAG_STRING,
         .target = &ca_file,
         .metavar = "FILE",
         .help = "PEM: who signs the router's certificate; without it, the system's"},
        {.name = "timeout",
         .kind = FLAG_INT,
         .target = &timeout_s,
         .default_text = "600",
         .min = 1,
         .max = 86400,
         .metavar = "SECONDS",
         .help = "for the answer to one message"},
    };
    const struct flag_command command = {
        .name = "bantam mcp",
        .summary =
            "Speaks the Model Context Protocol over standard input and output, a message a line, and asks a "
            "running `bantam route` for the answers: tools that ask the local model or a frontier one.",
        .flags = flags,
        .n_flags = sizeof flags / sizeof *flags,
        .examples =
            "  {\"command\": \"bantam\", \"args\": [\"mcp\", \"--url\", \"http://127.0.0.1:8010/mcp\"]}\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    char key[KEY_LINE_BYTES_MAX] = "";
    err_t e = key_file ? read_key(key_file, key, sizeof key) : err_ok();
    const struct mcp_bridge_options options = {.url = url,
                                               .key = key_file ? key : NULL,
                                               .ca_file = ca_file,
                                               .timeout_ms = timeout_s * 1000,
                                               .in = stdin,
                                               .out = stdout};
    if (e.code == ERR_OK)
        e = mcp_bridge_run(&options);
    return e.code == ERR_OK ? 0 : report_error(command.name, &e);
}
