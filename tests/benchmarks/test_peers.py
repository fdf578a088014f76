"""benchmarks/peers without a peer: its random GGUF files load and compute, and the comparison reads and writes what it should.

BANTAM_BIN names the program (default build/release/bantam)."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SANITIZED = os.environ.get("BANTAM_SANITIZED", "0") == "1"
BANTAM = pathlib.Path(os.environ.get("BANTAM_BIN", ROOT / "build/release/bantam")).resolve()
COST_S = 20
CONFIG = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
          "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
# What the programs of llama.cpp print, of a machine that does 50 and 25 tokens/s.
STUBS = {"llama-bench": 'echo \'[{"build_commit": "abc1234", "build_number": 7134, "avg_ts": 50.0}]\'',
         "llama-batched-bench": 'echo "a line that is no JSON"; echo \'{"speed_tg": 25.0}\''}
# And a server of theirs: answers.json says what it answers to which prompt of ids, calls.jsonl keeps what it is asked.
SERVER = """#!{python}
import http.server, json, pathlib, sys
FOLDER = pathlib.Path(sys.argv[0]).parent
if sys.argv[1:] == ["--version"]:
    sys.exit("a log line\\nversion: 7135 (abc1235)\\nbuilt with a compiler")
if sys.argv[1:] == ["--help"]:
    sys.exit("--warmup, --no-warmup   whether to perform warmup with an empty run")
with open(FOLDER / "starts", "a") as file:
    print(*sys.argv[1:], file=file)
LINES = [{{"choices": [{{"text": "a"}}]}}, {{"choices": [], "usage": {{"prompt_tokens": 9, "completion_tokens": 5}}}}]

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.send(b"ok")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(FOLDER / "calls.jsonl", "a") as file:
            file.write(json.dumps([self.path, body]) + "\\n")
        if self.path == "/completion":
            tokens = json.loads((FOLDER / "answers.json").read_text())[json.dumps(body["prompt"])]
            self.send(json.dumps({{"content": "", "tokens": tokens}}).encode())
        elif body.get("stream"):
            self.send(b"".join(b"data: " + json.dumps(line).encode() + b"\\n\\n" for line in LINES) + b"data: [DONE]\\n\\n")
        else:
            self.send(b"{{}}")

http.server.ThreadingHTTPServer.request_queue_size = 64
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""

# What Bantam does for these, other tests have it do under a sanitizer too.
of_the_script = pytest.mark.skipif(SANITIZED, reason="a script: the release build is enough")


@pytest.fixture
def peer(tmp_path):
    """A folder of programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    programs = {name: f"#!/bin/sh\n{command}\n" for name, command in STUBS.items()}
    for name, text in (programs | {"llama-server": SERVER.format(python=sys.executable)}).items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def stub_venv(folder):
    """OpenVINO's, that says the same each time."""
    venv = folder / "venv/bin"
    venv.mkdir(parents=True)
    (venv / "python").write_text('#!/bin/sh\necho "$@" >&2\necho a log line; echo \'{"version": "2026.3.0"}\'\n'
                                 'while read line; do echo \'{"prefill_tok_s": 10, "decode_tok_s": 5}\'; done\n')
    (venv / "python").chmod(0o755)
    return venv.parent


def compare(folder, peer, *arguments):
    return subprocess.run([sys.executable, ROOT / "benchmarks/peers/compare_peers.py", "stub", "--bantam", BANTAM,
                           "--llama-cpp", peer, "--files", folder, "--results", folder, "--threads", "2", "--repeat", "2",
                           "--limit-s", "100", *arguments],
                          capture_output=True, text=True, timeout=300, check=False)


def figures(folder):
    return {(row["file"], row["what"]): row for row in json.loads((folder / "stub-peers.json").read_text())["figures"]}


def random_gguf(folder, kind, name="tiny", **changes):
    shape = folder / name
    shape.mkdir()
    (shape / "config.json").write_text(json.dumps(CONFIG | changes))
    out = folder / f"{name}-{kind}.gguf"
    command = [sys.executable, ROOT / "benchmarks/peers/make_random_gguf.py", shape, out, "--type", kind]
    subprocess.run(command, check=True, timeout=120)
    return out


@pytest.mark.parametrize("kind", ["q4_0", "q8_0", "f16"])
def test_random_files_load_and_answer(tmp_path, kind):
    done = subprocess.run([BANTAM, "run", random_gguf(tmp_path, kind), "--prompt", "hello  you", "--max-tokens", "4"],
                          capture_output=True, timeout=120, check=False)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


