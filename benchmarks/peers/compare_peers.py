#!/usr/bin/env python3
"""Bantam beside other programs on the same GGUF file: ratios, run in turn.

    python3 benchmarks/peers/compare_peers.py NAME --llama-cpp BUILD/bin [--ik-llama-cpp BUILD/bin] [--openvino VENV]
        [--parts greedy,prefill,decode,servers,calls,start] [--shapes demo,llama-3.2-1b,llama-3.2-3b,llama-3.1-8b]
        [--gguf FILE,..] [--files FOLDER] [--results FOLDER] [--threads 2] [--repeat 3] [--prefill 128,512,2048]
        [--decode 1,4,8,16,32] [--context 128,1024] [--output-len 32] [--clients 1,8,32] [--isa avx2]
        [--checkkernel build/release/tests/kernels/checkkernel]

BUILD/bin holds llama-bench, llama-batched-bench and llama-server, already built (ik_llama.cpp's take the same flags); VENV is
a virtual environment with the Python package openvino-genai. The files, with random Q4_0 weights, are made once in FOLDER by
make_random_gguf.py, the demo model's by make_demo_gguf.py; --gguf names more files that are there. All programs compute with
the codes of the file, on the same number of threads. Parts, which run alone by name:

greedy   Both servers' greedy answers to the same ids, on a small model of random weights and on --shapes and --gguf: token
         by token, to the first place where they differ, which must be a tie within 0.25 nats by Bantam's log-probabilities,
         or to the other's end. It comes first: a program that answers otherwise is left out of that file's other parts, and
         out of everything where it is the small model; so is a file that Bantam fails. Each part left out is told of.
prefill  Tokens/s of one prompt, behind one to warm up.
decode   Tokens/s of all sequences together after their prompts of --context tokens.
servers  `bantam bench serve` over HTTP, whoever serves: 16 clients in a closed loop, 200 tokens in and 64 out.
calls    The same with what small models are deployed for: 400 tokens of shared instructions and 60 new ones in, 1 to 20 out,
         for each number of --clients; prompt caches are on and warm.
start    From the start of a server to its first answer of one token, the file in the page cache; peaks of resident memory
         (VmHWM, what is mapped of the file included) here and in the two parts above. Nobody computes anything before its
         first request: llama-server is told to leave out its warm-up run (--no-warmup, where its --help has that), which
         Bantam has none of and whoever waits for one token has no use for. The row's "flags" say who was told what; a row
         without them is of before, with the warm-up run.

OpenVINO has the parts prefill and decode alone, and the peak of memory in start: of a process that answered one token.

--limit-s ends a program that is stuck. A run gets more by what it computes (tokens by the size of the file), so that a slow
program loses no row: 32 sequences of 128 + 32 tokens of an 8B file (4.7 GB) 40 minutes.

--isa keeps Bantam to that level (BANTAM_ISA) and is written down with the machine; the other programs are whatever they were
built for, so that figures of a machine without AVX-512 take one built without. A results file has figures of one level.

--checkkernel: what two threads have of 8-bit products is measured before and after each of Bantam's runs of prefill and decode,
and a row says which share of it the linear layers were: two operations for each of their weights and token (the LM head's
count in decode), by the mean of the two. The rate of a shared machine jumps; a ceiling of another minute says little.

Every figure is the median of --repeat runs, each program's run next to the others', for the machine may slow down in
between. A ratio above 1 is Bantam ahead, of memory Bantam's by the other's. NAME-peers.json and .md of the results' folder
are written after every figure; figures that are there from runs before stay until they are measured again, each with
Bantam's commit ("+": of a working copy that is not it), the others' versions as they say them, and the load average.
Standard library only."""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import gguf_header
import make_demo_gguf
import make_random_gguf
import peer_programs

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import figures  # noqa: E402: names the machine

