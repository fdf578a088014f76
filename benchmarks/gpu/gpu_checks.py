"""The parts of benchmarks/gpu/run that say whether the answers are right: kernels, parity, the same bits."""

import concurrent.futures
import itertools
import json
import os
import pathlib
import random

import gpu_models
from gpu_session import ROOT, PartFailed, PartSkipped, check, say

CHECKPOINTS = ROOT / "tests/parity/checkpoints"
QUANTIZED = ROOT / "tests/parity/quantized"
QUANTIZED_NAMES = ["awq-g128", "gptq-sym-g32", "packed-asym-g32", "w8a8", "e4m3-channel"]  # a kind of codes each
TIE_NATS = 0.01  # a smaller gap between the best two decides nothing
NEAR_TIE_NATS = 0.25  # another best token is fine where the reference gives it this much less than its own
F32_TOLERANCE = 1e-4
TORCH_TOLERANCE = 1e-3  # a wider model, and another order of sums on both sides
BF16 = ["--dtype", "bfloat16"]  # also where the checkpoint is float32 or float16
# Flags, mean error allowed in nats (None: float32, where the worst counts), and whether the near-tie rule holds. The bounds
# are those of tests/model/test_parity.c.
ROUNDINGS = {
    "float32": (["--dtype", "float32"], None, True),
    "bf16": (BF16, 0.02, True),
    "W8A8": (BF16 + gpu_models.FORMATS["W8A8"], 0.06, True),
    "FP8": (BF16 + gpu_models.FORMATS["FP8"], 0.15, False),
    "W4A16": (BF16 + gpu_models.FORMATS["W4A16"], 0.6, False),
    "codes": ([], 0.12, False),  # of a quantised checkpoint
}
# What rounding weights, rows and KV to e4m3 costs a checkpoint by itself, in nats: products exact, sums in f32
# (docs/gpu-benchmark.md has the command). The two with tied embeddings lose more in every format.
FP8_ROUNDING_NATS = {"gemma2-soft-caps": 0.0843, "gemma3-linear-rope": 0.1525, "gemma3-windows": 0.2062,
                     "llama-gqa": 0.0898, "llama-head-dim-linear-rope": 0.0891, "llama-mha-sharded": 0.1058,
                     "llama-tied-llama3-rope": 0.2005, "qwen2-gqa-tied": 0.1328, "qwen2-window": 0.1110}
FP8_MARGIN = 1.1  # sm_90 adds products of e4m3 with 13 bits of fraction: that moves the figures by less than 2 %


def part_kernels(session, figures):
    """checkkernel on the device: every kernel against the scalar reference, rows alone against rows together."""
    folder = session.build / "tests/kernels"
    program = folder / ("checkkernel_card" if session.device == "cuda" else "checkkernel")
    if not program.exists():
        raise PartFailed(f"{program} was not built")
    command = [program, "--device", session.device, "--quick"] + (["--runs", "2"] if session.small else [])
    if session.device != "cuda":
        done = session.must(command)
        figures["summary"] = done.lines[-1]
        say(f"    {done.lines[-1]}")
        return
    # A process each: an error of the GPU stays with the process that had it.
    names = session.must([program, "--device", session.device, "--list"]).lines
    with concurrent.futures.ThreadPoolExecutor(max_workers=min(12, os.cpu_count())) as pool:
        done = dict(zip(names, pool.map(lambda name: session.run([*command, "--filter", name]), names)))
    bad = {name: "; ".join(one.lines[-3:]) for name, one in done.items() if one.status != 0 or one.timed_out}
    left_out = sum(any("not for this device" in line for line in one.lines) for one in done.values())
    figures.update(kernels=len(names), not_for_this_device=left_out, failed=bad)
    say(f"    {len(names)} kernels, {left_out} of them for other cards, {len(bad)} wrong")
    if bad:
        raise PartFailed("; ".join(f"{name}: {why}" for name, why in bad.items()))


