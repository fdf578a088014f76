/* The request log: a line at --log-level debug for the end of each choice of a request, and for each request
 * that a door refused. Names, counts and times alone: nothing of a prompt or an answer. Any thread. */
#pragma once

#include "api/event.h"
#include "api/service.h"
#include "base/error.h"

/* Whose request it is. Strings may be NULL: not known. */
struct request_log_name {
    const char *id, *tenant, *model, *door;
    const char *provider; /* who answers, where a service asks others */
};

/* An EVENT_FINISHED as its reader has it. */
void request_log_finished(const struct request_log_name *name, const struct event *finish);
/* A choice that nobody reads any more, n_output tokens of it were taken. */
void request_log_left(const struct request_log_name *name, uint32_t choice_index, uint32_t n_prompt,
                      uint32_t n_output);
/* It never was one of the service's. The names are the client's, as far as they were read, well-formed or
 * not; without a model it is the service's. */
void request_log_refused(struct service *service, const struct request_log_name *name, const err_t *error);
