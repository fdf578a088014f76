/* Marks functions in headers that nvcc compiles for the device as well as for the host; nothing elsewhere. */
#pragma once

#ifdef __CUDACC__
#define HOST_DEVICE __host__ __device__
#else
#define HOST_DEVICE
#endif
