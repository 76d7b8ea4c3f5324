"""Models: an embedding, a backbone and a head for one of the roles.

lm           logits for the next token at every step, from a causal backbone
masked       logits for the token at every step, from a bidirectional backbone
classify     mean over the valid steps of a bidirectional backbone, then a linear layer
retrieve     two documents through one encoder, a and b, then an MLP of [a, b, a⊙b, a−b] (LRA's document matching)
seq2seq      one causal backbone over source and target in one row: source ++ shifted target, logits on the target;
             or an encoder and a decoder, for architectures that have cross attention
reconstruct  a causal backbone's last output alone, from which an MLP gives every token back (MAD's compression)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zoo.blocks.stack import Stack
from zoo.contract import ROLES, Backbone, Batch, LayerContext, Model, Recipe, Role, Shape, State, Unsupported
from zoo.layers.initialisation import table_
from zoo.layers.norms import make_norm
from zoo.layers.positions import absolute
from zoo.layers.positions.at_input import sinusoid

CAUSAL: tuple[Role, ...] = ("lm", "seq2seq", "reconstruct")
"""The roles whose one backbone must not look ahead."""
EMBEDDINGS = ("normal", "scaled", "unit", "rwkv4", "rwkv5")


class Embedding(nn.Module):
    """Tokens by a table, vectors by a linear layer; then positions and dropout.

    A table starts as N(0, 1/D) (`normal`, and `scaled`, where inputs are multiplied by √D), as N(0, 1) where no norm
    follows (`unit`), or with a LayerNorm behind it as RWKV-4's (`rwkv4`), orthogonal with gain 1e-4·√max(V, D), or as
    RWKV-5's and later (`rwkv5`), uniform within ±1e-4.
    """

    def __init__(self, recipe: Recipe, context: LayerContext, *, vocab: int | None, features: int | None) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab, context.width) if vocab else nn.Linear(features or 1, context.width)
        if recipe.embedding not in EMBEDDINGS:
            raise ValueError(f"unknown embedding {recipe.embedding!r}; known: {', '.join(EMBEDDINGS)}")
        self.scale = context.width**0.5 if recipe.embedding == "scaled" and vocab else 1.0
        rwkv = recipe.embedding in ("rwkv4", "rwkv5")
        self.norm = nn.LayerNorm(context.width) if rwkv else nn.Identity()
        self.positions = absolute(recipe.positions, context)
        self.dropout = nn.Dropout(recipe.dropout)
        if isinstance(self.table, nn.Embedding):
            if recipe.embedding == "rwkv5":
                nn.init.uniform_(self.table.weight, -1e-4, 1e-4)
            elif rwkv:
                nn.init.orthogonal_(self.table.weight, gain=1e-4 * max(self.table.weight.shape) ** 0.5)
            elif recipe.embedding in ("normal", "scaled"):
                table_(self.table.weight)

    def forward(self, inputs: Tensor, offset: Int[Tensor, "#B"]) -> Float[Tensor, "B T D"]:
        positions = offset[:, None] + torch.arange(inputs.shape[1], device=inputs.device)
        x = self.norm(self.table(inputs))
        if self.scale != 1.0:
            x = x * self.scale
        return self.dropout(self.positions(x, positions))


class SequenceModel(Model):
    """What the roles share: embedding, backbone, and how the two run over a batch or continue from a state."""

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
        """See `Model`; positions may end where the backbone does not."""
        ends = self.embedding.positions.limit
        return super().longest if ends is None else ends

    def encode(self, inputs: Tensor, mask: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, "B T D"]:
        """Backbone outputs for whole sequences."""
        start = torch.zeros(1, dtype=torch.long, device=inputs.device)
        return self.backbone(self.embedding(inputs, start), mask=mask)[0]

    def init_state(self, batch: int) -> State:
        if not self.traits.resumable:
            raise Unsupported("this architecture sees whole sequences only: it cannot continue from a state")
        weight = next(self.parameters())
        position = torch.zeros(batch, dtype=torch.long, device=weight.device)
        backbone = self.backbone.init_state(batch, device=weight.device, dtype=weight.dtype)
        return {"position": position, "backbone": backbone}

    def resume(
        self, inputs: Tensor, state: State, mask: Bool[Tensor, "B T"] | None = None
    ) -> tuple[Float[Tensor, "B T D"], State]:
        """Backbone outputs for `inputs` after `state`, and the next state. Only valid steps move the position on."""
        position, before = state["position"], state["backbone"]
        y, after = self.backbone(self.embedding(inputs, position), mask=mask, state=before)
        assert after is not None
        moved = inputs.shape[1] if mask is None else mask.sum(1)
        return y, {"position": position + moved, "backbone": after}


class LanguageModel(SequenceModel):
    """Next-token logits at every step."""

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        if shape.vocab is None:
            raise Unsupported("a language model reads tokens; this task gives vectors")
        super().__init__(recipe, role, shape, vocab=shape.vocab, length=shape.length)
        self.head = make_head(recipe, shape.width, shape.outputs, bias=False)
        if recipe.tie and shape.vocab == shape.outputs:
            self.head.weight = self.embedding.table.weight

    def forward(self, batch: Batch) -> Float[Tensor, "B T V"]:
        return self.head(self.encode(batch.inputs, batch.mask))

    def extend(self, tokens: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T V"], State]:
        y, state = self.resume(tokens, state)
        return self.head(y), state


class MaskedLanguageModel(SequenceModel):
    """Logits for the token at every step, of which some are hidden in the inputs; looks both ways."""

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        if shape.vocab is None:
            raise Unsupported("a masked language model reads tokens; this task gives vectors")
        super().__init__(recipe, role, shape, vocab=shape.vocab, length=shape.length)
        self.head = make_head(recipe, shape.width, shape.outputs, bias=False)

    def forward(self, batch: Batch) -> Float[Tensor, "B T V"]:
        return self.head(self.encode(batch.inputs, batch.mask))


class Reconstructor(SequenceModel):
    """Every token again, from the output z at the last valid step alone.

    logits_t = W · MLP(z + PE_t) with sinusoids PE and two layers h ← GELU(W h) that keep the width, a norm before each
    product (Poli et al. 2024, arXiv:2403.17844, section 3.1, Compression; mad/model/auto_encoder.py).
    """

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        super().__init__(recipe, role, shape, vocab=shape.vocab, length=shape.length)
        layers = [make_norm("rms_one", shape.width), nn.Linear(shape.width, shape.width), nn.GELU()]
        again = [make_norm("rms_one", shape.width), nn.Linear(shape.width, shape.width), nn.GELU()]
        self.decoder = nn.Sequential(*layers, *again, make_norm("rms_one", shape.width))
        self.head = make_head(recipe, shape.width, shape.outputs, bias=True)

    def forward(self, batch: Batch) -> Float[Tensor, "B T V"]:
        y = self.encode(batch.inputs, batch.mask)
        B, T, D = y.shape
        last = torch.full((B,), T, device=y.device) if batch.mask is None else batch.mask.sum(1)
        z = y.gather(1, (last - 1).clamp(min=0)[:, None, None].expand(-1, 1, D))
        positions = torch.arange(T, device=y.device)[None]
        return self.head(self.decoder(z + sinusoid(positions, D).to(y.dtype)))


class Classifier(SequenceModel):
    """One label per sequence, from the mean over its valid steps."""

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        super().__init__(recipe, role, shape, vocab=shape.vocab, length=shape.length)
        self.head = make_head(recipe, shape.width, shape.outputs, bias=True)

    def pool(self, inputs: Tensor, mask: Bool[Tensor, "B T"] | None) -> Float[Tensor, "B D"]:
        y = self.encode(inputs, mask)
        if mask is None:
            return y.mean(1)
        weight = mask[..., None].to(y.dtype)
        return (y * weight).sum(1) / weight.sum(1).clamp(min=1)

    def forward(self, batch: Batch) -> Float[Tensor, "B C"]:
        return self.head(self.pool(batch.inputs, batch.mask))


class Retriever(Classifier):
    """Whether two documents belong together: one encoder for both, then an MLP of their difference and product."""

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        super().__init__(recipe, role, shape)
        D = shape.width
        self.compare = nn.Sequential(nn.Linear(4 * D, D), nn.ReLU())

    def forward(self, batch: Batch) -> Float[Tensor, "B C"]:
        a, b = self.pool(batch.inputs, batch.mask), self.pool(batch.inputs2, batch.mask2)
        return self.head(self.compare(torch.cat([a, b, a * b, a - b], dim=-1)))


class Seq2Seq(SequenceModel):
    """Source and target in one row through a causal backbone, each with its own tokens in a joint table.

    A row holds the valid source tokens, then the shifted target, then padding, so that nothing but the source's own
    length decides where the target starts, and any causal architecture can play.
    """

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        if shape.vocab is None or shape.target_length is None:
            raise Unsupported("sequence to sequence needs source tokens and a target length")
        length = shape.length + shape.target_length
        super().__init__(recipe, role, shape, vocab=shape.vocab + shape.outputs, length=length)
        self.source_vocab = shape.vocab
        self.head = make_head(recipe, shape.width, shape.outputs, bias=False)

    def forward(self, batch: Batch) -> Float[Tensor, "B U V"]:
        target = batch.decoder_inputs + self.source_vocab
        (B, S), U = batch.inputs.shape, target.shape[1]
        lengths = torch.full((B,), S, device=target.device) if batch.mask is None else batch.mask.sum(1)
        start = lengths[:, None] + torch.arange(U, device=target.device)
        row = torch.nn.functional.pad(batch.inputs, (0, U)).scatter(1, start, target)
        valid = torch.arange(S + U, device=target.device) < (lengths + U)[:, None]
        y = self.encode(row, None if batch.mask is None else valid)
        return self.head(y.gather(1, start[..., None].expand(-1, -1, y.shape[-1])))

    def read(self, inputs: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"] | None = None) -> State:
        """The state after the source, from which `extend` decodes target tokens."""
        return self.resume(inputs, self.init_state(len(inputs)), mask)[1]

    def extend(self, tokens: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T V"], State]:
        y, state = self.resume(tokens + self.source_vocab, state)
        return self.head(y), state


class EncoderDecoder(Model):
    """A bidirectional encoder for the source and a causal decoder that attends to it; one table for both.

    The table holds source tokens, then target tokens; with `tie` the rows of the targets are the output head too.
    """

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        super().__init__()
        if shape.vocab is None or shape.target_length is None:
            raise Unsupported("sequence to sequence needs source tokens and a target length")
        assert shape.depth is not None
        self.recipe, self.role, self.shape = recipe, role, shape
        length, self.source_vocab = max(shape.length, shape.target_length), shape.vocab
        context = LayerContext(width=shape.width, length=length, depth=shape.depth)
        self.embedding = Embedding(recipe, context, vocab=shape.vocab + shape.outputs, features=None)
        self.backbone = TwoStacks(recipe, dataclasses.replace(context, length=shape.length), shape.target_length)
        self.traits = self.backbone.decoder.traits
        self.head = None if recipe.tie else make_head(recipe, shape.width, shape.outputs, bias=False)

    backbone: TwoStacks

    def forward(self, batch: Batch) -> Float[Tensor, "B U V"]:
        memory = self.backbone.encoder(self._embed(batch.inputs), mask=batch.mask)[0]
        shared_context = {"memory": memory, "memory_mask": batch.mask}
        return self._logits(
            self.backbone.decoder(self._embed(batch.decoder_inputs, target=True), shared_context=shared_context)[0]
        )

    def read(self, inputs: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"] | None = None) -> State:
        """The state after the source, from which `extend` decodes target tokens."""
        B, device = len(inputs), inputs.device
        memory = self.backbone.encoder(self._embed(inputs), mask=mask)[0]
        seen = {"memory": memory} if mask is None else {"memory": memory, "memory_mask": mask}
        position = torch.zeros(B, dtype=torch.long, device=device)
        own = self.backbone.decoder.init_state(B, device=device, dtype=memory.dtype)
        return {"position": position, "backbone": own, "shared_context": seen}

    def init_state(self, batch: int) -> State:
        """The state after an empty source, one step that holds nothing."""
        table = self.embedding.table.weight
        mask = torch.zeros(batch, 1, dtype=torch.bool, device=table.device)
        return self.read(torch.zeros(batch, 1, dtype=torch.long, device=table.device), mask)

    def extend(self, tokens: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T V"], State]:
        x = self._embed(tokens, state["position"], target=True)
        y, after = self.backbone.decoder(x, state=state["backbone"], shared_context=state["shared_context"])
        return self._logits(y), {
            "position": state["position"] + tokens.shape[1],
            "backbone": after,
            "shared_context": state["shared_context"],
        }

    def _embed(self, tokens: Tensor, start: Tensor | None = None, *, target: bool = False) -> Tensor:
        start = torch.zeros(1, dtype=torch.long, device=tokens.device) if start is None else start
        return self.embedding(tokens + self.source_vocab if target else tokens, start)

    def _logits(self, y: Tensor) -> Tensor:
        if self.head is not None:
            return self.head(y)
        return nn.functional.linear(y, self.embedding.table.weight[self.source_vocab :])


class TwoStacks(Backbone):
    """The encoder and the decoder of `EncoderDecoder`."""

    def __init__(self, recipe: Recipe, context: LayerContext, target_length: int) -> None:
        super().__init__()
        self.encoder = Stack(recipe, context, causal=False)
        self.decoder = Stack(recipe, dataclasses.replace(context, length=target_length), causal=True, cross=True)


def make_head(recipe: Recipe, width: int, outputs: int, *, bias: bool) -> nn.Linear:
    """The output projection: N(0, 0.02), or as RWKV-4 does: orthogonal with gain ½√max(1, V/D)."""
    head = nn.Linear(width, outputs, bias=bias)
    if recipe.head == "rwkv4":
        nn.init.orthogonal_(head.weight, gain=0.5 * max(1.0, outputs / width) ** 0.5)
    elif recipe.head == "linear":
        nn.init.normal_(head.weight, std=0.02)
    else:
        raise ValueError(f"unknown head {recipe.head!r}; known: linear, rwkv4")
    if bias:
        nn.init.zeros_(head.bias)
    return head


MODELS: dict[Role, Callable[[Recipe, Role, Shape], Model]] = {
    "lm": LanguageModel,
    "masked": MaskedLanguageModel,
    "classify": Classifier,
    "retrieve": Retriever,
    "seq2seq": Seq2Seq,
    "reconstruct": Reconstructor,
}


def _near(shape: Shape, recipe: Recipe) -> str:
    """The widths on either side that would do."""
    below = shape.width // recipe.width_multiple * recipe.width_multiple
    return f", such as {f'{below} or ' if below else ''}{below + recipe.width_multiple}"


def assemble(recipe: Recipe, role: Role, shape: Shape) -> Model:
    """The model of a recipe for one role and shape.

    Raises:
        ValueError: the role is unknown, or a size or option cannot be.
        Unsupported: the architecture cannot play the role.
    """
    if role not in MODELS:
        raise ValueError(f"unknown role {role!r}; known: {', '.join(ROLES)}")
    depth = shape.depth or recipe.depth
    if depth < 1:
        raise ValueError(f"depth must be at least 1, got {depth}")
    if shape.width % recipe.width_multiple:
        raise ValueError(f"width {shape.width} must be a multiple of {recipe.width_multiple}{_near(shape, recipe)}")
    kind = EncoderDecoder if role == "seq2seq" and recipe.cross is not None else MODELS[role]
    try:
        return kind(recipe, role, dataclasses.replace(shape, depth=depth))
    except (RuntimeError, TypeError, OverflowError) as error:
        if "overflow" not in str(error).lower():
            raise
        raise ValueError(f"width {shape.width} and these options need a larger tensor than there can be") from None