def run_answers(session, directory, prompts, flags):
    """Answers of `bantam run` to lists of ids, in order."""
    path = session.work / "prompts.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"prompt_token_ids": ids}) + "\n" for ids in prompts))
    done = session.must([session.bantam, "run", directory, "--skip-tokenizer-init", *gpu_models.engine_flags(session),
                         "--prompts", path, "--json", *flags])
    answers = [row for row in done.rows() if "token_ids" in row]
    if len(answers) != len(prompts):
        raise PartFailed(f"{len(answers)} answers to {len(prompts)} prompts")
    return answers


def teacher_forced(session, directory, cases, flags):
    """The golden tokens as the prompt: every position answers for the same context as the reference. Errors in nats."""
    errors, others = [], 0
    prompts = [case["prompt"] + [step["token"] for step in case["greedy"]] for case in cases]
    answers = run_answers(session, directory, prompts, [*flags, "--prompt-logprobs", 1, "--max-tokens", 1, "--temperature", 0])
    worst_other = 0.0
    for case, answer in zip(cases, answers):
        n_prompt = len(case["prompt"])
        wanted = case["prompt_logprobs"] + [step["logprob"] for step in case["greedy"]]
        got = answer["prompt_logprobs"][1:]
        errors += [abs(position["logprob"] - golden) for position, golden in zip(got, wanted)]
        for position, step in zip(got[n_prompt - 1:], case["greedy"]):
            best = position["top"][0]["token_id"]
            if best != step["token"]:
                others += 1
                below = dict(zip(step["top"], (step["top_logprobs"][0] - x for x in step["top_logprobs"])))
                worst_other = max(worst_other, below.get(best, float("inf")))
    return {"mean_error_nats": sum(errors) / len(errors), "worst_error_nats": max(errors), "positions": len(errors),
            "other_best": others, "worst_other_nats": worst_other}


def greedy_differences(session, directory, cases, flags):
    """Free greedy runs: tokens that differ from the reference's before any tie."""
    n_tokens = len(cases[0]["greedy"])
    answers = run_answers(session, directory, [case["prompt"] for case in cases],
                          [*flags, "--max-tokens", n_tokens, "--temperature", 0, "--ignore-eos"])
    wrong = 0
    for case, answer in zip(cases, answers):
        for step, token in zip(case["greedy"], answer["token_ids"]):
            if token != step["token"]:
                wrong += step["gap"] >= TIE_NATS
                break
    return wrong


def mean_bound(rounding, checkpoint):
    """Mean error allowed in nats."""
    if rounding == "FP8" and checkpoint in FP8_ROUNDING_NATS:
        return FP8_MARGIN * FP8_ROUNDING_NATS[checkpoint]
    return ROUNDINGS[rounding][1]


def compare_with_golden(session, directory, golden, roundings, f32_tolerance=F32_TOLERANCE):
    """Figures of each rounding; the list of what is out of bounds."""
    cases = [case for case in json.loads(pathlib.Path(golden).read_text())["cases"]
             if len(case["prompt"]) + len(case["greedy"]) < 256]
    if session.small:
        cases = sorted(cases, key=lambda case: len(case["prompt"]))[:2]
    figures, bad = {}, []
    for name in roundings:
        flags, _, near_tie = ROUNDINGS[name]
        mean_max = mean_bound(name, pathlib.Path(directory).name)
        try:
            found = figures[name] = teacher_forced(session, directory, cases, flags)
            if mean_max is None:
                found["greedy_differences"] = greedy_differences(session, directory, cases, flags)
                fine = found["worst_error_nats"] <= f32_tolerance and found["greedy_differences"] == 0
            else:
                fine = found["mean_error_nats"] <= mean_max and (not near_tie or found["worst_other_nats"] <= NEAR_TIE_NATS)
        except PartFailed as failure:
            figures[name], fine = {"error": str(failure)}, False
        if not fine:
            bad.append(name)
    return figures, bad


