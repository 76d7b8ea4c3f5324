"""A language model of the zoo as a transformers folder, which `AutoModelForCausalLM` and `AutoTokenizer` open."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.contract import Batch, Model
from zoo.published import counterparts, hf_tokenizer
from zoo.published.errors import PretrainedError, missing
from zoo.published.names import to_theirs
from zoo.published.silence import silenced

TOLERANCE = 1e-5
"""Of their logits from ours, relative to the largest."""


def save(model: Model, folder: str | Path) -> Path:
    """Write config, weights (safetensors, float32), tokenizer and generation config; nothing if logits would differ.

    Raises:
        PretrainedError: transformers has no such model or tokenizer or is not installed, an option that it cannot
            express, or a folder that cannot be written.
    """
    try:
        import transformers
    except ImportError:
        raise missing("transformers", "transformers", "writing a transformers folder") from None
    counterpart = counterparts.of(model)
    config, ours = counterpart.config(model), copy.deepcopy(model).to("cpu", torch.float32).eval()
    tokenizer = hf_tokenizer.to_hf(model.tokenizer, model.shape.length) if model.tokenizer else None
    if tokenizer is not None and tokenizer.vocab_size > config.get("vocab_size", model.shape.outputs):
        raise PretrainedError(f"the tokenizer has {tokenizer.vocab_size} tokens, and the model {model.shape.outputs}")
    with silenced(transformers):
        theirs = _made(transformers, _named(config, ours, tokenizer))
        _fill(theirs, counterpart.pairs(ours), ours.state_dict())
        error = difference(ours, theirs)
        if not error <= TOLERANCE:
            raise PretrainedError(f"transformers gives other logits from these weights ({error:.1e} of the largest)")
        return _write(theirs, tokenizer, Path(folder))


def difference(ours: Model, theirs: nn.Module) -> float:
    """Of the logits of random tokens, relative to the largest."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(ours.shape.outputs, (2, min(ours.shape.length, 64)), generator=generator)
    with torch.no_grad():
        got, want = ours(Batch(inputs=tokens)).double(), theirs(input_ids=tokens, use_cache=False).logits.double()
    return float((got - want).abs().max() / want.abs().max().clamp(min=1e-30))


def _named(config: dict[str, Any], model: Model, tokenizer: Any) -> dict[str, Any]:
    """A config with what all families have."""
    return {
        "vocab_size": model.shape.outputs,
        "tie_word_embeddings": model.recipe.tie,
        **config,
        "bos_token_id": getattr(tokenizer, "bos_token_id", None),
        "eos_token_id": getattr(tokenizer, "eos_token_id", None),
        "pad_token_id": None,
    }


def _made(transformers: Any, config: dict[str, Any]) -> nn.Module:
    """Their model, without touching torch's random state."""
    try:
        with torch.random.fork_rng(devices=[]):
            made = transformers.AutoModelForCausalLM.from_config(
                transformers.AutoConfig.for_model(**config), attn_implementation="eager"
            )
    except Exception as error:  # each of their configs and models checks what it likes
        said = " ".join(str(error).split()) or type(error).__name__
        raise PretrainedError(f"transformers cannot make this {config['model_type']}: {said[:300]}") from None
    made = made.to(torch.float32).eval()
    assert isinstance(made, nn.Module)
    return made


def _fill(theirs: Any, pairs: list[Any], weights: dict[str, Tensor]) -> None:
    shapes = {name: value.shape for name, value in theirs.state_dict().items()}
    found = to_theirs(pairs, weights, shapes)
    lacking = sorted(name for name, _ in theirs.named_parameters() if name not in found)
    assert not lacking, lacking
    theirs.load_state_dict(found, strict=False)


def _write(theirs: Any, tokenizer: Any, folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if tokenizer is not None:
            hf_tokenizer.save(tokenizer, folder)
        theirs.save_pretrained(folder)
    except OSError as error:
        raise PretrainedError(f"{folder}: cannot be written ({error.strerror or error})") from None
    return folder
