/* connection_watch.h for TLS: what gRPC core decrypts is counted as it comes out of SSL_read, which
 * tls_watch.c defines for the whole process. At a fault SSL_read fails, and core closes the connection. For
 * connections that are no watched server's it is OpenSSL's and nothing else. */
#pragma once

#include "base/error.h"

/* Before a watched server with TLS takes its first connection. RESOURCE_EXHAUSTED. Any thread. */
err_t tls_watch_prepare(void) ERR_MUST_CHECK;
