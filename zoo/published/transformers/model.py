"""Any causal language model of transformers behind our `Model`; those that the zoo has too also in our own modules.

Abilities of a model are tested on a few random tokens when it is opened: that it does not look ahead, that it resumes
exactly from a state, and that its logits are the head's of the last hidden states and nothing else.
"""

import inspect
import re
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

import zoo
from zoo.contract import Batch, Model, Part, Recipe, Shape, State, Traits, Unsupported
from zoo.inputs import check_inputs, check_state
from zoo.published import files
from zoo.published.errors import PretrainedError, building, need, one_line
from zoo.published.transformers import caches, counterparts
from zoo.published.transformers import tokenizer as tokenizers
from zoo.published.transformers.export import TOLERANCE, difference, quiet

ROUNDING = 1e-3
"""The same as `TOLERANCE` for hybrids, where delta rules and choices of experts magnify rounding in float32."""
LENGTH_DEPENDENT = ("dynamic", "longrope")
"""Rotary embeddings that change with the length of the whole sequence, so that no state resumes exactly."""


def load(
    where: str,
    *,
    through: Literal["transformers", "zoo"] = "transformers",
    dtype: Literal["float32", "bfloat16", "float16", "float64", "auto"] = "float32",
    device: str | torch.device | None = None,
    length: int | None = None,
) -> Model:
    """The model in a folder or on the hub, with its tokenizer. Code that comes with weights is never run.

    Args:
        through: the modules that run it: those of transformers, or ours for an architecture that both have.
        dtype: of the weights; auto keeps the stored one.
        length: the longest sequence that transformers' modules will read; by default that of the config.
    """
    transformers = need("transformers", "transformers", where)
    path = files.find(where)
    folder = path if path.is_dir() else path.parent
    with quiet(transformers):
        inner = _open(transformers, folder, where, dtype)
        tokenizer = tokenizers.load(folder, transformers)
        longest, stated = _length(inner.config, tokenizer)
        if through == "zoo":
            model = _in_our_modules(inner, where)
        else:
            shape = _shape(inner, length or longest, where)
            model = _wrapped(inner, shape, "max" if stated and length is None else "any", where)
    if tokenizer is not None and not (tokenizer.vocab and tokenizer.backend.vocab_size <= model.shape.outputs):
        raise PretrainedError(
            f"{where}: its tokenizer has {tokenizer.backend.vocab_size} tokens, and the model {model.shape.outputs}"
        )
    model.tokenizer = tokenizer
    return model.to(device) if device is not None else model


class CausalLM(Model):
    """A language model that transformers runs.

    Its state holds what transformers caches for every layer (see `zoo.published.transformers.caches`), such as keys and
    values (B, H, T, d); a model that keeps anything else, or keeps it elsewhere, is not resumable. Padding must be on
    the right, where no valid step sees it.

    Args:
        cache: a cache that the model has used; None if the model is not resumable.
        singly: whether it continues from a cache by one token at a time only, as transformers' Jamba does.
    """

    def __init__(
        self,
        inner: Any,
        shape: Shape,
        *,
        length: Literal["any", "max"] = "any",
        cache: Any = None,
        singly: bool = False,
    ) -> None:
        super().__init__()
        self.role, self.shape, self.inner, self.singly = "lm", shape, inner, singly
        self.like = {i: {name: x.to("meta") for name, x in held.items()} for i, held in caches.tensors(cache).items()}
        self.cache = caches.template(cache) if self.like else None
        tied = bool(getattr(inner.config, "tie_word_embeddings", False))
        self.recipe = Recipe(Part(inner.config.model_type), channel=None, tie=tied)
        self.traits = Traits(causal="strict", bidirectional=False, resumable=bool(self.like), length=length)
        arguments = inspect.signature(inner.forward).parameters
        names = ("cache", "past_key_values", "cache_params")  # renamed in transformers 5
        self._cache_name = next((name for name in names if name in arguments), "past_key_values")
        self._takes_positions = "position_ids" in arguments

    @property
    def backbone(self) -> nn.ModuleList:  # type: ignore[override]
        """The modules between embedding tables and head."""
        return nn.ModuleList(_without_tables(self.inner.base_model))

    def forward(self, batch: Batch) -> Float[Tensor, "B T V"]:
        self._check(batch.inputs.shape[1])
        return self.inner(input_ids=batch.inputs, use_cache=False).logits

    def init_state(self, batch: int) -> State:
        if not self.traits.resumable:
            raise Unsupported(f"{self.inner.config.model_type} of transformers cannot resume from a state here")
        own = next(self.parameters())
        layers = {
            i: {
                name: own.new_empty(batch, x.shape[1], 0, x.shape[3])
                if name in "kv"
                else torch.zeros(batch, *x.shape[1:], dtype=x.dtype, device=own.device)
                for name, x in held.items()
            }
            for i, held in self.like.items()
        }
        return {"position": torch.zeros(batch, dtype=torch.long, device=own.device), "layers": layers}

    def extend(self, tokens: Int[Tensor, "B T"], state: State) -> tuple[Float[Tensor, "B T V"], State]:
        check_inputs(tokens, None, name="tokens")
        check_state(self, state, tokens)
        past, (B, T) = int(state["position"].max()) if len(tokens) else 0, tokens.shape
        self._check(past + T)
        if past and self.singly and T > 1:
            logits = []
            for one in tokens.split(1, dim=1):
                y, state = self.extend(one, state)
                logits.append(y)
            return torch.cat(logits, 1), state
        arguments: dict[str, Any] = {}
        if past:
            arguments[self._cache_name] = caches.filled(self.cache, state["layers"])
            if self._takes_positions:  # Bamba counts from 0 whatever its cache holds
                arguments["position_ids"] = torch.arange(past, past + T, device=tokens.device).expand(B, T)
        out = self.inner(input_ids=tokens, use_cache=True, **arguments)
        layers = caches.tensors(_cache_of(out))
        return out.logits, {"position": state["position"] + T, "layers": layers}

    def _check(self, steps: int) -> None:
        if self.longest is not None and steps > self.longest:
            raise Unsupported(f"{self.inner.config.model_type} reads {self.longest} tokens; the sequence goes further")


