/* Picking among replicas: cases by hand, what a report counts, what a prefix memory keeps, and a cluster
 * simulated in virtual time whose reports are old. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/hash.h"
#include "router/local/prefix_memory.h"
#include "router/local/replica_pick.h"

#define MS INT64_C(1000000)

static struct replica_state idle(void)
{
    return (struct replica_state){
        .can_take = true,
        .has_loads = true,
        .token_ns = 100000,
        .request_ns = 1000 * MS,
        .loads = {.max_num_seqs = 4, .kv_blocks_total = 100, .kv_block_tokens = 16, .tokens_per_s = 1000}};
}

static size_t pick(const struct replica_state *replicas, size_t n, uint32_t prompt_tokens)
{
    struct rng rng = rng_make(1);
    return replica_pick(replicas, n, prompt_tokens, &rng);
}

static void what_makes_a_first_token_late(void **state)
{
    (void)state;
    struct replica_state replica = idle();
    assert_int_equal(replica_predict_ns(&replica, 100), 10 * MS);
    replica.warm_tokens = 64;
    assert_int_equal(replica_predict_ns(&replica, 100), 3600000);
    replica.warm_tokens = 500; /* the last token is computed always */
    assert_int_equal(replica_predict_ns(&replica, 100), 100000);
    replica = idle();
    replica.sent_tokens = 50;
    assert_int_equal(replica_predict_ns(&replica, 100), 15 * MS);
    replica = idle();
    replica.loads.predicted_ttft_ns = 30 * MS; /* of which 10 are a request's own, at the mean length */
    replica.loads.requests_total = 2;
    replica.loads.prompt_tokens_total = 300;
    replica.loads.prefix_hit_tokens = 100;
    assert_int_equal(replica_predict_ns(&replica, 100), 30 * MS);
    assert_int_equal(replica_predict_ns(&replica, 200), 40 * MS);
    replica = idle();
    replica.loads.requests_running = 4; /* no seat: a fourth of a request's time */
    assert_int_equal(replica_predict_ns(&replica, 100), 260 * MS);
    replica.sent_requests = 2;
    assert_int_equal(replica_predict_ns(&replica, 100), 760 * MS);
    replica.ended_requests = 3;
    assert_int_equal(replica_predict_ns(&replica, 100), 10 * MS);
    replica.ended_requests = 100;
    assert_int_equal(replica_predict_ns(&replica, 100), 10 * MS);
    replica = idle();
    replica.loads.kv_blocks_used = 99; /* 84 tokens are missing, at 1000 a second */
    assert_int_equal(replica_predict_ns(&replica, 100), 94 * MS);
    replica = idle();
    replica.loads.predicted_ttft_ns = -1;
    assert_int_equal(replica_predict_ns(&replica, 100), -1);
    replica.has_loads = false;
    assert_int_equal(replica_predict_ns(&replica, 100), -1);
    replica = idle();
    replica.sent_tokens = UINT64_MAX;
    replica.loads.requests_waiting = UINT32_MAX;
    replica.loads.predicted_ttft_ns = INT64_MAX / 8;
    assert_true(replica_predict_ns(&replica, UINT32_MAX) > 0);
}

static void the_soonest_is_picked(void **state)
{
    (void)state;
    struct replica_state replicas[4] = {idle(), idle(), idle(), idle()};
    replicas[0].can_take = replicas[1].can_take = false;
    replicas[2].sent_tokens = 100;
    assert_int_equal(pick(replicas, 4, 100), 3);
    assert_int_equal(pick(replicas, 2, 100), 2); /* nobody */
    assert_int_equal(pick(replicas, 0, 100), 0);
    replicas[0].can_take = true;
    replicas[0].warm_tokens = 90;
    assert_int_equal(pick(replicas, 4, 100), 0);
    replicas[0].sent_tokens = 500; /* warm, but not worth the wait */
    assert_int_equal(pick(replicas, 4, 100), 3);
    replicas[3].has_loads = false; /* nothing told, nothing against it */
    assert_int_equal(pick(replicas, 4, 100), 3);
}

