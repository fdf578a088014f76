"""Clients of the native wire and of the protobuf service in C and C++, as their users have them: the examples of clients/,
built alone where that is what is said of them, and `bantam bench serve` over TLS with a key."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import urllib.request

import pytest

from abuse_tools import refusals
from balancing_tools import wait_until
from certificates import Authority
from conftest import BIN, CALL_LIMIT_S, DUMMY_FLAGS, ROOT, SANITIZED, SLOW, SMALL_WINDOW, Server

KEY = "sk-test-of-native-clients-0123456789"
BUILD = BIN.parent
C_EXAMPLE = BUILD / "clients/c/stream_answer"
PROMPT = "The train to"


def run(*arguments, env=None, limit_s=CALL_LIMIT_S):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BANTAM_")}
    return subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=limit_s, env=clean | (env or {}),
                          cwd=ROOT, check=False)


def run_well(*arguments, **more):
    done = run(*arguments, **more)
    assert done.returncode == 0, done.stderr or done.stdout
    return done


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("authority") / "good")
    authority.make("server", "DNS:localhost,DNS:models.example")
    authority.make("client", "URI:spiffe://example/client")
    return authority


@pytest.fixture(scope="module")
def server(directory, demo_model, authority):
    """TLS, certificates of clients looked at, one key."""
    server = Server(directory, demo_model, *authority.server_flags(), "--ssl-ca-certs", str(authority.path("ca.pem")),
                    "--ssl-cert-reqs", "optional", env={"BANTAM_API_KEY": KEY})
    yield server
    server.stop()
    assert KEY not in server.output(), "a key was logged"


@pytest.fixture(scope="module")
def key_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "key.txt"
    path.write_text(KEY + "\n")
    return path


@pytest.fixture(scope="module")
def expected(demo_model):
    """The same answer without a server: its text and its token ids."""
    done = run_well(BIN, "run", demo_model, "--prompt", PROMPT, "--max-tokens", 12, "--temperature", 0, "--threads", 1, "--json")
    return json.loads(done.stdout)


def test_c_example(demo, expected):
    done = run_well(C_EXAMPLE, "--target", demo.target, "--max-tokens", 12, PROMPT)
    assert done.stdout == expected["text"]
    assert re.fullmatch(r"length: \d+ \+ 12 tokens of model, fingerprint [0-9a-f]{16}", done.stderr.strip())
    chat = run_well(C_EXAMPLE, "--target", demo.target, "--chat", "Hello!")
    assert chat.stdout


def test_c_example_over_tls(server, authority, key_file, expected):
    target = ["--target", f"127.0.0.1:{server.port}", "--max-tokens", 12]
    trust = ["--ca", authority.path("ca.pem"), "--server-name", "models.example"]
    done = run_well(C_EXAMPLE, *target, *trust, PROMPT, env={"BANTAM_API_KEY": KEY})
    assert done.stdout == expected["text"]
    show = ["--cert", authority.path("client.pem"), "--key", authority.path("client.key")]
    run_well(C_EXAMPLE, *target, *trust, *show, "--api-key-file", key_file, PROMPT)
    for arguments, word in (([*trust], "UNAUTHENTICATED"), ([], "UNAVAILABLE"), ([*trust[:2]], "UNAVAILABLE")):
        refused = run(C_EXAMPLE, *target, *arguments, PROMPT)
        assert refused.returncode == 1 and f"stream_answer: {word}: " in refused.stderr, refused.stderr


def test_c_example_says_what_is_wrong(dummy, tmp_path):
    unreachable = run(C_EXAMPLE, "--target", "127.0.0.1:1", PROMPT)
    assert unreachable.returncode == 1 and "UNAVAILABLE" in unreachable.stderr
    # A server without a tokenizer takes no text, and a request that cannot end in time is ended.
    assert "INVALID_ARGUMENT" in run(C_EXAMPLE, "--target", dummy.target, PROMPT).stderr
    late = run(C_EXAMPLE, "--target", dummy.target, "--timeout", "0.000001", PROMPT)
    assert late.returncode == 1 and "DEADLINE_EXCEEDED" in late.stderr
    missing = run(C_EXAMPLE, "--ca", tmp_path / "none.pem", PROMPT)
    assert missing.returncode == 1 and "none.pem" in missing.stderr
    assert run(C_EXAMPLE).returncode == 2


@pytest.mark.skipif(SANITIZED, reason="a library with sanitizers needs a program with sanitizers: the release build is installed")
def test_installed_library(demo, expected, tmp_path):
    """A stranger's program, against the installed library alone."""
    prefix = tmp_path / "prefix"
    run_well("cmake", "--install", BUILD, "--component", "client", "--prefix", prefix)
    (pc,) = prefix.rglob("bantam-client.pc")
    (archive,) = prefix.rglob("libbantam_client.a")
    symbols = [line.split()[-1] for line in run_well("nm", "-g", "--defined-only", archive).stdout.splitlines() if " T " in line]
    ours = r"bantam_\w+|err_\w+|clock_monotonic|virtual_clock_init|finish_reason_name"
    assert "bantam_client_open" in symbols and all(re.fullmatch(ours, symbol) for symbol in symbols), symbols
    source = tmp_path / "stream_answer.c"
    shutil.copy(ROOT / "clients/c/examples/stream_answer.c", source)
    found = run_well("pkg-config", "--cflags", "--libs", "bantam-client", env={"PKG_CONFIG_PATH": str(pc.parent)})
    program = tmp_path / "stream_answer"
    run_well("cc", "-std=c17", "-Wall", "-Wextra", "-Werror", source, *found.stdout.split(), "-o", program)
    assert not [word for word in found.stdout.split() if str(ROOT) in word]
    done = run_well(program, "--target", demo.target, "--max-tokens", 12, PROMPT)
    assert done.stdout == expected["text"]


