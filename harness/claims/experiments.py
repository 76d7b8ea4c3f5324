"""Experiments that train nothing: each measures quantities on models drawn from a seed."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

import zoo
from harness import machine
from zoo.architectures.linear_transformer import LinearAttention
from zoo.figures.figure import graph_of, marks

VOCAB = 64
THREADS = {"one thread": 1, "all threads": None}
TURNS = 12
"""Of which the least time counts: what else the machine does only adds to it."""


def figure(seed: int) -> dict[str, float]:
    """Where LayerNorm stands: both readings of the original figure, and what gradients make of them.

    The last feed-forward layer's gradient at initialisation, with Xavier's weights, is O(√ln d) in Post-LN whatever the
    depth L, and O(√(ln d / L)) in Pre-LN (Xiong et al. 2020, arXiv:2002.04745, theorem 1).
    """
    after, before = (_lm("transformer_2017", depth=4, residual=residual).eval() for residual in ("post", "pre"))
    before.load_state_dict(after.state_dict(), strict=False)  # but for the norm at the end, which starts as it is
    batch = _batch(seed)
    with torch.no_grad():
        one, other = after(batch), before(batch)
    measured = {
        "transformer_2017, one reading and the other": float((one - other).norm() / one.norm()),
        "norms among what differs": _norms_among_what_differs(),
    }
    for name in ("pre_ln", "post_ln"):
        ratio = _last_gradient(name, 4, seed) / _last_gradient(name, 16, seed)
        measured[f"{name}, gradient at 4 layers over 16"] = ratio
    return measured


@cache
def _norms_among_what_differs() -> float:
    """Of the layers that `zoobench draw post_ln pre_ln` marks, the share that are norms."""
    graphs = [graph_of(name, depth="layers", role="lm") for name in ("post_ln", "pre_ln")]
    differ = [graph.nodes[i] for graph, found in zip(graphs, marks(graphs), strict=True) for i in found]
    return sum("norm" in node.kind for node in differ) / len(differ)


def _last_gradient(name: str, depth: int, seed: int) -> float:
    """The norm of the gradient of the last feed-forward layer's second matrix."""
    torch.manual_seed(seed)
    model, batch = _lm(name, depth=depth), _batch(seed)
    for weight in model.backbone.parameters():
        if weight.ndim == 2:
            nn.init.xavier_normal_(weight)
    F.cross_entropy(model(batch).flatten(0, 1), batch.targets.flatten()).backward()
    last = model.get_parameter(f"backbone.sublayers.{2 * depth - 1}.inner.down.weight")
    assert last.grad is not None
    return float(last.grad.norm())


def permutation(seed: int) -> dict[str, float]:
    """What attention without positions knows of the order of its inputs, in float64."""
    torch.manual_seed(seed)
    shape = zoo.Shape(length=32, vocab=VOCAB, outputs=VOCAB, width=64, depth=1)
    encoder = zoo.build("pre_ln", "masked", shape=shape, positions="none").double()
    batch, order = _batch(seed), torch.randperm(32)
    with torch.no_grad():
        one, other = encoder(batch), encoder(zoo.Batch(inputs=batch.inputs[:, order], targets=batch.targets))
    measured = {"encoder, permuted inputs": _distance(other, one[:, order])}
    prefix = torch.cat([torch.randperm(31), torch.tensor([31])])
    for depth, layers in ((1, "one causal layer"), (2, "two causal layers")):
        model = _lm("pre_ln", depth=depth, positions="none").double()
        with torch.no_grad():
            one, other = model(batch), model(zoo.Batch(inputs=batch.inputs[:, prefix], targets=batch.targets))
        measured[f"{layers}, permuted prefix"] = _distance(other[:, -1], one[:, -1])
    return measured


