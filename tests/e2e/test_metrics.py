"""What the server tells of itself: Prometheus's own tools read its metrics, counts are exact, series are a fixed set; ORCA's
load reports in trailers, in HTTP's headers and out of band."""

import json
import re
import struct
import subprocess
import threading
import time
import urllib.parse
import urllib.request

import grpc
import pytest

from balancing_tools import TOOLS, free_port, wait_until
from conftest import CALL_LIMIT_S, DUMMY_FLAGS, SLOW, SMALL_WINDOW
from native_wire import SERVICE, generate_bytes

PROMPT = [5, 6, 7, 8]
ORCA_STREAM = "/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics"
# vLLM's names have colons, and one of its histograms is named like a counter.
LINTS = re.compile(r"\S+ metric names should not contain ':'|"
                   r"vllm:iteration_tokens_total non-counter metrics should not have \"_total\" suffix")


def get(port, path, **headers):
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers),
                                timeout=CALL_LIMIT_S) as answer:
        return answer.read().decode()


def post(port, path, body, **headers):
    """(status, headers, body)"""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(),
                                     {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=CALL_LIMIT_S) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


def scrape(server):
    """{(name, labels): value}; labels without model_name."""
    values = {}
    for line in get(server.metrics_port, "/metrics").splitlines():
        if line.startswith("#"):
            continue
        name, labels, value = re.fullmatch(r"([\w:]+)(?:\{(.*)\})? (\S+)", line).groups()
        labels = re.sub(r'^model_name="[^"]*",?', "", labels or "")
        assert (name, labels) not in values, line
        values[name, labels] = float(value)
    return values


def answer_some(server, n=3):
    for _ in range(n):
        server.client.generate_whole(input_ids=PROMPT, max_tokens=5, ignore_eos=True)


@pytest.fixture(scope="module")
def idle(directory, dummy_model):
    from conftest import Server

    server = Server(directory, dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "4")
    yield server
    server.stop()


def test_promtool_finds_nothing(idle):
    answer_some(idle)
    done = subprocess.run([TOOLS / "usr/bin/promtool", "check", "metrics"], input=get(idle.metrics_port, "/metrics"), text=True,
                          capture_output=True, timeout=CALL_LIMIT_S)
    lints = (done.stdout + done.stderr).splitlines()
    assert done.returncode in (0, 3)  # 3: lints
    assert len(lints) > 20 and [line for line in lints if not LINTS.fullmatch(line)] == []


def test_counts_are_exact(idle):
    idle.wait_idle()
    before = scrape(idle)
    answer_some(idle, 3)
    status, _, _ = post(idle.http_port, "/v1/completions", {"prompt": PROMPT, "max_tokens": 7, "n": 2, "ignore_eos": True})
    assert status == 200
    with pytest.raises(grpc.RpcError):
        idle.client.generate_whole(input_ids=PROMPT, temperature=-1)
    assert post(idle.http_port, "/v1/completions", {"prompt": PROMPT, "model": "other"})[0] == 404
    idle.wait_idle()
    # Who waited is still counted for a moment after he has heard.
    wait_until(lambda: not any(scrape(idle)["bantam:streams_open", f'door="{door}"'] for door in ("grpc", "http")))
    after = scrape(idle)

    def more(name, labels=""):
        return after[name, labels] - before[name, labels]

    assert more("vllm:prompt_tokens_total") == 4 * len(PROMPT)
    assert more("vllm:generation_tokens_total") == 3 * 5 + 2 * 7
    assert more("vllm:request_success_total", 'finished_reason="length"') == 5
    assert more("vllm:time_to_first_token_seconds_count") == 5
    assert more("vllm:inter_token_latency_seconds_count") == 3 * 4 + 2 * 6
    assert more("vllm:request_generation_tokens_sum") == 3 * 5 + 2 * 7
    assert more("vllm:e2e_request_latency_seconds_bucket", 'le="+Inf"') == 5
    assert more("bantam:refusals_total", 'door="grpc",code="INVALID_ARGUMENT"') == 1
    assert more("bantam:refusals_total", 'door="http",code="NOT_FOUND"') == 1
    assert more("bantam:answers_total", 'door="http",code="404"') == 1
    assert more("bantam:answers_total", 'door="grpc",code="INVALID_ARGUMENT"') == 1
    assert after["vllm:num_requests_running", ""] == after["vllm:num_requests_waiting", ""] == 0
    assert after["process_resident_memory_bytes", ""] > 1e6 and after["process_cpu_seconds_total", ""] > 0
    assert 0 <= time.time() - after["process_start_time_seconds", ""] < 3600
    assert ("vllm:cache_config_info", 'block_size="16",num_gpu_blocks="%d"' % idle.client.loads().kv_blocks_total) in after