class HeadedCausalLM(CausalLM):
    """A model whose logits are its head's of the last hidden states, with nothing in between."""

    def encode(self, inputs: Int[Tensor, "B T"], mask: Bool[Tensor, "B T"] | None = None) -> Float[Tensor, "B T D"]:
        """The last hidden states, which `head` turns into logits."""
        self._check(inputs.shape[1])
        return self.inner.base_model(input_ids=inputs, use_cache=False).last_hidden_state

    @property
    def head(self) -> nn.Module:
        """From hidden states to logits."""
        made: nn.Module = self.inner.get_output_embeddings()
        return made


def _open(transformers: Any, folder: Path, where: str, dtype: str) -> Any:
    """The model in eval mode, with every parameter read from the folder."""
    config = files.config(folder)
    if config is None:
        raise PretrainedError(f"{where}: no config.json here; a transformers model is a folder with one")
    family = config.get("model_type")
    if family not in transformers.CONFIG_MAPPING:
        if config.get("auto_map"):
            raise PretrainedError(f"{where}: {family or 'it'} needs code that comes with the weights, which is not run")
        raise PretrainedError(f"{where}: transformers {transformers.__version__} knows no model_type {family!r}")
    files.weights_in(folder)
    newer = tuple(int(part) for part in transformers.__version__.split(".")[:2]) >= (4, 56)
    try:
        made = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _check_depth(made, folder)
        inner, report = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            config=made,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **{"dtype" if newer else "torch_dtype": dtype if dtype == "auto" else getattr(torch, dtype)},
        )
    except Exception as error:  # OSError, ValueError, RuntimeError, safetensors' own, a missing package
        unknown = "Unrecognized configuration class" in str(error)
        problem = f"{family} is no causal language model" if unknown else one_line(error)
        raise PretrainedError(f"{where}: {problem}") from None
    _check_report(report, inner, where)
    return inner.eval()


def _check_depth(config: Any, folder: Path) -> None:
    """Refuse a config with more layers than there are tensors, before time and memory are spent on them."""
    depth, tensors = getattr(config.get_text_config(), "num_hidden_layers", None), len(files.tensor_names(folder))
    if isinstance(depth, int) and depth > tensors:
        raise PretrainedError(f"its config has {depth:,} layers, and its weights are {tensors:,} tensors")


def _check_report(report: dict[str, Any], inner: nn.Module, where: str) -> None:
    """Refuse weights that do not fit: transformers only warns, and draws random ones."""
    for name, theirs, ours in report["mismatched_keys"]:
        raise PretrainedError(f"{where}: {name} has the shape {tuple(theirs)}, where its config makes it {tuple(ours)}")
    numbered = {re.sub(r"\d+", "0", name) for name in inner.state_dict()}
    unexpected = [name for name in report["unexpected_keys"] if re.sub(r"\d+", "0", name) in numbered]  # more layers
    files.refuse_names(report["missing_keys"], unexpected, where)


def _length(config: Any, tokenizer: tokenizers.HuggingFace | None) -> tuple[int, bool]:
    """The longest sequence, and whether the config states it."""
    config = config.get_text_config()
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        if isinstance(length := getattr(config, name, None), int):
            return length, True
    most = tokenizer.backend.model_max_length if tokenizer else None
    return (int(most), False) if most and most < 10**9 else (counterparts.LENGTH, False)


