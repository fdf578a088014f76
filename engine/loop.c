/* The one loop: admit -> plan -> execute -> commit. */
#include "base/assert.h"
#include "base/log.h"
#include "engine/engine_state.h"

static const int64_t NS_PER_MS = 1000000;

static void active_insert(struct engine *engine, struct choice *choice)
{
    choice->active_prev = NULL;
    choice->active_next = engine->active;
    if (engine->active)
        engine->active->active_prev = choice;
    engine->active = choice;
}

static void active_remove(struct engine *engine, struct choice *choice)
{
    if (choice->active_prev)
        choice->active_prev->active_next = choice->active_next;
    else
        engine->active = choice->active_next;
    if (choice->active_next)
        choice->active_next->active_prev = choice->active_prev;
}

void engine_drop_stream(struct engine *engine, struct stream *stream)
{
    if (atomic_fetch_sub(&stream->references, 1) > 1)
        return;
    atomic_fetch_sub(&engine->n_streams, 1);
    engine->published = true; /* whoever waits for the last stream to go */
    struct stream *head = atomic_load(&engine->garbage);
    do
        stream->garbage_next = head;
    while (!atomic_compare_exchange_weak(&engine->garbage, &head, stream));
}

/* The scheduler has let go of the choice, or never had it. */
static void choice_released(struct engine *engine, struct choice *choice)
{
    struct stream *stream = choice->stream;
    if (choice->submitted)
        active_remove(engine, choice);
    choice->submitted = false;
    atomic_fetch_sub(&engine->n_choices_reserved, 1);
    engine->published = true; /* whoever waits for a place in the queue */
    if (--stream->n_unreleased > 0)
        return;
    atomic_fetch_add(&engine->counters.finished, 1);
    engine_drop_stream(engine, stream);
}

static void finish_early(struct engine *engine, struct choice *choice, enum finish_reason reason,
                         const err_t *error)
{
    if (choice->state == CHOICE_FINISHED)
        return;
    choice_finish(choice, reason, -1, error);
    engine->published = true;
    if (choice->submitted)
        sched_cancel(engine->sched, choice->handle);
}

static void admit_choice(struct engine *engine, struct choice *choice)
{
    struct stream *stream = choice->stream;
    if (choice->state == CHOICE_FINISHED) {
        /* Aborted by its id between its registration and its submission. */
        choice_released(engine, choice);
        return;
    }
    if (atomic_load(&engine->failed)) {
        finish_early(engine, choice, FINISH_ERROR, &engine->failure);
        choice_released(engine, choice);
        return;
    }
    struct sched_request request = {
        .id = (uint64_t)(uintptr_t)choice,
        .priority = stream->priority,
        .arrival_ns = stream->submitted_ns,
        .deadline_ns = stream->deadline_ns,
        .salt = stream->salt,
        .tokens = choice->tokens,
        .n_prompt = choice->n_prompt,
        .n_output = choice->n_output_prefix,
        .max_output = stream->sampling.max_tokens - choice->n_output_prefix,
        .skip_cache_read = choice->index == 0 && stream->prompt_logprobs,
    };
    err_t e = sched_submit(engine->sched, &request, &choice->handle);
    if (e.code != ERR_OK) {
        finish_early(engine, choice, FINISH_ERROR, &e);
        choice_released(engine, choice);
        return;
    }
    choice->submitted = true;
    choice->state = CHOICE_ACTIVE;
    active_insert(engine, choice);
}

static void run_command(struct engine *engine, const struct engine_command *command)
{
    if (command->kind == COMMAND_SUBMIT) {
        struct stream *stream = command->stream;
        atomic_fetch_add(&engine->counters.requests, 1);
        atomic_fetch_add(&engine->counters.prompt_tokens, stream->n_prompt);
        /* The last admission may drop the stream: its fields are read before. */
        uint32_t n = stream->n_choices;
        struct choice *choices = stream->choices;
        for (uint32_t i = 0; i < n; i++)
            admit_choice(engine, &choices[i]);
        return;
    }
    finish_early(engine, command->choice, FINISH_ABORT, NULL);
    engine_drop_stream(engine, command->choice->stream);
}

