"""Performer: attention by positive orthogonal random features, FAVOR+ (Choromanski et al. 2021, arXiv:2009.14794).

    y_t = (Σ_s φ(q_t)·φ(k_s) v_s) / (Σ_s φ(q_t)·φ(k_s))
    φ(x) = m^{−1/2} (exp(W x − |x|²/2 − c) + ε)        softmax kernel, x scaled by d^{−1/4}
    φ(x) = m^{−1/2} (relu(W x) + ε)                    relu kernel, x scaled by d^{−1/4}

E[φ(q)·φ(k)] ∝ exp(q·k / √d) for W ~ N(0, I) (Lemma 1); the rows of W come in orthogonal blocks of d, each row with an
independent χ_d norm (section 3.3). c is a stabiliser that cancels in y but for ε. The sums cost O(T m d), and a causal
model carries S = Σ φ(k) vᵀ and z = Σ φ(k), of m(d + 1) numbers per head.
"""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, State, Traits
from zoo.layers.linear import Linear, branch_
from zoo.layers.multi_head import MultiHead
from zoo.layers.positions.in_attention import no_steps, places
from zoo.layers.qkv import split
from zoo.layers.random_features import attend, kept
from zoo.layers.random_features import positive as exponential
from zoo.layers.ranges import at_least_one, positive
from zoo.layers.tensors import merge_heads, zero_padding
from zoo.layers.weighted_sums import weighted_sums, zero_sums
from zoo.ops.precision import at_least_fp32


@register(
    family="efficient attention",
    paper="Choromanski et al. 2021, Rethinking Attention with Performers, arXiv:2009.14794",
    source="https://github.com/google-research/google-research (performer/fast_attention/jax/fast_attention.py)",
    deviations=(
        "causal: keys take no stabiliser. The official maximum over the whole sequence lets the future in through ε",
        "ε is 1e-4, the default of the official feature map and performer-pytorch's constant; the official layer "
        "passes 1e-6, and adds 2e-6 to a normaliser below 1e-6, which we do not",
        "the maximum is a constant for the gradient, as in performer-pytorch; the official code differentiates it",
        "random features stay as drawn unless redraw() is called; the official code redraws at each call, from the "
        "queries, and performer-pytorch every 1000 calls in training",
        "orthogonal blocks are made uniform (signs of R folded into Q); the official code takes Q as LAPACK returns it",
        "kernel='relu' projects by orthogonal features and scales by d^(-1/4), as performer-pytorch does; the official "
        "default there has no projection and no scale",
        "int(d ln d) features by default, as in performer-pytorch; the official code takes 256",
        "residual type, GELU and initialisation are pre_ln's",
    ),
    positions="learned",
)
class Performer(MultiHead):
    """Transformer whose softmax attention is approximated by positive orthogonal random features (FAVOR+).

    State: `S` and `z`, in float32 at least.

    Args:
        features: m, the rows of W; None for int(d ln d), d being the width of a head.
        kernel: "softmax" approximates softmax attention; "relu" is the paper's generalised attention, with ReLU.
        eps: ε, positive; None for 1e-4 (softmax) or 1e-3 (relu).
    """

    traits = Traits(causal="strict", bidirectional=True, resumable=True, stochastic=True)
    feeds_matmul_only = True
    relative = ("rotation",)
    W: Tensor

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        features: int | None = None,
        kernel: Literal["softmax", "relu"] = "softmax",
        eps: float | None = None,
    ) -> None:
        super().__init__(context, "performer", heads)
        at_least_one("performer", features=features)
        positive("performer", eps=eps)  # which keeps the normaliser from being 0
        self.eps = {"softmax": 1e-4, "relu": 1e-3}[kernel] if eps is None else eps
        self.kernel, self.placed, d = kernel, context.positions, self.head_width
        self.qkv = Linear(context.width, 3 * context.width)
        self.out = Linear(context.width, context.width)
        m = max(1, int(d * math.log(d))) if features is None else features
        self.register_buffer("W", torch.empty(m, d))
        self.redraw()

    @torch.no_grad()
    def redraw(self, generator: torch.Generator | None = None) -> None:
        """Draw new random features W, from torch's global generator if none is given. Nothing else ever does so."""
        self.W.copy_(orthogonal_features(*self.W.shape, generator=generator))

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        (now, steps), features = places(state, x.shape[1], mask, x.device), self.qkv(x)
        turns = (self.positions.turn(now, features.dtype, key=key) for key in (False, True))
        q, k, v = split(features, self.heads, self.heads, *turns)  # each (B, H, T, D/H)
        if self.kernel == "softmax" and self.causal and mask is None and state is None:
            y, new = attend(q, k, v, self.W, self.eps), None
        else:
            y, new = self._sums(q, k, v, mask, state)
        return self.out(merge_heads(y.to(x.dtype))), None if new is None else {**new, **steps}

    def _sums(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, state: State | None
    ) -> tuple[Tensor, State | None]:
        """Outputs as a ratio of sums over steps, and the next state."""
        valid = None if mask is None else mask[:, None, :, None]
        # c is the largest entry of W q at each step (official code); m^{-½} cancels in y.
        q = self._relu(q) if self.kernel == "relu" else exponential(q, self.W, self.eps, "features")
        k = self.key_features(k, valid)
        y, total, new = weighted_sums(q, k, v.to(q.dtype), causal=self.causal, mask=mask, state=state)
        total = at_least_fp32(total.to(q.dtype))
        total = total.masked_fill(total == 0, 1)  # nothing has a weight: 0 rather than 0/0
        return y.to(q.dtype) * total.reciprocal().to(q.dtype), new

    def key_features(
        self, k: Float[Tensor, "B H T d"], valid: Bool[Tensor, "B 1 T 1"] | None = None
    ) -> Float[Tensor, "B H T m"]:
        """√m φ(k), and 0 at masked steps.

        Causal: c = 0. The official c, the largest entry of W k over the sequence, lets a later key change how much ε
        weighs in earlier outputs. None is needed: W k − |k|²/2 ≤ |w|²/2 whatever k is, about d/2; only a wide head
        with a key close to one of the w could pass float32's e^88, and the features stop short of that.
        """
        if self.kernel == "relu":
            phi = self._relu(k)
        else:
            phi = exponential(k, self.W, self.eps, None if self.causal else "sequence", valid)
        return phi if valid is None else phi.masked_fill(~valid, 0)

    def _relu(self, x: Tensor) -> Tensor:
        return ((x * x.shape[-1] ** -0.25 @ self.W.to(x.dtype).T).relu() + self.eps).to(kept(x))

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        sums = zero_sums(batch, self.heads, *self.W.shape, device=device, dtype=dtype)
        return {**sums, **no_steps(batch, self.placed, device)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        branch_(self.qkv, out=self.out, depth=depth)


def orthogonal_features(m: int, d: int, *, generator: torch.Generator | None = None) -> Float[Tensor, "m d"]:
    """m rows distributed as N(0, I_d), in blocks of d mutually orthogonal ones (float64, on the CPU).

    The signs of R's diagonal are folded into Q, without which LAPACK's Q is not uniform over the orthogonal matrices.
    """
    blocks = []
    for _ in range(-(-m // d)):
        Q, R = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
        blocks.append((Q * R.diagonal().sign()).T)
    norms = torch.randn(m, d, generator=generator, dtype=torch.float64).norm(dim=-1, keepdim=True)
    return torch.cat(blocks)[:m] * norms
