#include "proto/grpc_mutexes.h"

#ifdef BANTAM_HAS_ABSEIL
#include <absl/synchronization/mutex.h>

void grpc_mutexes_keep_no_graph(void)
{
    absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}
#else
void grpc_mutexes_keep_no_graph(void)
{
}
#endif