static void equals_share(void **state)
{
    (void)state;
    struct rng rng = rng_make(5);
    struct replica_state replicas[4] = {idle(), idle(), idle(), idle()};
    uint32_t counts[4] = {0};
    for (int i = 0; i < 4000; i++)
        counts[replica_pick(replicas, 4, 100, &rng)]++;
    for (int i = 0; i < 4; i++)
        assert_true(counts[i] > 850 && counts[i] < 1150);
    replicas[1].n_under_way = 9; /* the loser of every pair */
    memset(counts, 0, sizeof counts);
    for (int i = 0; i < 1000; i++)
        counts[replica_pick(replicas, 4, 100, &rng)]++;
    assert_int_equal(counts[1], 0);
}

/* --- what a report counts */

static void a_report_counts_what_had_come(void **state)
{
    (void)state;
    struct replica_state replica = {0};
    struct sent_request sent[6];
    struct loads loads = {.requests_total = 100, .steps_total = 5};
    for (int i = 0; i < 2; i++)
        replica_state_sent(&replica, 10, &sent[i]);
    assert_false(replica_state_report(&replica, &loads)); /* the first: what was before nobody knows */
    assert_true(replica.sent_requests == 0 && replica.sent_tokens == 0 && replica.n_under_way == 2);
    for (int i = 2; i < 6; i++)
        replica_state_sent(&replica, 20, &sent[i]);
    loads.requests_total = 101; /* three are under way to it */
    assert_false(replica_state_report(&replica, &loads));
    assert_int_equal(replica.sent_requests, 3);
    assert_int_equal(replica.sent_tokens, 16 * 3); /* the mean of all that wait: 100 of 6 */
    replica_state_heard(&replica, &sent[3]);
    replica_state_heard(&replica, &sent[3]);
    assert_true(replica.sent_requests == 3 && replica.sent_tokens == 28 && replica.n_waiting == 5);
    replica_state_ended(&replica, &sent[0]); /* which it counts: a place came free */
    replica_state_ended(&replica, &sent[4]);
    assert_true(replica.sent_requests == 2 && replica.ended_requests == 1 && replica.n_under_way == 4);
    /* It says nothing new, but the fifth was heard: it and what was sent before had come. */
    assert_false(replica_state_report(&replica, &loads));
    assert_true(replica.sent_requests == 1 && replica.ended_requests == 0);
    loads.requests_total = 200; /* others send to it too */
    assert_false(replica_state_report(&replica, &loads));
    assert_int_equal(replica.sent_requests, 0);
    for (int i = 1; i < 6; i++)
        if (i != 4)
            replica_state_ended(&replica, &sent[i]);
    assert_true(replica.n_under_way == 0 && replica.n_waiting == 0 && replica.waiting_tokens == 0);
    assert_int_equal(replica.ended_requests, 4);
    replica_state_sent(&replica, 1, &sent[0]);
    loads.requests_total = 3;
    assert_true(replica_state_report(&replica, &loads)); /* another process */
    assert_int_equal(replica.sent_requests, 0);
    loads.steps_total = 4;
    assert_true(replica_state_report(&replica, &loads));
}

/* --- what was sent where */

static struct request ids_request(const uint32_t *ids, size_t n)
{
    return (struct request){.prompt_kind = PROMPT_TOKEN_IDS, .token_ids = ids, .n_token_ids = n};
}

