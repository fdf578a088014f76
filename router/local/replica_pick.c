#include "router/local/replica_pick.h"

#include "base/assert.h"

enum { PICK_MAX = 64 };

/* Nothing here is an exact number: what would overflow is forever. */
static int64_t times(uint64_t count, int64_t each_ns)
{
    int64_t product;
    return __builtin_mul_overflow(count, each_ns, &product) || product < 0 ? INT64_MAX / 8 : product;
}

static int64_t token_ns(const struct replica_state *replica)
{
    return replica->token_ns > 0 ? replica->token_ns : PICK_TOKEN_NS_GUESS;
}

/* What the queue takes, without the request itself: a server tells of one of the mean length, less what its
 * cache has given so far. */
static int64_t queue_ns(const struct replica_state *replica)
{
    const struct loads *loads = &replica->loads;
    int64_t told_ns = loads->predicted_ttft_ns > 0 ? loads->predicted_ttft_ns : 0;
    uint64_t cold = loads->prompt_tokens_total > loads->prefix_hit_tokens
                        ? loads->prompt_tokens_total - loads->prefix_hit_tokens
                        : 0;
    uint64_t mean = loads->requests_total > 0 ? cold / loads->requests_total : 0;
    int64_t own_ns = times(mean, token_ns(replica));
    return told_ns > own_ns ? told_ns - own_ns : 0;
}

/* Places among the running ones come free one by one. */
static int64_t seats_ns(const struct replica_state *replica)
{
    const struct loads *loads = &replica->loads;
    uint64_t there = (uint64_t)loads->requests_running + loads->requests_waiting;
    there -= replica->ended_requests < there ? replica->ended_requests : there;
    uint64_t wanted = there + replica->sent_requests + 1;
    if (loads->max_num_seqs == 0 || wanted <= loads->max_num_seqs)
        return 0;
    int64_t each_ns = replica->request_ns > 0 ? replica->request_ns : PICK_REQUEST_NS_GUESS;
    return times(wanted - loads->max_num_seqs, each_ns / loads->max_num_seqs);
}

/* Blocks come free about as fast as tokens are generated. */
static int64_t blocks_ns(const struct replica_state *replica, uint64_t cold_tokens)
{
    const struct loads *loads = &replica->loads;
    if (loads->kv_blocks_total == 0 || loads->kv_block_tokens == 0 || !(loads->tokens_per_s > 0))
        return 0;
    uint64_t used =
        loads->kv_blocks_used < loads->kv_blocks_total ? loads->kv_blocks_used : loads->kv_blocks_total;
    uint64_t free_tokens = (loads->kv_blocks_total - used) * loads->kv_block_tokens,
             wanted = cold_tokens + replica->sent_tokens;
    if (wanted <= free_tokens)
        return 0;
    double wait_s = (double)(wanted - free_tokens) / loads->tokens_per_s;
    return wait_s < 1e6 ? (int64_t)(wait_s * 1e9) : INT64_MAX / 8;
}

static int64_t expected_ns(const struct replica_state *replica, uint32_t prompt_tokens)
{
    uint64_t cold = prompt_tokens > replica->warm_tokens ? prompt_tokens - replica->warm_tokens : 1;
    int64_t ns = times(cold, token_ns(replica)) + times(replica->sent_tokens, token_ns(replica));
    return replica->has_loads ? ns + queue_ns(replica) + seats_ns(replica) + blocks_ns(replica, cold) : ns;
}

int64_t replica_predict_ns(const struct replica_state *replica, uint32_t prompt_tokens)
{
    bool is_known = replica->has_loads && replica->loads.predicted_ttft_ns >= 0;
    return is_known ? expected_ns(replica, prompt_tokens) : -1;
}

size_t replica_pick(const struct replica_state *replicas, size_t n, uint32_t prompt_tokens, struct rng *rng)
{
    ASSERT(n <= PICK_MAX);
    int64_t expected[PICK_MAX], best = INT64_MAX;
    for (size_t i = 0; i < n; i++) {
        expected[i] = replicas[i].can_take ? expected_ns(&replicas[i], prompt_tokens) : INT64_MAX;
        best = expected[i] < best ? expected[i] : best;
    }
    if (best == INT64_MAX)
        return n;
    uint8_t equals[PICK_MAX];
    uint32_t n_equals = 0;
    int64_t margin = best / 8 > PICK_EQUAL_NS ? best / 8 : PICK_EQUAL_NS;
    for (size_t i = 0; i < n; i++)
        if (expected[i] <= best + margin)
            equals[n_equals++] = (uint8_t)i;
    uint32_t first = rng_below(rng, n_equals), second = n_equals > 1 ? rng_below(rng, n_equals - 1) : first;
    second += n_equals > 1 && second >= first;
    const struct replica_state *a = &replicas[equals[first]], *b = &replicas[equals[second]];
    return equals[b->n_under_way < a->n_under_way ? second : first];
}
