#include "model/survey.h"

#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "base/thread_pool.h"
#include "model/fingerprint.h"
#include "model/gguf_config.h"

enum { UNUSED_NAMED_MAX = 8 }; /* tensors that the warning names; the others are counted */

static void destroy_backends(struct survey *survey)
{
    for (uint32_t i = 0; i < survey->n_ranks; i++) {
        if (survey->backends[i])
            survey->backends[i]->vtable->destroy(survey->backends[i]);
        survey->backends[i] = NULL;
    }
}

void survey_free(struct survey *survey)
{
    for (uint32_t i = 0; i < survey->n_ranks; i++)
        weight_list_free(&survey->lists[i]);
    destroy_backends(survey);
    checkpoint_close(survey->checkpoint);
    packed_file_close(&survey->packed);
    *survey = (struct survey){0};
}

static err_t join(struct survey *survey)
{
    return survey->n_ranks > 1 ? survey->backends[0]->vtable->join(survey->backends, survey->n_ranks)
                               : err_ok();
}

/* The ranks share the CPUs. */
static err_t create_on_cpu(struct survey *survey)
{
    const struct model_options *options = &survey->options;
    int n_threads = options->n_threads, n_ranks = (int)survey->n_ranks;
    if (n_ranks > 1) {
        n_threads = (n_threads > 0 ? n_threads : usable_cpu_count()) / n_ranks;
        n_threads = n_threads > 1 ? n_threads : 1;
    }
    for (uint32_t i = 0; i < survey->n_ranks; i++)
        TRY(backend_cpu_create(n_threads, options->isa ? options->isa : "auto", &survey->backends[i]));
    return join(survey);
}

/* GPUs are taken one after the other. dtype: as computed, never AUTO. */
static err_t create_on_cuda(struct survey *survey, int first, enum model_dtype dtype)
{
    const struct model_options *options = &survey->options;
    struct backend_cuda_options cuda = {.f32 = dtype == MODEL_DTYPE_F32,
                                        .eager = options->enforce_eager,
                                        .batch_variant = options->batch_variant,
                                        .library_rows_min = options->library_rows_min,
                                        .n_threads = options->n_threads};
    for (uint32_t i = 0; i < survey->n_ranks; i++) {
        cuda.device = first + (int)i;
        TRY(backend_cuda_create(&cuda, &survey->backends[i]));
    }
    return join(survey);
}

/* One kind of device for all ranks: `auto` takes the CPU for all of them where one has no GPU. */
static err_t create_backends(struct survey *survey, enum model_dtype dtype)
{
    const char *device = survey->options.device ? survey->options.device : "cpu";
    int first = 0;
    if (strcmp(device, "cpu") == 0)
        return create_on_cpu(survey);
    bool is_auto = strcmp(device, "auto") == 0;
    if (!is_auto && !backend_cuda_parse(device, &first))
        return err_new(ERR_INVALID_ARGUMENT,
                       "--device \"%.60s\" is not known; known are cpu, cuda, cuda:N and auto", device);
    err_t e = create_on_cuda(survey, first, dtype);
    if (e.code == ERR_OK || !is_auto)
        return e;
    destroy_backends(survey);
    log_info("model", "--device auto takes the CPU: %s", e.message);
    survey->options.device = "cpu";
    return create_on_cpu(survey);
}

static err_t bind_packed(struct survey *survey, uint32_t rank)
{
    TRY(packed_file_suits(&survey->packed, survey->backends[rank]));
    return packed_file_bind(&survey->packed, survey->backends[rank], &survey->lists[rank]);
}

