#include "tests/router/fleet_world.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/alloc.h"
#include "tests/base/held_port.h"

#define WAIT_LIMIT_NS INT64_C(60000000000)

static void nap(void)
{
    const struct timespec millisecond = {.tv_nsec = 1000000};
    clock_nanosleep(CLOCK_MONOTONIC, 0, &millisecond, NULL);
}

#define WAIT_UNTIL(condition)                                                                                \
    for (int64_t limit_ns_ = clock_now_ns(clock_monotonic()) + WAIT_LIMIT_NS; !(condition); nap())           \
    assert_true(clock_now_ns(clock_monotonic()) < limit_ns_)

static err_t resolve(void *context, const struct replica_target *target, struct replica_addresses *out)
{
    struct fleet_world *world = context;
    (void)target;
    pthread_mutex_lock(&world->mutex);
    for (size_t i = 0; i < world->n_engines; i++)
        if (world->is_named[i])
            (void)snprintf(out->address[out->n++], REPLICA_ADDRESS_BYTES, "127.0.0.1:%u",
                           world->engines[i].port);
    pthread_mutex_unlock(&world->mutex);
    return err_ok();
}

static void open_door(struct engine_stand_in *engine)
{
    struct grpc_door_options options = grpc_door_options_default();
    options.port = engine->port;
    options.version = "test";
    assert_int_equal(grpc_door_open(fake_service_of(engine->fake), &options, &engine->door).code, ERR_OK);
}

void fleet_world_open(struct fleet_world *world, size_t n_engines,
                      void (*adjust)(size_t engine, struct fake_options *options))
{
    static const char *const TARGETS[] = {"engines.test:50051"};
    memset(world, 0, sizeof *world);
    pthread_mutex_init(&world->mutex, NULL);
    world->n_engines = n_engines;
    for (size_t i = 0; i < n_engines; i++) {
        struct fake_options options = {0};
        if (adjust)
            adjust(i, &options);
        assert_int_equal(fake_service_open(&options, &world->engines[i].fake).code, ERR_OK);
        world->engines[i].held_fd = port_hold(&world->engines[i].port);
        open_door(&world->engines[i]);
        world->is_named[i] = true;
    }
    world->model =
        (struct local_model_options){.name = "demo", .model = "fake", .targets = TARGETS, .n_targets = 1};
    struct local_fleet_options options = {.models = &world->model,
                                          .n_models = 1,
                                          .loads_interval_ms = 20,
                                          .resolve_interval_ns = 10000000,
                                          .clock = clock_monotonic(),
                                          .seed = 3,
                                          .resolve = resolve,
                                          .resolve_context = world};
    assert_int_equal(local_fleet_open(&options, &world->fleet).code, ERR_OK);
    wait_for_replicas(world, (uint32_t)n_engines, (uint32_t)n_engines);
}

void fleet_world_close(struct fleet_world *world)
{
    local_fleet_close(world->fleet);
    for (size_t i = 0; i < world->n_engines; i++) {
        if (world->engines[i].door)
            grpc_door_close(world->engines[i].door);
        (void)close(world->engines[i].held_fd);
        fake_service_close(world->engines[i].fake); /* asserts that no stream is left */
    }
    pthread_mutex_destroy(&world->mutex);
}

void engine_kill(struct fleet_world *world, size_t engine)
{
    grpc_door_close(world->engines[engine].door);
    world->engines[engine].door = NULL;
}

void engine_return(struct fleet_world *world, size_t engine)
{
    open_door(&world->engines[engine]);
}

void engine_name(struct fleet_world *world, size_t engine, bool is_named)
{
    pthread_mutex_lock(&world->mutex);
    world->is_named[engine] = is_named;
    pthread_mutex_unlock(&world->mutex);
}

void engines_stall_at(struct fleet_world *world, uint32_t position)
{
    for (size_t i = 0; i < world->n_engines; i++)
        fake_service_stall_at(world->engines[i].fake, position);
}

static bool has_replicas(struct fleet_world *world, uint32_t n_replicas, uint32_t n_up)
{
    struct local_view view;
    assert_true(local_fleet_view(world->fleet, 0, &view));
    return view.n_replicas == n_replicas && view.n_up == n_up;
}

void wait_for_replicas(struct fleet_world *world, uint32_t n_replicas, uint32_t n_up)
{
    WAIT_UNTIL(has_replicas(world, n_replicas, n_up));
}

uint32_t engine_live(struct fleet_world *world, size_t engine)
{
    return fake_service_counts(world->engines[engine].fake).live;
}

void wait_for_silence(struct fleet_world *world)
{
    for (size_t i = 0; i < world->n_engines; i++)
        WAIT_UNTIL(engine_live(world, i) == 0);
}

/* --- calls */

struct said *said_make(void)
{
    struct said *said = mem_alloc(sizeof *said);
    assert_non_null(said);
    pthread_mutex_init(&said->mutex, NULL);
    pthread_cond_init(&said->changed, NULL);
    return said;
}

