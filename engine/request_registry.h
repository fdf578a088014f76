/* Which request ids are in use, by tenant: for abort by id and to refuse a second one. Any thread (a mutex;
 * never the loop). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct stream;
struct request_registry;

err_t request_registry_create(struct request_registry **out) ERR_MUST_CHECK;
void request_registry_destroy(struct request_registry *registry);
size_t request_registry_bytes(void); /* what create takes */

/* Keys are stream->tenant and stream->request_id. INVALID_ARGUMENT when they are in use. */
err_t request_registry_add(struct request_registry *registry, struct stream *stream) ERR_MUST_CHECK;
void request_registry_remove(struct request_registry *registry, struct stream *stream);
/* Calls fn on the stream under the lock, so that it cannot be released meanwhile; false when there is none.
 */
bool request_registry_find(struct request_registry *registry, const char *tenant, const char *request_id,
                           void (*fn)(struct stream *stream));
uint32_t request_registry_count(struct request_registry *registry);
