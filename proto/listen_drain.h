/* The end of listening, without losing a connection that a client takes for made: closing a socket resets
 * what waits in its queue, and a proxy may have sent a request there. So: hold, wait until nothing is
 * pending, then refuse. For libraries too that keep their sockets to themselves: each function works on every
 * listening TCP socket of this process at a port. Any thread. */
#pragma once

#include <stdint.h>

/* No new connection begins: its first packet is dropped, and sent again by the client a second later. */
void listen_hold(uint16_t port);
/* Connections that were made and nobody has accepted yet. */
uint32_t listen_pending(uint16_t port);
/* New connections are refused. */
void listen_refuse(uint16_t port);