static bool run_commands(struct engine *engine)
{
    struct engine_command command;
    bool any = false;
    while (mpsc_ring_pop(engine->commands, &command)) {
        run_command(engine, &command);
        any = true;
    }
    return any;
}

/* A reader made room, or has taken nothing for too long. */
static void check_paused(struct engine *engine, struct choice *choice, int64_t now_ns)
{
    if (choice->stalled_since_ns < 0 || choice->state == CHOICE_FINISHED)
        return;
    if (spsc_ring_count(choice->ring) <= CHOICE_RING_TOKENS / 2) {
        choice->stalled_since_ns = -1;
        atomic_store(&choice->paused, false);
        sched_pause(engine->sched, choice->handle, false);
    } else if (now_ns - choice->stalled_since_ns > engine->options.stream_stall_timeout_ns) {
        err_t e = err_new(ERR_CANCELLED, "the reader took nothing for %lld ms",
                          (long long)(engine->options.stream_stall_timeout_ns / NS_PER_MS));
        metric_add(&engine->metrics.slow_reader_cuts[0], 1);
        finish_early(engine, choice, FINISH_ERROR, &e);
    }
}

static void scan_active(struct engine *engine, int64_t now_ns)
{
    engine->scanned_ns = now_ns;
    for (struct choice *choice = engine->active; choice; choice = choice->active_next) {
        if (choice->stream->deadline_ns <= now_ns && choice->state != CHOICE_FINISHED) {
            err_t e = err_new(ERR_DEADLINE_EXCEEDED, "the deadline passed after %u of %u tokens",
                              choice->n_output, choice->stream->sampling.max_tokens);
            finish_early(engine, choice, FINISH_ERROR, &e);
        }
        check_paused(engine, choice, now_ns);
    }
}

static void release_choices(struct engine *engine)
{
    uint64_t id;
    while (sched_pop_released(engine->sched, &id))
        choice_released(engine, (struct choice *)(uintptr_t)id);
}

static void finish_all(struct engine *engine, enum finish_reason reason, const err_t *error)
{
    for (struct choice *choice = engine->active; choice; choice = choice->active_next)
        finish_early(engine, choice, reason, error);
}

/* The executor is lost. What was accepted ends, nothing more is accepted, and the process stays, so that its
 * health and its log can be read until somebody restarts it. */
static void executor_lost(struct engine *engine, const err_t *cause)
{
    if (atomic_load(&engine->failed))
        return;
    engine->failure =
        err_new(ERR_UNAVAILABLE, "%s; nothing is served until this process is restarted", cause->message);
    atomic_store(&engine->failed, true);
    log_error("engine", "%s (%s:%d)", engine->failure.message, cause->file, cause->line);
    finish_all(engine, FINISH_ERROR, &engine->failure);
}

static struct flight *flight_at(struct engine *engine, uint32_t index)
{
    return &engine->flights[(engine->first_flight + index) % engine->sched_config.max_steps_in_flight];
}

/* Time inside the executor is the model's, the rest of a turn is the loop's own. */
static int64_t execution_begins(struct engine *engine)
{
    atomic_store(&engine->counters.step_running, true);
    return clock_now_ns(engine->clock);
}

static int64_t execution_ends(struct engine *engine, int64_t begin_ns)
{
    int64_t now_ns = clock_now_ns(engine->clock);
    atomic_store(&engine->counters.heartbeat_ns, now_ns);
    atomic_store(&engine->counters.step_running, false);
    atomic_fetch_add(&engine->counters.execute_ns, now_ns - begin_ns);
    return now_ns;
}

/* Plans and submits one more step; false when there is nothing to plan. */
static bool launch_step(struct engine *engine, int64_t now_ns)
{
    const struct sched_plan *plan = sched_plan(engine->sched, now_ns);
    if (plan->n_preempted)
        atomic_fetch_add(&engine->counters.preemptions, plan->n_preempted);
    for (uint32_t i = 0; i < plan->n_preempted; i++)
        atomic_fetch_add(&((struct choice *)(uintptr_t)plan->preempted_ids[i])->n_preemptions, 1);
    if (plan->n_seqs == 0)
        return false;
    struct flight *flight = flight_at(engine, engine->n_flights++);
    engine_build_step(engine, plan, flight);
    const struct executor *executor = &engine->executor;
    int64_t begin_ns = execution_begins(engine);
    err_t e = executor->vtable->forward(executor->context, flight->step);
    if (e.code == ERR_OK)
        e = executor->vtable->sample(executor->context, flight->step, NULL);
    execution_ends(engine, begin_ns);
    if (e.code != ERR_OK)
        executor_lost(engine, &e);
    return true;
}

