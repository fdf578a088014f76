#include "tests/router/route_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <jansson.h>
#include <cmocka.h>
#include "base/event_count.h"
#include "router/gate/eval_artefact.h"
#include "tests/router/fake_fleet.h"

static const char CONFIG[] =
    "local:\n"
    "  - {name: demo, targets: [\"127.0.0.1:1\"], cost: {per_hour: 3600}}\n"
    "providers:\n"
    "  - name: p\n"
    "    kind: compatible\n"
    "    url: http://127.0.0.1:%u/v1\n"
    "    timeouts: {connect: 5m, first_byte: 10m, chunk: 10m, total: 20m}\n" /* no test's subject */
    "    models:\n"
    "      - {name: big, price: {input: 1, output: 10, as_of: 2026-11-01}, context: 100000}\n"
    "tiers:\n"
    "  - {name: small, models: [local/demo]}\n"
    "  - {name: frontier, models: [p/big]}\n"
    "%s\n"
    "%s";

static char *no_environment(const char *name)
{
    (void)name;
    return NULL;
}

struct route_config *rig_config(const struct route_rig *rig, const char *more)
{
    struct buffer text = {.limit_bytes = 1 << 16};
    struct route_config *config = NULL;
    assert_true(buffer_append_format(&text, CONFIG, rig->server ? script_server_port(rig->server) : 1, more,
                                     strstr(more, "gate:") ? "" : "gate: off\n"));
    err_t e = route_config_parse("test.yaml", text.data, text.size, no_environment, &config);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    buffer_free(&text);
    return config;
}

struct route_rig *rig_open(const struct script_step *const *scripts, size_t n_scripts, const char *more,
                           bool is_offline)
{
    struct route_rig *rig = calloc(1, sizeof *rig);
    assert_non_null(rig);
    if (scripts)
        rig->server = script_server_open(scripts, n_scripts);
    struct route_service_options options = {.config = rig_config(rig, more),
                                            .is_offline = is_offline,
                                            .max_requests = 1000,
                                            .max_held_bytes = RIG_HELD_BYTES,
                                            .clock = clock_monotonic()};
    err_t e = route_service_open(&options, &rig->router);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    rig->service = route_service_of(rig->router);
    return rig;
}

void rig_wait_idle(struct route_rig *rig)
{
    struct event_count *progress = rig->service->vtable->progress(rig->service);
    for (;;) {
        uint32_t seen = event_count_read(progress);
        if (rig->service->vtable->in_flight(rig->service) == 0)
            return;
        event_count_wait(progress, seen, -1);
    }
}

void rig_close(struct route_rig *rig)
{
    rig_wait_idle(rig);
    route_service_close(rig->router);
    if (rig->server)
        script_server_close(rig->server);
    free(rig);
}

err_t rig_submit(struct route_rig *rig, const struct rig_question *question, struct stream **out)
{
    const char *text = question->text ? question->text : "Hi";
    char body[2048];
    snprintf(body, sizeof body, "{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}]%s}", text,
             question->body ? question->body : "");
    json_error_t why;
    json_t *original = json_loads(body, 0, &why);
    assert_non_null(original);
    struct chat_message message = {.role = "user", .content = text, .content_bytes = strlen(text)};
    struct request_hint hints[3];
    size_t n_hints = 0;
    if (question->route)
        hints[n_hints++] = (struct request_hint){"route", question->route};
    if (question->privacy)
        hints[n_hints++] = (struct request_hint){"privacy", question->privacy};
    if (question->max_cost)
        hints[n_hints++] = (struct request_hint){"max-cost", question->max_cost};
    json_int_t n = json_integer_value(json_object_get(original, "n"));
    struct request request = {.tenant = question->tenant,
                              .deadline_ns = REQUEST_NO_DEADLINE,
                              .prompt_kind = PROMPT_MESSAGES,
                              .messages = &message,
                              .n_messages = 1,
                              .hints = hints,
                              .n_hints = n_hints,
                              .original = original};
    if (n > 0) {
        request.sampling.set = SAMPLING_N;
        request.sampling.n = (uint32_t)n;
    }
    err_t e = rig->service->vtable->submit(rig->service, &request, out);
    json_decref(original);
    return e;
}

static void take_source(struct rig_answer *answer, const struct answer_source *source)
{
    snprintf(answer->provider, sizeof answer->provider, "%s", source->provider);
    snprintf(answer->model, sizeof answer->model, "%s", source->model);
    snprintf(answer->reason, sizeof answer->reason, "%s", source->reason);
    snprintf(answer->rule, sizeof answer->rule, "%s", source->rule);
    snprintf(answer->cache, sizeof answer->cache, "%s", source->cache);
    snprintf(answer->dropped, sizeof answer->dropped, "%s", source->dropped);
    answer->cost = source->cost_nanodollars;
    answer->attempts = source->attempts;
}

