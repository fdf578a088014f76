/* Captured graphs of decode steps: launching one costs the host what a single kernel does. A graph covers a
 * bucket, so many rows or outputs; grids are made for it, and the kernels read from the step how many there
 * are. */
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

enum cuda_pass_plan cuda_pass_begin(struct cuda_backend *cuda, enum cuda_pass pass, uint32_t n,
                                    uint32_t *covers)
{
    ASSERT(cuda->capturing == NULL);
    uint32_t bucket;
    struct cuda_graph *graph = cuda->eager || n == 0 ? NULL : find_graph(cuda, pass, n, &bucket);
    *covers = n;
    if (graph == NULL || !graph->warm) {
        if (graph != NULL)
            graph->warm = true;
        return PASS_RUNS;
    }
    *covers = bucket;
    if (graph->graph != NULL) {
        (void)CUDA_STEP(cuda, cuda->api->graph_launch(cuda->device, graph->graph, cuda->stream));
        return PASS_IS_DONE;
    }
    if (!CUDA_STEP(cuda, cuda->api->capture_begin(cuda->device, cuda->stream)))
        return PASS_IS_DONE;
    cuda->capturing = graph;
    return PASS_IS_CAPTURED;
}

void cuda_pass_end(struct cuda_backend *cuda)
{
    struct cuda_graph *graph = cuda->capturing;
    cuda->capturing = NULL;
    if (graph == NULL)
        return;
    /* Also of a lost device: a stream is not destroyed in the middle of a capture. */
    if (cuda_worked(cuda, cuda->api->capture_end(cuda->device, cuda->stream, &graph->graph)))
        (void)CUDA_STEP(cuda, cuda->api->graph_launch(cuda->device, graph->graph, cuda->stream));
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