static void chains_have_what_they_share(void **state)
{
    (void)state;
    static char text[PREFIX_CHUNK_BYTES * (PREFIX_CHUNKS_MAX + 2)];
    struct prefix_chain a, b;
    memset(text, 'x', sizeof text);
    struct request request = {
        .prompt_kind = PROMPT_TEXT, .text = text, .text_bytes = 3 * PREFIX_CHUNK_BYTES + 5};
    prefix_chain_make(&request, &a);
    assert_int_equal(a.n, 3);
    assert_int_equal(a.prompt_tokens, 3 * 64 + 2);
    assert_true(a.hash[0] != a.hash[1] && a.hash[1] != a.hash[2]);
    text[2 * PREFIX_CHUNK_BYTES] = 'y';
    prefix_chain_make(&request, &b);
    assert_memory_equal(a.hash, b.hash, 2 * sizeof *a.hash);
    assert_true(a.hash[2] != b.hash[2]);
    request.text_bytes = sizeof text;
    prefix_chain_make(&request, &b);
    assert_int_equal(b.n, PREFIX_CHUNKS_MAX);
    struct chat_message messages[2] = {{"user", text, 300}, {"assistant", text, 300}};
    struct request chat = {.prompt_kind = PROMPT_MESSAGES, .messages = messages, .n_messages = 1};
    prefix_chain_make(&chat, &a);
    chat.n_messages = 2;
    prefix_chain_make(&chat, &b);
    assert_int_equal(a.n, 1);
    assert_int_equal(b.n, 2);
    assert_int_equal(a.hash[0], b.hash[0]);
    messages[0].role = "system";
    prefix_chain_make(&chat, &a);
    assert_true(a.hash[0] != b.hash[0]);
    uint32_t ids[130] = {1, 2, 3};
    request = ids_request(ids, 130);
    prefix_chain_make(&request, &a);
    assert_int_equal(a.n, 2);
    assert_int_equal(a.prompt_tokens, 130);
}

static struct prefix_chain made_chain(uint64_t name, uint32_t n)
{
    struct prefix_chain chain = {.n = n};
    for (uint32_t i = 0; i < n; i++)
        chain.hash[i] = hash64(&i, sizeof i, name);
    return chain;
}

static void a_memory_keeps_the_latest(void **state)
{
    (void)state;
    struct prefix_memory *memory;
    uint16_t warm[PREFIX_REPLICAS_MAX];
    assert_int_equal(prefix_memory_open(8, &memory).code, ERR_OK);
    struct prefix_chain a = made_chain(1, 4), b = made_chain(2, 4), c = made_chain(3, 3);
    prefix_memory_note(memory, &a, 0);
    prefix_memory_note(memory, &a, 63);
    prefix_memory_note(memory, &b, 1);
    prefix_memory_find(memory, &a, warm);
    assert_true(warm[0] == 4 && warm[63] == 4 && warm[1] == 0);
    prefix_memory_note(memory, &c, 2); /* three places: the ends of a go */
    assert_int_equal(prefix_memory_count(memory), 8);
    prefix_memory_find(memory, &a, warm);
    assert_true(warm[0] == 1 && warm[63] == 1);
    prefix_memory_find(memory, &b, warm);
    assert_true(warm[1] == 4);
    prefix_memory_forget(memory, 1);
    prefix_memory_find(memory, &b, warm);
    assert_true(warm[1] == 0);
    prefix_memory_close(memory);
}

/* Against sets that are searched through, on random chains of few names. */
static void a_memory_is_what_was_noted(void **state)
{
    (void)state;
    enum { NAMES = 40, SLOTS = 5, ROUNDS = 20000 };
    struct rng rng = rng_make(11);
    struct prefix_memory *memory;
    bool noted[NAMES][SLOTS] = {{false}};
    assert_int_equal(prefix_memory_open(NAMES, &memory).code, ERR_OK); /* nothing has to go */
    for (int round = 0; round < ROUNDS; round++) {
        struct prefix_chain chain = {.n = rng_below(&rng, 6)};
        uint16_t warm[PREFIX_REPLICAS_MAX];
        for (uint32_t i = 0; i < chain.n; i++)
            chain.hash[i] = rng_below(&rng, NAMES);
        uint32_t slot = rng_below(&rng, SLOTS), kind = rng_below(&rng, 100);
        prefix_memory_find(memory, &chain, warm);
        for (uint32_t s = 0; s < SLOTS; s++) {
            uint32_t expected = 0;
            while (expected < chain.n && noted[chain.hash[expected]][s])
                expected++;
            assert_int_equal(warm[s], expected);
        }
        if (kind < 30)
            prefix_memory_note(memory, &chain, slot);
        else if (kind == 30)
            prefix_memory_forget(memory, slot);
        for (uint32_t i = 0; kind < 30 && i < chain.n; i++)
            noted[chain.hash[i]][slot] = true;
        for (uint32_t i = 0; kind == 30 && i < NAMES; i++)
            noted[i][slot] = false;
    }
    prefix_memory_close(memory);
}

