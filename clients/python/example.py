"""Everything that bantam-client does, once: with threads, then with asyncio.

    pip install ./clients/python
    python clients/python/example.py 127.0.0.1:50051

With TLS, a client certificate and a key: Client(target, tls=Tls(ca="ca.pem", certificate="me.pem", key="me.key"), api_key="sk-...").
"""

from __future__ import annotations

import asyncio
import math
import sys

from bantam import AsyncClient, BantamError, Client, Completion, InvalidArgumentError, Retry, user

PROMPT = "The train to"
RETRY = Retry(attempts=5)  # only what failed before its first message, and only when the server says that it may go through


def with_threads(target: str) -> None:
    with Client(target, timeout=60, retry=RETRY) as client:
        info = client.model_info()
        print(f"{info.served_model_name}: {info.model_type}, {info.n_parameters / 1e6:.1f} M parameters, {client.health()}")

        for output in client.generate(PROMPT, max_tokens=20, temperature=0):
            print(output.text, end="", flush=True)
            if isinstance(output, Completion):
                ms = (output.timings.prefill_ns + output.timings.decode_ns) / 1e6
                print(f"\n  {output.finish_reason} after {output.completion_tokens} tokens, {ms:.1f} ms")

        # Leaving the loop ends the request on the server; it is all that is needed.
        for output in client.generate(messages=[user("Hello!")], max_tokens=0):
            print("first words:", output.text)
            break

        best, *_ = client.generate_whole(PROMPT, n=2, seed=1, temperature=0.8, max_tokens=12, logprobs=1)
        logprob = sum(token.logprob for token in best.output_logprobs or [])
        print(f"choice {best.index}: {best.text!r}, perplexity {math.exp(-logprob / best.completion_tokens):.2f}")

        # The same answer, continued from where somebody else stopped.
        half = len(best.token_ids) // 2
        rest = client.generate_whole(PROMPT, seed=1, temperature=0.8, max_tokens=12, output_prefix_ids=best.token_ids[:half])
        assert rest[0].token_ids[: len(best.token_ids) - half] == best.token_ids[half:]

        ids = client.tokenize(PROMPT)
        print(f"{PROMPT!r} has the ids {ids}, which are {client.detokenize(ids)!r}")

        try:
            client.generate_whole(PROMPT, temperature=-1)
        except InvalidArgumentError as error:
            print("refused:", error.message)


async def with_asyncio(target: str) -> None:
    async with AsyncClient(target, timeout=60, retry=RETRY) as client:

        async def ask(prompt: str) -> str:
            return "".join([output.text async for output in client.generate(prompt, max_tokens=12, temperature=0)])

        prompts = [PROMPT, "Once upon a time", "The weather today"]
        for prompt, text in zip(prompts, await asyncio.gather(*map(ask, prompts))):
            print(f"{prompt!r} -> {text!r}")

        async for loads in client.watch_loads(interval_ms=100):
            print(f"{loads.num_running_reqs} running, {loads.kv_blocks_used} of {loads.kv_blocks_total} KV blocks in use")
            break


def main(target: str) -> None:
    try:
        with_threads(target)
        asyncio.run(with_asyncio(target))
    except BantamError as error:
        sys.exit(f"{target}: {error}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051")
