#include "api/request_log.h"

#include <math.h>
#include <stdio.h>
#include "base/log.h"

enum { ID_BYTES_SHOWN = REQUEST_ID_BYTES_MAX + 32 }; /* a prompt's number included */

/* What the line says besides names. NaN = not known. */
struct request_end {
    double choice, prompt_tokens, cached_tokens, output_tokens;
    double queue_ms, prefill_ms, decode_ms;
    const char *finish, *status;
};

static double ms_of(int64_t ns)
{
    return ns < 0 ? NAN : (double)ns * 1e-6;
}

static double count_of(const struct usage *usage, uint32_t n)
{
    return usage->is_unknown ? (double)NAN : n;
}

/* "" is as little known as NULL. */
static const char *known(const char *text)
{
    return text && text[0] ? text : NULL;
}

static void write_line(const struct request_log_name *name, const struct request_end *end)
{
    const struct log_field fields[] = {
        {"id", known(name->id), NAN},
        {"tenant", known(name->tenant), NAN},
        {"model", known(name->model), NAN},
        {"provider", known(name->provider), NAN},
        {"door", name->door, NAN},
        {"choice", NULL, end->choice},
        {"prompt_tokens", NULL, end->prompt_tokens},
        {"cached_tokens", NULL, end->cached_tokens},
        {"output_tokens", NULL, end->output_tokens},
        {"finish", end->finish, NAN},
        {"status", end->status, NAN},
        {"queue_ms", NULL, end->queue_ms},
        {"prefill_ms", NULL, end->prefill_ms},
        {"decode_ms", NULL, end->decode_ms},
    };
    log_line_fields(LOG_DEBUG, "request", "ended", fields, sizeof fields / sizeof fields[0]);
}

static const char *status_of(const struct event *finish)
{
    if (finish->finish_reason == FINISH_ERROR)
        return err_code_name(finish->error.code);
    return err_code_name(finish->finish_reason == FINISH_ABORT ? ERR_CANCELLED : ERR_OK);
}

void request_log_finished(const struct request_log_name *name, const struct event *finish)
{
    if (!log_is_on(LOG_DEBUG))
        return;
    const struct usage *usage = &finish->usage;
    const struct request_end end = {
        .choice = finish->choice_index,
        .prompt_tokens = count_of(usage, usage->prompt_tokens),
        .cached_tokens = count_of(usage, usage->cached_tokens),
        .output_tokens = count_of(usage, usage->completion_tokens),
        .queue_ms = ms_of(finish->timings.queue_ns),
        .prefill_ms = ms_of(finish->timings.prefill_ns),
        .decode_ms = ms_of(finish->timings.decode_ns),
        .finish = finish_reason_name(finish->finish_reason),
        .status = status_of(finish),
    };
    write_line(name, &end);
}

static struct request_end nothing_known(void)
{
    return (struct request_end){NAN, NAN, NAN, NAN, NAN, NAN, NAN, NULL, NULL};
}

void request_log_left(const struct request_log_name *name, uint32_t choice_index, uint32_t n_prompt,
                      uint32_t n_output)
{
    if (!log_is_on(LOG_DEBUG))
        return;
    struct request_end end = nothing_known();
    end.choice = choice_index;
    end.prompt_tokens = n_prompt;
    end.output_tokens = n_output;
    end.finish = finish_reason_name(FINISH_ABORT);
    end.status = err_code_name(ERR_CANCELLED);
    write_line(name, &end);
}

void request_log_refused(struct service *service, const struct request_log_name *name, const err_t *error)
{
    if (!log_is_on(LOG_DEBUG))
        return;
    /* No validator has seen them: an endless name would leave the line no room for the rest. */
    char id[ID_BYTES_SHOWN], model[REQUEST_MODEL_BYTES_MAX + 1];
    const char *served = service->vtable->model_info(service)->model;
    (void)snprintf(id, sizeof id, "%s", name->id ? name->id : "");
    (void)snprintf(model, sizeof model, "%s", known(name->model) ? name->model : served);
    const struct request_log_name shown = {id, name->tenant, model, name->door, NULL};
    struct request_end end = nothing_known();
    end.finish = "refused";
    end.status = err_code_name(error->code);
    write_line(&shown, &end);
}