static void take_event(struct rig_answer *answer, const struct event *event)
{
    assert_int_equal(answer->n_last, 0); /* nothing follows the last one */
    if (answer->n_events == 0)
        assert_non_null(event->source);
    answer->n_events++;
    answer->n_ids += (uint32_t)event->n_token_ids;
    answer->n_logprobs += (uint32_t)event->n_logprobs;
    assert_true(buffer_append(&answer->text, event->text, event->text_bytes));
    if (event->source)
        take_source(answer, event->source);
    if (event->kind != EVENT_FINISHED)
        return;
    answer->n_ends++;
    answer->n_last += event->last;
    answer->finish = event->finish_reason;
    answer->usage = event->usage;
    if (event->finish_reason == FINISH_ERROR || event->finish_reason == FINISH_ABORT)
        answer->error = event->error;
}

void rig_read(struct route_rig *rig, struct stream *stream, struct rig_answer *answer, uint32_t n_events)
{
    struct event_count *progress = rig->service->vtable->progress(rig->service);
    while (answer->n_last == 0 && (n_events == 0 || answer->n_events < n_events)) {
        uint32_t seen = event_count_read(progress);
        struct event event;
        if (rig->service->vtable->stream_next(stream, &event))
            take_event(answer, &event);
        else
            event_count_wait(progress, seen, -1);
    }
}

struct rig_answer rig_ask(struct route_rig *rig, const struct rig_question *question)
{
    struct rig_answer answer = {.text = {.limit_bytes = 1 << 20}, .error = err_ok()};
    struct stream *stream;
    assert_true(buffer_append_text(&answer.text, ""));
    answer.error = rig_submit(rig, question, &stream);
    if (answer.error.code != ERR_OK)
        return answer;
    rig_read(rig, stream, &answer, 0);
    rig->service->vtable->stream_release(stream);
    return answer;
}

struct rig_answer rig_ask_until(struct route_rig *rig, int64_t time_ns)
{
    struct chat_message message = {.role = "user", .content = "Hi", .content_bytes = 2};
    struct request request = {.prompt_kind = PROMPT_MESSAGES, .messages = &message, .n_messages = 1};
    const struct service_vtable *vtable = rig->service->vtable;
    const uint32_t started = fake_fleet_counts().started;
    for (;; time_ns *= 2) {
        struct rig_answer answer = {.text = {.limit_bytes = 1 << 16}, .error = err_ok()};
        struct stream *stream;
        request.deadline_ns = vtable->now_ns(rig->service) + time_ns;
        answer.error = vtable->submit(rig->service, &request, &stream);
        if (answer.error.code == ERR_OK) {
            rig_read(rig, stream, &answer, 0);
            vtable->stream_release(stream);
        }
        if (answer.error.code != ERR_DEADLINE_EXCEEDED || fake_fleet_counts().started > started)
            return answer;
        rig_forget(&answer);
    }
}

void rig_forget(struct rig_answer *answer)
{
    buffer_free(&answer->text);
}

void rig_write_artefact(const char *path, struct route_config *config, const char *fingerprint)
{
    struct eval_artefact artefact = {.n_cases = 500,
                                     .n_cheap = 400,
                                     .quality = 0.95,
                                     .baseline_quality = 0.96,
                                     .difference = {-0.01, -0.02, 0.005},
                                     .false_cheap = {0.01, 0.005, 0.03}};
    struct buffer text = {.limit_bytes = 1 << 16};
    snprintf(artefact.policy_id, sizeof artefact.policy_id, "%s", config->policy_id);
    snprintf(artefact.fingerprint, sizeof artefact.fingerprint, "%s", fingerprint);
    assert_int_equal(eval_artefact_write(&artefact, &text).code, ERR_OK);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text.data, 1, text.size, file), text.size);
    assert_int_equal(fclose(file), 0);
    buffer_free(&text);
    route_config_free(config);
}

void rig_assert_answer(const struct rig_answer *answer, const char *text, const char *provider)
{
    if (answer->error.code != ERR_OK)
        fail_msg("%s: %s", err_code_name(answer->error.code), answer->error.message);
    assert_string_equal(answer->text.data, text);
    assert_string_equal(answer->provider, provider);
    assert_int_equal(answer->n_last, 1);
}
