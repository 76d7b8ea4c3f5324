"""Rows whose weights were made elsewhere: `pretrained: {KIND: WHERE, …}` in a suite, scored as they are, never ranked.

They have no budget, no seed and no training data that could be compared with those of a run: nothing is matched,
trained or tuned, one record stands for all seeds, and a board shows it as external.
"""

from hashlib import blake2b

import torch

from harness.errors import UserError
from harness.records.spec import RunSpec
from harness.suite import pretrained
from tasks.base import Task
from zoo import size as sizing
from zoo.contract import Model
from zoo.published import PretrainedError, load
from zoo.tokenizers import Tokenizer, TokenizerError
from zoo.types import Unsupported

TEXTS = ("The quick brown fox\n", " jumps over 13 lazy dogs; e.g. naïve ones — 日本語.", "  def f(x):\n\treturn x")
"""What two tokenizers must read alike to be taken for one."""


def open_weights(spec: RunSpec, task: Task) -> Model:
    """The published model of a row; a UserError where it cannot be had, Unsupported where it cannot play the task."""
    kind, where, rest = pretrained.kind_and_where(spec.options)
    try:
        model = load(where if kind != "timm" or "/" in where else f"timm/{where}", kind=kind, **rest)
    except PretrainedError as error:
        raise UserError(f"{spec.architecture_label}: {error}") from None
    _fit(model, task)
    return model


def _fit(model: Model, task: Task) -> None:
    """Raises Unsupported where a model cannot play a task without training."""
    if model.role != task.role:
        raise Unsupported(f"its weights are for the role {model.role}; this task asks for {task.role}")
    if task.role == "lm":
        _fit_text(model, task)
    elif model.shape.outputs != task.shape.outputs:
        raise Unsupported(f"it has {model.shape.outputs} classes; this task has {task.shape.outputs}")
    batch = task.batch("valid", 0, size=1)
    try:
        with torch.no_grad():
            model(batch)
    except (ValueError, RuntimeError, IndexError, TypeError) as error:
        raise Unsupported(f"it cannot read this task's inputs: {' '.join(str(error).split())}") from None


def _fit_text(model: Model, task: Task) -> None:
    own, wanted = model.tokenizer, task.tokenizer
    if wanted is None:
        raise Unsupported("it was trained on text; this task's tokens are not text")
    if own is None or not _alike(own, wanted):
        has = "does not come with a tokenizer" if own is None else f"has another tokenizer ({own.kind})"
        raise Unsupported(f"it {has}; this task gives {wanted.kind} tokens")
    if model.longest is not None and model.longest < task.shape.length:
        raise Unsupported(f"it reads {model.longest} tokens at most; this task has {task.shape.length}")


def _alike(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers read a text alike; one that has no token for some character is like itself alone."""
    try:
        return all(one.encode(text, special=False) == other.encode(text) for text in TEXTS)
    except TokenizerError:
        return one.describe() == other.describe()


def size(model: Model, task: Task) -> sizing.Size:
    """The size of a published model."""
    length, params = sizing.decoded_length(model.role, task.shape), sum(p.numel() for p in model.parameters())
    return sizing.Size(
        width=model.shape.width,
        depth=model.shape.depth or 0,
        params=params,
        params_non_embedding=sizing.parameters(model, "non_embedding") if hasattr(model, "backbone") else params,
        state_bytes=sizing.recurrent_state_bytes(model, length) if model.traits.resumable else None,
    )


def weights_digest(model: Model) -> str:
    """BLAKE2 of the weights of a model, names and all."""
    seen = blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        seen.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        seen.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return seen.hexdigest()
