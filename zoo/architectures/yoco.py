"""YOCO, "you only cache once": one cache for half of the layers (Sun et al. 2024, arXiv:2405.05254, sections 2 and 3).

    K̂ = R RMSNorm(X) W_K,    V̂ = RMSNorm(X) W_V        (X: what the first L/2 layers put out)
    y = softmax(R x W_Q K̂ᵀ / √d) V̂ W_O                  (the others, each with W_Q and W_O of its own)

per head, causal; R turns by positions. The first half, the self-decoder, has gated retention or attention to a sliding
window, whose memory does not grow, and a prompt has to pass through it alone. Gated retention is

    α = σ(x W_α)^{1/τ},    S_t = α_t S_{t−1} + (R k)_t v_tᵀ,    o_t = S_tᵀ (R q)_t / √d
    y = (RMSNorm(o) ⊙ SiLU(x W_g)) W_o

with a decay α per head, kept close to 1 by τ = 16.
"""

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zoo.architectures import register
from zoo.contract import LayerContext, Mask, Mixed, Mixer, Part, State, Traits
from zoo.layers.attention import remember, steps, visible
from zoo.layers.linear import branch_, fan_in_, few
from zoo.layers.local_attention import LocalAttention
from zoo.layers.multi_head import MultiHead
from zoo.layers.norms import HeadNorm, RMSNorm
from zoo.layers.positions import relative
from zoo.layers.positions.in_attention import no_steps, places
from zoo.layers.ranges import head_width, positive, shared_heads
from zoo.layers.tensors import merge_heads, split_heads, zero_padding, zeros_fp32
from zoo.ops.attention import attend
from zoo.ops.linear_attention import linear_attention


class Shared(NamedTuple):
    """What the layers of the cross-decoder share in a pass."""

    steps: Int[Tensor, "#B T"]
    """Positions of the queries."""
    seen: Bool[Tensor, "B 1 T S"] | None
    """Which keys each may see, beside what is causal; None for all."""
    k: Float[Tensor, "B G S d"]
    v: Float[Tensor, "B G S d"]


class GatedRetention(MultiHead):
    """The self-decoder's layer: `S` (B, H, d, d) in float32 at least, and where positions turn, `steps` (B,)."""

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    relative = ("rotation",)

    def __init__(self, context: LayerContext, heads: int, gate_logit_normalizer: float, norm_eps: float) -> None:
        super().__init__(context, "yoco", heads)
        D, self.tau, self.placed = context.width, gate_logit_normalizer, context.positions
        self.q_proj, self.k_proj, self.v_proj, self.g_proj = (nn.Linear(D, D, bias=False) for _ in range(4))
        self.gk_proj = nn.Linear(D, heads, bias=False)
        self.o_proj = nn.Linear(D, D, bias=False)
        self.o_norm = HeadNorm(self.head_width, norm_eps, weight=False)

    def forward(self, x: Float[Tensor, "B T D"], *, mask: Mask | None = None, state: State | None = None) -> Mixed:
        x = zero_padding(x, mask)
        q, k, v = (split_heads(project(x), self.heads) for project in (self.q_proj, self.k_proj, self.v_proj))
        now, count = places(state, x.shape[1], mask, x.device)
        q, k = self.positions.rotate_both(q, k, now)
        log_decay = F.logsigmoid(few(x, self.gk_proj.weight)) * (1 / self.tau)
        log_decay = zero_padding(log_decay, mask).transpose(1, 2)
        before = None if state is None else state["S"]
        o, S = linear_attention(q, k, v, log_decay, before, scale=self.head_width**-0.5)
        y = self.o_norm(o.transpose(1, 2), self.g_proj(x).unflatten(-1, (self.heads, -1)))
        return self.o_proj(y.flatten(2).to(x.dtype)), None if state is None else {"S": S, **count}

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        S = zeros_fp32(batch, self.heads, self.head_width, self.head_width, device=device, dtype=dtype)
        return {"S": S, **no_steps(batch, self.placed, device)}

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        into = self.q_proj, self.k_proj, self.g_proj, self.gk_proj
        branch_(*into, values=self.v_proj, out=self.o_proj, depth=depth, gain=self.gain)


class SharedKVBuilder(nn.Module):
    """The one cache: `k`, turned, and `v` (B, kv_heads, T, d)."""

    def __init__(self, context: LayerContext, heads: int, kv_heads: int | None, norm_eps: float) -> None:
        super().__init__()
        D, d = context.width, head_width("yoco", context.width, heads)
        self.heads = shared_heads("yoco", heads, kv_heads)
        self.positions = relative(context.positions, heads=self.heads, head_width=d, causal=True)
        self.kv_norm = RMSNorm(D, eps=norm_eps)
        self.k_proj, self.v_proj = (nn.Linear(D, self.heads * d, bias=False) for _ in range(2))

    def forward(self, x: Float[Tensor, "B T D"], mask: Mask | None, state: State | None) -> tuple[Shared, State | None]:
        """Where the steps stand, what they may see, and the keys and values they see; the next state."""
        x, now = self.kv_norm(zero_padding(x, mask)), steps(state, x.shape[1], x.device)
        k, v = (split_heads(project(x), self.heads) for project in (self.k_proj, self.v_proj))
        k, v, valid, new = remember(state, self.positions.rotate(k, now, key=True), v, mask)
        return Shared(now, visible(valid, x.shape[1]), k, v), new

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        d = self.k_proj.out_features // self.heads
        k = torch.empty(batch, self.heads, 0, d, device=device, dtype=dtype)
        return {"k": k, "v": k}

    def reset_parameters(self) -> None:
        """W ~ N(0, 1/fan_in), the norm's weights 1."""
        for projection in (self.k_proj, self.v_proj):
            fan_in_(projection)
        self.kv_norm.reset_parameters()


