/* The gRPC doors in front of a service that passes requests on, and the C client: a request in OpenAI's form,
 * hints in metadata, and answers that no engine gives. */
#include <grpc/status.h>
#include <stdio.h>
#include <string.h>
#include "tests/clients/client_world.h"
#include "tests/proto/answer_scripts.h"
#include "tests/proto/door_client.h"
#include "tests/proto/wire_bytes.h"

#define COUNT(list) (sizeof(list) / sizeof(list)[0])
#define CHAT_JSON                                                                                            \
    "{\"model\":\"strong\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"tools\":[{\"type\":"      \
    "\"function\"}],\"max_tokens\":9,\"stream\":true,\"bantam\":{\"route\":\"auto\"}}"

/* What a stream brought, in the order of its coming. */
struct told {
    char text[256]; /* "text|reasoning|refusal|0:call_a:look:{...;" */
    uint32_t n_events;
    enum finish_reason reason;
    struct usage usage;
    char first_model[64];
    int64_t cost_nanodollars;
    uint32_t attempts;
    char model[64], fingerprint[64], trailer_cost[32], trailer_by[64];
    struct bantam_outcome outcome;
};

static void append(struct told *told, const char *text, size_t text_bytes)
{
    size_t size = strlen(told->text);
    (void)snprintf(told->text + size, sizeof told->text - size, "%.*s|", (int)text_bytes, text ? text : "");
}

static void note_event(struct told *told, const struct event *event)
{
    append(told, event->text, event->text_bytes);
    append(told, event->reasoning, event->reasoning_bytes);
    append(told, event->refusal, event->refusal_bytes);
    for (size_t i = 0; i < event->n_tool_calls; i++) {
        const struct tool_call *call = &event->tool_calls[i];
        size_t size = strlen(told->text);
        (void)snprintf(told->text + size, sizeof told->text - size, "%u:%s:%s:%.*s;", call->index,
                       call->id ? call->id : "-", call->name ? call->name : "-", (int)call->arguments_bytes,
                       call->arguments);
    }
    if (told->n_events++ == 0 && event->source)
        (void)snprintf(told->first_model, sizeof told->first_model, "%s", event->source->model);
    if (event->kind != EVENT_FINISHED)
        return;
    told->reason = event->finish_reason;
    told->usage = event->usage;
    assert_non_null(event->source);
    assert_string_equal(event->source->provider, "mock");
    assert_string_equal(event->source->reason, "rule");
    assert_string_equal(event->source->rule, "tools");
    assert_string_equal(event->source->cache, "miss");
    assert_string_equal(event->source->dropped, "top_k,min_p");
    assert_string_equal(event->source->decision_id, "d-1");
    told->cost_nanodollars = event->source->cost_nanodollars;
    told->attempts = event->source->attempts;
}

static bool on_event(void *context, const struct event *event)
{
    note_event(context, event);
    return true;
}

static void copy_trailer(const struct bantam_outcome *outcome, const char *key, char *out, size_t out_bytes)
{
    const uint8_t *value;
    size_t value_bytes;
    if (bantam_outcome_trailer(outcome, key, &value, &value_bytes))
        (void)snprintf(out, out_bytes, "%.*s", (int)value_bytes, (const char *)value);
}

static void on_done(void *context, const struct bantam_outcome *outcome)
{
    struct told *told = context;
    told->outcome = *outcome;
    (void)snprintf(told->model, sizeof told->model, "%s", outcome->model);
    (void)snprintf(told->fingerprint, sizeof told->fingerprint, "%s", outcome->fingerprint);
    copy_trailer(outcome, "x-bantam-cost-usd", told->trailer_cost, sizeof told->trailer_cost);
    copy_trailer(outcome, "x-bantam-answered-by", told->trailer_by, sizeof told->trailer_by);
}

static const struct bantam_handler handler = {.on_event = on_event, .on_done = on_done};

static void generate(struct world *world, const struct bantam_query *query,
                     const struct bantam_call_options *options, struct told *told)
{
    struct bantam_call *call;
    *told = (struct told){0};
    err_t e = bantam_client_start(world->client, query, options, &handler, told, &call);
    assert_int_equal(e.code, ERR_OK);
    bantam_client_wait(world->client, call);
    bantam_call_release(call);
}

