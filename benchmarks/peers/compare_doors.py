#!/usr/bin/env python3
"""Bantam's doors beside llama.cpp's server and grpcio's, one after the other in turn: ratios, not records.

    build/venv/bin/python benchmarks/peers/compare_doors.py NAME [--llama-cpp BUILD/bin] [--streams 4,32] [--door-streams 256]
        [--tokens 400] [--seconds 3] [--repeat 3] [--step-us 2000] [--build build/release] [--results FOLDER]

First, `bantam bench doors` for all three doors. HTTP, against `llama-server` of BUILD/bin: both serve the same tiny model of
random weights (made by make_random_gguf.py), on one thread, so that little but the servers is measured; the same client
reads N streams of --tokens tokens over raw sockets, then asks for answers of one token, 8 at once. Every token is the same
letter (logit_bias), or random bytes would be held back until they make a character. gRPC, against a server on grpcio
(asyncio) that is in this file and sends the same messages, made beforehand: N streams get one each every --step-us;
`bantam bench serve` reads them. Beside it stands what `bantam bench doors` says of Bantam's native door at the same step.
Gaps: between arrivals of a stream, each with one message or more. CPU: of the server's process alone. RSS: of the server
while the streams run, less what it was before, by stream. Every figure is the median of --repeat runs. Writes NAME.json and
.md of the results' folder. Needs grpcio and flatbuffers for the gRPC part."""

import argparse
import asyncio
import collections
import json
import os
import pathlib
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import make_random_gguf
from peer_programs import Server, free_port

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))
import figures  # noqa: E402: names the machine

SHAPE = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2,
         "num_key_value_heads": 1, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
LETTER = 65
ANSWERS_AT_ONCE = 8
DOOR_FIGURES = ("tokens_per_s", "messages_per_token", "cpu_us_per_token", "loop_cpu_us_per_token", "server_cpu_share",
                "client_cpu_share", "added_p50_us", "added_p99_us", "rss_kib_per_stream", "pauses")
WHOLE_FIGURES = ("requests_per_s", "p50_us", "p99_us", "cpu_us_per_request")
START_S = 60


def process_cpu_s(pid):
    return time.clock_gettime((~pid << 3) | 2)  # the process's CPU clock, see clock_getcpuclockid(3)


def rss_kib(pid):
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))


def percentile(values, percent):
    values = sorted(values) or [0]  # a short stream may come in one piece, without a gap
    return values[min(len(values) - 1, int(len(values) * percent / 100))]


# --- HTTP


