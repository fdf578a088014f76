/* A step on its way: what it names is packed and uploaded in one copy, its two passes run or are replayed,
 * its results come back by a stream of their own, and one event tells when.
 *
 * Device memory holds one step: the upload of the next waits in stream order behind the kernels that read it.
 * Pinned memory and results are a flight's own, so that the host fills one while the device works on another.
 */
#include <string.h>
#include "base/alloc.h"
#include "kernels/cuda/cuda_backend.h"

enum { PART_ALIGN = 16 };

/* ---- Memory of no handle ---- */

size_t cuda_history_max(const struct backend_needs *needs)
{
    return (size_t)needs->step.blocks_per_seq * CUDA_KV_BLOCK_TOKENS + STEP_RESULT_TOKENS_MAX;
}

/* Words of a block table on the device: whole splits, so that a kernel may take a split's blocks at once. */
static uint32_t table_words(uint32_t n_blocks)
{
    return (uint32_t)round_up(n_blocks, CUDA_KV_SPLIT_BLOCKS);
}

static size_t part_bytes(size_t n, size_t element_bytes)
{
    return round_up(n * element_bytes, PART_ALIGN);
}

static size_t upload_bytes_max(const struct step_capacity *c)
{
    return part_bytes(1, sizeof(struct cuda_step)) + part_bytes(c->rows, sizeof(struct step_row)) +
           part_bytes(c->seqs, sizeof(struct step_seq)) + part_bytes(c->outputs, sizeof(struct step_output)) +
           part_bytes(c->copies, sizeof(struct step_copy)) +
           c->kv_groups * part_bytes((size_t)c->seqs * table_words(c->blocks_per_seq), sizeof(uint32_t));
}

static size_t mask_words(const struct backend_needs *needs)
{
    return div_up(needs->vocab_size, 32);
}

/* Walks the parts of the scratch memory: adds them up, or hands them out from base. */
static size_t lay_out(const struct cuda_backend *cuda, const struct backend_needs *needs, uint8_t *base,
                      struct cuda_scratch *out)
{
    size_t logits = (size_t)needs->logits_rows * round_up(needs->vocab_size, 8);
    const struct {
        size_t bytes;
        void **at;
    } parts[] = {
        {upload_bytes_max(&needs->step), (void **)&out->step},
        {needs->step.outputs * sizeof(struct step_result), (void **)&out->results[0]},
        {needs->step.outputs * sizeof(struct step_result), (void **)&out->results[1]},
        {needs->step.seqs * mask_words(needs) * sizeof(uint32_t), (void **)&out->masks},
        {needs->step.outputs * sizeof(int32_t), (void **)&out->mask_of_output},
        {cuda_history_max(needs) * sizeof(uint32_t), (void **)&out->history},
        {cuda_attention_work_bytes(cuda, needs), &out->attention_work},
        {cuda_attention_scratch_bytes(cuda, needs), &out->attention},
        {cuda_linear_scratch_bytes(cuda, needs), &out->linear},
        {cuda_products_scratch_bytes(cuda, needs), &out->products},
        {cuda_ranks_scratch_bytes(cuda, needs), &out->ranks},
        {logits * sizeof(float), (void **)&out->sample_work},
        {logits * sizeof(uint64_t), (void **)&out->sample_candidates},
        {needs->logits_rows * sizeof(struct sample_row), (void **)&out->sample_rows},
    };
    _Static_assert(CUDA_FLIGHTS_MAX == 2, "results of each flight stand in the list");
    size_t total = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        *parts[i].at = base + total;
        total += cuda_bytes(parts[i].bytes, 1);
    }
    out->total_bytes = total;
    return total;
}

size_t cuda_scratch_bytes(const struct backend *backend, const struct backend_needs *needs)
{
    struct cuda_scratch unused;
    return lay_out(cuda_of_const(backend), needs, NULL, &unused);
}

err_t cuda_scratch_create(struct cuda_backend *cuda)
{
    struct cuda_scratch *scratch = &cuda->scratch;
    void *base;
    TRY(cuda_take(cuda, lay_out(cuda, &cuda->needs, NULL, scratch), 1, "scratch", &base));
    (void)lay_out(cuda, &cuda->needs, base, scratch);
    /* Counters begin at zero. */
    return cuda->api->fill(cuda->device, cuda->stream, base, 0, scratch->total_bytes);
}

/* ---- Flights ---- */

static struct cuda_flight *flight_of(struct cuda_backend *cuda, const struct step *step)
{
    for (int i = 0; i < CUDA_FLIGHTS_MAX; i++) {
        if (cuda->flights[i].step == step)
            return &cuda->flights[i];
    }
    ASSERT(!"a step that this backend did not make");
    return NULL;
}

