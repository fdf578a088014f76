"""The parts of benchmarks/gpu/run that measure: ceilings, ops, decode, offline throughput, load, start."""

import json
import os
import pathlib
import random
import sys

import gpu_models
from gpu_session import ROOT, PartFailed, PartSkipped, say

# Of the small run, which is there to exercise the script.
SMALL = {"batches": [1, 2], "context": 32, "steps": 4, "rates": [50], "seconds": 0.2}
BATCHES = [1, 8, 32, 128, 256]
CONTEXT, STEPS = 900, 64
VARIANT = "--no-batch-invariant"
OFFLINE = [(1000, 1000, 512), (128, 128, 1536), (2048, 128, 256)]
# 800 tokens in, 200 out; the second with 600 of the 800 shared by all.
LOADS = {"800/200": (0, [30, 50, 58]), "800/200, 600 shared": (600, [60, 90, 120])}
LOAD_SECONDS = 16  # served/s is of the second half: an answer at the highest rate has taken 6 s
LOAD_SEQUENCES = 1024  # 120 a second of 5 s each: with 512 they queued before the first step
CHECKPOINT = "model.safetensors"
LINEAR_ROWS = [1, 8, 16, 32, 64, 128, 256, 2048]
# At which a whole layer is given to cuBLASLt too: PRODUCT_ROWS_MIN_* of product_policy.h stands on them.
LIBRARY_ROWS = {"fp8": [2048, 4096, 8192], "bf16": [256, 2048]}


def part_ceilings(session, figures):
    """What the card gives to anybody: a large copy and a large product, by CUDA's own functions."""
    if session.device != "cuda":
        raise PartSkipped("only of a GPU")
    program = session.build / "benchmarks/gpu/ceilings"
    if not program.exists():
        raise PartFailed(f"{program} was not built: `cmake --build {session.build} --target ceilings` makes it where nvcc is")
    session.rows([program], figures.setdefault("rows", []))
    for row in figures["rows"]:
        say(f"    {row['what']}: {row['value']:.1f} {row['unit']}")
    if len(figures["rows"]) == 1:
        say("    no product: built without cuBLASLt's headers or library")


def ops_commands(session):
    """What has a target first. Weights by their format, attention by the KV's, the rest once."""
    on_card = session.device == "cuda"
    formats = ["int4/128", "fp8", "bf16", "w8a8", "uint4/128", "int4/32", "int8/32"] if on_card else ["int4/32", "bf16", "w8a8"]
    caches = ["bfloat16", "fp8"] if on_card else ["bfloat16"]
    small = ["--hidden", 128, "--intermediate", 256, "--vocab", 512, "--heads", 4, "--kv-heads", 2, "--head-dim", 32,
             "--layers", 2, "--rounds", 2, "--context", 64] if session.small else []

    def command(ops, rows, *flags):
        return [session.bantam, "bench", "ops", "--device", session.device, *small, *flags, "--json",
                *[word for op in ops for word in ("--op", op)], *[word for n in rows for word in ("--rows", n)]]

    def weights(name):
        kind, _, group = name.partition("/")
        return ["--weights", kind, *(["--group", 32 if session.small else group] if group else [])]

    def linears(name):
        rows = [1, 4] if session.small else sorted(set(LINEAR_ROWS + LIBRARY_ROWS.get(name, [])))
        return name, command(["layer_linears"], rows, *weights(name))

    yield linears(formats[0])
    decoding = [1, 4] if session.small else [1, 32, 64, 128, 256]  # those of attention_shared too, which is held against them
    for cache in caches:
        yield cache, command(["attention_decode"], decoding, "--kv-cache-dtype", cache)
    for name in formats[1:]:
        yield linears(name)
    for name, rows in LIBRARY_ROWS.items() if on_card else ():
        rows = [300] if session.small else rows
        yield f"{name}, {VARIANT}", command(["layer_linears"], rows, *weights(name), VARIANT, "--library-rows", rows[0])
    shared, prefill = ([4], [4]) if session.small else ([64, 256], [512, 2048])
    for cache in caches:
        yield f"{cache}, shared", command(["attention_shared"], shared, "--kv-cache-dtype", cache)
        yield f"{cache}, prefill", command(["attention_prefill"], prefill, "--kv-cache-dtype", cache)
    yield "rows", command(["rope_kv_write", "add_norm", "activation_mul"], [4] if session.small else [1, 32, 256, 2048])
    few = [1, 4] if session.small else [1, 32, 256]
    for name, cache in zip(formats[:2], caches * 2):
        yield f"{name}, all of a layer", command(["decode_layer"], few, *weights(name), "--kv-cache-dtype", cache)
    for name in formats[:2]:
        heads = ["embed", "lm_head", "lm_head_greedy", "lm_head_top_p"]
        yield f"{name}, head", command(heads, few, *weights(name))


