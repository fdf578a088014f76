/* Privacy as a type. Nothing reaches the way out (egress) but through a `struct shareable`, and only a
 * decision that lets a request go makes one: a request that must stay has none, so that code which would send
 * it cannot be written. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include "router/policy/policy.h"

/* Made by privacy_release alone, or from one that it made; zero = empty. */
struct shareable {
    json_t *request_; /* OpenAI's form; a reference of its own. Read it through shareable_request */
};

/* May this request leave the machine? False: it may not (the decision says local_only or refused, or the
 * process runs --offline), and *out is empty. The one place where that is asked. */
bool privacy_release(const struct policy_decision *decision, bool is_offline, const json_t *request,
                     struct shareable *out);
const json_t *shareable_request(const struct shareable *shareable); /* NULL = empty */
/* Another request, made of nothing but what `from` has (a question about it): it may leave if that may, and
 * is empty if that is. */
void shareable_derive(const struct shareable *from, const json_t *request, struct shareable *out);
void shareable_free(struct shareable *shareable);