class CrossAttention(nn.Module):
    """The cross-decoder's layer: attention to the shared cache."""

    def __init__(self, context: LayerContext, heads: int, qk_norm: bool) -> None:
        super().__init__()
        D, d, self.heads, self.gain = context.width, head_width("yoco", context.width, heads), heads, context.gain
        self.positions = relative(context.positions, heads=heads, head_width=d, causal=True)
        self.q_proj, self.o_proj = (nn.Linear(D, D, bias=False) for _ in range(2))
        self.q_norm = RMSNorm(d, eps=1e-5) if qk_norm else None

    def forward(self, x: Float[Tensor, "B T D"], to: Shared) -> Float[Tensor, "B T D"]:
        q = split_heads(self.q_proj(x), self.heads)
        q = self.positions.rotate(q if self.q_norm is None else self.q_norm(q), to.steps, key=False)
        return self.o_proj(merge_heads(attend(q.to(to.k.dtype), to.k, to.v, visible=to.seen, causal=True)))

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        branch_(self.q_proj, out=self.o_proj, depth=depth, gain=self.gain)
        if self.q_norm is not None:
            self.q_norm.reset_parameters()


@register(
    family="hybrids",
    paper="Sun et al. 2024, You Only Cache Once: Decoder-Decoder Architectures for Language Models, arXiv:2405.05254",
    source="https://github.com/fla-org/flash-linear-attention (fla/layers/yoco.py, fla/models/yoco); "
    "https://github.com/microsoft/unilm (YOCO)",
    deviations=(
        "gated retention by default, as in the paper; fla's model has Gated DeltaNet there, which is not offered here",
        "half of the layers are the self-decoder, rounded down, as in the paper; fla has 10 of 21",
        "angles of rotations are those of RoPE, fla's default; the last of the paper's code is 10⁻⁴",
        "embeddings are N(0, 1/D), not multiplied by √D; the SwiGLU's width is not rounded up to a multiple of 256",
        "weights start at N(0, 1/fan_in), the projection to the residual at 1/√(2·depth) of it; officially they are "
        "uniform, with gains of RetNet's in gated retention",
    ),
    channel=Part("glu", activation="silu", expand=8 / 3),
    norm="rms",
    positions=Part("rope", convention="interleaved"),
)
class YOCO(Mixer):
    """YOCO: gated retention, then attention of all later layers to the one cache that is made in the middle.

    State: of the first layers, see `GatedRetention`, or `LocalAttention`; of the layer in the middle, the cache `k` and
    `v` (B, kv_heads, T, d); those behind it have none.

    Args:
        kv_heads: heads of the cache; None for as many as queries have. qk_norm: RMSNorm of the cross-decoder's queries.
        self_decoder: gated retention, or attention to the last window_size keys (`LocalAttention`).
        gate_logit_normalizer: τ. norm_eps: ε of the norms of the cache and of gated retention.
    """

    traits = Traits(causal="strict", bidirectional=False, resumable=True)
    relative = ("rotation",)
    shared_context = True

    def __init__(
        self,
        context: LayerContext,
        *,
        heads: int = 4,
        kv_heads: int | None = None,
        self_decoder: Literal["gated_retention", "swa"] = "gated_retention",
        window_size: int | None = None,
        qk_norm: bool = False,
        gate_logit_normalizer: float = 16.0,
        norm_eps: float = 1e-6,
    ) -> None:
        super().__init__(context)
        positive("yoco", gate_logit_normalizer=gate_logit_normalizer, norm_eps=norm_eps)
        middle = context.depth // 2
        self.attn: Any
        self.shared_kv_builder: Any = None
        if context.layer >= middle:
            self.attn = CrossAttention(context, heads, qk_norm)
        elif self_decoder == "swa":
            self.attn = LocalAttention(context, heads=heads, window=window_size, bias=False, out_bias=False)
        else:
            self.attn = GatedRetention(context, heads, gate_logit_normalizer, norm_eps)
        if context.layer == middle:
            self.shared_kv_builder = SharedKVBuilder(context, heads, kv_heads, norm_eps)

    @classmethod
    def width_multiple(cls, *, heads: int, **_: Any) -> int:
        return 2 * heads  # rotations turn pairs of features

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Mask | None = None,
        state: State | None = None,
        shared_context: dict[str, Any] | None = None,
    ) -> Mixed:
        """`shared_context` has what x was before its norm as "residual", and from the middle on the cache as "yoco".

        Raises:
            ValueError: no layer before this one made a cache.
        """
        if not isinstance(self.attn, CrossAttention):
            return self.attn(x, mask=mask, state=state)
        shared = {} if shared_context is None else shared_context
        if self.shared_kv_builder is not None:
            shared["yoco"], state = self.shared_kv_builder(shared.get("residual", x), mask, state)
        if "yoco" not in shared:
            raise ValueError("yoco: no layer before this one made the cache that it attends to")
        return self.attn(zero_padding(x, mask), shared["yoco"]), state

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        carries = self.shared_kv_builder if isinstance(self.attn, CrossAttention) else self.attn
        return {} if carries is None else carries.init_state(batch, device=device, dtype=dtype)

    def reset_parameters(self, *, layer: int, depth: int) -> None:
        """Linear layers N(0, 1/fan_in), W_o scaled by 1/√(2·depth); norms 1."""
        self.attn.reset_parameters(layer=layer, depth=depth)
        if self.shared_kv_builder is not None:
            self.shared_kv_builder.reset_parameters()