@pytest.fixture(scope="module")
def cpp_example():
    """Built as clients/cpp/README.md says, and kept for the next run; compiling is what it costs: in one unit, without optimisation."""
    if SANITIZED:
        pytest.skip("it has no code of ours: run against the release build")
    missing = [tool for tool in ("grpc_cpp_plugin", "protoc", "pkg-config") if not shutil.which(tool)]
    if missing or run("pkg-config", "--exists", "grpc++", "protobuf").returncode:
        pytest.skip(f"C++ needs libgrpc++-dev, libprotobuf-dev and protobuf-compiler-grpc (scripts/setup test); missing: {missing}")
    folder = BUILD / "cpp_client"
    run_well("cmake", "-G", "Ninja", "-S", ROOT / "clients/cpp", "-B", folder, "-DCMAKE_BUILD_TYPE=None",
             "-DCMAKE_CXX_FLAGS=-O0", "-DCMAKE_UNITY_BUILD=ON", limit_s=600)
    run_well("cmake", "--build", folder, limit_s=600)
    return folder / "engine_client"


def test_cpp_example(cpp_example, demo, server, authority, expected):
    done = run_well(cpp_example, "--target", demo.target, "--max-tokens", 12, PROMPT)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("model: model, up to ")
    assert lines[1] == "tokens: " + " ".join(map(str, expected["token_ids"]))
    assert re.fullmatch(r"finished: length, \d+ \+ 12 tokens", lines[2])
    trust = ["--target", f"localhost:{server.port}", "--ca", authority.path("ca.pem"), "--max-tokens", 12]
    assert run_well(cpp_example, *trust, PROMPT, env={"BANTAM_API_KEY": KEY}).stdout.splitlines()[1] == lines[1]
    refused = run(cpp_example, *trust, PROMPT)
    assert refused.returncode == 1 and "status 16: " in refused.stderr
    assert "status 3: " in run(cpp_example, "--target", demo.target, "--ids", "1,99999999").stderr


def bench_command(server, *arguments):
    common = ["--target", f"127.0.0.1:{server.port}", "--num-prompts", 12, "--max-concurrency", 4, "--random-input-len", 8,
              "--random-output-len", 4, "--ignore-eos", "--json"]
    return [str(word) for word in (BIN, "bench", "serve", *common, *arguments)]


@contextlib.contextmanager
def all_seats(server, n):
    """A stream that holds the n seats until it is cancelled: nobody reads it."""
    with server.connect(*SMALL_WINDOW) as slow:
        held = slow.generate(input_ids=[5], **SLOW, n=n)
        next(held)
        yield held


def bench(server, *arguments, env=None):
    return run(*bench_command(server, *arguments), env=env)