FAILURES = (OSError, RuntimeError, ValueError, KeyError)
ISA_LEVELS = ("auto", "scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "amx")
PARTS = ("greedy", "prefill", "decode", "servers", "calls", "start")
# Wide enough for logits that lie apart, as those of a model that has learnt something do.
CHECK_SHAPE = {"vocab_size": 2048, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
               "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 1024,
               "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
CHECK_SCALE, CHECK_TOKENS, CHECK_PROMPTS, CHECK_CONTEXT, TIE_NATS = 0.12, 24, 4, 256, 0.25
CLIENTS, CLIENT_TOKENS = 16, (200, 64)
SHARED, NEW, CALL_TOKENS = 400, 60, (1, 20)
START_CONTEXT = 512
MORE_IS_BETTER = {"tok/s": True, "calls/s": True, "ms": False}  # MiB: a ratio of sizes


def git_commit():
    """Of the working copy; with "+" where files have changed since that are not results or docs."""
    git = ["git", "-C", ROOT]
    done = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    sources = [":/", ":(top,exclude)benchmarks/results", ":(top,exclude)docs"]
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *sources], capture_output=True, check=False).returncode == 1
    return done.stdout.strip() + ("+" if changed else "")


def ratio(unit, ours, theirs):
    if unit == "tokens" or not ours or not theirs:
        return None
    return theirs / ours if MORE_IS_BETTER.get(unit) is False else ours / theirs


def origin_cell(row):
    """Rows of before versions were kept have none."""
    versions = [f"{name} {version}" for name, version in row.get("versions", {}).items()]
    return "; ".join([f"{row['commit']}, {len(row['samples']['bantam'])}, {row['load_average']}", *versions])


def peer_cells(row, name):
    figure = f"{row['medians'][name]:.1f}" if name in row["medians"] else ""
    value = row["ratios"].get(name)
    return f"{figure} | {value:.2f}" if value else f"{figure} | "


class Results:
    """The table, on disk after every row."""

    def __init__(self, arguments, peers):
        self.arguments, self.peers = arguments, peers
        self.path = arguments.results / f"{arguments.name}-peers.json"
        before = json.loads(self.path.read_text()) if self.path.exists() else {"figures": []}
        self.rows = before["figures"]
        isa = before.get("machine", {}).get("isa", arguments.isa if not self.rows else "auto")
        if isa != arguments.isa:
            raise RuntimeError(f"{self.path.name} has figures of --isa {isa}: those of {arguments.isa} need another name")
        cpu = before.get("machine", {}).get("cpu", figures.cpu_name())
        if self.rows and cpu != figures.cpu_name():
            raise RuntimeError(f"{self.path.name} has figures of {cpu}: those of {figures.cpu_name()} need another name")

    def add(self, part, file, what, unit, samples, **more):
        medians = {name: statistics.median(values) for name, values in samples.items()}
        ratios = {name: ratio(unit, medians["bantam"], value) for name, value in medians.items() if name != "bantam"}
        versions = {peer.name: peer.version for peer in self.peers if peer.name in samples and peer.version}
        row = {"part": part, "file": file, "what": what, "unit": unit, "medians": medians, "ratios": ratios, "samples": samples,
               "commit": git_commit(), "versions": versions, "load_average": round(os.getloadavg()[0], 1),
               "date": time.strftime("%Y-%m-%d")} | more
        key = (part, file, what)
        self.rows = [old for old in self.rows if (old["part"], old["file"], old["what"]) != key] + [row]
        peer_programs.say("")
        print(f"{part:8} {file:22} {what:38} " + "  ".join(f"{name} {value:.1f}" for name, value in medians.items())
              + f" {unit}  " + "  ".join(f"{value:.2f}x" for value in row["ratios"].values() if value), flush=True)
        self.write()

    def write(self):
        arguments = self.arguments
        machine = {"cpu": figures.cpu_name(), "cpus": os.cpu_count(), "extensions": figures.cpu_extensions(),
                   "threads": arguments.threads, "repeat": arguments.repeat, "isa": arguments.isa}
        self.path.write_text(json.dumps({"machine": machine, "figures": self.rows}, indent=1) + "\n")
        peers = list(dict.fromkeys(name for row in self.rows for name in row["medians"] if name != "bantam"))
        lines = [f"# Bantam beside others: {machine['cpu']}, {machine['cpus']} CPUs", "",
                 f"{', '.join(machine['extensions'])}; "
                 + (f"Bantam kept to {machine['isa']} by --isa; " if machine["isa"] != "auto" else "")
                 + f"{machine['threads']} threads, the same file. "
                 "Medians of runs in turn (JSON: every sample). A ratio above 1 is Bantam ahead; of MiB it is Bantam's by the other's.",
                 "`benchmarks/peers/compare_peers.py` says what each part is. The last column is Bantam's commit, the number of "
                 "runs, the load average, and the others' versions where the row has them.", ""]
        for part in PARTS:
            rows = [row for row in self.rows if row["part"] == part]
            if not rows:
                continue
            lines += [f"## {part}", "", "| file | what | unit | Bantam | " + " | ".join(f"{name} | ratio" for name in peers)
                      + " | commit, runs, load; versions |", "|---|---|---|---:|" + "---:|---:|" * len(peers) + "---|"]
            for row in rows:
                cells = [peer_cells(row, name) for name in peers]
                lines.append(f"| {row['file']} | {row['what']} | {row['unit']} | {row['medians']['bantam']:.1f} | "
                             f"{' | '.join(cells)} | {origin_cell(row)} |")
            lines.append("")
        self.path.with_suffix(".md").write_text("\n".join(lines))


