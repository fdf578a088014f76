"""`bantam eval` and `bantam replay` against endpoints that answer by a script, and against the demo model behind an engine.

BANTAM_BIN names the program (default build/release/bantam)."""

import http.server
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import urllib.request
import xml.etree.ElementTree

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("BANTAM_BIN", ROOT / "build/release/bantam")).resolve()
SANITIZED = os.environ.get("BANTAM_SANITIZED", "0") == "1"
LIMIT_S = 600 if SANITIZED else 120


def run(*arguments, status=0, environment=None):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BANTAM_")}
    done = subprocess.run([str(BIN), *map(str, arguments)], capture_output=True, text=True, timeout=LIMIT_S,
                          env=clean | (environment or {}), check=False)
    assert done.returncode == status, done.stdout + done.stderr
    return done


class Endpoint:
    """A chat endpoint over HTTP: answer(request) is the text of its answer. Counts requests, keeps their keys."""

    def __init__(self, answer):
        self.requests, self.keys = [], set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):  # the name is the library's
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(request)
                outer.keys.add(self.headers.get("Authorization"))
                chunks = [{"model": request["model"], "choices": [{"index": 0, "delta": {"content": answer(request)}}]},
                          {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
                           "usage": {"prompt_tokens": 1000, "completion_tokens": 10}}]
                body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 128  # connections that wait; a longer line would cost them a second each

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        self.target = f"http://127.0.0.1:{self.server.server_port}/v1#m"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def question(request):
    return request["messages"][-1]["content"]


def right(request):
    return str(eval(question(request), {"__builtins__": {}}))  # sums that this file makes


def only_small(request):
    """Right where both numbers have one digit."""
    return right(request) if re.fullmatch(r"\d \+ \d", question(request)) else "I do not know"


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def sums(n):
    """Every third has two digits: the small model cannot, and its own file says so."""
    for i in range(n):
        a, b = (i % 9 + 10, 27) if i % 3 == 0 else (i % 9, 4)
        yield {"id": i, "prompt": f"{a} + {b}", "expected": a + b, "difficulty": 0.9 if i % 3 == 0 else 0.2,
               "task": "two digits" if i % 3 == 0 else "one digit"}


def test_eval_of_two_endpoints(tmp_path):
    cases = write_lines(tmp_path / "cases.jsonl", sums(60))
    report, picture = tmp_path / "report.json", tmp_path / "report.svg"
    with Endpoint(only_small) as small, Endpoint(right) as big:
        models = ["--model", f"small={small.target}", "--model", f"big={big.target}"]
        done = run("eval", cases, *models, "--price", "big=2,10", "--price", "small=0,0", "--key-env", "big=KEY",
                   "--json", report, "--svg", picture, environment={"KEY": "k-1"})
        assert len(small.requests) == 60 and len(big.requests) == 60
        assert big.keys == {"Bearer k-1"} and small.keys == {None}
        assert all(request["temperature"] == 0 for request in big.requests)
        # The same again: nothing got worse. Then the small model forgets how to add.
        run("eval", cases, *models, "--price", "big=2,10", "--golden", report, "--margin", "0.1", "--strict")
    with Endpoint(lambda request: "?") as small, Endpoint(right) as big:
        worse = run("eval", cases, "--model", f"small={small.target}", "--model", f"big={big.target}", "--golden", report,
                    status=1)
    assert re.search(r"^small +60 cases, -66\.7 % .*: worse$", worse.stdout, re.M), worse.stdout
    assert re.search(r"^big +60 cases, \+0\.0 %", worse.stdout, re.M)
    assert "k-1" not in done.stdout + done.stderr + report.read_text(encoding="utf-8")
    found = json.loads(report.read_text(encoding="utf-8"))
    small_sum, big_sum = found["models"]
    assert small_sum["quality"] == pytest.approx(2 / 3) and big_sum["quality"] == 1
    assert big_sum["cost_nanodollars"] == 60 * 2_100_000 and small_sum["cost_nanodollars"] == 0
    curves = {policy["name"]: policy["curve"] for policy in found["policies"] if "curve" in policy}
    assert set(curves) == {"random", "oracle", "classifier"}  # an endpoint over HTTP tells no margins
    assert curves["random"]["apgr"] == pytest.approx(0.5)
    assert curves["classifier"]["cpt50"] == pytest.approx(1 / 6)
    assert curves["classifier"]["apgr"] == pytest.approx(curves["oracle"]["apgr"])
    root = xml.etree.ElementTree.parse(picture).getroot()
    assert root.tag.endswith("svg") and len(root.findall(".//{*}polyline")) == 3


