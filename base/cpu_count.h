/* The part of usable_cpu_count (thread_pool.h) that reads control groups, with its paths as arguments for the
 * tests. */
#pragma once

/* n_cpus lowered to the least CPU quota, rounded up to whole CPUs, of the groups named in the file
 * groups_path (in the form of /proc/self/cgroup, v1 or v2) and of all groups above them under cgroup_root.
 * What cannot be read is no limit. */
int cpu_count_within_quota(const char *groups_path, const char *cgroup_root, int n_cpus);
