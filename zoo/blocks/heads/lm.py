"""lm and masked: logits for a token at every step, from a causal or a bidirectional backbone."""

from jaxtyping import Float, Int
from torch import Tensor

from zoo.blocks.heads.base import SequenceModel, make_head
from zoo.contract import Batch, Recipe, Role, Shape, State, Unsupported


class MaskedLanguageModel(SequenceModel):
    """Logits for the token at every step, of which some are hidden in the inputs; looks both ways."""

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        if shape.vocab is None:
            kind = "a language model" if role == "lm" else "a masked language model"
            raise Unsupported(f"{kind} reads tokens; this task gives vectors")
        super().__init__(recipe, role, shape, vocab=shape.vocab, length=shape.length)
        self.head = make_head(recipe, shape.width, shape.outputs, bias=False)

    def forward(self, batch: Batch) -> Float[Tensor, "B T V"]:
        return self.head(self.encode(batch.inputs, batch.mask))


class LanguageModel(MaskedLanguageModel):
    """Next-token logits at every step."""

    def __init__(self, recipe: Recipe, role: Role, shape: Shape) -> None:
        super().__init__(recipe, role, shape)
        if recipe.tie and shape.vocab == shape.outputs:
            self.head.weight = self.embedding.table.weight

    def extend(self, tokens: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T V"], State]:
        y, state = self.resume(tokens, state)
        return self.head(y), state
