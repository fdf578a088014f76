#!/usr/bin/env python3
"""Measures what the project reports, on this machine, and writes benchmarks/results/<name>.json and .md.

    python3 benchmarks/figures.py NAME [--bantam build/release/bantam] [--only demo,1b,8b,serve,start,loop,kernels] [--repeat 3]

Every figure is the median of --repeat runs and stands beside the command that made it. Parts run alone by name; a part
that fails is reported and the others go on. Standard library only.
"""

import argparse
import json
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHAPES = {"1b": "benchmarks/shapes/llama-3.2-1b", "8b": "benchmarks/shapes/llama-3.1-8b"}
DUMMY = ["--load-format", "dummy", "--skip-tokenizer-init"]
STREAMS = (1, 8, 32)
READY_TIMEOUT_S = 300


class Figures:
    def __init__(self, bantam, checkkernel, repeat):
        self.bantam, self.checkkernel, self.repeat = str(bantam), str(checkkernel), repeat
        self.rows = []  # {"part", "what", "command", figures...}

    def add(self, part, what, command, **figures):
        shown = [os.path.relpath(word, ROOT) if word.startswith(str(ROOT)) else word for word in command]
        self.rows.append({"part": part, "what": what, "command": " ".join(shown), **figures})
        print(f"{part:8} {what:34} " + "  ".join(f"{k} {short(v)}" for k, v in figures.items()), flush=True)

    def run_json(self, command):
        """Median of every number over the repeats of a command that prints one JSON object."""
        runs = [json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
                for _ in range(self.repeat)]
        return {key: statistics.median(run[key] for run in runs) for key in runs[0]}

    def throughput(self, part, what, model, flags, input_len, output_len, streams):
        command = [self.bantam, "bench", "throughput", model, *flags, "--input-len", str(input_len), "--output-len",
                   str(output_len), "--num-prompts", str(streams), "--max-num-seqs", str(max(streams, 8)),
                   "--max-model-len", str(input_len + output_len), "--json"]
        got = self.run_json(command)
        self.add(part, f"{what}, {streams} streams", command, **{key: got[key] for key in (
            "prefill_tok_s", "decode_tok_s", "ttft_p50_ms", "peak_rss_bytes", "planned_bytes")})

    def part_loop(self):
        command = [self.bantam, "bench", "loop", "--num-seqs", "64"]
        got = self.run_json(command)
        self.add("loop", "64 sequences, no model", command, overhead_us_per_step=got["overhead_us_per_step"],
                 allocations=got["allocations"])

    def part_demo(self):
        for streams in STREAMS:
            self.throughput("demo", "bf16", "demo/model", [], 128, 64, streams)

    def dummy(self, part, quantization, input_len, output_len, streams):
        flags = [*DUMMY, "--quantization", quantization]
        self.throughput(part, quantization, SHAPES[part], flags, input_len, output_len, streams)

    def part_1b(self):
        for quantization in ("int4", "int8"):
            for streams in STREAMS:
                self.dummy("1b", quantization, 128, 32, streams)

    def part_8b(self):
        for quantization in ("int4", "int8"):
            for streams in STREAMS:
                self.dummy("8b", quantization, 32, 16, streams)

    def start_server(self, folder, model, flags):
        port_file = pathlib.Path(folder) / "port"
        command = [self.bantam, "serve", model, *flags, "--port", "0", "--port-file", str(port_file)]
        began = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (port_file.exists() and port_file.read_text().strip()):
            if process.poll() is not None or time.monotonic() - began > READY_TIMEOUT_S:
                process.kill()
                raise RuntimeError(f"{model}: the server did not get ready")
            time.sleep(0.0005)
        return process, int(port_file.read_text()), time.monotonic() - began

    def part_start(self):
        cases = [("demo bf16", "demo/model", []),
                 ("1b int4", SHAPES["1b"], [*DUMMY, "--quantization", "int4", "--max-model-len", "2048"])]
        for what, model, flags in cases:
            times, rss = [], []
            for _ in range(self.repeat):
                with tempfile.TemporaryDirectory() as folder:
                    process, _, ready_s = self.start_server(folder, model, flags)
                    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
                    rss.append(next(int(line.split()[1]) * 1024 for line in status.splitlines()
                                    if line.startswith("VmRSS")))
                    times.append(ready_s)
                    process.send_signal(signal.SIGTERM)
                    process.wait(timeout=60)
            self.add("start", f"{what}: ready", [self.bantam, "serve", model, *flags],
                     ready_s=statistics.median(times), rss_bytes=statistics.median(rss))
        self.add("start", "size of the program", ["stat", self.bantam], bytes=os.stat(self.bantam).st_size)

    def part_serve(self):
        cases = [("demo bf16", "demo/model", [], 128, 64, 200),
                 ("1b int4", SHAPES["1b"], [*DUMMY, "--quantization", "int4", "--max-model-len", "2048"], 128, 16, 32)]
        for what, model, flags, input_len, output_len, requests in cases:
            with tempfile.TemporaryDirectory() as folder:
                process, port, _ = self.start_server(folder, model, flags)
                try:
                    for streams in STREAMS:
                        command = [self.bantam, "bench", "serve", "--target", f"127.0.0.1:{port}", "--num-prompts",
                                   str(max(requests if streams > 1 else requests // 8, 4)), "--max-concurrency", str(streams),
                                   "--random-input-len", str(input_len), "--random-output-len", str(output_len),
                                   "--ignore-eos", "--json"]
                        got = self.run_json(command)
                        self.add("serve", f"{what}, {streams} streams", command, **{key: got[key] for key in (
                            "output_throughput", "median_ttft_ms", "p99_ttft_ms", "median_itl_ms", "p99_itl_ms")})
                finally:
                    process.send_signal(signal.SIGTERM)
                    process.wait(timeout=60)

    def part_kernels(self):
        command = [self.checkkernel, "--bench"]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        self.add("kernels", "every kernel", command, output=done.stdout)


def short(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    return "(see the file)" if isinstance(value, str) else str(value)


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def cpu_extensions():
    interesting = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
    flags = pathlib.Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0].split()
    return [name for name in interesting if name in flags]


def markdown(machine, rows):
    lines = [f"# Figures: {machine['cpu']}, {machine['cpus']} CPUs", "",
             f"Commit {machine['commit']}, {machine['date']}, {', '.join(machine['extensions'])}. "
             f"Medians of {machine['repeat']} runs; shared virtual machine: trust ratios more than single figures.", ""]
    lines += [f"`python3 benchmarks/figures.py {machine['name']}` makes this file; the JSON beside it has each command.", ""]
    for row in rows:
        output = row.get("output")
        figures = {k: v for k, v in row.items() if k not in ("part", "what", "command", "output")}
        shown = ", ".join(f"{k} {short(v)}" for k, v in figures.items())
        lines.append(f"- **{row['part']}**, {row['what']}: {shown}".rstrip())
        if output:
            lines += ["", "```", *(line.rstrip() for line in output.splitlines()), "```", ""]
    return "\n".join(lines) + "\n"


def main():
    parts = ("loop", "demo", "1b", "8b", "start", "serve", "kernels")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the result files, such as amx-2-cores")
    parser.add_argument("--bantam", type=pathlib.Path, default=ROOT / "build/release/bantam")
    parser.add_argument("--checkkernel", type=pathlib.Path, default=ROOT / "build/release/tests/kernels/checkkernel")
    parser.add_argument("--only", default=",".join(parts))
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    unknown = set(arguments.only.split(",")) - set(parts)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    figures = Figures(arguments.bantam.resolve(), arguments.checkkernel.resolve(), arguments.repeat)
    failed = False
    for part in arguments.only.split(","):
        try:
            getattr(figures, f"part_{part}")()
        except (OSError, RuntimeError, subprocess.SubprocessError, ValueError) as error:
            print(f"{part}: {error}", file=sys.stderr)
            failed = True
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    machine = {"name": arguments.name, "cpu": cpu_name(), "cpus": os.cpu_count(), "extensions": cpu_extensions(),
               "commit": commit.stdout.strip(), "date": time.strftime("%Y-%m-%d"), "repeat": arguments.repeat}
    results = ROOT / "benchmarks/results"
    results.mkdir(exist_ok=True)
    (results / f"{arguments.name}.json").write_text(json.dumps({"machine": machine, "figures": figures.rows}, indent=1) + "\n")
    (results / f"{arguments.name}.md").write_text(markdown(machine, figures.rows))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
