#include "tests/proto/door_client.h"

#include <stdio.h>
#include <string.h>
#include "base/assert.h"
#include "base/clock.h"

#define WAIT_LIMIT_NS INT64_C(60000000000)

void fixture_open(struct fixture *fixture, const struct fake_options *fake,
                  const struct grpc_door_options *door)
{
    memset(fixture, 0, sizeof *fixture);
    struct fake_options no_fake = {0};
    struct grpc_door_options options = door ? *door : grpc_door_options_default();
    options.port = 0;
    options.version = "test";
    assert_int_equal(fake_service_open(fake ? fake : &no_fake, &fixture->fake).code, ERR_OK);
    assert_int_equal(grpc_door_open(fake_service_of(fixture->fake), &options, &fixture->door).code, ERR_OK);
    (void)snprintf(fixture->target, sizeof fixture->target, "127.0.0.1:%u", grpc_door_port(fixture->door));
    struct grpc_client_options client = {.own_connection = true, .window_bytes = 65536};
    assert_int_equal(grpc_client_open(fixture->target, &client, &fixture->client).code, ERR_OK);
}

void fixture_close(struct fixture *fixture)
{
    grpc_client_close(fixture->client);
    grpc_door_close(fixture->door);
    fake_service_close(fixture->fake);
}

struct request text_request(const char *text, uint32_t max_tokens, uint32_t n)
{
    struct request request = {.prompt_kind = PROMPT_TEXT, .text = text, .text_bytes = strlen(text)};
    request.sampling.set = SAMPLING_MAX_TOKENS | SAMPLING_N;
    request.sampling.max_tokens = max_tokens;
    request.sampling.n = n;
    return request;
}

static void keep_event(struct reply *reply, const struct event *event)
{
    assert_true(event->choice_index < REPLY_CHOICES);
    uint32_t *n_tokens = &reply->n_tokens[event->choice_index];
    for (size_t i = 0; i < event->n_token_ids; i++) {
        /* An answer without end has brought any number of tokens when it is aborted: the first ones are kept.
         */
        if (*n_tokens < REPLY_TOKENS)
            reply->tokens[event->choice_index][*n_tokens] = event->token_ids[i];
        (*n_tokens)++;
    }
    reply->text_bytes += event->text_bytes;
    reply->n_logprobs += event->n_logprobs;
    reply->n_prompt_logprobs += event->n_prompt_logprobs;
    reply->n_prompt_ids += event->n_prompt_token_ids;
    if (event->kind == EVENT_FINISHED) {
        reply->n_completes++;
        reply->reason = event->finish_reason;
        reply->usage = event->usage;
    } else {
        assert_int_equal(event->usage.completion_tokens, *n_tokens);
    }
}

static bool on_stream_message(void *context, const uint8_t *bytes, size_t size_bytes)
{
    struct reply *reply = context;
    struct codec_scratch scratch = {0};
    struct event event;
    struct codec_origin origin;
    err_t e = codec_decode_response(bytes, size_bytes, &scratch, &origin, &event);
    assert_int_equal(e.code, ERR_OK);
    (void)snprintf(reply->request_id, sizeof reply->request_id, "%s", origin.request_id);
    keep_event(reply, &event);
    codec_scratch_free(&scratch);
    reply->n_messages++;
    return reply->n_messages != reply->stop_reading_after;
}

static bool on_whole_message(void *context, const uint8_t *bytes, size_t size_bytes)
{
    struct reply *reply = context;
    struct codec_scratch scratch = {0};
    const struct event *events;
    size_t n_events;
    struct codec_origin origin;
    err_t e = codec_decode_whole(bytes, size_bytes, &scratch, &origin, &events, &n_events);
    assert_int_equal(e.code, ERR_OK);
    (void)snprintf(reply->request_id, sizeof reply->request_id, "%s", origin.request_id);
    for (size_t i = 0; i < n_events; i++)
        keep_event(reply, &events[i]);
    codec_scratch_free(&scratch);
    reply->n_messages++;
    return true;
}