@of_the_script
def test_offline_parts_with_peers_that_say_the_same_each_time(tmp_path, peer):
    random_gguf(tmp_path, "q4_0")
    venv = stub_venv(tmp_path)
    without_server = shutil.copytree(peer, tmp_path / "without-server", ignore=shutil.ignore_patterns("llama-server"))
    flags = ["--parts", "prefill,decode", "--shapes", "tiny", "--prefill", "16", "--decode", "2", "--context", "8",
             "--output-len", "200", "--ik-llama-cpp", without_server, "--openvino", venv]
    done = compare(tmp_path, peer, *flags)
    assert done.returncode == 0, done.stderr
    got = figures(tmp_path)
    assert list(got) == [("tiny-q4_0", "prefill of 16"), ("tiny-q4_0", "decode, 2 sequences, 8 of context")]
    for row, theirs, vino in zip(got.values(), (50.0, 25.0), (10, 5)):
        others = {"llama.cpp": theirs, "ik_llama.cpp": theirs, "openvino genai": vino}
        assert row["medians"] == others | {"bantam": row["medians"]["bantam"]} and row["unit"] == "tok/s"
        assert [len(values) for values in row["samples"].values()] == [2] * 4
        assert row["ratios"] == {name: row["medians"]["bantam"] / value for name, value in others.items()}
        assert row["load_average"] >= 0 and "commit" in row
        # As a program says it with --version, else as llama-bench has it.
        versions = {"llama.cpp": "7135 (abc1235)", "ik_llama.cpp": "7134 (abc1234)", "openvino genai": "2026.3.0"}
        assert row["versions"] == versions
    assert "openvino_worker.py" in done.stderr and f"{tmp_path}/tiny-q4_0-openvino 2" in done.stderr
    assert "| tiny-q4_0 | prefill of 16 | tok/s |" in (tmp_path / "stub-peers.md").read_text()
    assert "; llama.cpp 7135 (abc1235); ik_llama.cpp 7134 (abc1234); openvino genai 2026.3.0 |\n" in \
        (tmp_path / "stub-peers.md").read_text()
    # Another run replaces what it measures, and no more; rows of before versions were kept stay readable.
    before = json.loads((tmp_path / "stub-peers.json").read_text())
    for row in before["figures"]:
        del row["versions"]
    (tmp_path / "stub-peers.json").write_text(json.dumps(before))
    assert compare(tmp_path, peer, *flags[:6], "--prefill", "16,17", "--parts", "prefill").returncode == 0
    again = figures(tmp_path)
    assert list(again)[0] == ("tiny-q4_0", "decode, 2 sequences, 8 of context") and len(again) == 3
    assert "openvino genai" not in again["tiny-q4_0", "prefill of 16"]["medians"]
    assert [row.get("versions") for row in again.values()] == [None] + [{"llama.cpp": "7135 (abc1235)"}] * 2
    # Beside a checkkernel that says 100 GOP/s before a run and 300 after it: a share of 200.
    (tmp_path / "checkkernel").write_text('#!/bin/sh\necho "$@" >> "$0.asked"; n=$(wc -l < "$0.asked")\n'
                                          'echo "8-bit products $((n % 2 ? 100 : 300)) GOP/s"\n')
    (tmp_path / "checkkernel").chmod(0o755)
    assert compare(tmp_path, peer, *flags[:-4], "--checkkernel", tmp_path / "checkkernel", "--isa", "auto").returncode == 0
    assert (tmp_path / "checkkernel.asked").read_text() == "--products --threads 2 --isa auto\n" * 8
    layer = 128 * 128 * 2 + 128 * 64 * 2 + 3 * 128 * 256
    for what, weights in (("prefill of 16", 2 * layer), ("decode, 2 sequences, 8 of context", 2 * layer + 512 * 128)):
        rates = figures(tmp_path)["tiny-q4_0", what]["samples"]["bantam"]
        row = figures(tmp_path)["tiny-q4_0", f"{what}: of the 8-bit products' peak"]
        assert row["samples"]["bantam"] == pytest.approx([100 * 2 * weights * rate / 200e9 for rate in rates])
        assert row["unit"] == "%" and row["peaks_gop_s"] == [200, 200] and row["ratios"] == {}
    (peer / "llama-bench").write_text("#!/bin/sh\necho broken >&2; exit 3\n")
    failed = compare(tmp_path, peer, *flags[:-4])
    assert failed.returncode == 1 and "ended with 3: broken" in failed.stderr and len(figures(tmp_path)) == 5
    (peer / "llama-bench").unlink()
    refused = compare(tmp_path, peer, *flags[:-4])
    assert refused.returncode == 1 and "llama-bench is no program that runs" in refused.stderr
    assert compare(tmp_path, peer, "--parts", "prefil").returncode == 2


