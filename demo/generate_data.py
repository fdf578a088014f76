#!/usr/bin/env python3
"""Makes the synthetic text that the demo model is trained on, and the held-out set that it is measured on.

    python3 demo/generate_data.py                     # writes demo/heldout/*.jsonl
    python3 demo/generate_data.py --show 3            # prints a few training samples of every task

Everything follows from one seed. Templates, names, cities, things and topics of the held-out set are disjoint from
those of the training set; the check runs each time and stops on an overlap. train.py takes its samples from here.
"""

import argparse
import json
import pathlib
import re

import corpus_prose
import corpus_records
import corpus_requests
import corpus_reviews
import corpus_tickets
from corpus_common import HELDOUT, TRAIN, PlainRandom, check_common, make_rng

SEED = 20241
HELDOUT_PER_TASK = 300
TASKS = ("ticket", "review", "order", "intent", "complete")
SHARE = {
    "ticket": 0.15,
    "review": 0.14,
    "order": 0.41,
    "intent": 0.10,
    "complete": 0.05,
    "echo": 0.10,
    "plain": 0.04,
    "chatter": 0.01,
}
TOKENIZER_SAMPLES = {"ticket": 3000, "review": 2000, "order": 1500, "intent": 2500, "complete": 1000, "chatter": 100}
SYSTEM_SHARE = 0.06
SYSTEM_TEXTS = (
    "You are a helpful assistant.",
    "You are the demo model of Bantam.",
    "Answer briefly.",
    "You are a careful assistant. Answer with the requested format only.",
)


def check_all():
    check_common()
    corpus_tickets.check_tickets()
    corpus_reviews.check_reviews()
    corpus_records.check_records()
    corpus_requests.check_requests()
    corpus_prose.check_prose()


def make_word_pool():
    """Common words of the training templates, in a fixed order: stuff for things to buy and texts to repeat."""
    rng = make_rng(SEED, "pool")
    text = []
    for _ in range(1500):
        text.append(corpus_tickets.make_ticket(rng, TRAIN)[0])
        text.append(corpus_requests.make_request(rng, TRAIN)[0])
        text.append(corpus_prose.make_story(rng))
    counts = {}
    for word in re.findall(r"[a-z]{3,}", " ".join(text)):
        counts[word] = counts.get(word, 0) + 1
    return sorted(word for word, count in counts.items() if count >= 5)


def make_pair(task, rng, split, word_pool):
    """(what the user says, what the model should answer) for one task."""
    if task == "ticket":
        return corpus_tickets.make_ticket(rng, split)
    if task == "review":
        return corpus_reviews.make_review(rng, split)
    if task == "order":
        maker = corpus_records.make_order if rng.random() < 0.5 else corpus_records.make_invoice
        return maker(rng, split, word_pool)
    if task == "intent":
        return corpus_requests.make_request(rng, split)
    if task == "complete":
        return corpus_prose.make_completion(rng, split)
    if task == "echo":
        return corpus_records.make_echo(rng, word_pool)
    return corpus_prose.make_chatter(rng)


def make_sample(index, word_pool):
    """Training sample number index: {"text": ...} to continue, or {"messages": [...]} that end with the answer."""
    rng = make_rng(SEED, "sample", index)
    task = rng.choices(list(SHARE), weights=list(SHARE.values()))[0]
    if task == "plain":
        return {"text": corpus_prose.make_plain(rng)}
    user, answer = make_pair(task, rng, TRAIN, word_pool)
    messages = []
    if rng.random() < SYSTEM_SHARE:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_TEXTS)})
    messages.append({"role": "user", "content": user})
    messages.append({"role": "assistant", "content": answer})
    if rng.random() < 0.03:
        user, answer = make_pair(rng.choice(["complete", "review", "intent"]), rng, TRAIN, word_pool)
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


def make_tokenizer_text(word_pool):
    """Texts to train the tokenizer on, by task: the samples of the tasks, with plain words where training has invented ones.
    What nobody has seen then falls into short pieces, which are easier to copy."""
    rng = PlainRandom(f"{SEED}/tokenizer", word_pool)
    texts = {}
    for task, count in TOKENIZER_SAMPLES.items():
        texts[task] = [text for _ in range(count) for text in make_pair(task, rng, TRAIN, word_pool)]
    texts["plain"] = [corpus_prose.make_plain(rng) for _ in range(TOKENIZER_SAMPLES["complete"])]
    texts["system"] = list(SYSTEM_TEXTS) * 20
    return texts


def make_heldout(task, word_pool):
    """The held-out samples of one task; no question twice."""
    seen, lines = set(), []
    wanted = HELDOUT_PER_TASK if task != "complete" else 40
    for index in range(100 * wanted):
        if len(lines) == wanted:
            break
        user, answer = make_pair(task, make_rng(SEED, HELDOUT, task, index), HELDOUT, word_pool)
        if user not in seen:
            seen.add(user)
            lines.append({"task": task, "messages": [{"role": "user", "content": user}], "expected": answer})
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "heldout")
    parser.add_argument("--show", type=int, default=0, help="print training samples of every task instead of writing")
    args = parser.parse_args()
    check_all()
    word_pool = make_word_pool()
    if args.show:
        for task in [name for name in SHARE if name != "plain"]:
            for index in range(args.show):
                user, answer = make_pair(task, make_rng("show", task, index), TRAIN, word_pool)
                print(f"--- {task}\n{user}\n>>> {answer}")
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        lines = make_heldout(task, word_pool)
        path = args.out / f"{task}.jsonl"
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
        print(f"{path}: {len(lines)}")


if __name__ == "__main__":
    main()