static int setup(void **state)
{
    static struct world world;
    world_open(&world, NULL);
    *state = &world;
    return 0;
}

static int teardown(void **state)
{
    world_close(*state);
    return 0;
}

static struct bantam_query chat(const struct request *request)
{
    return (struct bantam_query){.method = BANTAM_GENERATE,
                                 .request = request,
                                 .openai_json = CHAT_JSON,
                                 .openai_json_bytes = strlen(CHAT_JSON)};
}

static void a_request_in_openais_form_streams_tool_calls(void **state)
{
    struct world *world = *state;
    fake_service_pass_on(world->fake, script_tool_answer, COUNT(script_tool_answer));
    struct request request = {.request_id = "mine"};
    struct bantam_query query = chat(&request);
    const struct bantam_header headers[] = {{"x-bantam-privacy", "local_only", 10},
                                            {"x-bantam-task", "t", 1}};
    struct bantam_call_options options = {
        .timeout_ns = BANTAM_NO_TIMEOUT, .headers = headers, .n_headers = 2};
    struct told told;
    generate(world, &query, &options, &told);
    assert_int_equal(told.outcome.error.code, ERR_OK);
    assert_string_equal(told.text, "Let me |||"
                                   "|hm||0:call_a:look:{\"at\":;"
                                   "see|||0:-:-:\"x\"};1:call_b:wait:{};");
    assert_string_equal(told.first_model, "strong-1");
    assert_int_equal(told.reason, FINISH_TOOL_CALLS);
    assert_int_equal(told.usage.prompt_tokens, 11);
    assert_int_equal(told.usage.completion_tokens, 7);
    assert_int_equal(told.usage.cached_tokens, 4);
    assert_false(told.usage.is_unknown);
    assert_int_equal(told.cost_nanodollars, 1500000);
    assert_int_equal(told.attempts, 2);
    assert_string_equal(told.model, "strong-1");
    assert_string_equal(told.fingerprint, "fp_7");
    assert_string_equal(told.trailer_cost, "0.0015");
    assert_string_equal(told.trailer_by, "strong-1");
    struct fake_asked asked = fake_service_asked(world->fake);
    assert_string_equal(asked.text, "user: hi\n");
    assert_string_equal(asked.hints, "route=auto privacy=local_only task=t ");
    assert_memory_equal(asked.beyond, "tools is not supported", 22);
    assert_non_null(strstr(asked.original, "\"max_tokens\":9"));
    assert_false(asked.takes_ids_only);
}

static void wholes_have_what_streams_have(void **state)
{
    struct world *world = *state;
    struct request request = {0};
    struct bantam_query query = chat(&request);
    struct bantam_reply *reply;
    query.method = BANTAM_GENERATE_WHOLE;
    fake_service_pass_on(world->fake, script_tool_answer, COUNT(script_tool_answer));
    assert_int_equal(bantam_client_ask(world->client, &query, NULL, &reply).code, ERR_OK);
    struct told told = {0};
    assert_int_equal(reply->answer.whole.n_events, 1);
    note_event(&told, &reply->answer.whole.events[0]);
    assert_string_equal(told.text, "Let me see|hm||0:call_a:look:{\"at\":\"x\"};1:call_b:wait:{};");
    assert_int_equal(told.cost_nanodollars, 1500000);
    bantam_reply_free(reply);
    fake_service_pass_on(world->fake, script_refusal, COUNT(script_refusal));
    assert_int_equal(bantam_client_ask(world->client, &query, NULL, &reply).code, ERR_OK);
    told = (struct told){0};
    note_event(&told, &reply->answer.whole.events[0]);
    assert_string_equal(told.text, "||I will not|");
    assert_int_equal(told.reason, FINISH_CONTENT_FILTER);
    assert_true(told.usage.is_unknown);
    assert_int_equal(told.cost_nanodollars, -1);
    bantam_reply_free(reply);
}

static void assert_refused(struct world *world, const struct bantam_query *query, const char *message)
{
    struct told told;
    generate(world, query, NULL, &told);
    assert_int_equal(told.n_events, 0);
    assert_true(told.outcome.error.code == ERR_INVALID_ARGUMENT ||
                told.outcome.error.code == ERR_UNIMPLEMENTED);
    assert_non_null(strstr(told.outcome.error.message, message));
}