def greedy_prompts(vocab_size):
    """What the script asks of a model."""
    n_ids = min(vocab_size, 1000) - 8
    return [[5 + (37 * i + 101 * k * k) % n_ids for i in range(12)] for k in range(1, 5)]


def greedy_answers(file, prompts):
    """Bantam's own: {prompt: (ids, text, likely)}"""
    sys.path.insert(0, str(ROOT / "benchmarks/peers"))
    import peer_programs
    bantam = peer_programs.Bantam(BANTAM, 2, 120)
    with bantam.ready_server(file, 1, 256) as server:
        return {json.dumps(prompt): bantam.greedy(server, prompt, 24) for prompt in prompts}


@of_the_script
def test_a_peer_that_fails_costs_nobody_elses_figures(tmp_path, peer):
    random_gguf(tmp_path, "q4_0")
    broken = tmp_path / "broken"
    broken.mkdir()
    for name, command in STUBS.items():
        (broken / name).write_text(f"#!/bin/sh\n[ $# = 1 ] || {{ echo 'no such tensor' >&2; exit 1; }}\n{command}\n")
        (broken / name).chmod(0o755)
    done = compare(tmp_path, peer, "--parts", "prefill,decode", "--shapes", "tiny", "--prefill", "16", "--decode", "2",
                   "--context", "8", "--output-len", "200", "--ik-llama-cpp", broken)
    assert done.returncode == 1 and done.stderr.count("no such tensor") == 2
    got = figures(tmp_path)
    assert len(got) == 2 and all(set(row["medians"]) == {"bantam", "llama.cpp"} for row in got.values())


@of_the_script
def test_a_run_has_time_by_its_tokens_and_a_stuck_one_ends(tmp_path):
    sys.path.insert(0, str(ROOT / "benchmarks/peers"))
    import peer_programs
    file = tmp_path / "large.gguf"
    with open(file, "wb") as hole:
        hole.truncate(5 * 10**9)
    assert peer_programs.limit_of(60, file, 0) == 60
    assert peer_programs.limit_of(60, file, 512) == pytest.approx(60 + 256)
    assert peer_programs.limit_of(60, file, 32 * 160) == pytest.approx(60 + 2560)
    small = tmp_path / "small.gguf"
    small.write_bytes(b"GGUF")
    venv = stub_venv(tmp_path)
    (venv / "bin/python").write_text("#!/bin/sh\nexec cat\n")  # says nothing of its own
    stuck = peer_programs.OpenVino(venv, 2, 0.2, tmp_path)
    with pytest.raises(RuntimeError, match="took more than 0.2 s on .*small.gguf"):
        stuck.prefill(small, 16)
    assert stuck.worker is None
    program = tmp_path / "bin"
    program.mkdir()
    (program / "llama-bench").write_text("#!/bin/sh\nexec sleep 60\n")
    (program / "llama-bench").chmod(0o755)
    with pytest.raises(RuntimeError, match="took more than 0.2 s"):
        peer_programs.LlamaCpp(program, 2, 0.2, parts=("prefill",)).prefill(small, 16)


