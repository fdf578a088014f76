/* Sockets at a port, for libraries too that keep theirs to themselves: each function works on every TCP
 * socket of this process that listens at the port. Any thread.
 *
 * The end of listening, without losing a connection that a client takes for made: closing a socket resets
 * what waits in its queue, and a proxy may have sent a request there. So: hold, wait until nothing is
 * pending, then refuse. */
#pragma once

#include <stdint.h>

/* No new connection begins: its first packet is dropped, and sent again by the client a second later. */
void listen_hold(uint16_t port);
/* Connections that were made and nobody has accepted yet. */
uint32_t listen_pending(uint16_t port);
/* New connections are refused. */
void listen_refuse(uint16_t port);

/* Who listens: their descriptors, at most max of them. Returns how many there are. */
uint32_t listen_sockets(uint16_t port, int *out, uint32_t max);
/* Connections of this process that were accepted at the port. UINT32_MAX when they cannot be counted. */
uint32_t listen_connections(uint16_t port);
