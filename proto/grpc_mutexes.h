/* gRPC core locks by Abseil's mutexes, and where these were built without NDEBUG, as Debian's are, each lock
 * and unlock keeps a graph of who waits for whom, to find deadlocks in core: a third of what a call costs. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/* From now on the graph is not kept. Before core's first lock. Nothing where core brings its own Abseil. */
void grpc_mutexes_keep_no_graph(void);

#ifdef __cplusplus
}
#endif