static err_t survey_ranks(struct survey *survey)
{
    const struct model_options *options = &survey->options;
    uint32_t n_ranks = options->n_ranks ? options->n_ranks : 1;
    enum model_dtype dtype = weight_list_dtype(&survey->config, survey->checkpoint, options);
    for (uint32_t i = 0; i < n_ranks; i++) {
        TRY(shard_make(&survey->config, n_ranks, i, &survey->shards[i]));
        survey->n_ranks = i + 1;
    }
    TRY(create_backends(survey, dtype));
    for (uint32_t i = 0; i < n_ranks; i++) {
        TRY(weight_list_create(&survey->config, &survey->shards[i], survey->checkpoint, options,
                               survey->backends[i], &survey->lists[i]));
        if (survey->packed.path)
            TRY(bind_packed(survey, i));
    }
    return err_ok();
}

/* A packed file lies beside the configuration that it was made with. */
static err_t open_packed(struct survey *survey)
{
    const char *device = survey->options.device;
    TRY(packed_file_open(survey->options.directory, &survey->packed));
    TRY(packed_file_adopt(&survey->packed, &survey->options));
    if (survey->packed.config_fingerprint != survey->config.fingerprint)
        return err_new(
            ERR_DATA_LOSS,
            "%s: made with another configuration than the one beside it: change that of the original "
            "model, and run bantam quantize on it again",
            survey->packed.path);
    if (device && strcmp(device, "auto") != 0 && strcmp(device, "cpu") != 0)
        return err_new(
            ERR_INVALID_ARGUMENT,
            "%s: packed for the CPU; --device %.60s packs when it loads: give it the original model",
            survey->packed.path, device);
    if (device && strcmp(device, "auto") == 0) {
        log_info("model", "--device auto takes the CPU: %s is packed for it", survey->packed.path);
        survey->options.device = "cpu";
    }
    return err_ok();
}

err_t survey_open(const struct model_options *options, struct survey *out)
{
    *out = (struct survey){.options = *options};
    TRY(model_config_load(options->directory, &out->config));
    if (!options->dummy_weights && packed_file_is_in(options->directory))
        TRY(open_packed(out));
    else if (!options->dummy_weights)
        TRY(checkpoint_open(options->directory, &out->checkpoint));
    return survey_ranks(out);
}

static void warn_unused(const char *directory, const struct checkpoint *checkpoint)
{
    char names[512] = "";
    size_t used = 0, n_unused = 0;
    for (size_t i = 0; i < checkpoint_count(checkpoint); i++) {
        const struct checkpoint_tensor *tensor = checkpoint_at(checkpoint, i);
        /* Old Llama checkpoints carry the rotary table, which is computed here; GGUF files carry divisors of
         * its frequencies, which the configuration has. */
        if (tensor->used || strstr(tensor->info->name, ".rotary_emb.inv_freq") ||
            strcmp(tensor->info->name, GGUF_ROPE_DIVISORS) == 0)
            continue;
        if (n_unused++ < UNUSED_NAMED_MAX && used < sizeof names) {
            int n = snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", tensor->info->name);
            used += n > 0 ? (size_t)n : 0;
        }
    }
    if (n_unused > 0)
        log_warn("model", "%s: %zu tensors of the checkpoint are not used: %s%s", directory, n_unused, names,
                 n_unused > UNUSED_NAMED_MAX ? ", ..." : "");
}

static void warn_widened(const char *directory, const struct weight_list *list)
{
    if (list->n_widened > 0)
        log_warn("model", "%s: the codes of %zu matrices become %s numbers, larger and slower: they have %s",
                 directory, list->n_widened, MODEL_DTYPE_NAMES[list->dtype], list->widened_why);
}

void survey_warn(const struct survey *survey)
{
    if (survey->checkpoint)
        warn_unused(survey->options.directory, survey->checkpoint);
    warn_widened(survey->options.directory, &survey->lists[0]);
}

err_t survey_fingerprint(const struct survey *survey, uint64_t *out)
{
    *out = survey->packed.weights_fingerprint;
    return survey->packed.path
               ? err_ok()
               : fingerprint_weights(&survey->config, survey->checkpoint, survey->options.dummy_seed, out);
}
