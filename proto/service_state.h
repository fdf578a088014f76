/* What every door wants to know of the service behind it. Any thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "api/service.h"

/* Its loop shows life (it does so every 100 ms) or is in the middle of a step, and what computes is not lost.
 */
bool service_is_alive(struct service *service);
/* vtable->admit_call, where there is one. */
err_t service_admit_call(struct service *service, const char *tenant) ERR_MUST_CHECK;
/* When to come back after RESOURCE_EXHAUSTED, in ms. */
int64_t service_pushback_ms(struct service *service);
/* The same for one refusal, which may know it itself. */
int64_t refusal_pushback_ms(struct service *service, const err_t *refusal);
