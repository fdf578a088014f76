/* sched_bench [sequences] [steps]: what a plan and a commit cost, in microseconds a step (median and 99th
 * percentile), with everything decoding and with requests coming and going. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "scheduler/scheduler.h"

enum { TOKENS_MAX = 4096, STEPS_MAX = 3500, WARM_UP_STEPS = 300 };

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

struct bench {
    struct sched *sched;
    uint32_t n_seqs;
    uint32_t *tokens; /* [n_requests][TOKENS_MAX] */
    struct sched_result *results;
    uint64_t n_submitted;
    uint32_t n_steps;
    double plan_us[STEPS_MAX + WARM_UP_STEPS], commit_us[STEPS_MAX + WARM_UP_STEPS];
};

static void submit(struct bench *bench, uint32_t index, uint32_t n_prompt, uint32_t max_output)
{
    uint32_t *tokens = &bench->tokens[(size_t)index * TOKENS_MAX];
    for (uint32_t i = 0; i < n_prompt; i++)
        tokens[i] = i < n_prompt / 2 ? i : (uint32_t)bench->n_submitted * 977 + i;
    struct sched_request request = {
        .id = index, .tokens = tokens, .n_prompt = n_prompt, .max_output = max_output};
    request.arrival_ns = (int64_t)bench->n_submitted++;
    uint32_t handle;
    err_t e = sched_submit(bench->sched, &request, &handle);
    ASSERT(e.code == ERR_OK);
}

static void step(struct bench *bench, uint32_t token)
{
    double start = now_us();
    const struct sched_plan *plan = sched_plan(bench->sched, 0);
    double planned = now_us();
    uint32_t n_results = 0;
    for (uint32_t i = 0; i < plan->n_seqs; i++) {
        if (plan->seqs[i].samples)
            bench->results[n_results++] =
                (struct sched_result){plan->seqs[i].handle, plan->seqs[i].generation, 1, &token, false};
    }
    double drawn = now_us();
    sched_commit(bench->sched, plan->step_id, bench->results, n_results);
    double committed = now_us();
    bench->plan_us[bench->n_steps] = planned - start;
    bench->commit_us[bench->n_steps++] = committed - drawn;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *what, double *times_us, uint32_t n)
{
    qsort(times_us, n, sizeof *times_us, compare);
    printf("  %s: median %.2f us, p99 %.2f us\n", what, times_us[n / 2], times_us[n / 100 * 99]);
}

static void run(uint32_t n_seqs, uint32_t n_steps, uint32_t n_prompt, uint32_t max_output, const char *what)
{
    struct sched_config config = {
        .token_budget = 2048,
        .max_seqs = n_seqs,
        .max_requests = 2 * n_seqs,
        .block_tokens = 16,
        .n_blocks = n_seqs * (TOKENS_MAX / 16),
        .max_model_len = TOKENS_MAX,
        .max_steps_in_flight = 1,
        .prefix_cache = true,
        .hash_key = {1, 2},
    };
    static struct bench bench;
    bench = (struct bench){.n_seqs = n_seqs};
    err_t e = sched_create(&config, &bench.sched);
    bench.tokens = mem_alloc_array((size_t)config.max_requests * TOKENS_MAX, sizeof *bench.tokens);
    bench.results = mem_alloc_array(n_seqs, sizeof *bench.results);
    ASSERT(e.code == ERR_OK && bench.tokens != NULL && bench.results != NULL);
    for (uint32_t i = 0; i < config.max_requests; i++)
        submit(&bench, i, n_prompt, max_output);
    uint64_t n_allocations = mem_alloc_count(), n_running = 0;
    struct sched_stats stats;
    for (uint32_t i = 0; i < n_steps + WARM_UP_STEPS; i++) {
        step(&bench, i);
        uint64_t id;
        while (sched_pop_released(bench.sched, &id))
            submit(&bench, (uint32_t)id, n_prompt, max_output);
        sched_get_stats(bench.sched, &stats);
        n_running += i < WARM_UP_STEPS ? 0 : stats.n_running;
    }
    printf("%s: %.1f running of %u, %.1f rows a step, %llu allocations, %llu preempted\n", what,
           (double)n_running / n_steps, n_seqs, (double)stats.rows / (double)stats.steps,
           (unsigned long long)(mem_alloc_count() - n_allocations), (unsigned long long)stats.preemptions);
    print_times("plan", &bench.plan_us[WARM_UP_STEPS], n_steps);
    print_times("commit", &bench.commit_us[WARM_UP_STEPS], n_steps);
    sched_destroy(bench.sched);
    mem_free(bench.tokens);
    mem_free(bench.results);
}

int main(int argc, char **argv)
{
    uint32_t n_seqs = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 64;
    uint32_t n_steps = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 3000;
    if (n_seqs == 0 || n_seqs > 1024 || n_steps < 100 || n_steps > STEPS_MAX) {
        fprintf(stderr, "usage: sched_bench [sequences 1..1024] [steps 100..3500]\n");
        return 2;
    }
    run(n_seqs, n_steps, 128, TOKENS_MAX - 128, "decode only");
    run(n_seqs, n_steps, 1024, 64, "prompts of 1024, outputs of 64, half of the prompt shared");
    return 0;
}