def label(row):
    """int4 in groups of 128: int4/128."""
    grouped = row["weights"] in ("int4", "uint4", "int8")
    return f"{row['weights']}/{row['group']}" if grouped else row["weights"] or row["kv"]


def add_shares(row, ceilings):
    """Of the ceilings measured in this run: the copy, and the product of the type that the op's products have. No ceiling of
    int8's is measured."""
    product = {"fp8": "GEMM FP8", "w8a8": None}.get(row["weights"], "GEMM bf16")
    if "copy" in ceilings:
        row["share_of_copy"] = row["gb_s"] / ceilings["copy"]
    if product in ceilings and row["flops"] > 0:
        row["share_of_gemm"], row["gemm"] = row["tflop_s"] / ceilings[product], product


def shared_beside_unshared(rows):
    """Decode attention with a shared prefix, and of as many rows without."""
    plain = {(row["kv"], row["rows"]): row["us"] for row in rows if row["op"] == "attention_decode"}
    return [{"kv": row["kv"], "rows": row["rows"], "shared_us": row["us"], "unshared_us": plain[row["kv"], row["rows"]]}
            for row in rows if row["op"] == "attention_shared" and (row["kv"], row["rows"]) in plain]


def part_ops(session, figures):
    """Each op of a layer as the engine calls it, back to back in one step over several layers of random weights, and what
    surrounds the layers."""
    rows, errors = figures.setdefault("rows", []), []
    for what, command in ops_commands(session):
        try:
            session.rows(command, rows)
        except PartFailed as failure:
            errors.append(f"{what}: {failure}")
    ceilings = {row["what"]: row["value"] for row in session.results["parts"].get("ceilings", {}).get("figures", {}).get("rows", [])}
    for row in rows:
        add_shares(row, ceilings)
        share = f"{100 * row['share_of_copy']:4.0f} % of the copy" if "share_of_copy" in row else ""
        mode = "" if row["batch_invariant"] else " " + VARIANT
        say(f"    {row['op']:18} {label(row):9} {row['rows']:5} rows {row['us']:10.1f} us {row['gb_s']:8.1f} GB/s "
            f"{row['tflop_s']:7.2f} TFLOP/s {share}{mode}".rstrip())
    figures["shared"] = shared_beside_unshared(rows)
    for row in figures["shared"]:
        say(f"    attention of {row['rows']} rows, {row['kv']}: {row['shared_us']:.1f} us with a shared prefix, "
            f"{row['unshared_us']:.1f} without")
    if errors:
        raise PartFailed("; ".join(errors))


def model_flags(session, name, longest):
    return [gpu_models.shape(session), *gpu_models.engine_flags(session), *gpu_models.DUMMY, *gpu_models.FORMATS[name],
            "--max-model-len", longest, "--json"]


def series(session, figures, names, command):
    """The same bench for several formats; one that fails does not keep the others from running."""
    errors = []
    for name in names:
        rows = figures.setdefault(name, [])
        try:
            session.rows(command(name), rows)
        except PartFailed as failure:
            errors.append(f"{name}: {failure}")
        yield name, rows
    if errors:
        raise PartFailed("; ".join(errors))


def formats_of(session):
    return ["W4A16 g128", "FP8", "bf16"] if session.device == "cuda" else ["W4A16 g128", "bf16"]


def decode_command(session, name, extra=(), batches=None):
    all_batches, context, steps = (SMALL["batches"], SMALL["context"], SMALL["steps"]) if session.small else (BATCHES, CONTEXT, STEPS)
    batches = batches or all_batches
    flags = [word for batch in batches for word in ("--batch", batch)]
    return [session.bantam, "bench", "decode", *model_flags(session, name, 512 if session.small else 2048), *flags,
            "--context", context, "--steps", steps, "--max-num-batched-tokens", 8192, *extra]