def part_parity(session, figures):
    """Tiny checkpoints against what Transformers computed in float32, stored beside them."""
    names = sorted(path.name for path in CHECKPOINTS.iterdir() if (path / "golden.json").exists())
    roundings = [name for name in ROUNDINGS if name != "codes"]
    if session.device == "cpu":
        roundings.remove("FP8")  # the CPU has no FP8 weights
    todo = [(name, CHECKPOINTS / name, roundings) for name in names[:1 if session.small else None]]
    todo += [(name, QUANTIZED / name, ["codes"]) for name in QUANTIZED_NAMES[:1 if session.small else None]]
    bad = []
    for name, directory, wanted in todo:
        figures[name], wrong = compare_with_golden(session, directory, directory / "golden.json", wanted)
        bad += [f"{name} in {what}" for what in wrong]
        shown = ", ".join(f"{what} {found['mean_error_nats']:.2g}" if "error" not in found else f"{what} failed"
                          for what, found in figures[name].items())
        say(f"    {name}: mean error in nats: {shown}")
        for what, found in figures[name].items():
            if "error" in found:
                say(f"    {name}: {what}: {found['error']}")
    if bad:
        raise PartFailed("not near Transformers: " + "; ".join(bad))


# What may not change an answer.
FEW_KV_BLOCKS = 40  # of models of 256 tokens
VARIANTS = {
    "one at a time": ["--max-num-seqs", 1],
    "chunks of 16": ["--max-num-batched-tokens", 16, "--max-num-seqs", 16],
    "chunks of 64": ["--max-num-batched-tokens", 64, "--max-num-seqs", 64],
    "no prefix cache": ["--no-enable-prefix-caching"],
    "one step in flight": ["--steps-in-flight", 1],
    "two steps in flight": ["--steps-in-flight", 2],
    "few KV blocks": ["--num-kv-blocks", FEW_KV_BLOCKS],
}


def make_prompts(n, vocab_size, long_ones):
    """long_ones: every eighth is longer than a split of attention's keys (256), so that its parts are merged."""
    rng = random.Random(4711)
    shared = [rng.randrange(3, vocab_size) for _ in range(50)]
    prompts = []
    for i in range(n):
        length = 300 + rng.randrange(300) if long_ones and i % 8 == 7 else 1 + rng.randrange(120)
        own = [rng.randrange(3, vocab_size) for _ in range(length)]
        prompts.append((shared[:len(own)] + own[len(shared):]) if i % 3 == 0 else own)
    return prompts


def differing(baseline, answers):
    keys = ("prompt_token_ids", "token_ids", "logprobs", "finish_reason")
    return [i for i, (a, b) in enumerate(zip(baseline, answers)) if any(a[key] != b[key] for key in keys)]


def part_bits(session, figures):
    """The same requests with other neighbours, chunks, blocks and steps in flight: the same tokens and log-probabilities."""
    models = [("middle", gpu_models.written(session, "middle", gpu_models.MIDDLE), ["FP8", "W4A16", "bf16", "W8A8"]),
              ("llama-gqa", str(CHECKPOINTS / "llama-gqa"), ["bf16", "float32"])]
    if session.small:
        models = [("tiny", gpu_models.written(session, "tiny", gpu_models.TINY), ["W4A16", "bf16"])]
    wrong = []
    for model, directory, formats in models:
        vocab = json.loads((pathlib.Path(directory) / "config.json").read_text())["vocab_size"]
        has_long = model == "middle"
        prompts = make_prompts(8 if session.small else 48, vocab, has_long)
        dummy = ["--load-format", "dummy"] if model != "llama-gqa" else []
        for name in formats:
            flags = [*dummy, *(["--dtype", "float32"] if name == "float32" else gpu_models.FORMATS[name]), "--max-model-len",
                     1024 if has_long else 256, "--temperature", 0.8, "--top-p", 0.9, "--seed", 7, "--logprobs", 2, "--max-tokens", 30, "--ignore-eos"]
            found = figures[f"{model} {name}"] = {}
            baseline = run_answers(session, directory, prompts, flags)
            for variant, more in VARIANTS.items():
                more = [2 * FEW_KV_BLOCKS if has_long and word == FEW_KV_BLOCKS else word for word in more]
                answers = run_answers(session, directory, prompts, flags + more)
                found[variant] = {"differ": len(differing(baseline, answers)), "of": len(answers),
                                  "preemptions": sum(answer["usage"]["preemptions"] for answer in answers)}
                if found[variant]["differ"]:
                    wrong.append(f"{model} {name}, {variant}: {found[variant]['differ']} of {len(answers)}")
            say(f"    {model} {name}: {len(VARIANTS)} variants, {sum(v['differ'] for v in found.values())} answers differ")
    if wrong:
        raise PartFailed("answers differ: " + "; ".join(wrong))


