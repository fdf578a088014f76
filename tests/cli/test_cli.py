"""The command line: what `bantam run`, `chat`, `tokenize` and `quantize` print, how all commands help and refuse."""

import json
import math
import os
import re
import shutil
import socket
import subprocess

import pytest
from cli_tools import BIN, DEMO, GGUF, IDS_ONLY, LIMIT_S, LLAMA, ROOT, assert_refused, run, run_json

COST_S = 6


# ---- bantam run


def test_run_json_shape():
    (answer,) = run_json("run", LLAMA, *IDS_ONLY, "--token-ids", "1,5,9", "--max-tokens", 6, "--temperature", 0, "--json",
                         "--logprobs", 2, "--prompt-logprobs", 1, "--ignore-eos")
    assert {"prompt_token_ids", "token_ids", "text", "finish_reason", "logprobs", "prompt_logprobs", "timings"} <= set(answer)
    assert answer["prompt_token_ids"] == [1, 5, 9]
    assert len(answer["token_ids"]) == 6 and all(isinstance(i, int) for i in answer["token_ids"])
    assert answer["text"] == ""
    assert answer["finish_reason"] == "length"
    assert [entry["token_id"] for entry in answer["logprobs"]] == answer["token_ids"]
    for entry in answer["logprobs"]:
        assert len(entry["top"]) == 2
        assert entry["top"][0] == {"token_id": entry["token_id"], "logprob": entry["logprob"]}  # greedy
        assert entry["top"][0]["logprob"] >= entry["top"][1]["logprob"]
        assert entry["logprob"] < 0 and math.isfinite(entry["logprob"])
    assert [entry["token_id"] for entry in answer["prompt_logprobs"]] == [1, 5, 9]
    assert answer["prompt_logprobs"][0] == {"token_id": 1, "logprob": None, "top": []}
    assert all(len(entry["top"]) == 1 for entry in answer["prompt_logprobs"][1:])
    assert answer["timings"]["prefill_ms"] >= 0 and answer["timings"]["decode_ms"] >= 0
    assert answer["usage"]["prompt_tokens"] == 3 and answer["usage"]["completion_tokens"] == 6


def test_run_without_logprobs():
    (answer,) = run_json("run", LLAMA, *IDS_ONLY, "--token-ids", "1", "--json")
    assert answer["logprobs"] == [] and answer["prompt_logprobs"] == []
    assert len(answer["token_ids"]) <= 16


