#!/usr/bin/env python3
"""Measures what the project reports, on this machine, and writes benchmarks/results/<name>.json and .md.

    python3 benchmarks/figures.py NAME [--bantam build/release/bantam] [--only loop,demo,1b,8b,kernels] [--repeat 3]

For each model: tokens/s offline at 1, 8 and 32 streams; start to ready; time to first token and between tokens over gRPC;
the peak of resident memory, with every KV block in use, against the printed plan. Every figure is the median of --repeat
runs and stands beside the command that made it; each run over gRPC has a seed of its own, for the prefix cache would know the
prompts of the run before. The files are written after every figure, so that an interruption loses
little; progress goes to stderr. Parts run alone by name; one that fails is reported and the others go on. Standard library
only."""

import argparse
import json
import os
import pathlib
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
DUMMY = ["--load-format", "dummy", "--skip-tokenizer-init"]
STREAMS = (1, 8, 32)
READY_TIMEOUT_S = 600
STOP_TIMEOUT_S = 120
# Tokens in and out of a request: less for the larger ones, so that a run on two cores takes minutes and not hours.
MODELS = {
    "demo": {"directory": "demo/model", "flags": [], "quantizations": ("none", "int8", "int4"), "lens": (128, 64),
             "requests": {1: 25, 8: 200, 32: 320}},
    "1b": {"directory": "benchmarks/shapes/llama-3.2-1b", "flags": DUMMY, "quantizations": ("int4", "int8"), "lens": (128, 32),
           "requests": {1: 4, 8: 16, 32: 64}},
    "8b": {"directory": "benchmarks/shapes/llama-3.1-8b", "flags": DUMMY, "quantizations": ("int4", "int8"), "lens": (32, 16),
           "requests": {1: 2, 8: 8, 32: 32}},
}
OFFLINE = ("prefill_tok_s", "decode_tok_s", "ttft_p50_ms", "ttft_p99_ms", "peak_rss_bytes", "planned_bytes")
SERVED = ("output_throughput", "median_ttft_ms", "p99_ttft_ms", "median_itl_ms", "p99_itl_ms")


class Progress:
    """One line on a terminal that is written over, a line a run otherwise."""

    def __init__(self, total):
        self.total, self.done, self.began = total, 0, time.monotonic()
        self.terminal = sys.stderr.isatty()

    def run_begins(self, what):
        elapsed_s = time.monotonic() - self.began
        line = f"[{self.done + 1}/{self.total}, {elapsed_s:.0f} s] {what}"
        print(f"\r\033[K{line}" if self.terminal else line, end="" if self.terminal else "\n", file=sys.stderr, flush=True)
        self.done += 1

    def clear(self):
        if self.terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