static void openais_form_stands_alone(void **state)
{
    struct world *world = *state;
    struct request request = words("hello", 3), empty = {0};
    struct bantam_query query = chat(&request);
    assert_refused(world, &query, "several prompts; set one of text, input_ids, messages and openai_json");
    request.prompt_kind = PROMPT_NONE;
    assert_refused(world, &query, "sampling_params cannot stand beside openai_json");
    query.request = &empty;
    assert_refused(world, &query, "tools is not supported"); /* an engine's door */
    query.openai_json_bytes--;
    assert_refused(world, &query, "the body is not JSON");
    query.openai_json_bytes = 0;
    assert_refused(world, &query, "the request has no body");
    query.openai_json = "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],\"max_tokens\":3}";
    query.openai_json_bytes = strlen(query.openai_json);
    struct seen seen = {0};
    assert_int_equal(bantam_client_start(world->client, &query, NULL, &seen_handler, &seen, NULL).code,
                     ERR_OK);
    until_done(world->client, &seen);
    assert_int_equal(seen.code, ERR_OK);
    assert_int_equal(seen.n_tokens, 3);
}

static void failures_tell_when_to_come_back(void **state)
{
    struct world *world = *state;
    struct request request = words("hello", 3);
    struct bantam_query query = {.method = BANTAM_GENERATE, .request = &request};
    struct bantam_call_options options = {.timeout_ns = BANTAM_NO_TIMEOUT, .no_retries = true};
    struct told told;
    fake_service_pass_on(world->fake, script_failure, COUNT(script_failure));
    generate(world, &query, &options, &told);
    assert_int_equal(told.outcome.grpc_status, GRPC_STATUS_UNAVAILABLE);
    assert_int_equal(told.outcome.error.retry_after_ms, 1700);
    assert_string_equal(told.trailer_by, "strong-1");
    assert_string_equal(told.trailer_cost, "");
}

/* --- the protobuf service, whose messages have token ids and nothing else */

static void facade(const struct event *events, size_t n_events, struct reply *reply)
{
    struct fixture fixture;
    struct buffer message = {0};
    fixture_open(&fixture, NULL, NULL);
    fake_service_pass_on(fixture.fake, events, n_events);
    wire_text(&message, 3, "hello");
    wire_varint(&message, 5, 1);
    start_raw(&fixture, "/vllm.grpc.engine.VllmEngine/Generate", message.data, message.size, reply);
    wait_done(&fixture, reply);
    assert_true(fake_service_asked(fixture.fake).takes_ids_only);
    buffer_free(&message);
    fixture_close(&fixture);
}

static void protobuf_clients_get_ids_or_an_error(void **state)
{
    (void)state;
    static const uint32_t ids[] = {7, 8};
    static const struct event with_ids[] = {{.kind = EVENT_FINISHED,
                                             .last = true,
                                             .token_ids = ids,
                                             .n_token_ids = 2,
                                             .text = "seven eight",
                                             .text_bytes = 11,
                                             .stop_token_id = -1,
                                             .finish_reason = FINISH_STOP,
                                             .source = &script_paid_source}};
    struct reply reply = {0};
    facade(with_ids, 1, &reply);
    assert_int_equal(reply.status, GRPC_STATUS_OK);
    assert_int_equal(reply.n_messages, 2);
    assert_string_equal(reply.answered_by, "strong-1");
    reply = (struct reply){0};
    facade(script_tool_answer, COUNT(script_tool_answer), &reply);
    assert_int_equal(reply.status, GRPC_STATUS_FAILED_PRECONDITION);
    assert_non_null(strstr(reply.message, "mock answered without token ids"));
    assert_string_equal(reply.answered_by, "strong-1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_request_in_openais_form_streams_tool_calls, setup, teardown),
        cmocka_unit_test_setup_teardown(wholes_have_what_streams_have, setup, teardown),
        cmocka_unit_test_setup_teardown(openais_form_stands_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(failures_tell_when_to_come_back, setup, teardown),
        cmocka_unit_test(protobuf_clients_get_ids_or_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
