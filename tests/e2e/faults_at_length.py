"""The faults of the doors at length, each with its figures. By hand:
  build/venv/bin/python tests/e2e/faults_at_length.py disconnects|slow|overload|sigterm|rolling|timing [HOW OFTEN]
  build/venv/bin/python tests/e2e/faults_at_length.py overload [HOW OFTEN [HOW MANY SECONDS EACH]]"""

import json
import pathlib
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

import grpc

from conftest import BIN, DUMMY_CONFIG, DUMMY_FLAGS, SLOW, SMALL_WINDOW, Server  # first: it says where the client is
from abuse_grpc import FACADE, WHOLE
from abuse_tools import descriptors, resident_kib
from balancing_tools import Nginx, Replica
from bantam import Client
from native_wire import HEALTH, SERVICE, generate_bytes
from raw_http2 import DATA, Http2, call
from test_balancing import CHANNEL, Load, SERVICE_CONFIG, ask_grpc, ask_grpc_whole, ask_http, roll
from test_http_faults import Peer, request

FOREVER = dict(max_tokens=6000, ignore_eos=True)


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


def milliseconds(values):
    return f"p50 {1e3 * quantile(values, 0.5):.2f}, p99 {1e3 * quantile(values, 0.99):.2f}, most {1e3 * max(values):.2f} ms"


class Folder:
    """A dummy model and the servers on it."""

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.temporary.name)
        (self.path / "config.json").write_text(json.dumps(DUMMY_CONFIG))
        self.servers = []
        return self

    def start(self, *flags):
        self.servers.append(Server(self.path, self.path, *DUMMY_FLAGS, *flags))
        return self.servers[-1]

    def __exit__(self, *_):
        for server in self.servers:
            server.stop()
        self.temporary.cleanup()


def cut(connection):
    """Abruptly (RST)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def cut_grpc(server, path, data, phase):
    """phase: 0 at once, 1 while it waits or computes its prompt, 2 while it decodes, 3 while its reader reads nothing."""
    connection = Http2(server.port, receive_bytes=4096 if phase == 3 else None)
    connection.send(call(1, path, data))
    if phase == 1:
        connection.alive()
    while phase >= 2 and (read := connection.read_frame()) is not None and read.kind != DATA:
        pass
    cut(connection.socket)


def cut_http(server, body, phase):
    peer = Peer(server, 4096 if phase == 3 else None)
    peer.send(body)
    if phase >= 2:
        peer.read_head()
    peer.cut()


def disconnects(n):
    """n on each door, in four phases by turns; more requests than run at once, so that others are cut in the queue."""
    n = int(n or 10000)
    import smg_grpc_proto.generated.vllm_engine_pb2 as facade
    prompts = [[3 + i % 500 for i in range(size)] for size in (8, 4000)]
    with Folder() as folder:
        server = folder.start("--max-num-seqs", "6", "--max-waiting", "64")
        native = [generate_bytes(input_ids=prompt, **FOREVER) for prompt in prompts]
        protobuf = [facade.GenerateRequest(tokenized={"input_ids": prompt}, stream=True,
                                           sampling_params={"max_tokens": 6000, "ignore_eos": True}).SerializeToString()
                    for prompt in prompts]
        http = [request(prompt=prompt, stream=True) for prompt in prompts]
        steady = dict(input_ids=[7, 7, 7], max_tokens=20, temperature=0, ignore_eos=True)
        expected = server.client.generate_whole(**steady)[0].token_ids
        doors = [("native", lambda long, phase: cut_grpc(server, SERVICE + "Generate", native[long], phase)),
                 ("native, whole", lambda long, phase: cut_grpc(server, WHOLE, native[long], phase % 2)),
                 ("facade", lambda long, phase: cut_grpc(server, FACADE, protobuf[long], phase)),
                 ("HTTP", lambda long, phase: cut_http(server, http[long], phase)),
                 ("operator", lambda long, phase: cut_operator(server, phase))]
        for door, run in doors:
            before, start, total = resident_kib(server), time.monotonic(), server.client.loads().requests_total
            for i in range(n):
                run(i % 5 == 1, i % 4 if i % 5 != 1 else 1)
            done = time.monotonic() - start
            server.wait_for(lambda loads: loads.requests_finished == loads.requests_total)
            loads = server.client.loads()
            print(f"{door}: {n} cut in {done:.0f} s, {loads.requests_total - total} of them accepted as requests; "
                  f"{loads.requests_total - loads.requests_finished} left; "
                  f"RSS {before / 1024:.1f} -> {resident_kib(server) / 1024:.1f} MiB", flush=True)
            assert server.client.generate_whole(**steady)[0].token_ids == expected
        loads = server.wait_idle()
        print(f"blocks in use: {loads.kv_blocks_used}; descriptors: {descriptors(server)}")


def cut_operator(server, phase):
    connection = socket.create_connection(("127.0.0.1", server.metrics_port))
    connection.sendall((b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: t\r\n\r\n" * 20,
                        b"POST /drain HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
                        )[phase])
    cut(connection)


def token_gaps(server, n_streams, tokens):
    """Times between the messages of streams that run side by side."""
    gaps = [[] for _ in range(n_streams)]

    def run(i):
        with server.connect() as client:
            last = None
            for _ in client.generate(input_ids=[4, 5 + i], max_tokens=tokens, ignore_eos=True, timeout=600):
                now = time.monotonic()
                if last:
                    gaps[i].append(now - last)
                last = now

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n_streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(gaps, [])


def slow(n):
    """n stopped readers on each door, then others' time between tokens, with and without them by turns."""
    n = int(n or 16)
    with Folder() as folder:
        server = folder.start("--max-num-seqs", str(2 * n + 8), "--num-kv-blocks", "8192", "--stream-stall-timeout", "600")
        token_gaps(server, 4, 500)
        for turn in range(3):
            alone = token_gaps(server, 4, 2000)
            before = resident_kib(server)
            with server.connect(*SMALL_WINDOW) as client:
                stopped = [client.stream(SERVICE + "Generate", generate_bytes(input_ids=[5, 6 + i], **SLOW), None)
                           for i in range(n)]
                peers = [Peer(server, 4096) for _ in range(n)]
                for call_, peer in zip(stopped, peers):
                    next(call_)
                    peer.send(request(stream=True, logprobs=20))
                    peer.read_head()
                server.wait_for(lambda loads: loads.num_paused_reqs == 2 * n)
                grown = (resident_kib(server) - before) / (2 * n)
                beside = token_gaps(server, 4, 2000)
                for call_, peer in zip(stopped, peers):
                    call_.cancel()
                    peer.__exit__()
            server.wait_idle()
            print(f"turn {turn}: between tokens alone {milliseconds(alone)}; beside {2 * n} stopped readers "
                  f"{milliseconds(beside)}; RSS {grown:.0f} KiB a stopped stream", flush=True)
        print(f"blocks in use: {server.wait_idle().kv_blocks_used}")