@of_the_script
def test_greedy_part_finds_what_differs(tmp_path, peer):
    flags = ["--parts", "greedy", "--shapes", ""]
    assert compare(tmp_path, peer, *flags).returncode == 1  # the stub knows no answers; but now the file is there
    asked = json.loads((peer / "calls.jsonl").read_text().splitlines()[0])[1]
    prompts = greedy_prompts(2048)
    assert asked["prompt"] == prompts[0] and asked["n_predict"] == 24 and not asked["ignore_eos"]
    answers = greedy_answers(tmp_path / "check-q4_0.gguf", prompts)

    def tell(change=None):
        told = {prompt: list(ids) for prompt, (ids, _, _) in answers.items()}
        if change:
            told[json.dumps(prompts[2])][change[0]] = change[1]
        (peer / "answers.json").write_text(json.dumps(told))
        return compare(tmp_path, peer, *flags)

    assert tell().returncode == 0
    assert figures(tmp_path)["check-q4_0", "tokens of 4 answers, the same up to a tie"]["medians"]["llama.cpp"] == 96
    ids, _, likely = answers[json.dumps(prompts[2])]
    assert len(set(ids)) > 4  # a model that says more than one thing
    unlikely = next(i for i in range(2048) if i not in likely[7])
    wrong = tell((7, unlikely))
    assert wrong.returncode == 1 and f"token 7 is {unlikely} for llama.cpp and {ids[7]} for Bantam" in wrong.stderr
    gaps = {(i, other): place[ids[i]] - value
            for i, place in enumerate(likely) for other, value in place.items() if other != ids[i]}
    far, far_gap = max(gaps.items(), key=lambda item: item[1])
    assert far_gap > 0.25 and f"{far_gap:.2f} nats apart" in tell(far).stderr


@of_the_script
def test_wrong_answers_leave_out_that_file_alone(tmp_path, peer):
    flags = ["--parts", "greedy,prefill", "--shapes", "", "--prefill", "16"]
    wrong, right = random_gguf(tmp_path, "q4_0"), random_gguf(tmp_path, "q4_0", "other", vocab_size=300)
    files = ["--gguf", f"{wrong},{right}"]
    assert compare(tmp_path, peer, *flags).returncode == 1  # makes the small model
    answers = {}
    for file, vocab_size in ((tmp_path / "check-q4_0.gguf", 2048), (wrong, 512), (right, 300)):
        answers |= {prompt: ids for prompt, (ids, _, _) in greedy_answers(file, greedy_prompts(vocab_size)).items()}
    last = json.dumps(greedy_prompts(300)[3])
    answers[last] = answers[last][:9]  # where it ends
    broken = json.dumps(greedy_prompts(512)[1])
    answers[broken] = [(id + 7) % 512 for id in answers[broken]]
    (peer / "answers.json").write_text(json.dumps(answers))
    done = compare(tmp_path, peer, *flags, *files)
    assert done.returncode == 1 and "greedy, tiny-q4_0, llama.cpp: tiny-q4_0.gguf: token 0 is" in done.stderr
    assert "prefill, tiny-q4_0.gguf: left out, since greedy answers failed" in done.stderr
    greedy = "tokens of 4 answers, the same up to a tie"
    assert list(figures(tmp_path)) == [("check-q4_0", greedy), ("other-q4_0", greedy), ("other-q4_0", "prefill of 16")]
    assert figures(tmp_path)["other-q4_0", greedy]["medians"]["llama.cpp"] == 3 * 24 + 9
    # The small model's answers are wrong: then nothing of that program is measured, and each part says so.
    (tmp_path / "stub-peers.json").unlink()
    (peer / "answers.json").write_text(json.dumps(dict.fromkeys(answers, [1] * 24)))
    done = compare(tmp_path, peer, *flags, *files)
    assert done.returncode == 1 and done.stderr.count("left out, since greedy answers failed") == 4
    assert not (tmp_path / "stub-peers.json").exists()


@of_the_script
def test_isa_is_handed_on_and_written_down(tmp_path, peer):
    random_gguf(tmp_path, "q4_0")
    bantam = tmp_path / "bantam"
    bantam.write_text(f'#!/bin/sh\necho "$BANTAM_ISA" >> {tmp_path}/levels\nexec {BANTAM} "$@"\n')
    bantam.chmod(0o755)
    flags = ["--bantam", str(bantam), "--parts", "prefill", "--shapes", "tiny", "--prefill", "16"]
    assert compare(tmp_path, peer, *flags, "--isa", "avx2").returncode == 0
    assert (tmp_path / "levels").read_text().split() == ["avx2"] * 2
    assert json.loads((tmp_path / "stub-peers.json").read_text())["machine"]["isa"] == "avx2"
    assert "; Bantam kept to avx2 by --isa; 2 threads" in (tmp_path / "stub-peers.md").read_text()
    mixed = compare(tmp_path, peer, *flags)
    assert mixed.returncode == 1 and "has figures of --isa avx2: those of auto need another name" in mixed.stderr
    assert compare(tmp_path, peer, "--isa", "avx3").returncode == 2


