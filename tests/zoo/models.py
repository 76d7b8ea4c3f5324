"""Small models and tokenizers for tests: random weights, decoding in pieces, and refusals of one line."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo.contract import Batch, Model, Shape, State
from zoo.published import PretrainedError

Module = TypeVar("Module", bound=nn.Module)


def randomise(module: Module, scale: float = 0.3) -> Module:
    """Add N(0, scale) to every parameter, so that nothing hides behind initial zeros and ones; in eval mode."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=scale)
    return module.eval()


RWKV = {
    4: {"expand": 2.0},
    5: {"head_size": 8, "expand": 3.0},
    6: {"head_size": 8, "mix_lora": 5, "decay_lora": 6, "expand": 2.5},
    7: {"head_size": 8, "decay_lora": 5, "a_lora": 6, "v_lora": 7, "gate_lora": 9, "expand": 3.0},
}
"""Options by version, none of them a default."""


def rwkv_model(version: int, *, width: int = 32, depth: int = 2, vocab: int = 13, **options: Any) -> Model:
    """A language model whose every parameter is random."""
    torch.manual_seed(version)
    shape = Shape(length=32, vocab=vocab, outputs=vocab, width=width, depth=depth)
    model = zoo.build(f"rwkv{version}", "lm", shape=shape, **{**RWKV[version], **options}).eval()
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn_like(p) * (0.3 if p.dim() < 2 or p.shape[0] == 1 else p.shape[-1] ** -0.5)
    return model


def close(got: Tensor, want: Tensor, tolerance: float = 1e-10) -> None:
    """The largest difference is at most `tolerance` of the largest number."""
    scale = float(want.detach().abs().max()) if want.numel() else 0.0
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance * scale)


@torch.no_grad()
def logits(model: Model, inputs: Tensor) -> Tensor:
    """The model's logits for a batch of nothing but inputs."""
    return model(Batch(inputs=inputs))


def in_pieces(
    model: Model, tokens: Tensor, sizes: int | Sequence[int], state: State | None = None
) -> tuple[Tensor, State]:
    """The logits of tokens that are read in pieces of these sizes, and the last state."""
    state, found = model.init_state(len(tokens)) if state is None else state, []
    with torch.no_grad():
        for piece in tokens.split(sizes if isinstance(sizes, int) else list(sizes), dim=1):
            y, state = model.extend(piece, state)
            found.append(y)
    return torch.cat(found, 1), state


@contextmanager
def refusal(*words: str) -> Iterator[None]:
    """A context that raises a `PretrainedError` of one line with all of these words."""
    with pytest.raises(PretrainedError) as caught:
        yield
    assert all(found in str(caught.value) for found in words), caught.value
    assert "\n" not in str(caught.value)


def refused(where: Any, *words: str, **options: Any) -> None:
    """Opening published weights raises one line with all of these words."""
    with refusal(*words):
        zoo.load(where, **options)


def byte_pairs(text: str, size: int, *special: str) -> Any:
    """A byte-level BPE like GPT-2's, of the pairs of a text."""
    tokenizers = pytest.importorskip("tokenizers")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=list(special),
    )
    backend.train_from_iterator([text] * 9, trainer)
    return backend


def save_words(file: Path, words: Mapping[str, int]) -> None:
    """Write a tokenizer.json of words between blanks; other words are `?`."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(file))
