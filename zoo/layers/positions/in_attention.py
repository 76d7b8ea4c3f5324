"""Relative positions, which act inside attention: rotations of queries and keys, or a bias added to their scores.

A score depends on the distance between query and key alone, so keys can be rotated once and cached.
"""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from zoo.contract import Mask
from zoo.layers import qkv
from zoo.types import Part, State, Unsupported


class Relative(nn.Module):
    """Base of the relative encodings; by itself it changes nothing."""

    acts: ClassVar[Literal["rotation", "bias"]] = "rotation"

    def __init__(self, heads: int, head_width: int, *, causal: bool) -> None:
        super().__init__()
        self.heads, self.head_width, self.causal = heads, head_width, causal

    def turn(self, positions: Int[Tensor, "#B T"], dtype: torch.dtype, *, key: bool) -> qkv.Turn | None:
        """The rotation of queries, or of keys, of `dtype` at these positions; None for none."""
        return None

    def rotate(self, x: Float[Tensor, "B H T d"], positions: Int[Tensor, "#B T"], *, key: bool) -> Tensor:
        """Queries, or keys, rotated by their positions."""
        return qkv.turn(x, self.turn(positions, x.dtype, key=key))

    def rotate_both(
        self, q: Float[Tensor, "B H T d"], k: Float[Tensor, "B G T d"], positions: Int[Tensor, "#B T"]
    ) -> tuple[Float[Tensor, "B H T d"], Float[Tensor, "B G T d"]]:
        """Queries and keys of the same steps, rotated."""
        return self.rotate(q, positions, key=False), self.rotate(k, positions, key=True)

    def bias(self, queries: Int[Tensor, "#B T"], keys: Int[Tensor, "#B S"]) -> Float[Tensor, "#B H T S"] | None:
        """The bias of the scores of queries and keys at these positions; None for none."""
        return None


class RoPE(Relative):
    """Rotary positions (Su et al. 2021, arXiv:2104.09864, section 3.2): pair i turns by the angle t·base^{−2i/d}.

    Args:
        convention: which features form pair i. "half": i and i + d/2 (GPT-NeoX, Llama); "interleaved": 2i and 2i + 1
            (RoFormer, GPT-J). Weights trained with one are of no use with the other.
        fraction: the part of the features that turns, from the front; the rest stays (GPT-J, RecurrentGemma).
    """

    def __init__(
        self,
        heads: int,
        head_width: int,
        *,
        causal: bool,
        base: float = 10000.0,
        convention: qkv.Convention = "half",
        fraction: float = 1.0,
    ) -> None:
        super().__init__(heads, head_width, causal=causal)
        self.turning = int(fraction * head_width)
        if not 0 < fraction <= 1 or self.turning < 2 or self.turning % 2:
            raise ValueError(
                f"rope: fraction {fraction:g} of a head width of {head_width} is {self.turning} features to turn, "
                "which must be even, at least 2 and at most all"
            )
        if base <= 0:
            raise ValueError(f"rope: base must be positive, got {base}")
        self.base, self.convention = base, convention

    def turn(self, positions: Int[Tensor, "#B T"], dtype: torch.dtype, *, key: bool) -> qkv.Turn:
        dtype = torch.promote_types(dtype, torch.float32)
        even = torch.arange(0, self.turning, 2, device=positions.device, dtype=dtype)
        angle = positions[..., None].to(dtype) * self.base ** (-even / self.turning)
        return qkv.Turn(angle.cos(), angle.sin(), self.convention)


class XPos(RoPE):
    """RoPE with magnitudes: queries times ζ_i^{t/512}, keys times ζ_i^{−t/512} (Sun et al. 2022, arXiv:2212.10554).

    ζ_i = (2i/d + γ) / (1 + γ) with γ = 0.4, so that scores fade with distance. Only for causal attention, where every
    key is older than its query. Interleaved by default, as in the official torchscale.
    """

    def __init__(
        self,
        heads: int,
        head_width: int,
        *,
        causal: bool,
        base: float = 10000.0,
        convention: qkv.Convention = "interleaved",
        scale_base: float = 512.0,
    ) -> None:
        super().__init__(heads, head_width, causal=causal, base=base, convention=convention)
        if not causal:
            raise Unsupported("xpos fades with distance into the past; it is for causal attention only")
        if scale_base <= 0:
            raise ValueError(f"xpos: scale_base must be positive, got {scale_base}")
        self.scale_base = scale_base

    def turn(self, positions: Int[Tensor, "#B T"], dtype: torch.dtype, *, key: bool) -> qkv.Turn:
        plain, gamma, d = super().turn(positions, dtype, key=key), 0.4, self.turning
        even = torch.arange(0, d, 2, device=positions.device, dtype=plain.cos.dtype)
        power = positions[..., None].to(even.dtype) / self.scale_base
        zeta = ((even / d + gamma) / (1 + gamma)) ** (-power if key else power)
        return qkv.Turn(plain.cos * zeta, plain.sin * zeta, self.convention)