def part_decode(session, figures):
    """Tokens per second of a batch that stays full, at a context of 900."""
    batches = SMALL["batches"] if session.small else BATCHES
    ends = {"W8A8": [batches[0], batches[-1]]}  # of the others every batch
    names = formats_of(session) + (["W8A8"] if session.device == "cuda" else [])
    for name, rows in series(session, figures, names, lambda name: decode_command(session, name, batches=ends.get(name))):
        for row in rows:
            say(f"    {name:10} batch {row['batch']:4}: {row['decode_tok_s']:10.1f} tok/s, {row['ms_per_step']:.3f} ms per step" +
                (f" (spoiled: {row['preemptions']} preemptions)" if row["preemptions"] else ""))


def offline_command(session, name, shapes, extra=()):
    flags = [word for shape in shapes for word in ("--shape", ":".join(map(str, shape)))]
    return [session.bantam, "bench", "throughput", *model_flags(session, name, 512 if session.small else 4096), *flags,
            "--max-num-seqs", 8 if session.small else 512, "--max-num-batched-tokens", 8192, *extra]


def part_offline(session, figures):
    """All prompts at once: output tokens per second, prefill included."""
    shapes = [(16, 8, 4), (24, 4, 2)] if session.small else OFFLINE
    names = ["FP8"] if session.device == "cuda" else ["bf16"]
    for name, rows in series(session, figures, names, lambda name: offline_command(session, name, shapes)):
        for row in rows:
            say(f"    {name} {row['input_len']}/{row['output_len']}: {row['output_tok_s']:.1f} output tok/s "
                f"({row['num_prompts']} prompts, {row['elapsed_s']:.1f} s)")


def part_load(session, figures):
    """Arrivals at rising rates, timed from the schedule, with and without a shared prefix."""
    name = "FP8" if session.device == "cuda" else "bf16"
    errors = []
    for load, (prefix, rates) in LOADS.items():
        lens = ["--input-len", 800, "--output-len", 200, "--prefix-len", prefix, "--duration", LOAD_SECONDS]
        if session.small:
            rates = SMALL["rates"]
            lens = ["--input-len", 40, "--output-len", 4, "--prefix-len", 32 if prefix else 0, "--duration", SMALL["seconds"]]
        rows = figures.setdefault(load, [])
        try:
            session.rows([session.bantam, "bench", "latency", *model_flags(session, name, 512 if session.small else 2048), *lens,
                          *[word for rate in rates for word in ("--request-rate", rate)], "--num-warmups", 4,
                          "--max-num-seqs", 8 if session.small else LOAD_SEQUENCES, "--max-num-batched-tokens", 4096,
                          "--goodput", "ttft:200"], rows)
        except PartFailed as failure:
            errors.append(f"{load}: {failure}")
        for row in rows:
            say(f"    {name} {load} at {row['request_rate']} requests/s: {row['steady_request_throughput']:.1f} served, TTFT "
                f"{row['p50_ttft_ms']:.0f} / {row['p99_ttft_ms']:.0f} ms, ITL {row['p50_itl_ms']:.1f} / {row['p99_itl_ms']:.1f} ms (p50 / p99)")
    if errors:
        raise PartFailed("; ".join(errors))


def part_start(session, figures):
    """Start to ready with checkpoints of bf16 weights that are in the page cache: reading, packing, copying, planning. The
    larger one last, in each format: what it takes more than the smaller one is what the weights cost."""
    for model in ("llama-3.2-1b", "llama-3.1-8b"):
        fields = {**gpu_models.TINY} if session.small else json.loads((ROOT / f"benchmarks/shapes/{model}/config.json").read_text())
        directory = gpu_models.written(session, f"start-{model}", fields)
        found = figures[model] = {}
        try:
            found["checkpoint_bytes"] = write_checkpoint(session, directory, {**gpu_models.COMMON, **fields})
            for name in formats_of(session):
                rows = []
                flags = [*gpu_models.engine_flags(session), "--skip-tokenizer-init", *gpu_models.FORMATS[name], "--max-model-len", 512]
                session.rows([session.bantam, "bench", "decode", directory, *flags, "--context", 64, "--steps", 8, "--json"], rows)
                found[name] = {"start_to_ready_s": rows[0]["start_to_ready_s"]}
                say(f"    {model} {name}: ready after {rows[0]['start_to_ready_s']:.2f} s, {found['checkpoint_bytes'] / 1e9:.2f} GB of weights")
        finally:
            (pathlib.Path(directory) / CHECKPOINT).unlink(missing_ok=True)  # up to 16 GB, also where the disk was too small