/* --- a cluster in virtual time */

enum {
    REPLICAS = 8,
    SHARED = 40, /* prefixes, of which a replica's cache holds CACHED */
    CACHED = 10,
    SHARED_TOKENS = 512,
    OWN_TOKENS = 64,
    REQUESTS = 6000,
    REPORT_MS = 100,
};

enum way { OURS, AT_RANDOM, BY_REPORTS_ALONE };

struct machine {
    int64_t free_ns;                  /* when all that was sent is computed */
    uint32_t cached[CACHED];          /* shared prefixes, the latest first; SHARED = none */
    int64_t first_token_ns[REQUESTS]; /* of its requests, ascending */
    struct sent_request sent[REQUESTS];
    uint32_t n_sent, n_started;
    uint32_t in_window;
    uint64_t n_tokens_total, n_hit_tokens;
};

struct cluster {
    struct machine machines[REPLICAS];
    struct replica_state states[REPLICAS];
    struct prefix_memory *memory;
    struct rng rng;
    uint64_t trace;
    uint32_t n_hits, window_share_max; /* requests that one replica got between two reports, at most */
    uint32_t window_requests_max;
    int64_t ttft_sum_ns;
};

static bool cache_has(struct machine *machine, uint32_t name)
{
    uint32_t at = 0;
    while (at < CACHED && machine->cached[at] != name)
        at++;
    bool hit = at < CACHED;
    memmove(machine->cached + 1, machine->cached, (hit ? at : CACHED - 1) * sizeof *machine->cached);
    machine->cached[0] = name;
    return hit;
}

static void report(struct cluster *cluster, int64_t now_ns)
{
    uint32_t in_window = 0;
    for (int i = 0; i < REPLICAS; i++) {
        struct machine *machine = &cluster->machines[i];
        struct replica_state *state = &cluster->states[i];
        int64_t busy_ns = machine->free_ns > now_ns ? machine->free_ns - now_ns : 0;
        uint64_t cold = machine->n_tokens_total - machine->n_hit_tokens;
        int64_t mean_ns = machine->n_sent ? (int64_t)(cold / machine->n_sent) * PICK_TOKEN_NS_GUESS : 0;
        struct loads loads = {.predicted_ttft_ns = busy_ns + mean_ns,
                              .requests_total = machine->n_sent,
                              .prompt_tokens_total = machine->n_tokens_total,
                              .prefix_hit_tokens = machine->n_hit_tokens};
        replica_state_report(state, &loads);
        in_window += machine->in_window;
        if (machine->in_window > cluster->window_share_max)
            cluster->window_share_max = machine->in_window;
        machine->in_window = 0;
    }
    if (in_window > cluster->window_requests_max)
        cluster->window_requests_max = in_window;
}

/* First tokens that came until now: what waits there no longer counts as sent. */
static void hear(struct cluster *cluster, int64_t now_ns)
{
    for (int i = 0; i < REPLICAS; i++) {
        struct machine *machine = &cluster->machines[i];
        while (machine->n_started < machine->n_sent && machine->first_token_ns[machine->n_started] <= now_ns)
            replica_state_ended(&cluster->states[i], &machine->sent[machine->n_started++]);
    }
}

static size_t choose(struct cluster *cluster, enum way way, const struct prefix_chain *chain)
{
    if (way == AT_RANDOM)
        return rng_below(&cluster->rng, REPLICAS);
    if (way == OURS) {
        uint16_t warm[PREFIX_REPLICAS_MAX];
        prefix_memory_find(cluster->memory, chain, warm);
        for (int i = 0; i < REPLICAS; i++)
            cluster->states[i].warm_tokens = (uint32_t)warm[i] * PREFIX_CHUNK_TOKENS;
        return replica_pick(cluster->states, REPLICAS, chain->prompt_tokens, &cluster->rng);
    }
    size_t best = 0;
    for (size_t i = 1; i < REPLICAS; i++)
        if (cluster->states[i].loads.predicted_ttft_ns < cluster->states[best].loads.predicted_ttft_ns)
            best = i;
    return best;
}