def test_bench_over_tls_with_a_key(server, authority, key_file):
    trust = ["--ssl-ca-certs", authority.path("ca.pem"), "--ssl-server-name", "localhost"]
    show = ["--ssl-certfile", authority.path("client.pem"), "--ssl-keyfile", authority.path("client.key")]
    for arguments, env in (([*trust], {"BANTAM_API_KEY": KEY}), ([*trust, *show, "--api-key-file", key_file], None),
                           ([*trust, "--header", "x-bantam-tenant=acme", "--balancing", "round-robin", "--retries", 2], {"BANTAM_API_KEY": KEY})):
        done = bench(server, *arguments, env=env)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["completed"], report["failed"], report["total_output_tokens"]) == (12, 0, 48)
        assert report.get("retries") == (0 if "--retries" in arguments else None)
        assert KEY not in done.stderr
    warned = bench(server, *trust, "--api-key", KEY)
    assert warned.returncode == 0 and "list of processes" in warned.stderr and KEY not in warned.stderr
    for arguments, word in (([*trust], "no API key"), ([], "connect"), ([*trust, "--ssl-certfile", show[1]], "key")):
        refused = bench(server, *arguments)
        assert refused.returncode != 0 and refused.stdout == "" and word in refused.stderr, refused.stderr
    assert bench(server, *trust, "--header", "nothing").returncode == 2


def test_bench_tries_refused_requests_again(start, dummy_model):
    """One place in the queue, twelve at the door: without retries most fail, with them nobody does."""
    server = start(dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "1", "--max-waiting", "1")

    def bench_of_twelve(*arguments):
        n_before = refusals(server)
        with all_seats(server, 1) as held, subprocess.Popen(bench_command(server, "--max-concurrency", 12, *arguments),
                                                            stdout=subprocess.PIPE, text=True) as process:
            wait_until(lambda: refusals(server) > n_before)
            held.cancel()
            output, _ = process.communicate(timeout=CALL_LIMIT_S)
        return process.returncode, json.loads(output)

    _, report = bench_of_twelve()
    assert report["failed"] > 0 and "retries" not in report
    status, report = bench_of_twelve("--retries", 99)
    assert status == 0, report
    assert (report["completed"], report["failed"]) == (12, 0) and report["retries"] > 0


def generated_tokens(server):
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=CALL_LIMIT_S) as answer:
        return int(float(re.search(r"^vllm:generation_tokens_total\S* (\S+)$", answer.read().decode(), re.M).group(1)))


def test_bench_is_stopped(dummy):
    """Ctrl-C in the middle: the report of what has ended, and no request that was under way is in it, done or failed."""
    before = generated_tokens(dummy)
    command = bench_command(dummy, "--num-prompts", 1000000, "--random-output-len", 16)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: generated_tokens(dummy) > before + 200)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=CALL_LIMIT_S)
    report = json.loads(output)
    assert process.returncode == 130 and report["interrupted"] and report["num_prompts"] == 1000000
    assert report["completed"] > 0 and report["failed"] == 0 and report["total_output_tokens"] == 16 * report["completed"]


def test_bench_says_what_the_cache_had(dummy):
    """The same prompts once more: the figures are of the prefix cache, and the report says so."""
    command = [word for word in bench_command(dummy, "--random-input-len", 64, "--seed", 77) if word != "--json"]
    first, second = run_well(*command).stdout, run_well(*command).stdout
    assert "(0 from the prefix cache)" in first and "--seed" not in first
    assert re.search(r"^note .*prefix cache.*--seed", second, re.M), second


def test_bench_across_a_restart(start, dummy_model):
    """The server goes in the middle of a load and comes back: with retries nobody's request fails."""
    flags = [*DUMMY_FLAGS, "--max-num-seqs", "16"]
    first = start(dummy_model, *flags)
    load = ["--num-prompts", 300 if SANITIZED else 1500, "--max-concurrency", 8, "--random-output-len", 64, "--retries", 99]
    with subprocess.Popen(bench_command(first, *load), stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: generated_tokens(first) > 1000)
        first.terminate()
        assert first.wait() == 0
        start(dummy_model, *flags, "--port", str(first.port))
        output, _ = process.communicate(timeout=CALL_LIMIT_S)
    report = json.loads(output)
    assert (report["completed"], report["failed"]) == (load[1], 0)
    assert report["total_output_tokens"] == 64 * load[1] and report["retries"] > 0