static bool capacity_fits(const struct step_capacity *c, const struct step_capacity *max)
{
    return c->rows <= max->rows && c->seqs <= max->seqs && c->outputs <= max->outputs &&
           c->copies <= max->copies && c->blocks_per_seq <= max->blocks_per_seq &&
           c->kv_groups <= max->kv_groups;
}

static err_t flight_create(struct cuda_backend *cuda, const struct step_capacity *c,
                           struct cuda_flight *flight)
{
    const struct device_api *api = cuda->api;
    size_t upload = cuda_bytes(upload_bytes_max(c), 1);
    size_t work = cuda_bytes(cuda_attention_work_bytes(cuda, &cuda->needs), 1);
    size_t masks = cuda_bytes(c->seqs * mask_words(&cuda->needs), sizeof(uint32_t));
    size_t mask_of_output = cuda_bytes(c->outputs, sizeof(int32_t));
    size_t results = cuda_bytes(c->outputs, sizeof(struct step_result));
    TRY(api->event_create(cuda->device, &flight->computed));
    TRY(api->event_create(cuda->device, &flight->done));
    TRY(api->host_alloc(cuda->device, upload + work + masks + mask_of_output + results, &flight->pinned));
    TRY(step_create(c, &flight->step));
    flight->upload = flight->pinned;
    flight->attention_upload = flight->upload + upload;
    flight->masks = (uint32_t *)(flight->attention_upload + work);
    flight->mask_of_output = (int32_t *)((uint8_t *)flight->masks + masks);
    flight->step->results = (struct step_result *)((uint8_t *)flight->mask_of_output + mask_of_output);
    flight->device_results = cuda->scratch.results[flight - cuda->flights];
    return err_ok();
}

static void flight_release(struct cuda_backend *cuda, struct cuda_flight *flight)
{
    if (flight->step != NULL)
        step_destroy(flight->step);
    if (flight->pinned != NULL)
        cuda->api->host_free(cuda->device, flight->pinned);
    if (flight->computed != NULL)
        cuda->api->event_destroy(cuda->device, flight->computed);
    if (flight->done != NULL)
        cuda->api->event_destroy(cuda->device, flight->done);
    *flight = (struct cuda_flight){0};
}

err_t cuda_step_create(struct backend *backend, const struct step_capacity *capacity, struct step **out)
{
    struct cuda_backend *cuda = cuda_of(backend);
    ASSERT(cuda->is_reserved && capacity_fits(capacity, &cuda->needs.step));
    *out = NULL;
    for (int i = 0; i < CUDA_FLIGHTS_MAX; i++) {
        struct cuda_flight *flight = &cuda->flights[i];
        if (flight->step != NULL)
            continue;
        err_t e = flight_create(cuda, capacity, flight);
        if (e.code != ERR_OK) {
            flight_release(cuda, flight);
            return e;
        }
        *out = flight->step;
        return e;
    }
    return err_new(ERR_RESOURCE_EXHAUSTED, "the CUDA backend has at most %d steps in flight",
                   CUDA_FLIGHTS_MAX);
}

void cuda_step_destroy(struct backend *backend, struct step *step)
{
    struct cuda_backend *cuda = cuda_of(backend);
    struct cuda_flight *flight = flight_of(cuda, step);
    cuda_collect(backend, step);
    flight_release(cuda, flight);
}

/* ---- Upload ---- */

struct upload {
    uint8_t *host, *device;
    size_t used_bytes;
};

/* Room for a part; *host: where to write it. Returns its address on the device. */
static void *upload_part(struct upload *upload, size_t n, size_t element_bytes, void **host)
{
    void *device = upload->device + upload->used_bytes;
    *host = upload->host + upload->used_bytes;
    upload->used_bytes += part_bytes(n, element_bytes);
    return device;
}

static const void *upload_array(struct upload *upload, const void *array, size_t n, size_t element_bytes)
{
    void *host, *device = upload_part(upload, n, element_bytes, &host);
    memcpy(host, array, n * element_bytes);
    return device;
}

/* Only the blocks that the step's sequences have, in rows of the longest. */
static const uint32_t *upload_tables(struct upload *upload, const struct step *step, uint32_t group,
                                     uint32_t words)
{
    void *host;
    const uint32_t *device = upload_part(upload, (size_t)step->n_seqs * words, sizeof(uint32_t), &host);
    uint32_t *to = host;
    for (uint32_t s = 0; s < step->n_seqs; s++, to += words) {
        uint32_t n = (uint32_t)div_up(step->seqs[s].n_context, CUDA_KV_BLOCK_TOKENS);
        memcpy(to, step_block_table(step, group, s), n * sizeof(uint32_t));
        memset(to + n, 0, (words - n) * sizeof(uint32_t));
    }
    return device;
}

