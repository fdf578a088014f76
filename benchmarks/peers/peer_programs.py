"""The programs that are compared: how each computes a prompt, a batch, and serves. Standard library only.

Of other programs there is nothing here but how they are called: they are built, or installed, by whoever compares."""

import http.client
import json
import os
import pathlib
import random
import re
import socket
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
POLL_S = 0.002
START_PROMPT_TOKENS = 8
TOKEN_GB_S = 0.1  # for each token and GB of the file; llama.cpp on two cores: 0.01 for a prompt, 0.03 for one token at a time


def run(command, limit_s, env=None):
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=limit_s,
                              env=env)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{' '.join(map(str, command))} took more than {limit_s:g} s") from error
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stderr.strip()[-400:]}")
    return done.stdout


def products_gop_s(arguments):
    """What the threads have of 8-bit products at this moment, with the instructions that Bantam may use."""
    line = run([arguments.checkkernel, "--products", "--threads", arguments.threads, "--isa", arguments.isa], arguments.limit_s)
    return float(re.fullmatch(r"8-bit products (\d+) GOP/s", line.strip()).group(1))


def free_port():
    """Below the range from which connections get theirs, so that it is still free when the server comes."""
    while True:
        port = random.randrange(10240, 32000)
        try:
            socket.create_server(("127.0.0.1", port)).close()
            return port
        except OSError:
            continue


def is_healthy(port):
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def peak_rss_mib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.M).group(1)) / 1024


class Server:
    """A process that answers on a port; stopped at the end of a with block."""

    def __init__(self, name, command, port, env=None):
        self.name, self.port, self.url = name, port, f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        env=env)
        self.pid = self.process.pid

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def wait_until_ready(self, limit_s, ask=None):
        deadline = time.monotonic() + limit_s
        while not (ask() if ask else is_healthy(self.port)):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.name} did not start: {' '.join(map(str, self.process.args))}")
            time.sleep(POLL_S)

    def ask(self, path, body, limit_s):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=limit_s)
        try:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{self.name} answered {answer.status}: {text[:300]!r}")
        return json.loads(text)

    def peak_rss_mib(self):
        return peak_rss_mib(self.pid)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def limit_of(limit_s, file, tokens):
    """Seconds for a run of so many tokens, computed or drawn: a slow program gets its time, a stuck one an end."""
    return limit_s + tokens * file.stat().st_size / 1e9 * TOKEN_GB_S


class Program:
    serves = True
    version = None  # as the program says it; None: it has not, or it is Bantam, whose commit stands in every row

    def __init__(self, threads, limit_s):
        self.threads, self.limit_s, self.env = str(threads), limit_s, None

    def serve(self, file, slots, context, flags=()):
        """A server for `slots` requests at once of `context` tokens each, not yet ready."""
        port = free_port()
        return Server(self.name, [*self.server_command(file, slots, context, port), *flags], port, self.env)

    def quick_start_flags(self):
        """What has a server do nothing before it listens that its first answer does not need."""
        return []

    def ready_server(self, file, slots, context):
        server = self.serve(file, slots, context)
        server.wait_until_ready(self.limit_s)
        return server

    def close(self):
        pass


