/* The parts of a router's configuration that are its own: each reads one value of the file, which is checked
 * for itself; what it means beside the others is route_config.c's. Errors name file, line and field. */
#pragma once

#include "router/config/route_config.h"

err_t cache_config_read(const struct yaml_value *value, char *(*environment)(const char *name),
                        struct cache_config *out) ERR_MUST_CHECK;
err_t ledger_config_read(const struct yaml_value *value, struct route_config *out) ERR_MUST_CHECK;
/* *out: allocated, freed with mem_free, also after an error. */
err_t budgets_read(const struct yaml_value *value, struct budget_config **out, size_t *n) ERR_MUST_CHECK;
err_t cascade_config_read(const struct yaml_value *value, const struct policy *policy,
                          struct cascade_config *out) ERR_MUST_CHECK;
err_t hedge_config_read(const struct yaml_value *value, const struct policy *policy,
                        struct hedge_config *out) ERR_MUST_CHECK;
err_t classifier_config_read(const struct yaml_value *value, struct classifier_config *out) ERR_MUST_CHECK;
err_t retry_config_read(const struct yaml_value *value, struct retry_config *out) ERR_MUST_CHECK;
