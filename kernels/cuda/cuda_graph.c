/* Captured graphs of decode steps: launching one costs the host what a single kernel does. A graph covers a
 * bucket, so many rows or outputs; grids are made for it, and the kernels read from the step how many there
 * are. */
#include "base/log.h"
#include "kernels/cuda/cuda_backend.h"

/* Buckets stand at multiples of 8, so that a pass over the outputs in parts of logits_rows (a multiple of 8,
 * or the last bucket) has the same parts in a bucket as in a step that it covers. */
void cuda_graphs_plan(struct cuda_graphs *graphs, uint32_t max_rows)
{
    static const uint32_t small[] = {1, 2, 4};
    graphs->n_buckets = 0;
    for (size_t i = 0; i < sizeof small / sizeof small[0] && small[i] < max_rows; i++)
        graphs->buckets[graphs->n_buckets++] = small[i];
    uint32_t rows = 8;
    while (rows < max_rows && graphs->n_buckets + 1 < CUDA_BUCKETS_MAX) {
        graphs->buckets[graphs->n_buckets++] = rows;
        rows += rows < 64 ? 8 : rows < 256 ? 16 : rows < 1024 ? 32 : 64;
    }
    graphs->buckets[graphs->n_buckets++] = max_rows;
}

/* NULL: nothing covers n, or in other parts. */
static struct cuda_graph *find_graph(struct cuda_backend *cuda, enum cuda_pass pass, uint32_t n,
                                     uint32_t *covers)
{
    struct cuda_graphs *graphs = &cuda->graphs;
    for (uint32_t i = 0; i < graphs->n_buckets; i++) {
        uint32_t bucket = graphs->buckets[i], part = cuda->needs.logits_rows;
        if (bucket < n)
            continue;
        if (pass >= PASS_SAMPLE && div_up(bucket, part) != div_up(n, part))
            return NULL;
        *covers = bucket;
        return &graphs->graphs[pass][i];
    }
    return NULL;
}

/* Whether that is what a call for a graph said: no reason to give up the device. Ranks of a group may differ
 * in this, so that a pass without its graph covers what it would with it. */
static bool lacks_memory(struct cuda_backend *cuda, struct cuda_graph *graph, const err_t *e)
{
    if (e->code != ERR_RESOURCE_EXHAUSTED || !cuda_is_alive(cuda))
        return false;
    graph->lacks_memory = true;
    if (graph->graph != NULL) /* nobody launches it any more */
        cuda->api->graph_destroy(cuda->device, graph->graph);
    graph->graph = NULL;
    if (!cuda->graphs.is_told)
        log_warn("cuda",
                 "GPU %d (%s) has no memory for a graph, whose steps become slower: %s; a lower "
                 "--memory-limit leaves more",
                 cuda->ordinal, cuda->properties->name, e->message);
    cuda->graphs.is_told = true;
    return true;
}

/* Of a bucket whose first step has run. */
static enum cuda_pass_plan begin_by_bucket(struct cuda_backend *cuda, struct cuda_graph *graph)
{
    if (!cuda_is_alive(cuda))
        return PASS_IS_DONE;
    cuda->by_bucket = true;
    if (graph->lacks_memory)
        return PASS_RUNS;
    bool replays = graph->graph != NULL;
    err_t e = replays ? cuda->api->graph_launch(cuda->device, graph->graph, cuda->stream)
                      : cuda->api->capture_begin(cuda->device, cuda->stream);
    if (lacks_memory(cuda, graph, &e))
        return PASS_RUNS;
    if (!cuda_worked(cuda, e) || replays)
        return PASS_IS_DONE;
    cuda->capturing = graph;
    return PASS_IS_CAPTURED;
}

enum cuda_pass_plan cuda_pass_begin(struct cuda_backend *cuda, enum cuda_pass pass, uint32_t n,
                                    uint32_t *covers)
{
    ASSERT(cuda->capturing == NULL && !cuda->by_bucket);
    uint32_t bucket;
    struct cuda_graph *graph = cuda->eager || n == 0 ? NULL : find_graph(cuda, pass, n, &bucket);
    *covers = n;
    if (graph == NULL || !graph->warm) {
        if (graph != NULL)
            graph->warm = true;
        return PASS_RUNS;
    }
    *covers = bucket;
    enum cuda_pass_plan plan = begin_by_bucket(cuda, graph);
    if (plan == PASS_IS_DONE)
        cuda->by_bucket = false;
    return plan;
}

bool cuda_pass_end(struct cuda_backend *cuda)
{
    struct cuda_graph *graph = cuda->capturing;
    cuda->capturing = NULL;
    if (graph != NULL) {
        /* Also of a lost device: a stream is not destroyed in the middle of a capture. */
        err_t e = cuda->api->capture_end(cuda->device, cuda->stream, &graph->graph);
        if (e.code == ERR_OK && cuda_is_alive(cuda))
            e = cuda->api->graph_launch(cuda->device, graph->graph, cuda->stream);
        if (lacks_memory(cuda, graph, &e))
            return false;
        (void)cuda_worked(cuda, e);
    }
    cuda->by_bucket = false;
    return true;
}

void cuda_graphs_destroy(struct cuda_backend *cuda)
{
    for (int pass = 0; pass < CUDA_PASSES; pass++) {
        for (uint32_t i = 0; i < cuda->graphs.n_buckets; i++) {
            struct cuda_graph *graph = &cuda->graphs.graphs[pass][i];
            if (graph->graph != NULL)
                cuda->api->graph_destroy(cuda->device, graph->graph);
            *graph = (struct cuda_graph){0};
        }
    }
}
