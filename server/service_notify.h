/* Tells a service manager how we are (systemd's sd_notify protocol: one datagram to the socket named by
 * NOTIFY_SOCKET). */
#pragma once

/* state: "READY=1", "STOPPING=1". Nothing happens without NOTIFY_SOCKET; a failure is logged and otherwise
 * ignored. */
void service_notify(const char *state);
