#include "proto/service_state.h"

#define HEARTBEAT_LIMIT_NS INT64_C(1000000000)
enum { PUSHBACK_MIN_MS = 50, PUSHBACK_DEFAULT_MS = 250, PUSHBACK_MAX_MS = 5000 };

bool service_is_alive(struct service *service)
{
    struct loads loads;
    service->vtable->loads(service, &loads);
    if (loads.failed)
        return false;
    return loads.step_running || loads.heartbeat_age_ns <= HEARTBEAT_LIMIT_NS;
}

err_t service_admit_call(struct service *service, const char *tenant)
{
    return service->vtable->admit_call ? service->vtable->admit_call(service, tenant) : err_ok();
}

int64_t service_pushback_ms(struct service *service)
{
    struct loads loads;
    service->vtable->loads(service, &loads);
    if (loads.predicted_ttft_ns < 0)
        return PUSHBACK_DEFAULT_MS;
    int64_t ms = loads.predicted_ttft_ns / 1000000;
    return ms < PUSHBACK_MIN_MS ? PUSHBACK_MIN_MS : ms > PUSHBACK_MAX_MS ? PUSHBACK_MAX_MS : ms;
}

int64_t refusal_pushback_ms(struct service *service, const err_t *refusal)
{
    return refusal->retry_after_ms > 0 ? refusal->retry_after_ms : service_pushback_ms(service);
}
