/* Thousands of requests through the router, with engines and a provider that fail in every way, clients that
 * leave, and configurations that change under way: every stream ends once, and the ledger has no loose ends.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <jansson.h>
#include <cmocka.h>
#include "base/event_count.h"
#include "benchmarks/mock_provider.h"
#include "router/money/ledger.h"
#include "router/service/route_service.h"
#include "tests/router/fake_fleet.h"

enum { ROUNDS = 5, REQUESTS = 300, AT_ONCE = 24, RELOAD_EVERY = 40 };

static const char CONFIG[] =
    "local:\n  - {name: demo, targets: [\"127.0.0.1:1\"], cost: {per_hour: 1}}\n"
    "providers:\n"
    "  - name: p\n"
    "    kind: compatible\n"
    "    url: http://127.0.0.1:%u/v1\n"
    "    timeouts: {connect: 5s, first_byte: 40ms, chunk: 40ms, total: 5s}\n"
    "    models:\n"
    "      - {name: one, price: {input: 1, output: 10, as_of: 2026-11-01}, takes: [tools, schemas]}\n"
    "      - {name: two, price: {input: 2, output: 20, as_of: 2026-11-01}, takes: [tools, schemas]}\n"
    "tiers:\n"
    "  - {name: small, models: [local/demo]}\n"
    "  - {name: middle, models: [p/one]}\n"
    "  - {name: frontier, models: [p/two, p/one]}\n"
    "rules:\n  - {name: hr, when: {tenants: [hr]}, local_only: yes}\n"
    "when_down: {to: frontier}\n"
    "difficulty: {at_least: 0.6, to: frontier}\n"
    "classifier:\n  model: local/demo\n  prompt: Easy or hard?\n"
    "  labels: [{text: easy, difficulty: 0.1}, {text: hard, difficulty: 0.9}]\n  timeout: 5ms\n"
    "overflow: {ttft_over: 100ms, to: middle}\n"
    "retries: {max: %d, backoff: 1ms}\n"
    "gate: off\n"
    "ledger: {path: %s}\n"
    "budgets: [{tenant: poor, per_day: 0.3}]\n"
    "cache: {kind: memory, max_bytes: 1000000, ttl: 1h, draws_too: yes}\n"
    "hedge: {tier: small, after: 2ms, to: middle, max_share: 0.5}\n"
    "cascade: {tier: small, tokens: 3, within: 5ms, escalate_over: 0.4, to: frontier}\n";

static char *no_environment(const char *name)
{
    (void)name;
    return NULL;
}

static const char *const SCRIPTS_OF_ENGINES[] = {"hello", "???hello", "!", "ab!", "x",
                                                 "#",     "a#",       "",  "??",  "sure?"};
static const char *const VERDICTS[] = {"e", "e", "e", "h", "#", "!", "z", ""};
static const char *const FAULTS[] = {"503",      "429",       "401",       "400",  "reset", "reset-mid",
                                     "hang",     "stall",     "garbled",   "cut",  "html",  "bytes",
                                     "no-usage", "error-mid", "no-finish", "empty"};
static const char *const TENANTS[] = {"", "hr", "poor", "rich"};
static const char *const WISHES[] = {"auto", "auto", "frontier", "local"};
static const char *const BODIES[] = {"",
                                     "",
                                     ", \"n\": 2",
                                     ", \"stream\": true",
                                     ", \"response_format\": {\"type\": \"json_object\"}",
                                     ", \"temperature\": 0"};

#define PICK(list) (list)[mock_random(&storm->seed) % (sizeof(list) / sizeof *(list))]

struct asked {
    struct stream *stream;
    const char *tenant;
    uint32_t n_choices, n_ends;
    bool is_over, must_stay;
    bool is_patient; /* its client has no deadline, and has not lost patience */
};

struct storm {
    uint64_t seed;
    struct mock_provider *mock;
    struct route_service *router;
    struct service *service;
    char ledger[64];
    struct asked asked[AT_ONCE];
    uint64_t n_submitted, n_refused, n_ended, n_released;
    uint64_t n_patient, n_answered; /* of those that ended; answered: of the patient ones */
};