def _shape(inner: Any, length: int, where: str) -> Shape:
    config = inner.config.get_text_config()
    table = inner.get_input_embeddings()
    vocab = getattr(config, "vocab_size", None) or table.weight.shape[0]
    width = getattr(config, "hidden_size", None) or table.weight.shape[1]
    with building(where):
        return Shape(length, vocab, vocab=vocab, width=width, depth=getattr(config, "num_hidden_layers", None))


@torch.no_grad()
def _wrapped(inner: Any, shape: Shape, length: Literal["any", "max"], where: str) -> CausalLM:
    """The model behind our interface, with the abilities that a few random tokens show."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(shape.outputs, (2, min(8, shape.length)), generator=generator).to(inner.device)
    try:
        out = inner(input_ids=tokens, use_cache=True)
        logits = inner(input_ids=tokens, use_cache=False).logits
        other = torch.cat([tokens[:, :-1], (tokens[:, -1:] + 1) % shape.outputs], 1)
        again = inner(input_ids=other, use_cache=False).logits
    except Exception as error:  # its modules need some package or device
        raise PretrainedError(f"{where}: does not run: {one_line(error)}") from None
    if not _near(again[:, :-1], logits[:, :-1]):
        family = inner.config.model_type
        raise PretrainedError(f"{where}: {family} looks ahead, as an encoder does: it is no causal language model")
    kind = HeadedCausalLM if _has_plain_head(inner, tokens, logits) else CausalLM
    cache = None if _depends_on_length(inner.config) else _cache_of(out)
    for singly in (False, True):
        model = kind(inner, shape, length=length, cache=cache, singly=singly)
        if _resumes(model, tokens, logits):
            return model
    return kind(inner, shape, length=length)


def _resumes(model: CausalLM, tokens: Tensor, logits: Tensor) -> bool:
    """Whether reading the tokens in pieces gives the same logits."""
    pieces, half = [], tokens.shape[1] // 2
    try:
        state = model.init_state(len(tokens))
        for piece in (tokens[:, :half], tokens[:, half : half + 1], tokens[:, half + 1 :]):
            if piece.shape[1]:
                y, state = model.extend(piece, state)
                pieces.append(y)
    except Exception:  # no state, or a cache class of its own
        return False
    return _near(torch.cat(pieces, 1), logits)


def _near(got: Tensor, want: Tensor) -> bool:
    """Whether two tensors are equal but for rounding in their precision; a NaN equals a NaN."""
    got, want = got.nan_to_num(), want.nan_to_num()
    tolerance = 2e-5 if want.dtype in (torch.float32, torch.float64) else 5e-2
    return bool((got - want).abs().max() <= tolerance * want.abs().max()) if want.numel() else True


def _has_plain_head(inner: Any, tokens: Tensor, logits: Tensor) -> bool:
    """Whether the head alone gives the logits, bit by bit: a cap or a scale would show."""
    head = inner.get_output_embeddings()
    if head is None or inner.base_model is inner:
        return False
    try:
        hidden = inner.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        return torch.equal(head(hidden), logits)
    except Exception:  # another signature, or hidden states of another width
        return False


def _cache_of(out: Any) -> Any:
    """The cache that a model returned; None where it returned none."""
    names = ("cache", "past_key_values", "cache_params")
    return next((out[name] for name in names if out.get(name) is not None), None)


def _depends_on_length(config: Any) -> bool:
    """Whether rotary embeddings depend on the final length of the sequence."""
    ropes = (getattr(config.get_text_config(), name, None) for name in ("rope_parameters", "rope_scaling"))
    return any(kind in str(rope) for rope in ropes if rope for kind in LENGTH_DEPENDENT)


def _without_tables(module: nn.Module) -> list[nn.Module]:
    """The children of a base model without embedding tables, also nested ones."""
    modules: list[nn.Module] = []
    for child in module.children():
        if isinstance(child, nn.ModuleList) or not any(isinstance(m, nn.Embedding) for m in child.modules()):
            modules.append(child)
        elif not isinstance(child, nn.Embedding):
            modules += _without_tables(child)
    return modules


def _in_our_modules(inner: Any, where: str) -> Model:
    """Our model with the same weights, whose logits are checked to be equal."""
    with building(where):
        architecture, shape, options = counterparts.build_arguments(inner.config)
        model = zoo.build(architecture, shape=shape, **options)
    weights = counterparts.our_weights(model, inner, where)
    files.fit(model, weights, where)
    model = model.to(inner.dtype).eval()
    gap = difference(model, inner)
    tolerance = ROUNDING if inner.config.model_type in counterparts.HYBRIDS else TOLERANCE
    if inner.dtype in (torch.float32, torch.float64) and not gap <= tolerance:
        raise PretrainedError(f"{where}: our {architecture} gives other logits (relative difference {gap:.1e})")
    return model