def test_run_prints_in_order(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    lines = [{"prompt_token_ids": [3 + i] * (1 + 7 * i % 40)} for i in range(20)]
    prompts.write_text("\n\n".join(json.dumps(line) for line in lines))
    answers = run_json("run", LLAMA, *IDS_ONLY, "--prompts", prompts, "--json", "--max-tokens", 5, "--max-num-seqs", 3,
                       "--token-ids", "7,8", "--max-waiting", 0, "--seed", 1)
    assert [a["prompt_token_ids"] for a in answers] == [[7, 8]] + [line["prompt_token_ids"] for line in lines]
    alone = run_json("run", LLAMA, *IDS_ONLY, "--json", "--max-tokens", 5, "--seed", 1, "--token-ids",
                     ",".join(map(str, lines[13]["prompt_token_ids"])))
    assert alone[0]["token_ids"] == answers[14]["token_ids"]


def test_run_several_choices():
    answers = run_json("run", LLAMA, *IDS_ONLY, "--token-ids", "1,2", "--n", 3, "--seed", 5, "--max-tokens", 8, "--json")
    assert [a["index"] for a in answers] == [0, 1, 2]
    assert all(a["prompt_token_ids"] == [1, 2] for a in answers)
    assert len({tuple(a["token_ids"]) for a in answers}) > 1
    again = run_json("run", LLAMA, *IDS_ONLY, "--token-ids", "1,2", "--n", 3, "--seed", 5, "--max-tokens", 8, "--json")
    assert [a["token_ids"] for a in answers] == [a["token_ids"] for a in again]


def test_run_text_forms():
    arguments = ["run", DEMO, "--temperature", 0, "--max-tokens", 12, "--threads", 1]
    (answer,) = run_json(*arguments, "--prompt", "The train to", "--json")
    one = run(*arguments, "--prompt", "The train to")
    assert one.returncode == 0 and one.stdout == answer["text"] + "\n"
    two = run(*arguments, "--prompt", "The train to", "--prompt", "The train to")
    assert two.stdout == f"[1] {answer['text']}\n[2] {answer['text']}\n"
    bos, *rest = answer["prompt_token_ids"]
    (bare,) = run_json(*arguments, "--prompt", "The train to", "--json", "--no-special-tokens")
    assert bare["prompt_token_ids"] == rest and bos == 0


def test_run_takes_a_prompt_without_a_flag(tmp_path):
    arguments = ["run", DEMO, "--temperature", 0, "--max-tokens", 12, "--threads", 1]
    said_by_flag = run(*arguments, "--prompt", "The train to").stdout
    assert run(*arguments, "The train to").stdout == said_by_flag
    assert run(*arguments, stdin="The train to\n").stdout == said_by_flag
    assert run(*arguments, "--prompts", "-", stdin='"The train to"\n').stdout == said_by_flag
    assert run(*arguments, "The train to", stdin="never read").stdout == said_by_flag
    assert_refused(run(*arguments, stdin=""), 2, "nothing to run")
    assert_refused(run(*arguments, "--prompts", "-", stdin="no JSON\n"), 2, "standard input line 1")
    assert_refused(run(*arguments, stdin="The train\0 to"), 2, "standard input: byte 10 is NUL")


@pytest.mark.parametrize(("more", "text"), [([], b"The train to\n"), (["--prompts", "-"], b'"The train to"\n')])
def test_run_reads_any_standard_input(more, text):
    command = [str(BIN), "run", str(DEMO), "--temperature", "0", "--max-tokens", "12", "--threads", "1"]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(text)
        ours.shutdown(socket.SHUT_WR)
        done = subprocess.run([*command, *more], stdin=theirs, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0 and done.stdout == run(*command[1:], "The train to").stdout, done.stderr
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        done = subprocess.run([*command, *more], stdin=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    finally:
        os.close(folder)
    assert_refused(done, 2, "standard input: is a directory")
    closed = ["sh", "-c", 'exec "$0" "$@" <&-', *command]
    done = subprocess.run([*closed, *more], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert_refused(done, 1 if more else 2, "standard input" if more else "nothing to run")


def test_run_says_that_an_answer_was_cut():
    """Where nobody said how long it may be."""
    arguments = ["run", DEMO, "The train to", "--temperature", 0, "--threads", 1, "--ignore-eos"]
    cut = run(*arguments)
    assert cut.returncode == 0 and "1 of 1 answers ended by length" in cut.stderr and "--max-tokens" in cut.stderr
    for more in (["--max-tokens", 5], ["--json"]):
        assert "ended by length" not in run(*arguments, *more).stderr


def test_run_messages_file(tmp_path):
    prompts = tmp_path / "chat.jsonl"
    prompts.write_text(json.dumps({"messages": [{"role": "user", "content": "Hello"}]}) + "\n\"Hello\"\n")
    chat, text = run_json("run", DEMO, "--prompts", prompts, "--json", "--temperature", 0, "--max-tokens", 4, "--threads", 1)
    assert len(chat["prompt_token_ids"]) > len(text["prompt_token_ids"])
    assert text["prompt_token_ids"][0] == chat["prompt_token_ids"][0] == 0


def test_run_stop_string():
    arguments = ["run", DEMO, "--prompt", "The train to", "--temperature", 0, "--max-tokens", 30, "--json", "--threads", 1]
    (whole,) = run_json(*arguments)
    stop = whole["text"][5:9]
    (cut,) = run_json(*arguments, "--stop", stop)
    assert cut["text"] == whole["text"][:whole["text"].index(stop)]
    assert cut["finish_reason"] == "stop"
    assert whole["token_ids"][:len(cut["token_ids"])] == cut["token_ids"]
    (kept,) = run_json(*arguments, "--stop", stop, "--include-stop-str-in-output")
    assert kept["text"] == cut["text"] + stop


def test_run_bad_words():
    arguments = ["run", DEMO, "--prompt", "The train to", "--temperature", 0, "--max-tokens", 20, "--json", "--threads", 1]
    (whole,) = run_json(*arguments)
    word = whole["text"].split()[0]
    (without,) = run_json(*arguments, "--bad-words", word)
    assert word in whole["text"] and word not in without["text"].split()


def test_run_dummy_weights(tmp_path):
    shutil.copy(LLAMA / "config.json", tmp_path)
    arguments = ["run", tmp_path, *IDS_ONLY, "--token-ids", "1,2,3", "--json", "--temperature", 0]
    assert_refused(run(*arguments), 1, "safetensors")
    first = run_json(*arguments, "--load-format", "dummy")
    assert first[0]["token_ids"] == run_json(*arguments, "--load-format", "dummy")[0]["token_ids"]
    other = run_json(*arguments, "--load-format", "dummy", "--dummy-seed", 1)
    assert other[0]["token_ids"] != first[0]["token_ids"]
    for quantization in ("int8", "int4"):
        run_json(*arguments, "--load-format", "dummy", "--quantization", quantization)


def test_one_refused_prompt_does_not_stop_the_others():
    arguments = ["run", LLAMA, *IDS_ONLY, "--token-ids", "1,99999", "--token-ids", "2,3", "--max-tokens", 2, "--ignore-eos"]
    done = run(*arguments, "--json")
    assert done.returncode == 1
    refused, good = map(json.loads, done.stdout.splitlines())
    assert refused["finish_reason"] == "error" and "99999" in refused["error"] and refused["token_ids"] == []
    assert refused["timings"] == {"queue_ms": None, "prefill_ms": None, "decode_ms": None}
    assert good["prompt_token_ids"] == [2, 3] and len(good["token_ids"]) == 2
    done = run(*arguments)
    assert done.returncode == 1 and "prompt 1" in done.stderr and "99999" in done.stderr


def test_a_refused_prompt_of_several_choices():
    arguments = ["run", LLAMA, *IDS_ONLY, "--token-ids", "1,99999", "--n", 3]
    done = run(*arguments, "--json")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1 and [answer["index"] for answer in answers] == [0, 1, 2]
    assert all(answer["finish_reason"] == "error" and "99999" in answer["error"] for answer in answers)
    done = run(*arguments)
    assert done.returncode == 1 and done.stderr.count("99999") == 1


def test_environment():
    arguments = ["run", LLAMA, *IDS_ONLY, "--token-ids", "4", "--json", "--ignore-eos"]
    (answer,) = run_json(*arguments, environment={"BANTAM_MAX_TOKENS": "3"})
    assert len(answer["token_ids"]) == 3
    (answer,) = run_json(*arguments, "--max-tokens", 2, environment={"BANTAM_MAX_TOKENS": "3"})
    assert len(answer["token_ids"]) == 2
    assert_refused(run(*arguments, environment={"BANTAM_MAX_TOKENS": "many"}), 2, "BANTAM_MAX_TOKENS", "many")


def prompts_file(directory, text):
    path = directory / "prompts.jsonl"
    path.write_text(text)
    return path


@pytest.mark.parametrize(("text", "line", "word"), [
    ('"good"\n{"prompt": \n', 2, "not JSON"),
    ('"good"\n\n\n{"prompt": 5}\n', 4, "prompt"),
    ("[1, 2]\n", 1, "expected a string"),
    ('{"prompt_token_ids": [1, -2]}\n', 1, "prompt_token_ids[1]"),
    ('{"prompt_token_ids": [1, 2.5]}\n', 1, "prompt_token_ids[1]"),
    ('{"messages": [{"role": "user"}]}\n', 1, "messages[0]"),
    ('{"prompt": "a", "prompt": "b"}\n', 1, "duplicate"),
    ('"a"\n"\udcff"\n'.encode("utf-8", "surrogateescape").decode("latin-1"), 2, ""),
])
def test_bad_prompts_file(tmp_path, text, line, word):
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(text.encode("latin-1"))
    assert_refused(run("run", DEMO, "--prompts", path), 2, f"{path} line {line}", word)


@pytest.mark.parametrize(("arguments", "status", "words"), [
    ([], 2, ["nothing to run", "--prompt"]),
    (["--prompt", "a", "--temperatur", "1"], 2, ["--temperatur", "did you mean --temperature?"]),
    (["--prompt", "a", "--top-p", "3"], 2, ["--top-p", "3", "1"]),
    (["--prompt", "a", "--top-p", "nan"], 2, ["--top-p", "nan"]),
    (["--prompt", "a", "--max-tokens", "few"], 2, ["--max-tokens", "few"]),
    (["--prompt", "a", "--max-tokens", "-1"], 2, ["--max-tokens", "-1"]),
    (["--prompt", "a", "--max-tokens"], 2, ["--max-tokens"]),
    (["--prompt", "a", "--dtype", "float8"], 2, ["--dtype", "float8", "bfloat16"]),
    (["--prompt", "a", "--isa", "avx9"], 2, ["--isa", "avx9", "avx512"]),
    (["--prompt", "a", "--logit-bias", "5"], 2, ["--logit-bias", "5", "ID:BIAS"]),
    (["--prompt", "a", "--stop-token-ids", "1,,2"], 2, ["--stop-token-ids", "1,,2"]),
    (["a", "extra"], 2, ["extra", "MODEL [PROMPT]"]),
    (["--prompt", "a", "--logprobs", "2"], 2, ["--logprobs", "--json"]),
    (["--prompt", "a", "--prompt-logprobs", "2"], 2, ["--prompt-logprobs", "--json"]),
    (["--prompt", "a", "--max-model-len", "9000"], 2, ["--max-model-len 9000", "1024"]),
    (["--prompt", "a", "--chat-template", "/no/such/file"], 1, ["/no/such/file"]),
    (["--prompt", "a", "--memory-limit", "1m"], 1, ["not enough memory", "1.0 MiB"]),
    (["--prompts", "/no/such/file"], 1, ["/no/such/file", "no such file"]),
    (["--token-ids", "1,2,x"], 2, ["--token-ids", "1,2,x"]),
    (["--prompt", "a", "--device", "foo"], 2, ["--device", "foo", "cuda:N"]),
    (["--prompt", "a", "--kv-cache-dtype", "fp8"], 2, ["--kv-cache-dtype fp8", "--device cuda"]),
    (["--prompt", "a", "--quantization", "fp8"], 2, ["--quantization fp8", "--device cuda"]),
    (["--token-ids", "1,4294967296"], 2, ["--token-ids"]),
])
def test_run_refuses(arguments, status, words):
    assert_refused(run("run", DEMO, *arguments), status, *words)


@pytest.mark.parametrize(("arguments", "words"), [
    (["--kv-cache-dtype", "int8"], ["--kv-cache-dtype int8", "CPU"]),
    (["--dtype", "float32", "--kv-cache-dtype", "bfloat16"], ["--dtype float32", "--kv-cache-dtype"]),
    (["--tensor-parallel-size", 2], ["--tensor-parallel-size 2", "321"]),
])
def test_run_refuses_what_a_gpu_lacks_as_what_a_cpu_lacks(arguments, words, tmp_path):
    fake = BIN.parent / "libbantam_cuda_fake.so"
    if not fake.exists():
        pytest.skip("no emulated card in this build")
    config = json.loads((LLAMA / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 321}))
    cards = {"BANTAM_CUDA_LIBRARY": str(fake), "BANTAM_FAKE_DEVICES": "2"}
    request = ["run", tmp_path, *IDS_ONLY, "--load-format", "dummy", "--device", "cuda", "--token-ids", "1"]
    assert_refused(run(*request, *arguments, environment=cards), 2, *words)


@pytest.mark.parametrize("prompt", [["--prompt", "a"], ["--token-ids", "1"]])
def test_refused_prompts(prompt):
    assert_refused(run("run", DEMO, *prompt, "--top-p", 0), 1, "prompt 1", "top_p is 0")
    assert_refused(run("run", DEMO, *prompt, "--stop", ""), 1, "prompt 1", "stop[0]")
    assert_refused(run("run", DEMO, *prompt, "--min-tokens", 9, "--max-tokens", 3), 1, "min_tokens is 9", "3")


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "model.json", "blob"])
def test_a_gguf_file_of_any_name(name, tmp_path):
    (tmp_path / name).symlink_to(GGUF)
    named, plain = (run_json("run", path, *IDS_ONLY, "--token-ids", "1,2", "--temperature", 0, "--max-tokens", 3, "--json")
                    for path in (tmp_path / name, GGUF))
    assert named[0]["token_ids"] == plain[0]["token_ids"]


def test_run_without_tokenizer():
    assert_refused(run("run", LLAMA, "--prompt", "a"), 1, "tokenizer.json", "no such file")
    assert_refused(run("run", LLAMA, *IDS_ONLY, "--prompt", "a"), 1, "prompt 1", "tokenizer")


def test_bad_models(tmp_path):
    assert_refused(run("run", tmp_path / "nothing", *IDS_ONLY, "--token-ids", "1"), 1, "nothing", "no such file")
    (tmp_path / "config.json").write_text("{")
    assert_refused(run("run", tmp_path, *IDS_ONLY, "--token-ids", "1"), 1, "config.json")
    config = json.loads((LLAMA / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["OtherForCausalLM"]}))
    assert_refused(run("run", tmp_path, *IDS_ONLY, "--token-ids", "1"), 1, "OtherForCausalLM")
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((LLAMA / "model.safetensors").read_bytes()[:5000])
    assert_refused(run("run", tmp_path, *IDS_ONLY, "--token-ids", "1"), 1, "model.safetensors")