def test_eval_judges_what_has_no_reference(tmp_path):
    cases = write_lines(tmp_path / "cases.jsonl", [{"prompt": "3 + 4", "strong": "7"}, {"prompt": "Say hello", "strong": "Hello"}])

    def judge(request):
        first = question(request).split("--- Answer A\n")[1]
        return "B" if first.startswith("Hello\n") else "A" if first.startswith("Hi") else "C"

    with Endpoint(lambda request: "7" if "+" in question(request) else "Hi there") as small, Endpoint(judge) as referee:
        done = run("eval", cases, "--model", f"small={small.target}", "--model", "big=recorded", "--judge",
                   f"referee={referee.target}")
        assert len(referee.requests) == 4  # from both sides each
    assert re.search(r"^small +100\.0 % ", done.stdout, re.M), done.stdout


def test_eval_leaves_out_what_nobody_recorded(tmp_path):
    lines = [{"prompt": f"{i} + 4", "expected": i + 4, "strong": str(i + 4)} for i in range(6)]
    del lines[2]["strong"], lines[4]["strong"]
    cases, picture, report = write_lines(tmp_path / "cases.jsonl", lines), tmp_path / "report.svg", tmp_path / "report.json"
    with Endpoint(right) as small:
        models = ["--model", f"small={small.target}", "--model", "big=recorded"]
        done = run("eval", cases, *models, "--svg", picture, "--json", report)  # two that are equal: there is nothing to draw
    assert "2 of 6 cases are left out: no answer is recorded for them" in done.stdout
    assert re.search(r"^big +100\.0 % +4 +0 ", done.stdout, re.M), done.stdout
    assert "warning" in done.stderr and "report.svg is not written" in done.stderr and not picture.exists()
    found = json.loads(report.read_text(encoding="utf-8"))
    assert (found["cases"], found["cases_left_out"], found["partial"]) == (4, 2, False)
    none = write_lines(tmp_path / "none.jsonl", [{"prompt": "a", "expected": "b"}])
    assert "no case has a recorded answer" in run("eval", none, "--model", "a=recorded", status=2).stderr