def http_request(max_tokens, stream):
    body = json.dumps({"prompt": "hello  you", "max_tokens": max_tokens, "stream": stream, "ignore_eos": True, "temperature": 0,
                       "logit_bias": {str(LETTER): 100}, "cache_prompt": False}).encode()
    return (b"POST /v1/completions HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % len(body)) + body


class Connection:
    def __init__(self, port, selector):
        self.port, self.selector = port, selector
        self.times, self.n_messages = [], 0
        self.connect()

    def connect(self):
        self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.selector.register(self.socket, selectors.EVENT_READ, self)

    def ask(self, request):
        self.buffer = b""
        self.asked = time.perf_counter()
        self.socket.sendall(request)

    def read(self):
        """False: the server has closed the connection before it began to answer (llama.cpp's does after 100 answers)."""
        data = self.socket.recv(1 << 16)
        if not data and self.buffer:
            raise RuntimeError(f"a server closed a connection after {self.buffer[:300]!r}")
        self.buffer += data
        return bool(data)

    def ask_again(self, request):
        self.selector.unregister(self.socket)
        self.socket.close()
        asked = self.asked
        self.connect()
        self.ask(request)
        self.asked = asked

    def take_events(self, now):
        """Complete events of the stream; True at its end."""
        *events, self.buffer = self.buffer.split(b"\n\n")
        n_before = self.n_messages
        for event in events:
            if b"data: [DONE]" in event:
                return True
            if b'"error"' in event or b" 400 " in event[:16]:
                raise RuntimeError(event.decode(errors="replace")[:400])
            self.n_messages += b"data: {" in event
        if self.n_messages > n_before:
            self.times.append(now)
        return False

    def whole(self):
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(self.buffer.decode(errors="replace")[:400])
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        return len(body) >= length


def read_streams(server, n, tokens):
    idle_kib, selector = rss_kib(server.pid), selectors.DefaultSelector()
    connections = [Connection(server.port, selector) for _ in range(n)]
    request = http_request(tokens, True)
    cpu_s, began, open_kib, left = process_cpu_s(server.pid), time.perf_counter(), 0, n
    for connection in connections:
        connection.ask(request)
    while left:
        for key, _ in selector.select():
            if not key.data.read():
                raise RuntimeError("a server closed a connection before it answered")
            if key.data.take_events(time.perf_counter()):
                selector.unregister(key.data.socket)
                left -= 1
        if not open_kib and (left < n or all(c.times for c in connections)):
            open_kib = rss_kib(server.pid)
    elapsed = time.perf_counter() - began
    cpu_s = process_cpu_s(server.pid) - cpu_s
    gaps = [b - a for c in connections for a, b in zip(c.times, c.times[1:])]
    for connection in connections:
        connection.socket.close()
    return {"tokens_per_s": n * tokens / elapsed, "cpu_us_per_token": cpu_s * 1e6 / (n * tokens),
            "rss_kib_per_stream": (open_kib - idle_kib) / n, "rss_idle_mib": idle_kib / 1024,
            "gap_p50_us": percentile(gaps, 50) * 1e6, "gap_p99_us": percentile(gaps, 99) * 1e6,
            "messages_per_token": sum(c.n_messages for c in connections) / (n * tokens)}


def ask_wholes(server, seconds):
    selector, request, times = selectors.DefaultSelector(), http_request(1, False), []
    connections = [Connection(server.port, selector) for _ in range(ANSWERS_AT_ONCE)]
    cpu_s, began = process_cpu_s(server.pid), time.perf_counter()
    for connection in connections:
        connection.ask(request)
    while time.perf_counter() < began + seconds:
        for key, _ in selector.select(1):
            if not key.data.read():
                key.data.ask_again(request)
            elif key.data.whole():
                times.append(time.perf_counter() - key.data.asked)
                key.data.ask(request)
    elapsed, cpu_s = time.perf_counter() - began, process_cpu_s(server.pid) - cpu_s
    for connection in connections:
        connection.socket.close()
    return {"answers_per_s": len(times) / elapsed, "cpu_us_per_answer": cpu_s * 1e6 / len(times),
            "answer_p50_us": percentile(times, 50) * 1e6, "answer_p99_us": percentile(times, 99) * 1e6}


def start_bantam(arguments, file, n):
    port = free_port()
    command = [arguments.build / "bantam", "serve", file, "--threads", "1", "--max-num-seqs", str(n), "--max-model-len", "1024",
               "--no-enable-prefix-caching", "--http-port", str(port), "--port", "0", "--no-metrics"]
    server = Server("bantam", command, port)
    server.wait_until_ready(START_S)
    return server


def start_llama(arguments, file, n):
    port = free_port()
    command = [arguments.llama_cpp / "llama-server", "-m", file, "-t", "1", "-np", str(n), "-c", str(n * 1024),
               "--port", str(port), "--log-disable"]
    server = Server("llama.cpp", command, port)
    server.wait_until_ready(START_S)
    return server


def measure_http(start, arguments, file, n):
    server = start(arguments, file, n)
    try:
        ask_wholes(server, 0.3)
        return read_streams(server, n, arguments.tokens) | ask_wholes(server, arguments.seconds)
    finally:
        server.stop()


# --- gRPC


def reference_server(port, n_tokens, step_s):
    """What a server is that somebody writes in an afternoon: a message a stream and step, made beforehand."""
    sys.path.insert(0, str(ROOT / "clients/python"))
    import grpc
    from bantam import bantam_generated as wire
    from bantam.codec import pack

    def packed(kind, **fields):
        return pack(filled(kind, **fields))

    def filled(kind, **fields):
        message = getattr(wire, kind + "T")()
        for name, value in fields.items():
            setattr(message, name, value)
        return message

    chunk = filled("GenerateStreamChunk", tokenIds=[LETTER], text="word", promptTokens=16, completionTokens=1)
    complete = filled("GenerateComplete", finishReason="length", promptTokens=16, completionTokens=n_tokens)
    messages = [packed("GenerateResponse", requestId="reference", chunk=chunk)] * n_tokens
    messages.append(packed("GenerateResponse", requestId="reference", complete=complete))
    info = packed("ModelInfoResponse", servedModelName="reference", vocabSize=512, maxContextLength=1 << 20)
    condition, step = asyncio.Condition(), [0]

    async def generate(_, context):
        for message in messages:
            seen = step[0]
            async with condition:
                await condition.wait_for(lambda seen=seen: step[0] != seen)
            await context.write(message)

    async def model_info(_, __):
        return info

    async def serve():
        server = grpc.aio.server()
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bantam.Bantam", {
            "Generate": grpc.unary_stream_rpc_method_handler(generate),
            "ModelInfo": grpc.unary_unary_rpc_method_handler(model_info)})])
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        due = time.monotonic()
        while True:
            due = max(due + step_s, time.monotonic())
            await asyncio.sleep(due - time.monotonic())
            step[0] += 1
            async with condition:
                condition.notify_all()

    asyncio.run(serve())