@pytest.mark.parametrize("command", [["run", "--prompt", "a"], ["chat"], ["serve"], ["quantize"], ["bench", "throughput"],
                                     ["bench", "decode"], ["bench", "latency"], ["tokenize"]], ids=" ".join)
def test_what_is_no_model(command, tmp_path):
    """A wrong path is told as such by every command, and not as the first file that is missed in it."""
    if command[0] == "serve" and run("serve", "--help").returncode != 0:
        pytest.skip("a build without a server")

    def refusal(path):
        words = command[:2] if command[0] == "bench" else command[:1]
        done = run(*words, path, *command[len(words):], *([tmp_path / "out"] if command[0] == "quantize" else []), stdin="")
        assert done.returncode in (1, 2) and "tokenizer.json" not in done.stderr, done.stderr
        assert not (tmp_path / "out").exists()
        return done.stderr

    no_such = "no such file or folder; give a folder with config.json and *.safetensors, a .gguf file or a packed model"
    assert f"{tmp_path}/none: {no_such}" in refusal(tmp_path / "none")
    assert f"{tmp_path}/none.gguf: {no_such}" in refusal(tmp_path / "none.gguf")
    assert "names of model hubs are not downloaded: give a folder" in refusal("meta-llama/Llama-3.2-1B")
    assert "names of model hubs" not in refusal("demo/no-model")
    assert "give the folder that holds it" in refusal(DEMO / "model.safetensors")
    if command[0] == "tokenize":
        return
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path}/empty: no config.json in it; give a folder" in refusal(tmp_path / "empty")
    (tmp_path / "empty/some.gguf").write_bytes(b"")
    assert f"give the file: {tmp_path}/empty/some.gguf" in refusal(tmp_path / "empty")


