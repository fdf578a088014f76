#!/usr/bin/env python3
"""What finds a missing wait: drops one barrier, wait or fence at a time from the kernels of kernels/cuda, compiles the files
that have it as checkkernel_races does, and runs their kernels' checks. By hand: a place takes 5 to 60 seconds of a core.

    drop_waits.py BUILD [--only linear_tile.h,norm.cu] [--words barrier,warp_sync] [--log FILE] [--minutes 9] [--list]

BUILD is a release build's folder (Ninja) with checkkernel_races in it. A line a place: who found it and how, or SURVIVED: a
hole in the checks, or a wait that nothing needs today. --log keeps the answers, and another run goes on behind those whose line
is still the same. At the end the counts, as docs/testing.md has them. Ends with 1 where a place survived."""

import argparse
import collections
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
KERNELS = ROOT / "kernels/cuda"
WORDS = ("barrier", "tile_barrier", "barrier_named", "warp_sync", "copy_async_wait", "mbarrier_wait", "wgmma_wait",
         "wgmma_fence", "fence_async_proxy", "fence_mbarrier_init", "fence_device", "dependencies_wait")
DEFINED = ("ptx.h", "ptx_device.h", "ptx_host.h", "ptx_wgmma.h")
RUN_S = 300


def sites(words):
    """[(file, number of the line, word, the text of the statement)]"""
    call = re.compile(r"(?<![\w.>])(" + "|".join(words) + r")(<[^<>;()]*>)?\([^;]*\);")
    found = []
    for path in sorted([*KERNELS.glob("*.h"), *KERNELS.glob("*.cu")]):
        if path.name in DEFINED:
            continue
        for i, line in enumerate(path.read_text().splitlines()):
            match = call.search(line.split("/*")[0])
            if match and not line.startswith(("DEVICE", "template")):
                found.append((path.name, i + 1, match.group(1), match.group(0)))
    return found


def without(file, number, statement):
    lines = (KERNELS / file).read_text().splitlines(keepends=True)
    lines[number - 1] = lines[number - 1].replace(statement, "(void)0;", 1)
    return "".join(lines)


def includes(path, seen=None):
    """Names of the files of kernels/cuda that one is made of, its own too."""
    seen = set() if seen is None else seen
    if path.name not in seen:
        seen.add(path.name)
        for name in re.findall(r'^#include "kernels/cuda/([\w.]+)"', path.read_text(), re.M):
            includes(KERNELS / name, seen)
    return seen