static struct route_config *config_of(struct storm *storm)
{
    char text[4096];
    struct route_config *config = NULL;
    int retries = (int)(mock_random(&storm->seed) % 3) + 1;
    int size = snprintf(text, sizeof text, CONFIG, mock_provider_port(storm->mock), retries, storm->ledger);
    err_t e = route_config_parse("storm.yaml", text, (size_t)size, no_environment, &config);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    return config;
}

static void submit(struct storm *storm, struct asked *asked)
{
    char text[128], body[512];
    const char *more = PICK(BODIES), *tenant = PICK(TENANTS);
    snprintf(text, sizeof text, "Question %u mock:%s", mock_random(&storm->seed) % 50,
             mock_random(&storm->seed) % 4 == 0 ? PICK(FAULTS) : "none");
    snprintf(body, sizeof body,
             "{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}], \"max_tokens\": 50%s}", text, more);
    json_t *original = json_loads(body, 0, NULL);
    assert_non_null(original);
    struct chat_message message = {.role = "user", .content = text, .content_bytes = strlen(text)};
    struct request_hint hint = {"route", PICK(WISHES)};
    struct request request = {.tenant = tenant,
                              .deadline_ns = REQUEST_NO_DEADLINE,
                              .prompt_kind = PROMPT_MESSAGES,
                              .messages = &message,
                              .n_messages = 1,
                              .hints = &hint,
                              .n_hints = 1,
                              .original = original};
    if (mock_random(&storm->seed) % 8 == 0) {
        int64_t now_ns = storm->service->vtable->now_ns(storm->service);
        request.deadline_ns = now_ns + mock_random(&storm->seed) % 20000000;
    }
    *asked = (struct asked){.n_choices = strstr(more, "\"n\"") ? 2 : 1,
                            .tenant = tenant,
                            .must_stay = strcmp(tenant, "hr") == 0,
                            .is_patient = request.deadline_ns == REQUEST_NO_DEADLINE};
    request.sampling.set = SAMPLING_N;
    request.sampling.n = asked->n_choices;
    fake_fleet_script(PICK(SCRIPTS_OF_ENGINES));
    fake_fleet_classify_script(PICK(VERDICTS));
    fake_fleet_ttft_ns(mock_random(&storm->seed) % 4 == 0 ? INT64_C(5000000000) : 1000000);
    err_t e = storm->service->vtable->submit(storm->service, &request, &asked->stream);
    json_decref(original);
    storm->n_submitted++;
    storm->n_refused += e.code != ERR_OK;
    if (e.code != ERR_OK)
        asked->stream = NULL;
}

static void release(struct storm *storm, struct asked *asked)
{
    storm->service->vtable->stream_release(asked->stream);
    asked->stream = NULL;
    storm->n_released++;
}

/* Whatever is there to be read. False: nothing was. */
static bool read_some(struct storm *storm, struct asked *asked)
{
    struct event event;
    bool any = false;
    while (asked->stream && storm->service->vtable->stream_next(asked->stream, &event)) {
        any = true;
        assert_false(asked->is_over);
        if (event.source && asked->must_stay && event.source->provider[0])
            assert_string_equal(event.source->provider, "local");
        asked->n_ends += event.kind == EVENT_FINISHED;
        if (!event.last)
            continue;
        assert_int_equal(asked->n_ends, asked->n_choices);
        assert_int_equal(event.kind, EVENT_FINISHED);
        asked->is_over = true;
        storm->n_ended++;
        storm->n_patient += asked->is_patient;
        storm->n_answered += asked->is_patient && event.finish_reason == FINISH_STOP;
        assert_false(storm->service->vtable->stream_next(asked->stream, &event));
        release(storm, asked);
    }
    return any;
}

/* Hangs until cancelled are what hedges and deadlines do not reach: their clients lose patience. On a busy
 * machine others do, too. */
static void disturb(struct storm *storm, struct asked *asked)
{
    uint32_t way = mock_random(&storm->seed) % 6;
    asked->is_patient = asked->is_patient && way > 2;
    switch (way) {
    case 0:
        storm->service->vtable->stream_cancel(asked->stream);
        break;
    case 1:
        release(storm, asked);
        break;
    case 2:
        assert_true(storm->service->vtable->abort(storm->service, asked->tenant,
                                                  storm->service->vtable->stream_request_id(asked->stream)));
        break;
    default:
        break;
    }
}