def answers_grpc(arguments, port):
    command = [arguments.build / "bantam", "bench", "serve", "--target", f"127.0.0.1:{port}", "--num-prompts", "1",
               "--random-input-len", "4", "--random-output-len", "1"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def measure_reference(arguments, n):
    n_tokens, port = int(arguments.seconds * 1e6 / arguments.step_us), free_port()
    values = f"{port},{n_tokens},{arguments.step_us / 1e6}"
    server = Server("grpcio", [sys.executable, __file__, "--reference-server", values], port)
    server.wait_until_ready(START_S, lambda: answers_grpc(arguments, port))
    try:
        idle_kib, cpu_s = rss_kib(server.pid), process_cpu_s(server.pid)
        command = [arguments.build / "bantam", "bench", "serve", "--target", f"127.0.0.1:{port}", "--num-prompts", str(n),
                   "--max-concurrency", str(n), "--random-input-len", "16", "--random-output-len", str(n_tokens), "--json"]
        bench = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        time.sleep(arguments.seconds / 2)
        open_kib = rss_kib(server.pid)
        report = json.loads(bench.communicate()[0])
        cpu_s = process_cpu_s(server.pid) - cpu_s
    finally:
        server.stop()
    return {"tokens_per_s": report["output_throughput"], "cpu_us_per_token": cpu_s * 1e6 / report["total_output_tokens"],
            "rss_kib_per_stream": (open_kib - idle_kib) / n}


def bench_doors(arguments, n, *doors):
    command = [arguments.build / "bantam", "bench", "doors", ROOT / "demo/model", "--streams", str(n),
               "--step-us", str(arguments.step_us), "--seconds", str(arguments.seconds), "--json"]
    done = subprocess.run(command + [f"--door={door}" for door in doors], stdout=subprocess.PIPE, check=True)
    return {door["door"]: door for door in json.loads(done.stdout)["doors"]}


def measure_native(arguments, n):
    door = bench_doors(arguments, n, "native")["native"]
    return {key: door[key] for key in ("tokens_per_s", "cpu_us_per_token", "rss_kib_per_stream")}


def describe_doors(arguments):
    """All doors at --door-streams, from bantam bench doors alone."""
    runs = [bench_doors(arguments, arguments.door_streams) for _ in range(arguments.repeat)]
    figures_of = {}
    for name in runs[0]:
        samples = []
        for door in (run[name] for run in runs):
            sample = {key: door[key] for key in DOOR_FIGURES}
            for whole in door["wholes"]:
                sample |= {f"{key}_{whole['in_flight']}_at_once": whole[key] for key in WHOLE_FIGURES}
            samples.append(sample)
        figures_of[name] = medians(samples)
    row = {"what": f"bantam bench doors, {arguments.door_streams} streams, a token each every {arguments.step_us / 1000:g} ms; "
                   "answers of one token", "figures": figures_of, "ratios": {}}
    show(row)
    return row


# --- both


def medians(samples):
    return {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}


def compare(what, peers, repeat):
    """peers: {name: function that measures}. The programs in turn."""
    samples = collections.defaultdict(list)
    for _ in range(repeat):
        for name, measure in peers.items():
            samples[name].append(measure())
    row = {"what": what, "figures": {name: medians(values) for name, values in samples.items()}}
    ours, theirs = (row["figures"][name] for name in peers)
    row["ratios"] = {key: ours[key] / theirs[key] for key in ours if theirs.get(key)}
    show(row)
    return row


def show(row):
    print(row["what"], flush=True)
    for key in next(iter(row["figures"].values())):
        print(f"  {key:30}" + "".join(f"{name} {values[key]:12.2f}   " for name, values in row["figures"].items())
              + (f"ratio {row['ratios'][key]:.3f}" if key in row["ratios"] else ""), flush=True)


def write(arguments, rows):
    git = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    commit = git.stdout.strip()
    machine = {"cpu": figures.cpu_name(), "cpus": os.cpu_count(), "date": time.strftime("%Y-%m-%d"), "commit": commit,
               "repeat": arguments.repeat, "load_average": os.getloadavg()[0]}
    report = json.dumps({"machine": machine, "figures": rows}, indent=1)
    (arguments.results / f"{arguments.name}.json").write_text(report + "\n")
    lines = [f"# Bantam's doors beside others: {machine['cpu']}, {machine['cpus']} CPUs", "",
             f"{machine['date']}, commit {commit}, load average {machine['load_average']:.1f}. Medians of {arguments.repeat} "
             "runs in turn; benchmarks/peers/compare_doors.py says what each is.", ""]
    for row in rows:
        names = list(row["figures"])
        last = ["ratio"] if row["ratios"] else []
        lines += [f"## {row['what']}", "", f"| | {' | '.join(names + last)} |", "|---|" + "---:|" * len(names + last)]
        for key in row["figures"][names[0]]:
            values = " | ".join(f"{row['figures'][name][key]:.2f}" for name in names)
            ratio = f" {row['ratios'].get(key, float('nan')):.3f} |" if last else ""
            lines.append(f"| {key} | {values} |{ratio}")
        lines.append("")
    (arguments.results / f"{arguments.name}.md").write_text("\n".join(lines))


def run(arguments):
    rows = [describe_doors(arguments)]
    write(arguments, rows)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "tiny.gguf"
        make_random_gguf.write_gguf(SHAPE, "tiny", "q8_0", 1, file)
        for n in arguments.streams:
            if arguments.llama_cpp:
                what = f"HTTP, {n} streams of {arguments.tokens} tokens; {ANSWERS_AT_ONCE} answers of one token at once"
                rows.append(compare(what,
                                    {"bantam": lambda n=n: measure_http(start_bantam, arguments, file, n),
                                     "llama.cpp": lambda n=n: measure_http(start_llama, arguments, file, n)}, arguments.repeat))
                write(arguments, rows)
            rows.append(compare(f"gRPC, {n} streams, a token each every {arguments.step_us / 1000:g} ms",
                                {"bantam": lambda n=n: measure_native(arguments, n),
                                 "grpcio": lambda n=n: measure_reference(arguments, n)}, arguments.repeat))
            write(arguments, rows)


def numbers(text):
    return [int(word) for word in text.split(",") if word]


def main():
    if sys.argv[1:2] == ["--reference-server"]:
        port, n_tokens, step_s = sys.argv[2].split(",")
        return reference_server(int(port), int(n_tokens), float(step_s))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the result files, such as doors-zen4-2-cores")
    parser.add_argument("--llama-cpp", type=pathlib.Path, help="folder of its built programs; absent: gRPC alone")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--results", type=pathlib.Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--streams", type=numbers, default=[4, 32])
    parser.add_argument("--door-streams", type=int, default=256, help="of bantam bench doors alone")
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--step-us", type=int, default=2000)
    arguments = parser.parse_args()
    try:
        run(arguments)
    except (OSError, RuntimeError, ValueError, subprocess.CalledProcessError) as error:
        print(f"compare_doors: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
