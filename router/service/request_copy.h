/* A request that outlives submit. */
#pragma once

#include "api/request.h"
#include "base/error.h"

/* One block, for mem_free; NULL without memory. original is another reference of the same JSON, which
 * request_copy_free drops; hints and beyond stay behind. */
struct request *request_copy(const struct request *request);
void request_copy_free(struct request *copy); /* NULL is fine */