class Server:
    """`bantam serve` on a free port, stopped at the end of the with block."""

    def __init__(self, command):
        self.folder = tempfile.TemporaryDirectory()
        self.port_file, self.log_path = (pathlib.Path(self.folder.name) / name for name in ("port", "log"))
        began = time.monotonic()
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen([*command, "--port", "0", "--http-port", "0", "--no-metrics", "--port-file",
                                             str(self.port_file)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=log)
        while not self.port_file.exists():  # written whole, by a rename
            if self.process.poll() is not None or time.monotonic() - began > READY_TIMEOUT_S:
                self.stop()
                raise RuntimeError(f"{' '.join(command)}: the server did not get ready")
            time.sleep(0.0005)
        self.ready_s = time.monotonic() - began
        self.port = int(self.port_file.read_text())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.folder.cleanup()

    def memory_bytes(self, field):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB", status, re.M).group(1)) * 1024

    def planned_bytes(self):
        printed = re.search(r"memory plan: .*? = ([\d.]+) MiB", self.log_path.read_text())
        return round(float(printed.group(1)) * 2**20)


class Figures:
    def __init__(self, arguments, parts):
        self.bantam, self.checkkernel = str(arguments.bantam.resolve()), str(arguments.checkkernel.resolve())
        self.repeat, self.name = arguments.repeat, arguments.name
        self.rows = []  # {"part", "what", "command", figures...}
        a_model = len(STREAMS) * 2 + 1  # offline, over gRPC, and starts
        runs = {part: self.repeat for part in ("loop", "kernels")} | {
            part: self.repeat * a_model * len(model["quantizations"]) for part, model in MODELS.items()} | {"kernels": 1}
        self.progress = Progress(sum(runs[part] for part in parts))

    def add(self, part, what, command, **figures):
        shown = [os.path.relpath(word, ROOT) if word.startswith(str(ROOT)) else word for word in command]
        self.rows.append({"part": part, "what": what, "command": " ".join(shown), **figures})
        self.progress.clear()
        print(f"{part:8} {what:34} " + "  ".join(f"{k} {short(v)}" for k, v in figures.items()), flush=True)
        write_results(self.name, self.repeat, self.rows)

    def run(self, what, command):
        self.progress.run_begins(what)
        return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout

    def run_json(self, what, command, fields, first_seed=None):
        """Medians of the fields over the repeats of a command that prints one JSON object; --seed counts from first_seed on."""
        runs = []
        for i in range(self.repeat):
            seed = [] if first_seed is None else ["--seed", str(first_seed + i)]
            runs.append(json.loads(self.run(f"{what}, run {i + 1} of {self.repeat}", command + seed)))
        return {field: statistics.median(run[field] for run in runs) for field in fields}

    def part_loop(self):
        command = [self.bantam, "bench", "loop", "--num-seqs", "64"]
        got = self.run_json("loop", command, ("overhead_us_per_step", "allocations"))
        self.add("loop", "64 sequences, no model", command, **got)
        self.add("loop", "size of the program", ["stat", self.bantam], bytes=os.stat(self.bantam).st_size)

    def offline(self, part, weights, flags, lens):
        for streams in STREAMS:
            command = [self.bantam, "bench", "throughput", MODELS[part]["directory"], *flags, "--input-len", str(lens[0]),
                       "--output-len", str(lens[1]), "--num-prompts", str(streams), "--max-num-seqs", str(streams),
                       "--max-model-len", str(sum(lens)), "--json"]
            what = f"{weights}, {streams} streams, offline"
            self.add(part, what, command, **self.run_json(f"{part} {what}", command, OFFLINE))

    def start(self, part, weights, serve):
        ready_s, rss_bytes = [], []
        for i in range(self.repeat):
            self.progress.run_begins(f"{part} {weights}, start, run {i + 1} of {self.repeat}")
            with Server(serve) as server:
                ready_s.append(server.ready_s)
                rss_bytes.append(server.memory_bytes("VmRSS"))
        self.add(part, f"{weights}, start", serve, ready_s=statistics.median(ready_s),
                 rss_bytes=statistics.median(rss_bytes))

    def served(self, part, weights, serve, lens):
        with Server(serve) as server:
            for streams in STREAMS:
                command = [self.bantam, "bench", "serve", "--target", f"127.0.0.1:{server.port}", "--num-prompts",
                           str(MODELS[part]["requests"][streams]), "--max-concurrency", str(streams), "--random-input-len",
                           str(lens[0]), "--random-output-len", str(lens[1]), "--ignore-eos", "--json"]
                what = f"{weights}, {streams} streams, over gRPC"
                self.add(part, what, command, **self.run_json(f"{part} {what}", command, SERVED, first_seed=1000 * streams))
            self.add(part, f"{weights}, memory of the server", serve, peak_rss_bytes=server.memory_bytes("VmHWM"),
                     planned_bytes=server.planned_bytes())

    def model(self, part):
        model = MODELS[part]
        for quantization in model["quantizations"]:
            flags = [*model["flags"], "--quantization", quantization]
            name = "bf16" if quantization == "none" else quantization
            self.offline(part, name, flags, model["lens"])
            # As long as a request gets and as many as run: at 32 streams every KV block is in use.
            serve = [self.bantam, "serve", model["directory"], *flags, "--max-num-seqs", str(max(STREAMS)), "--max-model-len",
                     str(sum(model["lens"]))]
            self.start(part, name, serve)
            self.served(part, name, serve, model["lens"])

    def part_kernels(self):
        command = [self.checkkernel, "--bench"]
        self.add("kernels", "every kernel", command, output=self.run("kernels", command))

    def part(self, name):
        if name in MODELS:
            self.model(name)
        else:
            getattr(self, f"part_{name}")()


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
             f"Medians of {machine['repeat']} runs, the kernels' of seven samples in one; shared virtual machine: "
             "trust ratios more than single figures.", ""]
    lines += [f"`python3 benchmarks/figures.py {machine['name']}` makes this file; the JSON beside it has each command.", ""]
    for part in dict.fromkeys(row["part"] for row in rows):
        lines += [f"## {part}", ""]
        tables = {}
        for row in rows:
            if row["part"] == part:
                tables.setdefault(tuple(key for key in row if key not in ("part", "what", "command")), []).append(row)
        for keys, group in tables.items():
            lines += output_block(group) if keys == ("output",) else table(keys, group)
    return "\n".join(lines) + "\n"


def output_block(group):
    return ["```", *(line.rstrip() for row in group for line in row["output"].splitlines()), "```", ""]


def table(keys, group):
    shown_keys = [re.sub("_bytes$|^bytes$", " MiB", key).replace("_", " ").strip() for key in keys]
    lines = ["| | " + " | ".join(shown_keys) + " |", "|---|" + "---:|" * len(keys)]
    for row in group:
        cells = (f"{row[key] / 2**20:.1f}" if key.endswith("bytes") else short(row[key]) for key in keys)
        lines.append(f"| {row['what']} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def write_results(name, repeat, rows):
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    machine = {"name": name, "cpu": cpu_name(), "cpus": os.cpu_count(), "extensions": cpu_extensions(),
               "commit": commit.stdout.strip(), "date": time.strftime("%Y-%m-%d"), "repeat": repeat}
    results = ROOT / "benchmarks/results"
    results.mkdir(exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps({"machine": machine, "figures": rows}, indent=1) + "\n")
    (results / f"{name}.md").write_text(markdown(machine, rows))


def main():
    parts = ("loop", *MODELS, "kernels")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the result files, such as amx-2-cores")
    parser.add_argument("--bantam", type=pathlib.Path, default=ROOT / "build/release/bantam")
    parser.add_argument("--checkkernel", type=pathlib.Path, default=ROOT / "build/release/tests/kernels/checkkernel")
    parser.add_argument("--only", default=",".join(parts))
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    unknown = set(wanted) - set(parts)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(parts)}")
    figures = Figures(arguments, wanted)
    failed = False
    for part in wanted:
        try:
            figures.part(part)
        except (OSError, RuntimeError, subprocess.SubprocessError, ValueError) as error:
            print(f"{part}: {error}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