class Bantam(Program):
    name = "bantam"

    def __init__(self, program, threads, limit_s, isa="auto"):
        super().__init__(threads, limit_s)
        self.program = program
        self.env = os.environ | {"BANTAM_ISA": isa}

    def bench(self, kind, file, input_len, output_len, prompts, warmups=0):
        warm = ["--num-warmups", str(warmups)] if warmups else []
        return json.loads(run([self.program, "bench", kind, file, "--skip-tokenizer-init", "--threads", self.threads,
                               "--input-len", input_len, "--output-len", output_len, "--num-prompts", prompts,
                               "--max-num-seqs", prompts, "--max-model-len", input_len + output_len, "--json", *warm],
                              limit_of(self.limit_s, file, (prompts + warmups) * (input_len + output_len)), self.env))

    def prefill(self, file, tokens):
        # One prompt before it, as llama-bench has it: the first one finds memory and caches cold.
        report = self.bench("latency", file, tokens, 1, 1, warmups=1)
        return 1000 * tokens / report["mean_ttft_ms"]

    def decode(self, file, sequences, context, output_len):
        # The first token comes with the prefill.
        return self.bench("throughput", file, context, output_len + 1, sequences)["decode_tok_s"]

    def server_command(self, file, slots, context, port):
        return [self.program, "serve", file, "--threads", self.threads, "--max-num-seqs", slots, "--max-model-len", context,
                "--http-port", port, "--port", "0", "--no-metrics"]

    def greedy(self, server, prompt, n):
        """(ids, text, at each place {id: log-probability} of the most likely)"""
        choice = server.ask("/v1/completions", {
            "prompt": prompt, "max_tokens": n, "temperature": 0, "ignore_eos": True, "logprobs": 5, "return_token_ids": True,
            "return_tokens_as_token_ids": True}, self.limit_s)["choices"][0]
        likely = [{int(word.split(":")[1]): value for word, value in place.items()}
                  for place in choice["logprobs"]["top_logprobs"]]
        return choice["token_ids"], choice["text"], likely


class LlamaCpp(Program):
    name = "llama.cpp"

    def __init__(self, folder, threads, limit_s, name="llama.cpp", parts=("prefill", "decode")):
        super().__init__(threads, limit_s)
        self.name = name
        self.bench, self.batched, self.server = (folder / f"llama-{word}" for word in ("bench", "batched-bench", "server"))
        self.env = os.environ | {"LD_LIBRARY_PATH": os.pathsep.join([str(folder), os.environ.get("LD_LIBRARY_PATH", "")])}
        wanted = {self.bench} if "prefill" in parts else set()
        wanted |= {self.batched} if "decode" in parts else set()
        wanted |= {self.server} if set(parts) - {"prefill", "decode"} else set()
        for program in sorted(wanted):
            if not os.access(program, os.X_OK):
                raise RuntimeError(f"{program} is no program that runs: {name}'s folder is the one of built programs")
        for program in (self.batched, self.server):
            if found := re.search(r"^version: (\S.*)", self.says(program, "--version"), re.M):
                self.version = found.group(1)

    def says(self, program, flag):
        """All that a program prints with a flag, whatever it thinks of it."""
        try:
            done = subprocess.run([program, flag], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                  text=True, errors="replace", check=False, timeout=self.limit_s, env=self.env)
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout

    def prefill(self, file, tokens):
        rows = json.loads(run([self.bench, "-m", file, "-t", self.threads, "-p", tokens, "-n", "0", "-r", "1", "-o", "json"],
                              limit_of(self.limit_s, file, 2 * tokens), self.env))  # once to warm up
        if not self.version and "build_commit" in rows[0]:
            self.version = f"{rows[0].get('build_number', '')} ({rows[0]['build_commit']})".strip()
        return rows[0]["avg_ts"]

    def decode(self, file, sequences, context, output_len):
        out = run([self.batched, "-m", file, "-t", self.threads, "-c", sequences * (context + output_len), "-npp", context,
                   "-ntg", output_len, "-npl", sequences, "--output-format", "jsonl"],
                  limit_of(self.limit_s, file, sequences * (context + output_len)), self.env)
        rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return rows[-1]["speed_tg"]

    def server_command(self, file, slots, context, port):
        # Its prompt cache is on by default: slots keep their last prompt. Of a model with sliding windows they can begin with
        # it again only where all of its KV is kept; ik_llama.cpp, which keeps all, has no such flag.
        whole = ["--swa-full"] if self.name == "llama.cpp" else []
        return [self.server, "-m", file, "-t", self.threads, "-np", slots, "-c", slots * context, "--cont-batching",
                "--port", port, "--log-disable", *whole]

    def quick_start_flags(self):
        """It computes an empty prompt before it listens, unless it is told not to."""
        return ["--no-warmup"] if "--no-warmup" in self.says(self.server, "--help") else []

    def greedy(self, server, prompt, n):
        """Up to its end: with ignore_eos it would never say that, and something else in its place."""
        answer = server.ask("/completion", {"prompt": prompt, "n_predict": n, "temperature": 0, "top_k": 1, "ignore_eos": False,
                                            "repeat_penalty": 1, "return_tokens": True, "cache_prompt": False}, self.limit_s)
        return answer.get("tokens") or None, answer["content"], None