def invariance_of(row):
    """What a row of this part is of, and its rate."""
    if "batch" in row:
        return f"batch {row['batch']}", "decode_tok_s"
    return f"{row['input_len']}/{row['output_len']}", "output_tok_s"


def cost_percent(rate, other):
    """What the first rate lacks of the other."""
    return 100 * (1 - rate / other)


def part_invariance_cost(session, figures):
    """What batch invariance costs: offline throughput, a prompt of which is a good part, and decode in both modes, side by side."""
    if session.device != "cuda":
        raise PartSkipped("the CPU has one mode, which is batch-invariant")
    shapes = [(24, 4, 16)] if session.small else [(1000, 1000, 256)]
    largest = (SMALL["batches"] if session.small else BATCHES)[-1:]
    benches = {"offline FP8": lambda extra: offline_command(session, "FP8", shapes, extra),
               "decode FP8": lambda extra: decode_command(session, "FP8", extra, largest)}
    errors = []
    for bench, command in benches.items():
        found = figures[bench] = {"batch-invariant": [], "not": []}
        try:
            session.rows(command([]), found["batch-invariant"])
            session.rows(command([VARIANT]), found["not"])
        except PartFailed as failure:
            errors.append(f"{bench}: {failure}")
        for with_it, without in zip(found["batch-invariant"], found["not"]):
            what, key = invariance_of(with_it)
            say(f"    {bench} {what}: {with_it[key]:.1f} tok/s, {VARIANT} {without[key]:.1f}: "
                f"costs {cost_percent(with_it[key], without[key]):.1f} %")
    if errors:
        raise PartFailed("; ".join(errors))


def write_checkpoint(session, directory, config):
    """model.safetensors of random bf16 values of magnitude 2^-6 to 2^-5; its bytes. Ends with the part's time: a slow disk must
    not take that of the parts behind."""
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    head_dim = config.get("head_dim", hidden // config["num_attention_heads"])
    kv = config["num_key_value_heads"] * head_dim
    shapes = {"model.embed_tokens.weight": [config["vocab_size"], hidden], "model.norm.weight": [hidden]}
    if not config.get("tie_word_embeddings"):
        shapes["lm_head.weight"] = [config["vocab_size"], hidden]
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        shapes.update({at + "self_attn.q_proj.weight": [config["num_attention_heads"] * head_dim, hidden],
                       at + "self_attn.k_proj.weight": [kv, hidden], at + "self_attn.v_proj.weight": [kv, hidden],
                       at + "self_attn.o_proj.weight": [hidden, config["num_attention_heads"] * head_dim],
                       at + "mlp.gate_proj.weight": [intermediate, hidden], at + "mlp.up_proj.weight": [intermediate, hidden],
                       at + "mlp.down_proj.weight": [hidden, intermediate],
                       at + "input_layernorm.weight": [hidden], at + "post_attention_layernorm.weight": [hidden]})
    header, offset = {}, 0
    for name, dimensions in shapes.items():
        size = 2 * dimensions[0] * (dimensions[1] if len(dimensions) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": dimensions, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    block = random_bf16(1 << 20)
    with open(os.path.join(directory, CHECKPOINT), "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for left in range(offset, 0, -len(block)):
            if session.left_s() <= 0:
                gb = f"{left / 1e9:.1f} of {offset / 1e9:.1f} GB"
                raise PartFailed(f"time was up with {gb} of {directory} still to be written")
            file.write(block[:left])
    return offset


def random_bf16(n):
    """Sign and fraction at random, the exponent 2^-6 (0x3c80): one operation on a long integer each."""
    drawn = random.Random(1).getrandbits(16 * n)
    fraction = int.from_bytes(b"\x7f\x80" * n, sys.byteorder)
    exponent = int.from_bytes(b"\x00\x3c" * n, "little")
    return ((drawn & fraction) | exponent).to_bytes(2 * n, "little")
