"""Synthesizer against a reference written from tensorflow/mesh's `synthetic_attention`, one head and step at a time.

No package has it. Tables in the official order (length, head, memory), products and masks written out.
"""

import math

import pytest
import torch

from zoo.architectures.synthesizer import Synthesizer
from zoo.contract import LayerContext

from .compare import copies, drawn, leaves, vectors

B, D, H, L = 2, 12, 3, 13
CASES = [
    ("dense", "none", "dense_minus"),
    ("random", "none", "random"),
    ("factorized_random", "none", "factorized"),
    ("random", "plus", "random_plus"),
    ("random", "alpha", "random_plus_alpha"),
    ("dense", "plus", "dense_plus"),
    ("dense", "alpha", "dense_plus_alpha"),
]


def reference(p, x, mode, causal):
    """The layer of `mode`, with weights by their names there: q, k, v, o, R, R1, R2, pi, alpha."""
    T, d, rows = x.shape[1], D // H, []
    for b in range(B):
        heads = []
        for h in range(H):
            part = slice(h * d, (h + 1) * d)
            v = x[b] @ p["v"][:, part]
            outputs = []
            for t in range(T):
                scores = []
                for s in range(T):
                    if "factorized" in mode:
                        score = sum(p["R1"][k, h, t] * p["R2"][k, h, s] for k in range(p["R1"].shape[0]))
                    elif "random" in mode:
                        score = p["R"][t, h, s]
                    else:
                        score = torch.clamp(x[b, t] @ p["q"][:, part], min=0) @ p["pi"][:, s]
                    if "plus" in mode:
                        dot = (x[b, t] @ p["q"][:, part]) @ (x[b, s] @ p["k"][:, part])
                        a = 1 / (1 + torch.exp(-p["alpha"][0])) if "alpha" in mode else None
                        score = dot + score if a is None else (1 - a) * dot + a * score
                    scores.append(score - (1e9 if causal and s > t else 0))
                weights = torch.stack(scores)
                weights = torch.exp(weights - weights.max())
                outputs.append((weights / weights.sum()) @ v)
            heads.append(torch.stack(outputs))
        rows.append(torch.cat(heads, -1) @ p["o"])
    return torch.stack(rows)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("variant", "dot", "mode"), CASES)
def test_same_weights_give_the_same_outputs_and_gradients(oracle, variant, dot, mode, causal):
    torch.manual_seed(0)
    T = 7
    options = {"variant": variant, "dot": dot, "rank": 4, "bias": False}
    ours = drawn(Synthesizer(LayerContext(width=D, length=L, causal=causal), heads=H, **options))
    # Their name, and their tensor from ours; queries there come scaled, so our keys stand for √d of theirs.
    there = {"value.weight": ("v", lambda w: w.T), "out.weight": ("o", lambda w: w.T)}
    there |= {"query.weight": ("q", lambda w: w.T), "key.weight": ("k", lambda w: w.T / math.sqrt(D // H))}
    there |= {"R": ("R", lambda w: w.transpose(0, 1)), "scores.weight": ("pi", lambda w: w.T)}
    there |= {"R1": ("R1", lambda w: w.permute(2, 0, 1)), "R2": ("R2", lambda w: w.permute(2, 0, 1))}
    there |= {"alpha": ("alpha", lambda w: w)}
    theirs, x = copies(ours), vectors(B, T, D)
    want = reference({there[name][0]: there[name][1](value) for name, value in theirs.items()}, x, mode, causal)
    proof = oracle("synthesizer", f"reference from tensorflow/mesh, {mode}")
    proof.equal(ours(x)[0], want, leaves(ours, x=x), {"x": x, **theirs})
