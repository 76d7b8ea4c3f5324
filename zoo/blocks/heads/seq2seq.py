"""seq2seq: logits on the target, from one causal backbone over source ++ shifted target, or encoder and decoder."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from zoo.blocks.heads.base import SequenceModel, make_head
from zoo.blocks.heads.embedding import Embedding
from zoo.blocks.stack import Stack
from zoo.contract import Backbone, Batch, LayerContext, Model, Recipe, Role, Shape, State, Unsupported
from zoo.inputs import check_state, check_tokens
from zoo.layers.tensors import take_steps


class Seq2Seq(SequenceModel):
    """Source and target in one row through a causal backbone, each with its own tokens in a joint table.

    A row holds the valid source tokens, then the shifted target, then padding: where the target starts depends on the
    source's own length alone, and any causal architecture can take part.
    """

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        if shape.vocab is None or shape.target_length is None:
            raise Unsupported("sequence to sequence needs source tokens and a target length")
        length = shape.length + shape.target_length
        super().__init__(recipe, role, shape, vocab=shape.vocab + shape.outputs, length=length)
        self.source_vocab = shape.vocab
        self.head = make_head(recipe, shape.width, shape.outputs, bias=False)

    def forward(self, batch: Batch) -> Float[Tensor, "B U V"]:
        _check(batch, self.shape)
        target = batch.decoder_inputs + self.source_vocab
        (B, S), U = batch.inputs.shape, target.shape[1]
        lengths = torch.full((B,), S, device=target.device) if batch.mask is None else batch.mask.sum(1)
        start = lengths[:, None] + torch.arange(U, device=target.device)
        row = torch.nn.functional.pad(batch.inputs, (0, U)).scatter(1, start, target)
        valid = torch.arange(S + U, device=target.device) < (lengths + U)[:, None]
        y = self.encode(row, None if batch.mask is None else valid)
        return self.head(take_steps(y, start))

    def read(self, inputs: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"] | None = None) -> State:
        """The state after the source, from which `extend` decodes target tokens."""
        check_tokens(inputs, self.source_vocab, mask, name="inputs")
        return self.resume(inputs, self.init_state(len(inputs)), mask)[1]

    def extend(self, tokens: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T V"], State]:
        check_tokens(tokens, self.shape.outputs)
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
        _check(batch, self.shape)
        memory = self.backbone.encoder(self._embed(batch.inputs), mask=batch.mask)[0]
        seen, x = {"memory": memory, "memory_mask": batch.mask}, self._embed(batch.decoder_inputs, target=True)
        return self._logits(self.backbone.decoder(x, shared_context=seen)[0])

    def read(self, inputs: Int[Tensor, "B S"], mask: Bool[Tensor, "B S"] | None = None) -> State:
        """The state after the source, from which `extend` decodes target tokens."""
        check_tokens(inputs, self.source_vocab, mask, name="inputs")
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

    def empty_state(self) -> State:
        table = self.embedding.table.weight
        own = self.backbone.decoder.init_state(1, device=table.device, dtype=table.dtype)
        seen = {"memory": table.new_zeros(1, 0, table.shape[1]), "memory_mask": table.new_zeros(1, 0, dtype=torch.bool)}
        return {"position": table.new_zeros(1, dtype=torch.long), "backbone": own, "shared_context": seen}

    def extend(self, tokens: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T V"], State]:
        check_tokens(tokens, self.shape.outputs)
        check_state(self, state, tokens)
        x, position = self._embed(tokens, state["position"], target=True), state["position"] + tokens.shape[1]
        y, after = self.backbone.decoder(x, state=state["backbone"], shared_context=state["shared_context"])
        return self._logits(y), {**state, "position": position, "backbone": after}

    def _embed(self, tokens: Tensor, start: Tensor | None = None, *, target: bool = False) -> Tensor:
        start = torch.zeros(1, dtype=torch.long, device=tokens.device) if start is None else start
        return self.embedding(tokens + self.source_vocab if target else tokens, start)

    def _logits(self, y: Tensor) -> Tensor:
        if self.head is not None:
            return self.head(y)
        return nn.functional.linear(y, self.embedding.table.weight[self.source_vocab :])


def _check(batch: Batch, shape: Shape) -> None:
    """Refuse a batch that is not for models of this shape."""
    check_tokens(batch.inputs, shape.vocab or 0, batch.mask, name="inputs")
    check_tokens(batch.decoder_inputs, shape.outputs, name="decoder_inputs")
    if len(batch.inputs) != len(batch.decoder_inputs):
        raise ValueError(f"decoder_inputs: {len(batch.decoder_inputs)} rows beside {len(batch.inputs)} of inputs")


class TwoStacks(Backbone):
    """The encoder and the decoder of `EncoderDecoder`."""

    def __init__(self, recipe: Recipe, context: LayerContext, target_length: int) -> None:
        super().__init__()
        self.encoder = Stack(recipe, context, causal=False)
        self.decoder = Stack(recipe, dataclasses.replace(context, length=target_length), causal=True, cross=True)
