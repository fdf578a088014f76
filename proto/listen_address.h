/* Addresses that a server listens on. Any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

enum { LISTEN_HOST_BYTES_MAX = 256 };

/* "127.0.0.1:50051", "[::1]:50051" */
void listen_format_address(const char *host, uint16_t port, char *out, size_t out_bytes);

/* *loopback: every address of host reaches this machine only. INVALID_ARGUMENT when host is no name or
 * address. */
err_t listen_is_loopback(const char *host, bool *loopback) ERR_MUST_CHECK;

/* Why could nobody listen there? gRPC only says that it failed; binding once more by hand tells. */
err_t listen_explain_failure(const char *host, uint16_t port) ERR_MUST_CHECK;

/* Listens on every address that host has (at most `max`); with port 0 the same free one on all. *fds [*n_fds]
 * are the caller's to close; not blocking. IO says why not. */
err_t listen_open(const char *host, uint16_t port, int *fds, size_t max, size_t *n_fds,
                  uint16_t *bound_port) ERR_MUST_CHECK;
