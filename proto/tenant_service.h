/* A service in front of another that holds each tenant to what identity.h says of it: quotas, priority, and
 * whose cached prefixes its requests may find. It stands behind every door alike, and in front of an engine
 * or a router. A request without a tenant is refused: the door has asked nobody who it is. */
#pragma once

#include "api/service.h"
#include "base/error.h"
#include "proto/identity.h"

struct tenant_service;

/* Both are borrowed and must outlive it. */
err_t tenant_service_open(struct service *inner, struct identity *identity,
                          struct tenant_service **out) ERR_MUST_CHECK;
/* Every stream must have been released. NULL is fine. */
void tenant_service_close(struct tenant_service *service);
struct service *tenant_service_of(struct tenant_service *service);