void said_free(struct said *said)
{
    local_call_release(said->call);
    pthread_cond_destroy(&said->changed);
    pthread_mutex_destroy(&said->mutex);
    mem_free(said);
}

static bool on_event(void *context, const struct event *event)
{
    struct said *said = context;
    pthread_mutex_lock(&said->mutex);
    for (size_t i = 0; i < event->n_token_ids && said->n_tokens < SAID_TOKENS_MAX; i++)
        said->tokens[said->n_tokens++] = event->token_ids[i];
    if (said->text_bytes + event->text_bytes <= sizeof said->text)
        memcpy(said->text + said->text_bytes, event->text, event->text_bytes);
    said->text_bytes += event->text_bytes;
    said->n_events++;
    said->n_prompts += event->prompt_token_ids != NULL;
    if (event->kind == EVENT_FINISHED) {
        said->n_finished++;
        said->usage = event->usage;
    }
    said->is_paused = said->pause_after > 0 && said->n_tokens >= said->pause_after;
    bool goes_on = !said->is_paused;
    pthread_cond_broadcast(&said->changed);
    pthread_mutex_unlock(&said->mutex);
    return goes_on;
}

static void on_end(void *context, const struct local_result *result)
{
    struct said *said = context;
    pthread_mutex_lock(&said->mutex);
    said->n_ends++;
    said->result = *result;
    (void)snprintf(said->replica, sizeof said->replica, "%s", result->replica);
    (void)snprintf(said->fingerprint, sizeof said->fingerprint, "%s", result->fingerprint);
    (void)snprintf(said->message, sizeof said->message, "%s",
                   result->error.code == ERR_OK ? "" : result->error.message);
    pthread_cond_broadcast(&said->changed);
    pthread_mutex_unlock(&said->mutex);
}

err_t said_start(struct fleet_world *world, const struct request *request, struct said *said)
{
    static const struct local_handler HANDLER = {.event = on_event, .end = on_end};
    return local_call_start(world->fleet, 0, request, &HANDLER, said, &said->call);
}

static void wait_change(struct said *said)
{
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += WAIT_LIMIT_NS / 1000000000;
    if (pthread_cond_timedwait(&said->changed, &said->mutex, &limit) != 0)
        fail_msg("nothing came within a minute");
}

void said_wait_paused(struct said *said)
{
    pthread_mutex_lock(&said->mutex);
    while (!said->is_paused && said->n_ends == 0)
        wait_change(said);
    pthread_mutex_unlock(&said->mutex);
}

void said_wait_tokens(struct said *said, size_t n_tokens)
{
    pthread_mutex_lock(&said->mutex);
    while (said->n_tokens < n_tokens && said->n_ends == 0)
        wait_change(said);
    pthread_mutex_unlock(&said->mutex);
}

void said_wait_end(struct said *said)
{
    pthread_mutex_lock(&said->mutex);
    while (said->n_ends == 0)
        wait_change(said);
    pthread_mutex_unlock(&said->mutex);
}

void said_resume(struct said *said)
{
    pthread_mutex_lock(&said->mutex);
    said->pause_after = 0;
    said->is_paused = false;
    pthread_mutex_unlock(&said->mutex);
    local_call_resume(said->call);
}

struct request say(const char *text, uint32_t max_tokens)
{
    struct request request = {.prompt_kind = PROMPT_TEXT,
                              .text = text,
                              .text_bytes = strlen(text),
                              .deadline_ns = REQUEST_NO_DEADLINE};
    request.sampling.set = SAMPLING_MAX_TOKENS;
    request.sampling.max_tokens = max_tokens;
    return request;
}

void assert_said(const struct said *said, const char *text, uint32_t max_tokens)
{
    uint32_t prompt[256];
    size_t n_prompt = strlen(text), at = 0;
    char expected[sizeof said->text];
    for (size_t i = 0; i < n_prompt; i++)
        prompt[i] = (unsigned char)text[i];
    if (said->result.error.code != ERR_OK)
        fail_msg("%s", said->message);
    assert_int_equal(said->n_ends, 1);
    assert_int_equal(said->n_finished, 1);
    assert_int_equal(said->n_prompts, 1);
    assert_int_equal(said->n_tokens, max_tokens);
    uint64_t hash = fake_prompt_hash(prompt, n_prompt);
    for (uint32_t i = 0; i < max_tokens; i++) {
        assert_int_equal(said->tokens[i], fake_token(hash, 0, i));
        at += (size_t)snprintf(expected + at, sizeof expected - at, "%u ", said->tokens[i]);
    }
    assert_int_equal(said->text_bytes, at);
    assert_memory_equal(said->text, expected, at);
    assert_int_equal(said->usage.completion_tokens, max_tokens);
    assert_int_equal(said->usage.prompt_tokens, n_prompt);
}
