#!/usr/bin/env python3
"""Holds what ptxas said of compiled kernels to a budget: no spills, no local memory, little static shared memory, no
warnings of ptxas, every kernel for every target. Reads OBJECT.ptxas, which the build keeps beside each OBJECT.

    cmake --build build/release --target cuda_all_targets
    tests/cuda/check_compile.py --targets sm_80 sm_86 sm_89 sm_90a sm_120 -- build/release/kernels/cuda/*.cu.o

--table prints registers and shared memory of every kernel."""

import argparse
import collections
import pathlib
import re
import sys

STATIC_SHARED_MAX = 48 * 1024

# Kernels that may spill: name -> (bytes of spills and stack on any target, why).
EXCEPTIONS = {}

# Kernels by which kernels/cuda/cuda_code.c finds out whether the library has a body for the card: static shared memory on the targets
# that have one, and none elsewhere.
BODIES = {
    "linear_e4m3_as_bf16_r8": {"sm_80", "sm_86"},
    "linear_e4m3_r8": {"sm_89", "sm_120"},
    "linear_e4m3_wgmma_r8": {"sm_90a"},
    "linear_int8_stream_r16": {"sm_90a", "sm_120"},
}

ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'")
FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers")
SHARED = re.compile(r"(\d+) bytes smem")
WARNING = re.compile(r"ptxas.*\bwarning\b|Potential Performance Loss", re.I)

Kernel = collections.namedtuple("Kernel", "name target stack spills registers shared")


def read_log(text):
    """(kernels, lines with warnings) of one log."""
    kernels, warnings, entry, frame = [], [], None, None
    for line in text.splitlines():
        if WARNING.search(line):
            warnings.append(line.strip())
        if match := ENTRY.search(line):
            entry, frame = match.groups(), None
        elif entry and (match := FRAME.search(line)) and frame is None:
            frame = [int(group) for group in match.groups()]
        elif entry and frame and (match := USED.search(line)):
            shared = SHARED.search(line)
            kernels.append(Kernel(entry[0], entry[1], frame[0], frame[1] + frame[2], int(match.group(1)),
                                  int(shared.group(1)) if shared else 0))
            entry = None
    return kernels, warnings


def check_kernel(kernel, exceptions=None):
    """What is wrong with it, a line each."""
    allowed, _ = (EXCEPTIONS if exceptions is None else exceptions).get(kernel.name, (0, ""))
    where = f"{kernel.name} for {kernel.target}"
    if kernel.stack + kernel.spills > allowed:
        yield (f"{where}: {kernel.spills} bytes of spills and {kernel.stack} of local memory with {kernel.registers} "
               f"registers, at most {allowed}")
    if kernel.shared > STATIC_SHARED_MAX:
        yield f"{where}: {kernel.shared} bytes of static shared memory, at most {STATIC_SHARED_MAX}"
    if kernel.name in BODIES and (kernel.shared > 0) != (kernel.target in BODIES[kernel.name]):
        yield f"{where}: {kernel.shared} bytes of static shared memory, by which cuda_code.c would take it for another target's"


def check_log(text, targets, exceptions=None):
    """(kernels, violations) of one log."""
    kernels, violations = read_log(text)
    for kernel in kernels:
        violations.extend(check_kernel(kernel, exceptions))
    by_name = collections.defaultdict(set)
    for kernel in kernels:
        by_name[kernel.name].add(kernel.target)
    for name, found in by_name.items():
        for target in targets:
            if target not in found:
                violations.append(f"{name} was not compiled for {target}")
    if not kernels:
        violations.append("no kernel in it")
    return kernels, violations


def print_table(kernels):
    rows = collections.defaultdict(dict)
    for kernel in kernels:
        rows[kernel.name][kernel.target] = kernel
    for name, by_target in sorted(rows.items()):
        cells = [f"{target} {k.registers} reg {k.shared} B" for target, k in sorted(by_target.items())]
        print(f"{name:32} " + " | ".join(cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="*", default=[], help="what each kernel must be made for")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("objects", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    all_kernels, n_violations = [], 0
    for path in arguments.objects:
        log = path.with_name(path.name + ".ptxas")
        kernels, violations = check_log(log.read_text(encoding="utf-8"), arguments.targets)
        all_kernels += kernels
        n_violations += len(violations)
        for violation in violations:
            print(f"{path.name}: {violation}")
    if arguments.table:
        print_table(all_kernels)
    names = {kernel.name for kernel in all_kernels}
    print(f"{len(names)} kernels in {len(arguments.objects)} files, {len(all_kernels)} compiled: {n_violations} violations")
    return 1 if n_violations else 0


if __name__ == "__main__":
    sys.exit(main())
