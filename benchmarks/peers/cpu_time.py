#!/usr/bin/env python3
"""CPU time of a token, Bantam's and llama.cpp's on the same GGUF file: for machines that others work on meanwhile.

    python3 benchmarks/peers/cpu_time.py FILE.gguf --llama-cpp BUILD/bin [--prefill 512] [--decode 1,32] [--context 128]
        [--repeat 3] [--bantam PROGRAM]

Each program runs on one thread, twice with different amounts of work, and what the second run's user time has more is
that of the tokens which it has more: start, loading and prompts cancel out. Medians of --repeat such pairs, the programs in
turn. It says nothing of how two threads share memory; compare_peers.py does, on a machine that is quiet. Standard library only."""

import argparse
import os
import pathlib
import resource
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
MORE = 4  # times as much work in the second run


def user_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def bantam_seconds(arguments, input_len, output_len, prompts, sequences):
    return user_seconds([arguments.bantam, "bench", "throughput", arguments.file, "--skip-tokenizer-init", "--threads", 1,
                         "--input-len", input_len, "--output-len", output_len, "--num-prompts", prompts, "--max-num-seqs", sequences,
                         "--max-model-len", input_len + output_len, "--json"])


def llama_prefill_seconds(arguments, tokens, prompts):
    return user_seconds([arguments.llama_cpp / "llama-bench", "-m", arguments.file, "-t", 1, "-p", tokens, "-n", 0, "-r", prompts,
                         "--no-warmup"])


def llama_decode_seconds(arguments, sequences, tokens):
    return user_seconds([arguments.llama_cpp / "llama-batched-bench", "-m", arguments.file, "-t", 1,
                         "-c", sequences * (arguments.context + tokens), "-npp", arguments.context, "-ntg", tokens, "-npl", sequences])


def measure(arguments, what, tokens, programs):
    """programs: for either one the seconds of `times` times the work; tokens: of once the work."""
    pairs = [[(program(MORE) - program(1)) / (tokens * (MORE - 1)) for program in programs] for _ in range(arguments.repeat)]
    ours, theirs = (statistics.median(side) * 1e3 for side in zip(*pairs))
    ratio = theirs / ours if ours > 0 else float("nan")
    print(f"{what:24} bantam {ours:8.3f} ms  llama.cpp {theirs:8.3f} ms  ratio {ratio:5.2f}", flush=True)


def numbers(text):
    return [int(word) for word in text.split(",") if word]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True, help="folder of its built programs")
    parser.add_argument("--bantam", type=pathlib.Path, default=ROOT / "build/release/bantam")
    parser.add_argument("--prefill", type=numbers, default=[512])
    parser.add_argument("--decode", type=numbers, default=[1, 32])
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    os.environ["LD_LIBRARY_PATH"] = str(arguments.llama_cpp)
    try:
        for n in arguments.prefill:
            measure(arguments, f"prefill of {n}", n, (lambda times, n=n: bantam_seconds(arguments, n, 1, times, 1),
                                                      lambda times, n=n: llama_prefill_seconds(arguments, n, times)))
        for n in arguments.decode:
            steps = 16 if n == 1 else 4
            measure(arguments, f"decode, {n} sequences", n * steps,
                    (lambda times, n=n, s=steps: bantam_seconds(arguments, arguments.context, s * times, n, n),
                     lambda times, n=n, s=steps: llama_decode_seconds(arguments, n, s * times)))
    except (OSError, RuntimeError) as error:
        print(f"cpu_time: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