def test_odd_names_add_no_series(idle):
    """Neither methods, paths, models, ids nor headers become labels."""
    before = set(scrape(idle))
    for i in range(50):
        with pytest.raises(grpc.RpcError):
            idle.client.unary(f"/no.Such{i}/Method", b"")
        with pytest.raises(grpc.RpcError):
            idle.client.generate_whole(input_ids=PROMPT, model=f"odd-{i}", request_id=f"id-{i}")
        assert post(idle.http_port, f"/odd/{i}", {})[0] == 404
        assert post(idle.http_port, "/v1/completions", {"model": f"odd-{i}", "prompt": PROMPT}, **{"X-Odd": str(i)})[0] == 404
    assert set(scrape(idle)) == before


def test_prometheus_scrapes_a_loaded_server(start, dummy_model, tmp_path):
    server = start(dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "4")
    port = free_port()
    config = {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"},
              "scrape_configs": [{"job_name": "bantam", "static_configs": [{"targets": [f"127.0.0.1:{server.metrics_port}"]}]}]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML
    prometheus = subprocess.Popen(
        [TOOLS / "usr/bin/prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def query(expression):
        try:
            answer = json.loads(get(port, "/api/v1/query?" + urllib.parse.urlencode({"query": expression})))
        except OSError:
            assert prometheus.poll() is None, prometheus.stdout.read()
            return None  # not up yet
        result = answer["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    ends = threading.Event()
    answers = []

    def load():
        while not ends.is_set():
            answers.extend(server.client.generate_whole(input_ids=PROMPT, max_tokens=200, ignore_eos=True))

    threads = [threading.Thread(target=load) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        wait_until(lambda: query("up") == 1)
        wait_until(lambda: (query("vllm:num_requests_running") or 0) >= 1)
        wait_until(lambda: (query("rate(vllm:generation_tokens_total[5s])") or 0) > 0)
        wait_until(lambda: (query("histogram_quantile(0.5, rate(vllm:inter_token_latency_seconds_bucket[5s]))") or 0) > 0)
        wait_until(lambda: (query("count({__name__=~'bantam:.*'})") or 0) > 20)
        ends.set()
        for thread in threads:
            thread.join()
        wait_until(lambda: query("vllm:generation_tokens_total") == 200 * len(answers))
        wait_until(lambda: query("vllm:num_requests_running") == 0)
        # On a busy machine a scrape may be late, and then there is nothing until the next.
        wait_until(lambda: query("vllm:request_success_total{finished_reason='length'} == on() bantam:requests_total") is not None)
        wait_until(lambda: query("vllm:cache_config_info{block_size='16'}") == 1)
        wait_until(lambda: (query("process_open_fds{job='bantam'}") or 0) > 5)
    finally:
        ends.set()
        prometheus.terminate()
        prometheus.wait(CALL_LIMIT_S)
        prometheus.stdout.close()


# --- ORCA


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def fields(data):
    """(number, value) of each field of a protobuf message with doubles and bytes."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 1:
            yield key >> 3, struct.unpack_from("<d", data, at)[0]
            at += 8
        else:
            assert key & 7 == 2
            size, at = varint(data, at)
            yield key >> 3, data[at:at + size]
            at += size


ORCA_FIELDS = {2: "mem_utilization", 6: "rps_fractional", 7: "eps", 9: "application_utilization"}


def orca_report(data):
    report = {"named_metrics": {}}
    for number, value in fields(data):
        if number == 8:
            entry = dict(fields(value))
            report["named_metrics"][entry[1].decode()] = entry.get(2, 0.0)
        else:
            report[ORCA_FIELDS[number]] = value
    return report


def whole_call(server, *metadata):
    method = server.client.channel.unary_unary(SERVICE + "GenerateWhole")
    _, call = method.with_call(generate_bytes(input_ids=PROMPT, max_tokens=3, ignore_eos=True), metadata=metadata)
    return dict(call.trailing_metadata())


def test_trailers_tell_the_load(idle):
    """The second key: gRPC's C core keeps the first to itself."""
    trailers = whole_call(idle, ("x-bantam-priority", "3"), ("x-bantam-model", "dummy0"), ("x-bantam-session", "s"))
    report = orca_report(trailers["x-bantam-load-bin"])
    assert report["application_utilization"] > 0 and report["rps_fractional"] > 0
    assert set(report["named_metrics"]) >= {"kv_cache_usage_perc", "num_requests_waiting", "num_requests_running"}
    assert trailers["x-bantam-model"] == "dummy0"
    for metadata, code in ((("x-bantam-priority", "high"), grpc.StatusCode.INVALID_ARGUMENT),
                           (("x-bantam-model", "other"), grpc.StatusCode.NOT_FOUND)):
        with pytest.raises(grpc.RpcError) as failure:
            whole_call(idle, metadata)
        assert failure.value.code() == code
        assert orca_report(dict(failure.value.trailing_metadata())["x-bantam-load-bin"])  # of a refusal too
    assert "x-bantam-load-bin" not in dict(
        idle.client.channel.unary_unary("/grpc.health.v1.Health/Check").with_call(b"")[1].trailing_metadata())


def test_reports_out_of_band(idle):
    """At the interval that was asked for, and busy is told from idle."""
    idle.wait_idle()
    call = idle.client.stream(ORCA_STREAM, b"\x0a\x05\x10\x80\x84\xaf\x5f")  # 200 ms
    first = orca_report(next(call))
    assert first.get("application_utilization", 0) == 0 and first["named_metrics"]["num_requests_running"] == 0
    with idle.connect(*SMALL_WINDOW) as slow:
        busy = slow.generate(input_ids=PROMPT, **SLOW)
        next(busy)  # and no more: it does not end before it is seen
        for report in call:
            report = orca_report(report)
            if report["named_metrics"]["num_requests_running"] == 1:
                break
        assert report["application_utilization"] >= 0.25  # one of four
        assert report["mem_utilization"] == report["named_metrics"]["kv_cache_usage_perc"] > 0
        busy.cancel()
    call.cancel()
    with pytest.raises(grpc.RpcError) as failure:
        next(idle.client.stream(ORCA_STREAM, b"\xff"))
    assert failure.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    idle.wait_idle()


def test_http_tells_the_load(idle):
    body = {"prompt": PROMPT, "max_tokens": 3}
    _, headers, _ = post(idle.http_port, "/v1/completions", body, **{"endpoint-load-metrics-format": "JSON"})
    kind, report = headers["endpoint-load-metrics"].split(" ", 1)
    assert kind == "JSON" and json.loads(report)["application_utilization"] > 0
    assert headers["x-bantam-model"] == "dummy0"
    _, headers, _ = post(idle.http_port, "/v1/completions", body)
    assert "endpoint-load-metrics" not in headers


# --- the operator's listener


def test_metrics_on_the_api_port(idle, start, dummy_model):
    """On loopback as vLLM's users expect it; where other machines come, when it is asked for."""
    assert "vllm:num_requests_running" in get(idle.http_port, "/metrics")
    server = start(dummy_model, *DUMMY_FLAGS, "--host", "0.0.0.0", "--allow-insecure-bind")
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(server.http_port, "/metrics")
    assert refused.value.code == 404 and "--http-metrics" in refused.value.read().decode()
    assert "vllm:num_requests_running" in get(server.metrics_port, "/metrics")


def test_drain_by_order(start, dummy_model):
    """POST /drain: readiness goes at once, requests are served for --drain-delay, then the server ends by itself."""
    server = start(dummy_model, *DUMMY_FLAGS, "--drain-delay", "600")
    assert json.loads(get(server.metrics_port, "/loads"))["draining"] is False
    assert get(server.metrics_port, "/ready") and get(server.http_port, "/ready")
    assert post(server.metrics_port, "/drain", {})[0] == 202
    wait_until(lambda: json.loads(get(server.metrics_port, "/loads"))["draining"])
    for port in (server.metrics_port, server.http_port):
        with pytest.raises(urllib.error.HTTPError) as refused:
            get(port, "/ready")
        assert refused.value.code == 503
        assert get(port, "/health")
    assert server.client.health() == "NOT_SERVING"
    answer_some(server, 1)
    assert post(server.http_port, "/v1/completions", {"prompt": PROMPT, "max_tokens": 2})[0] == 200
    assert 'bantam:draining{model_name="dummy0"} 1' in get(server.metrics_port, "/metrics")
    server.terminate()  # a second time: the wait is over
    assert server.wait() == 0
