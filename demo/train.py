#!/usr/bin/env python3
"""Trains the demo model on the synthetic text of generate_data.py and writes it as a Hugging Face directory.

    python3 demo/train.py --out demo/model            # two CPU cores, see demo/README.md for how long it takes

It needs torch, transformers, tokenizers and safetensors. A run that was stopped goes on from its last checkpoint when
it is started again with the same --work folder. Two processes of one thread each share every step (each takes half of
the batch, they add up their gradients, and each updates half of the matrices): on busy cores that is faster than one
process of two threads.
"""

import argparse
import collections
import json
import math
import os
import pathlib
import re
import shutil
import time

import torch
import torch.distributed
import torch.multiprocessing
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM

import generate_data

VOCAB_SIZE = 1792
SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
BOS_ID, END_OF_TEXT_ID, END_OF_TURN_ID = 0, 1, 4
# Pieces of words and marks are learnt first; a blank joins what follows it only after all of their merges.
PIECE_VOCAB_SIZE = 1544
BLANK = "\u0120"  # as byte-level BPE writes a blank
COMMON_USES = 5  # a task has a word when it has it this often
CHAT_TEMPLATE = """{{- bos_token }}
{%- for message in messages %}
    {%- if message['role'] not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('Unknown role ' + message['role'] + ': only system, user and assistant are known.') }}
    {%- endif %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "use_cache": True,
    "bos_token_id": BOS_ID,
    "eos_token_id": [END_OF_TURN_ID, END_OF_TEXT_ID],
    "torch_dtype": "bfloat16",
}
PROMPT_WEIGHT = 0.1
# An answer of few tokens (a class) weighs up to MAX_ANSWER_WEIGHT a token, so that long answers do not drown it.
MAX_ANSWER_WEIGHT = 4.0
EVEN_ANSWER_TOKENS = 24
POOL_SAMPLES = 2048
LENGTH_STEP = 16


def train_tokenizer():
    """Byte-level BPE in which a word falls into the same pieces wherever it stands: after a blank, a quote or a line end.
    What is copied from a sentence into JSON then is the same tokens. For that the merges with a leading blank come last and
    change no other piece, and only the words of most tasks have one: "the", "order", not the names of things that may be copied."""
    texts_of = generate_data.make_tokenizer_text(generate_data.make_word_pool())
    texts = [text for task_texts in texts_of.values() for text in task_texts]
    tokenizer = Tokenizer(models.BPE())
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(" ", behavior="isolated"), digits, bytes_of_words])
    trainer = trainers.BpeTrainer(
        vocab_size=PIECE_VOCAB_SIZE,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    counts = {task: collections.Counter(re.findall(r"(?<= )[^\W\d_]+", " ".join(texts_of[task]))) for task in texts_of}
    total = sum(counts.values(), collections.Counter())
    tasks = {word: sum(count[word] >= COMMON_USES for count in counts.values()) for word in total}
    # Not those of two letters: " to" would also be the beginning of " toothbrush".
    whole = (word for word in total if len(word) > 2 and tokenizer.token_to_id(word))
    common = sorted(whole, key=lambda word: (-tasks[word], -total[word], word))
    described = json.loads(tokenizer.to_str())
    for word in common[: VOCAB_SIZE - PIECE_VOCAB_SIZE]:
        described["model"]["vocab"][BLANK + word] = len(described["model"]["vocab"])
        described["model"]["merges"].append([BLANK, word])
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, bytes_of_words])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL[0]} $A", pair=f"{SPECIAL[0]} $A {SPECIAL[0]}:1 $B:1", special_tokens=[(SPECIAL[0], BOS_ID)]
    )
    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    return tokenizer


def encode(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False).ids


def encode_sample(tokenizer, sample):
    """(token ids, loss weight of predicting each of them); the same ids as the chat template gives."""
    if "text" in sample:
        ids = encode(tokenizer, sample["text"])
        return [BOS_ID] + ids + [END_OF_TEXT_ID], [0.0] + [1.0] * (len(ids) + 1)
    ids, weights = [BOS_ID], [0.0]
    for message in sample["messages"]:
        header = encode(tokenizer, f"<|start_header_id|>{message['role']}<|end_header_id|>\n\n")
        body = encode(tokenizer, message["content"].strip()) + [END_OF_TURN_ID]
        weight = PROMPT_WEIGHT
        if message["role"] == "assistant":
            weight = min(MAX_ANSWER_WEIGHT, max(1.0, EVEN_ANSWER_TOKENS / len(body)))
        ids += header + body
        weights += [0.0] * len(header) + [weight] * len(body)
    return ids, weights


def batches(tokenizer, word_pool, batch_tokens, rank, workers):
    """Endless batches (ids [batch, length + 1], weights [batch, length + 1]) of the same number of tokens each, samples of
    like length together; each worker makes its own. The few shapes that there are keep the kernels made for them."""
    rows_of, pool_index = {}, 0
    while True:
        ready = []
        for index in range(pool_index * POOL_SAMPLES + rank, (pool_index + 1) * POOL_SAMPLES, workers):
            ids, weights = encode_sample(tokenizer, generate_data.make_sample(index, word_pool))
            length = -(-(len(ids) - 1) // LENGTH_STEP) * LENGTH_STEP
            pad = length + 1 - len(ids)
            rows = rows_of.setdefault(length, [])
            rows.append((ids + [END_OF_TEXT_ID] * pad, weights + [0.0] * pad))
            if len(rows) == max(1, batch_tokens // length):
                ready.append(rows_of.pop(length))
        generate_data.make_rng(generate_data.SEED, "batches", pool_index, rank).shuffle(ready)
        for rows in ready:
            yield torch.tensor([ids for ids, _ in rows]), torch.tensor([weights for _, weights in rows])
        pool_index += 1


def learning_rate_factor(step, steps, warmup=60, decay_share=0.55):
    """Warm-up, a plateau, then a linear decay to zero over the last share of the run."""
    decay_steps = int(steps * decay_share)
    return min(1.0, (step + 1) / warmup, max(0.0, (steps - step) / decay_steps))


def matrices_of(model):
    return [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]


def make_optimizers(model, learning_rate, rank, workers):
    """Muon for the matrices of the layers, of which each worker updates its share; AdamW for the embedding and the norms."""
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(
        matrices_of(model)[rank::workers],
        lr=learning_rate,
        weight_decay=0.05,
        momentum=0.95,
        adjust_lr_fn="match_rms_adamw",
        ns_steps=5,
    )
    adamw = torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    for group in muon.param_groups + adamw.param_groups:
        group["base_lr"] = group["lr"]
    return [muon, adamw]


def unflatten(flat, tensors):
    start = 0
    for tensor in tensors:
        tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()


def add_up_gradients(model):
    """The mean of all workers' gradients, in one message."""
    gradients = [p.grad for p in model.parameters()]
    flat = torch.cat([g.flatten() for g in gradients])
    torch.distributed.all_reduce(flat)
    flat /= torch.distributed.get_world_size()
    unflatten(flat, gradients)