static void send(struct cluster *cluster, size_t at, uint32_t name, const struct prefix_chain *chain,
                 int64_t now_ns)
{
    struct machine *machine = &cluster->machines[at];
    struct replica_state *state = &cluster->states[at];
    bool hit = cache_has(machine, name);
    uint32_t tokens = hit ? OWN_TOKENS : OWN_TOKENS + SHARED_TOKENS;
    uint64_t believed =
        chain->prompt_tokens > state->warm_tokens ? chain->prompt_tokens - state->warm_tokens : 1;
    int64_t begin_ns = machine->free_ns > now_ns ? machine->free_ns : now_ns;
    machine->free_ns = begin_ns + tokens * PICK_TOKEN_NS_GUESS;
    machine->first_token_ns[machine->n_sent] = machine->free_ns;
    replica_state_sent(state, believed, &machine->sent[machine->n_sent++]);
    machine->in_window++;
    machine->n_tokens_total += OWN_TOKENS + SHARED_TOKENS;
    machine->n_hit_tokens += hit ? SHARED_TOKENS : 0;
    prefix_memory_note(cluster->memory, chain, (uint32_t)at);
    cluster->n_hits += hit;
    cluster->ttft_sum_ns += machine->free_ns - now_ns;
    cluster->trace = hash64(&at, sizeof at, cluster->trace);
}

/* shared: how many prefixes there are; every request has one of them. */
static struct cluster *simulate(enum way way, uint32_t shared, uint32_t per_second, uint64_t seed)
{
    struct cluster *cluster = calloc(1, sizeof *cluster);
    assert_non_null(cluster);
    cluster->rng = rng_make(seed);
    assert_int_equal(prefix_memory_open(1024, &cluster->memory).code, ERR_OK);
    for (int i = 0; i < REPLICAS; i++) {
        cluster->states[i] = (struct replica_state){.can_take = true, .has_loads = true};
        for (int k = 0; k < CACHED; k++)
            cluster->machines[i].cached[k] = UINT32_MAX;
    }
    struct rng arrivals = rng_make(99); /* the same for every way and seed */
    uint32_t *ids = calloc(SHARED_TOKENS + OWN_TOKENS, sizeof *ids);
    int64_t now_ns = 0, next_report_ns = 0;
    for (uint32_t r = 0; r < REQUESTS; r++) {
        now_ns += (int64_t)rng_below(&arrivals, 2000000000 / per_second);
        uint32_t name = rng_below(&arrivals, shared);
        for (; next_report_ns <= now_ns; next_report_ns += REPORT_MS * MS) {
            hear(cluster, next_report_ns);
            report(cluster, next_report_ns);
        }
        hear(cluster, now_ns);
        for (uint32_t k = 0; k < SHARED_TOKENS + OWN_TOKENS; k++)
            ids[k] = k < SHARED_TOKENS ? name : r + k;
        struct request request = ids_request(ids, SHARED_TOKENS + OWN_TOKENS);
        struct prefix_chain chain;
        prefix_chain_make(&request, &chain);
        send(cluster, choose(cluster, way, &chain), name, &chain, now_ns);
    }
    free(ids);
    prefix_memory_close(cluster->memory);
    return cluster;
}

static void prefixes_stay_where_they_are_warm(void **state)
{
    (void)state;
    struct cluster *ours = simulate(OURS, SHARED, 120, 1), *random = simulate(AT_RANDOM, SHARED, 120, 1);
    assert_true(random->n_hits < REQUESTS * 35 / 100);
    assert_true(ours->n_hits > REQUESTS * 90 / 100);
    assert_true(ours->ttft_sum_ns < random->ttft_sum_ns / 4);
    uint32_t most = 0;
    for (int i = 0; i < REPLICAS; i++)
        most = ours->machines[i].n_sent > most ? ours->machines[i].n_sent : most;
    assert_true(most < REQUESTS * 3 / REPLICAS); /* nobody has all the warm ones */
    free(ours);
    free(random);
}

