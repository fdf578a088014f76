#include "tests/clients/client_world.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "tests/base/held_port.h"

static err_t open_door(struct world *world)
{
    struct grpc_door_options options = grpc_door_options_default();
    options.port = world->port;
    options.version = "test";
    return grpc_door_open(fake_service_of(world->fake), &options, &world->door);
}

void world_open(struct world *world, void (*adjust)(struct bantam_client_options *options))
{
    struct fake_options fake = {0};
    memset(world, 0, sizeof *world);
    assert_int_equal(fake_service_open(&fake, &world->fake).code, ERR_OK);
    world->held_fd = port_hold(&world->port);
    assert_int_equal(open_door(world).code, ERR_OK);
    (void)snprintf(world->target, sizeof world->target, "127.0.0.1:%u", world->port);
    struct bantam_client_options options = bantam_client_options_default();
    options.target = world->target;
    options.own_connection = true;
    if (adjust)
        adjust(&options);
    assert_int_equal(bantam_client_open(&options, &world->client).code, ERR_OK);
}

void world_close(struct world *world)
{
    bantam_client_close(world->client);
    grpc_door_close(world->door);
    (void)close(world->held_fd);
    fake_service_close(world->fake); /* asserts that no stream is left */
}

void world_reopen_door(struct world *world)
{
    assert_int_equal(open_door(world).code, ERR_OK);
}

static bool on_event(void *context, const struct event *event)
{
    struct seen *seen = context;
    assert_int_equal(seen->n_done, 0);
    for (size_t i = 0; i < event->n_token_ids; i++)
        if (seen->n_tokens < SEEN_TOKENS)
            seen->tokens[seen->n_tokens++] = event->token_ids[i];
    seen->n_finished += event->kind == EVENT_FINISHED;
    return ++seen->n_events != seen->pause_after;
}

static void on_answer(void *context, const struct bantam_answer *answer)
{
    struct seen *seen = context;
    (void)answer;
    seen->n_answers++;
}

static void on_done(void *context, const struct bantam_outcome *outcome)
{
    struct seen *seen = context;
    seen->n_done++;
    seen->code = outcome->error.code;
    if (outcome->error.code != ERR_OK) {
        (void)snprintf(seen->message, sizeof seen->message, "%s", outcome->error.message);
        seen->retry_after_ms = outcome->error.retry_after_ms;
    }
    (void)snprintf(seen->request_id, sizeof seen->request_id, "%s", outcome->request_id);
    (void)snprintf(seen->model, sizeof seen->model, "%s", outcome->model);
    (void)snprintf(seen->fingerprint, sizeof seen->fingerprint, "%s", outcome->fingerprint);
    (void)snprintf(seen->peer, sizeof seen->peer, "%s", outcome->peer);
    seen->grpc_status = outcome->grpc_status;
    seen->attempts = outcome->attempts;
    seen->has_load = outcome->has_load;
    seen->load = outcome->load;
}

const struct bantam_handler seen_handler = {on_event, on_answer, on_done};

struct request words(const char *text, uint32_t max_tokens)
{
    struct request request = {.prompt_kind = PROMPT_TEXT, .text = text, .text_bytes = strlen(text)};
    request.sampling.set = SAMPLING_MAX_TOKENS;
    request.sampling.max_tokens = max_tokens;
    return request;
}

void start_stream(struct bantam_client *client, const struct request *request, int64_t timeout_ns,
                  struct seen *seen)
{
    struct bantam_query query = {.method = BANTAM_GENERATE, .request = request};
    struct bantam_call_options options = {.timeout_ns = timeout_ns};
    assert_int_equal(bantam_client_start(client, &query, &options, &seen_handler, seen, &seen->call).code,
                     ERR_OK);
}

void poll_once(struct bantam_client *client)
{
    if (!bantam_client_poll(client, INT64_C(60000000000)))
        fail_msg("nothing came within a minute");
}

void until_done(struct bantam_client *client, const struct seen *seen)
{
    while (!seen->n_done)
        poll_once(client);
}