class ALiBi(Relative):
    """Scores minus m_h times the distance (Press et al. 2022, arXiv:2108.12409, section 3); no parameters.

    m_h = 2^{−8h/H} for H a power of two; otherwise those of the power of two below, then every other one of twice that
    many (official code). Both ways the distance is |t − s|, where the paper has the past only.
    """

    acts = "bias"
    slopes: Tensor

    def __init__(self, heads: int, head_width: int, *, causal: bool) -> None:
        super().__init__(heads, head_width, causal=causal)
        slopes = torch.tensor(alibi_slopes(heads), dtype=torch.float64)
        self.register_buffer("slopes", slopes.to(torch.get_default_dtype()), persistent=False)

    def bias(self, queries: Int[Tensor, "#B T"], keys: Int[Tensor, "#B S"]) -> Float[Tensor, "#B H T S"]:
        distance = (queries[:, None, :, None] - keys[:, None, None, :]).abs()
        return -self.slopes[:, None, None] * distance


def alibi_slopes(heads: int) -> list[float]:
    """m_h for h = 1..H."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * h / power) for h in range(1, power + 1)]
    return slopes if power == heads else slopes + alibi_slopes(2 * power)[0::2][: heads - power]


class T5Bias(Relative):
    """A learned number per head and bucket of distance, added to the scores (Raffel et al. 2020, arXiv:1910.10683).

    Half of the buckets hold one distance each, the others grow up to `max_distance`; both ways, half of all buckets are
    for the future. T5 shares the table among the layers of a stack; here each layer has its own.
    """

    acts = "bias"

    def __init__(
        self, heads: int, head_width: int, *, causal: bool, buckets: int = 32, max_distance: int = 128
    ) -> None:
        super().__init__(heads, head_width, causal=causal)
        exact = (buckets if causal else buckets // 2) // 2
        if exact < 1 or max_distance <= exact:
            raise ValueError(f"t5: {buckets} buckets cannot reach a distance of {max_distance}")
        self.buckets, self.max_distance = buckets, max_distance
        self.table = nn.Parameter(torch.empty(buckets, heads))
        nn.init.normal_(self.table, std=(heads * head_width) ** -0.5)

    def bias(self, queries: Int[Tensor, "#B T"], keys: Int[Tensor, "#B S"]) -> Float[Tensor, "#B H T S"]:
        ahead = keys[:, None, :] - queries[:, :, None]
        return self.table[self.bucket(ahead)].permute(0, 3, 1, 2)

    def bucket(self, ahead: Int[Tensor, "*N"]) -> Int[Tensor, "*N"]:
        """The bucket of each key that is `ahead` of its query (negative: before it)."""
        count, start = self.buckets, torch.zeros_like(ahead)
        if self.causal:
            distance = (-ahead).clamp(min=0)
        else:
            count //= 2
            start = count * (ahead > 0).long()
            distance = ahead.abs()
        exact = count // 2
        far = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        logarithmic = (exact + (far * (count - exact)).long()).clamp(max=count - 1)
        return start + torch.where(distance < exact, distance, logarithmic)


RELATIVE = {"rope": RoPE, "xpos": XPos, "alibi": ALiBi, "t5": T5Bias}
"""By the names that a Recipe has for them."""


def places(state: State | None, T: int, mask: Mask | None, device: torch.device) -> tuple[Int[Tensor, "#B T"], State]:
    """The positions of T steps, and the part of the next state that counts them.

    For mixers whose state does not tell by itself how many steps it has seen: `steps` counts them. Without that count
    positions are 0, 1, ..., and the part is empty.
    """
    now = torch.arange(T, device=device)[None]
    if state is None or "steps" not in state:
        return now, {}
    steps: Tensor = state["steps"]
    return now + steps[:, None], {"steps": steps + (T if mask is None else mask.sum(1))}


def no_steps(batch: int, positions: Part | None, device: torch.device | str) -> State:
    """The count that `places` reads, before the first step; empty where there are no positions to apply."""
    return {} if positions is None else {"steps": torch.zeros(batch, device=device, dtype=torch.long)}