/* One prefix for all: where it is warm is the best place until it is not worth the wait. */
static void one_prefix_spreads_under_load(void **state)
{
    (void)state;
    struct cluster *ours = simulate(OURS, 1, 1000, 1);
    for (int i = 0; i < REPLICAS; i++)
        assert_true(ours->machines[i].n_sent > REQUESTS / REPLICAS / 2);
    assert_true(ours->n_hits >= REQUESTS - REPLICAS);
    free(ours);
}

/* Every prompt another: only queues matter, and the reports are 100 ms old. */
static void old_reports_do_not_herd(void **state)
{
    (void)state;
    struct cluster *ours = simulate(OURS, 1000000, 110, 1),
                   *herd = simulate(BY_REPORTS_ALONE, 1000000, 110, 1);
    assert_true(herd->window_share_max * 10 >= herd->window_requests_max * 9); /* all of a window to one */
    assert_true(ours->window_share_max * 2 <= herd->window_share_max);
    assert_true(ours->window_share_max <= 6); /* of about 11 */
    assert_true(ours->ttft_sum_ns < herd->ttft_sum_ns / 2);
    free(ours);
    free(herd);
}

/* A thousand requests in 30 ms to replicas that report every 5 ms one after another, one of which takes 15 ms
 * to take a request in: it has fewer running for that, and must not look emptier than the others. */
static void what_is_on_its_way_counts(void **state)
{
    (void)state;
    enum { THREE = 3, BURST = 1000, INTERVAL_US = 5000, GAP_US = 30 };
    static const int WAY_US[THREE] = {15000, 1000, 1000}; /* with the report's own */
    struct replica_state replicas[THREE] = {idle(), idle(), idle()};
    static struct sent_request sent[BURST];
    static int sent_us[THREE][BURST];
    uint32_t n_sent[THREE] = {0};
    for (int i = 0; i < THREE; i++)
        replicas[i].loads.max_num_seqs = 256;
    struct rng rng = rng_make(3);
    for (int r = 0; r < BURST; r++) {
        int now_us = r * GAP_US;
        for (int i = 0; i < THREE; i++) {
            int since_us = (now_us + i * INTERVAL_US / THREE) % INTERVAL_US;
            if (since_us >= GAP_US)
                continue;
            struct loads loads = {.max_num_seqs =
                                      256}; /* made one way ago, of what had been sent two ways ago */
            for (uint32_t k = 0; k < n_sent[i]; k++)
                loads.requests_total += sent_us[i][k] <= now_us - WAY_US[i];
            loads.requests_running = (uint32_t)loads.requests_total;
            replica_state_report(&replicas[i], &loads);
        }
        size_t at = replica_pick(replicas, THREE, 2, &rng);
        replica_state_sent(&replicas[at], 1, &sent[r]);
        sent_us[at][n_sent[at]++] = now_us;
    }
    for (int i = 0; i < THREE; i++)
        assert_in_range(n_sent[i], BURST / THREE - 15, BURST / THREE + 15);
}

static void the_same_seed_picks_the_same(void **state)
{
    (void)state;
    struct cluster *a = simulate(OURS, SHARED, 120, 7), *b = simulate(OURS, SHARED, 120, 7),
                   *c = simulate(OURS, SHARED, 120, 8);
    assert_true(a->trace == b->trace && a->n_hits == b->n_hits && a->ttft_sum_ns == b->ttft_sum_ns);
    assert_true(a->trace != c->trace);
    free(a);
    free(b);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_makes_a_first_token_late),
        cmocka_unit_test(the_soonest_is_picked),
        cmocka_unit_test(equals_share),
        cmocka_unit_test(a_report_counts_what_had_come),
        cmocka_unit_test(chains_have_what_they_share),
        cmocka_unit_test(a_memory_keeps_the_latest),
        cmocka_unit_test(a_memory_is_what_was_noted),
        cmocka_unit_test(prefixes_stay_where_they_are_warm),
        cmocka_unit_test(one_prefix_spreads_under_load),
        cmocka_unit_test(old_reports_do_not_herd),
        cmocka_unit_test(what_is_on_its_way_counts),
        cmocka_unit_test(the_same_seed_picks_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