class Checks:
    def __init__(self, build):
        self.build = build
        self.program = build / "tests/cuda/checkkernel_races"
        commands = self.output(["ninja", "-C", build, "-t", "commands", "checkkernel_races"]).splitlines()
        self.compile, self.link = {}, None
        for line in commands:
            source = re.search(r" -c \S*/kernels/cuda/(\w+\.cu)$", line)
            if source and "cuda_kernels_checked.dir" in line:
                self.compile[source.group(1)] = shlex.split(line)
            if " -o tests/cuda/checkkernel_races " in line:
                self.link = shlex.split(line.replace(": && ", "").replace(" && :", ""))
        self.names = self.output([self.program, "--device", "cuda", "--list"]).split()
        self.made_of = {source: includes(KERNELS / source) for source in self.compile}
        self.kernels = {source: self.kernels_of(source) for source in self.compile}

    @staticmethod
    def output(command):
        return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True).stdout

    def object(self, source):
        words = self.compile[source]
        return words[words.index("-o") + 1]

    def kernels_of(self, source):
        symbols = self.output(["nm", self.build / self.object(source)])
        defined = re.findall(r" [A-Z] emu_kernel_(\w+)$", symbols, re.M)
        named = [name for name in self.names if name.removeprefix("cuda_") in defined]
        family = f"cuda_{source.split('_')[0]}_"  # a check of its family launches them too
        return named or [name for name in self.names if name.startswith(family)]

    def run(self, command, cwd):
        try:
            return subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, errors="replace",
                                  check=False, timeout=RUN_S)
        except subprocess.TimeoutExpired:
            return None

    def try_without(self, file, number, statement):
        """(who found it, what was said) or (None, which sources hold it)"""
        users = [source for source in self.compile if file in self.made_of[source]]
        with tempfile.TemporaryDirectory() as folder:
            overlay = pathlib.Path(folder)
            (overlay / "kernels/cuda").mkdir(parents=True)
            (overlay / "kernels/cuda" / file).write_text(without(file, number, statement))
            for source in users:
                changed = overlay / "kernels/cuda" / source
                words = list(self.compile[source])
                at = words.index("-o") + 1
                words[at] = overlay / f"{source}.o"
                words[-1] = changed if changed.exists() else words[-1]
                first_include = next(i for i, word in enumerate(words) if word.startswith("-I"))
                words[first_include:first_include] = [f"-I{overlay}"]
                words.insert(-2, "-w")
                words = [overlay / "deps" if word.endswith(".o.d") else word for word in map(str, words)]
                done = self.run(words, self.build)
                if done is None or done.returncode != 0:
                    return "the compiler", done.stderr.strip().splitlines()[0] if done else "no end"
                link = [str(overlay / f"{source}.o") if word == self.object(source) else word for word in self.link]
                link[link.index("-o") + 1] = overlay / "races"
                done = self.run(link, self.build)
                if done is None or done.returncode != 0:
                    raise RuntimeError(done.stderr[-500:] if done else "no end of linking")
                for name in self.kernels[source]:
                    done = self.run([overlay / "races", "--device", "cuda", "--quick", "--sparse", "--filter", name], ROOT)
                    if done is None:
                        return name, f"no end in {RUN_S} s"
                    if done.returncode != 0:
                        return name, said(done)
        return None, ", ".join(users)


def said(done):
    """The line that says why."""
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    for line in lines:
        if re.search(r"FAILED:|emulator|race|Assertion|assert", line):
            return line[:300]
    if done.returncode < 0:
        return f"signal {-done.returncode}"
    return (lines or ["nothing"])[-1][:300]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--only", default="", help="files of kernels/cuda")
    parser.add_argument("--words", default=",".join(WORDS))
    parser.add_argument("--log", type=pathlib.Path, help="JSON lines: what is there is not tried again")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--list", action="store_true", help="the places alone")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    places = sites(arguments.words.split(","))
    if arguments.only:
        places = [place for place in places if place[0] in arguments.only.split(",")]
    if arguments.list:
        for file, number, _, statement in places:
            print(f"{file}:{number}: {statement}")
        return 0
    known = {}
    if arguments.log and arguments.log.exists():
        for row in map(json.loads, arguments.log.read_text().splitlines()):
            known[row["file"], row["line"], row["statement"]] = row
    checks = Checks(arguments.build.resolve())
    began, rows = time.monotonic(), []
    for file, number, word, statement in places:
        row = known.get((file, number, statement))
        if row is None:
            if time.monotonic() - began > 60 * arguments.minutes:
                print(f"no time left: {len(places) - len(rows)} places to go")
                break
            found_by, what = checks.try_without(file, number, statement)
            row = {"file": file, "line": number, "word": word, "statement": statement, "found_by": found_by, "said": what}
            if arguments.log:
                with open(arguments.log, "a") as log:
                    log.write(json.dumps(row) + "\n")
        found = f"{row['found_by']}: {row['said']}" if row["found_by"] else f"SURVIVED ({row['said']})"
        print(f"{file}:{number}: {statement} {found}", flush=True)
        rows.append(row)
    counts = collections.Counter((row["word"], row["found_by"] is not None) for row in rows)
    print("| dropped | places | found |\n|---|---:|---:|")
    for word in WORDS:
        n, found = counts[word, True] + counts[word, False], counts[word, True]
        if n:
            print(f"| `{word}` | {n} | {found} |")
    return 1 if any(row["found_by"] is None for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