static void run_round(struct storm *storm)
{
    struct event_count *progress = storm->service->vtable->progress(storm->service);
    for (uint32_t n = 0; n < REQUESTS || storm->n_refused + storm->n_released < storm->n_submitted;) {
        uint32_t seen = event_count_read(progress);
        bool any = false;
        for (size_t i = 0; i < AT_ONCE; i++) {
            struct asked *asked = &storm->asked[i];
            if (asked->stream == NULL && n < REQUESTS) {
                submit(storm, asked);
                any = true;
                if (++n % RELOAD_EVERY == 0)
                    assert_int_equal(route_service_reload(storm->router, config_of(storm)).code, ERR_OK);
            }
            if (asked->stream)
                any = read_some(storm, asked) || any;
        }
        size_t victim = mock_random(&storm->seed) % AT_ONCE;
        for (size_t i = 0; i < AT_ONCE && storm->asked[victim].stream == NULL; i++)
            victim = (victim + 1) % AT_ONCE;
        if (!any && storm->asked[victim].stream && !event_count_wait(progress, seen, 1000000))
            disturb(storm, &storm->asked[victim]);
    }
}

struct sums {
    uint64_t n_calls, n_local;
};

static void add_line(void *context, const struct ledger_line *line)
{
    struct sums *sums = context;
    sums->n_calls += line->n_calls;
    sums->n_local += strcmp(line->provider, "local") == 0 ? line->n_calls : 0;
    if (strcmp(line->tenant, "hr") == 0)
        assert_string_equal(line->provider, "local");
}

static int64_t unix_ms(void *ignored)
{
    (void)ignored;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000;
}

/* Nothing is left reserved, and what stayed local went to nobody. */
static void check_ledger(struct storm *storm)
{
    struct ledger *ledger;
    struct ledger_options options = {.path = storm->ledger, .unix_ms = unix_ms};
    struct sums sums = {0};
    uint64_t n_lost = 1;
    err_t e = ledger_open(&options, &n_lost, &ledger);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    assert_int_equal(n_lost, 0);
    assert_int_equal(ledger_report(ledger, NULL, NULL, add_line, &sums).code, ERR_OK);
    assert_true(sums.n_calls > 0 && sums.n_local > 0);
    ledger_close(ledger);
}

static void every_stream_ends_once(void **state)
{
    (void)state;
    const char *seed = getenv("BANTAM_STORM_SEED"), *rounds = getenv("BANTAM_STORM_ROUNDS");
    unsigned long long n_rounds = rounds ? strtoull(rounds, NULL, 10) : ROUNDS;
    for (unsigned long long round = 0; round < n_rounds; round++) {
        struct storm storm = {.seed = (seed ? strtoull(seed, NULL, 10) : 1) + round};
        struct mock_options mock = mock_options_default();
        snprintf(storm.ledger, sizeof storm.ledger, "/tmp/bantam-storm-%ld.db", (long)getpid());
        assert_int_equal(mock_provider_open(&mock, &storm.mock).code, ERR_OK);
        struct route_service_options options = {.config = config_of(&storm),
                                                .max_requests = 1000,
                                                .max_held_bytes = 1 << 30,
                                                .clock = clock_monotonic()};
        assert_int_equal(route_service_open(&options, &storm.router).code, ERR_OK);
        storm.service = route_service_of(storm.router);
        run_round(&storm);
        route_service_close(storm.router); /* returns: nothing is left in flight */
        mock_provider_close(storm.mock);
        assert_int_equal(storm.n_submitted, REQUESTS);
        assert_int_equal(storm.n_refused + storm.n_released, storm.n_submitted);
        if (storm.n_answered == 0 || storm.n_answered < storm.n_patient / 4)
            fail_msg("round %llu: %llu of %llu that waited were answered, %llu refused", round,
                     (unsigned long long)storm.n_answered, (unsigned long long)storm.n_patient,
                     (unsigned long long)storm.n_refused);
        check_ledger(&storm);
        static const char *const SUFFIXES[] = {"", "-wal", "-shm"};
        for (size_t i = 0; i < 3; i++) {
            char path[80];
            snprintf(path, sizeof path, "%s%s", storm.ledger, SUFFIXES[i]);
            (void)unlink(path);
        }
    }
    struct fake_fleet_counts counts = fake_fleet_counts();
    assert_true(counts.classified > 0);
    assert_int_equal(counts.started, counts.ended);
    assert_int_equal(counts.live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_stream_ends_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