def fast_weights(seed: int) -> dict[str, float]:
    """Causal linear attention beside the programme of Schmidhuber 1991 (doi:10.1162/neco.1992.4.1.131), in float64.

    A slow network turns each input into a key, a value and a query; W ← W + v kᵀ, and y = W q. With φ(x) = elu(x) + 1
    of keys and queries and a value that is always 1, whose output divides the others, that is linear attention
    (Katharopoulos et al. 2020, arXiv:2006.16236). The slow network's weights are those of its projections.
    """
    torch.manual_seed(seed)
    model = _lm("linear_transformer", depth=1, heads=2).double()
    attention = next(module for module in model.modules() if isinstance(module, LinearAttention))
    inputs = torch.randn(2, 24, 64, dtype=torch.float64, requires_grad=True)
    copied, wanted = copy.deepcopy(attention), torch.randn(2, 24, 64, dtype=torch.float64)
    found = []
    for programme in (attention, lambda x: _programme(copied, x)):
        outputs = programme(inputs)
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        inputs.grad = None
        (outputs * wanted).sum().backward()
        found.append((outputs.detach(), inputs.grad))
    gradients = [_distance(a.grad, b.grad) for a, b in zip(attention.parameters(), copied.parameters(), strict=True)]
    return {
        "outputs": _distance(found[0][0], found[1][0]),
        "gradients": max(*gradients, _distance(found[0][1], found[1][1])),
    }


def _programme(slow: LinearAttention, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """Step by step, head by head."""
    per_head = (2, 24, slow.heads, -1)
    q = (F.elu(slow.query_projection(x)) + 1).view(per_head)
    k = (F.elu(slow.key_projection(x)) + 1).view(per_head)
    v = F.pad(slow.value_projection(x).view(per_head), (0, 1), value=1.0)
    W, outputs = x.new_zeros(2, slow.heads, v.shape[-1], k.shape[-1]), []
    for t in range(x.shape[1]):
        W = W + v[:, t, :, :, None] * k[:, t, :, None, :]
        y = (W * q[:, t, :, None, :]).sum(-1)
        outputs.append((y[..., :-1] / (y[..., -1:] + slow.eps)).flatten(1))
    return slow.out_projection(torch.stack(outputs, dim=1))


def parallel(seed: int) -> dict[str, float]:
    """Times of a training step with a batch of one: against length, and of all threads beside one.

    The exponent is the slope of log time between 1,024 and 16,384 steps.
    """
    times, measured = _step_times(seed), {}
    for words in THREADS:
        ratio = times["lstm", 16_384, words] / times["lstm", 1024, words]
        measured[f"lstm, exponent of length, {words}"] = math.log(ratio) / math.log(16)
    for name in ("lstm", "pre_ln", "mamba2"):
        gain = times[name, 4096, "one thread"] / times[name, 4096, "all threads"]
        measured[f"{name}, gain of all threads"] = gain
    return measured


def _step_times(seed: int) -> dict[tuple[str, int, str], float]:
    """Seconds of a forward and a backward pass over one sequence, the least of `TURNS`.

    All take turns, so that an hour in which the machine is slow is none of one alone. A first turn is not counted.
    """
    lengths = (("lstm", 1024), ("lstm", 4096), ("lstm", 16_384), ("pre_ln", 4096), ("mamba2", 4096))
    steps = {key: _step(*key, seed) for key in lengths}
    found: dict[tuple[str, int, str], list[float]] = {}
    for _ in range(1 + TURNS):
        for words, count in THREADS.items():
            with machine.threads(count):
                for key, step in steps.items():
                    start = time.perf_counter()
                    step()
                    found.setdefault((*key, words), []).append(time.perf_counter() - start)
    return {key: min(seconds[1:]) for key, seconds in found.items()}


def _step(name: str, length: int, seed: int) -> Callable[[], None]:
    torch.manual_seed(seed)
    model, batch = _lm(name, depth=2, length=length), _batch(seed, examples=1, length=length)
    return lambda: F.cross_entropy(model(batch).flatten(0, 1), batch.targets.flatten()).backward()


EXPERIMENTS: dict[str, Callable[[int], dict[str, float]]] = {
    "figure": figure,
    "permutation": permutation,
    "fast_weights": fast_weights,
    "parallel": parallel,
}
"""By the names that the plan has for them."""


def _lm(name: str, *, depth: int, length: int = 32, **options: Any) -> zoo.Model:
    return zoo.build(
        name, "lm", shape=zoo.Shape(length=length, vocab=VOCAB, outputs=VOCAB, width=64, depth=depth), **options
    )


def _batch(seed: int, examples: int = 16, length: int = 32) -> zoo.Batch:
    tokens = torch.randint(VOCAB, (examples, length + 1), generator=torch.Generator().manual_seed(seed))
    return zoo.Batch(inputs=tokens[:, :-1], targets=tokens[:, 1:])


def _distance(one: Tensor | None, other: Tensor | None) -> float:
    assert one is not None
    assert other is not None
    return float((one - other).norm() / other.norm())