class OpenVino(Program):
    """OpenVINO GenAI's continuous batching in a process of its own, which keeps a model between figures."""

    name = "openvino genai"
    serves = False

    def __init__(self, venv, threads, limit_s, models):
        super().__init__(threads, limit_s)
        self.python, self.models = venv / "bin/python", models
        self.worker, self.worker_file = None, None
        if not os.access(self.python, os.X_OK):
            raise RuntimeError(f"{self.python} is no program that runs: "
                               "--openvino is a virtual environment with openvino-genai")

    def ask(self, file, sequences, context, output_len):
        if self.worker_file != file:
            self.close()
            command = [self.python, HERE / "openvino_worker.py", file, self.models / f"{file.stem}-openvino", self.threads]
            self.worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            self.worker_file = file
            self.version = self.answer(file, 0).get("version")
        self.worker.stdin.write(json.dumps({"sequences": sequences, "context": context, "output_len": output_len}) + "\n")
        self.worker.stdin.flush()
        return self.answer(file, sequences * (context + output_len))

    def answer(self, file, tokens):
        """The next line of JSON. It ends a worker that takes longer than so many tokens may."""
        limit_s = limit_of(self.limit_s, file, tokens)
        late = threading.Event()

        def end(worker=self.worker):
            late.set()
            worker.kill()

        timer = threading.Timer(limit_s, end)
        timer.start()
        try:
            for line in self.worker.stdout:
                if line.startswith("{"):
                    return json.loads(line)
        finally:
            timer.cancel()
        status, self.worker, self.worker_file = self.worker.wait(), None, None
        raise RuntimeError(f"{self.name} took more than {limit_s:g} s on {file}" if late.is_set()
                           else f"{self.name} ended with {status} on {file}")

    def prefill(self, file, tokens):
        return self.ask(file, sequences=1, context=tokens, output_len=1)["prefill_tok_s"]

    def decode(self, file, sequences, context, output_len):
        return self.ask(file, sequences=sequences, context=context, output_len=output_len + 1)["decode_tok_s"]

    def peak_rss_mib(self, file):
        """Of a process that answers one token, of a model that another one converted."""
        if not (self.models / f"{file.stem}-openvino/openvino_model.xml").exists():
            self.prefill(file, START_PROMPT_TOKENS)
        self.close()
        self.ask(file, sequences=1, context=START_PROMPT_TOKENS, output_len=1)
        peak = peak_rss_mib(self.worker.pid)
        self.close()
        return peak

    def close(self):
        if self.worker:
            self.worker.stdin.close()
            self.worker.wait()
        self.worker = self.worker_file = None


def bench_serve(program, server, limit_s, *arguments):
    """One load of `bantam bench serve` over HTTP, whoever serves."""
    command = [program, "bench", "serve", "--openai-url", server.url, "--ignore-eos", "--json", *arguments]
    report = json.loads(run(command, limit_s))
    if report["failed"]:
        raise RuntimeError(f"{server.name}: {report['failed']} requests failed")
    return report


def start_to_first_token(peer, file, context):
    """Seconds from the start of the process to its first answer of one token, and its peak of resident memory."""
    flags = peer.quick_start_flags()
    began = time.perf_counter()
    with peer.serve(file, 1, context, flags) as server:
        server.wait_until_ready(peer.limit_s)
        prompt = list(range(1, START_PROMPT_TOKENS + 1))
        server.ask("/v1/completions", {"prompt": prompt, "max_tokens": 1, "temperature": 0}, peer.limit_s)
        return time.perf_counter() - began, server.peak_rss_mib()


def read_whole(path):
    """Into the page cache."""
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def say(text):
    """Progress: one line on a terminal that is written over, a line each otherwise; an empty one clears it."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)
