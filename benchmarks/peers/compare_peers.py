#!/usr/bin/env python3
"""Bantam beside llama.cpp on the same GGUF file, offline: ratios, run in turn.

    python3 benchmarks/peers/compare_peers.py NAME --llama-cpp BUILD/bin [--shapes llama-3.2-1b,llama-3.1-8b] [--gguf FILE,..]
        [--files FOLDER] [--results FOLDER] [--threads 2] [--repeat 3] [--prefill 128,512] [--decode 1,8,32]
        [--context 128] [--output-len 32]

BUILD/bin holds llama-bench and llama-batched-bench, already built (ik_llama.cpp's take the same flags). The files, with
random Q4_0 weights, are made once in FOLDER by make_random_gguf.py; --gguf names more files that are there. Both programs
compute with the codes of the file. Every figure is the median of --repeat runs, each program's run
next to the other's, for the machine may slow down in between. Prefill: tokens/s of one prompt. Decode: tokens/s of all
sequences together after their prompts of --context tokens. Writes NAME.json and .md of the results' folder after
every figure. Standard library only."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import make_random_gguf

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import figures  # noqa: E402: names the machine


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout


class Bantam:
    name = "bantam"

    def __init__(self, program, threads):
        self.program, self.threads = program, str(threads)

    def throughput(self, file, input_len, output_len, prompts):
        total = input_len + output_len
        return json.loads(run([self.program, "bench", "throughput", file, "--skip-tokenizer-init", "--threads", self.threads, "--input-len", str(input_len), "--output-len", str(output_len), "--num-prompts", str(prompts),
                               "--max-num-seqs", str(prompts), "--max-model-len", str(total), "--json"]))

    def prefill(self, file, tokens):
        return self.throughput(file, tokens, 1, 1)["prefill_tok_s"]

    def decode(self, file, sequences, context, output_len):
        # The first token comes with the prefill.
        return self.throughput(file, context, output_len + 1, sequences)["decode_tok_s"]


class LlamaCpp:
    name = "llama.cpp"

    def __init__(self, folder, threads):
        self.bench, self.batched = folder / "llama-bench", folder / "llama-batched-bench"
        self.threads = str(threads)
        for program in (self.bench, self.batched):
            if not os.access(program, os.X_OK):
                raise RuntimeError(f"{program} is no program that runs: --llama-cpp is the folder of built programs")

    def prefill(self, file, tokens):
        rows = json.loads(run([self.bench, "-m", file, "-t", self.threads, "-p", str(tokens), "-n", "0", "-r", "1",
                               "-o", "json"]))
        return rows[0]["avg_ts"]

    def decode(self, file, sequences, context, output_len):
        cells = sequences * (context + output_len)
        out = run([self.batched, "-m", file, "-t", self.threads, "-c", str(cells), "-npp", str(context),
                   "-ntg", str(output_len), "-npl", str(sequences), "--output-format", "jsonl"])
        rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return rows[-1]["speed_tg"]


class Comparison:
    def __init__(self, arguments, peers):
        self.arguments, self.peers, self.rows = arguments, peers, []

    def measure(self, shape, what, ask):
        """ask(peer) -> tokens/s; the programs in turn, --repeat times."""
        samples = {peer.name: [] for peer in self.peers}
        for _ in range(self.arguments.repeat):
            for peer in self.peers:
                samples[peer.name].append(ask(peer))
        medians = {name: statistics.median(values) for name, values in samples.items()}
        ours, theirs = (medians[peer.name] for peer in self.peers)
        self.rows.append({"shape": shape, "what": what, "tok_s": medians, "ratio": ours / theirs, "samples": samples})
        print(f"{shape:16} {what:36} bantam {ours:8.1f}  llama.cpp {theirs:8.1f}  ratio {ours / theirs:5.2f}", flush=True)
        self.write()

    def shape(self, shape):
        arguments = self.arguments
        file = arguments.files / f"{shape}-q4_0.gguf"
        if not file.exists():
            config = json.loads((ROOT / "benchmarks/shapes" / shape / "config.json").read_text())
            make_random_gguf.write_gguf(config, shape, "q4_0", 1, file)
        self.file(shape, file)

    def file(self, shape, file):
        arguments = self.arguments
        for tokens in arguments.prefill:
            self.measure(shape, f"prefill of {tokens}", lambda peer, n=tokens: peer.prefill(file, n))
        for sequences in arguments.decode:
            self.measure(shape, f"decode, {sequences} sequences, {arguments.context} of context",
                         lambda peer, n=sequences: peer.decode(file, n, arguments.context, arguments.output_len))

    def write(self):
        machine = {"cpu": figures.cpu_name(), "cpus": os.cpu_count(), "extensions": figures.cpu_extensions(),
                   "date": time.strftime("%Y-%m-%d"), "threads": self.arguments.threads, "repeat": self.arguments.repeat}
        results, name = self.arguments.results, self.arguments.name
        (results / f"{name}.json").write_text(json.dumps({"machine": machine, "figures": self.rows}, indent=1) + "\n")
        lines = [f"# Bantam beside llama.cpp: {machine['cpu']}, {machine['cpus']} CPUs", "",
                 f"{machine['date']}, {', '.join(machine['extensions'])}, {machine['threads']} threads, shapes with random Q4_0 weights, "
                 f"the same file. Medians of {machine['repeat']} runs in turn, tokens/s.", "",
                 "| shape | what | Bantam | llama.cpp | ratio |", "|---|---|---:|---:|---:|"]
        for row in self.rows:
            ours, theirs = (f"{row['tok_s'][peer.name]:.1f}" for peer in self.peers)
            lines.append(f"| {row['shape']} | {row['what']} | {ours} | {theirs} | {row['ratio']:.2f} |")
        (results / f"{name}.md").write_text("\n".join(lines) + "\n")


def numbers(text):
    return [int(word) for word in text.split(",") if word]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the result files, such as peers-zen4-2-cores")
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True, help="folder of its built programs")
    parser.add_argument("--bantam", type=pathlib.Path, default=ROOT / "build/release/bantam")
    parser.add_argument("--shapes", default="llama-3.2-1b,llama-3.1-8b", help="folders of benchmarks/shapes")
    parser.add_argument("--gguf", default="", help="more files, in the same tables by their names")
    parser.add_argument("--files", type=pathlib.Path, default=ROOT / "build/gguf", help="where the GGUF files are, or will be")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--prefill", type=numbers, default=[128, 512])
    parser.add_argument("--decode", type=numbers, default=[1, 8, 32])
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--output-len", type=int, default=32)
    arguments = parser.parse_args()
    try:
        peers = [Bantam(arguments.bantam, arguments.threads), LlamaCpp(arguments.llama_cpp, arguments.threads)]
        arguments.files.mkdir(parents=True, exist_ok=True)
        comparison = Comparison(arguments, peers)
        for shape in filter(None, arguments.shapes.split(",")):
            comparison.shape(shape)
        for file in map(pathlib.Path, filter(None, arguments.gguf.split(","))):
            comparison.file(file.stem, file)
    except (OSError, RuntimeError, ValueError) as error:
        print(f"compare_peers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