def bench(server, *flags):
    command = [BIN, "bench", "serve", "--target", server.target, "--random-input-len", "16", "--random-output-len", "512",
               "--ignore-eos", "--json", *map(str, flags)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return json.loads(result.stdout)


def probe_refusals(server, ends, seen):
    """Requests beside the load: how long a refusal takes, and whether it says when to come back."""
    with server.connect() as client:
        while not ends.is_set():
            start = time.monotonic()
            try:
                client.generate_whole(input_ids=[1, 2], max_tokens=1, ignore_eos=True, timeout=60)
            except grpc.RpcError as error:
                pushback = dict(error.trailing_metadata() or ()).get("grpc-retry-pushback-ms")
                seen.append((time.monotonic() - start, error.code().name, pushback))
            time.sleep(0.02)


def overload(rounds, seconds=30):
    """Ten times the rate that the server can serve for some seconds, then what it serves when it is just full: by turns."""
    rounds = int(rounds or 20)
    with Folder() as folder:
        server = folder.start("--max-num-seqs", "16", "--max-waiting", "32")

        def serve_full():
            return bench(server, "--max-concurrency", 24, "--num-prompts", 400)

        serve_full()
        ratios, seen, rss = [], [], resident_kib(server)
        for turn in range(rounds):
            peak = serve_full()
            rate = 10 * peak["request_throughput"]
            ends = threading.Event()
            prober = threading.Thread(target=probe_refusals, args=(server, ends, seen), daemon=True)
            prober.start()
            over = bench(server, "--request-rate", rate, "--num-prompts", int(int(seconds) * rate))
            ends.set()
            prober.join()
            ratios.append(over["output_throughput"] / peak["output_throughput"])
            print(f"turn {turn}: full {peak['output_throughput']:.0f} tokens/s; {rate:.0f} requests/s offered, "
                  f"{over['completed']} served, {over['output_throughput']:.0f} tokens/s: {ratios[-1]:.2f}", flush=True)
        refusals = [time_s for time_s, code, _ in seen if code == "RESOURCE_EXHAUSTED"]
        told = sum(pushback is not None for _, code, pushback in seen if code == "RESOURCE_EXHAUSTED")
        print(f"goodput under overload: median {quantile(ratios, 0.5):.2f} of the peak, {min(ratios):.2f} to {max(ratios):.2f}")
        print(f"refusals of a prober: {len(refusals)}, {milliseconds(refusals)}; {told} with pushback; "
              f"other ends: {sorted({code for _, code, _ in seen} - {'RESOURCE_EXHAUSTED'})}")
        blocks = server.wait_idle().kv_blocks_used
        print(f"RSS {rss / 1024:.0f} -> {resident_kib(server) / 1024:.0f} MiB; blocks in use: {blocks}")


def sigterm(rounds):
    """A signal while 16 streams run, on both doors: what fails, and when a watcher of health hears of it."""
    rounds = int(rounds or 30)
    heard, failed, finished = [], 0, 0
    for _ in range(rounds):
        with Folder() as folder:
            server = folder.start("--max-num-seqs", "16")
            watch = server.client.stream(HEALTH + "Watch", b"", None)
            next(watch)
            results = []

            def run_grpc(i):
                try:
                    outputs = server.client.generate(input_ids=[6, 7 + i], max_tokens=300, ignore_eos=True, timeout=100)
                    results.append(sum(len(output.token_ids) for output in outputs))
                except grpc.RpcError as error:
                    results.append(error.code())

            def run_http(i):
                with Peer(server) as peer:
                    peer.send(request(prompt=[6, 7 + i], max_tokens=300))
                    results.append(json.loads(peer.read()[2])["usage"]["completion_tokens"])

            threads = [threading.Thread(target=run, args=(i,)) for i in range(8) for run in (run_grpc, run_http)]
            for thread in threads:
                thread.start()
            server.wait_for(lambda loads: loads.requests_total >= 16)
            start = time.monotonic()
            server.terminate()
            assert next(watch) == b"\x08\x02"
            heard.append(time.monotonic() - start)
            for thread in threads:
                thread.join()
            finished += results.count(300)
            failed += len(results) - results.count(300)
            assert server.wait() == 0
    print(f"{rounds} stops: {finished} requests in flight finished, {failed} failed; NOT_SERVING after {milliseconds(heard)}")


def rolling(rounds):
    """Restarts of two replicas under load, behind nginx and behind gRPC's round robin."""
    rounds = int(rounds or 20)
    flags = (*DUMMY_FLAGS, "--max-num-seqs", "8", "--drain-delay", "0.3")
    with Folder() as folder:
        both = [Replica(folder.path, folder.path, *flags) for _ in range(2)]
        nginx = Nginx(folder.path, both)
        target = "ipv4:" + ",".join(f"127.0.0.1:{replica.ports[0]}" for replica in both)
        options = [("grpc.service_config", json.dumps(SERVICE_CONFIG)), *CHANNEL]
        with (grpc.insecure_channel(f"127.0.0.1:{nginx.grpc_port}") as one,
              grpc.insecure_channel(target, options=options) as two):
            asks = {"nginx": [lambda: ask_grpc(one), lambda: ask_grpc_whole(one), lambda: ask_http(nginx.http_port, True),
                              lambda: ask_http(nginx.http_port, False)],
                    "round robin": [lambda: ask_grpc(two), lambda: ask_grpc_whole(two)]}
            for name, some in asks.items():
                with Load(*some) as load:
                    for _ in range(rounds):
                        roll(both, load)
                print(f"{name}: {2 * rounds} restarts, {load.n_answers} answers, {len(load.failures)} failed", flush=True)
        nginx.stop()
        for replica in both:
            replica.server.stop()


def area(hits, misses):
    """Of the curve: how well a time to the first token tells a hit from a miss; 0.5 = not at all."""
    pairs = sum((hit < miss) + (hit == miss) / 2 for hit in hits for miss in misses)
    return pairs / (len(hits) * len(misses))


def timing(n):
    """One tenant computes prompts; another guesses them and as many others, and times the first token."""
    n = int(n or 400)
    from test_identity import Tenants
    with Folder() as folder:
        tenants = Tenants(folder.path / "tenants.txt", victim="", spy="")
        server = folder.start("--max-num-seqs", "2", "--num-kv-blocks", "16384", "--api-keys-file", str(tenants.path))
        victim, spy = (Client(server.target, api_key=tenants.keys[name]) for name in ("victim", "spy"))
        generator = random.Random(1)

        def ask(client, prompt):
            start = time.monotonic()
            answer = client.generate_whole(input_ids=prompt, max_tokens=1, ignore_eos=True)[0]
            return time.monotonic() - start, answer.cached_tokens

        for who, guesser in (("another tenant", spy), ("the same tenant", victim)):
            times, cached = {True: [], False: []}, 0
            for _ in range(n):
                secrets = [[generator.randrange(3, 500) for _ in range(256)] for _ in range(2)]
                ask(victim, secrets[0])
                for known in generator.sample((True, False), 2):
                    time_s, n_cached = ask(guesser, secrets[0 if known else 1])
                    times[known].append(time_s)
                    cached += n_cached
            print(f"{who}: {n} guesses right and {n} wrong, area under the curve {area(times[True], times[False]):.3f}; "
                  f"right {milliseconds(times[True])}; wrong {milliseconds(times[False])}; {cached} tokens from the cache",
                  flush=True)


if __name__ == "__main__":
    {"disconnects": disconnects, "slow": slow, "overload": overload, "sigterm": sigterm, "rolling": rolling,
     "timing": timing}[sys.argv[1]](*(sys.argv[2:] or [None]))
