"""The stack of blocks."""

import dataclasses
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from zoo.blocks.bidirectional import Bidirectional
from zoo.blocks.residual import RESIDUALS, Residual
from zoo.contract import Backbone, LayerContext, Mask, Mixed, Mixer, Part, Recipe, State, Unsupported, combine
from zoo.layers import CHANNELS, MIXERS
from zoo.layers.norms import make_norm
from zoo.layers.positions import acts, part
from zoo.ops import flops
from zoo.options import make
from zoo.registry import Table


class Stack(Backbone):
    """`depth` blocks, each a mixer and (unless the Recipe has none) a channel mixer with the same residual type.

    With `recompute`, a training step keeps what passes between sublayers alone, and computes the rest again.
    With `cross`, each block also has the Recipe's cross attention between the two, which reads `shared_context`.
    """

    recompute = False

    def __init__(self, recipe: Recipe, context: LayerContext, *, causal: bool, cross: bool = False) -> None:
        super().__init__()
        residuals: list[type[Residual]] = [RESIDUALS.resolve(kind) for kind in recipe.residuals]
        first, width, depth = residuals[0], context.width, context.depth
        if any(kind.open is not first.open for kind in residuals):
            raise ValueError(f"residual types {', '.join(recipe.residuals)} hand on different streams between layers")
        context = dataclasses.replace(
            context, causal=causal, positions=_relative_positions(recipe), gain=first.gain(depth)
        )
        layers = [(dataclasses.replace(context, layer=i), residuals[i % len(residuals)]) for i in range(depth)]
        blocks = [residual.arrange(_block(recipe, at, cross)) for at, residual in layers]
        self.open, self.close = first.open, first.close
        self.norm = make_norm(recipe.norm if first.final_norm else "none", width)
        self.length = context.length
        traits = combine([mixer.traits for block in blocks for mixer in block])
        self.traits = traits if causal else dataclasses.replace(traits, causal="no", resumable=False)
        self.sublayers = nn.ModuleList(
            residual(mixer, width, recipe.norm, recipe.dropout, depth)
            for block, (_, residual) in zip(blocks, layers, strict=True)
            for mixer in block
        )
        for layer, block in enumerate(blocks):
            for mixer in block:
                mixer.reset_parameters(layer=layer, depth=depth)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        *,
        mask: Mask | None = None,
        state: State | None = None,
        shared_context: dict[str, Any] | None = None,
    ) -> Mixed:
        T = x.shape[1]
        if state is None:
            x, mask = self._pad(x, mask)
        stream = self.open(x)
        new: State = {}
        shared_context = dict(shared_context or {})
        again = self.recompute and self.training and state is None and torch.is_grad_enabled()
        for name, sublayer in self.sublayers.named_children():
            before = None if state is None else state[name]
            call = partial(sublayer, mask=mask, state=before, shared_context=shared_context)
            stream, after = flops.checkpoint(call, stream) if again else call(stream)
            if after is not None:
                new[name] = after
        return self.close(stream, self.norm)[:, :T], None if state is None else new

    def _pad(self, x: Tensor, mask: Mask | None) -> tuple[Tensor, Tensor | None]:
        """x with zeros at its end where a mixer needs a fixed length or a multiple, and the mask that says so."""
        B, T, _ = x.shape
        want = self.length if self.traits.length == "fixed" else T + -T % self.traits.multiple
        if self.traits.length != "any" and self.length < T:
            raise ValueError(f"the sequence has {T} steps; this model was built for at most {self.length}")
        if want == T:
            return x, mask
        mask = torch.ones(B, T, dtype=torch.bool, device=x.device) if mask is None else mask
        return F.pad(x, (0, 0, 0, want - T)), F.pad(mask, (0, want - T))

    def init_state(self, batch: int, *, device: torch.device | str, dtype: torch.dtype) -> State:
        sublayers: Any = self.sublayers.named_children()
        return {name: each.inner.init_state(batch, device=device, dtype=dtype) for name, each in sublayers}


def _block(recipe: Recipe, context: LayerContext, cross: bool) -> list[Mixer]:
    """The mixer, the cross attention and the channel mixer of one layer, as far as it has them."""
    at = context.layer % len(recipe.mixers)
    found, channel = [make_mixer(recipe.mixers[at], context)], recipe.channels[at]
    if cross and recipe.cross is not None:
        found.append(make_mixer(recipe.cross, context))
    if channel is not None:
        found.append(make_mixer(channel, context, CHANNELS))
    return found


def _relative_positions(recipe: Recipe) -> Part | None:
    """The positions that act inside the mixers; None where they join the embedding.

    Raises:
        Unsupported: no mixer can apply them.
    """
    how = acts(recipe.positions)
    if how is None:
        return None
    relative = part(recipe.positions)
    if not any(how in MIXERS.resolve(mixer.kind).relative for mixer in recipe.mixers):
        names = ", ".join(dict.fromkeys(mixer.name for mixer in recipe.mixers))
        what = "turn queries and keys" if how == "rotation" else "are added to the scores of pairs"
        raise Unsupported(f"{relative.name} positions {what}, and {names} offers none to act on")
    return relative


def make_mixer(part: Part, context: LayerContext, table: Table = MIXERS) -> Mixer:
    """The mixer of a part; one that only looks back is doubled where the context asks for both directions."""
    kind = table.resolve(part.kind)
    if context.positions is not None and acts(context.positions) not in kind.relative:
        context = dataclasses.replace(context, positions=None)
    if not context.causal and not kind.traits.bidirectional:
        ahead = dataclasses.replace(context, causal=True)
        return Bidirectional(make(table, part, ahead), make(table, part, ahead))
    made: Mixer = make(table, part, context)
    return made