def part_products(session, figures):
    """cuBLASLt's products against our own kernels: whether every row is bit-equal, at every number of rows, and both speeds.
    Rows that differ are no failure: such a shape stays ours, unless --no-batch-invariant says otherwise."""
    if session.device != "cuda":
        raise PartSkipped("only of a GPU")
    sizes = ["--shape", "80x320", "--rows", 1, "--rows", 17, "--rounds", 1] if session.small else []
    rows, errors = figures.setdefault("rows", []), []
    for weights in ("bf16", "fp8"):  # each by itself: a library may lack one of them
        try:
            session.rows([session.bantam, "bench", "products", "--device", session.device, "--weights", weights, *sizes, "--json"], rows)
        except PartFailed as failure:
            errors.append(f"{weights}: {failure}")
    shapes = {}
    for row in rows:
        shapes.setdefault((row["weights"], row["n_out"], row["n_in"]), []).append(row)
    for (weights, n_out, n_in), found in shapes.items():
        equal = sum(row["equal"] for row in found)
        last = found[-1]
        say(f"    {weights} {n_out} x {n_in}: every row equal at {equal} of {len(found)} numbers of rows; at {last['rows']} rows "
            f"{last['ours_tflop_s']:.1f} TFLOP/s, the library {last['library_tflop_s']:.1f}")
    figures["equal_shapes"] = []
    for (weights, n_out, n_in), found in shapes.items():
        equal = list(reversed(list(itertools.takewhile(lambda row: row["equal"], reversed(found)))))  # from so many rows on
        faster = list(itertools.takewhile(lambda row: row["library_us"] < row["ours_us"], reversed(equal)))
        if equal:
            figures["equal_shapes"].append({"weights": weights, "n_out": n_out, "n_in": n_in, "rows_min": equal[0]["rows"],
                                            "rows_max": equal[-1]["rows"], "faster_from": faster[-1]["rows"] if faster else None,
                                            "library_version": equal[0]["library_version"]})
    say(f"    for kernels/cuda/product_table.c: {figures['equal_shapes'] or 'nothing'}")
    if errors:
        raise PartFailed("; ".join(errors))


def part_torch(session, figures):
    """A random Llama of a middling size against PyTorch and Transformers on the same card, where python3 has them."""
    made = session.work / "torch"
    command = ["python3", ROOT / "benchmarks/gpu/gpu_torch.py", made, session.device] + (["--small"] if session.small else [])
    done = session.run(command)
    if done.status == 3:
        raise PartSkipped(done.lines[-1] if done.lines else "python3 has no PyTorch")
    check(done, command)
    roundings = ["float32", "bf16"]
    figures["figures"], bad = compare_with_golden(session, made, made / "golden.json", roundings, TORCH_TOLERANCE)
    shown = ", ".join(f"{what} worst {found.get('worst_error_nats', float('nan')):.2g}" for what, found in figures["figures"].items())
    say(f"    errors in nats: {shown}")
    if bad:
        raise PartFailed("not near PyTorch: " + ", ".join(bad))