@of_the_script
def test_served_parts(tmp_path, peer):
    random_gguf(tmp_path, "q8_0")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "llama-server").write_text("#!/bin/sh\nexit 1\n")
    (broken / "llama-server").chmod(0o755)
    file = tmp_path / "tiny-q8_0.gguf"
    done = compare(tmp_path, peer, "--parts", "servers,calls,start", "--shapes", "", "--gguf", str(file), "--clients", "1,3",
                   "--server-prompts", "17", "--calls-min", "4", "--calls-a-client", "2",
                   "--ik-llama-cpp", broken, "--openvino", stub_venv(tmp_path))
    # One that does not start costs nobody else's figures.
    assert done.returncode == 1 and done.stderr.count("ik_llama.cpp: ik_llama.cpp did not start") == 4, done.stderr
    got = figures(tmp_path)
    what = {what for _, what in got}
    assert {"16 clients, 200 in, 64 out: output", "16 clients, 200 in, 64 out: p99 TTFT",
            "16 clients, 200 in, 64 out: peak RSS of the server", "1 clients, 400 shared + 60 new in, 1-20 out: calls",
            "3 clients, 400 shared + 60 new in, 1-20 out: p99 end to end",
            "start to first token, from the page cache", "peak RSS, one sequence of 512"} <= what
    for row in got.values():
        ours, theirs = row["medians"]["bantam"], row["medians"]["llama.cpp"]
        assert ours > 0 and theirs > 0
        assert row["ratios"]["llama.cpp"] == (theirs / ours if row["unit"] == "ms" else ours / theirs)
    peaks = got["tiny-q8_0", "peak RSS, one sequence of 512"]
    assert set(peaks["medians"]) == {"bantam", "llama.cpp", "openvino genai"} and peaks["medians"]["openvino genai"] > 0.1
    calls = [json.loads(line) for line in (peer / "calls.jsonl").read_text().splitlines()]
    streams = [body for path, body in calls if body.get("stream")]
    short = [body for body in streams if len(body["prompt"]) == 460]
    # Two runs of 17 after 16 to warm up; two of 4 after 2, and of 6 after 6, which begin with the same ones.
    assert len(streams) - len(short) == 2 * 17 + 16 and len(short) == 2 * 4 + 2 + 2 * 6 + 6
    assert len({tuple(body["prompt"][:400]) for body in short}) == 1 and len({tuple(body["prompt"]) for body in short}) == 18
    assert all(1 <= body["max_tokens"] <= 20 for body in short) and len({body["max_tokens"] for body in short}) > 3
    assert sum(path == "/v1/completions" and not body.get("stream") for path, body in calls) == 2  # starts
    assert ["--no-warmup" in line for line in (peer / "starts").read_text().splitlines()] == [False] * 3 + [True] * 2
    start = got["tiny-q8_0", "start to first token, from the page cache"]
    assert start["flags"] == {"bantam": [], "llama.cpp": ["--no-warmup"]}
    assert all(row["versions"]["llama.cpp"] == "7135 (abc1235)" for row in got.values())


def test_the_demo_model_as_gguf_says_the_same(tmp_path):
    out = tmp_path / "demo.gguf"
    subprocess.run([sys.executable, ROOT / "benchmarks/peers/make_demo_gguf.py", out], check=True, timeout=300)
    flags = ["--prompt", "The train to", "--max-tokens", "12", "--temperature", "0"]
    answers = [subprocess.run([BANTAM, "run", model, *flags], capture_output=True, text=True, timeout=120, check=True).stdout
               for model in (out, ROOT / "demo/model")]
    assert answers[0] == answers[1] and answers[0].strip()


@of_the_script
def test_cpu_time_runs_both_programs(tmp_path):
    file = random_gguf(tmp_path, "q8_0")
    for name in STUBS:
        (tmp_path / name).write_text(f"#!/bin/sh\necho $0 \"$@\" >> {tmp_path}/calls\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run([sys.executable, ROOT / "benchmarks/peers/cpu_time.py", file, "--llama-cpp", tmp_path,
                           "--bantam", BANTAM, "--prefill", "16", "--decode", "2", "--context", "8", "--repeat", "1"],
                          capture_output=True, text=True, timeout=120, check=True)
    assert [line.split("  ")[0] for line in done.stdout.splitlines()] == ["prefill of 16", "decode, 2 sequences"]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert ["-r 4" in call for call in calls[:2]] == [True, False] and all("llama-batched-bench" in call for call in calls[2:])