def test_tokenizer_of_another_model(tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(LLAMA / name, tmp_path)
    shutil.copy(DEMO / "tokenizer.json", tmp_path)
    assert_refused(run("run", tmp_path, "--prompt", "a"), 2, "tokenizer.json", "1791", "384")


def test_generation_config(tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(LLAMA / name, tmp_path)
    settings = {"temperature": 0.0, "max_new_tokens": 9, "eos_token_id": [2]}
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    arguments = ["run", tmp_path, *IDS_ONLY, "--token-ids", "5,6,7", "--json", "--ignore-eos"]
    first, second = run_json(*arguments)[0], run_json(*arguments)[0]
    assert first["token_ids"] == second["token_ids"] and len(first["token_ids"]) == 9
    (given,) = run_json(*arguments, "--max-tokens", 3)
    assert given["token_ids"] == first["token_ids"][:3]
    first, second = (run_json(*arguments, "--generation-config", "vllm")[0] for _ in range(2))
    assert first["token_ids"] != second["token_ids"] and len(first["token_ids"]) == 16  # temperature 1, no seed
    (tmp_path / "generation_config.json").write_text('{"temperature": "hot"}')
    assert_refused(run(*arguments), 2, "generation_config.json", "temperature")
    for name, value in (("temperature", 101), ("top_p", 0), ("repetition_penalty", 0.005)):  # no request may ask for it
        (tmp_path / "generation_config.json").write_text(json.dumps({name: value}))
        assert_refused(run(*arguments), 2, "generation_config.json", name, "--generation-config vllm")
        assert len(run_json(*arguments, "--generation-config", "vllm")[0]["token_ids"]) == 16


# ---- bantam tokenize

LINES = ["Hello world", "", "  tabs\tand\nnewlines ", "caf\u00e9 \u65e5\u672c \U0001f600", "a\u0000b", "<|eot_id|>x"]


def test_tokenize_both_ways():
    stdin = "".join(json.dumps(line) + "\n" for line in LINES)
    done = run("tokenize", DEMO, "--no-special", stdin=stdin)
    assert done.returncode == 0, done.stderr
    ids = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(ids) == len(LINES) and ids[1] == []
    back = run("tokenize", DEMO, "--decode", stdin=done.stdout)
    assert [json.loads(line) for line in back.stdout.splitlines()] == LINES
    with_special = run("tokenize", DEMO, stdin=stdin)
    assert [json.loads(line) for line in with_special.stdout.splitlines()] == [[0, *line] for line in ids]
    skipped = run("tokenize", DEMO, "--decode", "--skip-special-tokens", stdin=with_special.stdout)
    assert [json.loads(line) for line in skipped.stdout.splitlines()] == LINES[:-1] + ["x"]


def test_tokenize_needs_only_the_tokenizer(tmp_path):
    shutil.copy(DEMO / "tokenizer.json", tmp_path)
    done = run("tokenize", tmp_path, stdin='"Hello"\n')
    assert done.returncode == 0 and json.loads(done.stdout)[0] == 0


@pytest.mark.parametrize(("flags", "stdin", "words"), [
    ([], '"a"\nnot json\n', ["line 2", "not JSON"]),
    ([], "[1]\n", ["line 1", "JSON string"]),
    (["--decode"], '"a"\n', ["line 1", "array"]),
    (["--decode"], "[1]\n\n[1, -5]\n", ["line 3", "entry 1"]),
    (["--decode"], "[1e3]\n", ["line 1", "entry 0"]),
])
def test_tokenize_bad_lines(flags, stdin, words):
    done = run("tokenize", DEMO, *flags, stdin=stdin)
    assert done.returncode == 2
    for word in words:
        assert word in done.stderr


def test_tokenize_bad_model(tmp_path):
    assert_refused(run("tokenize", tmp_path, stdin=""), 1, "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text('{"model": {}}')
    assert_refused(run("tokenize", tmp_path, stdin=""), 1, "tokenizer.json")


# ---- bantam chat


def chat(*lines, arguments=()):
    """A piped conversation: prompts and errors go to stderr, only answers to stdout."""
    return run("chat", DEMO, "--temperature", 0, "--max-tokens", 24, "--threads", 1, *arguments,
               stdin="".join(line + "\n" for line in lines))


def answers_in_chat(tmp_path, *conversations, arguments=()):
    """What `bantam run` says to the same messages."""
    prompts = tmp_path / "conversations.jsonl"
    prompts.write_text("".join(json.dumps({"messages": messages}) + "\n" for messages in conversations))
    answers = run_json("run", DEMO, "--temperature", 0, "--max-tokens", 24, "--threads", 1, "--prompts", prompts, "--json",
                       *arguments)
    return [answer["text"] for answer in answers]


def said(role, content):
    return {"role": role, "content": content}


def test_answers_come_without_a_memory_plan():
    """Where stderr is no terminal, too (tests/e2e/test_terminal.py has one); a server and benches tell it."""
    short = ["--max-tokens", 2, "--threads", 1]
    assert "memory plan" not in chat("Hello", arguments=["--max-tokens", 2]).stderr
    assert "memory plan" not in run("run", DEMO, "Hello", *short).stderr
    assert "memory plan" in run("bench", "latency", LLAMA, "--num-prompts", 1, "--output-len", 1).stderr


def test_chat_remembers_until_cleared(tmp_path):
    first, second = "Finish this: the train to", "Complete the sentence: The dog"
    done = chat(first, second, "", "/clear", second, "/quit", "never read")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("> ") == 6  # as many lines were asked for, /quit included
    (one, alone) = answers_in_chat(tmp_path, [said("user", first)], [said("user", second)])
    (two,) = answers_in_chat(tmp_path, [said("user", first), said("assistant", one), said("user", second)])
    assert done.stdout == f"{one}\n{two}\n{alone}\n"
    assert two != alone  # or this test could not tell


def test_chat_system_message_stays(tmp_path):
    system, line = "Answer in one word.", "Is it raining?"
    done = chat(line, "/clear", line, arguments=["--system", system])  # the end of the input ends it too
    assert done.returncode == 0, done.stderr
    (answer,) = answers_in_chat(tmp_path, [said("system", system), said("user", line)])
    assert done.stdout == f"{answer}\n" * 2


def test_chat_forgets_the_oldest_turns(tmp_path):
    """At the model's length it goes on without them, and says so."""
    lines = [f"Complete the sentence: The {word} is" for word in ("dog", "cat", "train", "house", "river", "moon")]
    length, room = 150, 24
    messages, n_forgotten, expected = [], 0, []
    for line in lines:
        messages.append(said("user", line))
        while True:
            prompts = tmp_path / "prompts.jsonl"
            prompts.write_text(json.dumps({"messages": messages}))
            (answer,) = run_json("run", DEMO, "--temperature", 0, "--max-tokens", room, "--threads", 1, "--prompts", prompts,
                                 "--json")
            if answer["usage"]["prompt_tokens"] + room <= length:
                break
            del messages[:2]
            n_forgotten += 1
        messages.append(said("assistant", answer["text"]))
        expected.append(answer["text"])
    done = chat(*lines, arguments=["--max-model-len", length])
    assert done.returncode == 0 and done.stdout == "".join(f"{text}\n" for text in expected), done.stderr
    assert n_forgotten >= 2 and sum(map(int, re.findall(r"(\d+) of the oldest turns", done.stderr))) == n_forgotten


def test_chat_refuses():
    done = chat("x " * 3000, "The train to")  # longer than the model: said, and the conversation goes on
    assert done.returncode == 0 and "tokens" in done.stderr and done.stdout.count("\n") == 1
    for flag in ("--n", "--logprobs", "--prompt-logprobs"):  # of which it could show nothing
        assert_refused(chat("hi", arguments=[flag, 2]), 2, flag)
        assert f"  {flag} " not in run("chat", "--help").stdout
    done = chat("/hlep", "/help", "/quit")
    assert done.returncode == 0 and done.stdout == "" and "/hlep is not a command; /help lists them" in done.stderr
    assert all(f"\n> {word}" in done.stderr or f"\n{word}" in done.stderr for word in ("/clear ", "/quit ", "/help "))
    assert_refused(run("chat", LLAMA, *IDS_ONLY, stdin=""), 1, "chat template")


# ---- bantam quantize


ASK = ("--token-ids", "1,5,9", "--max-tokens", 12, "--temperature", 0, "--json", "--logprobs", 2, "--ignore-eos")


def answer_of(model, *flags):
    (answer,) = run_json("run", model, *IDS_ONLY, *flags, *ASK)
    del answer["timings"]
    return answer


def test_quantize_and_run(tmp_path):
    packed = tmp_path / "packed"
    done = run("quantize", LLAMA, packed, "--quantization", "int8", "--quantization-group", 64)
    assert done.returncode == 0 and done.stderr == ""
    assert re.fullmatch(rf"{packed}: 15 weights, \d+\.\d MiB, in \d+\.\d s\n", done.stdout)
    assert sorted(path.name for path in packed.iterdir()) == ["config.json", "generation_config.json", "model.bantam"] or \
        sorted(path.name for path in packed.iterdir()) == ["config.json", "model.bantam"]
    eight_bits = answer_of(LLAMA, "--quantization", "int8", "--quantization-group", 64)
    assert answer_of(packed) == eight_bits
    assert answer_of(packed, "--quantization", "int8", "--quantization-group", 64) == eight_bits
    assert_refused(run("run", packed, *IDS_ONLY, "--quantization", "int4", *ASK), 2, "packed with --quantization int8")
    assert_refused(run("run", packed, *IDS_ONLY, "--device", "cuda", *ASK), 2, "packed for the CPU")
    # Again, in its place: another model.
    assert run("quantize", LLAMA, packed).returncode == 0
    assert answer_of(packed) == answer_of(LLAMA) != eight_bits


def test_quantize_refuses(tmp_path):
    assert_refused(run("quantize", LLAMA), 2, "OUT is missing")
    assert_refused(run("quantize", LLAMA, tmp_path / "out", "--device", "cuda:1"), 2, "--device cuda:1")
    assert_refused(run("quantize", tmp_path / "none", tmp_path / "out"), 1, "config.json")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    assert_refused(run("quantize", LLAMA, tmp_path / "full"), 2, "neither empty nor a packed model")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


def test_a_broken_packed_model_is_refused(tmp_path):
    packed = tmp_path / "packed"
    assert run("quantize", LLAMA, packed, "--quantization", "int4").returncode == 0
    whole = (packed / "model.bantam").read_bytes()
    for content, words in ((whole[:-1], "truncated"), (whole[:100], "truncated"), (whole + b"x", "too long"),
                           (whole[:-1] + bytes([whole[-1] ^ 1]), "the hash differs"), (b"", "truncated")):
        (packed / "model.bantam").write_bytes(content)
        assert_refused(run("run", packed, *IDS_ONLY, *ASK), 1, "model.bantam", words)


def test_quantize_without_room_on_the_disk(tmp_path):
    """A limit of the size of files stands for it: what was there stays, and nothing else is left."""
    packed = tmp_path / "packed"
    assert run("quantize", LLAMA, packed, "--quantization", "int4").returncode == 0
    before = answer_of(packed)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BANTAM_")}
    done = subprocess.run(["bash", "-c", 'ulimit -f 40; trap "" XFSZ; exec "$@"', "bash", BIN, "quantize", LLAMA, packed], timeout=LIMIT_S,
                          capture_output=True, text=True, env=clean, check=False)
    assert_refused(done, 1, "model.bantam.partial", "room on the disk")
    assert not (packed / "model.bantam.partial").exists()
    assert answer_of(packed) == before


# ---- The program


# What is not given is not there.
WITHOUT_DEFAULT = {"--help", "--prompts", "--system", "--dataset-path", "--port-file", "--http-port-file", "--metrics-port-file",
                   "--ssl-certfile", "--ssl-keyfile", "--ssl-ca-certs", "--api-keys-file", "--api-key", "--api-key-file", "--answers",
                   "--artefact", "--ca-file", "--calibration", "--classifier-prompt", "--config", "--fault", "--from", "--frontier-price",
                   "--golden", "--json", "--judge", "--log", "--openai-url", "--policy", "--svg", "--tenant", "--to"}


def commands():
    """Sub-commands that the program lists, and the kinds of bench."""
    listed = re.findall(r"^  (\w+) +\S", run("--help").stdout, re.M)
    benches = re.findall(r"^  (\w+) +\S", run("bench", "--help").stdout, re.M)
    return [[name] for name in listed if name != "bench"] + [["bench", name] for name in benches]


def test_help_of_every_command():
    assert [["run"], ["chat"], ["tokenize"], ["quantize"], ["bench", "throughput"], ["bench", "decode"],
            ["bench", "latency"], ["bench", "ops"], ["bench", "products"], ["bench", "loop"]] == \
        [c for c in commands() if c[-1] not in ("serve", "doors", "provider", "router", "keys", "route", "eval", "replay", "mcp", "cost", "forget",
                                                "doctor")]
    for command in commands():
        done = run(*command, "--help")
        assert done.returncode == 0 and done.stderr == ""
        assert done.stdout.startswith("Usage: bantam " + " ".join(command))
        assert all(len(line) <= 100 for line in done.stdout.splitlines()), command
        # Every flag names its variable; those with a default say it.
        flags = re.findall(r"^  --(?:\[no-\])?([a-z][a-z-]*)", done.stdout, re.M)
        assert len(flags) == len(set(flags)) >= 2
        for flag in set(flags) - {"help"}:
            assert "BANTAM_" + flag.upper().replace("-", "_") in done.stdout, flag
        assert "default: " in done.stdout
        for paragraph in re.findall(r"^  --.*?(?=^  --|^$|\Z)", done.stdout, re.M | re.S):
            has_default = "default" in " ".join(paragraph.split()) or "may be repeated" in " ".join(paragraph.split())
            assert has_default or paragraph.split()[0] in WITHOUT_DEFAULT, paragraph
        short = run(*command, "-h")
        assert short.stdout == done.stdout


def test_usage():
    done = run()
    assert done.returncode == 2 and done.stdout == "" and "Usage: bantam COMMAND" in done.stderr
    done = run("frobnicate")
    assert done.returncode == 2 and done.stdout == "" and '"frobnicate"' in done.stderr
    assert done.stderr == 'bantam: there is no command "frobnicate"\nTry "bantam help".\n'
    done = run("bench", "frobnicate")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == 'bantam bench: there is no bench "frobnicate"\nTry "bantam help bench".\n'
    done = run("bench")
    assert done.returncode == 2 and done.stdout == "" and "Usage: bantam bench WHAT" in done.stderr
    for word in ("--version", "version", "-v"):
        done = run(word)
        assert done.returncode == 0 and re.fullmatch(r"bantam \d+\.\d+\.\d+\n", done.stdout)
    done = run("tokenize", DEMO, "extra")
    assert done.returncode == 2
    assert done.stderr.startswith('bantam tokenize: unexpected argument "extra": expected only MODEL\n')
    done = run("run")
    assert done.returncode == 2 and done.stderr == 'bantam run: MODEL is missing\nTry "bantam run --help".\n'


def test_help_by_name():
    """"help serve" is "serve --help"."""
    for words in (["run"], ["bench"], ["bench", "latency"]):
        help_, flag = run("help", *words), run(*words, "--help")
        assert help_.returncode == flag.returncode == 0 and help_.stdout == flag.stdout != ""
    assert run("help").stdout == run("--help").stdout
    assert run("help", "frobnicate").returncode == 2


@pytest.mark.parametrize("script", ["setup", "test", "demo", "bundle"])
def test_help_of_scripts(script):
    """Their head comments, and nothing is done."""
    done = subprocess.run([ROOT / "scripts" / script, "--help"], capture_output=True, text=True, timeout=LIMIT_S, check=True)
    first = (ROOT / "scripts" / script).read_text().splitlines()[1]
    assert done.stderr == "" and done.stdout.splitlines()[0] == first.removeprefix("# ")


@pytest.mark.parametrize("arguments", [
    ["run", LLAMA, *IDS_ONLY, "--token-ids", "1", "--json"],
    ["run", DEMO, "--prompt", "The train to"],
    ["chat", DEMO],
    ["tokenize", DEMO],
    ["bench", "throughput", LLAMA, "--input-len", 4, "--output-len", 2, "--num-prompts", 1],
    ["run", "--help"],
    ["--help"],
], ids=lambda arguments: " ".join(map(str, arguments[:1])))
def test_full_disk_is_reported(arguments):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([str(BIN), *map(str, arguments)], input="\"Hello\"\n" * 3, stdout=full, stderr=subprocess.PIPE,
                              text=True, timeout=LIMIT_S, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "bantam: cannot write to standard output" in done.stderr


def test_closed_pipe_ends_the_work():
    """A reader that has enough ends the program: the next lines are longer than what a pipe holds."""
    prompts = "".join(json.dumps({"prompt_token_ids": [5]}) + "\n" for _ in range(20))
    process = subprocess.Popen([str(BIN), "run", str(LLAMA), *IDS_ONLY, "--prompts", "/dev/stdin", "--json", "--ignore-eos",
                                "--max-tokens", "200", "--logprobs", "20", "--max-num-seqs", "1", "--max-waiting", "0"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    process.stdin.write(prompts)
    process.stdin.close()
    assert json.loads(process.stdout.readline())["token_ids"]
    process.stdout.close()
    assert process.wait(LIMIT_S) == 1
    assert "cannot write to standard output" in process.stderr.read()
    process.stderr.close()
