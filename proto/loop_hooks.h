/* For a service that would do its own work on the threads of the HTTP door, between its connections. */
#pragma once

struct event_base; /* libevent's, without locks: its thread's alone */

/* Each on the loop's thread. NULL = nobody wants to hear of it. */
struct loop_hooks {
    void (*began)(void *context, struct event_base *base); /* before the first connection */
    void (*ends)(void *context);                           /* after the last one; the base is still there */
    void *context;
};
