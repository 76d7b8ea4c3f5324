"""What the models of all roles share."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.blocks.heads.embedding import Embedding
from zoo.blocks.stack import Stack
from zoo.contract import LayerContext, Mask, Model, Recipe, Role, Shape, State, Unsupported
from zoo.inputs import check_inputs, check_state

CAUSAL: tuple[Role, ...] = ("lm", "seq2seq", "reconstruct")
"""The roles whose one backbone must not look ahead."""


class SequenceModel(Model):
    """An embedding and a backbone, and how the two run over a batch or continue from a state."""

    def __init__(self, recipe: Recipe, role: Role, shape: Shape, *, vocab: int | None, length: int) -> None:
        super().__init__()
        self.recipe, self.role, self.shape = recipe, role, shape
        assert shape.depth is not None
        context = LayerContext(width=shape.width, length=length, depth=shape.depth)
        self.embedding = Embedding(recipe, context, vocab=vocab, features=shape.features)
        self.backbone = Stack(recipe, context, causal=role in CAUSAL)
        self.traits = self.backbone.traits

    @property
    def longest(self) -> int | None:
        """See `Model`. Positions may end where the backbone does not."""
        ends = self.embedding.positions.limit
        return super().longest if ends is None else ends

    def encode(self, inputs: Tensor, mask: Mask | None = None) -> Float[Tensor, "B T D"]:
        """Backbone outputs for whole sequences."""
        check_inputs(inputs, mask, features=self.shape.features)
        start = torch.zeros(1, dtype=torch.long, device=inputs.device)
        return self.backbone(self.embedding(inputs, start), mask=mask)[0]

    def init_state(self, batch: int) -> State:
        if not self.traits.resumable:
            raise Unsupported("this architecture sees whole sequences only: it cannot continue from a state")
        weight = next(self.parameters())
        position = torch.zeros(batch, dtype=torch.long, device=weight.device)
        backbone = self.backbone.init_state(batch, device=weight.device, dtype=weight.dtype)
        return {"position": position, "backbone": backbone}

    def resume(self, inputs: Tensor, state: State, mask: Mask | None = None) -> tuple[Float[Tensor, "B T D"], State]:
        """Backbone outputs for `inputs` after `state`, and the next state. Only valid steps move the position on."""
        check_inputs(inputs, mask, name="tokens")
        check_state(self, state, inputs)
        position, before = state["position"], state["backbone"]
        y, after = self.backbone(self.embedding(inputs, position), mask=mask, state=before)
        assert after is not None
        moved = inputs.shape[1] if mask is None else mask.sum(1)
        return y, {"position": position + moved, "backbone": after}


class Capped(nn.Linear):
    """c tanh(y / c) of the linear layer's y, with c = 30 (RecurrentGemma; Gemma 2, arXiv:2408.00118, section 2)."""

    cap = 30.0

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        return self.cap * torch.tanh(super().forward(x) / self.cap)


def make_head(recipe: Recipe, width: int, outputs: int, *, bias: bool) -> nn.Linear:
    """The output projection: N(0, 0.02), or as RWKV-4 does: orthogonal with gain ½√max(1, V/D). See also `Capped`."""
    head = (Capped if recipe.head == "capped" else nn.Linear)(width, outputs, bias=bias)
    if recipe.head == "rwkv4":
        nn.init.orthogonal_(head.weight, gain=0.5 * max(1.0, outputs / width) ** 0.5)
    elif recipe.head in ("linear", "capped"):
        nn.init.normal_(head.weight, std=0.02)
    else:
        raise ValueError(f"unknown head {recipe.head!r}; known: linear, capped, rwkv4")
    if bias:
        nn.init.zeros_(head.bias)
    return head