static uint32_t longest_table(const struct step *step)
{
    uint32_t n_context = 0;
    for (uint32_t s = 0; s < step->n_seqs; s++)
        n_context = step->seqs[s].n_context > n_context ? step->seqs[s].n_context : n_context;
    uint32_t n_blocks = (uint32_t)div_up(n_context, CUDA_KV_BLOCK_TOKENS);
    ASSERT(n_blocks <= step->capacity.blocks_per_seq);
    return table_words(n_blocks);
}

static void check_step(const struct step *step)
{
    const struct step_capacity *c = &step->capacity;
    ASSERT(step->n_rows <= c->rows && step->n_seqs <= c->seqs && step->n_outputs <= c->outputs &&
           step->n_copies <= c->copies);
    for (uint32_t r = 0; r < step->n_rows; r++) {
        const struct step_row *row = &step->rows[r];
        ASSERT(row->seq < step->n_seqs && row->position < step->seqs[row->seq].n_context);
    }
}

static bool upload_step(struct cuda_backend *cuda, struct cuda_flight *flight)
{
    const struct step *step = flight->step;
    struct upload upload = {flight->upload, (uint8_t *)cuda->scratch.step, 0};
    void *host;
    (void)upload_part(&upload, 1, sizeof(struct cuda_step), &host);
    struct cuda_step *out = host;
    *out = (struct cuda_step){
        .n_rows = step->n_rows,
        .n_seqs = step->n_seqs,
        .n_outputs = step->n_outputs,
        .n_copies = step->n_copies,
        .blocks_per_seq = longest_table(step),
        .results = flight->device_results,
    };
    out->rows = upload_array(&upload, step->rows, step->n_rows, sizeof step->rows[0]);
    out->seqs = upload_array(&upload, step->seqs, step->n_seqs, sizeof step->seqs[0]);
    out->outputs = upload_array(&upload, step->outputs, step->n_outputs, sizeof step->outputs[0]);
    out->copies = upload_array(&upload, step->copies, step->n_copies, sizeof step->copies[0]);
    for (uint32_t g = 0; g < step->capacity.kv_groups; g++)
        out->block_tables[g] = upload_tables(&upload, step, g, out->blocks_per_seq);
    if (!CUDA_STEP(cuda, cuda->api->copy_to_device(cuda->device, cuda->stream, cuda->scratch.step,
                                                   flight->upload, upload.used_bytes)))
        return false;
    size_t work_bytes = cuda_attention_work_fill(cuda, step, flight->attention_upload);
    return work_bytes == 0 ||
           CUDA_STEP(cuda, cuda->api->copy_to_device(cuda->device, cuda->stream, cuda->scratch.attention_work,
                                                     flight->attention_upload, work_bytes));
}

/* ---- Passes ---- */

/* Every sequence has one row, no blocks are copied, something is wanted: the kind of step that is captured. A
 * forward pass of which nothing is wanted ends with the last layer's KV. */
static bool is_decode(const struct step *step)
{
    return step->n_copies == 0 && step->n_rows == step->n_seqs && step->n_outputs > 0;
}

bool cuda_forward_begin(struct backend *backend, struct step *step)
{
    struct cuda_backend *cuda = cuda_of(backend);
    struct cuda_flight *flight = flight_of(cuda, step);
    ASSERT(flight->state == FLIGHT_IDLE);
    check_step(step);
    if (!upload_step(cuda, flight))
        return false;
    flight->state = FLIGHT_FORWARD;
    cuda->rows_max = step->n_rows;
    if (!is_decode(step))
        return true;
    enum cuda_pass pass = PASS_FORWARD;
    if (cuda->attention_large) {
        pass = PASS_FORWARD_LARGE;
        cuda->attention_small = true; /* the graph is for steps with small items too, whatever this one has */
    }
    return cuda_pass_begin(cuda, pass, step->n_rows, &cuda->rows_max) != PASS_IS_DONE;
}

bool cuda_forward_end(struct backend *backend, struct step *step)
{
    (void)step;
    cuda_turn_flush(cuda_of(backend));
    return cuda_pass_end(cuda_of(backend));
}

