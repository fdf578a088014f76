/* bantam mcp: an agent's standard input and output, passed on to a router's /mcp. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "cli/commands.h"
#include "router/mcp/mcp_bridge.h"

enum { URL_BYTES = 1024, KEY_BYTES = 1024 };

static err_t read_key_file(const char *path, char out[KEY_BYTES])
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return err_new(ERR_NOT_FOUND, "--api-key-file %s cannot be read", path);
    bool has_line = fgets(out, KEY_BYTES, file) != NULL;
    (void)fclose(file);
    out[has_line ? strcspn(out, "\r\n") : 0] = '\0';
    return out[0] != '\0'
               ? err_ok()
               : err_new(ERR_INVALID_ARGUMENT, "--api-key-file %s has no key in its first line", path);
}

static err_t pass_on(const char *server, const char *api_key_file, struct mcp_bridge_options *options)
{
    char url[URL_BYTES], key[KEY_BYTES];
    size_t size = strlen(server);
    while (size > 0 && server[size - 1] == '/')
        size--;
    if (snprintf(url, sizeof url, "%.*s/mcp", (int)size, server) >= (int)sizeof url)
        return err_new(ERR_INVALID_ARGUMENT, "--server is longer than %d bytes", URL_BYTES);
    options->url = url;
    if (api_key_file) {
        TRY(read_key_file(api_key_file, key));
        options->api_key = key;
    }
    err_t e = mcp_bridge_run(options);
    explicit_bzero(key, sizeof key);
    return e;
}

int command_mcp(int argc, char *argv[])
{
    struct mcp_bridge_options options = {.input = STDIN_FILENO, .output = STDOUT_FILENO};
    const char *server, *api_key_file = NULL;
    const struct flag flags[] = {
        {.name = "server",
         .kind = FLAG_STRING,
         .target = &server,
         .default_text = "http://127.0.0.1:8000",
         .metavar = "URL",
         .help = "the router's door over HTTP"},
        {.name = "api-key",
         .kind = FLAG_STRING,
         .target = &options.api_key,
         .metavar = "KEY",
         .help = "sent as a bearer key; BANTAM_API_KEY does not show in the list of processes"},
        {.name = "api-key-file",
         .kind = FLAG_STRING,
         .target = &api_key_file,
         .metavar = "FILE",
         .help = "the same, the first line of a file"},
        {.name = "ca-certs",
         .kind = FLAG_STRING,
         .target = &options.ca_file,
         .metavar = "FILE",
         .help = "certificates to trust, PEM (default: the system's)"},
    };
    const struct flag_command command = {
        .name = "bantam mcp",
        .summary =
            "Speaks the Model Context Protocol on standard input and output, for agents that start their "
            "servers "
            "themselves, and passes every message on to the /mcp of a running router. Ends with its input.",
        .flags = flags,
        .n_flags = sizeof flags / sizeof *flags,
        .examples = "  bantam mcp --server http://127.0.0.1:8000\n"
                    "  an agent's configuration: {\"command\": \"bantam\", \"args\": [\"mcp\"]}\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    err_t e = pass_on(server, api_key_file, &options);
    return e.code == ERR_OK ? 0 : report_error(command.name, &e);
}