@torch.no_grad()
def share_matrices(model, workers):
    """Each worker sends the matrices that it has updated to the others."""
    for source in range(workers):
        matrices = matrices_of(model)[source::workers]
        flat = torch.cat([m.flatten() for m in matrices])
        torch.distributed.broadcast(flat, source)
        unflatten(flat, matrices)


def train_step(model, optimizers, ids, weights, factor):
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    weight = weights[:, 1:].flatten()
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten(), reduction="none")
    loss = (losses * weight).sum() / weight.sum()
    loss.backward()
    add_up_gradients(model)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        optimizer.step()
    model.zero_grad(set_to_none=True)
    share_matrices(model, torch.distributed.get_world_size())
    answer = weight >= 1.0
    return losses.detach()[answer].mean().item() if answer.any() else math.nan


def save_checkpoint(path, model, optimizers, step):
    """A file of each worker, for each has the momentum of its own share; all are in place before one goes on."""
    state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step}
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    torch.distributed.barrier()
    partial.replace(path)
    torch.distributed.barrier()


def load_other_weights(model, folder, tokenizer):
    """Starts from the weights of a directory that this script wrote, perhaps with another tokenizer: a token that its
    tokenizer has keeps its row of the embedding, another one begins as the mean of the pieces that it fell into."""
    other = Tokenizer.from_file(str(folder / "tokenizer.json"))
    state = load_file(folder / "model.safetensors")
    rows = state["model.embed_tokens.weight"].float()
    embedding = torch.empty(VOCAB_SIZE, rows.shape[1])
    as_bytes = decoders.ByteLevel()
    for token, index in tokenizer.get_vocab().items():
        pieces = [other.token_to_id(token)]
        if pieces[0] is None:
            pieces = encode(other, as_bytes.decode([token]))
        embedding[index] = rows[pieces].mean(0)
    state["model.embed_tokens.weight"] = embedding
    state["lm_head.weight"] = embedding
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})