static void land_step(struct engine *engine)
{
    struct flight *flight = flight_at(engine, 0);
    const struct executor *executor = &engine->executor;
    int64_t begin_ns = execution_begins(engine);
    err_t e = executor->vtable->collect(executor->context, flight->step);
    int64_t now_ns = execution_ends(engine, begin_ns);
    if (e.code != ERR_OK)
        executor_lost(engine, &e); /* its results are then nobody's */
    engine_publish_step(engine, flight, now_ns);
    engine->first_flight = (engine->first_flight + 1) % engine->sched_config.max_steps_in_flight;
    engine->n_flights--;
}

/* One turn; true when something was done. */
static bool loop_turn(struct engine *engine)
{
    int64_t begin_ns = clock_now_ns(engine->clock);
    atomic_store(&engine->counters.heartbeat_ns, begin_ns);
    if (engine->kv_hub)
        kv_hub_set_time(engine->kv_hub, begin_ns);
    bool worked = run_commands(engine);
    if (begin_ns - engine->scanned_ns >= LOOP_SCAN_INTERVAL_MS * NS_PER_MS)
        scan_active(engine, begin_ns);
    int64_t execute_begin_ns = atomic_load(&engine->counters.execute_ns);
    bool launched = false;
    bool has_room = engine->n_flights < engine->sched_config.max_steps_in_flight;
    if (has_room && !atomic_load(&engine->failed) && sched_has_work(engine->sched))
        launched = launch_step(engine, begin_ns);
    bool full = engine->n_flights == engine->sched_config.max_steps_in_flight;
    if (engine->n_flights > 0 && (full || !launched)) {
        land_step(engine);
        worked = true;
    }
    release_choices(engine);
    if (engine->kv_hub && kv_hub_flush(engine->kv_hub))
        engine->published = true;
    engine_count_state(engine);
    if (engine->published) {
        engine->published = false;
        event_count_bump(&engine->progress);
    }
    if (launched) {
        int64_t executed_ns = atomic_load(&engine->counters.execute_ns) - execute_begin_ns;
        engine_count_turn(engine, clock_now_ns(engine->clock) - begin_ns, executed_ns);
    }
    return worked || launched;
}

void engine_abort_all(struct engine *engine)
{
    run_commands(engine);
    finish_all(engine, FINISH_ABORT, NULL);
    while (engine->n_flights > 0)
        land_step(engine);
    release_choices(engine);
    event_count_bump(&engine->progress);
}

/* Nobody came for a while: what was put off until then is done piece by piece, until somebody does. */
static void wait_for_work(struct engine *engine, uint32_t seen)
{
    const struct executor *executor = &engine->executor;
    int64_t wait_ns = engine->is_tending ? 0 : LOOP_IDLE_WAIT_MS * NS_PER_MS;
    bool is_woken = event_count_wait(&engine->wake, seen, wait_ns);
    bool may_tend = !is_woken && executor->vtable->tend && !atomic_load(&engine->failed);
    engine->is_tending = may_tend && executor->vtable->tend(executor->context);
}

void *engine_loop_main(void *argument)
{
    struct engine *engine = argument;
    for (;;) {
        uint32_t seen = event_count_read(&engine->wake);
        if (atomic_load(&engine->stopping))
            break;
        if (atomic_load(&engine->parked)) {
            event_count_wait(&engine->wake, seen, LOOP_IDLE_WAIT_MS * NS_PER_MS);
            continue;
        }
        if (!loop_turn(engine)) {
            wait_for_work(engine, seen);
            engine->scanned_ns = 0; /* whoever woke the loop may have made room */
        }
    }
    engine_abort_all(engine);
    return NULL;
}
