"""What rounding to e4m3 costs the checkpoints of this folder by itself: Transformers in float32 on rounded numbers.

Run by hand, with PyTorch and Transformers installed:

    python fp8_rounding.py [checkpoint...]

Weights of all layers' matrices are rounded as --quantization fp8 does on a GPU, one scale an output, and so are the rows they
multiply, where the checkpoint's type has 16 bits (in float32 rows stay as they are). Embedding, output matrix and KV are not.
Prints the mean error of the greedy tokens' log-probabilities in the last two cases of golden.json, those that test_parity
takes on a device; and for the last sequence: how far the last hidden state is off, relative to its length, and
the standard deviation of its logits, which that error multiplies.
"""

import json
import pathlib
import sys

import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
E4M3_MAX = 448.0
CASES = 2


def rounded(values):
    """Each row to e4m3 and back, with a scale of its own."""
    scale = (values.abs().amax(-1, keepdim=True) / E4M3_MAX).clamp_min(1e-30)
    return (values / scale).to(torch.float8_e4m3fn).to(torch.float32) * scale


def load(name):
    return transformers.AutoModelForCausalLM.from_pretrained(HERE / name, dtype=torch.float32, attn_implementation="eager").eval()


def round_matrices(model, with_rows):
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.weight.data = rounded(module.weight.data)
            if with_rows:
                module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))


@torch.no_grad()
def measure(name):
    config = json.loads((HERE / name / "config.json").read_text())
    exact, model = load(name), load(name)
    round_matrices(model, config.get("dtype", config.get("torch_dtype")) != "float32")
    errors = []
    for case in json.loads((HERE / name / "golden.json").read_text())["cases"][-CASES:]:
        tokens = torch.tensor([case["prompt"] + [step["token"] for step in case["greedy"]]])
        log_probs = model(tokens).logits[0].log_softmax(-1)
        for position, step in enumerate(case["greedy"], len(case["prompt"]) - 1):
            errors.append(abs(float(log_probs[position, step["token"]]) - step["logprob"]))
    ours, theirs = (m(tokens, output_hidden_states=True) for m in (model, exact))
    hidden = theirs.hidden_states[-1]
    off = (ours.hidden_states[-1] - hidden).norm() / hidden.norm()
    print(f"{name:28} {sum(errors) / len(errors):.4f} nats, hidden state off by {off:.3f}, "
          f"logits' deviation {theirs.logits.std(-1).mean():.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for checkpoint in sys.argv[1:] or sorted(path.parent.name for path in HERE.glob("*/config.json")):
        measure(checkpoint)
