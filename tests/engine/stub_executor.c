#include "tests/engine/stub_executor.h"

#include <pthread.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"

struct stub_cell {
    uint32_t token, position;
    bool written;
};

struct stub_slot {
    struct sampler_params params; /* lists borrowed, as in a real sampler */
    size_t n_prompt;
    uint32_t last_token;
    bool is_set;
};

struct stub {
    struct executor_info info;
    struct stub_options options;
    struct stub_cell *kv;    /* [num_kv_blocks * block_tokens] */
    struct stub_slot *slots; /* [max_num_seqs] */
    struct {
        const struct step *step;
        struct step_result *results; /* [max_num_batched_tokens] until collect */
    } flights[STUB_STEPS_MAX];
    uint64_t poison_seed;
    uint32_t poison_output;
    enum step_result_status poison;
    bool has_poison;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t n_steps, n_permits, n_pieces;
    bool held;
    bool will_be_lost, is_lost;
    enum stub_call lost_at;
    uint64_t calls_left; /* before that one */
};

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a ^ b) + UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t fold(uint64_t hash, uint32_t token)
{
    return mix(hash, (uint64_t)token + 1);
}

static uint64_t fold_all(const uint32_t *tokens, size_t n)
{
    uint64_t hash = 0;
    for (size_t i = 0; i < n; i++)
        hash = fold(hash, tokens[i]);
    return hash;
}

static uint32_t draw(uint64_t context, float temperature, uint64_t seed, uint32_t choice_index,
                     uint32_t vocab_size)
{
    bool greedy = temperature < SAMPLER_GREEDY_BELOW;
    uint64_t bits = greedy ? mix(context, 0) : mix(mix(context, seed), (uint64_t)choice_index + 1);
    return (uint32_t)(bits % vocab_size);
}

uint32_t stub_draw(const struct stub_options *options, const uint32_t *tokens, size_t n, float temperature,
                   uint64_t seed, uint32_t choice_index)
{
    return draw(fold_all(tokens, n), temperature, seed, choice_index, options->vocab_size);
}

static float logprob_of(uint64_t context, uint32_t token)
{
    return -(float)(mix(context, ~(uint64_t)token) % 100000) / 10000.0f;
}

static struct position_logprobs logprobs(uint64_t context, uint32_t target, uint32_t n_top)
{
    struct position_logprobs out = {
        .chosen = {target, logprob_of(context, target)},
        .rank = (uint32_t)(mix(context, target) % 1000) + 1,
        .n_top = n_top,
    };
    for (uint32_t i = 0; i < n_top; i++)
        out.top[i] = (struct token_logprob){i, logprob_of(context, i)};
    return out;
}

struct position_logprobs stub_logprobs(const uint32_t *tokens, size_t n, uint32_t target, uint32_t n_top)
{
    return logprobs(fold_all(tokens, n), target, n_top);
}

struct stub *stub_create(const struct stub_options *options)
{
    struct stub *stub = mem_alloc(sizeof *stub);
    ASSERT(stub != NULL);
    stub->options = *options;
    stub->info = (struct executor_info){
        .architecture = "StubForCausalLM",
        .dtype = "none",
        .quantization = "none",
        .vocab_size = options->vocab_size,
        .max_model_len = options->max_model_len,
        .num_kv_blocks = options->num_kv_blocks,
        .block_tokens = options->block_tokens,
        .max_num_seqs = options->max_num_seqs,
        .max_num_batched_tokens = options->max_num_batched_tokens,
        .steps_in_flight = STUB_STEPS_MAX,
    };
    stub->kv = mem_alloc_array((size_t)options->num_kv_blocks * options->block_tokens, sizeof *stub->kv);
    stub->slots = mem_alloc_array(options->max_num_seqs, sizeof *stub->slots);
    for (int i = 0; i < STUB_STEPS_MAX; i++)
        stub->flights[i].results =
            mem_alloc_array(options->max_num_batched_tokens, sizeof *stub->flights[i].results);
    pthread_mutex_init(&stub->lock, NULL);
    pthread_cond_init(&stub->changed, NULL);
    return stub;
}

void stub_destroy(struct stub *stub)
{
    for (int i = 0; i < STUB_STEPS_MAX; i++)
        mem_free(stub->flights[i].results);
    mem_free(stub->slots);
    mem_free(stub->kv);
    pthread_cond_destroy(&stub->changed);
    pthread_mutex_destroy(&stub->lock);
    mem_free(stub);
}

static void wait_for_permit(struct stub *stub)
{
    pthread_mutex_lock(&stub->lock);
    stub->n_steps++;
    pthread_cond_broadcast(&stub->changed);
    while (stub->held && stub->n_permits == 0)
        pthread_cond_wait(&stub->changed, &stub->lock);
    if (stub->held)
        stub->n_permits--;
    pthread_mutex_unlock(&stub->lock);
}

void stub_hold(struct stub *stub)
{
    pthread_mutex_lock(&stub->lock);
    stub->held = true;
    stub->n_permits = 0;
    pthread_mutex_unlock(&stub->lock);
}

