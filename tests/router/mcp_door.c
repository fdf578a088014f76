/* A door over HTTP with /mcp in front of a service that answers the same to everybody, for tests with clients
 * of others. Prints its port, and ends with its standard input. */
#include <stdio.h>
#include "router/mcp/mcp_server.h"
#include "tests/proto/web_client.h"

static const struct answer_source SOURCE = {.provider = "local",
                                            .model = "demo",
                                            .reason = "default",
                                            .rule = "",
                                            .cache = "miss",
                                            .fingerprint = "f",
                                            .dropped = "",
                                            .decision_id = "d1",
                                            .cost_nanodollars = 1500000,
                                            .attempts = 1};
static const struct event ANSWER[] = {
    {.kind = EVENT_TOKENS, .text = "Hel", .text_bytes = 3, .source = &SOURCE},
    {.kind = EVENT_FINISHED,
     .last = true,
     .text = "lo",
     .text_bytes = 2,
     .finish_reason = FINISH_STOP,
     .stop_token_id = -1,
     .usage = {.prompt_tokens = 7, .completion_tokens = 2},
     .source = &SOURCE},
};

static err_t append(struct buffer *out, const char *text)
{
    return buffer_append_text(out, text) ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no memory");
}

static err_t explain(void *context, const struct request *request, struct buffer *out)
{
    return append(out, context == NULL && request->n_messages > 0 ? "{\"tier\":\"small\"}" : "{}");
}

static err_t budget(void *context, const char *tenant, struct buffer *out)
{
    return append(out, context == NULL && tenant ? "{\"spent_usd\":\"0.5\"}" : "{}");
}

static err_t state(void *context, struct buffer *out)
{
    return append(out, context == NULL ? "{\"requests\":3}" : "{}");
}

static err_t prices(void *context, struct buffer *out)
{
    return append(out, context == NULL ? "{\"prices\":[]}" : "{}");
}

int main(void)
{
    struct mcp_server *server;
    const struct mcp_options options = {.backend = {NULL, explain, budget, state, prices}, .version = "1"};
    if (mcp_server_open(&options, &server).code != ERR_OK)
        return 1;
    struct extra_route route = mcp_server_route(server);
    struct http_door_options door = http_door_options_default();
    struct web web;
    door.extra = (struct extra_routes){&route, 1};
    web_open(&web, NULL, &door);
    fake_service_pass_on(web.fake, ANSWER, sizeof ANSWER / sizeof *ANSWER);
    printf("%u\n", http_door_port(web.door));
    fflush(stdout);
    while (getchar() != EOF)
        continue;
    web_close(&web);
    mcp_server_close(server);
    return 0;
}