static bool on_raw_message(void *context, const uint8_t *bytes, size_t size_bytes)
{
    struct reply *reply = context;
    reply->last_size = size_bytes;
    memcpy(reply->last_bytes, bytes,
           size_bytes < sizeof reply->last_bytes ? size_bytes : sizeof reply->last_bytes);
    reply->n_messages++;
    return true;
}

static void on_done(void *context, const struct client_status *status)
{
    struct reply *reply = context;
    reply->done = true;
    reply->status = status->code;
    (void)snprintf(reply->message, sizeof reply->message, "%s", status->message);
    reply->has_pushback = status->has_pushback;
    reply->pushback_ms = status->pushback_ms;
    const uint8_t *value;
    size_t value_bytes;
    if (client_status_trailer(status, "x-bantam-answered-by", &value, &value_bytes))
        (void)snprintf(reply->answered_by, sizeof reply->answered_by, "%.*s", (int)value_bytes,
                       (const char *)value);
}

void start_request(struct fixture *fixture, const char *path, const struct request *request,
                   int64_t timeout_ns, struct reply *reply)
{
    static const struct client_handler stream_handler = {on_stream_message, on_done};
    static const struct client_handler whole_handler = {on_whole_message, on_done};
    bool whole = strcmp(path, GENERATE_WHOLE) == 0;
    struct generate_options options = {.return_prompt_token_ids = true};
    struct codec_bytes bytes = codec_encode_generate(request, &options);
    err_t e = grpc_client_start(fixture->client, path, bytes.data, bytes.size, timeout_ns,
                                whole ? &whole_handler : &stream_handler, reply, &reply->call);
    assert_int_equal(e.code, ERR_OK);
}

void start_request_with(struct fixture *fixture, const struct request *request,
                        const struct client_metadata *metadata, size_t n_metadata, struct reply *reply)
{
    static const struct client_handler handler = {on_stream_message, on_done};
    struct generate_options options = {.whole = false};
    struct codec_bytes bytes = codec_encode_generate(request, &options);
    for (size_t i = 0; i < n_metadata; i++)
        assert_int_equal(client_metadata_check(&metadata[i]).code, ERR_OK);
    err_t e = grpc_client_start_with(fixture->client, GENERATE, bytes.data, bytes.size, CLIENT_NO_TIMEOUT,
                                     metadata, n_metadata, &handler, reply, &reply->call);
    assert_int_equal(e.code, ERR_OK);
}

err_t try_start_raw(struct fixture *fixture, const char *path, const void *bytes, size_t size_bytes,
                    struct reply *reply)
{
    static const struct client_handler handler = {on_raw_message, on_done};
    return grpc_client_start(fixture->client, path, bytes, size_bytes, CLIENT_NO_TIMEOUT, &handler, reply,
                             &reply->call);
}

void start_raw(struct fixture *fixture, const char *path, const void *bytes, size_t size_bytes,
               struct reply *reply)
{
    assert_int_equal(try_start_raw(fixture, path, bytes, size_bytes, reply).code, ERR_OK);
}

/* One event, or a test that hangs fails. */
static void poll_once(struct fixture *fixture)
{
    if (!grpc_client_poll(fixture->client, WAIT_LIMIT_NS))
        fail_msg("nothing came within a minute");
}

void wait_done(struct fixture *fixture, const struct reply *reply)
{
    while (!reply->done)
        poll_once(fixture);
}

void wait_messages(struct fixture *fixture, const struct reply *reply, uint32_t n_messages)
{
    while (reply->n_messages < n_messages)
        poll_once(fixture);
}

void wait_counts(struct fixture *fixture, bool (*predicate)(const struct fake_counts *counts))
{
    int64_t limit_ns = clock_now_ns(clock_monotonic()) + WAIT_LIMIT_NS;
    struct fake_counts counts = fake_service_counts(fixture->fake);
    while (!predicate(&counts)) {
        assert_true(clock_now_ns(clock_monotonic()) < limit_ns);
        (void)grpc_client_poll(fixture->client, 1000000);
        counts = fake_service_counts(fixture->fake);
    }
}