void stub_permit(struct stub *stub, uint64_t n_steps)
{
    pthread_mutex_lock(&stub->lock);
    stub->n_permits += n_steps;
    pthread_cond_broadcast(&stub->changed);
    pthread_mutex_unlock(&stub->lock);
}

void stub_let_go(struct stub *stub)
{
    pthread_mutex_lock(&stub->lock);
    stub->held = false;
    pthread_cond_broadcast(&stub->changed);
    pthread_mutex_unlock(&stub->lock);
}

void stub_wait_steps(struct stub *stub, uint64_t n_steps)
{
    pthread_mutex_lock(&stub->lock);
    while (stub->n_steps < n_steps)
        pthread_cond_wait(&stub->changed, &stub->lock);
    pthread_mutex_unlock(&stub->lock);
}

uint64_t stub_steps(struct stub *stub)
{
    pthread_mutex_lock(&stub->lock);
    uint64_t n_steps = stub->n_steps;
    pthread_mutex_unlock(&stub->lock);
    return n_steps;
}

void stub_lose(struct stub *stub, enum stub_call call, uint64_t nth)
{
    pthread_mutex_lock(&stub->lock);
    stub->will_be_lost = true;
    stub->lost_at = call;
    stub->calls_left = nth;
    pthread_mutex_unlock(&stub->lock);
}

static err_t call_result(struct stub *stub, enum stub_call call)
{
    pthread_mutex_lock(&stub->lock);
    ASSERT(call == STUB_COLLECT || !stub->is_lost);
    if (stub->will_be_lost && stub->lost_at == call && stub->calls_left-- == 0)
        stub->is_lost = true;
    bool is_lost = stub->is_lost;
    pthread_mutex_unlock(&stub->lock);
    return is_lost ? err_new(ERR_UNAVAILABLE, "the stub was lost") : err_ok();
}

void stub_poison(struct stub *stub, uint64_t seed, uint32_t output, enum step_result_status status)
{
    stub->poison = status;
    stub->poison_seed = seed;
    stub->poison_output = output;
    stub->has_poison = true;
}

/* ---- The executor's slots; the loop thread ---- */

static const struct executor_info *info(void *context)
{
    return &((struct stub *)context)->info;
}

static err_t create_step(void *context, struct step **out)
{
    const struct stub_options *options = &((struct stub *)context)->options;
    struct step_capacity capacity = {
        .rows = options->max_num_batched_tokens,
        .seqs = options->max_num_seqs,
        .outputs = options->max_num_batched_tokens,
        .copies = options->max_num_seqs,
        .blocks_per_seq = (options->max_model_len + options->block_tokens - 1) / options->block_tokens,
        .kv_groups = 1,
    };
    return step_create(&capacity, out);
}

static void destroy_step(void *context, struct step *step)
{
    (void)context;
    step_destroy(step);
}

static void set_slot(void *context, uint32_t slot, const struct sampler_params *params,
                     const struct sampler_history *history)
{
    struct stub *stub = context;
    ASSERT(slot < stub->options.max_num_seqs);
    ASSERT(history->n_prompt > 0);
    stub->slots[slot] = (struct stub_slot){
        .params = *params,
        .n_prompt = history->n_prompt,
        .last_token = UINT32_MAX,
        .is_set = true,
    };
}

static struct stub_cell *cell_at(struct stub *stub, const struct step *step, uint32_t seq, uint32_t position)
{
    uint32_t block = step_block_table(step, 0, seq)[position / stub->options.block_tokens];
    ASSERT(block < stub->options.num_kv_blocks);
    return &stub->kv[(size_t)block * stub->options.block_tokens + position % stub->options.block_tokens];
}

static void write_rows(struct stub *stub, const struct step *step, uint32_t seq_index)
{
    const struct step_seq *seq = &step->seqs[seq_index];
    ASSERT(seq->n_rows > 0 && seq->first_row + seq->n_rows <= step->n_rows);
    ASSERT(seq->n_context <= stub->options.max_model_len);
    for (uint32_t i = 0; i < seq->n_rows; i++) {
        const struct step_row *row = &step->rows[seq->first_row + i];
        uint32_t token = row->token;
        if (row->flags & STEP_ROW_TOKEN_FROM_SLOT)
            token = stub->slots[seq->sampling_slot].last_token;
        ASSERT(row->seq == seq_index && token < stub->options.vocab_size);
        ASSERT(row->position + seq->n_rows == seq->n_context + i);
        *cell_at(stub, step, seq_index, row->position) = (struct stub_cell){token, row->position, true};
    }
}

/* Hash over the first n tokens of a sequence, read through its block table. */
static uint64_t read_context(struct stub *stub, const struct step *step, uint32_t seq, uint32_t n)
{
    uint64_t hash = 0;
    for (uint32_t position = 0; position < n; position++) {
        const struct stub_cell *cell = cell_at(stub, step, seq, position);
        ASSERT(cell->written && cell->position == position);
        hash = fold(hash, cell->token);
    }
    return hash;
}