class Comparison:
    def __init__(self, arguments, peers):
        self.arguments, self.peers = arguments, peers
        self.servers = [peer for peer in peers if peer.serves]
        self.results = Results(arguments, peers)
        self.began = time.monotonic()
        self.n_failed = 0
        self.left_out = set()  # (file, name of a program) whose answers were wrong; file None: of every file

    def tell(self, what, error):
        self.n_failed += 1
        peer_programs.say("")
        print(f"compare_peers: {what}: {error}", file=sys.stderr)

    def try_peer(self, what, peer, ask):
        """(true, ask(peer)), or (false, None) where it fails, which costs nobody else's figures; Bantam's own failure is raised"""
        try:
            return True, ask(peer)
        except FAILURES as error:
            if peer.name == "bantam":
                raise
            self.tell(f"{what}, {peer.name}", error)
            return False, None

    def right_ones(self, file, peers):
        """Those of the programs whose greedy answers were not wrong."""
        return [peer for peer in peers if not {(file, peer.name), (None, peer.name)} & self.left_out]

    def in_turn(self, what, peers, ask):
        """{name: [ask(peer) of every run]}, of those that did not fail"""
        answers = {peer.name: [] for peer in peers}
        for i in range(self.arguments.repeat):
            for peer in [peer for peer in peers if peer.name in answers]:
                elapsed = time.monotonic() - self.began
                peer_programs.say(f"[{elapsed:.0f} s] {what}: {peer.name}, run {i + 1} of {self.arguments.repeat}")
                went_well, answer = self.try_peer(what, peer, ask)
                if went_well:
                    answers[peer.name].append(answer)
                else:
                    del answers[peer.name]
        return answers

    def measure(self, part, file, what, ask):
        """Tokens/s, and of Bantam which share of the machine's products its linear layers were."""
        peers = self.right_ones(file, self.peers)
        peaks = []  # GOP/s beside each of Bantam's runs

        def ask_beside_peak(peer):
            if peer.name != "bantam" or not self.arguments.checkkernel:
                return ask(peer)
            before = peer_programs.products_gop_s(self.arguments)
            answer = ask(peer)
            peaks.append((before + peer_programs.products_gop_s(self.arguments)) / 2)
            return answer

        samples = self.in_turn(f"{part}, {file.stem}, {what}", peers, ask_beside_peak)
        self.results.add(part, file.stem, what, "tok/s", samples)
        if peaks:
            layers, head = gguf_header.linear_weights(file)
            weights = layers + (head if part == "decode" else 0)
            shares = [100 * 2 * weights * rate / 1e9 / peak for rate, peak in zip(samples["bantam"], peaks)]
            self.results.add(part, file.stem, f"{what}: of the 8-bit products' peak", "%", {"bantam": shares}, peaks_gop_s=peaks)

    def start_servers(self, stack, what, file, slots, context):
        """{peer: its server}, of those that start; stack stops them"""
        started = {}
        for peer in self.right_ones(file, self.servers):
            went_well, server = self.try_peer(what, peer, lambda peer: stack.enter_context(peer.ready_server(file, slots, context)))
            if went_well:
                started[peer] = server
        return started

    # --- files

    def file(self, shape):
        folder = self.arguments.files
        path = folder / ("demo-q8_0.gguf" if shape == "demo" else f"{shape}-q4_0.gguf")
        if path.exists():
            return path
        peer_programs.say(f"making {path.name}")
        if shape == "demo":
            make_demo_gguf.write_demo(ROOT / "demo/model", path)
        else:
            config = json.loads((ROOT / "benchmarks/shapes" / shape / "config.json").read_text())
            make_random_gguf.write_gguf(config, shape, "q4_0", 1, path)
        return path

    def check_file(self):
        path = self.arguments.files / "check-q4_0.gguf"
        if not path.exists():
            make_random_gguf.write_gguf(CHECK_SHAPE, "check", "q4_0", 7, path, scale=CHECK_SCALE)
        return path

    # --- parts

    def part_greedy(self, file):
        n_ids = min(gguf_header.vocab_size(file), 1000) - 8
        prompts = [[5 + (37 * i + 101 * k * k) % n_ids for i in range(12)] for k in range(1, CHECK_PROMPTS + 1)]
        what = f"greedy, {file.stem}"
        same = {"bantam": [CHECK_TOKENS * CHECK_PROMPTS]}
        ties = {}
        with contextlib.ExitStack() as stack:
            servers = self.start_servers(stack, what, file, 1, CHECK_CONTEXT)
            bantam, *others = servers
            ours = [bantam.greedy(servers[bantam], prompt, CHECK_TOKENS) for prompt in prompts]

            def compare_with(peer):
                theirs = [peer.greedy(servers[peer], prompt, CHECK_TOKENS) for prompt in prompts]
                return zip(*(same_tokens(file, peer.name, a, b) for a, b in zip(ours, theirs)))

            for peer in others:
                went_well, compared = self.try_peer(what, peer, compare_with)
                if went_well:
                    counts, gaps = compared
                    same[peer.name], ties[peer.name] = [sum(counts)], [gap for gap in gaps if gap is not None]
        wrong = {(None if file == self.check_file() else file, peer.name) for peer in self.servers if peer.name not in same}
        self.left_out |= wrong
        if len(same) > 1:
            row = f"tokens of {CHECK_PROMPTS} answers, the same up to a tie"
            self.results.add("greedy", file.stem, row, "tokens", same, ties_nats=ties)

    def part_prefill(self, file):
        for tokens in self.arguments.prefill:
            self.measure("prefill", file, f"prefill of {tokens}", lambda peer, n=tokens: peer.prefill(file, n))

    def part_decode(self, file):
        for context in self.arguments.context:
            for sequences in self.arguments.decode:
                self.measure("decode", file, f"decode, {sequences} sequences, {context} of context",
                             lambda peer, n=sequences, c=context: peer.decode(file, n, c, self.arguments.output_len))

    def load(self, part, file, what, slots, context, n, warm_up, load, fields):
        """Loads on all servers in turn, of n requests at most. fields: {name: (unit, of the report)}"""
        vocab = ["--vocab-size", gguf_header.vocab_size(file)]
        limit_s = peer_programs.limit_of(self.arguments.limit_s, file, n * context)
        bench = lambda server, *flags: peer_programs.bench_serve(  # noqa: E731
            self.arguments.bantam, server, limit_s, *vocab, *flags)
        name = f"{part}, {file.stem}, {what}"
        with contextlib.ExitStack() as stack:
            servers = self.start_servers(stack, name, file, slots, context)
            warm = [peer for i, (peer, server) in enumerate(servers.items())
                    if self.try_peer(name, peer, lambda _, i=i, server=server: bench(server, *warm_up, "--seed", 900 + i))[0]]
            seeds = {peer: iter(range(1000, 2000)) for peer in servers}  # other prompts each run, the same for everybody
            reports = self.in_turn(name, warm, lambda peer: bench(servers[peer], *load, "--seed", next(seeds[peer])))
            peaks = {peer.name: [server.peak_rss_mib()] for peer, server in servers.items() if peer.name in reports}
        for figure, (unit, field) in fields.items():
            samples = {peer: [report[field] for report in of] for peer, of in reports.items()}
            self.results.add(part, file.stem, f"{what}: {figure}", unit, samples)
        self.results.add(part, file.stem, f"{what}: peak RSS of the server", "MiB", peaks)

    def part_servers(self, file):
        n_in, n_out = CLIENT_TOKENS
        flags = ["--random-input-len", n_in, "--max-concurrency", CLIENTS]
        self.load("servers", file, f"{CLIENTS} clients, {n_in} in, {n_out} out", CLIENTS, n_in + n_out + 56,
                  max(CLIENTS, self.arguments.server_prompts), [*flags, "--num-prompts", CLIENTS, "--random-output-len", 4],
                  [*flags, "--num-prompts", self.arguments.server_prompts, "--random-output-len", n_out],
                  {"output": ("tok/s", "output_throughput"), "p50 TTFT": ("ms", "p50_ttft_ms"),
                   "p99 TTFT": ("ms", "p99_ttft_ms"), "p50 end to end": ("ms", "p50_e2el_ms"),
                   "p99 end to end": ("ms", "p99_e2el_ms")})

    def part_calls(self, file):
        for clients in self.arguments.clients:
            flags = ["--dataset-name", "prefix_repetition", "--num-prefixes", 1, "--prefix-len", SHARED, "--prefix-seed", 1,
                     "--random-input-len", SHARED + NEW, "--random-output-len-min", CALL_TOKENS[0],
                     "--random-output-len", CALL_TOKENS[1], "--max-concurrency", clients]
            n = max(self.arguments.calls_min, clients * self.arguments.calls_a_client)
            what = f"{clients} clients, {SHARED} shared + {NEW} new in, {CALL_TOKENS[0]}-{CALL_TOKENS[1]} out"
            self.load("calls", file, what, clients, SHARED + NEW + CALL_TOKENS[1] + 32, max(n, 2 * clients),
                      [*flags, "--num-prompts", 2 * clients], [*flags, "--num-prompts", n],
                      {"calls": ("calls/s", "request_throughput"), "p50 end to end": ("ms", "p50_e2el_ms"),
                       "p99 end to end": ("ms", "p99_e2el_ms"), "p99 TTFT": ("ms", "p99_ttft_ms")})

    def part_start(self, file):
        peer_programs.read_whole(file)
        got = self.in_turn(f"start, {file.stem}", self.right_ones(file, self.servers),
                           lambda peer: peer_programs.start_to_first_token(peer, file, START_CONTEXT))
        others = [peer for peer in self.right_ones(file, self.peers) if not peer.serves]
        peaks = self.in_turn(f"start, {file.stem}, peak RSS", others, lambda peer: peer.peak_rss_mib(file))
        self.results.add("start", file.stem, "start to first token, from the page cache", "ms",
                         {name: [1e3 * seconds for seconds, _ in runs] for name, runs in got.items()},
                         flags={peer.name: peer.quick_start_flags() for peer in self.servers if peer.name in got})
        self.results.add("start", file.stem, f"peak RSS, one sequence of {START_CONTEXT}", "MiB",
                         {name: [mib for _, mib in runs] for name, runs in got.items()} | peaks)