@pytest.mark.parametrize("at", [1, 7])
def test_eval_reports_what_there_is_when_it_is_stopped(tmp_path, at):
    """Ctrl-C while the small model is asked: its answers count, the big one's none."""
    cases = write_lines(tmp_path / "cases.jsonl", sums(60))
    report, artefact = tmp_path / "report.json", tmp_path / "calibration"
    process, has_begun = [], threading.Event()

    def answer(request):
        has_begun.wait(LIMIT_S)
        if len(small.requests) == at:
            process[0].send_signal(signal.SIGINT)
        return right(request)

    with Endpoint(answer) as small, Endpoint(right) as big:
        command = [BIN, "eval", cases, "--model", f"small={small.target}", "--model", f"big={big.target}", "--json", report,
                   "--concurrency", "1", "--calibration", artefact]
        process.append(subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        has_begun.set()
        stdout, stderr = process[0].communicate(timeout=LIMIT_S)
        assert not big.requests and at <= len(small.requests) < 60
    assert process[0].returncode == 130, stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["partial"] and found["cases"] == len(small.requests) and found["cases_left_out"] == 60 - found["cases"]
    assert [model["name"] for model in found["models"]] == ["small"] and found["models"][0]["quality"] == 1
    assert f"PARTIAL: stopped; {60 - found['cases']} of 60 cases were not put to every model" in stdout
    assert not artefact.exists() and "not written" in stderr


def test_eval_stopped_while_it_judges(tmp_path):
    """Ctrl-C at the judge's fourth word: no column has scores by it and by texts, and the report says what is lost."""
    cases = write_lines(tmp_path / "cases.jsonl", [{"prompt": f"Say {i}", "strong": f"Hello {i}"} for i in range(6)])
    report, process, has_begun = tmp_path / "report.json", [], threading.Event()

    def judge(_):
        has_begun.wait(LIMIT_S)
        if len(referee.requests) == 4:
            process[0].send_signal(signal.SIGINT)
        return "C"

    with Endpoint(lambda _: "Hi") as small, Endpoint(judge) as referee:
        command = [BIN, "eval", cases, "--model", f"small={small.target}", "--model", "big=recorded", "--judge",
                   f"referee={referee.target}", "--json", report, "--concurrency", "1"]
        process.append(subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        has_begun.set()
        stdout, stderr = process[0].communicate(timeout=LIMIT_S)
        assert len(small.requests) == 6 and 4 <= len(referee.requests) < 12
    assert process[0].returncode == 130, stderr
    assert "PARTIAL: stopped; the judge was not asked about every answer" in stdout and "0 of" not in stdout, stdout
    assert "could not be read" not in stdout
    found = json.loads(report.read_text(encoding="utf-8"))
    assert (found["partial"], found["cases"], found["cases_left_out"]) == (True, 6, 0)
    assert found["not_asked"] == {"cases": 0, "models": 0, "judge": True, "classifier": False}
    assert {result["models"]["small"]["score"] for result in found["results"]} == {0}


def test_eval_refuses(tmp_path):
    cases = write_lines(tmp_path / "cases.jsonl", [{"prompt": "a"}, {"check": "exact"}])
    assert "cases.jsonl line 2: a case needs" in run("eval", cases, "--model", "a=recorded", status=2).stderr
    good = write_lines(tmp_path / "good.jsonl", [{"prompt": "a", "strong": "b"}])
    assert "1 to 8 --model" in run("eval", good, status=2).stderr
    assert "must be NAME=TARGET" in run("eval", good, "--model", "recorded", status=2).stderr
    assert "stands twice" in run("eval", good, "--model", "a=recorded", "--model", "a=recorded", status=2).stderr
    assert "--strong c: there is no" in run("eval", good, "--model", "a=recorded", "--strong", "c", status=2).stderr
    assert "needs --policy" in run("eval", good, "--model", "a=config:p/m", status=2).stderr
    assert "needs --policy" in run("eval", good, "--model", "a=recorded", "--artefact", tmp_path / "x", status=2).stderr
    assert "environment has no" in run("eval", good, "--model", "a=http://127.0.0.1:1/v1#m", "--key-env", "a=NOT_SET",
                                       status=2).stderr


CONFIG = """\
local:
  - {{name: demo, targets: ["127.0.0.1:{port}"]}}
providers:
  - name: p
    kind: compatible
    url: http://127.0.0.1:1/v1
    models: [{{name: big, price: {{input: 1, output: 2, as_of: 2026-11-01}}}}]
tiers:
  - {{name: small, models: [local/demo]}}
  - {{name: frontier, models: [p/big]}}
rules:
  - {{name: sums, when: {{tasks: [sum]}}, to: frontier}}
gate: {{stage: canary, margin: 0.15, false_cheap: 0.2}}
"""


@pytest.fixture(name="engine", scope="module")
def _engine():
    command = [BIN, "serve", ROOT / "demo/model", "--port", "0", "--http-port", "0", "--metrics-port", "0", "--threads", "1"]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BANTAM_")}
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=clean) as server:
        for line in server.stdout:
            found = re.match(r"listening on (?!http)\S*:(\d+)$", line)
            if found:
                break
        yield int(found.group(1))
        server.terminate()


def test_eval_of_an_engine_and_a_policy(tmp_path, engine):
    reviews = [json.loads(line) for line in (ROOT / "demo/heldout/review.jsonl").read_text(encoding="utf-8").splitlines()[:40]]
    lines = [review | {"strong": review["expected"]} for review in reviews]
    lines += [{"prompt": f"What is {i} * 37?", "expected": i * 37, "strong": str(i * 37), "task": "sum"} for i in range(11, 31)]
    cases = write_lines(tmp_path / "cases.jsonl", lines)
    config = tmp_path / "route.yaml"
    config.write_text(CONFIG.format(port=engine), encoding="utf-8")
    report, artefact, calibration = tmp_path / "report.json", tmp_path / "eval.json", tmp_path / "confidence.json"
    done = run("eval", cases, "--model", "small=config:local/demo", "--model", "big=recorded", "--max-tokens", 24, "--policy",
               config, "--json", report, "--artefact", artefact, "--calibration", calibration)
    assert "eval.json: it passes the gate" in done.stdout, done.stdout
    found = json.loads(report.read_text(encoding="utf-8"))
    policies = {policy["name"]: policy for policy in found["policies"]}
    assert {"confidence", "cascade", "policy"} <= set(policies)
    assert policies["cascade"]["curve"]["apgr"] > 0.6
    assert policies["policy"]["point"]["strong_share"] == pytest.approx(20 / 60)
    written = json.loads(artefact.read_text(encoding="utf-8"))
    assert written["fingerprint"] == found["models"][0]["fingerprint"] != ""
    assert re.fullmatch("[0-9a-f]{16}", written["policy_id"]) and written["cases"] == 60
    points = json.loads(calibration.read_text(encoding="utf-8"))["points"]
    assert points == sorted(points) and points[-1][1] > points[0][1]


def test_a_tier_that_nobody_measured_gets_no_artefact(tmp_path, engine):
    cases = write_lines(tmp_path / "cases.jsonl", [{"prompt": f"{i} + 1", "strong": str(i + 1), "task": "sum"} for i in range(2)])
    config, artefact = tmp_path / "route.yaml", tmp_path / "eval.json"
    middle = "  - {name: middle, models: [p/middle]}\n  - {name: frontier"
    text = CONFIG.format(port=engine).replace("  - {name: frontier", middle).replace("to: frontier", "to: middle")
    price = "price: {input: 1, output: 2, as_of: 2026-11-01}"
    config.write_text(text.replace("models: [{name: big", f"models: [{{name: middle, {price}}}, {{name: big"), encoding="utf-8")
    done = run("eval", cases, "--model", "small=config:local/demo", "--model", "big=recorded", "--max-tokens", 4, "--policy",
               config, "--artefact", artefact, status=1)
    assert "sends 2 of the cases to a tier that is neither its first nor its last" in done.stderr and not artefact.exists()
    run("eval", cases, "--model", "small=config:local/demo", "--model", "big=recorded", "--model", "middle=recorded", "--max-tokens", 4,
        "--policy", config, "--artefact", artefact)
    assert json.loads(artefact.read_text(encoding="utf-8"))["strong_share"] == 0


def wait_up(port):
    """Until the router has found its engine: it answers before, by its provider."""
    limit = time.monotonic() + LIMIT_S
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/router/state", timeout=LIMIT_S) as answer:
            if json.load(answer)["local"][0]["up"] == 1:
                return
        assert time.monotonic() < limit, "the engine is not found"
        time.sleep(0.01)


def test_a_router_is_asked_as_its_clients_do(tmp_path, engine):
    """Over gRPC as well: asked for probabilities it would keep everything here."""
    cases = write_lines(tmp_path / "cases.jsonl", [case | {"strong": str(case["expected"])} for case in sums(12)])
    config, report = tmp_path / "route.yaml", tmp_path / "report.json"
    with Endpoint(right) as big:
        text = CONFIG.format(port=engine).replace("http://127.0.0.1:1/v1", big.target.removesuffix("#m"))
        config.write_text(re.sub("rules:.*", "difficulty: {at_least: 0.6, to: frontier}\nrules: [{name: two, when: {tasks: [two]}, "
                                 "to: frontier}]\ngate: off\n", text, flags=re.S), encoding="utf-8")
        metrics = tmp_path / "metrics"
        command = [BIN, "route", config, "--port", "0", "--http-port", "0", "--metrics-port", "0", "--metrics-port-file",
                   metrics]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as router:
            try:
                port = next(found[1] for line in router.stdout if (found := re.match(r"listening on [\d.]+:(\d+)$", line)))
                wait_up(int(metrics.read_text()))
                lines = [json.loads(line) for line in cases.read_text(encoding="utf-8").splitlines()]
                lines = [line | {"bantam": {"task": "two"}} if line["task"] == "two digits" else line for line in lines]
                run("eval", write_lines(cases, lines), "--model", f"small=127.0.0.1:{engine}", "--model", "big=recorded", "--model",
                    f"router=127.0.0.1:{port}", "--max-tokens", 8, "--json", report)
            finally:
                router.terminate()
        assert len(big.requests) == 4
    policies = {policy["name"]: policy for policy in json.loads(report.read_text(encoding="utf-8"))["policies"]}
    assert policies["router"]["point"]["strong_share"] == pytest.approx(4 / 12)


def test_replay(tmp_path, engine):
    wording = "What is the sentiment of this review?"
    reviews = [json.loads(line) for line in (ROOT / "demo/heldout/review.jsonl").read_text(encoding="utf-8").splitlines()
               if wording in line][:20]
    lines = [{"messages": case["messages"], "response": case["expected"], "response_cost": 0.002, "startTime": 1.0,
              "endTime": 1.5} for case in reviews]
    lines += [{"request": {"messages": [{"role": "system", "content": "You add."}, {"role": "user", "content": f"{i} + 37"}],
                           "max_tokens": 8}, "response": {"choices": [{"message": {"content": str(i + 37)}}]}}
              for i in range(5)]
    log = write_lines(tmp_path / "log.jsonl", lines)
    figures = tmp_path / "figures.json"
    with open(log, "a", encoding="utf-8") as file:
        file.write("nonsense\n")
    done = run("replay", log, "--model", f"small=127.0.0.1:{engine}", "--json", figures)
    assert "1 lines are left out; the first of them, line 26: not a JSON object" in done.stdout
    assert re.search(r"Your last 25 requests on small: \d\d\.\d % agree \[", done.stdout), done.stdout
    found = json.loads(figures.read_text(encoding="utf-8"))
    reviewed, added = found["groups"]
    assert reviewed["name"].startswith(wording)
    assert reviewed["n"] == 20 and reviewed["same"] >= 18 and reviewed["cost_then_nanodollars"] == 40_000_000
    assert reviewed["cost_now_nanodollars"] == 0 and reviewed["total_us_p50_then"] == 500_000
    assert added["name"] == "You add." and added["n"] == 5 and added["advice"] != "move"
    few = run("replay", log, "--model", f"small=127.0.0.1:{engine}", "--last", 5, "--price", "small=3600/h", "--json", figures)
    assert few.stdout.count("You add.") == 1
    cost = json.loads(figures.read_text(encoding="utf-8"))["all"]["cost_now_nanodollars"]
    assert 0 < cost  # a dollar a second of whatever time it took
    assert "needs --policy" in run("replay", log, "--decisions", status=2).stderr
    assert "one --model" in run("replay", log, status=2).stderr
