"""Write language models of the zoo as folders that `AutoModelForCausalLM` and `AutoTokenizer` open."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.contract import Batch, Model
from zoo.published.errors import PretrainedError, need, one_line, writing
from zoo.published.names import Pair, to_theirs
from zoo.published.transformers import counterparts
from zoo.published.transformers import tokenizer as tokenizers

TOLERANCE = 1e-5
"""The largest difference of logits, relative to the largest logit."""


def save(model: Model, folder: str | Path) -> Path:
    """Write config, weights (safetensors, float32), tokenizer and generation config, if the logits are equal there."""
    transformers = need("transformers", "transformers", "writing a transformers folder")
    counterpart = counterparts.of(model)
    config, ours = counterpart.config(model), copy.deepcopy(model).to("cpu", torch.float32).eval()
    tokenizer = tokenizers.convert(model.tokenizer, model.shape.length) if model.tokenizer else None
    if tokenizer is not None and tokenizer.vocab_size > model.shape.outputs:
        raise PretrainedError(f"the tokenizer has {tokenizer.vocab_size} tokens, and the model {model.shape.outputs}")
    with quiet(transformers):
        theirs: Any = _build(transformers, config | _common(ours, tokenizer))
        _fill(theirs, counterpart.pairs(ours), ours.state_dict())
        error = difference(ours, theirs)
        if not error <= TOLERANCE:
            raise PretrainedError(f"transformers gives other logits from these weights ({error:.1e} of the largest)")
        folder = Path(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if tokenizer is not None:
                tokenizers.save(tokenizer, folder)
            theirs.save_pretrained(folder)
        return folder


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """A context without progress bars, logs and warnings; those that matter become errors here."""
    logs = transformers.utils.logging
    level, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity(logs.CRITICAL)
    logs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()


def difference(ours: Model, theirs: nn.Module) -> float:
    """The largest difference of logits on random tokens, relative to the largest logit."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(ours.shape.outputs, (2, min(ours.shape.length, 64)), generator=generator)
    with torch.no_grad():
        got, want = ours(Batch(inputs=tokens)).double(), theirs(input_ids=tokens, use_cache=False).logits.double()
    return float((got - want).abs().max() / want.abs().max().clamp(min=1e-30))


def _common(model: Model, tokenizer: Any) -> dict[str, Any]:
    """Fields of the config that all families have."""
    return {
        "vocab_size": model.shape.outputs,
        "hidden_size": model.shape.width,
        "num_hidden_layers": model.shape.depth,
        "tie_word_embeddings": model.recipe.tie,
        "bos_token_id": getattr(tokenizer, "bos_token_id", None),
        "eos_token_id": getattr(tokenizer, "eos_token_id", None),
        "pad_token_id": None,
    }


def _build(transformers: Any, config: dict[str, Any]) -> nn.Module:
    """Their model, without touching torch's random state."""
    try:
        with torch.random.fork_rng(devices=[]):
            model: nn.Module = transformers.AutoModelForCausalLM.from_config(
                transformers.AutoConfig.for_model(**config), attn_implementation="eager"
            )
    except Exception as error:  # each config and model has checks of its own
        raise PretrainedError(f"transformers cannot make this {config['model_type']}: {one_line(error)}") from None
    return model.to(torch.float32).eval()


def _fill(theirs: nn.Module, pairs: list[Pair], weights: dict[str, Tensor]) -> None:
    shapes = {name: value.shape for name, value in theirs.state_dict().items()}
    values = to_theirs(pairs, weights, shapes)
    unset = sorted(name for name, _ in theirs.named_parameters() if name not in values)
    if unset:
        raise PretrainedError(f"transformers has tensors that this model lacks: {', '.join(unset[:3])}")
    theirs.load_state_dict(values, strict=False)