def same_tokens(file, name, ours, theirs):
    """(how many tokens are the same before the first that is not, nats between the two there or None)"""
    ids, text, likely = ours
    other_ids, other_text, _ = theirs
    if other_ids is None:  # a server that tells no ids: texts, and no ties
        if (text and not other_text) or (not text.startswith(other_text) and not other_text.startswith(text)):
            raise RuntimeError(f"{file.name}: {name} answers {other_text[:80]!r}, Bantam {text[:80]!r}")
        return len(ids), None
    for i, (a, b) in enumerate(zip(ids, other_ids)):
        if a == b:
            continue
        gap = likely[i][a] - likely[i].get(b, -1e9)
        if gap > TIE_NATS:
            raise RuntimeError(f"{file.name}: token {i} is {b} for {name} and {a} for Bantam, "
                               + ("which has not the other among its likeliest" if gap > 1e6 else f"{gap:.2f} nats apart"))
        return i, gap
    return min(len(ids), len(other_ids)), None


def numbers(text):
    return [int(word) for word in text.split(",") if word]


def words(text):
    return [word for word in text.split(",") if word]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the result files, such as zen5-2-cores")
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True, help="folder of its built programs")
    parser.add_argument("--ik-llama-cpp", type=pathlib.Path, help="folder of its built programs")
    parser.add_argument("--openvino", type=pathlib.Path, help="virtual environment with openvino-genai")
    parser.add_argument("--bantam", type=pathlib.Path, default=ROOT / "build/release/bantam")
    parser.add_argument("--parts", type=words, default=list(PARTS))
    parser.add_argument("--shapes", type=words, default=["llama-3.2-1b", "llama-3.2-3b", "llama-3.1-8b"],
                        help="folders of benchmarks/shapes; demo: the demo model")
    parser.add_argument("--gguf", type=words, default=[], help="more files, in the same tables by their names")
    parser.add_argument("--files", type=pathlib.Path, default=ROOT / "build/gguf", help="where the GGUF files are, or will be")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--prefill", type=numbers, default=[128, 512, 2048])
    parser.add_argument("--decode", type=numbers, default=[1, 4, 8, 16, 32])
    parser.add_argument("--context", type=numbers, default=[128, 1024])
    parser.add_argument("--output-len", type=int, default=32)
    parser.add_argument("--clients", type=numbers, default=[1, 8, 32])
    parser.add_argument("--server-prompts", type=int, default=64, help="requests of a run of the part servers")
    parser.add_argument("--calls-min", type=int, default=20, help="requests of a run of the part calls, at least")
    parser.add_argument("--calls-a-client", type=int, default=6, help="and so many a client")
    parser.add_argument("--checkkernel", type=pathlib.Path, help="the built program, for shares of the machine's peak")
    parser.add_argument("--isa", choices=ISA_LEVELS, default=os.environ.get("BANTAM_ISA") or "auto",
                        help="highest level that Bantam may use")
    parser.add_argument("--limit-s", type=float, default=300,
                        help="of any one program's start, and of a run, which gets 0.1 s more a token and GB of the file")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return arguments