def build_model(checkpoint, args, rank, tokenizer):
    """(model, optimizers, first step): from the seed or other weights, or from the last checkpoint."""
    torch.manual_seed(generate_data.SEED)
    # The eager attention's backward pass is faster than the fused one's on a CPU in bf16.
    model = LlamaForCausalLM(LlamaConfig(**CONFIG, attn_implementation="eager")).float()
    optimizers = make_optimizers(model, args.learning_rate, rank, args.workers)
    if not checkpoint.exists():
        if args.weights_of:
            load_other_weights(model, args.weights_of, tokenizer)
        return model, optimizers, 0
    state = torch.load(checkpoint)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"]):
        optimizer.load_state_dict(saved)
    return model, optimizers, state["step"]


def train(rank, args):
    """One worker; all workers hold the same model and take the same steps, the first one reports and saves."""
    torch.set_num_threads(1)
    rendezvous = f"file://{(args.work / 'rendezvous').resolve()}"
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=args.workers)
    checkpoint = args.work / f"checkpoint{rank}.pt"
    tokenizer = Tokenizer.from_file(str(args.work / "tokenizer.json"))
    model, optimizers, first_step = build_model(checkpoint, args, rank, tokenizer)
    if rank == 0:
        print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, from step {first_step}", flush=True)
    word_pool = generate_data.make_word_pool()
    source = batches(tokenizer, word_pool, args.batch_tokens // args.workers, rank, args.workers)
    for _ in range(first_step):
        next(source)
    start, tokens, smooth = time.monotonic(), 0, None
    for step in range(first_step, args.steps):
        if os.getppid() != args.parent_id:
            raise SystemExit("the process that started this worker is gone")
        ids, weights = next(source)
        loss = train_step(model, optimizers, ids, weights, learning_rate_factor(step, args.steps))
        tokens += ids.numel() * args.workers
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            save_checkpoint(checkpoint, model, optimizers, step + 1)
        if rank != 0:
            continue
        if not math.isnan(loss):
            smooth = loss if smooth is None else 0.95 * smooth + 0.05 * loss
        if step % 25 == 0 or step + 1 == args.steps:
            elapsed = time.monotonic() - start
            cpu = time.process_time() / elapsed
            print(
                f"step {step}/{args.steps} answer loss {smooth:.4f} {tokens / elapsed:.0f} tok/s {elapsed:.0f} s {cpu:.2f} cores",
                flush=True,
            )
    if rank == 0:
        write_model(args.out, model, tokenizer)
    torch.distributed.destroy_process_group()


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_model(out, model, tokenizer):
    """The Hugging Face directory: bf16 weights without the tied copy, tokenizer, template, defaults (greedy)."""
    out.mkdir(parents=True, exist_ok=True)
    state = {name: t.to(torch.bfloat16).contiguous() for name, t in model.state_dict().items() if name != "lm_head.weight"}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    write_json(out / "config.json", CONFIG)
    write_json(
        out / "generation_config.json",
        {"bos_token_id": BOS_ID, "eos_token_id": [END_OF_TURN_ID, END_OF_TEXT_ID], "do_sample": False, "temperature": 0.0},
    )
    tokenizer.save(str(out / "tokenizer.json"))
    write_json(
        out / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": SPECIAL[BOS_ID],
            "eos_token": SPECIAL[END_OF_TURN_ID],
            "pad_token": SPECIAL[END_OF_TEXT_ID],
            "add_bos_token": True,
            "add_eos_token": False,
            "clean_up_tokenization_spaces": False,
            "model_max_length": CONFIG["max_position_embeddings"],
            "chat_template": CHAT_TEMPLATE,
        },
    )
    write_json(
        out / "special_tokens_map.json",
        {"bos_token": SPECIAL[BOS_ID], "eos_token": SPECIAL[END_OF_TURN_ID], "pad_token": SPECIAL[END_OF_TEXT_ID]},
    )


def main():
    here = pathlib.Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=here / "model")
    parser.add_argument("--work", type=pathlib.Path, default=here / "work", help="checkpoints; safe to delete")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-tokens", type=int, default=4096, help="of all workers together")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=2, help="processes; another number gives another model")
    parser.add_argument("--weights-of", type=pathlib.Path, help="start from the weights of this directory, not from the seed")
    parser.add_argument("--fresh", action="store_true", help="delete the checkpoint and start from the beginning")
    args = parser.parse_args()
    args.parent_id = os.getpid()
    generate_data.check_all()
    if args.fresh:
        shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True, exist_ok=True)
    saved_tokenizer = args.work / "tokenizer.json"
    if not saved_tokenizer.exists():
        train_tokenizer().save(str(saved_tokenizer))
    (args.work / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(train, args=(args,), nprocs=args.workers)


if __name__ == "__main__":
    main()
