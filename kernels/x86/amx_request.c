#include "kernels/x86/amx_request.h"

#include <cpuid.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of leaf 7, EDX: not every cpuid.h has them. */
enum { CPUID_AMX_BF16 = 1 << 22, CPUID_AMX_TILE = 1 << 24, CPUID_AMX_INT8 = 1 << 25 };
enum {
    XCR0_TILES = 3 << 17,             /* configuration and data */
    ARCH_REQUEST_PERMISSION = 0x1023, /* ARCH_REQ_XCOMP_PERM of Linux's asm/prctl.h */
    XFEATURE_TILE_DATA = 18,
};

bool amx_request(void)
{
    const unsigned wanted = CPUID_AMX_BF16 | CPUID_AMX_TILE | CPUID_AMX_INT8;
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & wanted) != wanted)
        return false;
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & XCR0_TILES) != XCR0_TILES)
        return false;
    return syscall(SYS_arch_prctl, ARCH_REQUEST_PERMISSION, XFEATURE_TILE_DATA) == 0;
}
