/* What the wire formats have in common, without their tables: a client links no more than this. */
#include "proto/door_codec.h"

struct load_ratios codec_load_ratios(const struct loads *loads)
{
    struct load_ratios ratios = {0};
    if (loads->kv_blocks_total > 0)
        ratios.kv_usage = (double)loads->kv_blocks_used / loads->kv_blocks_total;
    double running = loads->max_num_seqs > 0 ? (double)loads->requests_running / loads->max_num_seqs : 0;
    ratios.utilization = ratios.kv_usage > running ? ratios.kv_usage : running;
    if (loads->prefix_queries_tokens > 0)
        ratios.hit_rate = (double)loads->prefix_hit_tokens / (double)loads->prefix_queries_tokens;
    return ratios;
}

static bool continues(const struct kv_event *event, const struct kv_event *before)
{
    if (event->kind != before->kind || event->kind == KV_ALL_CLEARED)
        return false;
    return event->kind == KV_BLOCK_REMOVED ||
           (event->has_parent && event->parent_block_hash == before->block_hash &&
            event->cache_salt == before->cache_salt);
}

size_t codec_kv_run(const struct kv_event_batch *batch, size_t first)
{
    size_t end = first + 1;
    while (end < batch->n_events && continues(&batch->events[end], &batch->events[end - 1]))
        end++;
    return end - first;
}

size_t codec_kv_runs(const struct kv_event_batch *batch)
{
    size_t n = 0;
    for (size_t i = 0; i < batch->n_events; i += codec_kv_run(batch, i))
        n++;
    return n;
}

err_t codec_check_abort_ids(size_t n_ids)
{
    if (n_ids == 0 || n_ids > CODEC_ABORT_IDS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "request_ids has %zu entries; 1 to %d are allowed", n_ids,
                       CODEC_ABORT_IDS_MAX);
    return err_ok();
}

err_t codec_check_watch_interval(uint32_t interval_ms)
{
    if (interval_ms < CODEC_WATCH_INTERVAL_MIN_MS || interval_ms > CODEC_WATCH_INTERVAL_MAX_MS)
        return err_new(ERR_INVALID_ARGUMENT, "interval_ms is %u; it must be %d to %d", interval_ms,
                       CODEC_WATCH_INTERVAL_MIN_MS, CODEC_WATCH_INTERVAL_MAX_MS);
    return err_ok();
}
