"""Performer: attention by positive orthogonal random features, FAVOR+ (Choromanski et al. 2021, arXiv:2009.14794).

    y_t = Σ_s φ(q_t)·φ(k_s) v_s / Σ_s φ(q_t)·φ(k_s)
    φ(x) = m^{-½} (exp(W x − |x|²/2 − c) + ε),    x scaled by d^{-¼}                      (kernel="softmax")
    φ(x) = m^{-½} (relu(W x) + ε),                x scaled by d^{-¼}                      (kernel="relu")

E[φ(q)·φ(k)] ∝ exp(q·k / √d) for W ~ N(0, I) (Lemma 1); the rows of W come in orthogonal blocks of d, each row with an
independent χ_d norm (section 3.3). c is a stabiliser that cancels in y but for ε. The sums cost O(T m d), and a causal
model carries S = Σ φ(k) vᵀ and z = Σ φ(k), of m(d + 1) numbers per head. Official code: google-research,
performer/fast_attention/jax/fast_attention.py.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from zoo.architectures import register
from zoo.contract import LayerContext, Mixer, State, Traits, Unsupported
from zoo.layers.initialisation import fan_in_, residual_scale
from zoo.layers.linear import Linear
from zoo.layers.multi_head import head_width
from zoo.layers.positions import relative
from zoo.layers.positions.in_attention import no_steps, places
from zoo.ops import precision
from zoo.ops.linear_attention import linear_attention
from zoo.ops.qkv import split
from zoo.ops.random_features import attend, kept, mean, positive

Kernel: TypeAlias = Literal["softmax", "relu"]
EPS = {"softmax": 1e-4, "relu": 1e-3}


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
class Performer(Mixer):
    """Transformer whose softmax attention is approximated by positive orthogonal random features (FAVOR+).

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
        kernel: Kernel = "softmax",
        eps: float | None = None,
    ) -> None:
        super().__init__(context)
        d = head_width("performer", context.width, heads)
        if kernel not in get_args(Kernel):
            raise ValueError(f"performer: kernel {kernel!r} is not one of {', '.join(get_args(Kernel))}")
        if features is not None and features < 1:
            raise ValueError(f"performer: features must be at least 1, got {features}")
        self.eps = EPS[kernel] if eps is None else eps
        if self.eps <= 0:
            raise ValueError(f"performer: eps must be positive, got {eps}; it keeps the normaliser from being 0")
        self.heads, self.causal, self.kernel = heads, context.causal, kernel
        self.placed = context.positions
        self.positions = relative(context.positions, heads=heads, head_width=d, causal=context.causal)
        self.qkv = Linear(context.width, 3 * context.width)
        self.out = Linear(context.width, context.width)
        m = max(1, int(d * math.log(d))) if features is None else features
        self.register_buffer("W", torch.empty(m, d))
        self.redraw()

    @torch.no_grad()
    def redraw(self, generator: torch.Generator | None = None) -> None:
        """Draw new random features W, from torch's global generator if none is given. Nothing else ever does so."""
        self.W.copy_(orthogonal_features(*self.W.shape, generator=generator))

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Bool[Tensor, "B T"] | None = None,
        state: State | None = None,
    ) -> tuple[Float[Tensor, "B T D"], State | None]:
        B, T, D = x.shape
        x = x if mask is None else x.masked_fill(~mask[..., None], 0)
        (now, steps), features = places(state, T, mask, x.device), self.qkv(x)
        turns = (self.positions.turn(now, precision.promote(features), key=key) for key in (False, True))
        q, k, v = split(features, self.heads, self.heads, *turns)  # each (B, H, T, D/H)
        if self.kernel == "softmax" and self.causal and mask is None and state is None:
            y, new = attend(q, k, v, self.W, self.eps), None
        else:
            y, new = self._sums(q, k, v, mask, state)
        return self.out(y.to(x.dtype).transpose(1, 2).reshape(B, T, D)), None if new is None else {**new, **steps}

    def _sums(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, state: State | None
    ) -> tuple[Tensor, State | None]:
        """Outputs as a ratio of sums over steps, and the next state."""
        valid = None if mask is None else mask[:, None, :, None]
        q, k = self.query_features(q), self.key_features(k, valid)
        with precision.no_autocast(q.device):
            v = F.pad(v.to(q.dtype), (0, 1), value=1.0)  # the last column sums to the normaliser
            if valid is not None:
                v = v.masked_fill(~valid, 0)
            y, new = self._causal(q, k, v, state) if self.causal else self._bidirectional(q, k, v, state)
            return mean(y), new

    def query_features(self, q: Float[Tensor, "B H T d"]) -> Float[Tensor, "B H T m"]:
        """√m φ(q), as m^{-½} cancels in y. c is the largest entry of W q at each step (official code)."""
        if self.kernel == "relu":
            return self._relu(q)
        return positive(q, self.W, self.eps, "features")

    def key_features(
        self, k: Float[Tensor, "B H T d"], valid: Bool[Tensor, "B 1 T 1"] | None = None
    ) -> Float[Tensor, "B H T m"]:
        """√m φ(k), and 0 at masked steps."""

        if self.kernel == "relu":
            phi = self._relu(k)
        else:
            # Causal: c = 0. The official c, the largest entry of W k over the sequence, lets a later key change how
            # much ε weighs in earlier outputs. None is needed: W k − |k|²/2 ≤ |w|²/2 whatever k is, about d/2. A wide
            # head could still pass float32's e^88 with a key close to one of the w: there, and only there, `HIGHEST`
            # acts.
            phi = positive(k, self.W, self.eps, None if self.causal else "sequence", valid)
        return phi if valid is None else phi.masked_fill(~valid, 0)

    def _relu(self, x: Tensor) -> Tensor:
        y = precision.at_least_fp32(x) * x.shape[-1] ** -0.25
        return ((y @ self.W.to(y.dtype).T).relu() + self.eps).to(kept(x))

    def _causal(self, q: Tensor, k: Tensor, v: Tensor, state: State | None) -> tuple[Tensor, State | None]:
        if state is None:
            return linear_attention(q, k, v)[0], None
        S, z = state["S"], state["z"]
        y, S = linear_attention(q, k, v, state=torch.cat([S, z[..., None]], dim=-1))
        return y, {"S": S[..., :-1], "z": S[..., -1]}

    def _bidirectional(self, q: Tensor, k: Tensor, v: Tensor, state: State | None) -> tuple[Tensor, State | None]:
        if state is not None:
            raise Unsupported("a bidirectional Performer cannot continue from a state")
        sums = precision.at_least_fp32(k).transpose(-1, -2) @ precision.at_least_fp32(v)
        return (precision.at_least_fp32(q) @ sums).to(q.dtype), None

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        """S and z, in float32 at least."""
        m, d = self.W.shape
        dtype = torch.promote_types(dtype, torch.float32)
        S = torch.zeros(batch, self.heads, m, d, device=device, dtype=dtype)
        return {"S": S, "z": S.new_zeros(batch, self.heads, m), **no_steps(batch, self.placed, device)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """W ~ N(0, 1/fan_in), the projection into the residual stream scaled by 1/√(2·depth); biases zero."""
        fan_in_(self.qkv)
        fan_in_(self.out, residual_scale(depth))


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