static err_t forward(void *context, struct step *step)
{
    struct stub *stub = context;
    wait_for_permit(stub);
    TRY(call_result(stub, STUB_FORWARD));
    ASSERT(step->n_rows > 0 && step->n_rows <= step->capacity.rows && step->n_seqs <= step->capacity.seqs);
    ASSERT(step->n_outputs <= step->capacity.outputs && step->n_copies == 0);
    for (uint32_t seq = 0; seq < step->n_seqs; seq++)
        write_rows(stub, step, seq);
    return err_ok();
}

static void fill_logprobs(struct step_result *result, uint64_t hash, uint32_t target, int32_t n_logprobs)
{
    if (n_logprobs < 0)
        return;
    struct position_logprobs all = logprobs(hash, target, (uint32_t)n_logprobs);
    result->chosen = (struct step_logprob){all.chosen.token_id, all.chosen.logprob};
    result->rank = all.rank;
    result->n_top = all.n_top;
    for (uint32_t i = 0; i < all.n_top; i++)
        result->top[i] = (struct step_logprob){all.top[i].token_id, all.top[i].logprob};
}

static struct step_result answer_output(struct stub *stub, const struct step *step,
                                        const struct step_output *output)
{
    const struct step_row *row = &step->rows[output->row];
    struct stub_slot *slot = &stub->slots[step->seqs[row->seq].sampling_slot];
    uint64_t hash = read_context(stub, step, row->seq, row->position + 1);
    struct step_result result = {.status = STEP_RESULT_OK};
    ASSERT(slot->is_set);
    if (output->kind == STEP_OUTPUT_LOGPROBS) {
        fill_logprobs(&result, hash, output->target, output->n_logprobs);
        return result;
    }
    for (size_t i = 0; i < slot->params.n_stop_ids; i++) /* a list that was freed too early shows here */
        ASSERT(slot->params.stop_ids[i] < stub->options.vocab_size);
    uint32_t token = draw(hash, slot->params.temperature, slot->params.seed, slot->params.choice_index,
                          stub->options.vocab_size);
    slot->last_token = token;
    result.n_tokens = 1;
    result.token_ids[0] = token;
    fill_logprobs(&result, hash, token, output->n_logprobs);
    size_t n_output = row->position + 2 - slot->n_prompt;
    if (stub->has_poison && slot->params.seed == stub->poison_seed && n_output >= stub->poison_output)
        result.status = stub->poison;
    return result;
}

static err_t sample(void *context, struct step *step, const uint32_t *const *masks)
{
    struct stub *stub = context;
    (void)masks;
    TRY(call_result(stub, STUB_SAMPLE));
    int flight = stub->flights[0].step == NULL ? 0 : 1;
    ASSERT(stub->flights[flight].step == NULL);
    stub->flights[flight].step = step;
    for (uint32_t i = 0; i < step->n_outputs; i++)
        stub->flights[flight].results[i] = answer_output(stub, step, &step->outputs[i]);
    memset(step->results, 0xee, step->n_outputs * sizeof *step->results);
    return err_ok();
}

static err_t collect(void *context, struct step *step)
{
    struct stub *stub = context;
    TRY(call_result(stub, STUB_COLLECT)); /* results stay what sample made of them */
    int flight = stub->flights[0].step == step ? 0 : 1;
    ASSERT(stub->flights[flight].step == step);
    memcpy(step->results, stub->flights[flight].results, step->n_outputs * sizeof *step->results);
    stub->flights[flight].step = NULL;
    return err_ok();
}

void stub_put_off(struct stub *stub, uint64_t n_pieces)
{
    pthread_mutex_lock(&stub->lock);
    stub->n_pieces = n_pieces;
    pthread_mutex_unlock(&stub->lock);
}

void stub_wait_tended(struct stub *stub)
{
    pthread_mutex_lock(&stub->lock);
    while (stub->n_pieces > 0)
        pthread_cond_wait(&stub->changed, &stub->lock);
    pthread_mutex_unlock(&stub->lock);
}

static bool tend(void *context)
{
    struct stub *stub = context;
    ASSERT(stub->flights[0].step == NULL && stub->flights[1].step == NULL);
    pthread_mutex_lock(&stub->lock);
    bool has_done = stub->n_pieces > 0;
    stub->n_pieces -= has_done;
    if (stub->n_pieces == 0)
        pthread_cond_broadcast(&stub->changed);
    pthread_mutex_unlock(&stub->lock);
    return has_done;
}

static const struct executor_vtable STUB_VTABLE = {
    .info = info,
    .step_create = create_step,
    .step_destroy = destroy_step,
    .slot_set = set_slot,
    .forward = forward,
    .sample = sample,
    .collect = collect,
    .tend = tend,
};

struct executor stub_executor(struct stub *stub)
{
    return (struct executor){.vtable = &STUB_VTABLE, .context = stub};
}
