#!/usr/bin/env python3
"""Sends prompts to a running server, a few streams at once, and prints answers as they come in.

    PYTHONPATH=clients/python python3 demo/show.py HOST:PORT [PROMPTS]

PROMPTS is a file like demo/prompts.jsonl, which it is unless given.
"""

import concurrent.futures
import json
import pathlib
import statistics
import sys
import threading
import time

from bantam import Client

PROMPTS = pathlib.Path(__file__).resolve().parent / "prompts.jsonl"
STREAMS = 4
REQUEST_TIMEOUT_S = 120
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


def prompt_of(case):
    if "messages" in case:
        return {"messages": [(message["role"], message["content"]) for message in case["messages"]]}
    return {"text": case["prompt"]}


def question_of(case):
    text = case["messages"][-1]["content"] if "messages" in case else case["prompt"]
    return "\n".join("    " + line for line in text.splitlines())


def answer(client, case):
    return client.generate(**prompt_of(case), max_tokens=case["max_tokens"], temperature=0.0, timeout=REQUEST_TIMEOUT_S)


def ask(client, case):
    """(text, tokens, seconds to the first token, seconds in all)"""
    began = time.monotonic()
    first, text, tokens = None, "", 0
    for output in answer(client, case):
        if first is None and output.token_ids:
            first = time.monotonic() - began
        text += output.text
        tokens += len(output.token_ids)
    return text, tokens, first, time.monotonic() - began


def stream_one(client, case):
    """The first answer is shown token by token."""
    print(f"{BOLD}{case['title']}{PLAIN}")
    print(f"{DIM}{question_of(case)}{PLAIN}\n  -> ", end="", flush=True)
    for output in answer(client, case):
        print(output.text.replace("\n", "\n     "), end="", flush=True)
    print("\n")


def main():
    client = Client(sys.argv[1])
    info = client.model_info()
    print(f"demo: {info.n_parameters / 1e6:.1f} M parameters, vocabulary {info.vocab_size}, up to {info.max_context_length} tokens\n")
    prompts = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else PROMPTS
    cases = [json.loads(line) for line in prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    stream_one(client, cases[0])

    lock = threading.Lock()
    results = []

    def run(case):
        result = ask(client, case)
        text, tokens, first, total = result
        with lock:
            print(f"{BOLD}{case['title']}{PLAIN}\n{DIM}{question_of(case)}{PLAIN}")
            print("  -> " + text.strip().replace("\n", "\n     "))
            print(f"     {DIM}{tokens} tokens, first after {first * 1e3:.1f} ms, {tokens / total:.0f} tokens/s{PLAIN}\n", flush=True)
            results.append(result)

    began = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(STREAMS) as pool:
        for future in [pool.submit(run, case) for case in cases[1:]]:
            future.result()
    elapsed = time.monotonic() - began
    tokens = sum(result[1] for result in results)
    firsts = [result[2] * 1e3 for result in results]
    print(f"demo: {len(results)} requests, {STREAMS} at once: {tokens} tokens in {elapsed:.2f} s = {tokens / elapsed:.0f} tokens/s; "
          f"time to first token: median {statistics.median(firsts):.1f} ms, worst {max(firsts):.1f} ms")
    client.close()


if __name__ == "__main__":
    main()