def open_peers(arguments):
    threads, limit_s, parts = arguments.threads, arguments.limit_s, arguments.parts
    peers = [peer_programs.Bantam(arguments.bantam, threads, limit_s, arguments.isa),
             peer_programs.LlamaCpp(arguments.llama_cpp, threads, limit_s, parts=parts)]
    if arguments.ik_llama_cpp:
        peers.append(peer_programs.LlamaCpp(arguments.ik_llama_cpp, threads, limit_s, "ik_llama.cpp", parts))
    if arguments.openvino:
        peers.append(peer_programs.OpenVino(arguments.openvino, threads, limit_s, arguments.files))
    return peers


def compare(arguments, peers):
    """The number of parts that failed, and of peers that failed in one."""
    comparison = Comparison(arguments, peers)
    files = [comparison.file(shape) for shape in arguments.shapes] + [pathlib.Path(word) for word in arguments.gguf]
    for part in (part for part in PARTS if part in arguments.parts):
        for file in ([comparison.check_file()] if part == "greedy" else []) + files:
            right = [peer.name for peer in comparison.right_ones(file, peers)]
            if right[:1] != ["bantam"] or len(right) < 2:
                comparison.tell(f"{part}, {file.name}", "left out, since greedy answers failed")
                continue
            try:
                getattr(comparison, f"part_{part}")(file)
            except FAILURES as error:
                comparison.tell(f"{part}, {file.name}", error)
                if part == "greedy":
                    comparison.left_out.add((None if file == comparison.check_file() else file, "bantam"))
    return comparison.n_failed


def main():
    arguments = parse_arguments()
    peers = []
    try:
        arguments.files.mkdir(parents=True, exist_ok=True)
        arguments.results.mkdir(parents=True, exist_ok=True)
        peers = open_peers(arguments)
        return 1 if compare(arguments, peers) else 0
    except (OSError, RuntimeError, ValueError) as error:
        print(f"compare_peers: {error}", file=sys.stderr)
        return 1
    finally:
        for peer in peers:
            peer.close()


if __name__ == "__main__":
    sys.exit(main())
