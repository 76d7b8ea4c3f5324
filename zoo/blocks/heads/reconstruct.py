"""reconstruct: every token again, from a causal backbone's last output alone (MAD's compression)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.blocks.heads.base import SequenceModel, make_head
from zoo.contract import Batch, Recipe, Role, Shape
from zoo.layers.norms import make_norm
from zoo.layers.positions.at_input import sinusoid
from zoo.layers.tensors import take_steps


class Reconstructor(SequenceModel):
    """Logits for every token of the input, from the output z at the last valid step alone.

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
        z = take_steps(y, (last - 1).clamp(min=0)[:, None])
        positions = torch.arange(T, device=y.device)[None]
        return self.head(self.decoder(z + sinusoid(positions, D).to(y.dtype)))