static bool upload_masks(struct cuda_backend *cuda, struct cuda_flight *flight, const uint32_t *const *masks)
{
    const struct step *step = flight->step;
    size_t words = mask_words(&cuda->needs);
    int32_t n_masks = 0;
    for (uint32_t i = 0; i < step->n_outputs; i++) {
        flight->mask_of_output[i] = -1;
        if (masks[i] == NULL)
            continue;
        ASSERT((uint32_t)n_masks < step->capacity.seqs);
        memcpy(flight->masks + (size_t)n_masks * words, masks[i], words * sizeof(uint32_t));
        flight->mask_of_output[i] = n_masks++;
    }
    const struct device_api *api = cuda->api;
    if (n_masks > 0 &&
        !CUDA_STEP(cuda, api->copy_to_device(cuda->device, cuda->stream, cuda->scratch.masks, flight->masks,
                                             (size_t)n_masks * words * sizeof(uint32_t))))
        return false;
    return CUDA_STEP(cuda, api->copy_to_device(cuda->device, cuda->stream, cuda->scratch.mask_of_output,
                                               flight->mask_of_output, step->n_outputs * sizeof(int32_t)));
}

/* Behind everything that the step has on the main stream. */
static void send_results(struct cuda_backend *cuda, struct cuda_flight *flight)
{
    const struct device_api *api = cuda->api;
    const struct step *step = flight->step;
    flight->state = FLIGHT_SAMPLED;
    bool is_ordered =
        CUDA_STEP(cuda, api->event_record(cuda->device, flight->computed, cuda->stream)) &&
        CUDA_STEP(cuda, api->stream_wait_event(cuda->device, cuda->results_stream, flight->computed));
    if (!is_ordered)
        return;
    if (step->n_outputs > 0 && !CUDA_STEP(cuda, api->copy_to_host(cuda->device, cuda->results_stream,
                                                                  step->results, flight->device_results,
                                                                  step->n_outputs * sizeof step->results[0])))
        return;
    (void)CUDA_STEP(cuda, api->event_record(cuda->device, flight->done, cuda->results_stream));
}

bool cuda_sample_begin(struct backend *backend, struct step *step, const uint32_t *const *masks)
{
    struct cuda_backend *cuda = cuda_of(backend);
    struct cuda_flight *flight = flight_of(cuda, step);
    if (!cuda_is_alive(cuda))
        return false;
    ASSERT(flight->state == FLIGHT_FORWARD);
    cuda->with_masks = masks != NULL && step->n_outputs > 0;
    if (cuda->with_masks && !upload_masks(cuda, flight, masks))
        return false;
    enum cuda_pass pass = cuda->with_masks ? PASS_SAMPLE_MASKED : PASS_SAMPLE;
    cuda->outputs_max = step->n_outputs;
    if (is_decode(step) && cuda_pass_begin(cuda, pass, step->n_outputs, &cuda->outputs_max) == PASS_IS_DONE) {
        send_results(cuda, flight);
        return false;
    }
    return true;
}

bool cuda_sample_end(struct backend *backend, struct step *step)
{
    struct cuda_backend *cuda = cuda_of(backend);
    if (!cuda_pass_end(cuda))
        return false;
    send_results(cuda, flight_of(cuda, step));
    return true;
}

void cuda_collect(struct backend *backend, struct step *step)
{
    struct cuda_backend *cuda = cuda_of(backend);
    struct cuda_flight *flight = flight_of(cuda, step);
    if (flight->state == FLIGHT_IDLE || !cuda_is_alive(cuda)) {
        flight->state = FLIGHT_IDLE;
        return;
    }
    if (flight->state == FLIGHT_FORWARD)
        send_results(cuda, flight); /* nobody sampled: there is only the forward pass to wait for */
    (void)CUDA_STEP(cuda, cuda->api->event_wait(cuda->device, flight->done, cuda_group_given_up(cuda)));
    flight->state = FLIGHT_IDLE;
}

struct cuda_rows cuda_step_rows(const struct cuda_backend *cuda, const struct step *step, enum step_rows rows)
{
    if (rows == STEP_ROWS_OUTPUTS) {
        ASSERT(!cuda->by_bucket); /* which is one of rows */
        return (struct cuda_rows){cuda->scratch.step, CUDA_COUNT_OUTPUTS, 0, step->n_outputs};
    }
    return (struct cuda_rows){cuda->scratch.step, CUDA_COUNT_ROWS, 0, cuda->rows_max};
}

/* n: of the step's outputs from first_output on. A pass by bucket covers as many of that. */
struct cuda_rows cuda_output_rows(const struct cuda_backend *cuda, uint32_t first_output, uint32_t n)
{
    uint32_t part = cuda->needs.logits_rows, max = n;
    if (cuda->by_bucket) {
        max = cuda->outputs_max - first_output;
        max = max < part ? max : part;
    }
    return (struct cuda_rows){cuda->scratch.step, CUDA_COUNT_OUTPUTS, first_output, max};
}
